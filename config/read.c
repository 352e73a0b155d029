/* From YAML to fields, along the table of settings. Aliases need no care here: the table bounds the depth to which
 * the tree is followed, so that one that contains itself ends, too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/loader.h"

/* ---- syntax ---- */

static const struct hint {
    const char *problem; /* libyaml's words */
    const char *instead;
} hints[] = {
    {"found character that cannot start any token", "indent with spaces, not tabs, and quote values that begin with a "
                                                    "special character"},
    {"found a tab character that violates indentation", "indent with spaces"},
    {"did not find expected alphabetic or numeric character", "quote a value that begins with * or &"},
    {"mapping values are not allowed in this context", "write one \"key: value\" on a line, and quote values that "
                                                       "contain \": \""},
    {"could not find expected ':'", "write \"key: value\", with a space after the colon"},
    {"did not find expected key", "give the keys of one section the same indentation"},
    {"did not find expected ',' or '}'", "close { with }, and put commas between the entries"},
    {"did not find expected ',' or ']'", "close [ with ], put commas between the entries, and quote [fd00::1]:7432"},
    {"found unexpected end of stream", "close the quote"},
    {"found undefined alias", "quote a value that begins with *"},
};

static void complain_syntax(struct loader *loader, const yaml_parser_t *parser) {
    const char *problem = parser->problem != NULL ? parser->problem : "out of memory", *instead = NULL;
    for (size_t i = 0; i < sizeof hints / sizeof hints[0] && instead == NULL; i++)
        if (strcmp(problem, hints[i].problem) == 0)
            instead = hints[i].instead;
    bool unreadable = parser->error == YAML_READER_ERROR; /* before there are marks */
    struct place place = place_of_mark(unreadable ? parser->mark : parser->problem_mark);
    complain(loader, place, "this is not YAML: %s%s%s: %s", problem, parser->context != NULL ? " " : "",
             parser->context != NULL ? parser->context : "",
             instead != NULL ? instead
             : unreadable    ? "save the file as UTF-8"
                             : "see docs/CONFIGURATION.md");
}

static void complain_more_documents(struct loader *loader, yaml_parser_t *parser) {
    yaml_document_t more;
    if (!yaml_parser_load(parser, &more)) {
        complain_syntax(loader, parser);
        return;
    }
    if (yaml_document_get_root_node(&more) != NULL)
        complain(loader, place_of_mark(more.start_mark),
                 "a second YAML document begins here: write all settings in one, without \"---\"");
    yaml_document_delete(&more);
}

/* ---- nodes ---- */

const char *node_kind(const yaml_node_t *node) {
    switch (node->type) {
    case YAML_SEQUENCE_NODE:
        return "a list";
    case YAML_MAPPING_NODE:
        return "a section";
    default:
        return node_is_empty(node) ? "nothing" : "a single value";
    }
}

bool node_is_empty(const yaml_node_t *node) {
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)node->data.scalar.value;
    return text[0] == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

bool node_text(struct loader *loader, const yaml_node_t *node, const char *what, const char *expected,
               const char **ret_text) {
    struct place place = place_of_mark(node->start_mark);
    if (node->type != YAML_SCALAR_NODE || node_is_empty(node)) {
        complain(loader, place, "%s: expected %s, found %s", what, expected, node_kind(node));
        return false;
    }
    if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length) {
        complain(loader, place, "%s: expected %s, found a text with a zero byte", what, expected);
        return false;
    }
    *ret_text = (const char *)node->data.scalar.value;
    return true;
}

struct given *given(struct loader *loader, const struct setting *setting, unsigned member) {
    return &loader->given[setting - settings][setting_of_members(setting) ? member : 0];
}

/* ---- keys ---- */

static void complain_unknown(struct loader *loader, const yaml_node_t *key, const char *prefix, const char *text) {
    char found[QUOTED_MAX], nearest[2 * KEY_TEXT_MAX], names[384];
    struct place place = place_of_mark(key->start_mark);
    if (strcasestr(text, "password") != NULL) {
        complain(loader, place,
                 "passwords do not belong into this file: put it into one of its own, of mode 0600, and "
                 "name that with \"replication: {password_file: /etc/ttorch/replication.password}\"");
    } else if (setting_nearest(prefix, text, nearest, sizeof nearest)) {
        complain(loader, place, "unknown setting %s: did you mean %s?", quoted(text, found), nearest);
    } else {
        setting_names(prefix, names, sizeof names);
        complain(loader, place, "unknown setting %s: write one of %s", quoted(text, found), names);
    }
}

