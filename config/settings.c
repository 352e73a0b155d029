#include "config/settings.h"

#include <stdio.h>
#include <string.h>

#define FIELD(name)        offsetof(struct config, name), sizeof(((struct config *)0)->name)
#define MEMBER_FIELD(name) offsetof(struct config_member, name), sizeof(((struct config_member *)0)->name)
#define KB                 1024ull
#define MB                 (1024 * KB)
#define GB                 (1024 * MB)
#define TB                 (1024 * GB)

/* A unix socket's path has at most 107 bytes, so the directories that hold one are bounded below the rest. */
#define OURS_MAX    80 /* + "/postgresql/" and the guard's socket */
#define SOCKETS_MAX 90 /* + "/ttorchd.sock" or "/.s.PGSQL.65535" */

#define ZONE_MAX (HOST_MAX_LENGTH - 53) /* "_postgresql._tcp." and a member's name stand before it */

/* clang-format off */
const struct setting settings[] = {
    {"cluster", &value_name, FIELD(cluster), .need = REQUIRED, .shared = true,
     .help = "Name of the cluster; also its name in DSNs and service files."},
    {"member", &value_name, FIELD(member), .need = REQUIRED,
     .help = "Which of the `members` this file is for. The only line that must differ from member to member."},
    {"members.*.peer", &value_address, MEMBER_FIELD(peer_host), offsetof(struct config_member, peer_port),
     .need = REQUIRED, .shared = true,
     .help = "Where this member's ttorchd listens for the others."},
    {"members.*.postgres", &value_address, MEMBER_FIELD(postgres_host), offsetof(struct config_member, postgres_port),
     .need = REQUIRED_OF_DATA, .shared = true,
     .help = "Where clients and the other members reach its PostgreSQL; PostgreSQL listens on this port. None for a witness."},
    {"members.*.witness", &value_boolean, MEMBER_FIELD(witness), .standard = "false", .shared = true,
     .help = "It votes and holds no data."},
    {"members.*.observer", &value_boolean, MEMBER_FIELD(observer), .standard = "false", .shared = true,
     .help = "It has no vote, never becomes primary, and no commit waits for it: with `postgres` a standby for readers, without "
             "it only publishes. See [Observers](#observers)."},
    {"members.*.priority", &value_integer, MEMBER_FIELD(priority), .maximum = 1000, .standard = "100", .shared = true,
     .help = "Among members that are equally complete the highest becomes primary; 0 = never."},
    {"data_directory", &value_path, FIELD(data_directory), 0, 1, OURS_MAX, "/var/lib/ttorch",
     .help = "Where ttorchd keeps its own state: the Raft log, labels, settings. Outside of PostgreSQL's."},
    {"runtime_directory", &value_path, FIELD(runtime_directory), 0, 1, SOCKETS_MAX, STANDARD_OURS,
     .help = "Where the socket `ttorchd.sock` is, on which `ttorch` finds the daemon."},
    {"http.listen", &value_host, FIELD(http_listen), .standard = "",
     .help = "Address for HTTP; `0.0.0.0` or `::` = all. Empty: only the unix socket."},
    {"http.port", &value_integer, FIELD(http_port), 0, 1, 65535, "8008",
     .help = "Port for HTTP."},
    {"http.certificate_file", &value_path, FIELD(http_certificate_file), 0, 0, PATH_MAX_LENGTH, "",
     .help = "Certificate (PEM), followed by those that lead to its CA: on that port HTTPS is spoken, and no plain HTTP. Read "
             "again at SIGHUP."},
    {"http.key_file", &value_secret_path, FIELD(http_key_file), 0, 1, PATH_MAX_LENGTH,
     .help = "File that holds the certificate's private key (PEM, without a password); mode 0600 or 0400."},
    {"http.client_ca_file", &value_path, FIELD(http_client_ca_file), 0, 0, PATH_MAX_LENGTH, "",
     .help = "Certificates of CAs (PEM): clients, too, must have a certificate, of one of these."},
    {"postgresql.data_directory", &value_path, FIELD(postgresql.data_directory), 0, 1, PATH_MAX_LENGTH,
     .need = REQUIRED_OF_DATA,
     .help = "PostgreSQL's data directory (PGDATA). Its parent must be writable: a clone is made beside it and swapped in."},
    {"postgresql.bin_directory", &value_path, FIELD(postgresql.bin_directory), 0, 1, PATH_MAX_LENGTH, STANDARD_NEWEST,
     .help = "PostgreSQL's programs. By default those in `/usr/lib/postgresql/*/bin`: of the version that the data directory "
             "has, else the newest."},
    {"postgresql.socket_directory", &value_path, FIELD(postgresql.socket_directory), 0, 1, SOCKETS_MAX,
     "/var/run/postgresql",
     .help = "Directory of PostgreSQL's unix socket."},
    {"postgresql.listen_addresses", &value_text, FIELD(postgresql.listen_addresses), 0, 1, HOST_MAX_LENGTH, "*",
     .help = "Addresses on which PostgreSQL listens, as in `postgresql.conf`."},
    {"postgresql.superuser", &value_text, FIELD(postgresql.superuser), 0, 1, 63, "postgres",
     .help = "Role as which ttorchd logs in over the unix socket."},
    {"postgresql.slot_keep", &value_size, FIELD(postgresql.slot_keep_bytes), 0, 64 * MB, 1024 * TB, "10GB",
     .at_run_time = true,
     .help = "Most WAL that is kept for a standby that is away; past it the standby is cloned anew."},
    {"postgresql.diverged_keep", &value_size, FIELD(postgresql.diverged_keep_bytes), 0, 64 * MB, TB, "1GB",
     .at_run_time = true,
     .help = "Most that is kept of WAL that left the primary's history, in `diverged/`; the oldest goes first, the newest stays."},
    {"postgresql.parameters", &value_parameters, FIELD(postgresql.all), .at_run_time = true,
     .help = "Settings of `postgresql.conf` on every duty. Those that PostgreSQL reads only at its start wait for one."},
    {"postgresql.primary_parameters", &value_parameters, FIELD(postgresql.primary), .at_run_time = true,
     .help = "More settings, or other values, while it is the primary."},
    {"postgresql.standby_parameters", &value_parameters, FIELD(postgresql.standby), .at_run_time = true,
     .help = "More settings, or other values, while it is a standby."},
    {"postgresql.hba", &value_lines, FIELD(postgresql.hba), .at_run_time = true,
     .help = "Lines of `pg_hba.conf`, put before those that ttorch needs."},
    {"replication.user", &value_text, FIELD(replication.user), 0, 1, 63, "ttorch", .shared = true,
     .help = "Role as which standbys stream; ttorch creates it."},
    {"replication.password_file", &value_secret_path, FIELD(replication.password_file), 0, 1, PATH_MAX_LENGTH,
     "/etc/ttorch/replication.password",
     .help = "File that holds this role's password in one line; mode 0600 or 0400. Not needed by a witness."},
    {"durability", &value_durability, FIELD(durability), .standard = "quorum", .shared = true,
     .help = "`quorum`: nothing acknowledged is lost by a failover; when standbys fail, fewer must acknowledge. `strict`: as "
             "that, and writes rather wait than be on one member alone. `async`: commits wait for no standby; a failover may "
             "lose up to `max_loss`."},
    {"lease", &value_duration, FIELD(lease_ms), 0, 500, 60000, "2s", .shared = true,
     .help = "How long a primary may go on without a majority; about as long a failover takes when a host is lost."},
    {"max_loss", &value_size, FIELD(max_loss_bytes), 0, 0, TB, "16MB", .shared = true,
     .help = "`async` only: no automatic failover that may lose more WAL than this."},
    {"probe.interval", &value_duration, FIELD(probe_interval_ms), 0, 100, 60000, "1s", .at_run_time = true,
     .help = "How often the primary proves with a small write that it can still write."},
    {"probe.timeout", &value_duration, FIELD(probe_timeout_ms), 0, 200, 600000, "3s", .at_run_time = true,
     .help = "A primary that answers nothing, acknowledges no write or lets no new session in for this long has failed. "
             "Longer than `probe.interval`."},
    {"watchdog", &value_watchdog, FIELD(watchdog), .standard = "off",
     .help = "The kernel's watchdog, which resets a host that hangs as primary: `off`; `automatic`: where there is one; "
             "`required`: without one this member never is primary. Taken over when PostgreSQL and its guard start anew."},
    {"watchdog_device", &value_path, FIELD(watchdog_device), 0, 1, PATH_MAX_LENGTH, "/dev/watchdog",
     .help = "Its device; the user who runs ttorchd must be able to write to it."},
    {"publish.topology_file", &value_path, FIELD(publish.topology_file), 0, 0, PATH_MAX_LENGTH,
     STANDARD_OURS "/topology.json",
     .help = "JSON file that always says who is primary; `\"\"` = none."},
    {"publish.freshness_file", &value_path, FIELD(publish.freshness_file), 0, 0, PATH_MAX_LENGTH, "",
     .help = "Small file, written every second, that says whether the others are fresh; empty = none, as for all files."},
    {"publish.env_file", &value_path, FIELD(publish.env_file), 0, 0, PATH_MAX_LENGTH, "",
     .help = "Variables for `systemd`, a shell or a container: URLs of the primary and of the replicas."},
    {"publish.env_primary", &value_variable, FIELD(publish.env_primary), 0, 0, 63, "PRODUCTION_DATABASE_URL",
     .help = "Name there of the URL that leads to the primary."},
    {"publish.env_replica", &value_variable, FIELD(publish.env_replica), 0, 1, 63, "READ_REPLICA_#_URL",
     .help = "Name there of each streaming standby's URL; `#` is its number, from 1."},
    {"publish.env_pool", &value_variable, FIELD(publish.env_pool), 0, 0, 63, "READ_REPLICA_POOL_URL",
     .help = "Name there of the URL of all streaming standbys, and of the primary if none answers."},
    {"publish.service_file", &value_path, FIELD(publish.service_file), 0, 0, PATH_MAX_LENGTH, "",
     .help = "libpq's service file, with the services `rw`, `ro` and `any`."},
    {"publish.pgbouncer_file", &value_path, FIELD(publish.pgbouncer_file), 0, 0, PATH_MAX_LENGTH, "",
     .help = "Databases for PgBouncer's `%include`: the database, and the same with `-read` for the standbys."},
    {"publish.templates", &value_templates, FIELD(publish.templates),
     .help = "Files of your own: which file is made, and of which template."},
    {"publish.file_mode", &value_mode, FIELD(publish.file_mode), 0, 0400, 0777, "0644",
     .help = "Mode of all these files, but for those of `publish.file_access`."},
    {"publish.file_owner", &value_text, FIELD(publish.file_owner), 0, 0, 127, "",
     .help = "Their owner, `user` or `user:group`; empty: who runs ttorchd. Only root can give files away."},
    {"publish.file_access", &value_accesses, FIELD(publish.file_access),
     .help = "Another mode, and perhaps owner, for one of these files: its path, and `MODE` or `MODE OWNER`."},
    {"publish.database", &value_text, FIELD(publish.database), 0, 1, 63, "postgres",
     .help = "Database in the URLs and services."},
    {"publish.user", &value_text, FIELD(publish.user), 0, 0, 63, "",
     .help = "Role in the URLs and services; empty: the client says who it is. Passwords never stand there."},
    {"publish.options", &value_options, FIELD(publish.options), 0, 0, 255, "connect_timeout=3",
     .help = "More of libpq's parameters in the URLs and services, such as `connect_timeout=3 sslmode=require`."},
    {"publish.libpq", &value_integer, FIELD(publish.libpq), 0, 10, 99, "14",
     .help = "Oldest libpq among the clients: from 14 on `prefer-standby` is used, from 16 on `load_balance_hosts`."},
    {"publish.hook", &value_path, FIELD(publish.hook), 0, 0, PATH_MAX_LENGTH, "",
     .help = "Program that is run after each change, with the topology on stdin and in its environment."},
    {"publish.hook_timeout", &value_duration, FIELD(publish.hook_timeout_ms), 0, 100, 600000, "10s",
     .help = "After this it is killed, and run again later."},
    {"publish.health.lag_warning", &value_duration, FIELD(publish.health.lag_warning_ms), 0, 1, 86400000, "5s",
     .help = "`/v1/health`: a standby that lags more is a warning."},
    {"publish.health.lag_critical", &value_duration, FIELD(publish.health.lag_critical_ms), 0, 1, 86400000, "30s",
     .help = "A standby that lags more is critical."},
    {"publish.health.response_warning", &value_duration, FIELD(publish.health.response_warning_ms), 0, 1, 60000, "100ms",
     .help = "A PostgreSQL that answers later is a warning."},
    {"publish.health.response_critical", &value_duration, FIELD(publish.health.response_critical_ms), 0, 1, 60000, "500ms",
     .help = "A PostgreSQL that answers later is critical."},
    {"pgbouncer.poolers", &value_poolers, FIELD(pgbouncer.poolers),
     .help = "PgBouncers that hold their clients back during a switchover and are led to the new primary: names of your choice, "
             "and their addresses. The same on all members. See [POOLERS](POOLERS.md)."},
    {"pgbouncer.user", &value_text, FIELD(pgbouncer.user), 0, 1, 63, "pgbouncer",
     .help = "Role as which ttorchd logs in to their consoles: one of their `admin_users`."},
    {"pgbouncer.password_file", &value_secret_path, FIELD(pgbouncer.password_file), 0, 1, PATH_MAX_LENGTH,
     .help = "File that holds this role's password in one line; mode 0600 or 0400."},
    {"pgbouncer.databases", &value_databases, FIELD(pgbouncer.databases), 0, 0, 511, "",
     .help = "Their databases that lead to the primary. Empty: that of `publish.database`."},
    {"pgbouncer.pause", &value_duration, FIELD(pgbouncer.pause_ms), 0, 100, 10000, "3s",
     .help = "How long a switchover waits for transactions under way; what takes longer is broken off."},
    {"pgbouncer.hold", &value_duration, FIELD(pgbouncer.hold_ms), 0, 1000, 600000, "15s",
     .help = "How long clients are held back at most, primary or not. Longer than `pgbouncer.pause`."},
    {"dns.zone", &value_domain, FIELD(dns.zone), 0, 0, ZONE_MAX, "",
     .help = "Domain under which `primary`, `standbys`, `any` and the members' names stand, such as `db.example.org`. "
             "See [DNS](DNS.md)."},
    {"dns.listen", &value_addresses, FIELD(dns.listen), 0, 0, 511, "",
     .help = "Addresses on which DNS queries for the zone are answered. Empty: none are."},
    {"dns.port", &value_integer, FIELD(dns.port), 0, 1, 65535, "53",
     .help = "Port for DNS, UDP and TCP."},
    {"dns.ns", &value_domain, FIELD(dns.ns), 0, 0, HOST_MAX_LENGTH, "",
     .help = "Name server that the zone names as its own. By default each member's name is one."},
    {"dns.ttl", &value_duration, FIELD(dns.ttl_ms), 0, 1000, 3600000, "1s",
     .help = "How long an answer may be kept. Whole seconds: rounded up."},
    {"dns.max_lag", &value_size, FIELD(dns.max_lag_bytes), 0, 0, TB, "16MB",
     .help = "A standby that is further behind is not among the `standbys`."},
    {"dns.rate_limit", &value_integer, FIELD(dns.rate_limit), 0, 0, 1000000, "5000",
     .help = "Answers a second over UDP to one network (/24 of IPv4, /56 of IPv6); 0 = no limit."},
    {"dns.update.server", &value_address, FIELD(dns.update.server_host), offsetof(struct config, dns.update.server_port),
     .help = "Name server that is sent updates (RFC 2136), by its address: `10.0.0.53:53`. None: no updates."},
    {"dns.update.zone", &value_domain, FIELD(dns.update.zone), 0, 0, HOST_MAX_LENGTH, "",
     .help = "Zone at that server in which `dns.zone` lies. By default `dns.zone` itself."},
    {"dns.update.key_name", &value_domain, FIELD(dns.update.key_name), 0, 0, HOST_MAX_LENGTH, "",
     .help = "Name of the TSIG key with which updates are signed."},
    {"dns.update.key_file", &value_secret_path, FIELD(dns.update.key_file), 0, 1, PATH_MAX_LENGTH,
     .help = "File that holds this key's secret, in base64, in one line; mode 0600 or 0400."},
    {"dns.update.algorithm", &value_tsig, FIELD(dns.update.algorithm), .standard = "hmac-sha256",
     .help = "Algorithm of the key: `hmac-sha256` or `hmac-sha512`."},
    {"dns.update.ttl", &value_duration, FIELD(dns.update.ttl_ms), 0, 1000, 3600000, "1s",
     .help = "How long the server's answers may be kept."},
};
/* clang-format on */
const unsigned settings_count = sizeof settings / sizeof settings[0];

