/* A small HTTP server on the caller's libuv loop, over one listening socket. Knows libmicrohttpd; knows no routes.
 *
 * Bounded: connections, memory for each, the size of a body, and how long a silent connection lives. */
#pragma once
#include <stddef.h>
#include <uv.h>

#include "base/error.h"

#define HTTP_BODY_MAX            4096  /* the largest request we know has some 100 bytes */
#define HTTP_CONNECTION_BYTES    16384 /* read and write buffer of one connection; answers are kept apart */
#define HTTP_CONNECTIONS_MAX     128   /* on each socket; more wait in the backlog */
#define HTTP_SILENCE_MAX_SECONDS 5u

struct http_server;

/* One request and its answer. Valid until `http_answer`, also if the client has gone or the server was closed. */
struct http_exchange {
    const char *method;
    const char *path;
    char *body; /* of body_length bytes and a 0; writable */
    size_t body_length;
    bool local; /* came over the unix socket */

    struct http_private *private;
};

/* Must end in exactly one call of `http_answer` for this exchange, now or later. */
typedef void http_handler(void *user, struct http_exchange *exchange);

/* Takes over `text` (malloc'ed JSON, NULL for none). `allow` is the Allow header of a 405, else NULL; a constant. */
void http_answer(struct http_exchange *exchange, unsigned http_status, char *text, const char *allow);

/* Takes over `fd`, a bound and listening socket, also on failure. */
status http_open(struct http_server **ret_server, uv_loop_t *loop, int fd, bool local, http_handler *handler,
                 void *user, struct error *error) must_check;
/* Answers what is still waiting with 503, then closes. */
void http_close(struct http_server *server, void (*closed)(void *user), void *user);

/* Listening sockets. A stale file at `path` is replaced, one that a daemon answers at is refused. Mode 0660. */
status http_listen_unix(int *ret_fd, const char *path, struct error *error) must_check;
status http_listen_tcp(int *ret_fd, const char *address, uint16_t port, struct error *error) must_check;