/* The key of entry `i`, if it is a text and new in its section; else NULL, with a complaint. */
static const char *entry_key(struct loader *loader, const yaml_node_t *section, size_t i) {
    const yaml_node_pair_t *pairs = section->data.mapping.pairs.start;
    const yaml_node_t *key = yaml_document_get_node(&loader->document, pairs[i].key);
    const char *text;
    char found[QUOTED_MAX];
    if (!node_text(loader, key, "a key", "a name", &text))
        return NULL;
    for (size_t j = 0; j < i; j++) {
        const yaml_node_t *earlier = yaml_document_get_node(&loader->document, pairs[j].key);
        if (earlier->type != YAML_SCALAR_NODE || strcmp((const char *)earlier->data.scalar.value, text) != 0)
            continue;
        complain(loader, place_of_mark(key->start_mark), "%s is here twice, first in line %d: remove one of them",
                 quoted(text, found), place_of_mark(earlier->start_mark).line);
        return NULL;
    }
    return text;
}

/* How many entries a section has; 0, with a complaint unless it is empty, if there is nothing to read. */
static size_t section_entries(struct loader *loader, const yaml_node_t *node, const char *what) {
    if (node->type != YAML_MAPPING_NODE) {
        if (!node_is_empty(node))
            complain(loader, place_of_mark(node->start_mark), "%s: expected a section of \"key: value\", found %s",
                     what, node_kind(node));
        return 0;
    }
    size_t count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    if (count <= ENTRIES_MAX)
        return count;
    complain(loader, place_of_mark(node->start_mark), "%s: at most %d entries, found %zu", what, ENTRIES_MAX, count);
    return 0;
}

/* ---- values ---- */

static void read_value(struct loader *loader, const struct setting *setting, unsigned member, const yaml_node_t *key,
                       const yaml_node_t *node) {
    struct given *place = given(loader, setting, member);
    unsigned before = loader->complaints_count;
    char name[KEY_TEXT_MAX];
    const char *text;
    struct error error;
    place->key = place_of_mark(key->start_mark);
    place->value = place_of_mark(node->start_mark);
    setting_key(setting, loader->config->members[member].name, name, sizeof name);
    if (setting->type == &value_parameters)
        read_parameters(loader, setting, node);
    else if (setting->type == &value_lines)
        read_lines(loader, setting, node);
    else if (setting->type == &value_templates)
        read_templates(loader, setting, node);
    else if (setting->type == &value_accesses)
        read_accesses(loader, setting, node);
    else if (setting->type == &value_poolers)
        read_poolers(loader, setting, node);
    else if ((setting->type == &value_addresses || setting->type == &value_databases) &&
             node->type == YAML_SEQUENCE_NODE)
        read_words(loader, setting, node);
    else if (node_text(loader, node, name, setting->type->expected, &text) &&
             setting->type->parse(setting, text, setting_base(setting, loader->config, member), &error) != OK)
        complain(loader, place->value, "%s: %s", name, error.text);
    place->bad = loader->complaints_count != before || loader->complaints_left_out;
}

static void read_members(struct loader *loader, const yaml_node_t *node);

/* `prefix` is "" or ends with a dot. */
static void read_section(struct loader *loader, const yaml_node_t *node, const char *what, const char *prefix,
                         unsigned member) {
    size_t count = section_entries(loader, node, what);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_pair_t *pair = &node->data.mapping.pairs.start[i];
        const yaml_node_t *key = yaml_document_get_node(&loader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&loader->document, pair->value);
        const char *text = entry_key(loader, node, i);
        char path[KEY_TEXT_MAX], inner[KEY_TEXT_MAX + 1];
        if (text == NULL)
            continue;
        bool whole = snprintf(path, sizeof path, "%s%s", prefix, text) < (int)sizeof path;
        snprintf(inner, sizeof inner, "%s.", path);
        const struct setting *setting = whole && strchr(text, '.') == NULL ? setting_find(path) : NULL;
        if (setting != NULL)
            read_value(loader, setting, member, key, value);
        else if (strcmp(path, "members") == 0)
            read_members(loader, value);
        else if (whole && strchr(text, '.') == NULL && setting_is_section(path))
            read_section(loader, value, path, inner, member);
        else
            complain_unknown(loader, key, prefix, text);
    }
}

/* ---- members ---- */

struct entry {
    const char *name;
    const yaml_node_t *value;
};

