#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/parts.h"

/* One message connection for each pair of voters, dialled by the one earlier in the list of members; and one from each
 * observer to each voter. */

#define PING_AFTER       msec(500)
#define SILENCE_MAX      (2 * NSEC_PER_SEC)
#define PING_SELDOM      msec(1300) /* between a voter and an observer, who tell each other something every second */
#define RECONNECT_SELDOM msec(500)  /* of observers: there may be a hundred */

struct peer *peer_named(struct record *record, const char *name) {
    for (unsigned i = 0; i < record->peers_count; i++)
        if (strcmp(record->peers[i].config.name, name) == 0)
            return &record->peers[i];
    return NULL;
}

bool peer_reachable(const struct peer *peer) {
    return peer->messages != NULL && peer->messages->state == CONNECTION_OPEN && !peer->messages->refusing;
}

void peer_report(struct record *record, struct peer *peer, bool up, const char *why) {
    if (peer->up == up && strcmp(peer->why, why) == 0)
        return;
    peer->up = up;
    snprintf(peer->why, sizeof peer->why, "%s", why);
    if (!record_silent(record))
        record->callbacks.peer(record->user, peer->config.name, up, up ? NULL : why);
}

/* ---- is it who it must be ---- */

/* The one who rejoins is known to libraft under its old id until the leader has changed that. */
static bool comes_back(const PeerHello *hello) { return hello->rejoining && hello->kind == PeerHello_Kind_MESSAGES; }

/* It is still there, as far as can be told. */
static bool heard_lately(const struct peer *peer) {
    return peer_reachable(peer) && time_now() < peer->messages->heard_at + SILENCE_MAX;
}

static status identity_check(struct record *record, const struct peer *peer, const PeerHello *hello,
                             struct refusal *refusal) {
    const char *name = peer->config.name, *self = record->peers[record->self].config.name;
    const struct raft_server *known = engine_server(record, name);
    uint64_t ours = record->identity.cluster_id;
    if (hello->raft_id == record->identity.raft_id)
        return error_set(&refusal->reason, "%s and %s have the same raft id: one directory is a copy of the other",
                         name, self);
    if (hello->cluster_id != 0 && ours != 0 && hello->cluster_id != ours)
        return error_set(&refusal->reason, "%s belongs to another cluster than %s (%016llx, not %016llx)", name, self,
                         (unsigned long long)hello->cluster_id, (unsigned long long)ours);
    if (hello->cluster_id != 0 && ours != 0 && hello->observer != peer->config.observer)
        return error_set(&refusal->reason, "%s is %s by its own file, %s by that of %s", name,
                         hello->observer ? "an observer" : "a voter", hello->observer ? "a voter" : "an observer",
                         self);
    if (peer->config.observer && hello->raft_id != peer->raft_id && heard_lately(peer))
        return error_set(&refusal->reason, "%s is connected already, from another directory", name);
    refusal->stale = true;
    if (known != NULL && known->id != hello->raft_id && !comes_back(hello))
        return error_set(&refusal->reason,
                         "%s is in the cluster under another raft id: its directory was lost or replaced", name);
    if (hello->raft_id == peer->raft_id && hello->start_count < peer->start_count)
        return error_set(&refusal->reason,
                         "the directory of %s is older than what %s has seen of it (start %u, not %u)", name, self,
                         hello->start_count, peer->start_count);
    return OK;
}

static status names_check(const struct record *record, const struct peer *expected, const PeerHello *hello,
                          const struct peer *peer, struct error *reason) {
    const char *self = record->peers[record->self].config.name;
    if (hello->protocol != PEER_PROTOCOL)
        return error_set(reason, "%s speaks protocol %u, %s speaks %u", hello->member, hello->protocol, self,
                         PEER_PROTOCOL);
    if (strcmp(hello->cluster_name, record->cluster_name) != 0)
        return error_set(reason, "%s is of cluster \"%s\", %s of \"%s\"", hello->member, hello->cluster_name, self,
                         record->cluster_name);
    if (expected != NULL && peer != expected)
        return error_set(reason, "%s:%u is %s, not %s", expected->config.host, expected->config.port, hello->member,
                         expected->config.name);
    if (peer == NULL || peer->index == record->self)
        return error_set(reason, "\"%s\" is no other member in the list of %s", hello->member, self);
    bool observes = record_observes(record) || peer->config.observer;
    if (observes && (hello->kind == PeerHello_Kind_RAFT || record_observes(record) == peer->config.observer))
        return error_set(reason, "%s and %s have no such business: one of them is an observer", hello->member, self);
    return OK;
}

status peer_hello_check(struct record *record, struct peer *expected, const PeerHello *hello, struct peer **ret_peer,
                        struct refusal *ret_refusal) {
    struct peer *peer = peer_named(record, hello->member);
    struct error *reason = &ret_refusal->reason;
    ret_refusal->stale = false;
    if (names_check(record, expected, hello, peer, reason) != OK)
        return FAILED;
    if (hello->damage[0] != '\0')
        return error_set(reason, "%s can't use its record: %.300s", hello->member, hello->damage);
    if (record->damage[0] != '\0')
        return error_set(reason, "%s can't use its record: %.300s", record->peers[record->self].config.name,
                         record->damage);
    if (hello->raft_id == 0 || hello->start_count == 0)
        return error_set(reason, "%s has no identity", hello->member);
    *ret_peer = peer;
    return identity_check(record, peer, hello, ret_refusal);
}

/* ---- life of a message connection ---- */

