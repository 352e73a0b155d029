#include "publish/checks.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* ---- what this member is ---- */

static const Member *ourselves(const struct face *face) { return topology_member(face->topology, face->self); }

static bool is_fresh(const struct face *face, const struct check_query *query) {
    return face->fresh && query->now < face->fresh_until;
}

/* The recorded primary, with the permission to write. */
static bool is_leased(const struct face *face, const struct check_query *query) {
    const Member *primary = face_primary(face);
    return primary != NULL && primary->id == face->self && is_fresh(face, query) && query->now < face->lease_until;
}

bool check_primary(const struct face *face, const struct check_query *query) {
    const Observation *seen = face_seen(face, face->self);
    return is_leased(face, query) && face->topology->open && seen != NULL && seen->server == SERVER_PRIMARY &&
           seen->running_epoch == face->topology->epoch;
}

static bool within_lag(const struct face *face, const struct check_query *query) {
    if (query->lag_bytes_max == UINT64_MAX)
        return true;
    json_t *lag =
        query->received ? face_lag_bytes(face, ourselves(face)) : face_replay_lag_bytes(face, ourselves(face));
    bool within = json_is_integer(lag) && (uint64_t)json_integer_value(lag) <= query->lag_bytes_max;
    json_decref(lag);
    return within;
}

/* Reads may go there: what it shows is in the cluster's history. */
static bool is_replica(const struct face *face, const struct check_query *query) {
    const Observation *seen = face_seen(face, face->self);
    if (seen == NULL || seen->server != SERVER_STANDBY || !is_fresh(face, query) || ourselves(face) == NULL ||
        ourselves(face) == face_primary(face))
        return false;
    bool ours = seen->streaming || lineage_contains(face->topology, face->topology->epoch, seen->position);
    return ours && (seen->streaming || !query->streaming) && within_lag(face, query);
}

static bool is_sync(const struct face *face, const struct check_query *query) {
    return is_replica(face, query) && face_member_sync(face, ourselves(face));
}

static bool is_async(const struct face *face, const struct check_query *query) {
    return is_replica(face, query) && !face_member_sync(face, ourselves(face));
}

static bool is_readable(const struct face *face, const struct check_query *query) {
    return check_primary(face, query) || is_replica(face, query);
}

static bool is_readable_sync(const struct face *face, const struct check_query *query) {
    return check_primary(face, query) || is_sync(face, query);
}

static bool is_ready(const struct face *face, const struct check_query *query) {
    struct check_query streaming = *query;
    streaming.streaming = true;
    return check_primary(face, query) || is_replica(face, &streaming);
}

static bool is_healthy(const struct face *face, const struct check_query *query) {
    const Observation *seen = face_seen(face, face->self);
    (void)query;
    return seen != NULL && (seen->server == SERVER_PRIMARY || seen->server == SERVER_STANDBY);
}

/* Who gets this answer gets it from the loop that does everything. */
static bool is_alive(const struct face *face, const struct check_query *query) {
    (void)face, (void)query;
    return true;
}

static bool never(const struct face *face, const struct check_query *query) {
    (void)face, (void)query;
    return false;
}

static const struct check table[] = {
    {"/", check_primary},
    {"/primary", check_primary},
    {"/read-write", check_primary},
    {"/master", check_primary},
    {"/leader", is_leased},
    {"/standby-leader", never}, /* there are no standby clusters */
    {"/replica", is_replica, true},
    {"/read-only", is_readable, true},
    {"/sync", is_sync, true},
    {"/synchronous", is_sync, true},
    {"/quorum", is_sync, true}, /* ANY k of them acknowledge */
    {"/read-only-sync", is_readable_sync, true},
    {"/read-only-quorum", is_readable_sync, true},
    {"/async", is_async, true},
    {"/asynchronous", is_async, true},
    {"/health", is_healthy, true},
    {"/liveness", is_alive},
    {"/readiness", is_ready},
};

const struct check *check_find(const char *path) {
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].path, path) == 0)
            return &table[i];
    return NULL;
}

bool check_lag(const char *text, uint64_t *ret_bytes) {
    static const struct {
        const char *name;
        uint64_t factor;
    } units[] = {{"", 1}, {"B", 1}, {"kB", 1ull << 10}, {"MB", 1ull << 20}, {"GB", 1ull << 30}, {"TB", 1ull << 40}};
    uint64_t number = 0;
    if (!isdigit((unsigned char)*text))
        return false;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
            return false;
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++)
        if (strcasecmp(units[i].name, text) == 0)
            return !__builtin_mul_overflow(number, units[i].factor, ret_bytes);
    return false;
}

/* ---- its words ---- */

static const char *state_word(const Observation *seen) {
    if (seen == NULL)
        return "unknown";
    switch (seen->server) {
    case SERVER_PRIMARY:
    case SERVER_STANDBY:
        return "running";
    case SERVER_STARTING:
        return "starting";
    case SERVER_STOPPING:
        return "stopping";
    case SERVER_HUNG:
        return "crashed";
    default:
        return "stopped";
    }
}

