#include "publish/pooler.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/forms.h"
#include "session/session.h"

#define ASK_MS       2000 /* the console answers at once, or something is wrong */
#define LOOK_MS      5000 /* how often to look when nothing happens */
#define STALE_MIN_MS 20   /* it still leads elsewhere: who writes its file is a little behind us */
#define STALE_MAX_MS 1000
#define RETRY_MIN_MS 100
#define STRAYS_MS    1000 /* sessions with the old primary that have not gone by then never will */
#define SILENT_MS    300  /* a switchover waits so long for one that did not answer when asked last */
#define QUESTION_MAX (POOLER_NAME_MAX + 32)

/*          .------------------------------------------------------.
 *          v                      leads elsewhere                 |
 *   IDLE --+--> RELOAD --> LOOK --+------------> IDLE --> RELOAD -'
 *    |               ^      |     |  strays, a while after a change of primary
 *    |               |      v     '------> SERVERS --> KILL --> LOOK
 *    |               '-- RECONNECT, RESUME
 *    '--> PAUSE, for each database --> IDLE
 *
 * Each state but IDLE is a question under way; what comes next is decided when its answer is there. */
enum step { STEP_IDLE, STEP_PAUSE, STEP_RELOAD, STEP_LOOK, STEP_RECONNECT, STEP_RESUME, STEP_SERVERS, STEP_KILL };

struct pooler {
    const struct pooler_config *config;
    const struct pooler_view *view;
    const struct pooler_callbacks *callbacks;
    void *user;
    char name[NAME_MAX_LENGTH + 1];
    char where[NAME_MAX_LENGTH + HOST_MAX_LENGTH + 16];
    struct session *session;
    uv_timer_t timer; /* runs while IDLE */

    enum step step;
    unsigned at;  /* the database that it is about */
    bool reused;  /* asked in a session that may have ended unnoticed */
    bool pausing; /* asked to, and not done */
    bool paused;  /* by us, and not seen to go on since */
    bool reload_due;
    bool resume_due;        /* what is paused goes on as soon as it leads to the primary, or when `hold_ms` is over */
    bool strays_due;        /* look for sessions with an old primary */
    unsigned reconnect_due; /* a bit for each database */
    uint64_t held_at, lead_at, paused_at; /* milliseconds of the loop */
    unsigned pause_ms;                    /* how long to wait for transactions */
    unsigned failures, stale_ms;
    bool shown;
    uint64_t index;
    struct error trouble;
    bool closing;
};

static void go_on(struct pooler *pooler);

/* ---- what is said ---- */

static uint64_t now_ms(const struct pooler *pooler) { return uv_now(pooler->timer.loop); }

static void say(struct pooler *pooler, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct pooler *pooler, const char *format, ...) {
    struct error text;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text.text, sizeof text.text, format, arguments);
    va_end(arguments);
    (void)error_prefix(&text, "pgbouncer %s", pooler->name);
    pooler->callbacks->notice(pooler->user, text.text);
}

/* Said once, until it changes. */
static void troubled(struct pooler *pooler, const char *why) {
    if (strcmp(pooler->trouble.text, why) != 0)
        say(pooler, "%s", why);
    (void)error_set(&pooler->trouble, "%s", why);
}

static void untroubled(struct pooler *pooler) {
    if (pooler->trouble.text[0] != '\0')
        say(pooler, "is well again");
    pooler->trouble.text[0] = '\0';
}

/* ---- when ---- */

static void on_timer(uv_timer_t *timer) { go_on(timer->data); }

static void rest(struct pooler *pooler, uint64_t ms) {
    pooler->step = STEP_IDLE;
    uv_timer_start(&pooler->timer, on_timer, ms, 0);
}

static uint64_t left_ms(const struct pooler *pooler, uint64_t since, unsigned bound_ms) {
    uint64_t passed = now_ms(pooler) - since;
    return passed < bound_ms ? bound_ms - passed : 0;
}

/* Clients have been held back for long enough, primary or not. */
static bool overdue(const struct pooler *pooler) {
    return pooler->resume_due && left_ms(pooler, pooler->held_at, pooler->config->hold_ms) == 0;
}

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* All has been done that can be done now. */
static void rest_well(struct pooler *pooler) {
    uint64_t ms = LOOK_MS;
    if (pooler->resume_due)
        ms = sooner(ms, left_ms(pooler, pooler->held_at, pooler->config->hold_ms));
    if (pooler->strays_due)
        ms = sooner(ms, left_ms(pooler, pooler->lead_at, STRAYS_MS));
    rest(pooler, pooler->closing ? RETRY_MIN_MS : ms);
}

/* ---- asking ---- */

static void on_answer(void *user, const PGresult *result, const struct error *error);

