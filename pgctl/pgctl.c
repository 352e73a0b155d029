#include "pgctl/pgctl.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgctl/file.h"
#include "pgctl/internal.h"

/* ---- small services ---- */

void pgctl_notice(struct pgctl *pgctl, const char *format, ...) {
    char text[ERROR_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (pgctl->callbacks.notice != NULL && !pgctl->closing)
        pgctl->callbacks.notice(pgctl->user, text);
}

const char *pgctl_program(const struct pgctl *pgctl, const char *name, char *buffer) {
    snprintf(buffer, PATH_MAX, "%s/%s", pgctl->config.bin_directory, name);
    return buffer;
}

bool pgctl_server_running(const struct pgctl *pgctl) {
    return pgctl->guard_state.connected && pgctl->guard_state.server == GUARD_RUNNING;
}

struct session *pgctl_session(struct pgctl *pgctl, bool replication) {
    struct session_config config = {.host = pgctl->config.socket_directory,
                                    .port = pgctl->config.port,
                                    .user = pgctl->config.superuser,
                                    .options = pgctl->session_options,
                                    .replication = replication};
    return session_new(pgctl->loop, &config);
}

static void removed(void *user, const struct child_result *result) {
    struct pgctl *pgctl = user;
    struct error error;
    pgctl->remover = NULL;
    if (!result->cancelled && child_succeeded(result, &error) == FAILED)
        pgctl_notice(pgctl, "an old data directory was not removed: %s", error.text);
    pgctl_child_ended(pgctl);
}

void pgctl_removal(const struct pgctl *pgctl, struct removal *ret_removal) {
    const char *const leftovers[] = {pgctl->fresh_directory, pgctl->old_directory};
    const char **at = ret_removal->argv;
    struct paths *tablespaces = &ret_removal->tablespaces;
    tablespaces->count = 0;
    *at++ = "/bin/rm";
    *at++ = "-rf";
    *at++ = "--";
    for (unsigned i = 0; i < sizeof leftovers / sizeof *leftovers; i++)
        tablespaces_of_leftover(tablespaces, leftovers[i], pgctl->config.data_directory, pgctl->config.member,
                                pgctl->server_version / 10000);
    for (unsigned i = 0; i < tablespaces->count; i++) /* first: the links tell of them */
        *at++ = tablespaces->list[i];
    for (unsigned i = 0; i < sizeof leftovers / sizeof *leftovers; i++)
        *at++ = leftovers[i];
    *at = NULL;
}

void pgctl_remove_leftovers(struct pgctl *pgctl) {
    struct removal removal;
    struct child_config config = {.argv = removal.argv, .ended = removed, .user = pgctl};
    struct error error;
    bool none = !file_exists(pgctl->fresh_directory) && !file_exists(pgctl->old_directory);
    if (none || pgctl->remover != NULL)
        return;
    pgctl_removal(pgctl, &removal);
    if (child_spawn(&pgctl->remover, pgctl->loop, &config, &error) == OK)
        pgctl->children++;
    else
        pgctl_notice(pgctl, "an old data directory was not removed: %s", error.text);
    paths_free(&removal.tablespaces);
}

static void tell_overridden(struct pgctl *pgctl) {
    unsigned index = 0;
    for (const char *name; (name = settings_overridden(&pgctl->config, &index)) != NULL;)
        pgctl_notice(pgctl, "parameter %s is set by ttorch itself; the configured value is not used", name);
}

/* ---- the guard's news ---- */

static void guard_news(void *user, const struct guard_state *state) {
    struct pgctl *pgctl = user;
    struct guard_state before = pgctl->guard_state;
    pgctl->guard_state = *state;
    if (pgctl->closing)
        return;
    if (before.connected != state->connected || before.server != state->server || before.exits != state->exits) {
        upkeep_server_changed(pgctl);
        operate_server_changed(pgctl);
    }
    observer_guard_changed(pgctl, &before);
    operate_guard_changed(pgctl);
}

bool pgctl_arm(struct pgctl *pgctl, uint32_t epoch, nsec deadline) {
    struct error error;
    char *unfenced = pgctl->facts.unfenced;
    bool armed = guard_arm(pgctl->guard, epoch, deadline, &error) == OK;
    const char *why = armed ? NULL : strstr(error.text, GUARD_NO_WATCHDOG);
    if (why != NULL && unfenced[0] == '\0')
        pgctl_notice(pgctl, "no lease without a watchdog, so never primary: %s", why);
    if (armed)
        unfenced[0] = '\0';
    else if (why != NULL)
        snprintf(unfenced, sizeof pgctl->facts.unfenced, "%.*s", REASON_MAX_LENGTH, why);
    return armed;
}

/* ---- opening ---- */

static status find_programs(struct pgctl *pgctl, struct error *error) {
    static const char *const names[] = {"postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_waldump", "psql"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (access(pgctl_program(pgctl, names[i], path), X_OK) != 0)
            return error_set(error, "%s: %s", path, strerror(errno));
    if (access(pgctl->config.guard_program, X_OK) != 0)
        return error_set(error, "%s: %s", pgctl->config.guard_program, strerror(errno));
    return OK;
}

/* Waits for a program: this happens before the loop runs, and takes some milliseconds. */
static status find_version(struct pgctl *pgctl, struct error *error) {
    char path[PATH_MAX], command[PATH_MAX + 16], text[256] = "";
    snprintf(command, sizeof command, "'%s' --version", pgctl_program(pgctl, "postgres", path));
    FILE *output = popen(command, "re");
    if (output == NULL)
        return error_set(error, "%s: %s", path, strerror(errno));
    size_t length = fread(text, 1, sizeof text - 1, output);
    text[length] = '\0';
    pclose(output);
    if (version_parse(&pgctl->server_version, text, error) == FAILED)
        return error_prefix(error, "%s", path);
    pgctl->version = version_find(pgctl->server_version / 10000);
    return OK;
}

/* Role and database defaults must not change what our sessions do. */
static void make_session_options(struct pgctl *pgctl) {
    snprintf(pgctl->session_options, sizeof pgctl->session_options,
             "-c synchronous_commit=local -c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 "
             "-c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c default_transaction_read_only=off "
             "-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic "
             "-c jit=off%s",
             pgctl->version->transaction_timeout ? " -c transaction_timeout=0" : "");
}

static status make_paths(struct pgctl *pgctl, struct error *error) {
    const char *directory = pgctl->config.state_directory;
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return error_set(error, "%s: %s", directory, strerror(errno));
    if (chmod(directory, 0700) != 0)
        return error_set(error, "%s: %s", directory, strerror(errno));
    if (strlen(directory) + sizeof "/guard.sock" > sizeof pgctl->guard_socket)
        return error_set(error, "%s: too long for a socket's path", directory);
    snprintf(pgctl->label_path, PATH_MAX, "%s/label", directory);
    snprintf(pgctl->pledge_path, PATH_MAX, "%s/pledge", directory);
    snprintf(pgctl->settings_path, PATH_MAX, "%s/ttorch.conf", directory);
    snprintf(pgctl->pgpass_path, PATH_MAX, "%s/pgpass", directory);
    snprintf(pgctl->log_path, PATH_MAX, "%s/postgresql.log", directory);
    snprintf(pgctl->guard_socket, sizeof pgctl->guard_socket, "%s/guard.sock", directory);
    snprintf(pgctl->fresh_directory, PATH_MAX, "%s.new", pgctl->config.data_directory);
    snprintf(pgctl->old_directory, PATH_MAX, "%s.old", pgctl->config.data_directory);
    return OK;
}

/* A pledge that nobody knows may be of any epoch. */
static void read_pledge(struct pgctl *pgctl) {
    struct error damage;
    if (pledge_read(&pgctl->pledged, pgctl->pledge_path, &damage) == OK)
        return;
    pgctl->pledged = UINT32_MAX;
    snprintf(pgctl->pledge_damage, sizeof pgctl->pledge_damage, "%.140s", damage.text);
}

/* What an earlier run left, and nothing is changed but a swap that was cut short. */
static status read_state(struct pgctl *pgctl, struct error *error) {
    read_pledge(pgctl);
    if (datadir_finish_swap(pgctl->config.data_directory, pgctl->fresh_directory, pgctl->label_path, error) == FAILED)
        return FAILED;
    (void)settings_read(&pgctl->settings, pgctl->settings_path);
    observer_look_at_data(pgctl);
    return OK;
}

static status prepare(struct pgctl *pgctl, struct error *error) {
    if (find_programs(pgctl, error) == FAILED || find_version(pgctl, error) == FAILED ||
        make_paths(pgctl, error) == FAILED || read_state(pgctl, error) == FAILED)
        return FAILED;
    make_session_options(pgctl);
    return OK;
}

static status open_parts(struct pgctl *pgctl, struct error *error) {
    struct guard_config guard = {.program = pgctl->config.guard_program,
                                 .socket_path = pgctl->guard_socket,
                                 .data_directory = pgctl->config.data_directory,
                                 .watchdog = pgctl->config.watchdog[0] != '\0' ? pgctl->config.watchdog : NULL,
                                 .watchdog_device = pgctl->config.watchdog_device,
                                 .watchdog_s = pgctl->config.watchdog_s,
                                 .log_file = pgctl->log_path};
    operate_open(pgctl);
    if (observer_open(pgctl, error) == FAILED || upkeep_open(pgctl, error) == FAILED)
        return FAILED;
    return guard_open(&pgctl->guard, pgctl->loop, &guard, guard_news, pgctl, error);
}

static void free_pgctl(struct pgctl *pgctl) {
    diverged_forget(pgctl);
    config_free(&pgctl->config);
    free(pgctl);
}

static void first_turn(uv_timer_t *timer) {
    tell_overridden(timer->data);
    pgctl_remove_leftovers(timer->data);
}

status pgctl_open(struct pgctl **ret_pgctl, uv_loop_t *loop, const struct pgctl_config *config,
                  const struct pgctl_callbacks *callbacks, void *user, struct error *error) {
    struct pgctl *pgctl = calloc(1, sizeof *pgctl);
    if (pgctl == NULL)
        return error_set(error, "out of memory");
    pgctl->loop = loop;
    pgctl->callbacks = *callbacks;
    pgctl->user = user;
    if (config_copy(&pgctl->config, config, error) == FAILED || prepare(pgctl, error) == FAILED) {
        free_pgctl(pgctl);
        return FAILED;
    }
    uv_timer_init(loop, &pgctl->last_handle);
    pgctl->last_handle.data = pgctl;
    if (open_parts(pgctl, error) == FAILED) {
        pgctl_close(pgctl, true, NULL, NULL);
        return FAILED;
    }
    uv_timer_start(&pgctl->last_handle, first_turn, 0, 0);
    *ret_pgctl = pgctl;
    return OK;
}

/* ---- changing ---- */

status pgctl_reload(struct pgctl *pgctl, const struct pgctl_config *config, struct error *error) {
    struct pgctl_config copy;
    if (config_copy(&copy, config, error) == FAILED)
        return FAILED;
    config_free(&pgctl->config);
    pgctl->config = copy;
    tell_overridden(pgctl);
    if (settings_write(&pgctl->settings, &pgctl->minimums, pgctl->settings_path, &pgctl->config, error) == FAILED ||
        settings_pgpass(&pgctl->config, pgctl->pgpass_path, error) == FAILED ||
        upkeep_write_hba(pgctl, error) == FAILED)
        return FAILED;
    pgctl->upkeeper.login_made = false;
    pgctl->upkeeper.check_restart = true;
    upkeep_poke(pgctl);
    return pgctl_server_running(pgctl) ? guard_signal(pgctl->guard, SIGHUP, error) : OK;
}

/* ---- mending ---- */

/* Unless it is known which one it is, a rewind may have been under way: broken, and under no number, it is cloned anew.
 */
static status mend_label(struct pgctl *pgctl, uint32_t copy, struct error *error) {
    if (!pgctl->data.label_damaged)
        return OK;
    return label_write(pgctl->label_path, pgctl->config.data_directory, copy,
                       copy != 0 ? LABEL_COMPLETE : LABEL_REWINDING, error);
}

static status mend_pledge(struct pgctl *pgctl, uint32_t epoch, struct error *error) {
    if (pgctl->pledge_damage[0] == '\0')
        return OK;
    if (pledge_write(pgctl->pledge_path, epoch, error) == FAILED)
        return FAILED;
    pgctl->pledged = epoch;
    pgctl->pledge_damage[0] = '\0';
    return OK;
}

status pgctl_mend(struct pgctl *pgctl, uint32_t epoch, uint32_t copy, struct error *error) {
    if (mend_pledge(pgctl, epoch, error) == FAILED || mend_label(pgctl, copy, error) == FAILED)
        return FAILED;
    observer_look_at_data(pgctl);
    observer_poke(pgctl);
    return OK;
}

/* ---- closing: parts at once; then the guard and the children that are still to be reaped; then the last handle ----
 */

static void all_closed(uv_handle_t *handle) {
    struct pgctl *pgctl = handle->data;
    void (*closed)(void *user) = pgctl->closed;
    void *user = pgctl->closed_user;
    free_pgctl(pgctl);
    if (closed != NULL)
        closed(user);
}

static void close_when_alone(struct pgctl *pgctl) {
    if (pgctl->closing && pgctl->guard_closed && pgctl->children == 0)
        uv_close((uv_handle_t *)&pgctl->last_handle, all_closed);
}

void pgctl_child_ended(struct pgctl *pgctl) {
    pgctl->children--;
    close_when_alone(pgctl);
}

static void guard_closed(void *user) {
    struct pgctl *pgctl = user;
    pgctl->guard_closed = true;
    close_when_alone(pgctl);
}

void pgctl_close(struct pgctl *pgctl, bool keep, void (*closed)(void *user), void *user) {
    pgctl->closing = true;
    pgctl->closed = closed;
    pgctl->closed_user = user;
    uv_timer_stop(&pgctl->last_handle);
    if (pgctl->remover != NULL)
        child_cancel(pgctl->remover); /* the next opening goes on with it */
    operate_close(pgctl);
    observer_close(pgctl);
    upkeep_close(pgctl);
    if (pgctl->guard != NULL)
        guard_close(pgctl->guard, keep, guard_closed, pgctl);
    else
        guard_closed(pgctl);
}
