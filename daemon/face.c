/* What there is to show of this daemon. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

static void fill_members(const struct core *core, struct face *face) {
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        uint32_t at = core->topology.members[i].id - 1;
        nsec heard = core->heard_at[at];
        face->members[at].heard = heard != 0;
        face->members[at].age_ms = heard != 0 ? msec_between(heard, face->now) : 0;
    }
    face->seen = core->seen;
}

static bool is_open_primary(const struct core *core) {
    return core->self != 0 && core->topology.primary.member == core->self && core->topology.open &&
           !core->topology.sealed;
}

/* A lease after the last word of a majority another primary may be open. By then every form must have ceased to name
 * the old one, so it is old news a little earlier: files have to be written. As primary we do not name ourselves
 * without a lease either: those whom we hear may be as cut off as we are. */
static nsec fresh_until(const struct core *core, const struct record_status *record) {
    uint32_t lease_ms = core->topology.settings.lease_ms;
    if (!core->synced || record->quorum_heard_at == 0)
        return 0;
    nsec until = record->quorum_heard_at + msec(lease_ms - lease_ms / 8);
    if (!is_open_primary(core))
        return until;
    nsec leased = core->lease.epoch == core->topology.epoch ? core->lease.until : 0, early = msec(lease_ms / 16);
    nsec own = leased > early ? leased - early : 0;
    return own < until ? own : until;
}

/* An observer may be known by its name, and its raft id not yet. */
static const char *waiting_outside(const struct core *core) {
    return core->topology.cluster_id == 0 ? "waiting for the cluster to be founded"
                                          : "waiting for the coordinator to let this member in";
}

void face_fill(void *user, struct face *ret_face) {
    struct daemon *daemon = user;
    const struct core *core = &daemon->core;
    static struct record_status record; /* the texts in the face point into it */
    record_status(daemon->record, &record);
    nsec now = time_now();
    bool leased = core->self != 0 && core->topology.primary.member == core->self && !core->topology.sealed &&
                  core->lease.epoch == core->topology.epoch;
    memset(ret_face, 0, offsetof(struct face, members));
    ret_face->topology = &core->topology;
    ret_face->history = &core->history;
    ret_face->self = core->self;
    ret_face->name = daemon->config->member;
    ret_face->version = TTORCH_VERSION;
    ret_face->fresh_until = fresh_until(core, &record);
    ret_face->fresh = now < ret_face->fresh_until;
    ret_face->lease_until = leased ? core->lease.until : 0;
    ret_face->response_known = daemon->response_known;
    ret_face->response_ms = daemon->response_ms;
    ret_face->why = core->leader ? core->coordinator.why : "";
    ret_face->leader = record.leader;
    ret_face->term = record.term;
    ret_face->waiting = record.waiting[0] != '\0'        ? record.waiting
                        : core->facts.damaged[0] != '\0' ? core->facts.damaged
                        : core->self == 0                ? waiting_outside(core)
                        : !core->synced                  ? "waiting for a leader, to learn what has happened meanwhile"
                                                         : "";
    ret_face->record_lost = record.lost;
    ret_face->file_damaged = core->facts.damaged[0] != '\0';
    ret_face->superuser = daemon->config->postgresql.superuser;
    ret_face->now = now;
    static struct face_output outputs[DNS_OUTPUTS + POOLERS_MAX];
    _Static_assert(DNS_OUTPUTS + POOLERS_MAX <= FACE_OUTPUTS_MAX, "all are shown");
    unsigned count = daemon->dns != NULL ? dns_outputs(daemon->dns, outputs) : 0;
    ret_face->outputs = outputs;
    ret_face->outputs_count = count + (daemon->poolers != NULL ? poolers_outputs(daemon->poolers, &outputs[count]) : 0);
    fill_members(core, ret_face);
}

void face_status_line(const struct daemon *daemon, char *buffer, size_t size) {
    const struct core *core = &daemon->core;
    const Topology *topology = &core->topology;
    const Member *primary = topology_member(topology, topology->primary.member);
    if (core->self == 0)
        snprintf(buffer, size, "waiting for the cluster to be founded");
    else if (!core->synced)
        snprintf(buffer, size, "waiting for a leader");
    else if (topology->epoch == 0 || primary == NULL || topology->sealed)
        snprintf(buffer, size, "epoch %u, no primary", topology->epoch);
    else
        snprintf(buffer, size, "epoch %u, primary %s%s%s", topology->epoch, primary->name,
                 primary->id == core->self ? " (this member)" : "", topology->open ? "" : ", not open yet");
}
