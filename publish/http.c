#include "publish/http.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/panic.h"

/* One text that goes out to many streams. */
struct event {
    unsigned users;
    uint64_t number;
    size_t length;
    char text[];
};

struct stream {
    struct event *event; /* under way */
    size_t sent;         /* of it */
    uint64_t number;     /* of the newest that was begun */
    bool ping;           /* is due */
    bool suspended;      /* has nothing to send */
};

/* READING -> ANSWERED            the handler answered at once
 * READING -> WAITING -> ANSWERED it answers later: the connection is suspended meanwhile */
enum exchange_state { EXCHANGE_READING, EXCHANGE_WAITING, EXCHANGE_ANSWERED };

struct http_private {
    struct http_exchange exchange;
    struct http_server *server;
    struct MHD_Connection *connection;
    enum exchange_state state;
    bool handed; /* the handler has it and has not answered */
    bool gone;   /* libmicrohttpd has done with it */
    unsigned http_status;
    char *text;
    const char *type, *allow;
    bool streams;
    struct stream stream;
    LIST_ENTRY(http_private) link;
};

struct http_connection {
    struct http_server *server;
    struct tls *tls; /* with which it began; NULL without */
    bool handshakes; /* still */
    struct tls_watch watch;
    int fd;
    uint64_t busy_since; /* milliseconds of the loop: it came, or its last answer ended; 0 = may take its time */
    LIST_ENTRY(http_connection) link;
};

struct http_server {
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer;
    bool resumed; /* since libmicrohttpd last ran: it must run again */
    bool local;
    struct tls *tls; /* of new connections; NULL without */
    struct {         /* with TLS we accept ourselves, so that we may leave it */
        uv_poll_t poll;
        int fd;
        bool quiet; /* who says nothing is not let in */
        bool waits; /* handshakes enough are under way, or there are no descriptors */
    } door;
    unsigned handshakes; /* under way */
    http_handler *handler;
    void *user;
    LIST_HEAD(, http_private) exchanges;
    LIST_HEAD(, http_connection) connections;
    uv_timer_t sweep; /* every second */
    unsigned sweeps;
    struct event *event; /* the newest; NULL before the first */
    bool closing;
    unsigned handles_open;
    void (*closed)(void *user);
    void *closed_user;
};

/* ---- one exchange ---- */

static struct http_private *exchange_new(struct http_server *server, struct MHD_Connection *connection,
                                         const char *method, const char *path) {
    struct http_private *private = calloc(1, sizeof *private);
    char *names = malloc(strlen(method) + strlen(path) + 2);
    if (private == NULL || names == NULL) {
        free(private);
        free(names);
        return NULL;
    }
    /* The handler may outlive the connection, and with it libmicrohttpd's strings. */
    char *path_copy = stpcpy(names, method) + 1;
    private->exchange = (struct http_exchange){
        .method = names, .path = strcpy(path_copy, path), .local = server->local, .private = private};
    private->server = server;
    private->connection = connection;
    LIST_INSERT_HEAD(&server->exchanges, private, link);
    return private;
}

static void event_leave(struct event *event) {
    if (event != NULL && --event->users == 0)
        free(event);
}

static struct event *event_new(const char *text, uint64_t number) {
    size_t length = strlen(text);
    struct event *event = malloc(sizeof *event + length + 1);
    if (event == NULL)
        return NULL;
    *event = (struct event){.users = 1, .number = number, .length = length};
    memcpy(event->text, text, length + 1);
    return event;
}

static void exchange_free_if_done(struct http_private *private) {
    if (private->handed || !private->gone)
        return;
    free((char *)private->exchange.method);
    free(private->exchange.body);
    free(private->text);
    event_leave(private->stream.event);
    free(private);
}

static void on_timer(uv_timer_t *timer);

static void exchange_answer(struct http_private *private, unsigned http_status, char *text, const char *allow) {
    bool suspended = private->state == EXCHANGE_WAITING;
    private->state = EXCHANGE_ANSWERED;
    private->http_status = http_status;
    private->text = text;
    private->allow = allow;
    if (!suspended)
        return;
    /* Without threads of its own libmicrohttpd does not wake up for this by itself. */
    MHD_resume_connection(private->connection);
    private->server->resumed = true;
    uv_timer_start(&private->server->timer, on_timer, 0, 0);
}

void http_answer(struct http_exchange *exchange, unsigned http_status, char *text, const char *allow) {
    struct http_private *private = exchange->private;
    require(private->handed);
    private->handed = false;
    if (private->state != EXCHANGE_ANSWERED)
        exchange_answer(private, http_status, text, allow);
    else
        free(text); /* the server was closed meanwhile and has answered by itself */
    exchange_free_if_done(private);
}

