#include "publish/dns_view.h"

#include <stdio.h>
#include <string.h>

#include "publish/face.h"

static const Member *open_primary(const struct face *face) {
    return face->fresh && face->topology->open ? face_primary(face) : NULL;
}

static bool within_lag(const struct face *face, const Member *member, uint64_t max_lag_bytes) {
    json_t *lag = face_lag_bytes(face, member);
    bool within = json_is_integer(lag) && (uint64_t)json_integer_value(lag) <= max_lag_bytes;
    json_decref(lag);
    return within;
}

static bool is_healthy_standby(const struct face *face, const Member *member, uint64_t max_lag_bytes) {
    const Observation *seen = face_seen(face, member->id);
    const Member *primary = open_primary(face);
    if (member == primary)
        return false;
    if (primary != NULL)
        return face_member_streams(face, member) && within_lag(face, member, max_lag_bytes);
    return seen != NULL && seen->server == SERVER_STANDBY;
}

static void group_add(struct dns_group *group, unsigned place) { group->members[group->count++] = place; }

static void add_host(struct dns_view *view, const Member *member) {
    struct dns_host *host = &view->hosts[view->hosts_count++];
    host->id = member->id;
    snprintf(host->name, sizeof host->name, "%s", member->name);
    snprintf(host->host, sizeof host->host, "%s", member->postgres_host);
    host->port = (uint16_t)member->postgres_port;
}

static void add_to_groups(struct dns_view *view, const struct face *face, const Member *member,
                          uint64_t max_lag_bytes) {
    unsigned place = view->hosts_count - 1;
    bool is_primary = member == open_primary(face), is_standby = is_healthy_standby(face, member, max_lag_bytes);
    if (is_primary)
        group_add(&view->primary, place);
    if (is_standby)
        group_add(&view->standbys, place);
    if (is_primary || is_standby)
        group_add(&view->any, place);
}

void dns_view_of(const struct face *face, uint64_t max_lag_bytes, struct dns_view *ret_view) {
    const Topology *topology = face->topology;
    memset(ret_view, 0, sizeof *ret_view);
    ret_view->fresh = face->fresh && topology->index > 0;
    if (!ret_view->fresh)
        return;
    ret_view->cluster_id = topology->cluster_id;
    ret_view->epoch = topology->epoch;
    ret_view->index = topology->index;
    for (unsigned i = 0; i < topology->members_count; i++) {
        if (topology->members[i].witness || topology->members[i].postgres_host[0] == '\0')
            continue;
        add_host(ret_view, &topology->members[i]);
        add_to_groups(ret_view, face, &topology->members[i], max_lag_bytes);
    }
    if (ret_view->standbys.count == 0)
        ret_view->standbys = ret_view->primary;
}
