/* PROMOTE and RULE: a primary, and whose acknowledgements its commits wait for. They share the second half: a rule
 * counts as in force only when every WAL sender uses it.
 *
 * PROMOTE: CHECK -> IDENTIFY -> HISTORY -> LOAD -> TRIGGER -> SENDERS -> END
 *             ^                   \-> STOP -> RESTART -+   (once, to forget the timeline of a void epoch)
 *             +----------------------------------------+
 * RULE:    BEGIN (-> NOBODY -> PROBE -> PROBE_WAITS) -> WRITE -> SENDERS -> END   (the detour when it was empty) */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgctl/file.h"
#include "pgctl/internal.h"

enum {
    PROMOTE_CHECK,
    PROMOTE_IDENTIFY,
    PROMOTE_HISTORY,
    PROMOTE_STOP,
    PROMOTE_RESTART,
    PROMOTE_LOAD,
    PROMOTE_TRIGGER,
    RULE_BEGIN,
    RULE_NOBODY,
    RULE_PROBE,
    RULE_PROBE_WAITS,
    RULE_WRITE,
    RULE_SENDERS,
    RULE_END
};

/* ---- written and loaded ---- */

static bool rule_is_sound(const struct rule_setting *rule) { return rule->names_count >= rule->needed; }

static status write_names(struct pgctl *pgctl, const char *names) {
    pgctl->settings.primary = true;
    pgctl->settings.primary_conninfo[0] = pgctl->settings.primary_slot_name[0] = '\0';
    snprintf(pgctl->settings.synchronous_standby_names, sizeof pgctl->settings.synchronous_standby_names, "%s", names);
    return operate_write_settings(pgctl) == OK && operate_reload(pgctl) == OK ? OK : FAILED;
}

static status write_rule(struct pgctl *pgctl) {
    char names[sizeof pgctl->settings.synchronous_standby_names];
    settings_rule(names, sizeof names, &pgctl->operate.operation.rule);
    return write_names(pgctl, names);
}

/* In a new session: is the write loaded, and does nothing override it? */
static void ask_loaded(struct pgctl *pgctl) {
    char sql[200];
    snprintf(sql, sizeof sql,
             "SELECT pg_conf_load_time() >= to_timestamp(%" PRIu64 ".%06" PRIu64 "), "
             "current_setting('synchronous_standby_names')",
             pgctl->operate.settings_written_us / 1000000, pgctl->operate.settings_written_us % 1000000);
    operate_ask_anew(pgctl, sql);
}

/* False: asks again, or the operation has ended. */
static bool is_loaded(struct pgctl *pgctl, const PGresult *result) {
    if (!result_bool(result, 0)) {
        operate_again(pgctl, 1);
        return false;
    }
    if (strcmp(PQgetvalue(result, 0, 1), pgctl->settings.synchronous_standby_names) == 0)
        return true;
    operate_fail(pgctl, "synchronous_standby_names is set elsewhere than in our settings");
    return false;
}

/* ---- PROMOTE ---- */

static void promote_check(struct pgctl *pgctl) {
    const struct operation *operation = &pgctl->operate.operation;
    if (operate_need_running(pgctl) == FAILED)
        return;
    if (operation->epoch <= pgctl->pledged)
        operate_refuse(pgctl, "pledged never to begin epoch %u again", pgctl->pledged);
    else if (!rule_is_sound(&operation->rule))
        operate_refuse(pgctl, "the rule asks for more acknowledgements than it has names");
    else {
        operate_identify_early(pgctl);
        operate_ask(pgctl, "SELECT pg_is_in_recovery(), current_setting('primary_conninfo') = '' AND NOT EXISTS "
                           "(SELECT FROM pg_stat_get_activity(NULL) WHERE backend_type = 'walreceiver'), "
                           "pg_last_wal_replay_lsn() - '0/0'");
    }
}

static void promote_checked(struct pgctl *pgctl, const PGresult *result) {
    if (!result_bool(result, 0))
        operate_refuse(pgctl, "not a standby");
    else if (!result_bool(result, 1))
        operate_refuse(pgctl, "its receiver has not been cut");
    else {
        pgctl->operate.replayed = result_number(result, 2);
        operate_enter(pgctl, PROMOTE_IDENTIFY);
    }
}

static void promote_identify(struct pgctl *pgctl) { operate_identify(pgctl); }

