#include "publish/face.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SILENCE_MIN_MS 1000 /* a lease may be shorter than a hiccup of the network */
#define SELDOM_MS      2000 /* more between voters and observers, who tell each other something every second */

/* ---- what is known of a member ---- */

static bool is_observer(const struct face *face, uint32_t id) {
    const Member *member = topology_member(face->topology, id);
    return member != NULL && member->observer;
}

static uint64_t silence_ms(const struct face *face, uint32_t member) {
    uint64_t lease_ms = face->topology->settings.lease_ms;
    uint64_t usual = lease_ms > SILENCE_MIN_MS ? lease_ms : SILENCE_MIN_MS;
    return is_observer(face, member) || is_observer(face, face->self) ? usual + SELDOM_MS : usual;
}

const Observation *face_seen(const struct face *face, uint32_t member) {
    if (member == 0 || member > MEMBERS_MAX)
        return NULL;
    const struct face_member *known = &face->members[member - 1];
    return known->heard && known->age_ms <= silence_ms(face, member) ? &face->seen[member - 1] : NULL;
}

const Member *face_primary(const struct face *face) {
    const Topology *topology = face->topology;
    if (topology->epoch == 0 || topology->sealed)
        return NULL;
    return topology_member(topology, topology->primary.member);
}

const Member *face_shown_primary(const struct face *face) {
    return face->fresh && face->topology->open ? face_primary(face) : NULL;
}

const Rule *face_newest_rule(const struct face *face) {
    const Topology *topology = face->topology;
    return topology->rules_count > 0 ? &topology->rules[topology->rules_count - 1] : NULL;
}

/* The primary's row for this member, NULL if it has none. */
static const Sender *sender_of(const struct face *face, const Member *member) {
    const Member *primary = face_primary(face);
    const Observation *seen = primary != NULL ? face_seen(face, primary->id) : NULL;
    for (unsigned i = 0; seen != NULL && i < seen->senders_count; i++) {
        char name[NAME_MAX_LENGTH + 1];
        uint32_t copy, epoch;
        if (application_name_parse(seen->senders[i].name, name, &copy, &epoch) && strcmp(name, member->name) == 0 &&
            epoch == face->topology->epoch)
            return &seen->senders[i];
    }
    return NULL;
}

/* One observer does not hear another: what the primary sees of it is all there is to know. NULL if we hear it, or
 * should. */
static const Sender *told_by_primary(const struct face *face, const Member *member) {
    bool unheard = member->observer && is_observer(face, face->self) && member->id != face->self;
    return unheard ? sender_of(face, member) : NULL;
}

bool face_member_streams(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id);
    const Sender *sender = told_by_primary(face, member);
    if (sender != NULL)
        return strcmp(sender->state, "streaming") == 0;
    return seen != NULL && seen->server == SERVER_STANDBY && seen->streaming;
}

/* ---- its state, in words ---- */

/* What is under way while the server is down shows better than "down". */
static const char *down_state(const Observation *seen) {
    static const struct {
        const char *activity, *state;
    } under_way[] = {{"clon", "cloning"}, {"rewind", "rewinding"}, {"initdb", "creating"}, {"adopt", "adopting"}};
    for (unsigned i = 0; i < sizeof under_way / sizeof *under_way; i++)
        if (strncmp(seen->activity, under_way[i].activity, strlen(under_way[i].activity)) == 0)
            return under_way[i].state;
    switch (seen->data) {
    case DATA_EMPTY:
    case DATA_BROKEN:
    case DATA_REFUSED:
        return data_state_name(seen->data);
    default:
        return "down";
    }
}

static const char *standby_state(const struct face *face, const Member *member, const Observation *seen) {
    if (member == face_primary(face))
        return "promoting";
    if (!seen->streaming)
        return "not streaming";
    const Sender *sender = sender_of(face, member);
    return sender != NULL && strcmp(sender->state, "catchup") == 0 ? "catching up" : "streaming";
}

const char *face_member_state(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id);
    const Sender *told = told_by_primary(face, member);
    if (told != NULL)
        return strcmp(told->state, "catchup") == 0 ? "catching up" : told->state;
    if (seen == NULL)
        return member->id <= MEMBERS_MAX && face->members[member->id - 1].heard ? "unreachable" : "unknown";
    if (member->witness)
        return "running";
    switch (seen->server) {
    case SERVER_DOWN:
        return down_state(seen);
    case SERVER_STANDBY:
        return standby_state(face, member, seen);
    case SERVER_PRIMARY:
        return member == face_primary(face) ? "running" : "former primary";
    default:
        return server_state_name(seen->server);
    }
}

bool face_member_sync(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id);
    const Rule *rule = face_newest_rule(face);
    return seen != NULL && seen->streaming && rule != NULL && rule->needed > 0 &&
           rule_names_copy(rule, (Copy){.member = member->id, .copy = seen->copy});
}

/* ---- lag ---- */

static uint64_t received_lsn(const Observation *seen) {
    return seen->receive_lsn > seen->position.lsn ? seen->receive_lsn : seen->position.lsn;
}

