/* The settings that are lists: PostgreSQL's parameters, lines of pg_hba.conf, templates, modes of files, poolers. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/loader.h"

/* What ttorch itself writes. A name that ends with "*" stands for all that begin so; `value`: only this one is refused.
 */
static const struct managed {
    const char *name, *value, *instead;
} managed[] = {
    {"primary_conninfo", NULL, "ttorch writes it: remove it"},
    {"primary_slot_name", NULL, "ttorch writes it: remove it"},
    {"synchronous_standby_names", NULL, "ttorch writes it from \"durability\": remove it"},
    {"synchronous_commit", NULL, "ttorch keeps it on: choose \"durability\", or set it in a session or for a role"},
    {"restore_command", NULL, "ttorch writes it: remove it"},
    {"recovery_target*", NULL, "it would stop a standby short of its primary: remove it"},
    {"promote_trigger_file", NULL, "only ttorch may promote: remove it"},
    {"restart_after_crash", NULL, "ttorch keeps it off, so that a crashed primary is a failover: remove it"},
    {"wal_level", "minimal", "no standby can follow that: write replica or logical"},
    {"hot_standby", NULL, "ttorch keeps it on: remove it"},
    {"listen_addresses", NULL, "write \"postgresql.listen_addresses\" instead"},
    {"port", NULL, "the port stands in the list of members, at \"postgres\": remove it"},
    {"unix_socket_directories", NULL, "write \"postgresql.socket_directory\" instead"},
    {"max_slot_wal_keep_size", NULL, "write \"postgresql.slot_keep\" instead"},
    {"data_directory", NULL, "write \"postgresql.data_directory\" instead"},
    {"hba_file", NULL, "ttorch edits pg_hba.conf in the data directory: write \"postgresql.hba\" instead"},
    {"config_file", NULL, "ttorch's settings are included by postgresql.conf in the data directory: remove it"},
    {"include*", NULL, "write the parameters themselves"},
};

static const char *managed_instead(const char *name, const char *value) {
    for (size_t i = 0; i < sizeof managed / sizeof managed[0]; i++) {
        size_t length = strlen(managed[i].name);
        bool same = managed[i].name[length - 1] == '*' ? strncasecmp(name, managed[i].name, length - 1) == 0
                                                       : strcasecmp(name, managed[i].name) == 0;
        if (same && (managed[i].value == NULL || strcasecmp(value, managed[i].value) == 0))
            return managed[i].instead;
    }
    return NULL;
}

static bool is_parameter_name(const char *name) {
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.$");
    return length > 0 && length < sizeof((struct config_parameter *)0)->name && name[length] == '\0' &&
           strchr("0123456789.$", name[0]) == NULL;
}

static bool is_one_line(const char *text) {
    for (; *text != '\0'; text++)
        if (iscntrl((unsigned char)*text) && *text != '\t')
            return false;
    return true;
}

static bool already_listed(const struct config_parameters *list, const char *name) {
    for (unsigned i = 0; i < list->count; i++)
        if (strcasecmp(list->list[i].name, name) == 0)
            return true;
    return false;
}

/* Takes one pair of a mapping into the list at `into`. */
typedef void read_entry(struct loader *loader, const struct setting *setting, void *into, const yaml_node_t *key,
                        const yaml_node_t *node);

static void read_entries(struct loader *loader, const struct setting *setting, const yaml_node_t *node, int most,
                         read_entry *read) {
    if (node_is_empty(node))
        return;
    if (node->type != YAML_MAPPING_NODE) {
        complain(loader, place_of_mark(node->start_mark), "%s: expected %s, found %s", setting->path,
                 setting->type->expected, node_kind(node));
        return;
    }
    size_t count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    for (size_t i = 0; i < count && i < ENTRIES_MAX; i++) {
        const yaml_node_pair_t *pair = &node->data.mapping.pairs.start[i];
        read(loader, setting, (char *)loader->config + setting->offset,
             yaml_document_get_node(&loader->document, pair->key),
             yaml_document_get_node(&loader->document, pair->value));
    }
    if (count > ENTRIES_MAX)
        complain(loader, place_of_mark(node->start_mark), "%s: at most %d, found %zu", setting->path, most, count);
}

