/* REWIND: a data directory whose WAL left the primary's history comes back to it. The diverged WAL is kept first.
 *
 * CHECK (-> RECOVER) (-> SOURCE) (-> COMPARE) -> KEEP -> PRUNE -> LIST -> RUN -> SYNC -> CONTROL -> START (-> END)
 *
 * COMPARE is for what the record does not know: where the histories part. It is a dry run, and takes as long as the
 * rewind, since pg_rewind fetches all that it would write.
 *
 * What pg_rewind leaves is not consistent before it has replayed WAL that the source wrote meanwhile. So it is started
 * as a standby of the source, under a name that no rule counts. Once it answers it is complete, and could be started
 * alone: what pg_rewind wrote has been synced, and what is replayed was synced by the receiver before. It goes on as
 * that standby, as one that a restarted daemon finds: before it counts it is cut, and compared with the primary's
 * history. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pgctl/file.h"
#include "pgctl/internal.h"

enum {
    REWIND_CHECK,
    REWIND_RECOVER,
    REWIND_SOURCE,
    REWIND_COMPARE,
    REWIND_KEEP,
    REWIND_PRUNE,
    REWIND_LIST,
    REWIND_RUN,
    REWIND_SYNC,
    REWIND_CONTROL,
    REWIND_START,
    REWIND_END
};

static void rewind_compare_or_keep(struct pgctl *pgctl) {
    pgctl->operate.diverged = pgctl->operate.operation.base;
    operate_enter(pgctl, pgctl->operate.diverged.lsn != 0 ? REWIND_KEEP : REWIND_COMPARE);
}

static void rewind_source_or_not(struct pgctl *pgctl) {
    if (pgctl->version->rewind_needs_checkpoint)
        operate_enter(pgctl, REWIND_SOURCE);
    else
        rewind_compare_or_keep(pgctl);
}

static void rewind_check(struct pgctl *pgctl) {
    struct control control;
    struct error error;
    char other[PATH_MAX];
    if (operate_need_down(pgctl) == FAILED)
        return;
    observer_look_at_data(pgctl);
    if (tablespaces_overlap(pgctl->config.data_directory, other))
        operate_refuse(pgctl, "a tablespace of another data directory is in the same place: %.200s", other);
    else if (pgctl->data.state != DATA_COMPLETE || pgctl->data.copy == 0)
        operate_refuse(pgctl, "the data directory is %s",
                       pgctl->data.copy == 0 ? "not labelled as ours" : data_state_name(pgctl->data.state));
    else if (control_read(&control, pgctl->config.data_directory, &error) == FAILED ||
             settings_pgpass(&pgctl->config, pgctl->pgpass_path, &error) == FAILED)
        operate_failed(pgctl, &error);
    else if (control.state == CONTROL_SHUT_DOWN || control.state == CONTROL_SHUT_DOWN_IN_RECOVERY)
        rewind_source_or_not(pgctl);
    else
        operate_enter(pgctl, REWIND_RECOVER);
}

/* pg_rewind wants a clean shutdown; a crashed instance gets one by recovering alone, which standby.signal forbids. The
 * signal file is back before any start. */
static void rewind_recover(struct pgctl *pgctl) {
    char program[PATH_MAX], path[PATH_MAX];
    const char *const argv[] = {pgctl_program(pgctl, "postgres", program),
                                "--single",
                                "-D",
                                pgctl->config.data_directory,
                                "-c",
                                "synchronous_standby_names=",
                                "-c",
                                "archive_mode=off",
                                "-c",
                                "recovery_target_timeline=current",
                                "template1",
                                NULL};
    snprintf(path, sizeof path, "%s/standby.signal", pgctl->config.data_directory);
    if (unlink(path) != 0 && errno != ENOENT)
        operate_fail(pgctl, "%s: %s", path, strerror(errno));
    else
        operate_spawn(pgctl, argv, NULL);
}

static void rewind_recovered(struct pgctl *pgctl, const struct child_result *result) {
    struct error error;
    char path[PATH_MAX];
    (void)result;
    snprintf(path, sizeof path, "%s/standby.signal", pgctl->config.data_directory);
    if (file_touch(path, &error) == FAILED)
        operate_failed(pgctl, &error);
    else
        rewind_source_or_not(pgctl);
}

/* The question with which pg_rewind lists the source's files is run once, and takes ten times as long when it is
 * compiled before. */
static void source_conninfo(const struct pgctl *pgctl, char *conninfo, size_t size) {
    settings_conninfo(conninfo, size, &pgctl->config, pgctl->pgpass_path, &pgctl->operate.operation.upstream, NULL,
                      "postgres");
    size_t length = strlen(conninfo);
    snprintf(conninfo + length, size - length, " options='-c jit=off'");
}

/* Up to 15, pg_rewind takes the source's timeline from its last checkpoint, and so finds nothing to do until the
 * first one after the promotion. In a child, as libpq would resolve the host's name by blocking. */
