#include "session/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*  OFF --ask--> CONNECTING --> ASKING <--ask-- READY
 *   ^              |             |  \___________^ answered
 *   +--- error, deadline, drop --+                            */
enum session_state { SESSION_OFF, SESSION_CONNECTING, SESSION_ASKING, SESSION_READY };

struct session {
    uv_loop_t *loop;
    enum session_state state;
    char host[HOST_MAX_LENGTH + 1];
    char port[8];
    char user[64];
    char password[SESSION_PASSWORD_MAX + 1];
    char database[64];
    char options[512];
    bool replication;
    PGconn *connection;
    uv_poll_t *poll;   /* one a socket: libpq may replace it while connecting */
    uv_timer_t *timer; /* the deadline; fires at once after a failure inside session_ask */
    char *sql;
    session_answered *answered;
    void *answered_user;
    PGresult *result;
    struct error error;
};

static void connect_step(struct session *session);
static void answer_step(struct session *session, int events);

static void handle_freed(uv_handle_t *handle) { free(handle); }

/* ---- watching the socket ---- */

static void unwatch(struct session *session) {
    if (session->poll == NULL)
        return;
    uv_close((uv_handle_t *)session->poll, handle_freed);
    session->poll = NULL;
}

static void socket_ready(uv_poll_t *poll, int code, int events) {
    struct session *session = poll->data;
    if (session->state == SESSION_CONNECTING)
        connect_step(session);
    else
        answer_step(session, code < 0 ? UV_READABLE : events);
}

static void watch(struct session *session, int events) {
    if (session->poll == NULL) {
        session->poll = malloc(sizeof *session->poll);
        if (session->poll == NULL)
            return; /* the deadline ends it */
        if (uv_poll_init(session->loop, session->poll, PQsocket(session->connection)) != 0) {
            free(session->poll);
            session->poll = NULL;
            return;
        }
        session->poll->data = session;
    }
    uv_poll_start(session->poll, events, socket_ready);
}

/* ---- ends ---- */

static void forget(struct session *session) {
    uv_timer_stop(session->timer);
    free(session->sql);
    session->sql = NULL;
    PQclear(session->result);
    session->result = NULL;
}

void session_drop(struct session *session) {
    forget(session);
    unwatch(session);
    PQfinish(session->connection);
    session->connection = NULL;
    session->state = SESSION_OFF;
}

/* The callback may ask, drop or free: nothing of the session is touched after it. */
static void answer(struct session *session, const PGresult *result) {
    struct error error = session->error;
    session->answered(session->answered_user, result, &error);
}

static void lost(struct session *session, const char *why) {
    error_set(&session->error, "%.*s", (int)strcspn(why, "\n"), why);
    session_drop(session);
    answer(session, NULL);
}

static void deadline_passed(uv_timer_t *timer) {
    struct session *session = timer->data;
    if (session->connection == NULL)
        lost(session, "out of memory");
    else if (PQstatus(session->connection) == CONNECTION_BAD)
        lost(session, PQerrorMessage(session->connection));
    else
        lost(session,
             session->state == SESSION_CONNECTING ? "the connection is not accepted in time" : "no answer in time");
}

/* ---- the steps ---- */

static void answered(struct session *session) {
    PGresult *result = session->result;
    bool good =
        result != NULL && (PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK);
    const char *why = result != NULL ? PQresultErrorMessage(result) : "no answer";
    if (!good)
        error_set(&session->error, "%.*s", (int)strcspn(why, "\n"), why);
    session->result = NULL;
    forget(session);
    session->state = SESSION_READY;
    uv_poll_stop(session->poll);
    answer(session, good ? result : NULL);
    PQclear(result);
}

static bool is_error(const PGresult *result) {
    return PQresultStatus(result) == PGRES_FATAL_ERROR || PQresultStatus(result) == PGRES_BAD_RESPONSE;
}