/* "RESUME "shop"" */
static void ask(struct pooler *pooler, enum step step, const char *words, unsigned deadline_ms) {
    char question[QUESTION_MAX];
    bool of_database = step != STEP_RELOAD && step != STEP_LOOK && step != STEP_SERVERS;
    if (of_database)
        snprintf(question, sizeof question, "%s \"%s\"", words, pooler->config->databases[pooler->at]);
    else
        snprintf(question, sizeof question, "%s", words);
    uv_timer_stop(&pooler->timer);
    pooler->step = step;
    pooler->reused = session_connection(pooler->session) != NULL;
    session_ask(pooler->session, question, deadline_ms, on_answer, pooler);
}

static void ask_of(struct pooler *pooler, enum step step, const char *words, unsigned database) {
    pooler->at = database;
    ask(pooler, step, words, ASK_MS);
}

/* ---- pausing ---- */

static void pause_ends(struct pooler *pooler) {
    pooler->pausing = false;
    pooler->callbacks->paused(pooler->user);
}

static void pause_next(struct pooler *pooler) {
    unsigned left = (unsigned)left_ms(pooler, pooler->paused_at, pooler->pause_ms);
    ask(pooler, STEP_PAUSE, "PAUSE", left > 0 ? left : 1);
}

static void has_paused(struct pooler *pooler) {
    if (++pooler->at < pooler->config->databases_count) {
        pause_next(pooler);
        return;
    }
    say(pooler, "clients wait");
    pause_ends(pooler);
    go_on(pooler);
}

/* New transactions are held back nevertheless: better than none. */
static void has_not_paused(struct pooler *pooler, const char *why) {
    if (pooler->failures == 0 && left_ms(pooler, pooler->paused_at, pooler->pause_ms) == 0) {
        say(pooler, "transactions of %s did not end within %u ms: they are broken off",
            pooler->config->databases[pooler->at], pooler->pause_ms);
    } else {
        troubled(pooler, why);
        pooler->paused = false; /* as far as we know */
    }
    pause_ends(pooler);
    go_on(pooler);
}

/* ---- what it shows ---- */

enum lead {
    LEAD_RIGHT,    /* to the primary */
    LEAD_STALE,    /* to another member, or nowhere: its file is an old one */
    LEAD_ELSEWHERE /* to a name or an address that is not ours, behind which the primary may be */
};

static bool is_at(const struct pooler_address *address, const char *host, const char *port) {
    char ours[8];
    snprintf(ours, sizeof ours, "%u", address->port);
    return strcmp(address->host, host) == 0 && strcmp(ours, port) == 0;
}

static bool is_of_another(const struct pooler_view *view, const char *host, const char *port) {
    for (unsigned i = 0; i < view->others_count; i++)
        if (is_at(&view->others[i], host, port))
            return true;
    return false;
}

static enum lead lead_of(const struct pooler_view *view, const char *host, const char *port) {
    if (is_at(&view->primary, host, port))
        return LEAD_RIGHT;
    return strcmp(host, PGBOUNCER_NOWHERE) == 0 || is_of_another(view, host, port) ? LEAD_STALE : LEAD_ELSEWHERE;
}

/* The field of a row; "" if there is no such column. Versions differ in their columns. */
static const char *field(const PGresult *result, int row, const char *column) {
    int number = PQfnumber(result, column);
    return number >= 0 ? PQgetvalue(result, row, number) : "";
}

/* -1 if there is none. */
static int row_of(const PGresult *result, const char *database) {
    for (int row = 0; row < PQntuples(result); row++)
        if (strcmp(field(result, row, "name"), database) == 0)
            return row;
    return -1;
}

static status check_leads(const struct pooler *pooler, const PGresult *result, struct error *error) {
    for (unsigned i = 0; i < pooler->config->databases_count; i++) {
        const char *database = pooler->config->databases[i];
        int row = row_of(result, database);
        if (row < 0)
            return error_set(error, "it has no database %s", database);
        const char *host = field(result, row, "host"), *port = field(result, row, "port");
        if (lead_of(pooler->view, host, port) == LEAD_STALE)
            return error_set(error, "%s leads to %s:%s after RELOAD, not to the primary", database, host, port);
    }
    return OK;
}

static void is_stale(struct pooler *pooler, const struct error *why) {
    pooler->reload_due = true;
    pooler->stale_ms = pooler->stale_ms == 0 ? STALE_MIN_MS : pooler->stale_ms * 2;
    if (pooler->stale_ms > STALE_MAX_MS) {
        pooler->stale_ms = STALE_MAX_MS;
        troubled(pooler, why->text);
    }
    rest(pooler, pooler->stale_ms);
}

/* ---- what is to be done about it ---- */

