/* What is not said by one line alone: defaults and what is missing, settings that hang together, the files named. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/panic.h"
#include "config/loader.h"
#include "tls/tls.h"

#define PROGRAMS_PATTERN "/usr/lib/postgresql/*/bin/postgres"

static struct given *given_path(struct loader *loader, const char *path) {
    const struct setting *setting = setting_find(path);
    require(setting != NULL);
    return given(loader, setting, 0);
}

bool config_member_has_data(const struct config_member *member) {
    return !member->witness && (!member->observer || member->postgres_host[0] != '\0');
}

static bool has_no_data(const struct config *config) {
    return config->members_count > 0 && !config_member_has_data(&config->members[config->self]);
}

static bool own_member_known(const struct loader *loader) {
    return loader->config->members_count > 0 &&
           strcmp(loader->config->members[loader->config->self].name, loader->config->member) == 0;
}

/* ---- defaults ---- */

/* The default with the words replaced that stand for another setting's value; false if that is not known. */
static bool standard_text(struct loader *loader, const struct setting *setting, char *text, size_t size) {
    const char *standard = setting->standard;
    size_t ours = strlen(STANDARD_OURS);
    bool in_ours = strncmp(standard, STANDARD_OURS, ours) == 0;
    if (in_ours)
        snprintf(text, size, "%s%s", loader->config->data_directory, standard + ours);
    else
        snprintf(text, size, "%s", standard);
    return !in_ours || !given_path(loader, "data_directory")->bad;
}

/* Left empty without a PostgreSQL, and where programs are not looked for. */
static void find_programs(struct loader *loader) {
    struct config *config = loader->config;
    if (!loader->outside || !own_member_known(loader) || has_no_data(config))
        return;
    if (!programs_find(PROGRAMS_PATTERN, config->postgresql.data_directory, config->postgresql.bin_directory,
                       sizeof config->postgresql.bin_directory))
        complain(loader, (struct place){1, 1},
                 "postgresql.bin_directory: no PostgreSQL is installed in /usr/lib/postgresql: install it, or write "
                 "where its programs are, such as /usr/pgsql-15/bin");
}

static void set_standard(struct loader *loader, const struct setting *setting, unsigned member) {
    char text[PATH_MAX_LENGTH + 1];
    struct error error;
    if (setting->standard == NULL)
        return;
    if (strcmp(setting->standard, STANDARD_NEWEST) == 0) {
        find_programs(loader);
        return;
    }
    if (standard_text(loader, setting, text, sizeof text))
        require(setting->type->parse(setting, text, setting_base(setting, loader->config, member), &error) == OK);
}

static bool is_needed(struct loader *loader, const struct setting *setting, unsigned member) {
    switch (setting->need) {
    case REQUIRED:
        return true;
    case REQUIRED_OF_DATA:
        if (setting_of_members(setting)) /* what "witness: maybe" means is not known */
            return !loader->config->members[member].witness && !loader->config->members[member].observer &&
                   !given(loader, setting_find("members.*.witness"), member)->bad &&
                   !given(loader, setting_find("members.*.observer"), member)->bad;
        return own_member_known(loader) && !has_no_data(loader->config);
    default:
        return false;
    }
}

static void complete_setting(struct loader *loader, const struct setting *setting, unsigned member) {
    char key[KEY_TEXT_MAX];
    if (given(loader, setting, member)->key.line > 0 ||
        (setting_of_members(setting) && loader->section[member].line == 0))
        return;
    if (!is_needed(loader, setting, member)) {
        set_standard(loader, setting, member);
        return;
    }
    const char *name = loader->config->members[member].name;
    struct place place = setting_of_members(setting) ? loader->section[member] : (struct place){1, 1};
    complain(loader, place, "%s is missing: write %s", setting_key(setting, name, key, sizeof key),
             setting->type->expected);
}

static void complete_list(struct loader *loader, bool of_members) {
    for (unsigned i = 0; i < settings_count; i++) {
        if (setting_of_members(&settings[i]) != of_members)
            continue;
        unsigned count = of_members ? loader->config->members_count : 1;
        for (unsigned member = 0; member < count; member++)
            complete_setting(loader, &settings[i], member);
    }
}

/* ---- members ---- */

static void find_self(struct loader *loader) {
    struct config *config = loader->config;
    char names[MEMBERS_MAX * (NAME_MAX_LENGTH + 3)] = "";
    size_t length = 0;
    const struct given *own = given_path(loader, "member");
    for (unsigned i = 0; i < config->members_count; i++) {
        if (strcmp(config->members[i].name, config->member) == 0) {
            config->self = i;
            return;
        }
        length += (size_t)snprintf(names + length, sizeof names - length, "%s%s", i == 0 ? "" : ", ",
                                   config->members[i].name);
    }
    if (config->members_count > 0 && own->key.line > 0 && !own->bad)
        complain(loader, own->value, "member: \"%s\" is not in the list of members: write one of %s", config->member,
                 names);
}

