/* Which peers our PostgreSQL admits, and how far their slots may advance: as far as each has said that it is. */
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

#define UPKEEP_EVERY   msec(2000)
#define REWIND_RESERVE (128ull << 20)

void upkeep_refresh(struct daemon *daemon) {
    const struct core *core = &daemon->core;
    if (daemon->pgctl == NULL || core->self == 0)
        return;
    struct upkeep upkeep;
    memset(&upkeep, 0, sizeof upkeep);
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Member *member = &core->topology.members[i];
        if (member->witness || member->id == core->self)
            continue;
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
    bool same_peers = upkeep.peers_count == daemon->upkeep.peers_count;
    for (unsigned i = 0; same_peers && i < upkeep.peers_count; i++)
        same_peers = strcmp(upkeep.peers[i].name, daemon->upkeep.peers[i].name) == 0;
    nsec now = time_now();
    if (same_peers && now < daemon->upkeep_at + UPKEEP_EVERY)
        return;
    daemon->upkeep_at = now;
    daemon->upkeep = upkeep;
    pgctl_upkeep(daemon->pgctl, &upkeep);
}