static void promote_identified(struct pgctl *pgctl, const PGresult *result) {
    Position base = pgctl->operate.operation.base;
    Position here = {.timeline = (uint32_t)result_number(result, 1), .lsn = pgctl->operate.replayed};
    char here_text[LSN_TEXT_MAX], base_text[LSN_TEXT_MAX];
    if (position_compare(here, base) == 0)
        operate_enter(pgctl, PROMOTE_HISTORY);
    else
        operate_refuse(pgctl, "is at %s of timeline %u, not at the base %s of timeline %u",
                       lsn_text(here.lsn, here_text), here.timeline, lsn_text(base.lsn, base_text), base.timeline);
}

/* A history file of a timeline that never came to be would be taken for our parent. */
static void promote_history(struct pgctl *pgctl) {
    const struct operation *operation = &pgctl->operate.operation;
    const char *data_directory = pgctl->config.data_directory;
    struct error error;
    unsigned aside;
    if (operation->timeline <= operation->base.timeline) {
        operate_refuse(pgctl, "timeline %u is not above %u", operation->timeline, operation->base.timeline);
        return;
    }
    if (histories_set_aside(data_directory, operation->base.timeline, &aside, &error) == FAILED)
        operate_failed(pgctl, &error);
    else if (aside > 0 && !pgctl->operate.restarted)
        operate_enter(pgctl, PROMOTE_STOP);
    else if (placeholders_write(data_directory, operation->base.timeline, operation->timeline, &error) == FAILED)
        operate_failed(pgctl, &error);
    else if (write_rule(pgctl) == OK)
        operate_enter(pgctl, PROMOTE_LOAD);
}

static void promote_stop(struct pgctl *pgctl) {
    struct error error;
    pgctl->operate.restarted = true;
    session_drop(pgctl->operate.session);
    session_drop(pgctl->operate.replication);
    if (guard_signal(pgctl->guard, SIGINT, &error) == FAILED)
        operate_failed(pgctl, &error);
}

static void promote_stopped(struct pgctl *pgctl) {
    if (pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_DOWN && operate_start_alone(pgctl) == OK)
        operate_enter(pgctl, PROMOTE_RESTART);
}

static void promote_restart(struct pgctl *pgctl) { operate_ask_anew(pgctl, "SELECT 1"); }

static void promote_restarted(struct pgctl *pgctl, const PGresult *result) {
    (void)result;
    operate_enter(pgctl, PROMOTE_CHECK);
}

static void promote_restart_ended(struct pgctl *pgctl) {
    struct error error;
    if (operate_start_failed(pgctl, &error))
        operate_failed(pgctl, &error);
}

static void promote_loaded(struct pgctl *pgctl, const PGresult *result) {
    if (!is_loaded(pgctl, result))
        return;
    struct error error;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/promote", pgctl->config.data_directory);
    if (file_touch(path, &error) == FAILED || guard_signal(pgctl->guard, SIGUSR1, &error) == FAILED)
        operate_failed(pgctl, &error);
    else
        operate_enter(pgctl, PROMOTE_TRIGGER);
}

static void promote_trigger(struct pgctl *pgctl) {
    operate_ask(pgctl, "SELECT pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() THEN "
                       "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END, "
                       "CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() - '0/0' END");
}

/* Both at once: a primary on the timeline of before would be one of an epoch that has ended, and be killed. And poke:
 * the durable write may begin. */
static void tell_promoted(struct pgctl *pgctl, uint32_t timeline, uint64_t lsn) {
    pgctl->facts.server = SERVER_PRIMARY;
    pgctl->facts.position = (Position){.timeline = timeline, .lsn = lsn};
    observer_poke(pgctl);
}

static void promote_triggered(struct pgctl *pgctl, const PGresult *result) {
    struct error error;
    char path[PATH_MAX];
    if (result_bool(result, 0)) {
        operate_again(pgctl, 2);
        return;
    }
    /* Any start of it from now on is as a standby: a primary at most once an epoch. */
    snprintf(path, sizeof path, "%s/standby.signal", pgctl->config.data_directory);
    if (file_touch(path, &error) == FAILED) {
        operate_failed(pgctl, &error);
        return;
    }
    if (PQgetisnull(result, 0, 1) || PQgetisnull(result, 0, 2)) {
        operate_again(pgctl, 0); /* it changed between the columns */
        return;
    }
    uint32_t timeline = (uint32_t)strtoul(PQgetvalue(result, 0, 1), NULL, 16);
    tell_promoted(pgctl, timeline, result_number(result, 2));
    if (timeline == pgctl->operate.operation.timeline)
        operate_enter(pgctl, RULE_SENDERS);
    else
        operate_fail(pgctl, "PostgreSQL took timeline %u, not %u", timeline, pgctl->operate.operation.timeline);
}