void http_answer_text(struct http_exchange *exchange, unsigned http_status, const char *type, char *text) {
    exchange->private->type = type;
    http_answer(exchange, http_status, text, NULL);
}

void http_stream(struct http_exchange *exchange, char *text) {
    struct http_private *private = exchange->private;
    const struct event *newest = private->server->event;
    private->streams = true;
    private->stream.number = newest != NULL ? newest->number : 0;
    private->stream.event = text != NULL ? event_new(text, private->stream.number) : NULL;
    free(text);
    http_answer(exchange, MHD_HTTP_OK, NULL, NULL);
}

const char *http_argument(const struct http_exchange *exchange, const char *name) {
    const char *value = NULL;
    struct MHD_Connection *connection = exchange->private->connection;
    if (MHD_lookup_connection_value_n(connection, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value, NULL) == MHD_NO)
        return NULL;
    return value != NULL ? value : "";
}

struct search {
    const char *prefix;
    bool found;
};

static enum MHD_Result on_argument(void *user, enum MHD_ValueKind kind, const char *name, const char *value) {
    struct search *search = user;
    (void)kind, (void)value;
    search->found = strncmp(name, search->prefix, strlen(search->prefix)) == 0;
    return search->found ? MHD_NO : MHD_YES;
}

bool http_argument_begins(const struct http_exchange *exchange, const char *prefix) {
    struct search search = {.prefix = prefix};
    MHD_get_connection_values(exchange->private->connection, MHD_GET_ARGUMENT_KIND, on_argument, &search);
    return search.found;
}

static char *sentence(const char *text) {
    char *copy = NULL;
    return asprintf(&copy, "{\"error\": \"%s\"}", text) < 0 ? NULL : copy;
}

/* ---- streams ---- */

#define PING ": still here\n\n"

/* False if there is none to begin. */
static bool stream_begin_next(struct http_private *private) {
    struct stream *stream = &private->stream;
    struct event *newest = private->server->event;
    if (newest == NULL || newest->number <= stream->number)
        return false;
    newest->users++;
    stream->event = newest;
    stream->number = newest->number;
    stream->sent = 0;
    return true;
}

static ssize_t stream_event(struct stream *stream, char *buffer, size_t size) {
    size_t left = stream->event->length - stream->sent, part = left < size ? left : size;
    memcpy(buffer, stream->event->text + stream->sent, part);
    stream->sent += part;
    stream->ping = false;
    if (stream->sent == stream->event->length) {
        event_leave(stream->event);
        stream->event = NULL;
    }
    return (ssize_t)part;
}

/* Called by libmicrohttpd whenever it could send. */
static ssize_t on_stream(void *user, uint64_t position, char *buffer, size_t size) {
    struct http_private *private = user;
    struct stream *stream = &private->stream;
    (void)position;
    if (private->server->closing)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (stream->event != NULL || stream_begin_next(private))
        return stream_event(stream, buffer, size);
    if (stream->ping && size >= strlen(PING)) {
        stream->ping = false;
        memcpy(buffer, PING, strlen(PING));
        return (ssize_t)strlen(PING);
    }
    stream->suspended = true;
    MHD_suspend_connection(private->connection);
    return 0;
}

static void stream_wake(struct http_private *private) {
    if (!private->streams || !private->stream.suspended)
        return;
    private->stream.suspended = false;
    MHD_resume_connection(private->connection);
    private->server->resumed = true;
}

static void streams_wake(struct http_server *server, bool ping) {
    struct http_private *private;
    LIST_FOREACH(private, &server->exchanges, link) {
        private->stream.ping |= ping;
        stream_wake(private);
    }
    if (server->resumed)
        uv_timer_start(&server->timer, on_timer, 0, 0);
}

void http_stream_send(struct http_server *server, const char *text) {
    struct event *event = event_new(text, server->event != NULL ? server->event->number + 1 : 1);
    if (event == NULL)
        return;
    event_leave(server->event);
    server->event = event;
    streams_wake(server, false);
}

static struct MHD_Response *stream_response(struct http_private *private) {
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_BODY_MAX, on_stream, private, NULL);
    if (response != NULL)
        MHD_add_response_header(response, "Content-Type", "text/event-stream");
    return response;
}

/* ---- connections ---- */

