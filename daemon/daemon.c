#include "daemon/daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/panic.h"
#include "systemd/notify.h"

#define HEARTBEAT_MS    100
#define ELECTION_MS     300
#define FEEDS_PER_LEASE 4 /* an observer is fresh for 7/8 of a lease: one question may stay without its answer */
#define LEAVE_DEADLINE  msec(30000) /* SIGTERM: after this the daemon ends, whatever is still under way */

/* ---- the loop ---- */

static void step(struct daemon *daemon, const struct event *event) {
    /* Two clocks readings of one loop turn may come out of order by the width of a callback. */
    struct event ordered = *event;
    if (ordered.now < daemon->core.now)
        ordered.now = daemon->core.now;
    core_step(&daemon->core, &ordered, &daemon->actions);
    driver_run(daemon, &daemon->actions);
}

static void on_wake(uv_timer_t *timer) {
    struct daemon *daemon = timer->data;
    inbox_add(&daemon->inbox, EVENT_TICK);
}

static void sleep_until(struct daemon *daemon, nsec at) {
    if (at == NSEC_NEVER) {
        uv_timer_stop(&daemon->wake);
        return;
    }
    nsec now = time_now();
    uv_update_time(daemon->loop);
    uv_timer_start(&daemon->wake, on_wake, at > now ? (at - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC : 0, 0);
}

static void drain(struct daemon *daemon) {
    struct inbox_item *item;
    if (daemon->ending || inbox_is_empty(&daemon->inbox))
        return;
    record_hold(daemon->record);
    while (!daemon->ending && (item = inbox_take(&daemon->inbox)) != NULL) {
        step(daemon, &item->event);
        free(item);
    }
    record_release(daemon->record);
    if (daemon->ending)
        return;
    sleep_until(daemon, daemon->core.wake_at);
    upkeep_refresh(daemon);
    publish_changed(daemon->publish);
    if (daemon->dns != NULL)
        dns_changed(daemon->dns);
    if (daemon->poolers != NULL)
        poolers_changed(daemon->poolers);
}

static void rejoin_if_asked(struct daemon *daemon) {
    if (daemon->rejoin_asked && !daemon->ending)
        daemon_again(daemon, AFTERWARDS_REJOIN, "begins anew with an empty record, as an operator asked");
}

static void on_prepare(uv_prepare_t *handle) { drain(handle->data); }
static void on_check(uv_check_t *handle) {
    drain(handle->data);
    rejoin_if_asked(handle->data);
}

/* ---- the end ---- */

static void on_part_closed(void *user) {
    struct daemon *daemon = user;
    require(daemon->closing > 0);
    if (--daemon->closing == 0)
        uv_stop(daemon->loop);
}

void daemon_end(struct daemon *daemon, bool keep, int exit_status, const char *why) {
    if (daemon->ending)
        return;
    daemon->ending = true;
    daemon->exit_status = exit_status;
    if (daemon->afterwards == AFTERWARDS_EXIT) {
        log_line(exit_status == 0 ? LOG_LEVEL_NOTICE : LOG_LEVEL_ERROR, "ends: %s", why);
        notify_stopping();
    }
    daemon->closing = 1; /* ourselves, so that parts which close at once do not stop the loop too early */
    if (daemon->publish != NULL) {
        daemon->closing++;
        publish_close(daemon->publish, on_part_closed, daemon);
    }
    if (daemon->dns != NULL) {
        daemon->closing++;
        dns_close(daemon->dns, on_part_closed, daemon);
        daemon->dns = NULL;
    }
    if (daemon->poolers != NULL) {
        daemon->closing++;
        poolers_close(daemon->poolers, !keep, on_part_closed, daemon);
        daemon->poolers = NULL;
    }
    if (daemon->record != NULL) {
        daemon->closing++;
        if (daemon->core.leader)
            record_step_aside(daemon->record, NULL);
        record_close(daemon->record, on_part_closed, daemon);
    }
    if (daemon->pgctl != NULL) {
        daemon->closing++;
        pgctl_close(daemon->pgctl, keep, on_part_closed, daemon);
    }
    on_part_closed(daemon);
}

void daemon_again(struct daemon *daemon, enum afterwards afterwards, const char *why) {
    if (daemon->ending)
        return;
    log_warning("%s", why);
    daemon->afterwards = afterwards;
    (void)error_set(&daemon->refused, "%s", why);
    daemon_end(daemon, true, 0, why);
}

/* ---- signals and the watchdog ---- */

static void reload_complaint(void *user, const char *line) {
    (void)user;
    log_error("%s", line);
}

static void log_change(void *user, const char *key, const char *before, const char *after, bool at_run_time) {
    (void)user;
    if (at_run_time)
        log_notice("%s: %s -> %s", key, before, after);
    else
        log_warning("%s: %s -> %s is not taken over while ttorchd runs", key, before, after);
}

static status reload_postgresql(struct daemon *daemon, const struct config *config, struct error *error);

static void reload(struct daemon *daemon) {
    notify_reloading();
    publish_reload(daemon->publish);
    struct config *config = calloc(1, sizeof *config);
    struct error error;
    if (config == NULL || config_load(config, daemon->config->file, reload_complaint, daemon) != OK) {
        log_error("the configuration was not reloaded");
        free(config);
    } else if (reload_postgresql(daemon, config, &error) != OK) {
        log_error("the configuration was not reloaded: %s", error.text);
        free(config);
    } else {
        config_compare(daemon->config, config, log_change, daemon);
        config_take_over(daemon->config, config);
        daemon->core.config.probe_timeout_ms = daemon->config->probe_timeout_ms;
        log_notice("the configuration was reloaded");
        free(config);
    }
    notify_ready();
}

static void on_signal(uv_signal_t *handle, int number) {
    struct daemon *daemon = handle->data;
    if (number == SIGHUP) {
        reload(daemon);
    } else if (number == SIGUSR1) {
        daemon_end(daemon, true, 0, "told to leave PostgreSQL to its guard (SIGUSR1)");
    } else if (daemon->stopping_since == 0) {
        log_notice("told to stop: hands over first");
        daemon->stopping_since = time_now();
        inbox_add(&daemon->inbox, EVENT_STOP);
    }
}

static void on_watchdog(uv_timer_t *timer) {
    struct daemon *daemon = timer->data;
    char line[160];
    face_status_line(daemon, line, sizeof line);
    notify_status(line);
    notify_watchdog();
    memory_tick(daemon, time_now());
    if (daemon->stopping_since != 0 && time_now() > daemon->stopping_since + LEAVE_DEADLINE)
        daemon_end(daemon, false, 1, "could not hand over in time");
}

/* ---- building it all ---- */

static status make_directory(const char *path, struct error *error) {
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return error_set(error, "could not create %s: %s", path, strerror(errno));
    return OK;
}

/* Beside ttorchd when installed; in the build tree, where meson puts it. */
static status find_guard(char *buffer, size_t size, struct error *error) {
    char self[PATH_MAX_LENGTH + 1];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        return error_set(error, "could not read /proc/self/exe: %s", strerror(errno));
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    require(slash != NULL);
    *slash = '\0';
    static const char *const places[] = {"/ttorch-guard", "/../pgctl/ttorch-guard"};
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(buffer, size, "%s%s", self, places[i]);
        if (access(buffer, X_OK) == 0)
            return OK;
    }
    return error_set(error, "there is no ttorch-guard in %s: is the installation complete?", self);
}