const struct setting *setting_find(const char *path) {
    for (unsigned i = 0; i < settings_count; i++)
        if (strcmp(settings[i].path, path) == 0)
            return &settings[i];
    return NULL;
}

bool setting_is_section(const char *path) {
    size_t length = strlen(path);
    for (unsigned i = 0; i < settings_count; i++)
        if (strncmp(settings[i].path, path, length) == 0 && settings[i].path[length] == '.')
            return true;
    return false;
}

bool setting_of_members(const struct setting *setting) { return strncmp(setting->path, "members.*.", 10) == 0; }

void *setting_base(const struct setting *setting, struct config *config, unsigned member) {
    return setting_of_members(setting) ? (void *)&config->members[member] : (void *)config;
}

const char *setting_key(const struct setting *setting, const char *member, char *buffer, size_t size) {
    if (setting_of_members(setting))
        snprintf(buffer, size, "members.%s.%s", member, setting->path + strlen("members.*."));
    else
        snprintf(buffer, size, "%s", setting->path);
    return buffer;
}

/* The part of row i's path that is a key of the section `prefix`; false if it does not lie in it. */
static bool key_in_section(unsigned i, const char *prefix, char key[KEY_TEXT_MAX]) {
    const char *path = settings[i].path;
    if (strncmp(path, prefix, strlen(prefix)) != 0)
        return false;
    path += strlen(prefix);
    snprintf(key, KEY_TEXT_MAX, "%.*s", (int)strcspn(path, "."), path);
    return true;
}

