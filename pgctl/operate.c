#include "pgctl/internal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgctl/file.h"

#define QUESTION_MS      5000
#define LONG_QUESTION_MS 86400000 /* the operation's own deadline comes first */

static const struct machine *const machines[] = {
    [OPERATE_INITDB] = &machine_initdb,   [OPERATE_ADOPT] = &machine_adopt, [OPERATE_CLONE] = &machine_clone,
    [OPERATE_REWIND] = &machine_rewind,   [OPERATE_START] = &machine_start, [OPERATE_STOP] = &machine_stop,
    [OPERATE_KILL] = &machine_kill,       [OPERATE_CUT] = &machine_cut,     [OPERATE_FOLLOW] = &machine_follow,
    [OPERATE_PROMOTE] = &machine_promote, [OPERATE_RULE] = &machine_rule,   [OPERATE_CHECKPOINT] = &machine_checkpoint,
    [OPERATE_FETCH] = &machine_fetch,
};

static const struct step *current(const struct pgctl *pgctl) {
    return &pgctl->operate.machine->steps[pgctl->operate.state];
}

bool operate_busy(const struct pgctl *pgctl) { return pgctl->operate.operation.kind != OPERATE_NONE; }

/* ---- ends ---- */

static void drop_session(struct session **session) {
    session_free(*session);
    *session = NULL;
}

static void drop_work(struct pgctl *pgctl) {
    struct operate *operate = &pgctl->operate;
    uv_timer_stop(&operate->again);
    uv_timer_stop(&operate->deadline);
    drop_session(&operate->session);
    drop_session(&operate->replication);
    drop_session(&operate->probe);
    if (operate->child != NULL)
        child_cancel(operate->child);
    operate->child = NULL;
    operate->kept = false;
}

/* A cut is often followed by a promotion, where each connection saved is milliseconds of outage. */
static void keep_sessions(struct operate *operate) {
    uv_timer_stop(&operate->again);
    uv_timer_stop(&operate->deadline);
    operate->kept = true;
}

static void tell_cancelled(struct pgctl *pgctl) {
    struct operation_result result = pgctl->operate.cancelled;
    pgctl->operate.cancelled.kind = OPERATE_NONE;
    if (result.kind != OPERATE_NONE)
        pgctl->callbacks.done(pgctl->user, &result);
}

static void end(struct pgctl *pgctl, enum operation_outcome outcome, const struct error *error) {
    struct operation_result result = pgctl->operate.result;
    result.outcome = outcome;
    if (error != NULL)
        result.error = *error;
    if (outcome == OUTCOME_DONE && result.kind == OPERATE_CUT)
        keep_sessions(&pgctl->operate);
    else
        drop_work(pgctl);
    pgctl->operate.operation.kind = OPERATE_NONE;
    observer_look_at_data(pgctl);
    if (!pgctl->closing) {
        tell_cancelled(pgctl); /* a KILL may end before it has begun */
        pgctl->callbacks.done(pgctl->user, &result);
    }
    observer_poke(pgctl);
}

void operate_done(struct pgctl *pgctl) { end(pgctl, OUTCOME_DONE, NULL); }

static void end_named(struct pgctl *pgctl, enum operation_outcome outcome, const struct error *error) {
    struct error named = *error;
    (void)error_prefix(&named, "%s: %s", operation_kind_name(pgctl->operate.operation.kind), current(pgctl)->name);
    end(pgctl, outcome, &named);
}

void operate_failed(struct pgctl *pgctl, const struct error *error) { end_named(pgctl, OUTCOME_FAILED, error); }

static void end_text(struct pgctl *pgctl, enum operation_outcome outcome, const char *format, va_list arguments) {
    struct error error;
    vsnprintf(error.text, sizeof error.text, format, arguments);
    end_named(pgctl, outcome, &error);
}

void operate_refuse(struct pgctl *pgctl, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    end_text(pgctl, OUTCOME_REFUSED, format, arguments);
    va_end(arguments);
}

void operate_fail(struct pgctl *pgctl, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    end_text(pgctl, OUTCOME_FAILED, format, arguments);
    va_end(arguments);
}