struct address {
    const char *host;
    uint16_t port;
    const char *field;
    const char *member;
    struct place place;
};

static unsigned list_addresses(struct loader *loader, struct address list[2 * MEMBERS_MAX]) {
    static const char *const fields[] = {"members.*.peer", "members.*.postgres"};
    unsigned count = 0;
    for (unsigned i = 0; i < loader->config->members_count; i++) {
        const struct config_member *member = &loader->config->members[i];
        for (unsigned f = 0; f < 2; f++) {
            const struct given *place = given(loader, setting_find(fields[f]), i);
            if (place->key.line == 0 || place->bad)
                continue;
            list[count++] = (struct address){f == 0 ? member->peer_host : member->postgres_host,
                                             f == 0 ? member->peer_port : member->postgres_port,
                                             f == 0 ? "peer" : "postgres", member->name, place->value};
        }
    }
    return count;
}

static bool place_before(struct place a, struct place b) {
    return a.line != b.line ? a.line < b.line : a.column < b.column;
}

static void check_addresses(struct loader *loader) {
    struct address list[2 * MEMBERS_MAX];
    unsigned count = list_addresses(loader, list);
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < count; j++) {
            if (list[i].port != list[j].port || strcasecmp(list[i].host, list[j].host) != 0 ||
                !place_before(list[j].place, list[i].place))
                continue;
            complain(loader, list[i].place,
                     "members.%s.%s: members.%s.%s has this address, too, in line %d: write another port or host",
                     list[i].member, list[i].field, list[j].member, list[j].field, list[j].place.line);
            break;
        }
}

/* Complains at one setting of a member if it is written. */
static void complain_given(struct loader *loader, const char *field, unsigned member, const char *what) {
    const struct given *place = given(loader, setting_find(field), member);
    if (place->key.line > 0)
        complain(loader, place->key, "members.%s.%s: %s", loader->config->members[member].name,
                 field + strlen("members.*."), what);
}

static void check_member(struct loader *loader, unsigned i) {
    const struct config_member *member = &loader->config->members[i];
    if (member->observer && member->witness)
        complain_given(loader, "members.*.observer", i,
                       "a witness votes, and an observer does not: remove one of the two");
    else if (member->observer)
        complain_given(loader, "members.*.priority", i,
                       "an observer never becomes primary: remove this, or \"observer: true\"");
    if (member->witness)
        complain_given(loader, "members.*.postgres", i,
                       "a witness has no PostgreSQL: remove this, or \"witness: true\"");
}

/* Complains at the first member that is one too many. */
static void check_count(struct loader *loader, unsigned count, unsigned most, unsigned member, const char *what) {
    if (count == most + 1)
        complain(loader, loader->section[member].line > 0 ? loader->section[member] : loader->members,
                 "members: at most %u may %s, %s is one more: make it an observer%s", most, what,
                 loader->config->members[member].name, most == DATA_MEMBERS_MAX ? " without \"postgres\"" : "");
}

static void check_members(struct loader *loader) {
    const struct config *config = loader->config;
    unsigned data = 0, voters = 0, voting_data = 0;
    for (unsigned i = 0; i < config->members_count; i++) {
        const struct config_member *member = &config->members[i];
        check_member(loader, i);
        data += config_member_has_data(member);
        voters += !member->observer;
        voting_data += !member->witness && !member->observer;
        if (!member->observer)
            check_count(loader, voters, VOTERS_MAX, i, "vote");
        if (config_member_has_data(member))
            check_count(loader, data, DATA_MEMBERS_MAX, i, "hold data");
    }
    if (!loader->found_members)
        complain(loader, loader->members,
                 "members is missing: write \"members:\" and for each member a line such as "
                 "m1: {peer: 10.0.0.1:7432, postgres: 10.0.0.1:5432}");
    else if (config->members_count > 0 && voting_data == 0)
        complain(
            loader, loader->members,
            "members: at least one must hold data and vote: remove \"witness: true\" or \"observer: true\" from one");
}

/* ---- settings that hang together ---- */

static void check_longer(struct loader *loader, const char *longer, unsigned longer_ms, const char *shorter,
                         unsigned shorter_ms) {
    const struct given *place = given_path(loader, longer), *other = given_path(loader, shorter);
    if (place->bad || other->bad || longer_ms > shorter_ms)
        return;
    complain(loader, place->key.line > 0 ? place->value : other->value, "%s (%u ms) must be longer than %s (%u ms)",
             longer, longer_ms, shorter, shorter_ms);
}

