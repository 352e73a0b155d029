#include "raft/parts.h"

/* How a member whose record was lost comes back, with an empty one under a new raft id; safe against a crash after any
 * step, of anybody, as each step is told from what is there:
 *
 *   leader                                             the member that rejoins (`identity_reset`)
 *                <-------------------------------      hello: rejoining, the new raft id
 *   readmit: the new id is in the record
 *   the old id is removed from the voters
 *   founded ------------------------------------->     cluster id on disk, libraft started
 *                <-------------------------------      founded
 *   added, then made a voter
 *                                                      sees itself as voter: rejoining=0 on disk
 *
 * The old id never votes again: what it has promised is forgotten. Each step is a commit of the others, so they must be
 * a majority without it, before and after: what the old id helped to commit is then with them. */

#define STUCK_MAX (2 * NSEC_PER_SEC)

const char *rejoin_needed(const struct record *record) {
    if (record->damage[0] != '\0')
        return record->damage;
    for (unsigned i = 0; i < record->peers_count; i++)
        if (record->peers[i].disowns)
            return record->peers[i].why;
    return NULL;
}

/* ---- the one who comes back ---- */

static void rejoined_note(struct record *record) {
    const struct raft_server *self = engine_server(record, record->peers[record->self].config.name);
    struct error error;
    if (self == NULL || self->id != record->identity.raft_id || self->role != RAFT_VOTER || !engine_settled(record))
        return;
    record->identity.rejoining = false;
    if (identity_write(&record->identity, record->directory, &error) != OK)
        record_fatal(record, "%s", error.text);
}

/* ---- the leader ---- */

static bool wants_back(const struct record *record, const struct peer *peer) {
    const struct raft_server *server = engine_server(record, peer->config.name);
    if (peer->config.observer || !peer->rejoining || !peer_reachable(peer))
        return false;
    if (peer->cluster_id == 0 ? peer->lines != LINES_AGREE : peer->cluster_id != record->identity.cluster_id)
        return false;
    return server == NULL || server->id != peer->raft_id || server->role != RAFT_VOTER;
}

static status step(struct record *record, struct peer *peer, struct error *error) {
    const struct raft_server *server = engine_server(record, peer->config.name);
    if (server != NULL && server->id != peer->raft_id)
        return engine_remove(record, server->id, error);
    if (peer->cluster_id != 0)
        return engine_add_voter(record, peer, error);
    founded_send(record, peer);
    return OK;
}

/* libraft may lose track of whether a change is under way (see RAFT_CANTCHANGE); another leader has not. */
static void stuck(struct record *record, const struct peer *peer, nsec now, const char *why) {
    record_notice(record, "could not take %s back yet: %s", peer->config.name, why);
    if (record->rejoin_stuck_at == 0)
        record->rejoin_stuck_at = now;
    if (now < record->rejoin_stuck_at + STUCK_MAX)
        return;
    record->rejoin_stuck_at = 0;
    record_step_aside(record, NULL);
}

static void member_take_back(struct record *record, struct peer *peer, nsec now) {
    struct error error;
    if (!record->callbacks.readmit(record->user, peer->config.name, peer->raft_id) || record->engine.changing)
        return;
    if (step(record, peer, &error) == OK)
        record->rejoin_stuck_at = 0;
    else
        stuck(record, peer, now, error.text);
}

/* An observer may come under any raft id: it has promised nothing to anybody. */
static void observers_admit(struct record *record) {
    for (unsigned i = 0; i < record->peers_count; i++) {
        struct peer *peer = &record->peers[i];
        if (!peer->config.observer || peer->raft_id == peer->admitted_id || !peer_reachable(peer) ||
            peer->cluster_id != record->identity.cluster_id)
            continue;
        if (record->callbacks.readmit(record->user, peer->config.name, peer->raft_id))
            peer->admitted_id = peer->raft_id;
    }
}

void rejoin_tick(struct record *record, nsec now) {
    if (record->identity.rejoining && record->engine.started)
        rejoined_note(record);
    if (!engine_leads(record))
        return;
    observers_admit(record);
    for (unsigned i = 0; i < record->peers_count; i++)
        if (i != record->self && wants_back(record, &record->peers[i])) {
            member_take_back(record, &record->peers[i], now);
            return;
        }
}
