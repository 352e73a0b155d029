#include <netinet/tcp.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "raft/parts.h"

#define INPUT_FIRST_BYTES 4096
#define BACKLOG           64

/* ---- life ---- */

static struct connection *connection_new(struct record *record, PeerHello_Kind kind, bool outbound) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return NULL;
    connection->record = record;
    connection->kind = kind;
    connection->outbound = outbound;
    connection->heard_at = connection->sent_at = time_now();
    connection->tcp.data = connection;
    uv_tcp_init(record->loop, &connection->tcp);
    connection->handles = 1;
    connection->next = record->connections;
    record->connections = connection;
    return connection;
}

static void connection_unlink(struct connection *connection) {
    struct connection **at = &connection->record->connections;
    while (*at != connection)
        at = &(*at)->next;
    *at = connection->next;
}

static void handle_closed(uv_handle_t *handle) {
    struct connection *connection = handle->data;
    struct record *record = connection->record;
    if (--connection->handles > 0)
        return;
    connection_unlink(connection);
    free(connection->input);
    free(connection);
    record_closed_part(record);
}

void connection_close(struct connection *connection, const char *why) {
    if (connection->state == CONNECTION_CLOSING)
        return;
    connection->state = CONNECTION_CLOSING;
    uv_close((uv_handle_t *)&connection->tcp, handle_closed);
    if (connection->piped)
        uv_close((uv_handle_t *)&connection->pipe, handle_closed);
    if (connection->kind == PeerHello_Kind_RAFT)
        transport_closed(connection);
    else if (connection->peer != NULL)
        peers_closed(connection, why);
}

void connections_close(struct record *record) {
    for (struct connection *c = record->connections; c != NULL; c = c->next)
        connection_close(c, "closing");
}

/* ---- writing ---- */

struct writing {
    uv_write_t request;
    struct connection *connection;
    uint8_t bytes[];
};

static void stream_written(uv_write_t *request, int result) {
    struct writing *writing = (struct writing *)request;
    struct connection *connection = writing->connection;
    free(writing);
    if (connection->state != CONNECTION_CLOSING && (result < 0 || connection->refusing))
        connection_close(connection, result < 0 ? uv_strerror(result) : "refused");
}

static int write_later(struct connection *connection, uv_stream_t *stream, const uint8_t *bytes, size_t length) {
    struct writing *writing = malloc(sizeof *writing + length);
    if (writing == NULL)
        return UV_ENOMEM;
    memcpy(writing->bytes, bytes, length);
    writing->connection = connection;
    uv_buf_t buffer = uv_buf_init((char *)writing->bytes, (unsigned)length);
    int result = uv_write(&writing->request, stream, &buffer, 1, stream_written);
    if (result < 0)
        free(writing);
    return result;
}

/* At once, if the socket takes it, as it nearly always does: a write request costs another turn of the loop. Errors
 * are left to one nevertheless: callers do not expect that the connection closes under them. */
static void stream_write(struct connection *connection, uv_stream_t *stream, const uint8_t *bytes, size_t length) {
    uv_buf_t buffer = uv_buf_init((char *)bytes, (unsigned)length);
    int result = uv_try_write(stream, &buffer, 1);
    size_t written = result > 0 ? (size_t)result : 0;
    if (written < length && (result = write_later(connection, stream, bytes + written, length - written)) < 0)
        connection_close(connection, uv_strerror(result));
}

static void held_write(struct connection *connection) {
    if (connection->held_used > 0)
        stream_write(connection, (uv_stream_t *)&connection->tcp, connection->held, connection->held_used);
    connection->held_used = 0;
}

void connections_release(struct record *record) {
    for (struct connection *c = record->connections; c != NULL; c = c->next)
        if (c->state != CONNECTION_CLOSING)
            held_write(c);
}

