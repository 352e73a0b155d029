#include "publish/forms.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- whom to name ---- */

static bool streams(const struct face *face, const Member *member) {
    return face->fresh && !member->witness && strcmp(face_member_state(face, member), "streaming") == 0;
}

static void add(struct hosts *hosts, const Member *member) {
    if (member != NULL && hosts->count < DATA_MEMBERS_MAX)
        hosts->list[hosts->count++] = member;
}

struct hosts hosts_one(const Member *member) {
    struct hosts hosts = {0};
    add(&hosts, member);
    return hosts;
}

struct hosts hosts_all(const struct face *face) {
    const Member *primary = face_shown_primary(face);
    struct hosts hosts = hosts_one(primary);
    for (unsigned i = 0; i < face->topology->members_count; i++)
        if (&face->topology->members[i] != primary && !face->topology->members[i].witness)
            add(&hosts, &face->topology->members[i]);
    return hosts;
}

struct hosts hosts_standbys(const struct face *face) {
    struct hosts hosts = {0};
    for (unsigned i = 0; i < face->topology->members_count; i++)
        if (streams(face, &face->topology->members[i]))
            add(&hosts, &face->topology->members[i]);
    return hosts;
}

struct hosts hosts_readers(const struct face *face) {
    struct hosts hosts = hosts_standbys(face);
    add(&hosts, face_shown_primary(face));
    return hosts.count > 0 ? hosts : hosts_all(face);
}

/* ---- libpq's parameters ---- */

typedef void parameter_printer(FILE *out, const char *key, const char *value);

/* Those that the operator wants in every form. */
static void each_option(const struct form *form, FILE *out, parameter_printer *print) {
    char options[256], *rest = options;
    snprintf(options, sizeof options, "%s", form->config->options);
    for (char *option; (option = strsep(&rest, " ")) != NULL;) {
        char *value = strchr(option, '=');
        if (value == NULL)
            continue;
        *value++ = '\0';
        print(out, option, value);
    }
}

/* What `libpq` must be told to end where the session wants to be, as pairs of key and value. */
static void each_parameter(const struct form *form, const struct hosts *hosts, enum target_session session, FILE *out,
                           parameter_printer *print) {
    static const char *const sessions[] = {[SESSION_ANY] = "any", "read-write", "prefer-standby"};
    unsigned libpq = form->config->libpq;
    bool knows = session == SESSION_WRITE || (session == SESSION_READ && libpq >= 14);
    if (knows && hosts->count > 1)
        print(out, "target_session_attrs", sessions[session]);
    if (session != SESSION_WRITE && hosts->count > 1 && libpq >= 16)
        print(out, "load_balance_hosts", "random");
    each_option(form, out, print);
}

/* ---- URLs ---- */

static void print_encoded(FILE *out, const char *text) {
    for (; *text != '\0'; text++)
        fprintf(out, isalnum((unsigned char)*text) || strchr("-_.~:,/", *text) != NULL ? "%c" : "%%%02X",
                (unsigned char)*text);
}

static void print_host(FILE *out, const Member *member) {
    fprintf(out, strchr(member->postgres_host, ':') != NULL ? "[%s]" : "%s", member->postgres_host);
}

static void print_url_parameter(FILE *out, const char *key, const char *value) {
    fprintf(out, "&%s=", key);
    print_encoded(out, value);
}

static void print_place(FILE *out, const struct form *form, const struct hosts *hosts) {
    for (unsigned i = 0; i < hosts->count; i++) {
        fputs(i > 0 ? "," : "", out);
        print_host(out, hosts->list[i]);
        fprintf(out, ":%" PRIu32, hosts->list[i]->postgres_port);
    }
    fputc('/', out);
    print_encoded(out, form->config->database);
}

