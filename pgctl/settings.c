#include "pgctl/settings.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgctl/file.h"

#define MARK        "# ttorch: managed line"
#define BLOCK_BEGIN "# ttorch: begin"
#define BLOCK_END   "# ttorch: end"

/* What the user may set otherwise. */
static const struct pgctl_parameter defaults[] = {
    {"wal_level", "replica"},
    {"max_wal_senders", "48"},
    {"max_replication_slots", "48"},
    {"wal_retrieve_retry_interval", "20ms"}, /* else a standby may sit out 5 s before it sees a trigger or a primary */
    {"wal_receiver_timeout", "5s"},
    {"wal_receiver_status_interval", "1s"},
    {"wal_sender_timeout", "5s"},
    {"superuser_reserved_connections", "8"}, /* ours: four that stay, and what an operation needs */
    {"hot_standby_feedback", "off"},
    {"recovery_init_sync_method", "syncfs"}, /* after a crash; else it takes seconds for a thousand files */
    {"logging_collector", "off"},            /* the guard's log file has it all, and tells why a start failed */
    {"log_destination", "stderr"},
};

/* On these data safety hangs: whatever the user or postgresql.auto.conf says, ours win. The rest of ours is written
 * from the state; NULL marks those. */
static const struct pgctl_parameter forced[] = {
    {"data_directory", NULL}, /* that of Debian's files, when they are copied into it */
    {"hba_file", NULL},
    {"ident_file", NULL},
    {"listen_addresses", NULL},
    {"port", NULL},
    {"unix_socket_directories", NULL},
    {"max_slot_wal_keep_size", NULL},
    {"primary_conninfo", NULL},
    {"primary_slot_name", NULL},
    {"synchronous_standby_names", NULL},
    {"hot_standby", "on"},
    {"wal_log_hints", "on"}, /* pg_rewind */
    {"restart_after_crash", "off"},
    {"fsync", "on"},
    {"synchronous_commit", "on"},
    {"restore_command", ""},
    {"recovery_target_timeline", "latest"},
    {"recovery_target", ""},
    {"recovery_target_lsn", ""},
    {"recovery_target_name", ""},
    {"recovery_target_time", ""},
    {"recovery_target_xid", ""},
    {"recovery_min_apply_delay", "0"},
};

static bool is_forced(const char *name) {
    for (size_t i = 0; i < sizeof forced / sizeof *forced; i++)
        if (strcasecmp(forced[i].name, name) == 0)
            return true;
    return false;
}

/* ---- the state ---- */

void settings_of_nobody(struct settings *settings) {
    *settings = (struct settings){.synchronous_standby_names = NOBODY};
}

void slot_name(char *ret_name, const char *member) {
    snprintf(ret_name, SLOT_NAME_MAX, "ttorch_%s", member);
    for (char *at = ret_name; *at != '\0'; at++)
        *at = isalnum((unsigned char)*at) ? (char)tolower((unsigned char)*at) : '_';
}

/* ` name='value'` with the quoting of libpq. */
static void conninfo_add(FILE *out, const char *name, const char *value) {
    fprintf(out, "%s%s='", ftell(out) > 0 ? " " : "", name);
    for (; *value != '\0'; value++)
        fprintf(out, "%s%c", *value == '\'' || *value == '\\' ? "\\" : "", *value);
    fputc('\'', out);
}

void settings_conninfo(char *ret_conninfo, size_t size, const struct pgctl_config *config, const char *pgpass,
                       const struct upstream *upstream, const char *name, const char *database) {
    char port[12];
    FILE *out = fmemopen(ret_conninfo, size, "w");
    ret_conninfo[0] = '\0';
    if (out == NULL)
        return;
    snprintf(port, sizeof port, "%u", upstream->port);
    conninfo_add(out, "host", upstream->host);
    conninfo_add(out, "port", port);
    conninfo_add(out, "user", config->replication_user);
    conninfo_add(out, "passfile", pgpass);
    if (name != NULL)
        conninfo_add(out, "application_name", name);
    if (database != NULL)
        conninfo_add(out, "dbname", database);
    fputs(" connect_timeout=2 keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=5000", out);
    fclose(out);
}