/* True if the frame is held, with those before it. */
static bool frame_hold(struct connection *connection, enum frame_type type, const uint8_t *payload, size_t length) {
    size_t size = FRAME_HEADER_BYTES + length;
    if (!connection->record->holding)
        return false;
    if (connection->held_used + size > HELD_BYTES_MAX)
        held_write(connection);
    if (size > HELD_BYTES_MAX)
        return false;
    frame_write(connection->held + connection->held_used, type, payload, length);
    connection->held_used += size;
    return true;
}

void connection_send(struct connection *connection, enum frame_type type, const uint8_t *payload, size_t length) {
    if (connection->state == CONNECTION_CLOSING || connection->refusing)
        return;
    connection->sent_at = time_now();
    if (frame_hold(connection, type, payload, length))
        return;
    uint8_t *frame = malloc(FRAME_HEADER_BYTES + length);
    if (frame == NULL)
        return;
    frame_write(frame, type, payload, length);
    stream_write(connection, (uv_stream_t *)&connection->tcp, frame, FRAME_HEADER_BYTES + length);
    free(frame);
}

void connection_send_message(struct connection *connection, enum frame_type type, const pb_msgdesc_t *fields,
                             const void *message) {
    size_t length;
    bool sized = pb_get_encoded_size(&length, fields, message);
    require(sized && length <= FRAME_BYTES_MAX);
    uint8_t *payload = malloc(length + 1);
    if (payload == NULL)
        return;
    pb_ostream_t stream = pb_ostream_from_buffer(payload, length);
    bool encoded = pb_encode(&stream, fields, message);
    require(encoded);
    connection_send(connection, type, payload, length);
    free(payload);
}

size_t connection_backlog(const struct connection *connection) {
    return uv_stream_get_write_queue_size((const uv_stream_t *)&connection->tcp);
}

void connection_refuse(struct connection *connection, const char *why, bool stale) {
    PeerRefused refused = PeerRefused_init_zero;
    refused.stale = stale;
    snprintf(refused.reason, sizeof refused.reason, "%s", why);
    connection_send_message(connection, FRAME_REFUSED, PeerRefused_fields, &refused);
    connection->refusing = true;
    connection->deadline = time_now() + (connection_backlog(connection) > 0 ? GREETING_MAX : 0);
}

/* ---- hello ---- */

static void hello_send(struct connection *connection) {
    struct record *record = connection->record;
    PeerHello hello = PeerHello_init_zero;
    hello.protocol = PEER_PROTOCOL;
    hello.kind = connection->kind;
    snprintf(hello.cluster_name, sizeof hello.cluster_name, "%s", record->cluster_name);
    snprintf(hello.member, sizeof hello.member, "%s", record->peers[record->self].config.name);
    hello.cluster_id = record->identity.cluster_id;
    hello.raft_id = record->identity.raft_id;
    hello.start_count = record->identity.start_count;
    hello.rejoining = record->identity.rejoining;
    hello.observer = record_observes(record);
    snprintf(hello.damage, sizeof hello.damage, "%.*s", (int)sizeof hello.damage - 1, record->damage);
    connection->fresh = hello.cluster_id == 0;
    connection_send_message(connection, FRAME_HELLO, PeerHello_fields, &hello);
}

static void connection_opened(struct connection *connection, const PeerHello *hello, struct peer *peer) {
    connection->hello = *hello;
    connection->peer = peer;
    connection->state = CONNECTION_OPEN;
    connection->deadline = NSEC_NEVER;
    snprintf(connection->name, sizeof connection->name, "%s", peer->config.name);
    peer->raft_id = hello->raft_id;
    peer->cluster_id = hello->cluster_id;
    peer->start_count = hello->start_count;
    peer->rejoining = hello->rejoining;
    if (connection->kind == PeerHello_Kind_RAFT)
        transport_opened(connection);
    else
        peers_opened(connection);
}

