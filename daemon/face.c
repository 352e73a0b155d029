/* What there is to show of this daemon. */
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

static void fill_members(const struct core *core, struct face *face) {
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        nsec heard = core->heard_at[i];
        face->members[i].heard = heard != 0;
        face->members[i].age_ms = heard != 0 ? msec_between(heard, face->now) : 0;
        face->members[i].seen = core->seen[i];
    }
}

void face_fill(void *user, struct face *ret_face) {
    struct daemon *daemon = user;
    const struct core *core = &daemon->core;
    static struct record_status record; /* the texts in the face point into it */
    record_status(daemon->record, &record);
    nsec now = time_now();
    uint32_t lease_ms = core->topology.settings.lease_ms;
    nsec fresh_until = core->synced && record.quorum_heard_at != 0 ? record.quorum_heard_at + msec(lease_ms) : 0;
    bool leased = core->self != 0 && core->topology.primary.member == core->self && !core->topology.sealed &&
                  core->lease.epoch == core->topology.epoch;
    *ret_face = (struct face){
        .topology = &core->topology,
        .history = &core->history,
        .self = core->self,
        .name = daemon->config->member,
        .version = TTORCH_VERSION,
        .fresh = now < fresh_until,
        .fresh_until = fresh_until,
        .lease_until = leased ? core->lease.until : 0,
        .response_known = daemon->response_known,
        .response_ms = daemon->response_ms,
        .why = core->leader ? core->coordinator.why : "",
        .leader = record.leader,
        .term = record.term,
        .waiting = record.waiting[0] != '\0' ? record.waiting
                   : core->self == 0         ? "waiting for the cluster to be founded"
                   : !core->synced           ? "waiting for a leader, to learn what has happened meanwhile"
                                             : "",
        .superuser = daemon->config->postgresql.superuser,
        .now = now,
    };
    static struct face_output outputs[DNS_OUTPUTS];
    ret_face->outputs = outputs;
    ret_face->outputs_count = daemon->dns != NULL ? dns_outputs(daemon->dns, outputs) : 0;
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