/* Its result is told by the loop, before the next operation begins. */
static void cancel(struct pgctl *pgctl) {
    struct operate *operate = &pgctl->operate;
    drop_work(pgctl);
    operate->cancelled = operate->result;
    operate->cancelled.outcome = OUTCOME_CANCELLED;
    (void)error_set(&operate->cancelled.error, "%s: %s: cancelled", operation_kind_name(operate->operation.kind),
                    current(pgctl)->name);
    operate->operation.kind = OPERATE_NONE;
}

void operate_close(struct pgctl *pgctl) {
    if (operate_busy(pgctl))
        cancel(pgctl);
    drop_work(pgctl);
    uv_close((uv_handle_t *)&pgctl->operate.again, NULL);
    uv_close((uv_handle_t *)&pgctl->operate.deadline, NULL);
}

void operate_open(struct pgctl *pgctl) {
    uv_timer_init(pgctl->loop, &pgctl->operate.again);
    uv_timer_init(pgctl->loop, &pgctl->operate.deadline);
    pgctl->operate.again.data = pgctl->operate.deadline.data = pgctl;
}

static void deadline_passed(uv_timer_t *timer) { operate_fail(timer->data, "deadline passed"); }

void operate_progress(struct pgctl *pgctl, const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (pgctl->callbacks.progress != NULL)
        pgctl->callbacks.progress(pgctl->user, pgctl->operate.operation.serial, text);
}

void operate_progress_kb(struct pgctl *pgctl, const char *what, unsigned long long done, unsigned long long all) {
    bool large = all >= 1048576;
    operate_progress(pgctl, "%s: %llu %% of %.1f %s", what, done >= all ? 100 : done * 100 / all,
                     (double)all / (large ? 1048576 : 1024), large ? "GB" : "MB");
}

/* ---- steps ---- */

/* What the step before has begun and not seen the end of is of no interest to this one. */
void operate_enter(struct pgctl *pgctl, int state) {
    uv_timer_stop(&pgctl->operate.again);
    if (pgctl->operate.session != NULL && session_asking(pgctl->operate.session))
        session_drop(pgctl->operate.session);
    pgctl->operate.state = state;
    pgctl->operate.looks = 0;
    current(pgctl)->enter(pgctl);
}

static void enter_again(uv_timer_t *timer) {
    struct pgctl *pgctl = timer->data;
    current(pgctl)->enter(pgctl);
}

void operate_again(struct pgctl *pgctl, unsigned after_ms) {
    uv_timer_start(&pgctl->operate.again, enter_again, after_ms, 0);
}

static void question_answered(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    const struct step *step = current(pgctl);
    bool kept = pgctl->operate.kept;
    pgctl->operate.kept = false;
    if (result != NULL)
        step->answered(pgctl, result);
    else if (kept)
        step->enter(pgctl); /* that session was from before: now in a new one */
    else if (step->failed != NULL)
        step->failed(pgctl, error);
    else
        operate_failed(pgctl, error);
}

/* Asks in `session`, which is made when it is first needed. */
static void ask(struct pgctl *pgctl, struct session **session, bool replication, const char *sql,
                unsigned deadline_ms) {
    if (*session == NULL)
        *session = pgctl_session(pgctl, replication);
    if (*session == NULL)
        operate_fail(pgctl, "out of memory");
    else
        session_ask(*session, sql, deadline_ms, question_answered, pgctl);
}

void operate_ask(struct pgctl *pgctl, const char *sql) { ask(pgctl, &pgctl->operate.session, false, sql, QUESTION_MS); }

void operate_ask_long(struct pgctl *pgctl, const char *sql) {
    ask(pgctl, &pgctl->operate.session, false, sql, LONG_QUESTION_MS);
}

void operate_ask_anew(struct pgctl *pgctl, const char *sql) {
    if (pgctl->operate.session != NULL)
        session_drop(pgctl->operate.session);
    operate_ask(pgctl, sql);
}

void operate_identify(struct pgctl *pgctl) {
    struct session *session = pgctl->operate.replication;
    pgctl->operate.identify = true;
    if (session == NULL || !session_asking(session))
        ask(pgctl, &pgctl->operate.replication, true, "IDENTIFY_SYSTEM", QUESTION_MS);
}

/* An answer from before is not taken: it only proves that the connection is there. */
static void early_answered(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    (void)result, (void)error;
    if (pgctl->operate.identify)
        operate_identify(pgctl);
}