/* The one refused learns why from the frame; here it is told to our own caller. */
static void hello_refuse(struct connection *connection, const PeerHello *hello, const struct refusal *refusal) {
    const char *why = refusal->reason.text;
    struct record *record = connection->record;
    struct peer *peer = connection->peer != NULL ? connection->peer : peer_named(record, hello->member);
    if (peer == NULL || peer->index == record->self)
        record_notice(record, "connection from %s refused: %s", connection->name, why);
    else if (!peer->up && hello->kind == PeerHello_Kind_MESSAGES)
        peer_report(record, peer, false, why);
    connection_refuse(connection, why, refusal->stale);
}

static status hello_received(struct connection *connection, const struct frame *frame, struct error *error) {
    PeerHello hello = PeerHello_init_zero;
    struct refusal refusal;
    struct peer *peer;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerHello_fields, &hello))
        return error_set(error, "malformed hello");
    if (!connection->outbound)
        connection->kind = hello.kind == PeerHello_Kind_RAFT ? PeerHello_Kind_RAFT : PeerHello_Kind_MESSAGES;
    if (peer_hello_check(connection->record, connection->outbound ? connection->peer : NULL, &hello, &peer, &refusal) !=
        OK) {
        hello_refuse(connection, &hello, &refusal);
        return OK;
    }
    if (!connection->outbound)
        hello_send(connection);
    if (connection->state == CONNECTION_GREETING)
        connection_opened(connection, &hello, peer);
    return OK;
}

static status refusal_received(struct connection *connection, const struct frame *frame, struct error *error) {
    PeerRefused refused = PeerRefused_init_zero;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerRefused_fields, &refused))
        return error_set(error, "malformed refusal");
    connection->refused = true;
    if (connection->peer != NULL)
        connection->peer->retry_at = time_now() + RECONNECT_REFUSED;
    for (char *c = refused.reason; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    if (connection->peer != NULL)
        connection->peer->disowns = refused.stale;
    return error_set(error, "%.*s", (int)sizeof error->text - 1, refused.reason);
}

static status greeting_frame(struct connection *connection, const struct frame *frame, struct error *error) {
    if (frame->type == FRAME_HELLO)
        return hello_received(connection, frame, error);
    if (frame->type == FRAME_REFUSED && connection->outbound)
        return refusal_received(connection, frame, error);
    return error_set(error, "frame %d where a hello was expected", frame->type);
}

static status frame_received(struct connection *connection, const struct frame *frame, struct error *error) {
    if (connection->state == CONNECTION_GREETING)
        return greeting_frame(connection, frame, error);
    if (frame->type == FRAME_REFUSED)
        return refusal_received(connection, frame, error);
    return peers_frame(connection, frame, error);
}

/* ---- reading ---- */

static void input_consume(struct connection *connection, size_t size) {
    connection->input_used -= size;
    memmove(connection->input, connection->input + size, connection->input_used);
}

/* Makes room for `size` bytes from the start of the input. */
static bool input_reserve(struct connection *connection, size_t size) {
    if (size <= connection->input_size)
        return true;
    uint8_t *input = realloc(connection->input, size);
    if (input == NULL)
        return false;
    connection->input = input;
    connection->input_size = size;
    return true;
}

static status frames_input(struct connection *connection, struct error *error) {
    while (connection->state != CONNECTION_CLOSING && !connection->refusing) {
        struct frame frame;
        size_t size;
        if (connection->state == CONNECTION_OPEN && connection->kind == PeerHello_Kind_RAFT)
            return OK;
        size_t max = connection->state == CONNECTION_OPEN ? FRAME_BYTES_MAX : HELLO_BYTES_MAX;
        if (frame_parse(connection->input, connection->input_used, max, &frame, &size, error) != OK)
            return FAILED;
        if (connection->input_used < size)
            return input_reserve(connection, size) ? OK : error_set(error, "out of memory");
        if (frame_received(connection, &frame, error) != OK)
            return FAILED;
        input_consume(connection, size);
    }
    return OK;
}