void setting_names(const char *prefix, char *buffer, size_t size) {
    char key[KEY_TEXT_MAX], last[KEY_TEXT_MAX] = "";
    size_t length = 0;
    buffer[0] = '\0';
    for (unsigned i = 0; i < settings_count; i++) {
        if (!key_in_section(i, prefix, key) || strcmp(key, last) == 0)
            continue;
        memcpy(last, key, sizeof last);
        if (length < size)
            length += (size_t)snprintf(buffer + length, size - length, "%s%s", length == 0 ? "" : ", ", key);
    }
}

/* Levenshtein's; keys longer than any of ours are far from all of them. */
static unsigned edit_distance(const char *a, const char *b) {
    size_t length_a = strlen(a), length_b = strlen(b);
    unsigned row[KEY_TEXT_MAX + 1];
    if (length_a >= KEY_TEXT_MAX || length_b >= KEY_TEXT_MAX)
        return KEY_TEXT_MAX;
    for (unsigned j = 0; j <= length_b; j++)
        row[j] = j;
    for (unsigned i = 1; i <= length_a; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= length_b; j++) {
            unsigned changed = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = changed < shorter ? changed : shorter;
        }
    }
    return row[length_b];
}

/* A setting of another section that has this very name. */
static const char *same_name_elsewhere(const char *key) {
    for (unsigned i = 0; i < settings_count; i++) {
        const char *dot = strrchr(settings[i].path, '.');
        if (dot != NULL && strcmp(dot + 1, key) == 0 && !setting_of_members(&settings[i]))
            return settings[i].path;
    }
    return NULL;
}