static unsigned parameters(const struct config_parameters *from, struct pgctl_parameter *to) {
    for (unsigned i = 0; i < from->count; i++)
        to[i] = (struct pgctl_parameter){from->list[i].name, from->list[i].value};
    return from->count;
}

/* Everything pgctl_config points at; it copies what it keeps. */
struct pgctl_arguments {
    struct pgctl_config config;
    struct pgctl_parameter all[CONFIG_LIST_MAX], primary[CONFIG_LIST_MAX], standby[CONFIG_LIST_MAX];
    const char *hba[CONFIG_LIST_MAX];
    char guard[PATH_MAX_LENGTH + 32];
    char state[PATH_MAX_LENGTH + 32];
};

static status pgctl_arguments(const struct config *config, struct pgctl_arguments *to, struct error *error) {
    if (find_guard(to->guard, sizeof to->guard, error) != OK)
        return FAILED;
    snprintf(to->state, sizeof to->state, "%s/postgresql", config->data_directory);
    for (unsigned i = 0; i < config->postgresql.hba_count; i++)
        to->hba[i] = config->postgresql.hba[i];
    to->config = (struct pgctl_config){
        .member = config->member,
        .bin_directory = config->postgresql.bin_directory,
        .data_directory = config->postgresql.data_directory,
        .state_directory = to->state,
        .guard_program = to->guard,
        .listen_addresses = config->postgresql.listen_addresses,
        .port = config->postgresql.port,
        .socket_directory = config->postgresql.socket_directory,
        .superuser = config->postgresql.superuser,
        .replication_user = config->replication.user,
        .password_file = config->replication.password_file,
        .parameters_all = to->all,
        .parameters_all_count = parameters(&config->postgresql.all, to->all),
        .parameters_primary = to->primary,
        .parameters_primary_count = parameters(&config->postgresql.primary, to->primary),
        .parameters_standby = to->standby,
        .parameters_standby_count = parameters(&config->postgresql.standby, to->standby),
        .hba_lines = to->hba,
        .hba_lines_count = config->postgresql.hba_count,
        .slot_keep_bytes = config->postgresql.slot_keep_bytes,
        .diverged_keep_bytes = config->postgresql.diverged_keep_bytes,
        .watchdog = config_watchdog_words[config->watchdog],
        .watchdog_device = config->watchdog_device,
        .watchdog_s = (config->lease_ms + 999) / 1000 + 1,
        .probe_interval_ms = config->probe_interval_ms,
    };
    return OK;
}