static void check_needs(struct loader *loader, const char *path, const char *needed) {
    const struct given *place = given_path(loader, path), *other = given_path(loader, needed);
    if (place->key.line > 0 && !place->bad && other->key.line == 0)
        complain(loader, place->value, "%s needs %s: write that, too, or remove this", path, needed);
}

static bool path_lies_in(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return length > 0 && strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/* A clone replaces PostgreSQL's directory whole. */
static void check_directories(struct loader *loader) {
    const struct given *theirs = given_path(loader, "postgresql.data_directory");
    const struct config *config = loader->config;
    if (theirs->key.line == 0 || theirs->bad || given_path(loader, "data_directory")->bad ||
        !path_lies_in(config->data_directory, config->postgresql.data_directory))
        return;
    complain(loader, theirs->value,
             "postgresql.data_directory: ttorch's own data_directory (%s) must not lie in it: write another for one of "
             "them",
             config->data_directory);
}

/* ---- published files ---- */

static bool is_published(const struct config *config, const char *path) {
    const char *const files[] = {config->publish.topology_file, config->publish.freshness_file,
                                 config->publish.env_file, config->publish.service_file,
                                 config->publish.pgbouncer_file};
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(files[i], path) == 0)
            return true;
    for (unsigned i = 0; i < config->publish.templates.count; i++)
        if (strcmp(config->publish.templates.list[i].target, path) == 0)
            return true;
    return false;
}

static void check_accesses(struct loader *loader) {
    const struct config_accesses *accesses = &loader->config->publish.file_access;
    const struct given *place = given_path(loader, "publish.file_access");
    char found[QUOTED_MAX];
    for (unsigned i = 0; i < accesses->count && !place->bad; i++)
        if (!is_published(loader->config, accesses->list[i].path))
            complain(loader, place->value,
                     "publish.file_access: %s is none of the published files: write the path of one",
                     quoted(accesses->list[i].path, found));
}

/* ---- DNS ---- */

/* Whether `name` is `zone`, or ends with "." and it. */
static bool name_lies_in(const char *name, const char *zone) {
    size_t name_length = strlen(name), zone_length = strlen(zone);
    name_length -= name_length > 0 && name[name_length - 1] == '.';
    zone_length -= zone_length > 0 && zone[zone_length - 1] == '.';
    size_t before = name_length - zone_length;
    return name_length >= zone_length && strncasecmp(name + before, zone, zone_length) == 0 &&
           (before == 0 || name[before - 1] == '.');
}

/* Answers would lead in a circle: we know no address for it. */
static void check_dns_hosts(struct loader *loader) {
    const struct config *config = loader->config;
    for (unsigned i = 0; i < config->members_count; i++)
        if (config->dns.zone[0] != '\0' && name_lies_in(config->members[i].postgres_host, config->dns.zone))
            complain(loader, given(loader, setting_find("members.*.postgres"), i)->value,
                     "members.%s.postgres: lies in dns.zone, whose names are made from this: write its address, or a "
                     "name from elsewhere",
                     config->members[i].name);
}

static void check_dns_update(struct loader *loader) {
    const struct given *server = given_path(loader, "dns.update.server"), *zone = given_path(loader, "dns.update.zone");
    const struct config *config = loader->config;
    unsigned char address[16]; /* of IPv6 */
    if (server->key.line > 0 && !server->bad && inet_pton(AF_INET, config->dns.update.server_host, address) != 1 &&
        inet_pton(AF_INET6, config->dns.update.server_host, address) != 1)
        complain(loader, server->value,
                 "dns.update.server: expected an address such as 10.0.0.53:53, as a name would need DNS first");
    if (zone->key.line > 0 && !zone->bad && !given_path(loader, "dns.zone")->bad &&
        !name_lies_in(config->dns.zone, config->dns.update.zone))
        complain(loader, zone->value, "dns.update.zone: dns.zone (%s) does not lie in it", config->dns.zone);
}

static void check_dns(struct loader *loader) {
    check_needs(loader, "dns.listen", "dns.zone");
    check_needs(loader, "dns.update.server", "dns.zone");
    check_needs(loader, "dns.update.server", "dns.update.key_name");
    check_needs(loader, "dns.update.server", "dns.update.key_file");
    check_dns_hosts(loader);
    check_dns_update(loader);
}

/* ---- files that hold a secret ---- */

static const struct secret {
    const char *name;
    off_t most;
} a_password = {"the password", SECRET_BYTES_MAX}, a_private_key = {"the key", TLS_FILE_BYTES_MAX};