static json_t *xlog(const Observation *seen) {
    if (seen->server == SERVER_PRIMARY)
        return json_pack("{s:I}", "location", (json_int_t)seen->position.lsn);
    return json_pack("{s:I, s:I, s:b}", "received_location",
                     (json_int_t)(seen->receive_lsn > seen->position.lsn ? seen->receive_lsn : seen->position.lsn),
                     "replayed_location", (json_int_t)seen->position.lsn, "paused", 0);
}

static void add_instance(json_t *json, const struct face *face, const Observation *seen) {
    json_object_set_new(json, "server_version", json_integer(seen->server_version));
    json_object_set_new(json, "timeline", json_integer(seen->position.timeline));
    json_object_set_new(json, "xlog", xlog(seen));
    if (seen->streaming)
        json_object_set_new(json, "replication_state", json_string("streaming"));
    if (face_member_sync(face, ourselves(face)))
        json_object_set_new(json, "quorum_standby", json_true());
}

char *patroni_json(const struct face *face) {
    const Topology *topology = face->topology;
    const Observation *seen = face_seen(face, face->self);
    const Member *primary = face_primary(face);
    bool writes = seen != NULL && seen->server == SERVER_PRIMARY;
    char system[24];
    snprintf(system, sizeof system, "%llu", (unsigned long long)topology->system_identifier);
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:b, s:{s:s, s:o, s:o}, s:{s:I, s:I, s:b, s:b}}", "state", state_word(seen), "role",
                  writes ? "primary" : "replica", "database_system_identifier", system, "cluster_unlocked",
                  primary == NULL, "patroni", "version", face->version, "scope", face_text(topology->cluster_name),
                  "name", face_text(face->name), "ttorch", "epoch", (json_int_t)topology->epoch, "index",
                  (json_int_t)topology->index, "open", topology->open && !topology->sealed, "fresh", face->fresh);
    if (seen != NULL && ourselves(face) != NULL && !ourselves(face)->witness)
        add_instance(json, face, seen);
    return face_dump(json);
}

static const char *role_word(const struct face *face, const Member *member) {
    if (member == face_primary(face))
        return "leader";
    return face_member_sync(face, member) ? "quorum_standby" : "replica";
}

static json_t *cluster_member(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id);
    bool streams = face_member_streams(face, member);
    json_t *json = json_pack("{s:o, s:s, s:s, s:o, s:i}", "name", face_text(member->name), "role",
                             role_word(face, member), "state", streams ? "streaming" : state_word(seen), "host",
                             face_text(member->postgres_host), "port", (int)member->postgres_port);
    if (seen != NULL)
        json_object_set_new(json, "timeline", json_integer(seen->position.timeline));
    if (member == face_primary(face))
        return json;
    json_t *lag = face_lag_bytes(face, member);
    if (json_is_null(lag))
        lag = json_string("unknown");
    json_object_set_new(json, "lag", lag);
    return json;
}

char *patroni_cluster_json(const struct face *face) {
    json_t *members = json_array();
    for (unsigned i = 0; i < face->topology->members_count; i++)
        if (!face->topology->members[i].witness)
            json_array_append_new(members, cluster_member(face, &face->topology->members[i]));
    return face_dump(json_pack("{s:o, s:o}", "members", members, "scope", face_text(face->topology->cluster_name)));
}

static const HistoryEntry *assignment_of(const struct face *face, uint32_t epoch) {
    for (unsigned i = 0; i < face->history->entries_count; i++)
        if (face->history->entries[i].kind == HISTORY_ASSIGNED && face->history->entries[i].epoch == epoch)
            return &face->history->entries[i];
    return NULL;
}

static json_t *wall_text(uint64_t wall_ms) {
    char text[40];
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    if (gmtime_r(&seconds, &parts) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S+00:00", &parts) == 0)
        return json_null();
    return json_string(text);
}

/* [timeline that ended, where, why, when, who came then] */
char *patroni_history_json(const struct face *face) {
    json_t *list = json_array();
    for (unsigned i = 1; i < face->topology->epochs_count; i++) {
        const Epoch *epoch = &face->topology->epochs[i];
        const HistoryEntry *entry = assignment_of(face, epoch->epoch);
        const Member *member = topology_member(face->topology, epoch->primary.member);
        json_array_append_new(list,
                              json_pack("[I, I, o, o, o]", (json_int_t)epoch->base.timeline,
                                        (json_int_t)epoch->base.lsn, face_text(entry != NULL ? entry->reason : ""),
                                        entry != NULL ? wall_text(entry->wall_ms) : json_null(),
                                        member != NULL ? face_text(member->name) : json_null()));
    }
    return face_dump(list);
}