void settings_follow(struct settings *settings, const struct pgctl_config *config, const char *pgpass,
                     const struct upstream *upstream, const char *name) {
    settings_of_nobody(settings);
    settings_conninfo(settings->primary_conninfo, sizeof settings->primary_conninfo, config, pgpass, upstream, name,
                      NULL);
    slot_name(settings->primary_slot_name, config->member);
}

void settings_rule(char *ret_names, size_t size, const struct rule_setting *rule) {
    size_t length = 0;
    ret_names[0] = '\0';
    if (rule->needed == 0)
        return;
    if (rule->names_count == 0) {
        snprintf(ret_names, size, "%s", NOBODY);
        return;
    }
    length += (size_t)snprintf(ret_names, size, "ANY %u (", rule->needed);
    for (unsigned i = 0; i < rule->names_count && length < size; i++)
        length += (size_t)snprintf(ret_names + length, size - length, "%s\"%s\"", i > 0 ? ", " : "", rule->names[i]);
    if (length < size)
        snprintf(ret_names + length, size - length, ")");
}

/* ---- our settings file ---- */

static void setting(FILE *out, const char *name, const char *value) {
    fprintf(out, "%s = '", name);
    for (; *value != '\0'; value++)
        fprintf(out, "%s%c", *value == '\'' ? "'" : *value == '\\' ? "\\" : "", *value);
    fputs("'\n", out);
}

static void users_parameters(FILE *out, const struct pgctl_parameter *parameters, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (!is_forced(parameters[i].name))
            setting(out, parameters[i].name, parameters[i].value);
}

static void forced_parameters(FILE *out, const struct settings *settings, const struct pgctl_config *config) {
    char number[24], path[PATH_MAX + 32];
    setting(out, "data_directory", config->data_directory);
    snprintf(path, sizeof path, "%s/pg_hba.conf", config->data_directory);
    setting(out, "hba_file", path);
    snprintf(path, sizeof path, "%s/pg_ident.conf", config->data_directory);
    setting(out, "ident_file", path);
    setting(out, "listen_addresses", config->listen_addresses);
    snprintf(number, sizeof number, "%u", config->port);
    setting(out, "port", number);
    setting(out, "unix_socket_directories", config->socket_directory);
    snprintf(number, sizeof number, "%lluMB", (unsigned long long)(config->slot_keep_bytes >> 20));
    setting(out, "max_slot_wal_keep_size", config->slot_keep_bytes > 0 ? number : "-1");
    setting(out, "primary_conninfo", settings->primary_conninfo);
    setting(out, "primary_slot_name", settings->primary_slot_name);
    setting(out, "synchronous_standby_names", settings->synchronous_standby_names);
    for (size_t i = 0; i < sizeof forced / sizeof *forced; i++)
        if (forced[i].value != NULL)
            setting(out, forced[i].name, forced[i].value);
}

static const char *const minimum_names[MINIMUMS][2] = {
    /* parameter, as pg_controldata calls it */
    {"max_connections", "max_connections setting:"},
    {"max_worker_processes", "max_worker_processes setting:"},
    {"max_wal_senders", "max_wal_senders setting:"},
    {"max_prepared_transactions", "max_prepared_xacts setting:"},
    {"max_locks_per_transaction", "max_locks_per_xact setting:"},
};

void minimums_read(struct minimums *ret_minimums, const char *text) {
    for (unsigned i = 0; i < MINIMUMS; i++) {
        const char *at = strstr(text, minimum_names[i][1]);
        ret_minimums->values[i] = at != NULL ? (unsigned)strtoul(at + strlen(minimum_names[i][1]), NULL, 10) : 0;
    }
}