/* By name, m2 before m10: then their order, on which the members' ids rest, is the same whatever that of the file. */
static int compare_entries(const void *a, const void *b) {
    return strverscmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static bool member_name(struct loader *loader, const yaml_node_t *key, const char *text) {
    const struct setting here = {.type = &value_name};
    char name[NAME_MAX_LENGTH + 1];
    struct error error;
    if (here.type->parse(&here, text, name, &error) == OK)
        return true;
    complain(loader, place_of_mark(key->start_mark), "members: %s", error.text);
    return false;
}

static unsigned collect_members(struct loader *loader, const yaml_node_t *node, struct entry entries[MEMBERS_MAX]) {
    size_t count = section_entries(loader, node, "members");
    unsigned good = 0;
    loader->found_members = count > 0;
    for (size_t i = 0; i < count; i++) {
        const yaml_node_pair_t *pair = &node->data.mapping.pairs.start[i];
        const yaml_node_t *key = yaml_document_get_node(&loader->document, pair->key);
        const char *text = entry_key(loader, node, i);
        if (text == NULL || !member_name(loader, key, text))
            continue;
        if (good == MEMBERS_MAX) {
            complain(loader, place_of_mark(key->start_mark), "members: at most %d, this is one more: remove it",
                     MEMBERS_MAX);
            break;
        }
        entries[good++] = (struct entry){text, yaml_document_get_node(&loader->document, pair->value)};
    }
    return good;
}

static void read_members(struct loader *loader, const yaml_node_t *node) {
    struct entry entries[MEMBERS_MAX];
    loader->members = place_of_mark(node->start_mark);
    unsigned count = collect_members(loader, node, entries);
    loader->found_members |= node->type != YAML_MAPPING_NODE && !node_is_empty(node); /* already complained about */
    qsort(entries, count, sizeof entries[0], compare_entries);
    loader->config->members_count = count;
    for (unsigned i = 0; i < count; i++) {
        struct config_member *member = &loader->config->members[i];
        char what[KEY_TEXT_MAX];
        snprintf(member->name, sizeof member->name, "%s", entries[i].name);
        snprintf(what, sizeof what, "members.%s", member->name);
        if (entries[i].value->type == YAML_MAPPING_NODE || node_is_empty(entries[i].value))
            loader->section[i] = place_of_mark(entries[i].value->start_mark);
        read_section(loader, entries[i].value, what, "members.*.", i);
    }
}

/* ---- the whole ---- */

static bool read_root(struct loader *loader, yaml_parser_t *parser) {
    const yaml_node_t *root = yaml_document_get_root_node(&loader->document);
    if (root == NULL || node_is_empty(root)) {
        complain(loader, (struct place){1, 1}, "the file is empty: see docs/CONFIGURATION.md for one to begin with");
        return false;
    }
    unsigned before = loader->complaints_count;
    bool usable = section_entries(loader, root, "the file") > 0 || loader->complaints_count == before;
    if (usable)
        read_section(loader, root, "the file", "", 0);
    complain_more_documents(loader, parser);
    return usable;
}

/* Whether a tree of the text may be built: libyaml takes quadratic time for deep trees and for many anchors. Complains.
 */
static bool is_bounded(struct loader *loader, yaml_parser_t *parser) {
    unsigned depth = 0, nodes = 0;
    yaml_event_type_t type = YAML_NO_EVENT;
    while (type != YAML_STREAM_END_EVENT) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            complain_syntax(loader, parser);
            return false;
        }
        type = event.type;
        struct place place = place_of_mark(event.start_mark);
        yaml_event_delete(&event);
        nodes++;
        depth += type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT;
        depth -= type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT;
        if (depth <= DEPTH_MAX && nodes <= NODES_MAX)
            continue;
        complain(loader, place,
                 "sections and lists lie too deep in each other, or are too many: no configuration needs "
                 "more than %d levels or %d values",
                 DEPTH_MAX, NODES_MAX);
        return false;
    }
    return true;
}

static bool build_tree(struct loader *loader, yaml_parser_t *parser) {
    if (!yaml_parser_load(parser, &loader->document)) {
        complain_syntax(loader, parser);
        return false;
    }
    bool usable = read_root(loader, parser);
    yaml_document_delete(&loader->document);
    return usable;
}

typedef bool parser_step(struct loader *loader, yaml_parser_t *parser);

static bool with_parser(struct loader *loader, const char *bytes, size_t length, parser_step *step) {
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        complain(loader, (struct place){1, 1}, "out of memory");
        return false;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, length);
    bool result = step(loader, &parser);
    yaml_parser_delete(&parser);
    return result;
}

bool read_document(struct loader *loader, const char *bytes, size_t length) {
    return with_parser(loader, bytes, length, is_bounded) && with_parser(loader, bytes, length, build_tree);
}