static status check_secret(const struct secret *secret, const char *path, struct error *error) {
    struct stat info;
    char first = '\n';
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return errno == ENOENT
                   ? error_set(error, "cannot be read (%s): write %s there, mode 0600", strerror(errno), secret->name)
                   : error_set(error, "cannot be read (%s): make it belong to the user that runs ttorchd, mode 0600",
                               strerror(errno));
    bool seen = fstat(file, &info) == 0;
    bool regular = seen && S_ISREG(info.st_mode);
    ssize_t got = regular ? read(file, &first, 1) : 0;
    close(file);
    if (!regular)
        return error_set(error, "is no regular file: write %s into one", secret->name);
    if ((info.st_mode & 07177) != 0)
        return error_set(error, "has mode %04o, so that others may read it: chmod 0600", info.st_mode & 07777u);
    if (info.st_uid != 0 && geteuid() != 0 && info.st_uid != geteuid())
        return error_set(error, "belongs to another user: it must be root's or the daemon's");
    if (got != 1 || first == '\n' || first == '\r')
        return error_set(error, "is empty, or its first line is: write %s there", secret->name);
    if (info.st_size > secret->most)
        return error_set(error, "has more than %lld bytes: it holds %s and nothing else", (long long)secret->most,
                         secret->name);
    return OK;
}

/* A witness needs none, but one that is named must be good. */
static void check_password_file(struct loader *loader) {
    const struct given *place = given_path(loader, "replication.password_file");
    const char *path = loader->config->replication.password_file;
    struct error error;
    char found[QUOTED_MAX];
    bool given_here = place->key.line > 0;
    if (!loader->outside || place->bad || (!given_here && (!own_member_known(loader) || has_no_data(loader->config))))
        return;
    if (check_secret(&a_password, path, &error) != OK)
        complain(loader, place->value, "replication.password_file: %s %s%s", quoted(path, found), error.text,
                 given_here ? "" : ", or name another file");
}

/* One that is not needed, but good if it is named. */
static void check_secret_file(struct loader *loader, const struct secret *secret, const char *setting,
                              const char *path) {
    struct given *place = given_path(loader, setting);
    struct error error;
    char found[QUOTED_MAX];
    if (!loader->outside || place->key.line == 0 || place->bad || check_secret(secret, path, &error) == OK)
        return;
    complain(loader, place->value, "%s: %s %s", setting, quoted(path, found), error.text);
    place->bad = true;
}

/* ---- HTTPS ---- */

static const char *const tls_settings[TLS_PARTS] = {
    [TLS_CERTIFICATE] = "http.certificate_file", [TLS_KEY] = "http.key_file", [TLS_CLIENT_CA] = "http.client_ca_file"};

static void check_tls_files(struct loader *loader) {
    const struct config *config = loader->config;
    const struct tls_files files = {{[TLS_CERTIFICATE] = config->http_certificate_file,
                                     [TLS_KEY] = config->http_key_file,
                                     [TLS_CLIENT_CA] = config->http_client_ca_file}};
    enum tls_part part;
    struct tls *tls;
    struct error error;
    char found[QUOTED_MAX];
    if (tls_load(&tls, &files, &part, &error) == OK)
        tls_leave(tls);
    else
        complain(loader, given_path(loader, tls_settings[part])->value, "%s: %s %s", tls_settings[part],
                 quoted(files.paths[part], found), error.text);
}

static void check_tls(struct loader *loader) {
    bool good = loader->outside && loader->config->http_certificate_file[0] != '\0';
    check_needs(loader, "http.certificate_file", "http.key_file");
    check_needs(loader, "http.key_file", "http.certificate_file");
    check_needs(loader, "http.client_ca_file", "http.certificate_file");
    check_secret_file(loader, &a_private_key, "http.key_file", loader->config->http_key_file);
    for (unsigned i = 0; i < TLS_PARTS; i++)
        good &= !given_path(loader, tls_settings[i])->bad;
    if (good && loader->config->http_key_file[0] != '\0')
        check_tls_files(loader);
}

/* Members first: what else is needed hangs on whether we are a witness. */
void complete(struct loader *loader) {
    complete_list(loader, true);
    find_self(loader);
    complete_list(loader, false);
}

void check(struct loader *loader) {
    const struct config *config = loader->config;
    check_members(loader);
    check_addresses(loader);
    check_longer(loader, "probe.timeout", config->probe_timeout_ms, "probe.interval", config->probe_interval_ms);
    check_longer(loader, "pgbouncer.hold", config->pgbouncer.hold_ms, "pgbouncer.pause", config->pgbouncer.pause_ms);
    check_directories(loader);
    check_accesses(loader);
    check_dns(loader);
    check_password_file(loader);
    check_secret_file(loader, &a_password, "dns.update.key_file", config->dns.update.key_file);
    check_secret_file(loader, &a_password, "pgbouncer.password_file", config->pgbouncer.password_file);
    check_tls(loader);
}
