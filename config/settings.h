/* The table of settings: one row each, from which parsing, defaults, bounds, suggestions, comparison, the lines that
 * must agree among members, and the manual's table all come. Knows no YAML. */
#pragma once
#include <stddef.h>

#include "config/config.h"

#define VALUE_TEXT_MAX (CONFIG_LIST_MAX * 330) /* longest rendered value: a full list of parameters */
#define KEY_TEXT_MAX   96

enum need {
    OPTIONAL,
    REQUIRED,
    REQUIRED_OF_DATA /* members.*: of that member, if it is no witness and no observer; else of ourselves, if we have
                        data */
};

struct setting;

/* How a value is written. `parse` reads one scalar into `base` + offset and says in `error` what was expected and what
 * was found; it is NULL for lists, which the loader reads itself. `render` writes the canonical text. */
struct value_type {
    const char *name;     /* for the manual's table */
    const char *expected; /* completes "expected ..." */
    status (*parse)(const struct setting *setting, const char *text, void *base, struct error *error);
    void (*render)(const struct setting *setting, const void *base, char *text, size_t size);
    void (*bounds)(const struct setting *setting, char *text, size_t size);
};

struct setting {
    const char *path; /* "probe.interval"; "members.*.peer" is there once for each member */
    const struct value_type *type;
    size_t offset, size; /* of the field in struct config, or in struct config_member */
    size_t port_offset;  /* addresses only */
    uint64_t minimum, maximum;
    const char *standard; /* the default as it would be written; may begin with one of the words below */
    enum need need;
    bool at_run_time;
    bool shared; /* must be the same on all members */
    const char *help;
};

#define STANDARD_OURS   "<data_directory>" /* replaced by that setting's value, which stands earlier in the table */
#define STANDARD_NEWEST "<newest>"         /* postgresql.bin_directory: see programs_find */

extern const struct value_type value_name, value_text, value_path, value_secret_path, value_host, value_address,
    value_integer, value_boolean, value_duration, value_size, value_durability, value_watchdog, value_tsig,
    value_domain, value_addresses, value_mode, value_variable, value_options, value_parameters, value_lines,
    value_templates, value_accesses, value_poolers, value_databases;

extern const struct setting settings[];
extern const unsigned settings_count;

const struct setting *setting_find(const char *path); /* NULL if there is none */
bool setting_is_section(const char *path);
bool setting_of_members(const struct setting *setting);
/* What somebody who wrote `key` in the section `prefix` ("" or "probe.") most likely meant: the same name elsewhere, or
 * the nearest here, as words that follow "did you mean". False if nothing is near. */
bool setting_nearest(const char *prefix, const char *key, char *buffer, size_t size);
/* Names of what may stand in a section: "interval, timeout". */
void setting_names(const char *prefix, char *buffer, size_t size);
/* "members.*.peer" -> "members.m1.peer". */
const char *setting_key(const struct setting *setting, const char *member, char *buffer, size_t size);
void *setting_base(const struct setting *setting, struct config *config, unsigned member);

/* The PostgreSQL programs to use when nobody says: those of the version of the data directory if it exists, else the
 * newest. `pattern` is that of the server program, with one * for the version. False: none found. */
bool programs_find(const char *pattern, const char *data_directory, char *ret_directory, size_t size);

/* "10.0.1.1:6432", "[fd00::1]:6432" or "/run/postgresql:6432": names would need DNS, which blocks. */
bool pooler_address(const char *text, char ret_host[HOST_MAX_LENGTH + 1], uint16_t *ret_port);

/* A text from outside as it may stand in a complaint: in quotes, one line, not too long. */
#define QUOTED_MAX 80
const char *quoted(const char *text, char buffer[QUOTED_MAX]);