void print_url(FILE *out, const struct form *form, const struct hosts *hosts, enum target_session session) {
    fputs("postgresql://", out);
    if (form->config->user[0] != '\0') {
        print_encoded(out, form->config->user);
        fputc('@', out);
    }
    print_place(out, form, hosts);
    char *parameters = NULL;
    size_t length = 0;
    FILE *list = open_memstream(&parameters, &length);
    if (list == NULL)
        return;
    each_parameter(form, hosts, session, list, print_url_parameter);
    fclose(list);
    if (length > 0)
        fprintf(out, "?%s", parameters + 1);
    free(parameters);
}

/* pgjdbc passes over those that it does not know. */
static void print_jdbc_parameter(FILE *out, const char *key, const char *value) {
    static const struct {
        const char *libpq, *jdbc;
    } names[] = {{"connect_timeout", "connectTimeout"},
                 {"application_name", "ApplicationName"},
                 {"channel_binding", "channelBinding"},
                 {"gssencmode", "gssEncMode"}};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(key, names[i].libpq) == 0)
            key = names[i].jdbc;
    print_url_parameter(out, key, value);
}

void print_jdbc_url(FILE *out, const struct form *form, const struct hosts *hosts, enum target_session session) {
    static const char *const sessions[] = {[SESSION_ANY] = "targetServerType=any",
                                           "targetServerType=primary",
                                           "targetServerType=preferSecondary&loadBalanceHosts=true"};
    if (hosts->count == 0)
        return;
    fputs("jdbc:postgresql://", out);
    print_place(out, form, hosts);
    fprintf(out, "?%s", sessions[session]);
    if (form->config->user[0] != '\0')
        print_url_parameter(out, "user", form->config->user);
    each_option(form, out, print_jdbc_parameter);
}

/* ---- the forms ---- */

static void print_head(FILE *out, const char *comment, const struct form *form) {
    const Topology *topology = form->face->topology;
    fprintf(out, "%s Written by ttorch: cluster %s, epoch %" PRIu32 ", index %" PRIu64 ". Changes here are lost.\n",
            comment, topology->cluster_name, topology->epoch, topology->index);
    if (face_shown_primary(form->face) == NULL)
        fprintf(out, "%s %s\n", comment,
                form->face->fresh ? "There is no primary at this moment."
                                  : "Not fresh: this member is not in touch with a majority.");
}

void form_topology(FILE *out, const struct form *form) {
    char *text = face_topology_json(form->face);
    fputs(text != NULL ? text : "", out);
    free(text);
}

void form_freshness(FILE *out, const struct form *form) {
    const Topology *topology = form->face->topology;
    fprintf(out, "fresh=%s\nepoch=%" PRIu32 "\nindex=%" PRIu64 "\nwritten=%" PRIu64 "\n",
            form->face->fresh ? "true" : "false", topology->epoch, topology->index, time_wall_ms() / 1000);
}

typedef void url_printer(FILE *out, const struct form *form, const struct hosts *hosts, enum target_session session);

static void print_env(FILE *out, const char *name, url_printer *print, const struct form *form,
                      const struct hosts *hosts, enum target_session session) {
    fprintf(out, "%s=\"", name);
    if (hosts->count > 0)
        print(out, form, hosts, session);
    fputs("\"\n", out);
}

/* "READ_REPLICA_#_URL" -> "READ_REPLICA_2_URL" */
static const char *numbered(const char *name, unsigned number, char *buffer, size_t size) {
    const char *sign = strchr(name, '#');
    int before = sign != NULL ? (int)(sign - name) : (int)strlen(name);
    snprintf(buffer, size, "%.*s%u%s", before, name, number, sign != NULL ? sign + 1 : "");
    return buffer;
}