static unsigned configured(const struct pgctl_parameter *parameters, unsigned count, const char *name,
                           unsigned otherwise) {
    for (unsigned i = 0; i < count; i++)
        if (strcasecmp(parameters[i].name, name) == 0)
            otherwise = (unsigned)strtoul(parameters[i].value, NULL, 10);
    return otherwise;
}

static void minimum_parameters(FILE *out, const struct minimums *minimums, const struct pgctl_config *config) {
    char number[16];
    for (unsigned i = 0; i < MINIMUMS; i++) {
        unsigned ours = configured(defaults, sizeof defaults / sizeof *defaults, minimum_names[i][0], 0);
        ours = configured(config->parameters_all, config->parameters_all_count, minimum_names[i][0], ours);
        snprintf(number, sizeof number, "%u", minimums->values[i]);
        if (ours < minimums->values[i])
            setting(out, minimum_names[i][0], number);
    }
}

status settings_write(const struct settings *settings, const struct minimums *minimums, const char *path,
                      const struct pgctl_config *config, struct error *error) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return error_set(error, "out of memory");
    fprintf(out, "# Written by ttorchd; changes made here are lost. As a %s.\n",
            settings->primary ? "primary" : "standby");
    setting(out, "cluster_name", config->member);
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        setting(out, defaults[i].name, defaults[i].value);
    if (settings->primary_conninfo[0] == '\0') /* it logs a line each time; reload and trigger wake it */
        setting(out, "wal_retrieve_retry_interval", "1s");
    users_parameters(out, config->parameters_all, config->parameters_all_count);
    if (settings->primary)
        users_parameters(out, config->parameters_primary, config->parameters_primary_count);
    else
        users_parameters(out, config->parameters_standby, config->parameters_standby_count);
    minimum_parameters(out, minimums, config);
    forced_parameters(out, settings, config);
    fclose(out);
    status result = file_write(path, 0600, text, error);
    free(text);
    return result;
}

const char *settings_overridden(const struct pgctl_config *config, unsigned *index) {
    const struct pgctl_parameter *const lists[] = {config->parameters_all, config->parameters_primary,
                                                   config->parameters_standby};
    const unsigned counts[] = {config->parameters_all_count, config->parameters_primary_count,
                               config->parameters_standby_count};
    unsigned at = 0;
    for (unsigned list = 0; list < 3; list++)
        for (unsigned i = 0; i < counts[list]; i++, at++)
            if (at >= *index && is_forced(lists[list][i].name)) {
                *index = at + 1;
                return lists[list][i].name;
            }
    return NULL;
}

/* Undoes `setting`: the last line for `name`, or false. */
static bool setting_read(char *ret_value, size_t size, const char *text, const char *name) {
    size_t name_length = strlen(name), length = 0;
    bool found = false;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, name_length) != 0 || strncmp(line + name_length, " = '", 4) != 0)
            continue;
        found = true;
        length = 0;
        for (const char *at = line + name_length + 4; *at != '\0' && *at != '\n' && length + 1 < size; at++) {
            if (*at == '\'' && at[1] != '\'')
                break;
            at += *at == '\'' || *at == '\\';
            ret_value[length++] = *at;
        }
        ret_value[length] = '\0';
    }
    return found;
}

bool settings_read(struct settings *ret_settings, const char *path) {
    struct settings read = {0};
    char *text = file_read(path);
    settings_of_nobody(ret_settings);
    if (text == NULL)
        return false;
    bool complete = setting_read(read.primary_conninfo, sizeof read.primary_conninfo, text, "primary_conninfo") &&
                    setting_read(read.primary_slot_name, sizeof read.primary_slot_name, text, "primary_slot_name") &&
                    setting_read(read.synchronous_standby_names, sizeof read.synchronous_standby_names, text,
                                 "synchronous_standby_names");
    read.primary = strstr(text, " As a primary.\n") != NULL;
    free(text);
    if (complete)
        *ret_settings = read;
    return complete;
}