static struct http_connection *connection_of(struct MHD_Connection *connection) {
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* The rest is up to us, or it streams: silence alone ends it now. */
static void connection_take_its_time(struct MHD_Connection *connection) {
    struct http_connection *ours = connection_of(connection);
    if (ours != NULL)
        ours->busy_since = 0;
}

static void connection_hurry(struct MHD_Connection *connection) {
    struct http_connection *ours = connection_of(connection);
    if (ours != NULL)
        ours->busy_since = uv_now(ours->server->timer.loop);
}

static void on_door(uv_poll_t *poll, int error, int events);

static void door_again(struct http_server *server) {
    if (!server->door.waits || server->closing || server->handshakes >= HTTP_HANDSHAKES_MAX)
        return;
    server->door.waits = false;
    require(uv_poll_start(&server->door.poll, UV_READABLE, on_door) == 0);
}

static void handshake_over(struct http_connection *ours) {
    if (!ours->handshakes)
        return;
    ours->handshakes = false;
    ours->server->handshakes--;
    door_again(ours->server);
}

static void on_handshake(void *user) { handshake_over(user); }

/* Without a certificate of ours the handshake fails; so does one for which there is no memory. */
static void connection_dress(struct http_connection *ours, struct MHD_Connection *connection) {
    if (ours->server->tls == NULL)
        return;
    void *session = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
    ours->tls = tls_join(ours->server->tls);
    ours->handshakes = true;
    ours->server->handshakes++;
    ours->watch = (struct tls_watch){on_handshake, ours};
    if (tls_serve(ours->tls, session, &ours->watch) != OK)
        shutdown(ours->fd, SHUT_RDWR);
}

static struct http_connection *connection_new(struct http_server *server, struct MHD_Connection *connection) {
    struct http_connection *ours = calloc(1, sizeof *ours);
    if (ours == NULL)
        return NULL;
    ours->server = server;
    ours->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    ours->busy_since = uv_now(server->timer.loop);
    LIST_INSERT_HEAD(&server->connections, ours, link);
    connection_dress(ours, connection);
    return ours;
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    struct http_connection *ours = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = connection_new(user, connection);
    } else if (code == MHD_CONNECTION_NOTIFY_CLOSED && ours != NULL) {
        LIST_REMOVE(ours, link);
        handshake_over(ours);
        tls_leave(ours->tls);
        free(ours);
    }
}

/* ---- answers ---- */

static struct MHD_Response *text_response(struct http_private *private) {
    char *text = private->text != NULL ? private->text : strdup("{}");
    private->text = NULL;
    if (text == NULL)
        return NULL;
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL)
        free(text);
    else
        MHD_add_response_header(response, "Content-Type", private->type != NULL ? private->type : "application/json");
    return response;
}