static status open_pgctl(struct daemon *daemon, struct error *error) {
    if (!config_member_has_data(&daemon->config->members[daemon->config->self]))
        return OK;
    struct pgctl_arguments *arguments = calloc(1, sizeof *arguments);
    if (arguments == NULL)
        return error_set(error, "out of memory");
    status result = pgctl_arguments(daemon->config, arguments, error);
    if (result == OK)
        result = make_directory(arguments->state, error);
    if (result == OK)
        result = pgctl_open(&daemon->pgctl, daemon->loop, &arguments->config, &daemon_pgctl_callbacks, daemon, error);
    free(arguments);
    return result == OK ? OK : error_prefix(error, "postgresql");
}

static status reload_postgresql(struct daemon *daemon, const struct config *config, struct error *error) {
    if (daemon->pgctl == NULL)
        return OK;
    struct pgctl_arguments *arguments = calloc(1, sizeof *arguments);
    if (arguments == NULL)
        return error_set(error, "out of memory");
    status result = pgctl_arguments(config, arguments, error);
    if (result == OK)
        result = pgctl_reload(daemon->pgctl, &arguments->config, error);
    free(arguments);
    return result;
}

static void record_directory(const struct config *config, char *buffer, size_t size) {
    snprintf(buffer, size, "%s/raft", config->data_directory);
}

static status open_record(struct daemon *daemon, struct error *error) {
    const struct config *config = daemon->config;
    char directory[PATH_MAX_LENGTH + 32];
    record_directory(config, directory, sizeof directory);
    for (unsigned i = 0; i < config->members_count; i++) {
        snprintf(daemon->peers[i].name, sizeof daemon->peers[i].name, "%s", config->members[i].name);
        snprintf(daemon->peers[i].host, sizeof daemon->peers[i].host, "%s", config->members[i].peer_host);
        daemon->peers[i].port = config->members[i].peer_port;
        daemon->peers[i].observer = config->members[i].observer;
    }
    _Static_assert(sizeof(struct record_shared_line) == sizeof(struct config_shared_line), "one and the same layout");
    struct record_config record = {
        .directory = directory,
        .cluster_name = config->cluster,
        .self = config->self,
        .peers = daemon->peers,
        .peers_count = config->members_count,
        .shared = (const struct record_shared_line *)config->shared,
        .shared_count = config->shared_count,
        .heartbeat_ms = HEARTBEAT_MS,
        .election_ms = ELECTION_MS,
        .freshness_ms = config->lease_ms / FEEDS_PER_LEASE,
        .refused = daemon->refused.text[0] != '\0' ? daemon->refused.text : NULL,
    };
    if (record_open(&daemon->record, daemon->loop, &record, &daemon_record_callbacks, daemon, error) != OK)
        return error_prefix(error, "record");
    return OK;
}

static void publish_lists(const struct config *config, struct publish_config *to) {
    _Static_assert(PUBLISH_TEMPLATES_MAX >= CONFIG_TEMPLATE_MAX, "all that the file may name");
    to->templates_count = config->publish.templates.count;
    to->accesses_count = config->publish.file_access.count;
    for (unsigned i = 0; i < to->templates_count; i++)
        to->templates[i] = (struct publish_template){.target = config->publish.templates.list[i].target,
                                                     .source = config->publish.templates.list[i].source};
    _Static_assert(PUBLISH_ACCESSES_MAX >= CONFIG_ACCESS_MAX, "all that the file may name");
    for (unsigned i = 0; i < to->accesses_count; i++) {
        const struct config_access *from = &config->publish.file_access.list[i];
        to->accesses[i] = (struct publish_access){.path = from->path, .mode = from->mode, .owner = from->owner};
    }
}

