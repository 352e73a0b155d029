/* CUT, FOLLOW and FETCH: from whom a standby takes WAL. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgctl/internal.h"

/* ---- CUT: (SEEN ->) PLEDGE -> CHECK (-> RESET -> RESET_RESTORE -> CHECK) -> RECEIVER (-> RESUME) -> POSITION ----
 * Empty settings alone cut nothing: the startup process stops a receiver only when it wants more WAL, and
 * postgresql.auto.conf may say otherwise. */

enum { CUT_SEEN, CUT_PLEDGE, CUT_CHECK, CUT_RESET, CUT_RESET_RESTORE, CUT_RECEIVER, CUT_RESUME, CUT_POSITION };

static status pledge(struct pgctl *pgctl) {
    uint32_t epoch = pgctl->operate.operation.epoch;
    struct error error;
    if (epoch <= pgctl->pledged)
        return OK;
    if (pledge_write(pgctl->pledge_path, epoch, &error) == FAILED) {
        operate_failed(pgctl, &error);
        return FAILED;
    }
    pgctl->pledged = epoch;
    return OK;
}

/* Nothing may be written that would turn a running primary's settings. */
static void need_standby(struct pgctl *pgctl, int next) {
    if (operate_need_running(pgctl) == FAILED)
        return;
    if (pgctl->facts.server == SERVER_STANDBY)
        operate_enter(pgctl, next);
    else
        operate_ask_anew(pgctl, "SELECT pg_is_in_recovery()"); /* not seen yet, or a primary */
}

static void seen_standby(struct pgctl *pgctl, const PGresult *result, int next) {
    if (result_bool(result, 0))
        operate_enter(pgctl, next);
    else
        operate_refuse(pgctl, "not a standby");
}

static void cut_see(struct pgctl *pgctl) { need_standby(pgctl, CUT_PLEDGE); }
static void cut_seen(struct pgctl *pgctl, const PGresult *result) { seen_standby(pgctl, result, CUT_PLEDGE); }

static void cut_pledge(struct pgctl *pgctl) {
    if (pledge(pgctl) == FAILED)
        return;
    settings_of_nobody(&pgctl->settings);
    pgctl->operate.cut_resets = 0;
    operate_identify_early(pgctl);
    if (operate_write_settings(pgctl) == OK && operate_reload(pgctl) == OK)
        operate_enter(pgctl, CUT_CHECK);
}

static void cut_check(struct pgctl *pgctl) {
    char sql[512];
    snprintf(sql, sizeof sql,
             "SELECT pg_is_in_recovery(), pg_conf_load_time() >= to_timestamp(%" PRIu64 ".%06" PRIu64 "), "
             "current_setting('primary_conninfo') = '' AND current_setting('restore_command') = '', " SQL_OLDEST_WAL,
             pgctl->operate.settings_written_us / 1000000, pgctl->operate.settings_written_us % 1000000);
    operate_ask_anew(pgctl, sql);
}

static void cut_checked(struct pgctl *pgctl, const PGresult *result) {
    pgctl->operate.result.lsn = result_oldest_lsn(result, 3);
    if (!result_bool(result, 0))
        operate_refuse(pgctl, "not a standby");
    else if (!result_bool(result, 1))
        operate_again(pgctl, 1);
    else if (result_bool(result, 2))
        operate_enter(pgctl, CUT_RECEIVER);
    else if (pgctl->operate.cut_resets++ == 0)
        operate_enter(pgctl, CUT_RESET);
    else
        operate_fail(pgctl, "primary_conninfo or restore_command is set elsewhere than in our settings");
}

static void cut_reset(struct pgctl *pgctl) { operate_ask(pgctl, "ALTER SYSTEM RESET primary_conninfo"); }

static void cut_reset_one(struct pgctl *pgctl, const PGresult *result) {
    (void)result;
    operate_enter(pgctl, CUT_RESET_RESTORE);
}

static void cut_reset_restore(struct pgctl *pgctl) { operate_ask(pgctl, "ALTER SYSTEM RESET restore_command"); }

static void cut_reset_both(struct pgctl *pgctl, const PGresult *result) {
    (void)result;
    if (operate_reload(pgctl) == OK)
        operate_enter(pgctl, CUT_CHECK);
}

static void cut_receiver(struct pgctl *pgctl) {
    operate_ask(pgctl, "SELECT coalesce(max(pid) FILTER (WHERE backend_type = 'walreceiver'), 0), "
                       "coalesce(bool_or(wait_event = 'RecoveryRetrieveRetryInterval') "
                       "FILTER (WHERE backend_type = 'startup'), false), "
                       "pg_get_wal_replay_pause_state() <> 'not paused', pg_last_wal_replay_lsn() - '0/0' "
                       "FROM pg_stat_get_activity(NULL) WHERE backend_type IN ('walreceiver', 'startup')");
}