void peers_opened(struct connection *connection) {
    struct record *record = connection->record;
    struct peer *peer = connection->peer;
    struct connection *old = peer->messages;
    peer->messages = connection;
    peer->disowns = false;
    peer->has_log_of = 0; /* who was started anew has no stream for libraft either */
    if (old != NULL && old != connection) {
        connection_close(old, "replaced");
        proposals_disconnected(record, peer);
        peer_report(record, peer, false, "connected anew");
    }
    if (peer->cluster_id != 0 && !connection->fresh)
        peer_report(record, peer, true, "");
    else
        founding_opened(record, peer);
    record_defer(record);
}

void peers_closed(struct connection *connection, const char *why) {
    struct record *record = connection->record;
    struct peer *peer = connection->peer;
    char text[WHY_MAX];
    if (peer->messages != connection)
        return;
    peer->messages = NULL;
    peer->disowns &= connection->refused;
    nsec retry_at = time_now() + RECONNECT_AFTER + msec((unsigned)rand() % 20);
    if (record_observes(record))
        retry_at += RECONNECT_SELDOM + msec((unsigned)rand() % 200);
    if (peer->retry_at < retry_at)
        peer->retry_at = retry_at;
    proposals_disconnected(record, peer);
    if (record_observes(record))
        record_tick_soon(record); /* another one may have to feed us */
    if (connection->refusing)
        return; /* the reason was reported */
    if (connection->hello.raft_id == 0 && !connection->refused)
        snprintf(text, sizeof text, "could not connect to %s:%u: %s", peer->config.host, peer->config.port, why);
    else
        snprintf(text, sizeof text, "%s", why);
    peer_report(record, peer, false, text);
}

static void peer_dial(struct record *record, struct peer *peer, nsec now) {
    struct error error;
    if (now < peer->retry_at)
        return;
    peer->messages = connection_dial(record, peer, PeerHello_Kind_MESSAGES, &error);
    if (peer->messages != NULL)
        return;
    peer->retry_at = now + RECONNECT_AFTER;
    peer_report(record, peer, false, error.text);
}

static bool is_ours_to_dial(const struct record *record, const struct peer *peer) {
    if (peer->config.observer)
        return false;
    return record_observes(record) || record->self < peer->index;
}

static void peer_tick(struct record *record, struct peer *peer, nsec now) {
    bool seldom = record_observes(record) || peer->config.observer;
    if (peer->messages == NULL) {
        if (is_ours_to_dial(record, peer))
            peer_dial(record, peer, now);
    } else if (peer->messages->state == CONNECTION_OPEN && now > peer->messages->heard_at + SILENCE_MAX) {
        connection_close(peer->messages, "silent");
    } else if (peer_reachable(peer) && now > peer->messages->sent_at + (seldom ? PING_SELDOM : PING_AFTER)) {
        connection_send(peer->messages, FRAME_PING, NULL, 0);
    }
}

void peers_tick(struct record *record, nsec now) {
    for (unsigned i = 0; i < record->peers_count; i++)
        if (i != record->self)
            peer_tick(record, &record->peers[i], now);
}

/* ---- frames ---- */

status peers_frame(struct connection *connection, const struct frame *frame, struct error *error) {
    struct record *record = connection->record;
    struct peer *peer = connection->peer;
    switch (frame->type) {
    case FRAME_PING:
        return OK;
    case FRAME_MESSAGE:
        if (!record_silent(record) && peer->messages == connection)
            record->callbacks.message(record->user, peer->config.name, frame->payload, frame->length);
        return OK;
    case FRAME_LINE:
    case FRAME_LINES_END:
    case FRAME_FOUNDED:
        return founding_frame(record, peer, frame, error);
    case FRAME_PROPOSE:
    case FRAME_OUTCOME:
        return proposals_frame(record, peer, frame, error);
    case FRAME_HEARTBEAT:
    case FRAME_HEARD:
        return heartbeat_frame(connection, frame, error);
    case FRAME_FEED:
    case FRAME_FED:
    case FRAME_SNAPSHOT:
    case FRAME_ENTRY:
        return feed_frame(connection, frame, error);
    case FRAME_HELLO:
    case FRAME_REFUSED:
        break;
    }
    return error_set(error, "unexpected frame %d", frame->type);
}

/* ---- the contract's messages ---- */

static void send_to_self(struct record *record, const uint8_t *bytes, size_t length) {
    struct self_message *message = malloc(sizeof *message + length);
    if (message == NULL)
        return;
    message->next = NULL;
    message->length = length;
    memcpy(message->bytes, bytes, length);
    *record->to_self_end = message;
    record->to_self_end = &message->next;
    record_defer(record);
}

static void send_to_peer(struct record *record, struct peer *peer, const uint8_t *bytes, size_t length) {
    if (peer->index == record->self)
        send_to_self(record, bytes, length);
    else if (peer->up && peer_reachable(peer) && connection_backlog(peer->messages) < SEND_BACKLOG_MAX)
        connection_send(peer->messages, FRAME_MESSAGE, bytes, length);
}

void record_hold(struct record *record) { record->holding = true; }

void record_release(struct record *record) {
    record->holding = false;
    connections_release(record);
}

void record_send(struct record *record, const char *name, const uint8_t *bytes, size_t length) {
    if (record_silent(record) || length > FRAME_BYTES_MAX)
        return;
    for (unsigned i = 0; i < record->peers_count; i++)
        if (name == NULL || strcmp(record->peers[i].config.name, name) == 0)
            send_to_peer(record, &record->peers[i], bytes, length);
}