/* Who dialled may refuse us when it has our hello, and we may have taken it by then. */
static status raft_refused(struct connection *connection, struct error *error) {
    struct frame frame = {0};
    size_t size;
    if (frame_parse(connection->input, connection->input_used, HELLO_BYTES_MAX, &frame, &size, error) != OK)
        return FAILED;
    if (connection->input_used < size)
        return input_reserve(connection, size) ? OK : error_set(error, "out of memory");
    return frame.type == FRAME_REFUSED ? refusal_received(connection, &frame, error)
                                       : error_set(error, "frame %d within libraft's stream", frame.type);
}

static status raft_input(struct connection *connection, struct error *error) {
    while (connection->state == CONNECTION_OPEN && connection->input_used > 0) {
        size_t size;
        if (frame_begins(connection->input[0]))
            return raft_refused(connection, error);
        if (wire_check(connection->input, connection->input_used, &size, error) != OK)
            return FAILED;
        if (connection->input_used < size)
            return input_reserve(connection, size) ? OK : error_set(error, "out of memory");
        stream_write(connection, (uv_stream_t *)&connection->pipe, connection->input, size);
        input_consume(connection, size);
    }
    return OK;
}

static void input_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    struct connection *connection = handle->data;
    (void)suggested;
    if (connection->input_used == connection->input_size &&
        !input_reserve(connection, connection->input_size + INPUT_FIRST_BYTES))
        *buffer = uv_buf_init(NULL, 0);
    else
        *buffer = uv_buf_init((char *)connection->input + connection->input_used,
                              (unsigned)(connection->input_size - connection->input_used));
}

static void input_failed(struct connection *connection, const char *why) {
    if (connection->state == CONNECTION_GREETING && !connection->outbound)
        record_notice(connection->record, "connection from %s dropped: %s", connection->name, why);
    else if (connection->state == CONNECTION_OPEN && connection->kind == PeerHello_Kind_RAFT)
        record_notice(connection->record, "raft connection with %s dropped: %s", connection->name, why);
    connection_close(connection, why);
}

static void input_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct connection *connection = stream->data;
    struct error error;
    (void)buffer;
    if (length == 0 || connection->state == CONNECTION_CLOSING)
        return;
    if (length < 0) {
        connection_close(connection, length == UV_EOF ? "connection closed" : uv_strerror((int)length));
        return;
    }
    connection->input_used += (size_t)length;
    connection->heard_at = time_now();
    if (connection->refusing)
        connection->input_used = 0;
    else if (frames_input(connection, &error) != OK)
        input_failed(connection, error.text);
    else if (connection->kind == PeerHello_Kind_RAFT && raft_input(connection, &error) != OK)
        input_failed(connection, error.text);
}

static void connection_greet(struct connection *connection) {
    int fd, yes = 1, timeout = USER_TIMEOUT_MS, probes = 2, seconds = 1;
    uv_tcp_nodelay(&connection->tcp, 1);
    if (uv_fileno((uv_handle_t *)&connection->tcp, &fd) == 0) {
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
    }
    connection->state = CONNECTION_GREETING;
    connection->deadline = time_now() + GREETING_MAX;
    int result = uv_read_start((uv_stream_t *)&connection->tcp, input_alloc, input_read);
    if (result < 0)
        connection_close(connection, uv_strerror(result));
}

/* ---- dialling ---- */

static void dialled(uv_connect_t *request, int result) {
    struct connection *connection = request->data;
    if (connection->state == CONNECTION_CLOSING)
        return;
    if (result < 0) {
        connection_close(connection, uv_strerror(result));
        return;
    }
    connection_greet(connection);
    hello_send(connection);
}