/* ---- RULE ---- */

static void rule_begin(struct pgctl *pgctl) {
    if (operate_need_running(pgctl) == FAILED)
        return;
    if (!rule_is_sound(&pgctl->operate.operation.rule))
        operate_refuse(pgctl, "the rule asks for more acknowledgements than it has names");
    else
        operate_ask_anew(pgctl, "SELECT pg_is_in_recovery(), current_setting('synchronous_standby_names') = ''");
}

static void rule_begun(struct pgctl *pgctl, const PGresult *result) {
    bool from_empty = result_bool(result, 1), to_empty = pgctl->operate.operation.rule.needed == 0;
    if (result_bool(result, 0))
        operate_refuse(pgctl, "not a primary");
    else if (from_empty && !to_empty) {
        if (write_names(pgctl, NOBODY) == OK)
            operate_enter(pgctl, RULE_NOBODY);
    } else if (write_rule(pgctl) == OK)
        operate_enter(pgctl, RULE_WRITE);
}

/* Leaving the empty setting: backends wait only once the checkpointer has applied the switch, whatever SHOW says. A
 * commit that is seen to wait proves it. */
static void rule_nobody_loaded(struct pgctl *pgctl, const PGresult *result) {
    if (is_loaded(pgctl, result))
        operate_enter(pgctl, RULE_PROBE);
}

static void probe_commits(struct pgctl *pgctl);

/* If it was ended, by us, that may be seen before the answer to the question that did it. */
static void probe_returned(void *user, const PGresult *result, const struct error *error) {
    (void)error;
    if (result != NULL)
        probe_commits(user); /* it did not wait: not yet applied */
}

static void probe_commits(struct pgctl *pgctl) {
    session_ask(pgctl->operate.probe, "SELECT pg_logical_emit_message(true, 'ttorch', '')", 60000, probe_returned,
                pgctl);
}

static void probe_ready(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    if (result == NULL) {
        operate_failed(pgctl, error);
        return;
    }
    pgctl->operate.probe_pid = (int)result_number(result, 0);
    probe_commits(pgctl);
    operate_enter(pgctl, RULE_PROBE_WAITS);
}

static void rule_probe(struct pgctl *pgctl) {
    pgctl->operate.probe = pgctl_session(pgctl, false);
    if (pgctl->operate.probe == NULL)
        operate_fail(pgctl, "out of memory");
    else
        session_ask(pgctl->operate.probe, "SET synchronous_commit = on; SELECT pg_backend_pid()", 5000, probe_ready,
                    pgctl);
}

static void rule_probe_waits(struct pgctl *pgctl) {
    char sql[200];
    snprintf(sql, sizeof sql,
             "SELECT coalesce(bool_or(wait_event = 'SyncRep' AND pg_terminate_backend(pid)), false) "
             "FROM pg_stat_get_activity(NULL) WHERE pid = %d AND wait_event = 'SyncRep'",
             pgctl->operate.probe_pid);
    operate_ask(pgctl, sql);
}

static void rule_probe_seen(struct pgctl *pgctl, const PGresult *result) {
    if (!result_bool(result, 0)) {
        operate_again(pgctl, 2);
        return;
    }
    session_free(pgctl->operate.probe);
    pgctl->operate.probe = NULL;
    if (write_rule(pgctl) == OK)
        operate_enter(pgctl, RULE_WRITE);
}

static void rule_loaded(struct pgctl *pgctl, const PGresult *result) {
    if (is_loaded(pgctl, result))
        operate_enter(pgctl, RULE_SENDERS);
}

/* ---- every sender uses it ---- */

#define STUBBORN_LOOKS 500 /* about a second */

/* The functions below the views: these are planned in a fraction of the time. */
#define SENDERS                                                                       \
    "FROM pg_stat_get_wal_senders() s JOIN pg_stat_get_activity(NULL) a USING (pid) " \
    "WHERE s.state NOT IN ('startup', 'backup')"