static void answer_step(struct session *session, int events) {
    if ((events & UV_WRITABLE) != 0)
        watch(session, PQflush(session->connection) > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
    if (PQconsumeInput(session->connection) == 0) {
        lost(session, PQerrorMessage(session->connection));
        return;
    }
    while (PQisBusy(session->connection) == 0) {
        PGresult *next = PQgetResult(session->connection);
        if (next == NULL) {
            if (PQstatus(session->connection) == CONNECTION_BAD)
                lost(session, PQerrorMessage(session->connection));
            else
                answered(session);
            return;
        }
        if (session->result != NULL && is_error(session->result)) {
            PQclear(next);
            continue;
        }
        PQclear(session->result);
        session->result = next;
    }
}

static void send_question(struct session *session) {
    session->state = SESSION_ASKING;
    if (PQsendQuery(session->connection, session->sql) == 0) {
        uv_timer_start(session->timer, deadline_passed, 0, 0);
        return;
    }
    watch(session, PQflush(session->connection) > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void ignore_notice(void *user, const char *message) {
    (void)user;
    (void)message;
}

static void connect_step(struct session *session) {
    unwatch(session);
    switch (PQconnectPoll(session->connection)) {
    case PGRES_POLLING_OK:
        PQsetnonblocking(session->connection, 1);
        send_question(session);
        break;
    case PGRES_POLLING_READING:
        watch(session, UV_READABLE);
        break;
    case PGRES_POLLING_WRITING:
        watch(session, UV_WRITABLE);
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        lost(session, PQerrorMessage(session->connection));
    }
}

static void start_connecting(struct session *session) {
    bool local = session->host[0] == '/';
    const char *const names[] = {
        "host",    "hostaddr", "port",        "user",       "password",         "dbname",          "options",
        "sslmode", "passfile", "replication", "gssencmode", "application_name", "client_encoding", NULL};
    const char *const values[] = {local ? session->host : NULL,
                                  local ? NULL : session->host,
                                  session->port,
                                  session->user,
                                  session->password,
                                  session->database,
                                  session->options,
                                  local ? "disable" : "prefer",
                                  "/nonexistent",
                                  session->replication ? "true" : NULL,
                                  "disable",
                                  "ttorchd",
                                  "UTF8",
                                  NULL};
    session->connection = PQconnectStartParams(names, values, 0);
    session->state = SESSION_CONNECTING;
    if (session->connection == NULL || PQstatus(session->connection) == CONNECTION_BAD)
        uv_timer_start(session->timer, deadline_passed, 0, 0);
    else {
        PQsetNoticeProcessor(session->connection, ignore_notice, NULL);
        watch(session, UV_WRITABLE);
    }
}

/* ---- the interface ---- */

struct session *session_new(uv_loop_t *loop, const struct session_config *config) {
    struct session *session = calloc(1, sizeof *session);
    if (session != NULL)
        session->timer = malloc(sizeof *session->timer);
    if (session == NULL || session->timer == NULL) {
        free(session);
        return NULL;
    }
    session->loop = loop;
    session->replication = config->replication;
    snprintf(session->host, sizeof session->host, "%s", config->host);
    snprintf(session->port, sizeof session->port, "%u", config->port);
    snprintf(session->user, sizeof session->user, "%s", config->user);
    snprintf(session->password, sizeof session->password, "%s", config->password != NULL ? config->password : "");
    snprintf(session->database, sizeof session->database, "%s",
             config->database != NULL ? config->database : "postgres");
    snprintf(session->options, sizeof session->options, "%s", config->options != NULL ? config->options : "");
    uv_timer_init(loop, session->timer);
    session->timer->data = session;
    return session;
}

void session_ask(struct session *session, const char *sql, unsigned deadline_ms, session_answered *callback,
                 void *user) {
    session->answered = callback;
    session->answered_user = user;
    session->error.text[0] = '\0';
    session->sql = strdup(sql);
    if (session->sql == NULL)
        session_drop(session);
    uv_timer_start(session->timer, deadline_passed, session->sql != NULL ? deadline_ms : 0, 0);
    if (session->sql == NULL)
        return;
    if (session->state == SESSION_READY)
        send_question(session);
    else
        start_connecting(session);
}

bool session_asking(const struct session *session) {
    return session->state == SESSION_CONNECTING || session->state == SESSION_ASKING;
}

PGconn *session_connection(struct session *session) { return session->connection; }

void session_free(struct session *session) {
    if (session == NULL)
        return;
    session_drop(session);
    uv_close((uv_handle_t *)session->timer, handle_freed);
    free(session);
}

bool result_bool(const PGresult *result, int column) { return PQgetvalue(result, 0, column)[0] == 't'; }

uint64_t result_number(const PGresult *result, int column) { return strtoull(PQgetvalue(result, 0, column), NULL, 10); }
