/* START, STOP, KILL, CHECKPOINT: the server as a process. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "pgctl/internal.h"

/* ---- START: PREPARE -> CONTROL -> WAIT (-> CONTROL -> WAIT) ---- */

enum { START_PREPARE, START_CONTROL, START_WAIT };

static void start_prepare(struct pgctl *pgctl) {
    if (pgctl_server_running(pgctl)) { /* asked again */
        operate_enter(pgctl, START_WAIT);
        return;
    }
    if (operate_need_down(pgctl) == FAILED)
        return;
    observer_look_at_data(pgctl);
    if (pgctl->data.state != DATA_COMPLETE)
        operate_refuse(pgctl, "the data directory is %s%s%s", data_state_name(pgctl->data.state),
                       pgctl->data.refused[0] != '\0' ? ": " : "", pgctl->data.refused);
    else
        operate_enter(pgctl, START_CONTROL);
}

static void start_control_read(struct pgctl *pgctl, const struct child_result *result) {
    operate_control_read(pgctl, result);
    if (operate_start_alone(pgctl) == OK)
        operate_enter(pgctl, START_WAIT);
}

static void start_wait(struct pgctl *pgctl) { operate_ask_anew(pgctl, "SELECT pg_is_in_recovery()"); }

static void start_answers(struct pgctl *pgctl, const PGresult *result) {
    if (result_bool(result, 0))
        operate_done(pgctl);
    else
        operate_refuse(pgctl, "PostgreSQL runs, and as a primary");
}

/* The primary of this WAL came to have more than we have configured, as it tells only now. */
static void start_ended(struct pgctl *pgctl) {
    struct error error;
    if (!operate_start_failed(pgctl, &error))
        return;
    if (strstr(error.text, "insufficient parameter settings") == NULL || pgctl->operate.restarted) {
        operate_failed(pgctl, &error);
        return;
    }
    pgctl->operate.restarted = true;
    operate_enter(pgctl, START_CONTROL);
}

static const struct step start_steps[] = {
    [START_PREPARE] = {.name = "prepare", .enter = start_prepare},
    [START_CONTROL] = {.name = "pg_controldata",
                       .enter = operate_control,
                       .ended = start_control_read,
                       .may_fail = true},
    [START_WAIT] = {"wait", start_wait, start_answers, operate_try_again, NULL, start_ended},
};
const struct machine machine_start = {start_steps, START_PREPARE, 300000};

/* ---- STOP: SENDERS -> SIGNAL ---- */

enum { STOP_SENDERS, STOP_SIGNAL };

/* A fast stop waits until every sender has sent all there is: those that nobody reads would hold it up. */
static void stop_senders(struct pgctl *pgctl) {
    if (pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_DOWN)
        operate_done(pgctl);
    else
        operate_ask_anew(pgctl,
                         "SELECT pg_terminate_backend(pid) FROM pg_stat_get_wal_senders() WHERE state <> 'streaming'");
}

static void stop_senders_ended(struct pgctl *pgctl, const PGresult *result) {
    (void)result;
    operate_enter(pgctl, STOP_SIGNAL);
}

static void stop_senders_failed(struct pgctl *pgctl, const struct error *error) {
    (void)error; /* a server that answers no question may still obey a signal */
    operate_enter(pgctl, STOP_SIGNAL);
}

static void down_is_done(struct pgctl *pgctl) {
    if (pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_DOWN)
        operate_done(pgctl);
}

static void stop_signal(struct pgctl *pgctl) {
    struct error error;
    if (pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_DOWN)
        operate_done(pgctl);
    else if (guard_signal(pgctl->guard, SIGINT, &error) == FAILED)
        operate_failed(pgctl, &error);
}

static const struct step stop_steps[] = {
    [STOP_SENDERS] = {"senders", stop_senders, stop_senders_ended, stop_senders_failed, NULL, NULL},
    [STOP_SIGNAL] = {.name = "wait", .enter = stop_signal, .guard = down_is_done},
};
const struct machine machine_stop = {stop_steps, STOP_SENDERS, 60000};

/* ---- KILL ---- */

static void kill_all(struct pgctl *pgctl) {
    struct error error;
    if (pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_DOWN)
        operate_done(pgctl);
    else if (pgctl->guard_state.connected && guard_kill(pgctl->guard, &error) == FAILED)
        operate_failed(pgctl, &error); /* without a guard: the next one kills before it reports */
}

static const struct step kill_steps[] = {{.name = "wait", .enter = kill_all, .guard = down_is_done}};
const struct machine machine_kill = {kill_steps, 0, 30000};

/* ---- CHECKPOINT ---- */

static void checkpoint(struct pgctl *pgctl) {
    if (operate_need_running(pgctl) == OK)
        operate_ask_long(pgctl, "CHECKPOINT");
}

static void checkpoint_ended(struct pgctl *pgctl, const PGresult *result) {
    (void)result;
    operate_done(pgctl);
}

static const struct step checkpoint_steps[] = {{.name = "wait", .enter = checkpoint, .answered = checkpoint_ended}};
const struct machine machine_checkpoint = {checkpoint_steps, 0, 600000};