/* The startup process waits in RecoveryRetrieveRetryInterval only when there is no more WAL to replay and no receiver;
 * when it wakes it takes the new settings before it would ask for one. Two looks in a row must agree. */
static void cut_receiver_seen(struct pgctl *pgctl, const PGresult *result) {
    uint64_t receiver = result_number(result, 0), replayed = result_number(result, 3);
    bool still = receiver == 0 && result_bool(result, 1);
    bool again = still && pgctl->operate.looks > 0 && replayed == pgctl->operate.replayed;
    if (receiver > 1)
        (void)kill((pid_t)receiver, SIGTERM); /* pg_terminate_backend does not reach auxiliary processes */
    pgctl->operate.looks = still ? pgctl->operate.looks + 1 : 0;
    pgctl->operate.replayed = replayed;
    if (result_bool(result, 2))
        operate_enter(pgctl, CUT_RESUME);
    else if (again)
        operate_enter(pgctl, CUT_POSITION);
    else
        operate_again(pgctl, 1);
}

static void cut_resume(struct pgctl *pgctl) { operate_ask(pgctl, "SELECT pg_wal_replay_resume()"); }

static void cut_resumed(struct pgctl *pgctl, const PGresult *result) {
    (void)result;
    operate_enter(pgctl, CUT_RECEIVER);
}

static void cut_position(struct pgctl *pgctl) { operate_identify(pgctl); }

static void cut_position_known(struct pgctl *pgctl, const PGresult *result) {
    pgctl->operate.result.position =
        (Position){.timeline = (uint32_t)result_number(result, 1), .lsn = pgctl->operate.replayed};
    operate_done(pgctl);
}

static const struct step cut_steps[] = {
    [CUT_SEEN] = {.name = "check", .enter = cut_see, .answered = cut_seen},
    [CUT_PLEDGE] = {.name = "pledge", .enter = cut_pledge},
    [CUT_CHECK] = {.name = "check settings", .enter = cut_check, .answered = cut_checked},
    [CUT_RESET] = {.name = "reset primary_conninfo", .enter = cut_reset, .answered = cut_reset_one},
    [CUT_RESET_RESTORE] = {.name = "reset restore_command", .enter = cut_reset_restore, .answered = cut_reset_both},
    [CUT_RECEIVER] = {.name = "end the receiver", .enter = cut_receiver, .answered = cut_receiver_seen},
    [CUT_RESUME] = {.name = "resume replay", .enter = cut_resume, .answered = cut_resumed},
    [CUT_POSITION] = {.name = "position", .enter = cut_position, .answered = cut_position_known},
};
const struct machine machine_cut = {cut_steps, CUT_SEEN, 60000};

/* ---- FOLLOW ---- */

enum { FOLLOW_CHECK, FOLLOW_WRITE };

static void follow_check(struct pgctl *pgctl) {
    if (pgctl->operate.operation.epoch <= pgctl->pledged)
        operate_refuse(pgctl, "pledged never to attach to epoch %u again", pgctl->pledged);
    else
        need_standby(pgctl, FOLLOW_WRITE);
}

static void follow_checked(struct pgctl *pgctl, const PGresult *result) { seen_standby(pgctl, result, FOLLOW_WRITE); }

static void follow_write(struct pgctl *pgctl) {
    const struct operation *operation = &pgctl->operate.operation;
    settings_follow(&pgctl->settings, &pgctl->config, pgctl->pgpass_path, &operation->upstream,
                    operation->application_name);
    if (operate_write_settings(pgctl) == OK && operate_reload(pgctl) == OK)
        operate_done(pgctl);
}

static const struct step follow_steps[] = {
    [FOLLOW_CHECK] = {.name = "check", .enter = follow_check, .answered = follow_checked},
    [FOLLOW_WRITE] = {.name = "write settings", .enter = follow_write},
};
const struct machine machine_follow = {follow_steps, FOLLOW_CHECK, 10000};

/* ---- FETCH: FOLLOW without a look at the pledge, as the upstream is no primary ---- */

static void fetch_check(struct pgctl *pgctl) { need_standby(pgctl, FOLLOW_WRITE); }

static const struct step fetch_steps[] = {
    [FOLLOW_CHECK] = {.name = "check", .enter = fetch_check, .answered = follow_checked},
    [FOLLOW_WRITE] = {.name = "write settings", .enter = follow_write},
};
const struct machine machine_fetch = {fetch_steps, FOLLOW_CHECK, 10000};