/* The key of `prefix`'s section that is nearest to `key`, into `best`; false if none is near. */
static bool nearest_in_section(const char *prefix, const char *key, char best[KEY_TEXT_MAX]) {
    size_t near = strlen(key) / 3 > 2 ? strlen(key) / 3 + 1 : 3; /* must be less */
    char candidate[KEY_TEXT_MAX];
    best[0] = '\0';
    for (unsigned i = 0; i < settings_count; i++) {
        if (!key_in_section(i, prefix, candidate))
            continue;
        unsigned distance = edit_distance(key, candidate);
        if (distance >= near || distance >= strlen(candidate))
            continue;
        near = distance;
        memcpy(best, candidate, KEY_TEXT_MAX);
    }
    return best[0] != '\0';
}

bool setting_nearest(const char *prefix, const char *key, char *buffer, size_t size) {
    char best[KEY_TEXT_MAX];
    const struct setting *whole = setting_find(key); /* somebody wrote the path */
    const char *elsewhere = whole != NULL ? whole->path : same_name_elsewhere(key);
    const char *dot = elsewhere != NULL ? strrchr(elsewhere, '.') : NULL;
    if (dot != NULL)
        snprintf(buffer, size, "\"%s\" in the section \"%.*s\"", dot + 1, (int)(dot - elsewhere), elsewhere);
    else if (elsewhere != NULL)
        snprintf(buffer, size, "\"%s\" at the top level", elsewhere);
    else if (nearest_in_section(prefix, key, best))
        snprintf(buffer, size, "\"%s\"", best);
    else
        return false;
    return true;
}