static enum MHD_Result exchange_reply(struct http_private *private) {
    struct MHD_Response *response = private->streams ? stream_response(private) : text_response(private);
    if (response == NULL)
        return MHD_NO;
    if (private->streams)
        connection_take_its_time(private->connection);
    else
        connection_hurry(private->connection);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    if (private->allow != NULL)
        MHD_add_response_header(response, "Allow", private->allow);
    enum MHD_Result result = MHD_queue_response(private->connection, private->http_status, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- what happens every second ---- */

/* Who sends a byte now and then is never silent, and never done. */
static void on_sweep(uv_timer_t *timer) {
    struct http_server *server = timer->data;
    struct http_connection *connection;
    uint64_t now = uv_now(timer->loop);
    LIST_FOREACH(connection, &server->connections, link) {
        uint64_t most_ms = 1000u * (connection->handshakes ? HTTP_HANDSHAKE_MAX_SECONDS : HTTP_REQUEST_MAX_SECONDS);
        if (connection->busy_since != 0 && now - connection->busy_since > most_ms)
            shutdown(connection->fd, SHUT_RDWR);
    }
    door_again(server);
    if (++server->sweeps % HTTP_PING_SECONDS == 0)
        streams_wake(server, true);
}

/* ---- what libmicrohttpd calls: once with the headers, once for each piece of the body, once at its end, and once
 * more after a resume ---- */

static enum MHD_Result headers_arrived(struct http_private *private) {
    const char *length = MHD_lookup_connection_value(private->connection, MHD_HEADER_KIND, "Content-Length");
    if (length == NULL || strtoull(length, NULL, 10) <= HTTP_BODY_MAX)
        return MHD_YES;
    exchange_answer(private, MHD_HTTP_CONTENT_TOO_LARGE, sentence("the body of this request is too large"), NULL);
    return exchange_reply(private);
}

static enum MHD_Result body_arrived(struct http_private *private, const char *bytes, size_t *length) {
    struct http_exchange *exchange = &private->exchange;
    /* Only a body sent in chunks gets here: its length was not known. No answer can be queued now, so hang up. */
    if (*length > HTTP_BODY_MAX - exchange->body_length)
        return MHD_NO;
    if (exchange->body == NULL && (exchange->body = calloc(1, HTTP_BODY_MAX + 1)) == NULL)
        return MHD_NO;
    memcpy(exchange->body + exchange->body_length, bytes, *length);
    exchange->body_length += *length;
    *length = 0;
    return MHD_YES;
}

static enum MHD_Result request_complete(struct http_private *private) {
    if (private->state == EXCHANGE_READING) {
        private->handed = true;
        private->server->handler(private->server->user, &private->exchange);
    }
    if (private->state == EXCHANGE_ANSWERED)
        return exchange_reply(private);
    private->state = EXCHANGE_WAITING;
    connection_take_its_time(private->connection);
    MHD_suspend_connection(private->connection);
    return MHD_YES;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_length, void **state) {
    (void)version;
    struct http_private *private = *state;
    if (private == NULL) {
        private = *state = exchange_new(context, connection, method, url);
        return private == NULL ? MHD_NO : headers_arrived(private);
    }
    if (*upload_length > 0)
        return body_arrived(private, upload, upload_length);
    return request_complete(private);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode reason) {
    (void)context, (void)reason;
    struct http_private *private = *state;
    if (private == NULL)
        return;
    *state = NULL;
    LIST_REMOVE(private, link);
    connection_hurry(connection);
    private->gone = true;
    exchange_free_if_done(private);
}

/* ---- on the loop ---- */

/* libmicrohttpd wants to run again at once as long as a handshake is under way. A timer of 0 ms that starts itself
 * again would be all that the loop ever does. */
static void server_run_after(struct http_server *server, uint64_t least_ms) {
    do {
        server->resumed = false;
        MHD_run(server->daemon);
    } while (server->resumed);
    unsigned long long timeout_ms;
    if (MHD_get_timeout(server->daemon, &timeout_ms) == MHD_YES)
        uv_timer_start(&server->timer, on_timer, timeout_ms > least_ms ? timeout_ms : least_ms, 0);
    else
        uv_timer_stop(&server->timer);
}

static void server_run(struct http_server *server) { server_run_after(server, 0); }

static void on_timer(uv_timer_t *timer) { server_run_after(timer->data, 1); }

static void on_readable(uv_poll_t *poll, int error, int events) {
    (void)error, (void)events;
    server_run(poll->data);
}

/* The kernel has waited for the first bytes, and those who sent none would hold a place. */
static bool says_nothing(const struct http_server *server, int fd) {
    char byte;
    return server->door.quiet && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

/* False if nobody is there any more; then whoever came may wait until there are descriptors. */
static bool let_in(struct http_server *server) {
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    int fd = accept4(server->door.fd, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        server->door.waits = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
        return false;
    }
    if (says_nothing(server, fd))
        close(fd);
    else
        (void)MHD_add_connection(server->daemon, fd, (struct sockaddr *)&from, length); /* takes it in any case */
    return true;
}

/* So few at once that everything else on the loop has its turn in between, whoever comes. */
static void on_door(uv_poll_t *poll, int error, int events) {
    struct http_server *server = poll->data;
    unsigned places = HTTP_HANDSHAKES_MAX - server->handshakes;
    (void)error, (void)events;
    while (places > 0 && let_in(server))
        places--;
    server_run(server);
    server->door.waits |= server->handshakes >= HTTP_HANDSHAKES_MAX;
    if (server->door.waits)
        uv_poll_stop(poll);
}

/* Descriptors that clients hold are missing elsewhere: so many may be there at most. */
static unsigned connections_max(bool local) {
    struct rlimit limit;
    rlim_t wanted = HTTP_CONNECTIONS_MAX + HTTP_LOCAL_MAX + HTTP_DESCRIPTORS_KEPT;
    if (local)
        return HTTP_LOCAL_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return HTTP_LOCAL_MAX;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= wanted)
        return HTTP_CONNECTIONS_MAX;
    rlim_t kept = HTTP_LOCAL_MAX + HTTP_DESCRIPTORS_KEPT;
    return limit.rlim_cur > kept + HTTP_LOCAL_MAX ? (unsigned)(limit.rlim_cur - kept) : HTTP_LOCAL_MAX;
}

/* libmicrohttpd keeps the first certificate for ever. So each session is given ours (connection_dress), and this, which
 * it asks for one in other sessions, has none. */
static int on_no_certificate(gnutls_session_t session, const gnutls_datum_t *authorities, int authorities_count,
                             const gnutls_pk_algorithm_t *algorithms, int algorithms_count, gnutls_pcert_st **ret_list,
                             unsigned *ret_count, gnutls_privkey_t *ret_key) {
    (void)session, (void)authorities, (void)authorities_count, (void)algorithms, (void)algorithms_count;
    (void)ret_list, (void)ret_count, (void)ret_key;
    return -1;
}

static struct MHD_Daemon *daemon_start(struct http_server *server, int fd) {
    struct MHD_OptionItem plain[] = {{MHD_OPTION_LISTEN_SOCKET, fd, NULL}, {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem secret[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)on_no_certificate},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA"},
        {MHD_OPTION_END, 0, NULL}};
    unsigned most = connections_max(server->local);
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
    if (server->tls != NULL)
        flags |= MHD_USE_TLS | MHD_USE_NO_LISTEN_SOCKET;
    return MHD_start_daemon(flags, 0, NULL, NULL, on_request, server, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                            MHD_OPTION_CONNECTION_LIMIT, most, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
                            server->local ? 0u : HTTP_ONE_ADDRESS_MAX, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
                            server, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_BYTES,
                            MHD_OPTION_CONNECTION_TIMEOUT, HTTP_SILENCE_MAX_SECONDS, MHD_OPTION_ARRAY,
                            server->tls != NULL ? secret : plain, MHD_OPTION_END);
}

/* libmicrohttpd has no listening socket then: it would take all who come. */
static void door_open(struct http_server *server, uv_loop_t *loop, int fd) {
    int patience_s = HTTP_SILENCE_MAX_SECONDS;
    server->door.fd = fd;
    server->door.quiet = setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &patience_s, sizeof patience_s) == 0;
    require(uv_poll_init(loop, &server->door.poll, fd) == 0);
    server->door.poll.data = server;
    require(uv_poll_start(&server->door.poll, UV_READABLE, on_door) == 0);
    server->handles_open++;
}

static void on_handle_closed(uv_handle_t *handle) {
    struct http_server *server = handle->data;
    if (--server->handles_open > 0)
        return;
    event_leave(server->event);
    tls_leave(server->tls);
    if (server->closed != NULL)
        server->closed(server->closed_user);
    free(server);
}

status http_open(struct http_server **ret_server, uv_loop_t *loop, const struct http_door *door, http_handler *handler,
                 void *user, struct error *error) {
    struct http_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        close(door->fd);
        return error_set(error, "out of memory");
    }
    *server = (struct http_server){.local = door->local, .handler = handler, .user = user, .handles_open = 3};
    server->tls = tls_join(door->tls);
    LIST_INIT(&server->exchanges);
    LIST_INIT(&server->connections);
    require(uv_timer_init(loop, &server->timer) == 0);
    require(uv_timer_init(loop, &server->sweep) == 0);
    server->timer.data = server->sweep.data = server;
    server->daemon = daemon_start(server, door->fd);
    if (server->daemon == NULL) {
        close(door->fd);
        server->handles_open = 2;
        uv_close((uv_handle_t *)&server->timer, on_handle_closed);
        uv_close((uv_handle_t *)&server->sweep, on_handle_closed);
        return error_set(error, "could not start the HTTP server");
    }
    /* Neither can fail: the descriptor is an epoll of ours, which nobody else polls. */
    int epoll = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    require(uv_poll_init(loop, &server->poll, epoll) == 0);
    server->poll.data = server;
    uv_timer_start(&server->sweep, on_sweep, 1000, 1000);
    require(uv_poll_start(&server->poll, UV_READABLE, on_readable) == 0);
    if (server->tls != NULL)
        door_open(server, loop, door->fd);
    *ret_server = server;
    return OK;
}

void http_renew(struct http_server *server, struct tls *tls) {
    require(server->tls != NULL && tls != NULL);
    tls_leave(server->tls);
    server->tls = tls_join(tls);
}

void http_close(struct http_server *server, void (*closed)(void *user), void *user) {
    server->closed = closed;
    server->closed_user = user;
    struct http_private *private;
    LIST_FOREACH(private, &server->exchanges, link)
    if (private->state == EXCHANGE_WAITING)
        exchange_answer(private, MHD_HTTP_SERVICE_UNAVAILABLE, sentence("ttorchd is stopping"), NULL);
    server->closing = true;
    streams_wake(server, false);
    MHD_run(server->daemon); /* sends them */
    if (server->tls != NULL) {
        uv_close((uv_handle_t *)&server->door.poll, on_handle_closed);
        close(server->door.fd);
    }
    uv_close((uv_handle_t *)&server->poll, on_handle_closed);
    uv_close((uv_handle_t *)&server->timer, on_handle_closed);
    uv_close((uv_handle_t *)&server->sweep, on_handle_closed);
    MHD_stop_daemon(server->daemon);
}