void operate_identify_early(struct pgctl *pgctl) {
    pgctl->operate.identify = false;
    if (pgctl->operate.replication == NULL)
        pgctl->operate.replication = pgctl_session(pgctl, true);
    if (pgctl->operate.replication != NULL && !session_asking(pgctl->operate.replication))
        session_ask(pgctl->operate.replication, "IDENTIFY_SYSTEM", QUESTION_MS, early_answered, pgctl);
}

static void child_ended(void *user, const struct child_result *result) {
    struct pgctl *pgctl = user;
    struct error error;
    pgctl_child_ended(pgctl);
    if (result->cancelled)
        return; /* its operation has ended before */
    pgctl->operate.child = NULL;
    if (child_succeeded(result, &error) == FAILED && !current(pgctl)->may_fail)
        operate_failed(pgctl, &error);
    else
        current(pgctl)->ended(pgctl, result);
}

void operate_spawn(struct pgctl *pgctl, const char *const argv[], void (*line)(void *user, const char *line)) {
    struct child_config config = {.argv = argv, .line = line, .ended = child_ended, .user = pgctl};
    struct error error;
    if (child_spawn(&pgctl->operate.child, pgctl->loop, &config, &error) == FAILED)
        operate_failed(pgctl, &error);
    else
        pgctl->children++;
}

void operate_server_changed(struct pgctl *pgctl) {
    if (!operate_busy(pgctl))
        drop_work(pgctl);
    pgctl->operate.kept = false;
}

void operate_guard_changed(struct pgctl *pgctl) {
    if (operate_busy(pgctl) && current(pgctl)->guard != NULL)
        current(pgctl)->guard(pgctl);
}

/* ---- beginning ---- */

static void begin(uv_timer_t *timer) {
    struct pgctl *pgctl = timer->data;
    tell_cancelled(pgctl);
    operate_enter(pgctl, pgctl->operate.machine->first);
}

void pgctl_operate(struct pgctl *pgctl, const struct operation *operation) {
    struct operate *operate = &pgctl->operate;
    if (operation->kind == OPERATE_KILL && operate_busy(pgctl))
        cancel(pgctl);
    operate->operation = *operation;
    operate->machine = machines[operation->kind];
    operate->state = operate->machine->first;
    operate->result = (struct operation_result){.serial = operation->serial, .kind = operation->kind};
    operate->restarted = operate->senders_known = false;
    uv_timer_start(&operate->deadline, deadline_passed,
                   operation->deadline_ms > 0 ? operation->deadline_ms : operate->machine->deadline_ms, 0);
    uv_timer_start(&operate->again, begin, 0, 0);
}

/* ---- shared by several ---- */

status operate_need_down(struct pgctl *pgctl) {
    if (pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_DOWN)
        return OK;
    operate_refuse(pgctl, pgctl->guard_state.connected ? "PostgreSQL runs" : "no guard answers");
    return FAILED;
}

status operate_need_running(struct pgctl *pgctl) {
    if (pgctl_server_running(pgctl))
        return OK;
    operate_refuse(pgctl, "PostgreSQL does not run");
    return FAILED;
}

status operate_write_settings(struct pgctl *pgctl) {
    struct error error;
    if (settings_write(&pgctl->settings, &pgctl->minimums, pgctl->settings_path, &pgctl->config, &error) == OK)
        return OK;
    operate_failed(pgctl, &error);
    return FAILED;
}

/* For comparing with pg_conf_load_time() of the same host. */
static uint64_t wall_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

status operate_reload(struct pgctl *pgctl) {
    struct error error;
    pgctl->operate.settings_written_us = wall_us();
    if (guard_signal(pgctl->guard, SIGHUP, &error) == OK)
        return OK;
    operate_failed(pgctl, &error);
    return FAILED;
}

void operate_control(struct pgctl *pgctl) {
    char program[PATH_MAX];
    const char *const argv[] = {pgctl_program(pgctl, "pg_controldata", program), "-D", pgctl->config.data_directory,
                                NULL};
    operate_spawn(pgctl, argv, NULL);
}

/* Of a damaged one it says that the checksum is wrong, and then what is there. */
void operate_control_read(struct pgctl *pgctl, const struct child_result *result) {
    bool damaged = strstr(result->output, "CRC") != NULL;
    minimums_read(&pgctl->minimums, damaged ? "" : result->output);
}