/* ---- comparison ---- */

static void compare_setting(const struct setting *setting, const struct config *before, unsigned i,
                            const struct config *after, unsigned j, config_change *changed, void *user) {
    char key[KEY_TEXT_MAX], text_before[VALUE_TEXT_MAX], text_after[VALUE_TEXT_MAX];
    const void *base_before = setting_base(setting, (struct config *)before, i);
    const void *base_after = setting_base(setting, (struct config *)after, j);
    setting->type->render(setting, base_before, text_before, sizeof text_before);
    setting->type->render(setting, base_after, text_after, sizeof text_after);
    if (strcmp(text_before, text_after) != 0)
        changed(user, setting_key(setting, before->members[i].name, key, sizeof key), text_before, text_after,
                setting->at_run_time);
}

static int member_named(const struct config *config, const char *name) {
    for (unsigned i = 0; i < config->members_count; i++)
        if (strcmp(config->members[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* Tells of the members of `config` that `other` lacks. */
static void compare_names(const struct config *config, const struct config *other, const char *before,
                          const char *after, config_change *changed, void *user) {
    for (unsigned i = 0; i < config->members_count; i++) {
        char key[KEY_TEXT_MAX];
        if (member_named(other, config->members[i].name) >= 0)
            continue;
        snprintf(key, sizeof key, "members.%s", config->members[i].name);
        changed(user, key, before, after, false);
    }
}

void config_compare(const struct config *before, const struct config *after, config_change *changed, void *user) {
    compare_names(before, after, "a member", "none", changed, user);
    compare_names(after, before, "none", "a member", changed, user);
    for (unsigned s = 0; s < settings_count; s++) {
        if (!setting_of_members(&settings[s])) {
            compare_setting(&settings[s], before, 0, after, 0, changed, user);
            continue;
        }
        for (unsigned i = 0; i < before->members_count; i++) {
            int j = member_named(after, before->members[i].name);
            if (j >= 0)
                compare_setting(&settings[s], before, i, after, (unsigned)j, changed, user);
        }
    }
}

void config_take_over(struct config *running, const struct config *reloaded) {
    for (unsigned i = 0; i < settings_count; i++)
        if (settings[i].at_run_time) /* none of them is of the members */
            memcpy((char *)running + settings[i].offset, (const char *)reloaded + settings[i].offset, settings[i].size);
    running->postgresql.hba_count = reloaded->postgresql.hba_count;
}

/* ---- the manual's table ---- */

static void standard_words(const struct setting *setting, char *text, size_t size) {
    if (setting->need == REQUIRED)
        snprintf(text, size, "required");
    else if (setting->need == REQUIRED_OF_DATA)
        snprintf(text, size,
                 setting_of_members(setting) ? "required, but not of a witness or an observer"
                                             : "required if it has a PostgreSQL");
    else if (setting->standard == NULL)
        snprintf(text, size, "none");
    else if (strcmp(setting->standard, STANDARD_NEWEST) == 0)
        snprintf(text, size, "found");
    else if (setting->standard[0] == '\0')
        snprintf(text, size, "`\"\"`");
    else
        snprintf(text, size, "`%s`", setting->standard);
}

void config_print_table(void) {
    printf("| setting | type | default | bounds | same on all members | at run time | meaning |\n");
    printf("|---|---|---|---|---|---|---|\n");
    for (unsigned i = 0; i < settings_count; i++) {
        const struct setting *setting = &settings[i];
        char key[KEY_TEXT_MAX], standard[128], bounds[128];
        standard_words(setting, standard, sizeof standard);
        setting->type->bounds(setting, bounds, sizeof bounds);
        printf("| `%s` | %s | %s | %s | %s | %s | %s |\n", setting_key(setting, "NAME", key, sizeof key),
               setting->type->name, standard, bounds, setting->shared ? "yes" : "", setting->at_run_time ? "yes" : "",
               setting->help);
    }
}
