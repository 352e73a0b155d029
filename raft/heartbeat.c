/* Nearly all that libraft ever says are heartbeats and the answers to them. By its own way each costs the receiver a
 * second stream (transport.c) and five system calls; so they go as frames over the message connection, which is there
 * anyway. Messages may get lost or overtake each other, as ever between two connections. A heartbeat must not overtake
 * the entries that it builds on, though: it would be rejected, and libraft would send them again. So it goes this way
 * only once the other side has said that it has them. And now and then one goes libraft's way, which else would find
 * out only with the next entry that its connection is gone. */
#include <pb_decode.h>

#include "raft/parts.h"

#define OTHER_WAY_EVERY (1 * NSEC_PER_SEC)

static bool is_heartbeat(const struct raft_message *message) {
    return message->type == RAFT_APPEND_ENTRIES && message->append_entries.n_entries == 0;
}

static bool overtakes_nothing(const struct peer *peer, const struct raft_append_entries *heartbeat) {
    return peer->has_log_of == heartbeat->term && heartbeat->prev_log_index <= peer->has_log;
}

static void send_heartbeat(struct connection *connection, const struct raft_append_entries *from) {
    const PeerHeartbeat heartbeat = {.version = from->version,
                                     .term = from->term,
                                     .previous_index = from->prev_log_index,
                                     .previous_term = from->prev_log_term,
                                     .commit_index = from->leader_commit};
    connection_send_message(connection, FRAME_HEARTBEAT, PeerHeartbeat_fields, &heartbeat);
}

static void send_heard(struct connection *connection, const struct raft_append_entries_result *from) {
    const PeerHeard heard = {.version = from->version,
                             .term = from->term,
                             .rejected = from->rejected,
                             .last_index = from->last_log_index,
                             .features = from->features,
                             .capacity = from->capacity};
    connection_send_message(connection, FRAME_HEARD, PeerHeard_fields, &heard);
}

static bool goes_the_other_way(struct peer *peer, nsec now) {
    if (now < peer->other_way_at)
        return false;
    peer->other_way_at = now + OTHER_WAY_EVERY;
    return true;
}

/* Its connection is the one of the server that libraft means, not of one that comes back under another id. */
static bool speaks_for(const struct peer *peer, raft_id id) { return peer_reachable(peer) && peer->raft_id == id; }

bool heartbeat_send(struct record *record, const struct raft_message *message) {
    struct peer *peer = peer_named(record, message->server_address);
    if (peer == NULL || !speaks_for(peer, message->server_id) || connection_backlog(peer->messages) > 0)
        return false;
    if (message->type == RAFT_APPEND_ENTRIES_RESULT)
        send_heard(peer->messages, &message->append_entries_result);
    else if (is_heartbeat(message) && overtakes_nothing(peer, &message->append_entries) &&
             !goes_the_other_way(peer, time_now()))
        send_heartbeat(peer->messages, &message->append_entries);
    else
        return false;
    return true;
}

static status decode_heartbeat(const struct frame *frame, struct raft_append_entries *ret, struct error *error) {
    PeerHeartbeat from = PeerHeartbeat_init_zero;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerHeartbeat_fields, &from))
        return error_set(error, "malformed heartbeat");
    *ret = (struct raft_append_entries){.version = (unsigned char)from.version,
                                        .term = from.term,
                                        .prev_log_index = from.previous_index,
                                        .prev_log_term = from.previous_term,
                                        .leader_commit = from.commit_index};
    return OK;
}

static status decode_heard(const struct frame *frame, struct raft_append_entries_result *ret, struct error *error) {
    PeerHeard from = PeerHeard_init_zero;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerHeard_fields, &from))
        return error_set(error, "malformed answer to a heartbeat");
    *ret = (struct raft_append_entries_result){.version = (unsigned char)from.version,
                                               .term = from.term,
                                               .rejected = from.rejected,
                                               .last_log_index = from.last_index,
                                               .features = (unsigned short)from.features,
                                               .capacity = (unsigned short)from.capacity};
    return OK;
}

status heartbeat_frame(struct connection *connection, const struct frame *frame, struct error *error) {
    struct record *record = connection->record;
    struct peer *peer = connection->peer;
    const struct raft_server *server = engine_server(record, peer->config.name);
    struct raft_message message = {.server_id = peer->raft_id, .server_address = peer->config.name};
    status decoded;
    if (frame->type == FRAME_HEARTBEAT) {
        message.type = RAFT_APPEND_ENTRIES;
        decoded = decode_heartbeat(frame, &message.append_entries, error);
    } else {
        message.type = RAFT_APPEND_ENTRIES_RESULT;
        decoded = decode_heard(frame, &message.append_entries_result, error);
    }
    if (decoded == OK && record->engine.started && server != NULL && server->id == peer->raft_id &&
        peer->messages == connection)
        engine_receive(record, &message);
    return decoded;
}
