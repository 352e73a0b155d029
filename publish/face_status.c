#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "publish/face.h"

/* ---- the cluster ---- */

/* "ANY 1 (m2, m3)", by members' names: copies and epochs are for PostgreSQL. */
static json_t *rule_text(const struct face *face, const Rule *rule) {
    if (rule->needed == 0)
        return json_string("none");
    char text[32 + VOTERS_MAX * (NAME_MAX_LENGTH + 2)];
    size_t at = (size_t)snprintf(text, sizeof text, "ANY %" PRIu32 " (", rule->needed);
    for (unsigned i = 0; i < rule->standbys_count; i++) {
        const Member *member = topology_member(face->topology, rule->standbys[i].member);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", i > 0 ? ", " : "",
                               member != NULL ? member->name : "?");
    }
    snprintf(text + at, sizeof text - at, ")");
    return face_text(text);
}

static json_t *rules(const struct face *face) {
    json_t *list = json_array();
    for (unsigned i = 0; i < face->topology->rules_count; i++)
        json_array_append_new(list, rule_text(face, &face->topology->rules[i]));
    return list;
}

/* With no acknowledgement but the primary's own where the settings ask for some. */
static bool degraded(const struct face *face) {
    const Rule *rule = face_newest_rule(face);
    return rule != NULL && rule->needed == 0 && topology_data_members(face->topology) > 1 &&
           face->topology->settings.durability != DURABILITY_ASYNC;
}

/* In async: what a failover at this moment would lose; null when no standby streams. */
static json_t *possible_loss(const struct face *face) {
    const Topology *topology = face->topology;
    json_t *least = json_null();
    if (topology->settings.durability != DURABILITY_ASYNC || !topology->open || topology->sealed)
        return least;
    for (unsigned i = 0; i < topology->members_count; i++) {
        const Member *member = &topology->members[i];
        const Observation *seen = face_seen(face, member->id);
        if (member->witness || member->priority == 0 || seen == NULL || !seen->streaming)
            continue;
        json_t *lag = face_lag_bytes(face, member);
        if (json_is_integer(lag) && (json_is_null(least) || json_integer_value(lag) < json_integer_value(least)))
            least = lag;
        else
            json_decref(lag);
    }
    return least;
}

static json_t *timeline(const struct face *face) {
    const Epoch *epoch = topology_epoch(face->topology, face->topology->epoch);
    return epoch != NULL ? json_integer(epoch->timeline) : json_null();
}

/* When the epoch was opened, by the proposer's wall clock. */
static json_t *since_ms(const struct face *face) {
    for (unsigned i = face->history->entries_count; i-- > 0;) {
        const HistoryEntry *entry = &face->history->entries[i];
        if (entry->kind == HISTORY_OPENED && entry->epoch == face->topology->epoch)
            return json_integer((json_int_t)entry->wall_ms);
    }
    return json_null();
}

static json_t *name_of(const struct face *face, uint32_t id) {
    const Member *member = topology_member(face->topology, id);
    return member != NULL ? face_text(member->name) : json_null();
}

static json_t *switchover(const struct face *face) {
    const Intent *intent = &face->topology->intent;
    if (intent->kind != INTENT_SWITCHOVER)
        return json_null();
    return json_pack("{s:o, s:o, s:I, s:I}", "from", name_of(face, intent->from), "to", name_of(face, intent->to),
                     "epoch", (json_int_t)intent->epoch, "number", (json_int_t)intent->number);
}

/* ---- a member ---- */

static const char *duty(const struct face *face, const Member *member) {
    if (member->observer)
        return "observer";
    if (member->witness)
        return "witness";
    if (face->topology->epoch == 0)
        return "-";
    return member == face_primary(face) ? "primary" : "standby";
}

static const char *sync_word(const struct face *face, const Member *member) {
    if (!face_member_streams(face, member))
        return "-";
    return face_member_sync(face, member) ? "sync" : "async";
}

/* A receiver connects as `<own name>_<copy>_<epoch>`: the epoch tells to whom. */
static json_t *upstream(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id);
    if (seen == NULL || seen->server != SERVER_STANDBY || seen->upstream[0] == '\0')
        return json_null();
    char name[NAME_MAX_LENGTH + 1];
    uint32_t copy, number;
    if (!application_name_parse(seen->upstream, name, &copy, &number))
        return face_text(seen->upstream);
    const Epoch *epoch = topology_epoch(face->topology, number);
    return epoch != NULL ? name_of(face, epoch->primary.member) : json_null();
}