/* ---- PGDATA's files ---- */

static char *read_or_empty(const char *path) {
    char *text = file_read(path);
    return text == NULL && errno == ENOENT ? strdup("") : text;
}

/* Writes `parts` one after another, only if that differs from `before`. */
static status rewrite(const char *path, const char *before, const char *const parts[3], bool *changed,
                      struct error *error) {
    size_t size = strlen(parts[0]) + strlen(parts[1]) + strlen(parts[2]) + 1;
    char *text = malloc(size);
    if (text == NULL)
        return error_set(error, "out of memory");
    snprintf(text, size, "%s%s%s", parts[0], parts[1], parts[2]);
    status result = OK;
    if (strcmp(text, before) != 0) {
        result = file_write(path, 0600, text, error);
        *changed = true;
    }
    free(text);
    return result;
}

status settings_include(const char *data_directory, const char *settings_path, struct error *error) {
    char path[PATH_MAX], line[PATH_MAX + 64];
    bool changed = false;
    snprintf(path, sizeof path, "%s/postgresql.conf", data_directory);
    snprintf(line, sizeof line, "include '%s' " MARK "\n", settings_path);
    char *before = read_or_empty(path);
    char *kept = before != NULL ? text_without(before, NULL, NULL, MARK) : NULL;
    status result = error_set(error, "%s: %s", path, strerror(errno));
    if (kept != NULL) {
        size_t length = strlen(kept);
        const char *const parts[3] = {kept, length > 0 && kept[length - 1] != '\n' ? "\n" : "", line};
        result = rewrite(path, before, parts, &changed, error);
    }
    free(before);
    free(kept);
    return result;
}

static bool is_forced_line(const char *line) {
    char name[64];
    return sscanf(line, " %63[A-Za-z_0-9.]", name) == 1 && is_forced(name);
}

status settings_clean_auto(const char *data_directory, struct error *error) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/postgresql.auto.conf", data_directory);
    char *text = file_read(path);
    if (text == NULL)
        return errno == ENOENT ? OK : error_set(error, "%s: %s", path, strerror(errno));
    size_t length = 0, before = strlen(text);
    for (const char *line = text; *line != '\0';) {
        size_t line_length = strcspn(line, "\n") + (strchr(line, '\n') != NULL);
        const char *next = line + line_length;
        if (!is_forced_line(line)) {
            memmove(text + length, line, line_length);
            length += line_length;
        }
        line = next;
    }
    text[length] = '\0';
    status result = length < before ? file_write(path, 0600, text, error) : OK;
    free(text);
    return result;
}

/* ---- who may come ---- */

static void hba_host(FILE *out, const char *user, const char *host) {
    unsigned char bytes[16];
    const char *width = inet_pton(AF_INET, host, bytes) == 1    ? "/32"
                        : inet_pton(AF_INET6, host, bytes) == 1 ? "/128"
                                                                : "";
    fprintf(out, "host replication \"%s\" %s%s scram-sha-256\n", user, host, width);
    fprintf(out, "host postgres \"%s\" %s%s scram-sha-256\n", user, host, width); /* pg_rewind */
}

static char *hba_block(const struct pgctl_config *config, const struct upkeep *upkeep) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return NULL;
    fputs(BLOCK_BEGIN ": written by ttorchd, changes up to the end mark are lost\n", out);
    fprintf(out, "local all,replication \"%s\" peer map=ttorch\n", config->superuser);
    for (unsigned i = 0; i < config->hba_lines_count; i++)
        fprintf(out, "%s\n", config->hba_lines[i]);
    fprintf(out, "host replication \"%s\" samehost scram-sha-256\n", config->replication_user);
    for (unsigned i = 0; upkeep != NULL && i < upkeep->peers_count; i++)
        hba_host(out, config->replication_user, upkeep->peers[i].host);
    fputs("host replication all all reject\n" BLOCK_END "\n", out);
    fclose(out);
    return text;
}

