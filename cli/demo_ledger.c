#include "cli/demo_ledger.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/panic.h"

#define WRITE_PERIOD    msec(5)   /* 200 rows a second at most */
#define HANG            msec(100) /* no answer to a write for so long: look for another primary meanwhile */
#define HUNT_PERIOD     msec(5)
#define RECONNECT       msec(20) /* a PostgreSQL that starts forks for each try */
#define RECONNECT_QUIET msec(50) /* to a lost standby, while the primary answers */
#define ANSWER_LIMIT    msec(1000)
#define WRITE_LIMIT     msec(10000)

/* Every member has a line, open all the time. Writes go down the current one. When it breaks or hangs there is no
 * current line: all idle ones are asked in quick succession whether they are primary, and the first to say so is the
 * current one. A write that hangs is left to be answered, late: only an error or a broken line gives its number up. */
enum line_state {
    LINE_CLOSED,
    LINE_CONNECTING,
    LINE_IDLE,
    LINE_ASKING, /* are you primary? */
    LINE_WRITING
};

struct line {
    char *conninfo;
    PGconn *connection;
    PostgresPollingStatusType wants; /* while connecting */
    enum line_state state;
    nsec since; /* in this state */
    uint64_t number;
    bool yes;    /* the answer under way is what we hoped for */
    bool warned; /* by a warning: the row may not have been replicated */
};

struct ledger {
    struct line lines[MEMBERS_MAX];
    unsigned lines_count;
    struct line *current; /* NULL = hunting */
    nsec next_write;
    uint64_t numbers; /* given out */
    int stop_fd;
    pthread_t thread;

    pthread_mutex_t mutex; /* for what follows */
    struct ledger_ack *acks;
    size_t acks_count, acks_size;
};

static void line_enter(struct line *line, enum line_state state) {
    line->state = state;
    line->since = time_now();
}

static void line_close(struct ledger *ledger, struct line *line) {
    PQfinish(line->connection);
    line->connection = NULL;
    line_enter(line, LINE_CLOSED);
    if (ledger->current == line)
        ledger->current = NULL;
}

static void line_warned(void *user, const PGresult *notice) {
    struct line *line = user;
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity && strcmp(severity, "WARNING") == 0)
        line->warned = true;
}

static void line_open(struct ledger *ledger, struct line *line) {
    line->connection = PQconnectStart(line->conninfo);
    line->wants = PGRES_POLLING_WRITING;
    line_enter(line, LINE_CONNECTING);
    if (!line->connection || PQstatus(line->connection) == CONNECTION_BAD) {
        line_close(ledger, line);
        return;
    }
    PQsetNoticeReceiver(line->connection, line_warned, line);
}

/* With one short query in flight the socket's buffer never fills: there is nothing left to flush later. */
static void line_send(struct ledger *ledger, struct line *line, enum line_state state, const char *sql,
                      const char *argument) {
    line->yes = false;
    line->warned = false;
    line_enter(line, state);
    if (!PQsendQueryParams(line->connection, sql, argument ? 1 : 0, NULL, &argument, NULL, NULL, 0) ||
        PQflush(line->connection) != 0)
        line_close(ledger, line);
}

static void line_write(struct ledger *ledger, struct line *line) {
    char number[24];
    line->number = ++ledger->numbers;
    snprintf(number, sizeof number, "%llu", (unsigned long long)line->number);
    ledger->next_write = time_now() + WRITE_PERIOD;
    line_send(ledger, line, LINE_WRITING, "INSERT INTO ledger VALUES ($1, now())", number);
}

static void line_ask(struct ledger *ledger, struct line *line) {
    line_send(ledger, line, LINE_ASKING, "SELECT NOT pg_is_in_recovery()", NULL);
}

static void ledger_keep(struct ledger *ledger, const struct line *line) {
    struct ledger_ack ack = {line->number, line->since, time_now()};
    pthread_mutex_lock(&ledger->mutex);
    if (ledger->acks_count == ledger->acks_size) {
        ledger->acks_size = ledger->acks_size ? ledger->acks_size * 2 : 4096;
        ledger->acks = realloc(ledger->acks, ledger->acks_size * sizeof *ledger->acks);
        require(ledger->acks != NULL);
    }
    ledger->acks[ledger->acks_count++] = ack;
    pthread_mutex_unlock(&ledger->mutex);
}

static void line_asked(struct ledger *ledger, struct line *line) {
    line_enter(line, LINE_IDLE);
    if (!line->yes || ledger->current)
        return;
    ledger->current = line;
    line_write(ledger, line);
}