/* Whatever was there before: it comes up as a standby. */
static status prepare_start(struct pgctl *pgctl, struct error *error) {
    const char *data_directory = pgctl->config.data_directory;
    char signal_path[PATH_MAX];
    bool changed;
    snprintf(signal_path, sizeof signal_path, "%s/standby.signal", data_directory);
    if (file_touch(signal_path, error) == FAILED ||
        settings_include(data_directory, pgctl->settings_path, error) == FAILED ||
        settings_clean_auto(data_directory, error) == FAILED ||
        settings_hba(&pgctl->config, pgctl->upkeeper.known ? &pgctl->upkeeper.upkeep : NULL, &changed, error) ==
            FAILED ||
        settings_pgpass(&pgctl->config, pgctl->pgpass_path, error) == FAILED ||
        placeholders_remove_trailing(data_directory, error) == FAILED)
        return FAILED;
    return settings_write(&pgctl->settings, &pgctl->minimums, pgctl->settings_path, &pgctl->config, error);
}

status operate_start_server(struct pgctl *pgctl, const struct settings *settings) {
    char program[PATH_MAX];
    struct stat log;
    struct error error;
    const char *const argv[] = {pgctl_program(pgctl, "postgres", program), "-D", pgctl->config.data_directory, NULL};
    pgctl->operate.log_offset = stat(pgctl->log_path, &log) == 0 ? (long)log.st_size : 0;
    pgctl->operate.guard_pid = pgctl->guard_state.guard_pid;
    pgctl->operate.exits = pgctl->guard_state.exits;
    pgctl->settings = *settings;
    if (prepare_start(pgctl, &error) == OK && guard_start(pgctl->guard, argv, &error) == OK)
        return OK;
    operate_failed(pgctl, &error);
    return FAILED;
}

/* A FATAL of the server, not of a client that came too early. */
static bool tells_why(const char *line) {
    return strstr(line, "PANIC:") != NULL ||
           (strstr(line, "FATAL:") != NULL && strstr(line, "the database system is") == NULL);
}

/* What this server has logged, or the end of it: while it recovers, each of our tries to connect is a line there. */
static void log_read(const struct pgctl *pgctl, char *text, size_t size) {
    struct stat at;
    size_t length = 0;
    FILE *log = fopen(pgctl->log_path, "re");
    if (log != NULL) {
        long begin = pgctl->operate.log_offset, room = (long)size - 1;
        if (fstat(fileno(log), &at) == 0 && (long)at.st_size - room > begin)
            begin = (long)at.st_size - room;
        if (fseek(log, begin, SEEK_SET) == 0)
            length = fread(text, 1, size - 1, log);
        fclose(log);
    }
    text[length] = '\0';
}

bool operate_log_says(const struct pgctl *pgctl, const char *what) {
    char text[8192];
    log_read(pgctl, text, sizeof text);
    return strstr(text, what) != NULL;
}

/* Its last line that says why. */
static void log_tail(const struct pgctl *pgctl, struct error *ret_error) {
    char text[8192], last[400] = "", *rest = NULL;
    log_read(pgctl, text, sizeof text);
    for (const char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        if (tells_why(line) || last[0] == '\0')
            snprintf(last, sizeof last, "%s", line);
    (void)error_set(ret_error, "PostgreSQL ended: %s", last[0] != '\0' ? last : "its log says nothing");
}

bool operate_start_failed(struct pgctl *pgctl, struct error *ret_error) {
    const struct guard_state *guard = &pgctl->guard_state;
    if (!guard->connected || guard->server != GUARD_DOWN)
        return false;
    if (guard->guard_pid != pgctl->operate.guard_pid) /* the new one has not seen it end */
        (void)error_set(ret_error, "its guard was killed, and PostgreSQL with it");
    else if (guard->exits > pgctl->operate.exits)
        log_tail(pgctl, ret_error);
    else if (guard->failure[0] != '\0')
        (void)error_set(ret_error, "%s", guard->failure);
    else
        return false; /* it has not begun */
    return true;
}

status operate_start_alone(struct pgctl *pgctl) {
    struct settings nobody;
    settings_of_nobody(&nobody);
    return operate_start_server(pgctl, &nobody);
}

#define OFTEN_LOOKS 50 /* then less often: each try is a line in the server's log */

void operate_try_again(struct pgctl *pgctl, const struct error *error) {
    (void)error;
    operate_again(pgctl, pgctl->operate.looks++ < OFTEN_LOOKS ? 10 : 100);
}
