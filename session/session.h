/* One connection to a PostgreSQL or to PgBouncer's console, on the loop, with a deadline for everything: connects when
 * first asked, answers one question at a time. Over a unix socket, or to an address: libpq resolves names by blocking.
 */
#pragma once
#include <libpq-fe.h>
#include <uv.h>

#include "base/error.h"

#define SESSION_PASSWORD_MAX 1023 /* bytes */

struct session;

struct session_config {
    const char *host; /* directory of the socket, or an IP address */
    uint16_t port;
    const char *user;
    const char *password; /* NULL: none is known */
    const char *database; /* NULL: postgres */
    const char *options;  /* "-c name=value ..."; NULL: none */
    bool replication;     /* a WAL sender that takes replication commands, as IDENTIFY_SYSTEM */
};

/* `result` is that of the last statement, NULL after an error; it is freed on return. After a lost connection or a
 * passed deadline the next question connects anew. */
typedef void session_answered(void *user, const PGresult *result, const struct error *error);

/* NULL when out of memory. All strings are copied. */
struct session *session_new(uv_loop_t *loop, const struct session_config *config);
/* `answered` comes later from the loop, always, unless the session is dropped or freed. Not while one is under way. */
void session_ask(struct session *session, const char *sql, unsigned deadline_ms, session_answered *answered,
                 void *user);
bool session_asking(const struct session *session);
/* Disconnects; a question under way is forgotten, unanswered. The next one connects anew. */
void session_drop(struct session *session);
void session_free(struct session *session);
/* For PQencryptPasswordConn; NULL when not connected. */
PGconn *session_connection(struct session *session);

/* Columns of the first row. */
bool result_bool(const PGresult *result, int column);
uint64_t result_number(const PGresult *result, int column); /* 0 if null; base 10 */