static status open_publish(struct daemon *daemon, struct error *error) {
    char socket_path[PATH_MAX_LENGTH + 32];
    config_socket_path(daemon->config, socket_path, sizeof socket_path);
    const struct config *config = daemon->config;
    struct publish_config publish = {
        .socket_path = socket_path,
        .http_listen = config->http_listen,
        .http_port = config->http_port,
        .http_certificate_file = config->http_certificate_file,
        .http_key_file = config->http_key_file,
        .http_client_ca_file = config->http_client_ca_file,
        .topology_file = config->publish.topology_file,
        .freshness_file = config->publish.freshness_file,
        .env_file = config->publish.env_file,
        .env_primary = config->publish.env_primary,
        .env_replica = config->publish.env_replica,
        .env_pool = config->publish.env_pool,
        .service_file = config->publish.service_file,
        .pgbouncer_file = config->publish.pgbouncer_file,
        .file_mode = config->publish.file_mode,
        .file_owner = config->publish.file_owner,
        .database = config->publish.database,
        .user = config->publish.user,
        .options = config->publish.options,
        .libpq = config->publish.libpq,
        .hook = config->publish.hook,
        .hook_timeout_ms = config->publish.hook_timeout_ms,
        .health = {config->publish.health.lag_warning_ms, config->publish.health.lag_critical_ms,
                   config->publish.health.response_warning_ms, config->publish.health.response_critical_ms},
    };
    publish_lists(config, &publish);
    if (publish_open(&daemon->publish, daemon->loop, &publish, &daemon_publish_callbacks, daemon, error) != OK)
        return error_prefix(error, "publish");
    return OK;
}

static status open_dns(struct daemon *daemon, struct error *error) {
    const struct config *config = daemon->config;
    const struct dns_callbacks callbacks = {face_fill, daemon_publish_callbacks.notice};
    struct dns_config dns = {
        .zone = config->dns.zone,
        .ttl_ms = config->dns.ttl_ms,
        .max_lag_bytes = config->dns.max_lag_bytes,
        .listen = config->dns.listen,
        .port = config->dns.port,
        .ns = config->dns.ns,
        .rate_limit = config->dns.rate_limit,
        .update = {.server = config->dns.update.server_host,
                   .port = config->dns.update.server_port,
                   .zone = config->dns.update.zone,
                   .key_name = config->dns.update.key_name,
                   .key_file = config->dns.update.key_file,
                   .algorithm = config->dns.update.algorithm == CONFIG_HMAC_SHA512 ? "hmac-sha512" : "hmac-sha256",
                   .ttl_ms = config->dns.update.ttl_ms,
                   .number = config->self},
    };
    if (dns.zone[0] == '\0')
        return OK;
    if (dns_open(&daemon->dns, daemon->loop, &dns, &callbacks, daemon, error) != OK)
        return error_prefix(error, "dns");
    return OK;
}

static status open_poolers(struct daemon *daemon, struct error *error) {
    const struct config *config = daemon->config;
    const struct poolers_callbacks callbacks = {face_fill, daemon_publish_callbacks.notice};
    struct poolers_config poolers = {
        .count = config->pgbouncer.poolers.count,
        .user = config->pgbouncer.user,
        .password_file = config->pgbouncer.password_file,
        .databases = config->pgbouncer.databases,
        .database = config->publish.database,
        .pause_ms = config->pgbouncer.pause_ms,
        .hold_ms = config->pgbouncer.hold_ms,
    };
    _Static_assert(POOLERS_MAX >= CONFIG_POOLER_MAX, "all that the file may name");
    for (unsigned i = 0; i < poolers.count; i++) {
        const struct config_pooler *from = &config->pgbouncer.poolers.list[i];
        poolers.list[i] = (struct pooler_place){.name = from->name, .host = from->host, .port = from->port};
    }
    if (poolers.count == 0)
        return OK;
    if (poolers_open(&daemon->poolers, daemon->loop, &poolers, &callbacks, daemon, error) != OK)
        return error_prefix(error, "pgbouncer");
    return OK;
}

static void start_core(struct daemon *daemon) {
    struct record_status record;
    record_status(daemon->record, &record);
    struct core_config core = {
        .raft_id = record.raft_id,
        .start_count = record.start_count,
        .probe_timeout_ms = daemon->config->probe_timeout_ms,
        .poolers = daemon->config->pgbouncer.poolers.count > 0,
    };
    snprintf(core.name, sizeof core.name, "%s", daemon->config->member);
    core_init(&daemon->core, &core, time_now());
}

