#include "publish/http.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/panic.h"

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
    const char *allow;
    LIST_ENTRY(http_private) link;
    char body[HTTP_BODY_MAX + 1];
};

struct http_server {
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer;
    bool resumed; /* since libmicrohttpd last ran: it must run again */
    bool local;
    http_handler *handler;
    void *user;
    LIST_HEAD(, http_private) exchanges;
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
    private->exchange = (struct http_exchange){.method = names,
                                               .path = strcpy(path_copy, path),
                                               .body = private->body,
                                               .local = server->local,
                                               .private = private};
    private->server = server;
    private->connection = connection;
    LIST_INSERT_HEAD(&server->exchanges, private, link);
    return private;
}

static void exchange_free_if_done(struct http_private *private) {
    if (private->handed || !private->gone)
        return;
    free((char *)private->exchange.method);
    free(private->text);
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

static char *sentence(const char *text) {
    char *copy = NULL;
    return asprintf(&copy, "{\"error\": \"%s\"}", text) < 0 ? NULL : copy;
}

static enum MHD_Result exchange_reply(struct http_private *private) {
    char *text = private->text != NULL ? private->text : strdup("{}");
    private->text = NULL;
    if (text == NULL)
        return MHD_NO;
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", "application/json");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    if (private->allow != NULL)
        MHD_add_response_header(response, "Allow", private->allow);
    enum MHD_Result result = MHD_queue_response(private->connection, private->http_status, response);
    MHD_destroy_response(response);
    return result;
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
    (void)context, (void)connection, (void)reason;
    struct http_private *private = *state;
    if (private == NULL)
        return;
    *state = NULL;
    LIST_REMOVE(private, link);
    private->gone = true;
    exchange_free_if_done(private);
}

/* ---- on the loop ---- */

static void server_run(struct http_server *server) {
    do {
        server->resumed = false;
        MHD_run(server->daemon);
    } while (server->resumed);
    unsigned long long timeout_ms;
    if (MHD_get_timeout(server->daemon, &timeout_ms) == MHD_YES)
        uv_timer_start(&server->timer, on_timer, timeout_ms, 0);
    else
        uv_timer_stop(&server->timer);
}

static void on_timer(uv_timer_t *timer) { server_run(timer->data); }

static void on_readable(uv_poll_t *poll, int error, int events) {
    (void)error, (void)events;
    server_run(poll->data);
}

static struct MHD_Daemon *daemon_start(struct http_server *server, int fd) {
    return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, server,
                            MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_BYTES,
                            MHD_OPTION_CONNECTION_TIMEOUT, HTTP_SILENCE_MAX_SECONDS, MHD_OPTION_END);
}

status http_open(struct http_server **ret_server, uv_loop_t *loop, int fd, bool local, http_handler *handler,
                 void *user, struct error *error) {
    struct http_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        close(fd);
        return error_set(error, "out of memory");
    }
    *server = (struct http_server){.local = local, .handler = handler, .user = user, .handles_open = 2};
    LIST_INIT(&server->exchanges);
    server->daemon = daemon_start(server, fd);
    if (server->daemon == NULL) {
        close(fd);
        free(server);
        return error_set(error, "could not start the HTTP server");
    }
    /* Neither can fail: the descriptor is an epoll of ours, which nobody else polls. */
    int epoll = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    require(uv_poll_init(loop, &server->poll, epoll) == 0);
    require(uv_timer_init(loop, &server->timer) == 0);
    server->poll.data = server->timer.data = server;
    require(uv_poll_start(&server->poll, UV_READABLE, on_readable) == 0);
    *ret_server = server;
    return OK;
}

static void on_handle_closed(uv_handle_t *handle) {
    struct http_server *server = handle->data;
    if (--server->handles_open > 0)
        return;
    server->closed(server->closed_user);
    free(server);
}

void http_close(struct http_server *server, void (*closed)(void *user), void *user) {
    server->closed = closed;
    server->closed_user = user;
    struct http_private *private;
    LIST_FOREACH(private, &server->exchanges, link)
    if (private->state == EXCHANGE_WAITING)
        exchange_answer(private, MHD_HTTP_SERVICE_UNAVAILABLE, sentence("ttorchd is stopping"), NULL);
    MHD_run(server->daemon); /* sends them */
    uv_close((uv_handle_t *)&server->poll, on_handle_closed);
    uv_close((uv_handle_t *)&server->timer, on_handle_closed);
    MHD_stop_daemon(server->daemon);
}