static const char *raft_role(const struct face *face, const Member *member) {
    if (face->leader[0] == '\0' || member->observer)
        return "-";
    return strcmp(face->leader, member->name) == 0 ? "leader" : "follower";
}

/* What the newest observation says, however old: `age_ms` tells. */
static void add_seen(json_t *json, const struct face_member *known, const Observation *seen) {
    char lsn[LSN_TEXT_MAX];
    bool position = known->heard && seen->position.lsn > 0;
    json_object_set_new(json, "timeline", position ? json_integer(seen->position.timeline) : json_null());
    json_object_set_new(json, "lsn", position ? json_string(lsn_text(seen->position.lsn, lsn)) : json_null());
    json_object_set_new(json, "activity", face_text(known->heard ? seen->activity : ""));
    json_object_set_new(json, "trouble", face_text(known->heard ? seen->trouble : ""));
    json_object_set_new(json, "age_ms", known->heard ? json_integer((json_int_t)known->age_ms) : json_null());
}

static json_t *member_status(const struct face *face, const Member *member) {
    json_t *json = json_pack(
        "{s:o, s:o, s:i, s:s, s:s, s:o, s:o, s:s, s:o, s:s}", "name", face_text(member->name), "host",
        face_text(member->postgres_host), "port", (int)member->postgres_port, "duty", duty(face, member), "state",
        face_member_state(face, member), "lag_bytes", face_lag_bytes(face, member), "lag_ms", face_lag_ms(face, member),
        "sync", sync_word(face, member), "upstream", upstream(face, member), "raft", raft_role(face, member));
    add_seen(json, &face->members[member->id - 1], &face->seen[member->id - 1]);
    return json;
}

static json_t *members_status(const struct face *face) {
    json_t *members = json_array();
    for (unsigned i = 0; i < face->topology->members_count; i++)
        json_array_append_new(members, member_status(face, &face->topology->members[i]));
    return members;
}

char *face_members_json(const struct face *face) {
    return face_dump(json_pack("{s:o, s:b, s:o}", "cluster", face_text(face->topology->cluster_name), "fresh",
                               face->fresh, "members", members_status(face)));
}

static json_t *publishing(const struct face *face) {
    json_t *list = json_array();
    for (unsigned i = 0; i < face->outputs_count; i++) {
        const struct face_output *output = &face->outputs[i];
        json_array_append_new(
            list, json_pack("{s:s, s:o, s:o, s:o}", "output", output->name, "where", face_text(output->where), "index",
                            output->shown ? json_integer((json_int_t)output->index) : json_null(), "error",
                            output->trouble[0] != '\0' ? face_text(output->trouble) : json_null()));
    }
    return list;
}

char *face_status_json(const struct face *face) {
    const Topology *topology = face->topology;
    const Member *primary = face_primary(face);
    char cluster_id[17];
    snprintf(cluster_id, sizeof cluster_id, "%016" PRIx64, topology->cluster_id);

    json_t *json =
        json_pack("{s:o, s:s, s:o, s:s, s:o, s:I, s:I, s:I, s:o, s:o, s:b, s:b, s:b}", "cluster",
                  face_text(topology->cluster_name), "cluster_id", cluster_id, "self", face_text(face->name), "version",
                  face->version, "leader", face_text(face->leader), "term", (json_int_t)face->term, "epoch",
                  (json_int_t)topology->epoch, "index", (json_int_t)topology->index, "timeline", timeline(face),
                  "primary", primary != NULL ? face_text(primary->name) : json_null(), "sealed", topology->sealed,
                  "open", topology->open && !topology->sealed, "fresh", face->fresh);
    json_t *more =
        json_pack("{s:o, s:I, s:o, s:b, s:s, s:I, s:s, s:o, s:o, s:o, s:o}", "since_ms", since_ms(face), "time_ms",
                  (json_int_t)time_wall_ms(), "rules", rules(face), "degraded", degraded(face), "durability",
                  durability_name(topology->settings.durability), "lease_ms", (json_int_t)topology->settings.lease_ms,
                  "superuser", face->superuser, "switchover", switchover(face), "waiting", face_text(face->waiting),
                  "members", members_status(face), "publishing", publishing(face));
    json_object_set_new(more, "record_lost", json_boolean(face->record_lost));
    json_object_set_new(more, "file_damaged", json_boolean(face->file_damaged));
    json_object_set_new(more, "possible_loss_bytes", possible_loss(face));
    json_object_set_new(more, "max_loss_bytes", json_integer((json_int_t)topology->settings.max_loss_bytes));
    json_object_update(json, more);
    json_decref(more);
    return face_dump(json);
}