static void line_written(struct ledger *ledger, struct line *line) {
    if (line->yes && !line->warned) {
        ledger_keep(ledger, line);
        if (!ledger->current)
            ledger->current = line;
    } else if (ledger->current == line) {
        ledger->current = NULL;
    }
    line_enter(line, LINE_IDLE);
}

static bool result_is_yes(enum line_state state, const PGresult *result) {
    if (state == LINE_WRITING)
        return PQresultStatus(result) == PGRES_COMMAND_OK;
    return PQresultStatus(result) == PGRES_TUPLES_OK && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
}

/* Returns true when the answer is complete. */
static bool line_read(struct line *line) {
    while (!PQisBusy(line->connection)) {
        PGresult *result = PQgetResult(line->connection);
        if (!result)
            return true;
        line->yes = result_is_yes(line->state, result);
        PQclear(result);
    }
    return false;
}

static void line_connect(struct ledger *ledger, struct line *line) {
    line->wants = PQconnectPoll(line->connection);
    if (line->wants == PGRES_POLLING_FAILED) {
        line_close(ledger, line);
    } else if (line->wants == PGRES_POLLING_OK) {
        PQsetnonblocking(line->connection, 1);
        line_enter(line, LINE_IDLE);
        if (!ledger->current)
            line_ask(ledger, line);
    }
}

static void line_ready(struct ledger *ledger, struct line *line) {
    if (line->state == LINE_CONNECTING) {
        line_connect(ledger, line);
    } else if (!PQconsumeInput(line->connection)) {
        line_close(ledger, line);
    } else if (line->state != LINE_IDLE && line_read(line)) {
        if (line->state == LINE_ASKING)
            line_asked(ledger, line);
        else
            line_written(ledger, line);
    }
}

/* When there is something to do on a line of which nothing is heard. */
static nsec line_due(const struct ledger *ledger, const struct line *line) {
    switch (line->state) {
    case LINE_CLOSED:
        return line->since + (ledger->current ? RECONNECT_QUIET : RECONNECT);
    case LINE_CONNECTING:
    case LINE_ASKING:
        return line->since + ANSWER_LIMIT;
    case LINE_IDLE:
        if (ledger->current == line)
            return ledger->next_write;
        return ledger->current ? NSEC_NEVER : line->since + HUNT_PERIOD;
    case LINE_WRITING:
        return line->since + (ledger->current == line ? HANG : WRITE_LIMIT);
    }
    return NSEC_NEVER;
}

static void line_act(struct ledger *ledger, struct line *line) {
    switch (line->state) {
    case LINE_CLOSED:
        line_open(ledger, line);
        break;
    case LINE_CONNECTING:
    case LINE_ASKING:
        line_close(ledger, line);
        break;
    case LINE_IDLE:
        if (ledger->current == line)
            line_write(ledger, line);
        else
            line_ask(ledger, line);
        break;
    case LINE_WRITING:
        if (ledger->current == line)
            ledger->current = NULL;
        else
            line_close(ledger, line);
        break;
    }
}

/* Does what is due; returns when the next thing will be. */
static nsec ledger_act(struct ledger *ledger) {
    nsec next = NSEC_NEVER;
    for (unsigned i = 0; i < ledger->lines_count; i++)
        if (line_due(ledger, &ledger->lines[i]) <= time_now())
            line_act(ledger, &ledger->lines[i]);
    for (unsigned i = 0; i < ledger->lines_count; i++) {
        nsec due = line_due(ledger, &ledger->lines[i]);
        next = due < next ? due : next;
    }
    return next;
}

static struct pollfd line_pollfd(const struct line *line) {
    bool writing = line->state == LINE_CONNECTING && line->wants == PGRES_POLLING_WRITING;
    return (struct pollfd){.fd = line->connection ? PQsocket(line->connection) : -1,
                           .events = writing ? POLLOUT : POLLIN};
}

/* Returns false when told to stop. */
static bool ledger_wait(struct ledger *ledger, nsec until) {
    struct pollfd fds[MEMBERS_MAX + 1];
    unsigned count = ledger->lines_count;
    nsec now = time_now(), wait = until > now ? until - now : 0;
    wait = wait < NSEC_PER_SEC ? wait : NSEC_PER_SEC - 1;

    for (unsigned i = 0; i < count; i++)
        fds[i] = line_pollfd(&ledger->lines[i]);
    fds[count] = (struct pollfd){.fd = ledger->stop_fd, .events = POLLIN};
    if (ppoll(fds, count + 1, &(struct timespec){.tv_nsec = (long)wait}, NULL) <= 0)
        return true;
    for (unsigned i = 0; i < count; i++)
        if (fds[i].revents)
            line_ready(ledger, &ledger->lines[i]);
    return fds[count].revents == 0;
}