static void rewind_source(struct pgctl *pgctl) {
    char program[PATH_MAX], conninfo[1024];
    const char *const argv[] = {pgctl_program(pgctl, "psql", program),
                                "-XAtq",
                                "--no-password",
                                "-d",
                                conninfo,
                                "-c",
                                "SELECT CASE WHEN pg_is_in_recovery() OR (SELECT timeline_id FROM "
                                "pg_control_checkpoint()) = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, "
                                "8))::bit(32)::int THEN 'ready' ELSE 'not yet' END",
                                NULL};
    source_conninfo(pgctl, conninfo, sizeof conninfo);
    operate_spawn(pgctl, argv, NULL);
}

static void rewind_source_seen(struct pgctl *pgctl, const struct child_result *result) {
    if (strncmp(result->output, "ready", 5) == 0)
        rewind_compare_or_keep(pgctl);
    else
        operate_again(pgctl, 100);
}

static void pg_rewind(struct pgctl *pgctl, const char *option, void (*line)(void *user, const char *line)) {
    char program[PATH_MAX], conninfo[1024];
    const char *const argv[] = {pgctl_program(pgctl, "pg_rewind", program),
                                "--target-pgdata",
                                pgctl->config.data_directory,
                                "--source-server",
                                conninfo,
                                "--no-ensure-shutdown",
                                "--no-sync", /* we do */
                                option,
                                NULL};
    source_conninfo(pgctl, conninfo, sizeof conninfo);
    operate_spawn(pgctl, argv, line);
}

/* "pg_rewind: servers diverged at WAL location 0/3000060 on timeline 4" */
static void divergence_seen(void *user, const char *line) {
    struct pgctl *pgctl = user;
    const char *at = strstr(line, "diverged at WAL location ");
    unsigned high, low, timeline;
    if (at != NULL && sscanf(at, "diverged at WAL location %X/%X on timeline %u", &high, &low, &timeline) == 3)
        pgctl->operate.diverged = (Position){.timeline = timeline, .lsn = (uint64_t)high << 32 | low};
}

static void rewind_compare(struct pgctl *pgctl) { pg_rewind(pgctl, "--dry-run", divergence_seen); }

/* It goes by the last checkpoint's timeline. Promoted by hand and killed before the next one, we are on a timeline that
 * it does not see; whoever wants us rewound has seen it in our position. */
static bool sees_nothing(const struct child_result *result) {
    return strstr(result->output, "no rewind required") != NULL;
}

static void refuse_blind(struct pgctl *pgctl) {
    operate_refuse(pgctl, "pg_rewind does not see where the histories part");
}

static void rewind_compared(struct pgctl *pgctl, const struct child_result *result) {
    if (sees_nothing(result))
        refuse_blind(pgctl);
    else if (pgctl->operate.diverged.lsn == 0)
        operate_fail(pgctl, "pg_rewind did not say where the histories part");
    else
        operate_enter(pgctl, REWIND_KEEP);
}

/* ---- keeping the diverged WAL ---- */

static void rewind_keep(struct pgctl *pgctl) {
    if (diverged_is_kept(pgctl, pgctl->operate.diverged))
        operate_enter(pgctl, REWIND_RUN); /* by an attempt that failed later */
    else
        diverged_copy(pgctl, pgctl->operate.diverged);
}

static void rewind_kept(struct pgctl *pgctl, const struct child_result *result) {
    (void)result;
    operate_enter(pgctl, REWIND_PRUNE);
}

static void rewind_prune(struct pgctl *pgctl) {
    if (!diverged_prune(pgctl))
        operate_enter(pgctl, REWIND_LIST);
}

static void rewind_list(struct pgctl *pgctl) {
    if (!diverged_list(pgctl, "rewind"))
        operate_enter(pgctl, REWIND_RUN);
}

static void rewind_list_next(struct pgctl *pgctl, const struct child_result *result) {
    (void)result;
    operate_enter(pgctl, REWIND_LIST);
}

/* ---- the rewind ---- */

/* It writes nothing before it has said how much that will be. */
static void rewind_progress(void *user, const char *line) {
    struct pgctl *pgctl = user;
    unsigned long long done, all;
    if (strstr(line, "need to copy ") != NULL)
        pgctl->operate.rewriting = true;
    if (sscanf(line, " %llu/%llu kB", &done, &all) == 2 && all > 0)
        operate_progress_kb(pgctl, "rewind", done, all);
}

static status write_label(struct pgctl *pgctl, enum label_state state) {
    struct error error;
    if (label_write(pgctl->label_path, pgctl->config.data_directory, pgctl->data.copy, state, &error) == OK)
        return OK;
    operate_failed(pgctl, &error);
    return FAILED;
}

/* From here to the end nothing can start from it. */
static void rewind_run(struct pgctl *pgctl) {
    pgctl->operate.rewriting = false;
    if (write_label(pgctl, LABEL_REWINDING) == OK)
        pg_rewind(pgctl, "--progress", rewind_progress);
}