/* NULL where positions do not compare: nobody knows the primary's, or the member has left its history. */
static const Observation *compared_with(const struct face *face, const Member *member, const Observation *seen) {
    const Member *primary = face_primary(face);
    const Observation *from = primary != NULL && primary != member ? face_seen(face, primary->id) : NULL;
    if (from == NULL || from->server != SERVER_PRIMARY)
        return NULL;
    if (told_by_primary(face, member) != NULL)
        return from;
    if (seen == NULL || seen->position.lsn == 0)
        return NULL;
    if (!seen->streaming && !lineage_contains(face->topology, face->topology->epoch, seen->position))
        return NULL;
    return from;
}

static json_t *bytes_between(uint64_t at, uint64_t primary) {
    return json_integer(primary > at ? (json_int_t)(primary - at) : 0);
}

json_t *face_lag_bytes(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id), *from = compared_with(face, member, seen);
    if (from == NULL)
        return json_null();
    /* The primary's own row was seen together with its position: prefer it to one seen at another moment. */
    const Sender *sender = sender_of(face, member);
    bool by_row = sender != NULL && (sender->flush_lsn > 0 || seen == NULL);
    return bytes_between(by_row ? sender->flush_lsn : received_lsn(seen), from->position.lsn);
}

json_t *face_replay_lag_bytes(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id), *from = compared_with(face, member, seen);
    const Sender *told = told_by_primary(face, member);
    if (from == NULL)
        return json_null();
    return bytes_between(told != NULL ? told->replay_lsn : seen->position.lsn, from->position.lsn);
}

json_t *face_lag_ms(const struct face *face, const Member *member) {
    const Sender *sender = sender_of(face, member);
    return sender != NULL ? json_integer(sender->replay_lag_ms) : json_null();
}

/* ---- JSON ---- */

json_t *face_text(const char *text) {
    json_t *json = json_string(text);
    if (json != NULL)
        return json;
    char plain[ERROR_TEXT_MAX];
    snprintf(plain, sizeof plain, "%s", text);
    for (char *at = plain; *at != '\0'; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    return json_string(plain);
}

char *face_dump(json_t *json) {
    char *text = json != NULL ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    return text;
}

static json_t *address(const Member *member) {
    return json_pack("{s:o, s:o, s:i}", "member", face_text(member->name), "host", face_text(member->postgres_host),
                     "port", (int)member->postgres_port);
}

static json_t *standby(const struct face *face, const Member *member, bool lag) {
    json_t *json = address(member);
    json_object_set_new(json, "state", face_text(face_member_state(face, member)));
    if (lag) {
        json_object_set_new(json, "lag_bytes", face_lag_bytes(face, member));
        json_object_set_new(json, "lag_ms", face_lag_ms(face, member));
    }
    json_object_set_new(json, "sync", json_boolean(face_member_sync(face, member)));
    return json;
}

json_t *face_topology(const struct face *face, bool lag) {
    const Topology *topology = face->topology;
    const Member *primary = face_primary(face), *shown = face_shown_primary(face);
    char cluster_id[17];
    snprintf(cluster_id, sizeof cluster_id, "%016" PRIx64, topology->cluster_id);
    json_t *standbys = json_array();
    for (unsigned i = 0; i < topology->members_count; i++)
        if (!topology->members[i].witness && &topology->members[i] != primary)
            json_array_append_new(standbys, standby(face, &topology->members[i], lag));
    return json_pack("{s:o, s:s, s:I, s:I, s:b, s:b, s:o, s:o}", "cluster", face_text(topology->cluster_name),
                     "cluster_id", cluster_id, "epoch", (json_int_t)topology->epoch, "index",
                     (json_int_t)topology->index, "fresh", face->fresh, "open", topology->open && !topology->sealed,
                     "primary", shown != NULL ? address(shown) : json_null(), "standbys", standbys);
}

char *face_topology_json(const struct face *face) { return face_dump(face_topology(face, true)); }

static json_t *history_entry(const struct face *face, const HistoryEntry *entry) {
    const Member *member = topology_member(face->topology, entry->member);
    char lsn[LSN_TEXT_MAX];
    return json_pack("{s:I, s:I, s:I, s:s, s:o, s:I, s:s, s:I, s:o}", "index", (json_int_t)entry->index, "time_ms",
                     (json_int_t)entry->wall_ms, "epoch", (json_int_t)entry->epoch, "kind",
                     history_kind_name(entry->kind), "member", member != NULL ? face_text(member->name) : json_null(),
                     "timeline", (json_int_t)entry->position.timeline, "lsn", lsn_text(entry->position.lsn, lsn),
                     "lost_bytes", (json_int_t)entry->lost_bytes, "reason", face_text(entry->reason));
}

char *face_history_json(const struct face *face) {
    json_t *entries = json_array();
    for (unsigned i = 0; i < face->history->entries_count; i++)
        json_array_append_new(entries, history_entry(face, &face->history->entries[i]));
    return face_dump(json_pack("{s:o, s:b, s:o}", "cluster", face_text(face->topology->cluster_name), "fresh",
                               face->fresh, "history", entries));
}