static void read_parameter(struct loader *loader, const struct setting *setting, void *into, const yaml_node_t *key,
                           const yaml_node_t *node) {
    struct config_parameters *list = into;
    struct place at = place_of_mark(key->start_mark), value_at = place_of_mark(node->start_mark);
    const char *name, *value, *instead;
    char found[QUOTED_MAX];
    if (!node_text(loader, key, setting->path, "the name of a parameter", &name) ||
        !node_text(loader, node, setting->path, "a value for each parameter (\"\" if it is empty)", &value))
        return;
    struct config_parameter *parameter = &list->list[list->count];
    if (!is_parameter_name(name))
        complain(loader, at, "%s: expected the name of a parameter such as work_mem, found %s", setting->path,
                 quoted(name, found));
    else if ((instead = managed_instead(name, value)) != NULL)
        complain(loader, at, "%s: %s is not set here: %s", setting->path, name, instead);
    else if (already_listed(list, name))
        complain(loader, at, "%s: %s is here twice: remove one of them", setting->path, name);
    else if (strlen(value) >= sizeof parameter->value || !is_one_line(value))
        complain(loader, value_at, "%s: %s must be one line of at most %zu bytes", setting->path, name,
                 sizeof parameter->value - 1);
    else if (list->count == CONFIG_LIST_MAX)
        complain(loader, at, "%s: at most %d, %s is one more: remove it", setting->path, CONFIG_LIST_MAX, name);
    else {
        snprintf(parameter->name, sizeof parameter->name, "%s", name);
        snprintf(parameter->value, sizeof parameter->value, "%s", value);
        list->count++;
    }
}

static int compare_parameters(const void *a, const void *b) {
    return strcasecmp(((const struct config_parameter *)a)->name, ((const struct config_parameter *)b)->name);
}

/* Kept in the order of their names, so that moving one in the file changes nothing. */
void read_parameters(struct loader *loader, const struct setting *setting, const yaml_node_t *node) {
    struct config_parameters *list = (void *)((char *)loader->config + setting->offset);
    read_entries(loader, setting, node, CONFIG_LIST_MAX, read_parameter);
    qsort(list->list, list->count, sizeof list->list[0], compare_parameters);
}

static bool is_hba_line(const char *line) {
    static const char *const types[] = {"local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"};
    size_t length = strcspn(line, " \t");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strlen(types[i]) == length && strncmp(line, types[i], length) == 0 && line[length] != '\0')
            return true;
    return false;
}

static void read_line(struct loader *loader, const struct setting *setting, const yaml_node_t *node) {
    struct place at = place_of_mark(node->start_mark);
    struct config *config = loader->config;
    const char *line;
    char found[QUOTED_MAX];
    if (!node_text(loader, node, setting->path, "lines of pg_hba.conf", &line))
        return;
    if (strlen(line) >= sizeof config->postgresql.hba[0] || !is_one_line(line))
        complain(loader, at, "%s: each must be one line of at most %zu bytes", setting->path,
                 sizeof config->postgresql.hba[0] - 1);
    else if (!is_hba_line(line))
        complain(loader, at,
                 "%s: a line begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc, and a space; "
                 "found %s",
                 setting->path, quoted(line, found));
    else if (config->postgresql.hba_count == CONFIG_LIST_MAX)
        complain(loader, at, "%s: at most %d lines, this is one more: remove it", setting->path, CONFIG_LIST_MAX);
    else
        snprintf(config->postgresql.hba[config->postgresql.hba_count++], sizeof config->postgresql.hba[0], "%s", line);
}

