/* INITDB, ADOPT, CLONE: where a data directory comes from. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pgctl/file.h"
#include "pgctl/internal.h"

enum { MAKE_CLEAN, MAKE_RUN, CLONE_KEEP, CLONE_PRUNE, CLONE_LIST, CLONE_TABLESPACES };

/* The directory that is there stays until a complete one takes its place; what did not finish is left beside it, where
 * nothing ever starts it, and is removed by the next that is made. */
static void make_clean(struct pgctl *pgctl) {
    struct removal removal;
    if (pgctl->remover != NULL)
        child_cancel(pgctl->remover);
    pgctl_removal(pgctl, &removal);
    operate_spawn(pgctl, removal.argv, NULL);
    paths_free(&removal.tablespaces);
}

static void make_cleaned(struct pgctl *pgctl, const struct child_result *result) {
    (void)result;
    operate_enter(pgctl, MAKE_RUN);
}

static void swap_in(struct pgctl *pgctl) {
    struct error error;
    if (label_write(pgctl->label_path, pgctl->fresh_directory, pgctl->operate.operation.copy, LABEL_COMPLETE, &error) ==
            FAILED ||
        datadir_swap(pgctl->config.data_directory, pgctl->fresh_directory, &error) == FAILED) {
        operate_failed(pgctl, &error);
        return;
    }
    if (rename(pgctl->fresh_directory, pgctl->old_directory) != 0 && errno != ENOENT)
        pgctl_notice(pgctl, "%s: %s", pgctl->old_directory, strerror(errno));
    pgctl_remove_leftovers(pgctl);
    diverged_tell(pgctl);
    operate_done(pgctl);
}

/* Any start of it is as a standby. */
static status make_standby(const char *data_directory, struct error *error) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/standby.signal", data_directory);
    return file_touch(path, error);
}

/* ---- INITDB: CLEAN -> RUN, then the swap ---- */

static void initdb(struct pgctl *pgctl) {
    if (operate_need_down(pgctl) == FAILED)
        return;
    observer_look_at_data(pgctl);
    if (pgctl->data.state != DATA_EMPTY)
        operate_refuse(pgctl, "the data directory is not empty");
    else
        make_clean(pgctl);
}

static void initdb_run(struct pgctl *pgctl) {
    char program[PATH_MAX];
    const char *const argv[] = {pgctl_program(pgctl, "initdb", program),
                                "--pgdata",
                                pgctl->fresh_directory,
                                "--username",
                                pgctl->config.superuser,
                                "--auth-local=peer",
                                "--auth-host=scram-sha-256",
                                "--data-checksums",
                                "--encoding=UTF8",
                                "--locale=C.UTF-8",
                                NULL};
    operate_spawn(pgctl, argv, NULL);
}

static void initdb_ended(struct pgctl *pgctl, const struct child_result *result) {
    struct error error;
    (void)result;
    if (settings_hba_default(pgctl->fresh_directory, &error) == FAILED ||
        make_standby(pgctl->fresh_directory, &error) == FAILED)
        operate_failed(pgctl, &error);
    else
        swap_in(pgctl);
}

static const struct step initdb_steps[] = {
    [MAKE_CLEAN] = {.name = "clean", .enter = initdb, .ended = make_cleaned},
    [MAKE_RUN] = {.name = "run", .enter = initdb_run, .ended = initdb_ended},
};
const struct machine machine_initdb = {initdb_steps, MAKE_CLEAN, 300000};

/* ---- ADOPT ---- */

/* Debian keeps them elsewhere. A cluster has one set of them, which clones take along: in the data directory. */
static bool has_settings(const struct pgctl *pgctl) {
    char settings[PATH_MAX + 32], hba[PATH_MAX + 32];
    snprintf(settings, sizeof settings, "%s/postgresql.conf", pgctl->config.data_directory);
    snprintf(hba, sizeof hba, "%s/pg_hba.conf", pgctl->config.data_directory);
    return file_exists(settings) && file_exists(hba);
}

static void adopt(struct pgctl *pgctl) {
    struct error error;
    if (operate_need_down(pgctl) == FAILED)
        return;
    observer_look_at_data(pgctl);
    if (datadir_in_use(pgctl->config.data_directory))
        operate_refuse(pgctl, "a PostgreSQL that is not ours runs in %s: stop it first", pgctl->config.data_directory);
    else if (pgctl->data.state == DATA_REFUSED)
        operate_refuse(pgctl, "%s", pgctl->data.refused);
    else if (pgctl->data.state != DATA_COMPLETE)
        operate_refuse(pgctl, "the data directory is %s", data_state_name(pgctl->data.state));
    else if (!has_settings(pgctl))
        operate_refuse(pgctl, "no postgresql.conf or pg_hba.conf in the data directory: copy all from where they are "
                              "(Debian: /etc/postgresql/...) into it");
    else if (make_standby(pgctl->config.data_directory, &error) == FAILED ||
             label_write(pgctl->label_path, pgctl->config.data_directory, pgctl->operate.operation.copy, LABEL_COMPLETE,
                         &error) == FAILED)
        operate_failed(pgctl, &error);
    else
        operate_done(pgctl);
}

static const struct step adopt_steps[] = {{.name = "check", .enter = adopt}};
const struct machine machine_adopt = {adopt_steps, 0, 60000};

/* ---- CLONE: CLEAN (-> KEEP -> PRUNE -> LIST) -> TABLESPACES -> RUN, then the swap ---- */