static void *ledger_run(void *user) {
    struct ledger *ledger = user;
    while (ledger_wait(ledger, ledger_act(ledger)))
        ;
    return NULL;
}

static void ledger_free(struct ledger *ledger) {
    for (unsigned i = 0; i < ledger->lines_count; i++) {
        PQfinish(ledger->lines[i].connection);
        free(ledger->lines[i].conninfo);
    }
    if (ledger->stop_fd >= 0)
        close(ledger->stop_fd);
    pthread_mutex_destroy(&ledger->mutex);
    free(ledger->acks);
    free(ledger);
}

status ledger_start(struct ledger **ret_ledger, const char *const conninfos[], unsigned count, struct error *error) {
    struct ledger *ledger = calloc(1, sizeof *ledger);
    int problem = 0;
    require(ledger != NULL && count <= MEMBERS_MAX);
    pthread_mutex_init(&ledger->mutex, NULL);
    for (unsigned i = 0; i < count; i++) {
        ledger->lines[i].conninfo = strdup(conninfos[i]);
        require(ledger->lines[i].conninfo != NULL);
    }
    ledger->lines_count = count;
    ledger->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (ledger->stop_fd < 0 || (problem = pthread_create(&ledger->thread, NULL, ledger_run, ledger)) != 0) {
        ledger_free(ledger);
        return error_set(error, "ledger: could not start: %s", strerror(problem ? problem : errno));
    }
    *ret_ledger = ledger;
    return OK;
}

void ledger_stop(struct ledger *ledger) {
    if (!ledger)
        return;
    eventfd_write(ledger->stop_fd, 1);
    pthread_join(ledger->thread, NULL);
    ledger_free(ledger);
}

size_t ledger_acks(struct ledger *ledger, struct ledger_ack **ret_acks) {
    pthread_mutex_lock(&ledger->mutex);
    size_t count = ledger->acks_count;
    struct ledger_ack *acks = malloc((count + 1) * sizeof *acks);
    require(acks != NULL);
    if (count > 0)
        memcpy(acks, ledger->acks, count * sizeof *acks);
    pthread_mutex_unlock(&ledger->mutex);
    *ret_acks = acks;
    return count;
}

size_t ledger_newest(struct ledger *ledger, struct ledger_ack *ret_ack) {
    pthread_mutex_lock(&ledger->mutex);
    size_t count = ledger->acks_count;
    if (count > 0)
        *ret_ack = ledger->acks[count - 1];
    pthread_mutex_unlock(&ledger->mutex);
    return count;
}

/* One statement on a connection of its own; the caller clears the result. */
static status ask_once(const char *conninfo, const char *sql, ExecStatusType expected, PGresult **ret_result,
                       struct error *error) {
    status outcome = FAILED;
    PGresult *result = NULL;
    PGconn *connection = PQconnectdb(conninfo);
    if (PQstatus(connection) == CONNECTION_OK)
        result = PQexec(connection, sql);
    if (result && PQresultStatus(result) == expected) {
        *ret_result = result;
        outcome = OK;
    } else {
        const char *text = PQerrorMessage(connection);
        error_set(error, "ledger: %.*s", (int)strcspn(text, "\n"), text);
        PQclear(result);
    }
    PQfinish(connection);
    return outcome;
}

status ledger_found(const char *conninfo, const char *password, struct error *error) {
    PGresult *result;
    char sql[256];
    snprintf(sql, sizeof sql,
             "ALTER ROLE postgres PASSWORD '%s';"
             "CREATE TABLE ledger (n bigint PRIMARY KEY, at timestamptz NOT NULL)",
             password);
    if (ask_once(conninfo, sql, PGRES_COMMAND_OK, &result, error) != OK)
        return FAILED;
    PQclear(result);
    return OK;
}

static int compare_numbers(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

status ledger_count_lost(const char *conninfo, const struct ledger_ack *acks, size_t count, size_t *ret_lost,
                         struct error *error) {
    PGresult *rows;
    size_t lost = 0;
    if (ask_once(conninfo, "SET statement_timeout = '10s'; SELECT n FROM ledger ORDER BY n", PGRES_TUPLES_OK, &rows,
                 error) != OK)
        return FAILED;
    size_t kept_count = (size_t)PQntuples(rows);
    uint64_t *kept = malloc((kept_count + 1) * sizeof *kept);
    require(kept != NULL);
    for (size_t i = 0; i < kept_count; i++)
        kept[i] = strtoull(PQgetvalue(rows, (int)i, 0), NULL, 10);
    for (size_t i = 0; i < count; i++)
        if (!bsearch(&acks[i].number, kept, kept_count, sizeof *kept, compare_numbers))
            lost++;
    free(kept);
    PQclear(rows);
    *ret_lost = lost;
    return OK;
}
