/* A small HTTP server on the caller's libuv loop, over one listening socket, with TLS or without. Knows libmicrohttpd;
 * knows no routes.
 *
 * Bounded: connections, memory for each, the size of a body, and how long a silent connection lives, handshakes too. */
#pragma once
#include <stddef.h>
#include <uv.h>

#include "base/error.h"
#include "tls/tls.h"

#define HTTP_BODY_MAX              4096  /* the largest request we know has some 100 bytes */
#define HTTP_CONNECTION_BYTES      16384 /* read and write buffer of one connection; answers are kept apart */
#define HTTP_CONNECTIONS_MAX       2048  /* over TCP, as many may watch; more wait in the backlog */
#define HTTP_LOCAL_MAX             128   /* over the unix socket */
#define HTTP_ONE_ADDRESS_MAX       1536  /* from one address, so that nobody takes all */
#define HTTP_DESCRIPTORS_KEPT      512   /* of those the process may open: for the record, PostgreSQL and files */
#define HTTP_SILENCE_MAX_SECONDS   5u
#define HTTP_REQUEST_MAX_SECONDS   8u /* from the first byte to the last of the answer, however busy somebody looks */
#define HTTP_HANDSHAKES_MAX        8 /* of TLS at once: each takes the loop some milliseconds. Others wait in the backlog */
#define HTTP_HANDSHAKE_MAX_SECONDS 2u  /* as long may one hold such a place */
#define HTTP_PING_SECONDS          10u /* into streams, so that those that have gone are noticed */

struct http_server;

/* One request and its answer. Valid until `http_answer`, also if the client has gone or the server was closed. */
struct http_exchange {
    const char *method;
    const char *path;
    char *body; /* of body_length bytes and a 0; writable; NULL if there is none */
    size_t body_length;
    bool local; /* came over the unix socket */

    struct http_private *private;
};

/* Must end in exactly one call of `http_answer` for this exchange, now or later. */
typedef void http_handler(void *user, struct http_exchange *exchange);

/* Takes over `text` (malloc'ed JSON, NULL for none). `allow` is the Allow header of a 405, else NULL; a constant. */
void http_answer(struct http_exchange *exchange, unsigned http_status, char *text, const char *allow);

/* The same with a type other than JSON, a constant. */
void http_answer_text(struct http_exchange *exchange, unsigned http_status, const char *type, char *text);
/* Server-sent events: takes over `text`, the first of them; the others come by http_stream_send. */
void http_stream(struct http_exchange *exchange, char *text);
/* To all streams. Who has not yet read an earlier one gets only the newest. */
void http_stream_send(struct http_server *server, const char *text);
/* Of the query, NULL if it is not there; "" without a value. Only while the handler runs. */
const char *http_argument(const struct http_exchange *exchange, const char *name);
/* Whether there is one whose name begins so. Only while the handler runs. */
bool http_argument_begins(const struct http_exchange *exchange, const char *prefix);

struct http_door {
    int fd;          /* a bound and listening socket */
    bool local;      /* of unix */
    struct tls *tls; /* NULL: none is spoken */
};

/* Takes over the descriptor, also on failure; joins `tls`. */
status http_open(struct http_server **ret_server, uv_loop_t *loop, const struct http_door *door, http_handler *handler,
                 void *user, struct error *error) must_check;
/* For connections from now on, of a server that has spoken TLS from its start. */
void http_renew(struct http_server *server, struct tls *tls);
/* Answers what is still waiting with 503, then closes. */
void http_close(struct http_server *server, void (*closed)(void *user), void *user);

/* Listening sockets. A stale file at `path` is replaced, one that a daemon answers at is refused. Mode 0660. */
status http_listen_unix(int *ret_fd, const char *path, struct error *error) must_check;
status http_listen_tcp(int *ret_fd, const char *address, uint16_t port, struct error *error) must_check;
