#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/parts.h"

/* How fresh directories become one cluster, safe against a crash after any step:
 *
 *   founder (first in the list)                       the others
 *   all connected, fresh, same shared lines
 *   cluster id and founding=1 on disk
 *   log bootstrapped with itself as the only voter
 *   leader: `found`, first command committed
 *   founded ------------------------------------->    cluster id on disk, libraft started
 *                <-------------------------------     founded
 *   added, then made a voter, one after the other
 *   founding=0 on disk
 *

 * An observer, whenever it comes, is told of the founding by any voter whose file agrees with its own; the leader then
 * has its raft id recorded, and it is fed (feed.c).
 *
 * Members are added only once the first command is in the log, so whoever leads an empty log is the founder. */

static bool founder(const struct record *record) { return record->self == record->founder; }

/* ---- shared lines ---- */

static void lines_send(struct record *record, struct peer *peer) {
    for (unsigned i = 0; i < record->shared_count; i++) {
        PeerLine line = PeerLine_init_zero;
        snprintf(line.key, sizeof line.key, "%s", record->shared[i].key);
        snprintf(line.value, sizeof line.value, "%s", record->shared[i].value);
        snprintf(line.file, sizeof line.file, "%s", record->shared[i].file);
        line.line = record->shared[i].line;
        connection_send_message(peer->messages, FRAME_LINE, PeerLine_fields, &line);
    }
    PeerLinesEnd end = {record->shared_count};
    connection_send_message(peer->messages, FRAME_LINES_END, PeerLinesEnd_fields, &end);
}

void founding_opened(struct record *record, struct peer *peer) {
    peer->lines = LINES_UNKNOWN;
    peer->lines_count = 0;
    peer->difference[0] = '\0';
    memset(peer->lines_seen, 0, record->shared_count * sizeof *peer->lines_seen);
    lines_send(record, peer);
}

static void difference_set(struct peer *peer, const char *text) {
    if (peer->difference[0] == '\0')
        snprintf(peer->difference, sizeof peer->difference, "%s", text);
}

static status line_received(struct record *record, struct peer *peer, const struct frame *frame, struct error *error) {
    PeerLine theirs = PeerLine_init_zero;
    char text[WHY_MAX];
    unsigned i = 0;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerLine_fields, &theirs))
        return error_set(error, "malformed shared line");
    peer->lines_count++;
    while (i < record->shared_count && strcmp(record->shared[i].key, theirs.key) != 0)
        i++;
    if (i == record->shared_count) {
        snprintf(text, sizeof text, "%s is %s at %s (%s:%d), not set here", theirs.key, theirs.value, peer->config.name,
                 theirs.file, (int)theirs.line);
        difference_set(peer, text);
        return OK;
    }
    peer->lines_seen[i] = true;
    const struct record_shared_line *ours = &record->shared[i];
    if (strcmp(ours->value, theirs.value) != 0) {
        snprintf(text, sizeof text, "%s is %s at %s (%s:%d), %s here (%s:%d)", theirs.key, theirs.value,
                 peer->config.name, theirs.file, (int)theirs.line, ours->value, ours->file, ours->line);
        difference_set(peer, text);
    }
    return OK;
}

static void lines_compare_end(struct record *record, struct peer *peer) {
    char text[WHY_MAX];
    for (unsigned i = 0; i < record->shared_count; i++) {
        const struct record_shared_line *ours = &record->shared[i];
        if (peer->lines_seen[i])
            continue;
        snprintf(text, sizeof text, "%s is %s here (%s:%d), not set at %s", ours->key, ours->value, ours->file,
                 ours->line, peer->config.name);
        difference_set(peer, text);
    }
    peer->lines = peer->difference[0] == '\0' ? LINES_AGREE : LINES_DIFFER;
    peer_report(record, peer, peer->lines == LINES_AGREE, peer->difference);
}

/* ---- founded ---- */

void founded_send(struct record *record, struct peer *peer) {
    PeerFounded founded = {record->identity.cluster_id};
    connection_send_message(peer->messages, FRAME_FOUNDED, PeerFounded_fields, &founded);
}

/* A fresh voter believes the founder, one that rejoins whoever leads, an observer any voter; and nobody one that
 * rejoins itself. */
static bool takes_from(const struct record *record, const struct peer *peer) {
    if (record_observes(record))
        return true;
    return record->identity.rejoining || (!founder(record) && peer->index == record->founder && !peer->rejoining);
}

/* A fresh member takes the cluster's id, for good. */
static void member_join(struct record *record, uint64_t cluster_id) {
    struct error error;
    record->identity.cluster_id = cluster_id;
    record->identity.rejoining = record->identity.rejoining && !record_observes(record);
    if (identity_write(&record->identity, record->directory, &error) != OK ||
        (!record_observes(record) && engine_open(record, &error) != OK))
        record_fatal(record, "%s", error.text);
    record_tick_soon(record);
}

static status founded_received(struct record *record, struct peer *peer, const struct frame *frame,
                               struct error *error) {
    PeerFounded founded = PeerFounded_init_zero;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerFounded_fields, &founded) || founded.cluster_id == 0)
        return error_set(error, "malformed founding");
    peer->cluster_id = founded.cluster_id;
    if (!takes_from(record, peer))
        return OK;
    if (record->identity.cluster_id == 0 && peer->lines == LINES_AGREE)
        member_join(record, founded.cluster_id);
    if (record->identity.cluster_id == founded.cluster_id && !record->failed)
        founded_send(record, peer);
    return OK;
}