void read_lines(struct loader *loader, const struct setting *setting, const yaml_node_t *node) {
    if (node_is_empty(node))
        return;
    if (node->type != YAML_SEQUENCE_NODE) {
        complain(loader, place_of_mark(node->start_mark), "%s: expected %s, found %s", setting->path,
                 setting->type->expected, node_kind(node));
        return;
    }
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    for (size_t i = 0; i < count && i < ENTRIES_MAX; i++)
        read_line(loader, setting, yaml_document_get_node(&loader->document, node->data.sequence.items.start[i]));
    if (count > ENTRIES_MAX)
        complain(loader, place_of_mark(node->start_mark), "%s: at most %d lines, found %zu", setting->path,
                 CONFIG_LIST_MAX, count);
}

static bool is_path(const char *path) { return path[0] == '/' && strlen(path) <= PATH_MAX_LENGTH && is_one_line(path); }

static bool already_made(const struct config_templates *list, const char *target) {
    for (unsigned i = 0; i < list->count; i++)
        if (strcmp(list->list[i].target, target) == 0)
            return true;
    return false;
}

static void read_template(struct loader *loader, const struct setting *setting, void *into, const yaml_node_t *key,
                          const yaml_node_t *node) {
    struct config_templates *list = into;
    struct place at = place_of_mark(key->start_mark), value_at = place_of_mark(node->start_mark);
    const char *target, *source;
    char found[QUOTED_MAX];
    if (!node_text(loader, key, setting->path, "the path of the file to make", &target) ||
        !node_text(loader, node, setting->path, "the path of its template", &source))
        return;
    if (!is_path(target))
        complain(loader, at, "%s: expected the absolute path of the file to make, found %s", setting->path,
                 quoted(target, found));
    else if (!is_path(source) || strcmp(source, target) == 0)
        complain(loader, value_at, "%s: expected the absolute path of a template, found %s", setting->path,
                 quoted(source, found));
    else if (already_made(list, target))
        complain(loader, at, "%s: %s is here twice: remove one of them", setting->path, quoted(target, found));
    else if (list->count == CONFIG_TEMPLATE_MAX)
        complain(loader, at, "%s: at most %d, this is one more: remove it", setting->path, CONFIG_TEMPLATE_MAX);
    else {
        struct config_template *entry = &list->list[list->count++];
        snprintf(entry->target, sizeof entry->target, "%s", target);
        snprintf(entry->source, sizeof entry->source, "%s", source);
    }
}

void read_templates(struct loader *loader, const struct setting *setting, const yaml_node_t *node) {
    read_entries(loader, setting, node, CONFIG_TEMPLATE_MAX, read_template);
}

/* "0640", "0640 postgres" or "0640 postgres:pgbouncer". */
static bool read_mode_and_owner(const char *text, struct config_access *access) {
    size_t digits = strspn(text, "01234567");
    const char *owner = text + digits + strspn(text + digits, " ");
    access->mode = (unsigned)strtoul(text, NULL, 8);
    if (digits < 3 || digits > 4 || access->mode < 0400 || access->mode > 0777 || !is_one_line(text) ||
        (text[digits] != ' ' && text[digits] != '\0') || strchr(owner, ' ') != NULL ||
        strlen(owner) >= sizeof access->owner)
        return false;
    snprintf(access->owner, sizeof access->owner, "%s", owner);
    return true;
}

static bool already_given(const struct config_accesses *list, const char *path) {
    for (unsigned i = 0; i < list->count; i++)
        if (strcmp(list->list[i].path, path) == 0)
            return true;
    return false;
}