/* The first database that is paused and may go on, or that needs new connections; false if there is none. */
static bool mend_next(struct pooler *pooler, const PGresult *result) {
    bool may_go_on = overdue(pooler) || (pooler->resume_due && pooler->view->open);
    for (unsigned i = 0; i < pooler->config->databases_count; i++) {
        int row = row_of(result, pooler->config->databases[i]);
        if (row < 0)
            continue;
        const char *host = field(result, row, "host"), *port = field(result, row, "port");
        bool behind_a_name = pooler->view->open && lead_of(pooler->view, host, port) == LEAD_ELSEWHERE;
        if (behind_a_name && (pooler->reconnect_due & 1u << i) != 0) {
            ask_of(pooler, STEP_RECONNECT, "RECONNECT", i);
            return true;
        }
        if (may_go_on && strcmp(field(result, row, "paused"), "1") == 0) {
            ask_of(pooler, STEP_RESUME, "RESUME", i);
            return true;
        }
    }
    return false;
}

static void finish(struct pooler *pooler);

static void clients_go_on(struct pooler *pooler) {
    if (pooler->paused)
        say(pooler, "clients go on, after %llu ms", (unsigned long long)(now_ms(pooler) - pooler->paused_at));
    pooler->paused = pooler->resume_due = false;
}

static void is_well(struct pooler *pooler) {
    untroubled(pooler);
    if (pooler->view->open || overdue(pooler))
        clients_go_on(pooler);
    if (!pooler->view->open) {
        rest_well(pooler);
        return;
    }
    pooler->stale_ms = pooler->reconnect_due = 0;
    pooler->shown = true;
    pooler->index = pooler->view->index;
    if (pooler->strays_due && left_ms(pooler, pooler->lead_at, STRAYS_MS) == 0)
        ask(pooler, STEP_SERVERS, "SHOW SERVERS", ASK_MS);
    else
        rest_well(pooler);
}

static bool none_is_paused(const struct pooler *pooler, const PGresult *result) {
    for (unsigned i = 0; i < pooler->config->databases_count; i++) {
        int row = row_of(result, pooler->config->databases[i]);
        if (row >= 0 && strcmp(field(result, row, "paused"), "1") == 0)
            return false;
    }
    return true;
}

static void has_looked(struct pooler *pooler, const PGresult *result) {
    struct error why;
    bool wrong = pooler->view->open && check_leads(pooler, result, &why) != OK;
    if (wrong && !overdue(pooler))
        is_stale(pooler, &why);
    else if (mend_next(pooler, result))
        return;
    else if (wrong)
        is_stale(pooler, &why);
    else if (pooler->closing && none_is_paused(pooler, result))
        finish(pooler);
    else
        is_well(pooler);
}

/* A session with an old primary that has stayed: its host is gone without a word, and it would hang for as long as TCP
 * takes to notice. There is no way to end only that one. */
static void has_servers(struct pooler *pooler, const PGresult *result) {
    pooler->strays_due = false;
    for (int row = 0; row < PQntuples(result) && pooler->view->open; row++) {
        const char *database = field(result, row, "database"), *host = field(result, row, "addr");
        if (!is_of_another(pooler->view, host, field(result, row, "port")))
            continue;
        for (unsigned i = 0; i < pooler->config->databases_count; i++) {
            if (strcmp(pooler->config->databases[i], database) != 0)
                continue;
            say(pooler, "sessions of %s hang at %s: ends them, and those of its clients", database, host);
            pooler->resume_due = pooler->strays_due = true; /* KILL leaves it paused */
            ask_of(pooler, STEP_KILL, "KILL", i);
            return;
        }
    }
    rest_well(pooler);
}

/* ---- answers ---- */

static void has_done(struct pooler *pooler, const PGresult *result) {
    pooler->failures = 0;
    if (pooler->pausing && pooler->step != STEP_PAUSE) {
        go_on(pooler);
        return;
    }
    switch (pooler->step) {
    case STEP_PAUSE:
        has_paused(pooler);
        return;
    case STEP_LOOK:
        has_looked(pooler, result);
        return;
    case STEP_SERVERS:
        has_servers(pooler, result);
        return;
    case STEP_RECONNECT:
        pooler->reconnect_due &= ~(1u << pooler->at);
        break;
    case STEP_RELOAD:
    case STEP_RESUME:
    case STEP_KILL:
    case STEP_IDLE:
        break;
    }
    ask(pooler, STEP_LOOK, "SHOW DATABASES", ASK_MS);
}