void form_env(FILE *out, const struct form *form) {
    const Topology *topology = form->face->topology;
    const Member *primary = face_shown_primary(form->face);
    struct hosts all = hosts_all(form->face), standbys = hosts_standbys(form->face), read = hosts_readers(form->face);
    char name[80];
    print_head(out, "#", form);
    fprintf(out, "TTORCH_EPOCH=\"%" PRIu32 "\"\nTTORCH_INDEX=\"%" PRIu64 "\"\nTTORCH_PRIMARY=\"%s\"\n", topology->epoch,
            topology->index, primary != NULL ? primary->name : "");
    print_env(out, form->config->env_primary, print_url, form, &all, SESSION_WRITE);
    for (unsigned i = 0; i < standbys.count; i++) {
        struct hosts one = hosts_one(standbys.list[i]);
        print_env(out, numbered(form->config->env_replica, i + 1, name, sizeof name), print_url, form, &one,
                  SESSION_ANY);
    }
    print_env(out, form->config->env_pool, print_url, form, &read, SESSION_READ);
    print_env(out, "TTORCH_JDBC_WRITE_URL", print_jdbc_url, form, &all, SESSION_WRITE);
    print_env(out, "TTORCH_JDBC_READ_URL", print_jdbc_url, form, &read, SESSION_READ);
}

static void print_service_parameter(FILE *out, const char *key, const char *value) {
    fprintf(out, "%s=%s\n", key, value);
}

static void print_service(FILE *out, const char *name, const struct form *form, const struct hosts *hosts,
                          enum target_session session) {
    fprintf(out, "\n[%s]\nhost=", name);
    for (unsigned i = 0; i < hosts->count; i++)
        fprintf(out, "%s%s", i > 0 ? "," : "", hosts->list[i]->postgres_host);
    fputs("\nport=", out);
    for (unsigned i = 0; i < hosts->count; i++)
        fprintf(out, "%s%" PRIu32, i > 0 ? "," : "", hosts->list[i]->postgres_port);
    fprintf(out, "\ndbname=%s\n", form->config->database);
    if (form->config->user[0] != '\0')
        fprintf(out, "user=%s\n", form->config->user);
    each_parameter(form, hosts, session, out, print_service_parameter);
}

void form_service(FILE *out, const struct form *form) {
    struct hosts all = hosts_all(form->face), read = hosts_readers(form->face);
    print_head(out, "#", form);
    if (all.count == 0)
        return;
    print_service(out, "rw", form, &all, SESSION_WRITE);
    print_service(out, "ro", form, &read, SESSION_READ);
    print_service(out, "any", form, &all, SESSION_ANY);
}

void form_pgbouncer_name(const char *database, char *ret_name, size_t size) {
    snprintf(ret_name, size, "%s", database);
    for (char *c = ret_name; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("_.-", *c) == NULL)
            *c = '_';
}

static void print_pgbouncer_value(FILE *out, const char *value) {
    fputc('\'', out);
    for (; *value != '\0'; value++)
        fprintf(out, *value == '\'' ? "\'%c" : "%c", *value);
    fputc('\'', out);
}

/* PgBouncer takes several hosts of one database only with one port: of others, the first. */
static void print_pgbouncer(FILE *out, const char *suffix, const struct form *form, const struct hosts *hosts) {
    char name[64];
    uint32_t port = hosts->count > 0 ? hosts->list[0]->postgres_port : 5432;
    form_pgbouncer_name(form->config->database, name, sizeof name);
    fprintf(out, "%s%s = host=%s", name, suffix, hosts->count > 0 ? "" : PGBOUNCER_NOWHERE);
    for (unsigned i = 0; i < hosts->count; i++)
        if (hosts->list[i]->postgres_port == port)
            fprintf(out, "%s%s", i > 0 ? "," : "", hosts->list[i]->postgres_host);
    fprintf(out, " port=%" PRIu32 " dbname=", port);
    print_pgbouncer_value(out, form->config->database);
    fputc('\n', out);
}

void form_pgbouncer(FILE *out, const struct form *form) {
    struct hosts primary = hosts_one(face_shown_primary(form->face)), standbys = hosts_standbys(form->face);
    print_head(out, ";", form);
    fputs("[databases]\n", out);
    print_pgbouncer(out, "", form, &primary);
    print_pgbouncer(out, "-read", form, standbys.count > 0 ? &standbys : &primary);
}

char *form_text(form_printer *print, const struct form *form) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return NULL;
    print(out, form);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