static void read_access(struct loader *loader, const struct setting *setting, void *into, const yaml_node_t *key,
                        const yaml_node_t *node) {
    struct config_accesses *list = into;
    struct config_access entry = {0};
    struct place at = place_of_mark(key->start_mark);
    const char *path, *access;
    char found[QUOTED_MAX];
    if (!node_text(loader, key, setting->path, "the path of a published file", &path) ||
        !node_text(loader, node, setting->path, "its mode, and perhaps its owner", &access))
        return;
    if (!is_path(path))
        complain(loader, at, "%s: expected the absolute path of a published file, found %s", setting->path,
                 quoted(path, found));
    else if (!read_mode_and_owner(access, &entry))
        complain(loader, place_of_mark(node->start_mark),
                 "%s: expected a mode, and perhaps an owner, such as 0640 or \"0640 postgres:pgbouncer\", found %s",
                 setting->path, quoted(access, found));
    else if (already_given(list, path))
        complain(loader, at, "%s: %s is here twice: remove one of them", setting->path, quoted(path, found));
    else if (list->count == CONFIG_ACCESS_MAX)
        complain(loader, at, "%s: at most %d, this is one more: remove it", setting->path, CONFIG_ACCESS_MAX);
    else {
        snprintf(entry.path, sizeof entry.path, "%s", path);
        list->list[list->count++] = entry;
    }
}

void read_accesses(struct loader *loader, const struct setting *setting, const yaml_node_t *node) {
    read_entries(loader, setting, node, CONFIG_ACCESS_MAX, read_access);
}

static bool already_named(const struct config_poolers *list, const char *name) {
    for (unsigned i = 0; i < list->count; i++)
        if (strcmp(list->list[i].name, name) == 0)
            return true;
    return false;
}

static void read_pooler(struct loader *loader, const struct setting *setting, void *into, const yaml_node_t *key,
                        const yaml_node_t *node) {
    const struct setting here = {.type = &value_name};
    struct config_poolers *list = into;
    struct config_pooler entry = {0};
    struct place at = place_of_mark(key->start_mark);
    const char *name, *address;
    char found[QUOTED_MAX];
    struct error error;
    if (!node_text(loader, key, setting->path, "a name for each PgBouncer", &name) ||
        !node_text(loader, node, setting->path, "the address of each PgBouncer", &address))
        return;
    if (here.type->parse(&here, name, entry.name, &error) != OK)
        complain(loader, at, "%s: %s", setting->path, error.text);
    else if (!pooler_address(address, entry.host, &entry.port))
        complain(loader, place_of_mark(node->start_mark),
                 "%s: expected an IP address and a port such as 10.0.1.1:6432, or the directory of a socket and a port "
                 "such as /run/postgresql:6432, found %s",
                 setting->path, quoted(address, found));
    else if (already_named(list, name))
        complain(loader, at, "%s: %s is here twice: remove one of them", setting->path, name);
    else if (list->count == CONFIG_POOLER_MAX)
        complain(loader, at, "%s: at most %d, this is one more: remove it", setting->path, CONFIG_POOLER_MAX);
    else
        list->list[list->count++] = entry;
}

void read_poolers(struct loader *loader, const struct setting *setting, const yaml_node_t *node) {
    read_entries(loader, setting, node, CONFIG_POOLER_MAX, read_pooler);
}

/* Each is read by itself, so that a complaint tells which one. */
void read_words(struct loader *loader, const struct setting *setting, const yaml_node_t *node) {
    char all[VALUE_TEXT_MAX] = "";
    const char *text;
    struct error error;
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start), length = 0;
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *item = yaml_document_get_node(&loader->document, node->data.sequence.items.start[i]);
        if (!node_text(loader, item, setting->path, setting->type->expected, &text))
            return;
        if (setting->type->parse(setting, text, loader->config, &error) != OK) {
            complain(loader, place_of_mark(item->start_mark), "%s: %s", setting->path, error.text);
            return;
        }
        if (length < sizeof all)
            length += (size_t)snprintf(all + length, sizeof all - length, "%s%s", i > 0 ? ", " : "", text);
    }
    if (setting->type->parse(setting, all, loader->config, &error) != OK)
        complain(loader, place_of_mark(node->start_mark), "%s: %s", setting->path, error.text);
}