struct connection *connection_dial(struct record *record, struct peer *peer, PeerHello_Kind kind, struct error *error) {
    struct sockaddr_storage address;
    enum resolved resolved = resolve(&peer->resolver, peer->config.host, peer->config.port, &address);
    if (resolved != RESOLVED) {
        error_set(error, "could not resolve %s: %s", peer->config.host,
                  resolved == RESOLVING ? "no answer yet" : peer->resolver.why);
        return NULL;
    }
    struct connection *connection = connection_new(record, kind, true);
    if (connection == NULL) {
        error_set(error, "out of memory");
        return NULL;
    }
    snprintf(connection->name, sizeof connection->name, "%s", peer->config.name);
    connection->deadline = time_now() + msec(record->election_ms);
    connection->connect.data = connection;
    int result = uv_tcp_connect(&connection->connect, &connection->tcp, (struct sockaddr *)&address, dialled);
    if (result < 0) {
        error_set(error, "could not connect to %s:%u: %s", peer->config.host, peer->config.port, uv_strerror(result));
        connection_close(connection, error->text);
        return NULL;
    }
    connection->peer = peer;
    return connection;
}

/* ---- accepting ---- */

static unsigned accepted_count(const struct record *record, enum connection_state state,
                               struct connection **ret_oldest) {
    unsigned count = 0;
    for (struct connection *c = record->connections; c != NULL; c = c->next)
        if (!c->outbound && c->state == state) {
            *ret_oldest = c;
            count++;
        }
    return count;
}

static void connection_name_address(struct connection *connection) {
    struct sockaddr_storage address;
    int size = sizeof address;
    snprintf(connection->name, sizeof connection->name, "unknown address");
    if (uv_tcp_getpeername(&connection->tcp, (struct sockaddr *)&address, &size) == 0)
        uv_ip_name((struct sockaddr *)&address, connection->name, sizeof connection->name);
}

static void accepted(uv_stream_t *listener, int result) {
    struct record *record = listener->data;
    struct connection *oldest = NULL;
    if (result < 0 || record->closing)
        return;
    struct connection *connection = connection_new(record, PeerHello_Kind_MESSAGES, false);
    if (connection == NULL)
        return;
    connection->state = CONNECTION_GREETING;
    if (uv_accept(listener, (uv_stream_t *)&connection->tcp) < 0) {
        connection_close(connection, "accept");
        return;
    }
    connection_name_address(connection);
    if (accepted_count(record, CONNECTION_OPEN, &oldest) >= CONNECTIONS_MAX) {
        record_notice(record, "connection from %s dropped: too many connections", connection->name);
        connection_close(connection, "too many connections");
        return;
    }
    if (accepted_count(record, CONNECTION_GREETING, &oldest) > STRANGERS_MAX + record->observers)
        connection_close(oldest, "too many strangers");
    connection_greet(connection);
}

/* A host name may resolve to a loopback address on the host that bears it, so for names every address is bound. */
status connections_listen(struct record *record, struct error *error) {
    const struct record_peer *self = &record->peers[record->self].config;
    struct sockaddr_storage address;
    int result;
    if (resolve_numeric(self->host, self->port, &address)) {
        result = uv_tcp_bind(&record->listener, (struct sockaddr *)&address, 0);
    } else {
        uv_ip6_addr("::", self->port, (struct sockaddr_in6 *)&address);
        result = uv_tcp_bind(&record->listener, (struct sockaddr *)&address, 0);
        if (result == UV_EAFNOSUPPORT) {
            uv_ip4_addr("0.0.0.0", self->port, (struct sockaddr_in *)&address);
            result = uv_tcp_bind(&record->listener, (struct sockaddr *)&address, 0);
        }
    }
    if (result == 0)
        result = uv_listen((uv_stream_t *)&record->listener, BACKLOG, accepted);
    if (result < 0)
        return error_set(error, "could not listen on %s:%u: %s", self->host, self->port, uv_strerror(result));
    return OK;
}

/* ---- deadlines ---- */

void connections_tick(struct record *record, nsec now) {
    for (struct connection *c = record->connections; c != NULL; c = c->next) {
        if (c->state == CONNECTION_CLOSING)
            continue;
        if (c->state == CONNECTION_OPEN && !c->refusing)
            continue;
        if (now >= c->deadline)
            connection_close(c, c->state == CONNECTION_CONNECTING ? "no answer" : "no hello");
    }
}
