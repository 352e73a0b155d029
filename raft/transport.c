#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raft/parts.h"

/* libraft reads one end of a socket pair, whose other end we give the bytes from outside, after wire_check. What it
 * sends needs no check: once the hello is over, it has the TCP socket for itself. */

static struct record *record_of(struct raft_uv_transport *transport) { return transport->impl; }

/* ---- libraft's side ---- */

static int on_init(struct raft_uv_transport *transport, raft_id id, const char *address) {
    (void)transport, (void)id, (void)address;
    return 0;
}

static int on_listen(struct raft_uv_transport *transport, raft_uv_accept_cb accept) {
    record_of(transport)->engine.accept = accept;
    return 0;
}

/* The address in the log is the member's name: where that is, the configuration says. */
static int on_connect(struct raft_uv_transport *transport, struct raft_uv_connect *request, raft_id id,
                      const char *address, raft_uv_connect_cb connected) {
    struct record *record = record_of(transport);
    struct peer *peer = peer_named(record, address);
    struct error error;
    (void)id;
    if (record_silent(record) || peer == NULL || peer->index == record->self)
        return RAFT_NOCONNECTION;
    struct connection *connection = connection_dial(record, peer, PeerHello_Kind_RAFT, &error);
    if (connection == NULL)
        return RAFT_NOCONNECTION;
    connection->request = request;
    connection->connected = connected;
    return 0;
}

static void on_close(struct raft_uv_transport *transport, raft_uv_transport_close_cb closed) {
    struct record *record = record_of(transport);
    for (struct connection *c = record->connections; c != NULL; c = c->next)
        if (c->kind == PeerHello_Kind_RAFT)
            connection_close(c, "closing");
    closed(transport);
}

void transport_init(struct record *record) {
    record->engine.transport = (struct raft_uv_transport){
        .version = 1, .impl = record, .init = on_init, .listen = on_listen, .connect = on_connect, .close = on_close};
}

/* ---- the streams ---- */

static void stream_free(uv_handle_t *handle) { raft_free(handle); }

static void pipe_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    static char byte;
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(&byte, 1);
}

/* libraft writes nothing there. */
static void pipe_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct connection *connection = stream->data;
    (void)buffer;
    if (length != 0 && connection->state != CONNECTION_CLOSING)
        connection_close(connection, "closed by libraft");
}

/* Makes the pair, keeps one end and returns the other as libraft wants it; NULL if that fails. */
static uv_stream_t *pair_make(struct connection *connection) {
    int pair[2];
    uv_loop_t *loop = connection->record->loop;
    uv_pipe_t *theirs = raft_malloc(sizeof *theirs);
    if (theirs == NULL)
        return NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        raft_free(theirs);
        return NULL;
    }
    uv_pipe_init(loop, &connection->pipe, 0);
    connection->pipe.data = connection;
    connection->piped = true;
    connection->handles++;
    uv_pipe_init(loop, theirs, 0);
    int ours_opened = uv_pipe_open(&connection->pipe, pair[0]);
    int theirs_opened = uv_pipe_open(theirs, pair[1]);
    if (ours_opened == 0 && theirs_opened == 0 &&
        uv_read_start((uv_stream_t *)&connection->pipe, pipe_alloc, pipe_read) == 0)
        return (uv_stream_t *)theirs;
    if (ours_opened != 0)
        close(pair[0]);
    if (theirs_opened != 0)
        close(pair[1]);
    uv_close((uv_handle_t *)theirs, stream_free);
    return NULL;
}

/* The socket in a handle of libraft's own; ours may be closed then. NULL if that fails. libraft never reads from it:
 * that the other side has gone, it learns from its next heartbeats. */
static uv_stream_t *socket_take(struct connection *connection) {
    int fd, theirs_fd = -1;
    uv_tcp_t *theirs = raft_malloc(sizeof *theirs);
    if (theirs == NULL)
        return NULL;
    uv_tcp_init(connection->record->loop, theirs);
    if (uv_fileno((uv_handle_t *)&connection->tcp, &fd) == 0)
        theirs_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (theirs_fd >= 0 && uv_tcp_open(theirs, theirs_fd) == 0)
        return (uv_stream_t *)theirs;
    if (theirs_fd >= 0)
        close(theirs_fd);
    uv_close((uv_handle_t *)theirs, stream_free);
    return NULL;
}

static void request_finish(struct connection *connection, uv_stream_t *stream, int result) {
    struct raft_uv_connect *request = connection->request;
    connection->request = NULL;
    connection->connected(request, stream, result);
}

void transport_opened(struct connection *connection) {
    struct record *record = connection->record;
    if (!record->engine.started || record_silent(record)) {
        connection_refuse(connection, "not a member yet", false);
        return;
    }
    uv_stream_t *stream = connection->outbound ? socket_take(connection) : pair_make(connection);
    if (stream == NULL) {
        connection_close(connection, "no stream for libraft");
    } else if (connection->outbound) {
        request_finish(connection, stream, 0);
        connection_close(connection, "libraft has it");
    } else {
        record->engine.accept(&record->engine.transport, connection->hello.raft_id, connection->peer->config.name,
                              stream);
    }
}

void transport_closed(struct connection *connection) {
    if (connection->request != NULL)
        request_finish(connection, NULL, connection->record->closing ? RAFT_CANCELED : RAFT_NOCONNECTION);
}