static void has_failed(struct pooler *pooler, const char *why) {
    bool lost = session_connection(pooler->session) == NULL;
    bool in_time = pooler->step != STEP_PAUSE || left_ms(pooler, pooler->paused_at, pooler->pause_ms) > 0;
    pooler->reload_due |= pooler->step == STEP_RELOAD;
    if (lost && pooler->reused && in_time) {
        go_on(pooler); /* it may have been restarted: now in a new session */
    } else if (pooler->step == STEP_PAUSE) {
        has_not_paused(pooler, why);
    } else if (pooler->step == STEP_RESUME && strstr(why, "is not paused") != NULL) {
        ask(pooler, STEP_LOOK, "SHOW DATABASES", ASK_MS); /* another member was faster */
    } else if (pooler->closing) {
        finish(pooler);
    } else {
        troubled(pooler, why);
        uint64_t ms = RETRY_MIN_MS << (pooler->failures < 6 ? pooler->failures : 6);
        pooler->failures++;
        rest(pooler, sooner(ms, LOOK_MS));
    }
}

static void on_answer(void *user, const PGresult *result, const struct error *error) {
    struct pooler *pooler = user;
    if (result != NULL)
        has_done(pooler, result);
    else
        has_failed(pooler, error->text);
}

/* Nothing is under way. */
static void go_on(struct pooler *pooler) {
    if (pooler->pausing) {
        pause_next(pooler);
    } else if (pooler->reload_due && pooler->view->open) {
        pooler->reload_due = false;
        ask(pooler, STEP_RELOAD, "RELOAD", ASK_MS);
    } else {
        ask(pooler, STEP_LOOK, "SHOW DATABASES", ASK_MS);
    }
}

/* ---- told ---- */

static void break_off(struct pooler *pooler) {
    session_drop(pooler->session);
    pooler->step = STEP_IDLE;
}

void pooler_pause(struct pooler *pooler) {
    pooler_held(pooler);
    pooler->pausing = pooler->paused = true;
    pooler->at = 0;
    pooler->pause_ms = pooler->config->pause_ms;
    if (pooler->failures > 0 && pooler->pause_ms > SILENT_MS)
        pooler->pause_ms = SILENT_MS;
    pooler->paused_at = now_ms(pooler);
    if (pooler->step == STEP_IDLE)
        go_on(pooler);
}

bool pooler_pausing(const struct pooler *pooler) { return pooler->pausing; }

void pooler_held(struct pooler *pooler) {
    pooler->resume_due = true;
    pooler->held_at = now_ms(pooler);
}

void pooler_lead(struct pooler *pooler) {
    pooler->reload_due = pooler->resume_due = pooler->strays_due = true;
    pooler->reconnect_due = ~0u; /* all */
    pooler->lead_at = now_ms(pooler);
    pooler->stale_ms = 0;
}

void pooler_told(struct pooler *pooler) {
    if (pooler->pausing && pooler->view->open) { /* the switchover was given up, or is over */
        break_off(pooler);
        pause_ends(pooler);
    }
    if (pooler->step == STEP_IDLE)
        go_on(pooler);
}

void pooler_reload(struct pooler *pooler) {
    pooler->reload_due = true;
    if (pooler->view->open && pooler->step == STEP_IDLE)
        go_on(pooler);
}

struct face_output pooler_row(const struct pooler *pooler) {
    return (struct face_output){.name = "pgbouncer.poolers",
                                .where = pooler->where,
                                .shown = pooler->shown,
                                .index = pooler->index,
                                .trouble = pooler->trouble.text};
}

/* ---- opening and closing ---- */

struct pooler *pooler_new(uv_loop_t *loop, const struct pooler_place *place, const struct pooler_config *config,
                          const struct pooler_view *view, const struct pooler_callbacks *callbacks, void *user) {
    const struct session_config session = {.host = place->host,
                                           .port = place->port,
                                           .user = config->user,
                                           .password = config->password,
                                           .database = "pgbouncer"};
    struct pooler *pooler = calloc(1, sizeof *pooler);
    if (pooler == NULL || (pooler->session = session_new(loop, &session)) == NULL) {
        free(pooler);
        return NULL;
    }
    pooler->config = config;
    pooler->view = view;
    pooler->callbacks = callbacks;
    pooler->user = user;
    snprintf(pooler->name, sizeof pooler->name, "%s", place->name);
    snprintf(pooler->where, sizeof pooler->where, "%s at %s port %u", place->name, place->host, place->port);
    uv_timer_init(loop, &pooler->timer);
    pooler->timer.data = pooler;
    pooler_held(pooler); /* by the daemon that ran before us, perhaps */
    rest(pooler, 0);
    return pooler;
}

static void on_timer_closed(uv_handle_t *handle) {
    struct pooler *pooler = handle->data;
    pooler->callbacks->closed(pooler->user);
    free(pooler);
}

static void finish(struct pooler *pooler) {
    session_free(pooler->session);
    pooler->session = NULL;
    uv_close((uv_handle_t *)&pooler->timer, on_timer_closed);
}

void pooler_close(struct pooler *pooler, bool wait) {
    pooler->closing = true;
    pooler->pausing = false;
    break_off(pooler);
    if (wait && pooler->paused)
        go_on(pooler);
    else
        finish(pooler);
}
