/* Which peers our PostgreSQL admits, and how far their slots may advance: as far as each has said that it is. */
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

#define UPKEEP_EVERY   msec(2000)
#define REWIND_RESERVE (128ull << 20)

void upkeep_refresh(struct daemon *daemon) {
    const struct core *core = &daemon->core;
    nsec now = time_now();
    bool known = daemon->upkeep_members == core->topology.members_count;
    if (daemon->pgctl == NULL || core->self == 0 || (known && now < daemon->upkeep_at + UPKEEP_EVERY))
        return;
    struct upkeep upkeep;
    memset(&upkeep, 0, sizeof upkeep);
    for (unsigned i = 0; i < core->topology.members_count && upkeep.peers_count < DATA_MEMBERS_MAX; i++) {
        const Member *member = &core->topology.members[i];
        if (member->witness || member->id == core->self)
            continue;
        if (!topology_votes(&core->topology, core->self))
            break; /* nobody ever streams from an observer */
        struct upkeep_peer *peer = &upkeep.peers[upkeep.peers_count++];
        snprintf(peer->name, sizeof peer->name, "%s", member->name);
        snprintf(peer->host, sizeof peer->host, "%s", member->postgres_host);
        const Observation *seen = &core->seen[member->id - 1];
        /* The primary would need older WAL, from the last common checkpoint, if it had to be rewound one day. */
        uint64_t reserve = member->id == core->topology.primary.member ? REWIND_RESERVE : 0;
        bool in_lineage =
            core->topology.epoch != 0 && lineage_contains(&core->topology, core->topology.epoch, seen->position);
        peer->slot_lsn = in_lineage && seen->position.lsn > reserve ? seen->position.lsn - reserve : 0;
    }
    daemon->upkeep_at = now;
    daemon->upkeep_members = core->topology.members_count;
    pgctl_upkeep(daemon->pgctl, &upkeep);
}