static void tell_damage(const struct daemon *daemon) {
    struct record_status record;
    record_status(daemon->record, &record);
    if (record.lost)
        log_error("acts on nothing: %s", record.waiting);
}

static void start_handles(struct daemon *daemon) {
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    uv_prepare_init(daemon->loop, &daemon->before_poll);
    uv_check_init(daemon->loop, &daemon->after_poll);
    uv_timer_init(daemon->loop, &daemon->wake);
    uv_timer_init(daemon->loop, &daemon->watchdog);
    uv_timer_init(daemon->loop, &daemon->found_again);
    daemon->before_poll.data = daemon->after_poll.data = daemon->wake.data = daemon;
    daemon->watchdog.data = daemon->found_again.data = daemon;
    uv_prepare_start(&daemon->before_poll, on_prepare);
    uv_check_start(&daemon->after_poll, on_check);
    nsec interval = notify_watchdog_interval();
    uint64_t watchdog_ms = interval != 0 && interval < NSEC_PER_SEC ? interval / NSEC_PER_MSEC : 1000;
    uv_timer_start(&daemon->watchdog, on_watchdog, watchdog_ms, watchdog_ms);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uv_signal_init(daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        uv_signal_start(&daemon->signals[i], on_signal, numbers[i]);
    }
}

static void close_handles(struct daemon *daemon) {
    uv_close((uv_handle_t *)&daemon->before_poll, NULL);
    uv_close((uv_handle_t *)&daemon->after_poll, NULL);
    uv_close((uv_handle_t *)&daemon->wake, NULL);
    uv_close((uv_handle_t *)&daemon->watchdog, NULL);
    uv_close((uv_handle_t *)&daemon->found_again, NULL);
    for (unsigned i = 0; i < sizeof daemon->signals / sizeof *daemon->signals; i++)
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
    uv_run(daemon->loop, UV_RUN_DEFAULT);
    struct inbox_item *item;
    while ((item = inbox_take(&daemon->inbox)) != NULL)
        free(item);
}

static status open_parts(struct daemon *daemon, struct error *error) {
    if (make_directory(daemon->config->data_directory, error) != OK ||
        make_directory(daemon->config->runtime_directory, error) != OK)
        return FAILED;
    if (open_record(daemon, error) != OK)
        return FAILED;
    start_core(daemon);
    tell_damage(daemon);
    if (open_pgctl(daemon, error) != OK)
        return FAILED;
    if (open_publish(daemon, error) != OK)
        return FAILED;
    if (open_dns(daemon, error) != OK)
        return FAILED;
    return open_poolers(daemon, error);
}

/* One life, up to its end. */
static enum afterwards live(struct config *config, struct error *refused, int *ret_exit_status) {
    struct daemon *daemon = calloc(1, sizeof *daemon);
    require(daemon != NULL);
    uv_loop_t loop;
    require(uv_loop_init(&loop) == 0);
    daemon->loop = &loop;
    daemon->config = config;
    daemon->refused = *refused;
    inbox_init(&daemon->inbox);
    start_handles(daemon);
    struct error error;
    if (open_parts(daemon, &error) != OK)
        daemon_end(daemon, true, 1, error.text);
    else {
        log_notice("ttorchd %s runs as member %s of cluster %s", TTORCH_VERSION, config->member, config->cluster);
        notify_ready();
        publish_changed(daemon->publish);
        inbox_add(&daemon->inbox, EVENT_TICK);
    }
    if (daemon->closing > 0 || !daemon->ending)
        uv_run(&loop, UV_RUN_DEFAULT);
    close_handles(daemon);
    uv_loop_close(&loop);
    enum afterwards afterwards = daemon->afterwards;
    *ret_exit_status = daemon->exit_status;
    *refused = daemon->refused;
    free(daemon);
    return afterwards;
}

int daemon_run(struct config *config) {
    struct error refused = {""};
    char directory[PATH_MAX_LENGTH + 32];
    int exit_status;
    enum afterwards afterwards;
    record_directory(config, directory, sizeof directory);
    while ((afterwards = live(config, &refused, &exit_status)) != AFTERWARDS_EXIT) {
        if (afterwards == AFTERWARDS_REJOIN && record_reset(directory, &refused) == OK)
            refused.text[0] = '\0';
    }
    free(config);
    return exit_status;
}