/* Those that are not sending yet reload before they take a first reply. */
static void rule_senders(struct pgctl *pgctl) {
    bool stubborn = pgctl->operate.looks++ > STUBBORN_LOOKS;
    operate_ask(pgctl, stubborn ? "SELECT pid, wait_event = 'WalSenderMain' OR pg_terminate_backend(pid) " SENDERS
                                : "SELECT pid, coalesce(wait_event = 'WalSenderMain', false) " SENDERS);
}

static bool sender_waited_for(const struct operate *operate, int pid) {
    for (unsigned i = 0; i < operate->senders_count; i++)
        if (operate->senders[i] == pid)
            return true;
    return !operate->senders_known;
}

/* Keeps of those waited for (at the first look: of all) the ones that are there and have not been seen. */
static status keep_unseen(struct operate *operate, const PGresult *result) {
    int unseen[WAITED_SENDERS_MAX];
    unsigned count = 0;
    for (int row = 0; row < PQntuples(result); row++) {
        int pid = atoi(PQgetvalue(result, row, 0));
        if (PQgetvalue(result, row, 1)[0] == 't' || !sender_waited_for(operate, pid))
            continue;
        if (count == WAITED_SENDERS_MAX)
            return FAILED;
        unseen[count++] = pid;
    }
    memcpy(operate->senders, unseen, sizeof unseen[0] * count);
    operate->senders_count = count;
    operate->senders_known = true;
    return OK;
}

static void rule_senders_seen(struct pgctl *pgctl, const PGresult *result) {
    if (keep_unseen(&pgctl->operate, result) == FAILED)
        operate_fail(pgctl, "more than %d busy WAL senders", WAITED_SENDERS_MAX);
    else if (pgctl->operate.senders_count > 0)
        operate_again(pgctl, 2);
    else
        operate_enter(pgctl, RULE_END);
}

/* Commits that wait already are let go only when a standby answers, which it does for new WAL, or once a second. So
 * there is some: a commit of ours that waits for nobody. */
static void rule_end(struct pgctl *pgctl) {
    operate_ask(pgctl, "BEGIN; SET LOCAL synchronous_commit = local; "
                       "SELECT pg_logical_emit_message(true, 'ttorch', ''); COMMIT; "
                       "SELECT pg_current_wal_insert_lsn() - '0/0'");
}

static void rule_ended(struct pgctl *pgctl, const PGresult *result) {
    pgctl->operate.result.lsn = result_number(result, 0);
    operate_done(pgctl);
}

static const struct step steps[] = {
    [PROMOTE_CHECK] = {.name = "check", .enter = promote_check, .answered = promote_checked},
    [PROMOTE_IDENTIFY] = {.name = "position", .enter = promote_identify, .answered = promote_identified},
    [PROMOTE_HISTORY] = {.name = "history files", .enter = promote_history},
    [PROMOTE_STOP] = {.name = "stop, to forget a void timeline", .enter = promote_stop, .guard = promote_stopped},
    [PROMOTE_RESTART] = {"start again", promote_restart, promote_restarted, operate_try_again, NULL,
                         promote_restart_ended},
    [PROMOTE_LOAD] = {.name = "rule", .enter = ask_loaded, .answered = promote_loaded},
    [PROMOTE_TRIGGER] = {.name = "wait", .enter = promote_trigger, .answered = promote_triggered},
    [RULE_BEGIN] = {.name = "check", .enter = rule_begin, .answered = rule_begun},
    [RULE_NOBODY] = {.name = "leave the empty rule", .enter = ask_loaded, .answered = rule_nobody_loaded},
    [RULE_PROBE] = {.name = "probe", .enter = rule_probe},
    [RULE_PROBE_WAITS] = {.name = "probe waits", .enter = rule_probe_waits, .answered = rule_probe_seen},
    [RULE_WRITE] = {.name = "load", .enter = ask_loaded, .answered = rule_loaded},
    [RULE_SENDERS] = {.name = "WAL senders", .enter = rule_senders, .answered = rule_senders_seen},
    [RULE_END] = {.name = "position", .enter = rule_end, .answered = rule_ended},
};
const struct machine machine_promote = {steps, PROMOTE_CHECK, 30000};
const struct machine machine_rule = {steps, RULE_BEGIN, 30000};