static void clone_begin(struct pgctl *pgctl) {
    struct error error;
    if (operate_need_down(pgctl) == FAILED)
        return;
    if (pgctl->data.state == DATA_REFUSED)
        operate_refuse(pgctl, "%s", pgctl->data.refused);
    else if (settings_pgpass(&pgctl->config, pgctl->pgpass_path, &error) == FAILED)
        operate_failed(pgctl, &error);
    else
        make_clean(pgctl);
}

static void clone_cleaned(struct pgctl *pgctl, const struct child_result *result) {
    (void)result;
    operate_enter(pgctl, CLONE_KEEP);
}

/* The rewind before it has kept it, unless it did not get that far. */
static void clone_keep(struct pgctl *pgctl) {
    Position from = pgctl->operate.operation.base;
    if (from.lsn == 0 || pgctl->diverged.told.bytes != 0 || pgctl->data.state != DATA_COMPLETE)
        operate_enter(pgctl, CLONE_TABLESPACES);
    else
        diverged_copy(pgctl, from);
}

/* A full disk must not keep the member from becoming a standby again. */
static void clone_kept(struct pgctl *pgctl, const struct child_result *result) {
    struct error error;
    if (child_succeeded(result, &error) == OK) {
        operate_enter(pgctl, CLONE_PRUNE);
        return;
    }
    pgctl_notice(pgctl, "the diverged WAL could not be kept before the clone: %s", error.text);
    diverged_forget(pgctl);
    operate_enter(pgctl, CLONE_TABLESPACES);
}

static void clone_prune(struct pgctl *pgctl) {
    if (!diverged_prune(pgctl))
        operate_enter(pgctl, CLONE_LIST);
}

static void clone_list(struct pgctl *pgctl) {
    if (!diverged_list(pgctl, "clone"))
        operate_enter(pgctl, CLONE_TABLESPACES);
}

static void clone_list_next(struct pgctl *pgctl, const struct child_result *result) {
    (void)result;
    operate_enter(pgctl, CLONE_LIST);
}

/* "  31245/7823423 kB (0%), 0/1 tablespace" */
static void clone_progress(void *user, const char *line) {
    unsigned long long done, all;
    if (sscanf(line, " %llu/%llu kB", &done, &all) == 2 && all > 0)
        operate_progress_kb(user, "clone", done, all);
}

static void clone_tablespaces(struct pgctl *pgctl) {
    char program[PATH_MAX], conninfo[1024];
    const char *const argv[] = {pgctl_program(pgctl, "psql", program),
                                "-XAtq",
                                "--no-password",
                                "-d",
                                conninfo,
                                "-c",
                                "SELECT 'locations'",
                                "-c",
                                "SELECT pg_tablespace_location(oid) FROM pg_tablespace "
                                "WHERE pg_tablespace_location(oid) LIKE '/%'",
                                NULL};
    settings_conninfo(conninfo, sizeof conninfo, &pgctl->config, pgctl->pgpass_path, &pgctl->operate.operation.upstream,
                      NULL, "postgres");
    operate_spawn(pgctl, argv, NULL);
}

static void clone_tablespaces_listed(struct pgctl *pgctl, const struct child_result *result) {
    snprintf(pgctl->operate.tablespaces, sizeof pgctl->operate.tablespaces, "%s", result->output);
    operate_enter(pgctl, MAKE_RUN);
}

static void clone_backup(struct pgctl *pgctl) {
    char program[PATH_MAX], conninfo[1024], slot[SLOT_NAME_MAX];
    const char *argv[16 + TABLESPACES_MAX];
    struct paths mappings;
    struct error error;
    slot_name(slot, pgctl->config.member);
    settings_conninfo(conninfo, sizeof conninfo, &pgctl->config, pgctl->pgpass_path, &pgctl->operate.operation.upstream,
                      NULL, NULL);
    if (tablespaces_map(&mappings, pgctl->operate.tablespaces, pgctl->config.member, pgctl->operate.operation.copy,
                        &error) == FAILED) {
        operate_failed(pgctl, &error);
        return;
    }
    const char *const fixed[] = {pgctl_program(pgctl, "pg_basebackup", program),
                                 "--pgdata",
                                 pgctl->fresh_directory,
                                 "--dbname",
                                 conninfo,
                                 "--wal-method=stream",
                                 "--checkpoint=fast",
                                 "--slot", /* the WAL from here on is kept until we stream */
                                 slot,
                                 "--progress",
                                 "--no-password"};
    unsigned count = 0;
    for (unsigned i = 0; i < sizeof fixed / sizeof *fixed; i++)
        argv[count++] = fixed[i];
    for (unsigned i = 0; i < mappings.count; i++)
        argv[count++] = mappings.list[i];
    argv[count] = NULL;
    operate_spawn(pgctl, argv, clone_progress);
    paths_free(&mappings);
}

static void clone_ended(struct pgctl *pgctl, const struct child_result *result) {
    (void)result;
    swap_in(pgctl);
}

static const struct step clone_steps[] = {
    [MAKE_CLEAN] = {.name = "clean", .enter = clone_begin, .ended = clone_cleaned},
    [CLONE_KEEP] = {.name = "keep the diverged WAL", .enter = clone_keep, .ended = clone_kept, .may_fail = true},
    [CLONE_PRUNE] = {.name = "prune", .enter = clone_prune, .ended = clone_list_next, .may_fail = true},
    [CLONE_LIST] = {.name = "list", .enter = clone_list, .ended = clone_list_next, .may_fail = true},
    [CLONE_TABLESPACES] = {.name = "tablespaces", .enter = clone_tablespaces, .ended = clone_tablespaces_listed},
    [MAKE_RUN] = {.name = "pg_basebackup", .enter = clone_backup, .ended = clone_ended},
};
const struct machine machine_clone = {clone_steps, MAKE_CLEAN, 24 * 3600 * 1000};