status founding_frame(struct record *record, struct peer *peer, const struct frame *frame, struct error *error) {
    if (frame->type == FRAME_FOUNDED)
        return founded_received(record, peer, frame, error);
    if (peer->lines != LINES_UNKNOWN)
        return OK;
    if (frame->type == FRAME_LINE)
        return line_received(record, peer, frame, error);
    lines_compare_end(record, peer);
    return OK;
}

/* ---- the founder's steps ---- */

static bool peer_ready(const struct peer *peer) {
    return peer_reachable(peer) && peer->cluster_id == 0 && peer->lines == LINES_AGREE;
}

static void cluster_found(struct record *record) {
    struct error error;
    uint64_t cluster_id;
    for (unsigned i = 0; i < record->peers_count; i++)
        if (i != record->self && !record->peers[i].config.observer && !peer_ready(&record->peers[i]))
            return;
    if (identity_random(&cluster_id, &error) == OK) {
        record->identity.cluster_id = cluster_id;
        record->identity.founding = true;
        if (identity_write(&record->identity, record->directory, &error) == OK && engine_open(record, &error) == OK)
            return;
    }
    record_fatal(record, "%s", error.text);
}

/* Once for each term in which we lead a log without a command. */
static void first_command_wanted(struct record *record) {
    uint64_t ids[MEMBERS_MAX];
    for (unsigned i = 0; i < record->peers_count; i++) {
        ids[i] = i == record->self ? record->identity.raft_id : record->peers[i].raft_id;
        if (record->peers[i].config.observer)
            ids[i] = 0; /* recorded when it comes */
        else if (ids[i] == 0)
            return;
    }
    record->found_called = true;
    record->callbacks.found(record->user, record->identity.cluster_id, ids);
}

static void members_add(struct record *record) {
    struct error error;
    unsigned voters = 0, voters_wanted = 0;
    for (unsigned i = 0; i < record->peers_count; i++) {
        struct peer *peer = &record->peers[i];
        const struct raft_server *server = engine_server(record, peer->config.name);
        if (peer->config.observer)
            continue;
        voters_wanted++;
        if (server != NULL && server->role == RAFT_VOTER) {
            voters++;
        } else if (peer_reachable(peer) && peer->cluster_id == 0 && peer->lines == LINES_AGREE) {
            founded_send(record, peer);
        } else if (peer_reachable(peer) && peer->cluster_id == record->identity.cluster_id) {
            if (engine_add_voter(record, peer, &error) != OK)
                record_notice(record, "could not make %s a voter yet: %s", peer->config.name, error.text);
            return;
        }
    }
    if (voters < voters_wanted)
        return;
    record->identity.founding = false;
    if (identity_write(&record->identity, record->directory, &error) != OK)
        record_fatal(record, "%s", error.text);
}

/* Any voter can: all that they need to know is the cluster's id. */
static void observers_invite(struct record *record) {
    if (record->engine.commands_applied == 0)
        return;
    for (unsigned i = 0; i < record->peers_count; i++) {
        struct peer *peer = &record->peers[i];
        if (peer->config.observer && peer_ready(peer))
            founded_send(record, peer);
    }
}

void founding_tick(struct record *record) {
    if (!record_silent(record) && !record_observes(record))
        observers_invite(record);
    if (!founder(record) || record->identity.rejoining || record_silent(record))
        return;
    if (record->identity.cluster_id == 0)
        cluster_found(record);
    else if (!record->identity.founding || !engine_leads(record))
        record->found_called = record->found_called && engine_leads(record);
    else if (record->engine.commands_applied == 0 && !record->found_called)
        first_command_wanted(record);
    else if (record->engine.commands_applied > 0 && !record->engine.changing)
        members_add(record);
}

/* ---- what we wait for ---- */

static const char *peer_waiting(const struct record *record, const struct peer *peer) {
    if (!peer_reachable(peer))
        return peer->why[0] != '\0' ? peer->why : "not connected";
    if (peer->lines == LINES_DIFFER)
        return peer->difference;
    if (peer->lines == LINES_UNKNOWN)
        return "comparing settings";
    if (founder(record) && peer->cluster_id != 0)
        return "it already belongs to a cluster, so ours lost its directory: ttorch rejoin brings it back";
    return NULL;
}

void founding_waiting(const struct record *record, char *ret_text, size_t size) {
    ret_text[0] = '\0';
    const char *lost = rejoin_needed(record);
    if (lost != NULL) {
        snprintf(ret_text, size, "%.300s: ttorch rejoin brings it back with an empty record", lost);
        return;
    }
    if (record->identity.cluster_id != 0)
        return;
    if (record->identity.rejoining) {
        snprintf(ret_text, size, "waiting for a majority of the others to take it back");
        return;
    }
    for (unsigned i = 0; i < record->peers_count; i++) {
        const struct peer *peer = &record->peers[i];
        const char *why = i == record->self || peer->config.observer ? NULL : peer_waiting(record, peer);
        if (why != NULL) {
            snprintf(ret_text, size, "waiting for %s: %s", peer->config.name, why);
            return;
        }
    }
    if (!founder(record))
        snprintf(ret_text, size, "waiting for %s to found the cluster", record->peers[record->founder].config.name);
}