static status put_block(const char *path, const char *block, bool *changed, struct error *error) {
    char *before = read_or_empty(path);
    char *kept = before != NULL ? text_without(before, BLOCK_BEGIN, BLOCK_END, NULL) : NULL;
    const char *const parts[3] = {block, kept, ""};
    status result =
        kept != NULL ? rewrite(path, before, parts, changed, error) : error_set(error, "%s: %s", path, strerror(errno));
    free(before);
    free(kept);
    return result;
}

static bool has_block(const char *path) {
    char *text = file_read(path);
    bool has = text != NULL && strstr(text, BLOCK_BEGIN) != NULL;
    free(text);
    return has;
}

static status put_ident(const struct pgctl_config *config, bool *changed, struct error *error) {
    char path[PATH_MAX], block[512];
    const struct passwd *us = getpwuid(geteuid());
    if (us == NULL)
        return error_set(error, "user id %u has no name", (unsigned)geteuid());
    snprintf(path, sizeof path, "%s/pg_ident.conf", config->data_directory);
    snprintf(block, sizeof block, BLOCK_BEGIN "\nttorch \"%s\" \"%s\"\n" BLOCK_END "\n", us->pw_name,
             config->superuser);
    return put_block(path, block, changed, error);
}

status settings_hba(const struct pgctl_config *config, const struct upkeep *upkeep, bool *ret_changed,
                    struct error *error) {
    char path[PATH_MAX];
    bool changed = false;
    snprintf(path, sizeof path, "%s/pg_hba.conf", config->data_directory);
    if (put_ident(config, &changed, error) == FAILED)
        return FAILED;
    if (upkeep != NULL || !has_block(path)) {
        char *block = hba_block(config, upkeep);
        status result = block != NULL ? put_block(path, block, &changed, error) : error_set(error, "out of memory");
        free(block);
        if (result == FAILED)
            return FAILED;
    }
    *ret_changed = changed;
    return OK;
}

status settings_hba_default(const char *data_directory, struct error *error) {
    char path[PATH_MAX];
    bool changed = false;
    snprintf(path, sizeof path, "%s/pg_hba.conf", data_directory);
    char *before = read_or_empty(path);
    const char *const parts[3] = {before, "\n# Clients of our own networks, with a password.\n",
                                  "host all all samenet scram-sha-256\n"};
    status result = before != NULL ? rewrite(path, before, parts, &changed, error)
                                   : error_set(error, "%s: %s", path, strerror(errno));
    free(before);
    return result;
}

/* ---- the password ---- */

status password_read(char *ret_password, const char *path, struct error *error) {
    char *text = file_read(path);
    if (text == NULL)
        return error_set(error, "%s: %s", path, strerror(errno));
    size_t length = strcspn(text, "\r\n");
    bool fits = length > 0 && length < PASSWORD_MAX;
    if (fits)
        snprintf(ret_password, PASSWORD_MAX, "%.*s", (int)length, text);
    explicit_bzero(text, strlen(text));
    free(text);
    return fits ? OK : error_set(error, "%s: the first line must be a password of 1 to 255 bytes", path);
}

status settings_pgpass(const struct pgctl_config *config, const char *path, struct error *error) {
    char password[PASSWORD_MAX], line[2 * PASSWORD_MAX + 128];
    if (password_read(password, config->password_file, error) == FAILED)
        return FAILED;
    size_t length = (size_t)snprintf(line, sizeof line - 2 * PASSWORD_MAX - 2, "*:*:*:%s:", config->replication_user);
    for (const char *at = password; *at != '\0'; at++) {
        if (*at == ':' || *at == '\\')
            line[length++] = '\\';
        line[length++] = *at;
    }
    line[length++] = '\n';
    line[length] = '\0';
    status result = file_write(path, 0600, line, error);
    explicit_bzero(line, sizeof line);
    explicit_bzero(password, sizeof password);
    return result;
}