/* What was not touched still counts as what it was: its source may have gone, and it may be needed. */
static void rewind_not_begun(struct pgctl *pgctl, const struct child_result *result, const struct error *error) {
    if (write_label(pgctl, LABEL_COMPLETE) == FAILED)
        return;
    if (sees_nothing(result))
        refuse_blind(pgctl);
    else
        operate_failed(pgctl, error);
}

static void rewind_ended(struct pgctl *pgctl, const struct child_result *result) {
    struct error error = {""};
    bool succeeded = child_succeeded(result, &error) == OK;
    /* Whatever else it may say: one that succeeded and did not find that there was nothing to do has rewound. */
    if (!pgctl->operate.rewriting && (!succeeded || sees_nothing(result)))
        rewind_not_begun(pgctl, result, &error);
    else if (!succeeded)
        operate_failed(pgctl, &error);
    else
        operate_enter(pgctl, REWIND_SYNC);
}

/* All file systems that it has files on. pg_rewind would sync file by file, touched or not. */
static void rewind_sync(struct pgctl *pgctl) {
    static const char script[] = "cd \"$1\" || exit; for at in . pg_wal pg_tblspc/*; do "
                                 "[ ! -e \"$at\" ] || sync --file-system -- \"$at\" || exit; done";
    const char *const argv[] = {"/bin/sh", "-c", script, "sh", pgctl->config.data_directory, NULL};
    operate_spawn(pgctl, argv, NULL);
}

static void rewind_synced(struct pgctl *pgctl, const struct child_result *result) {
    (void)result;
    operate_enter(pgctl, REWIND_CONTROL);
}

static void rewind_control_read(struct pgctl *pgctl, const struct child_result *result) {
    struct settings settings;
    operate_control_read(pgctl, result);
    settings_follow(&settings, &pgctl->config, pgctl->pgpass_path, &pgctl->operate.operation.upstream, "ttorch_rewind");
    settings.primary_slot_name[0] = '\0'; /* what is missing is so young that the source has it */
    if (operate_start_server(pgctl, &settings) == OK)
        operate_enter(pgctl, REWIND_START);
}

static void rewind_start(struct pgctl *pgctl) { operate_ask_anew(pgctl, "SELECT 1"); }

static void rewind_start_ended(struct pgctl *pgctl) {
    struct error error;
    if (operate_start_failed(pgctl, &error))
        operate_failed(pgctl, &error);
}

/* Recovery begins before the last checkpoint that both have. The source may have removed that WAL, and pg_rewind takes
 * away what the source has not: then it would ask for it for ever. */
static void rewind_not_answering(struct pgctl *pgctl, const struct error *error) {
    if (operate_log_says(pgctl, "has already been removed"))
        operate_enter(pgctl, REWIND_END);
    else
        operate_try_again(pgctl, error);
}

static void rewind_end(struct pgctl *pgctl) {
    struct error error;
    if (guard_signal(pgctl->guard, SIGINT, &error) == FAILED)
        operate_failed(pgctl, &error);
}

static void rewind_end_seen(struct pgctl *pgctl) {
    if (pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_DOWN)
        operate_fail(pgctl, "nobody has the WAL any more with which it has to begin");
}

static void rewind_started(struct pgctl *pgctl, const PGresult *result) {
    (void)result;
    if (write_label(pgctl, LABEL_COMPLETE) == FAILED)
        return;
    diverged_tell(pgctl);
    operate_done(pgctl);
}

static const struct step steps[] = {
    [REWIND_CHECK] = {.name = "check", .enter = rewind_check},
    [REWIND_RECOVER] = {.name = "recover", .enter = rewind_recover, .ended = rewind_recovered},
    [REWIND_SOURCE] = {.name = "source", .enter = rewind_source, .ended = rewind_source_seen},
    [REWIND_COMPARE] = {.name = "compare", .enter = rewind_compare, .ended = rewind_compared},
    [REWIND_KEEP] = {.name = "keep the diverged WAL", .enter = rewind_keep, .ended = rewind_kept},
    [REWIND_PRUNE] = {.name = "prune", .enter = rewind_prune, .ended = rewind_list_next, .may_fail = true},
    [REWIND_LIST] = {.name = "list", .enter = rewind_list, .ended = rewind_list_next, .may_fail = true},
    [REWIND_RUN] = {.name = "pg_rewind", .enter = rewind_run, .ended = rewind_ended, .may_fail = true},
    [REWIND_SYNC] = {.name = "sync", .enter = rewind_sync, .ended = rewind_synced},
    [REWIND_CONTROL] = {.name = "pg_controldata",
                        .enter = operate_control,
                        .ended = rewind_control_read,
                        .may_fail = true},
    [REWIND_START] = {.name = "start",
                      .enter = rewind_start,
                      .answered = rewind_started,
                      .failed = rewind_not_answering,
                      .guard = rewind_start_ended},
    [REWIND_END] = {.name = "end", .enter = rewind_end, .guard = rewind_end_seen},
};
const struct machine machine_rewind = {steps, REWIND_CHECK, 3600000};
