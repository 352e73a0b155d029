#include "cli/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

#define OPTIONS_MAX 24
#define WORD_MAX    31

/* ---- the nearest name ---- */

static unsigned least(unsigned a, unsigned b, unsigned c) {
    unsigned least = a < b ? a : b;
    return least < c ? least : c;
}

/* How many letters to insert, drop or replace (Levenshtein), row by row. */
static unsigned distance(const char *a, const char *b) {
    unsigned row[WORD_MAX + 1];
    size_t length = strlen(b);
    if (strlen(a) > WORD_MAX || length > WORD_MAX)
        return WORD_MAX;
    for (unsigned i = 0; i <= length; i++)
        row[i] = i;
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= length; j++) {
            unsigned above = row[j];
            row[j] = least(row[j - 1] + 1, above + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[length];
}

const char *nearest_name(const char *word, const char *const *names) {
    const char *nearest = NULL;
    unsigned nearest_distance = (unsigned)strlen(word) / 3 + 2; /* two letters swapped are two mistakes */
    for (; *names != NULL; names++) {
        bool begins = strlen(word) >= 2 && strncmp(*names, word, strlen(word)) == 0;
        unsigned d = begins ? 1 : distance(word, *names);
        if (d < nearest_distance) {
            nearest = *names;
            nearest_distance = d;
        }
    }
    return nearest;
}

/* ---- rows ---- */

static unsigned common_rows(struct cli *cli, struct option_row *rows) {
    const struct option_row common[] = {
        {"--config", OPTION_TEXT, "FILE", "the member's settings: tells where its socket is", &cli->config_file, NULL},
        {"--socket", OPTION_TEXT, "PATH", "ask the daemon at this unix socket", &cli->socket, NULL},
        {"--url", OPTION_TEXT, "URL", "ask the daemon at http[s]://HOST:PORT (reading only)", &cli->url, NULL},
        {"--ca", OPTION_TEXT, "FILE", "https: believe certificates of these CAs (the system's)", &cli->ca, NULL},
        {"--cert", OPTION_TEXT, "FILE", "https: our certificate, where the daemon wants one", &cli->cert, NULL},
        {"--key", OPTION_TEXT, "FILE", "https: its private key", &cli->key, NULL},
        {"--help", OPTION_FLAG, NULL, "print this", &cli->help, NULL},
    };
    memcpy(rows, common, sizeof common);
    return sizeof common / sizeof *common;
}

static void print_rows(const struct option_row *rows, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        char left[64];
        const char *argument = rows[i].argument != NULL ? rows[i].argument : "";
        snprintf(left, sizeof left, rows[i].kind == OPTION_MAYBE_SECONDS ? "%s [%s]" : "%s %s", rows[i].name, argument);
        printf("  %-22s %s\n", left, rows[i].help);
    }
}

void print_common_options(void) {
    struct cli cli = {0};
    struct option_row rows[OPTIONS_MAX];
    print_rows(rows, common_rows(&cli, rows));
}

static const struct option_row *find_row(const struct option_row *rows, unsigned count, const char *name,
                                         size_t length) {
    for (unsigned i = 0; i < count; i++)
        if (strlen(rows[i].name) == length && strncmp(rows[i].name, name, length) == 0)
            return &rows[i];
    return NULL;
}

static enum parsed complain_unknown(const struct option_row *rows, unsigned count, const char *word) {
    const char *names[OPTIONS_MAX + 1] = {NULL};
    for (unsigned i = 0; i < count; i++)
        names[i] = rows[i].name;
    const char *nearest = nearest_name(word, names);
    if (word[0] != '-')
        fprintf(stderr, "ttorch: unexpected argument \"%s\"\n", word);
    else if (nearest != NULL)
        fprintf(stderr, "ttorch: unknown option %s: did you mean %s?\n", word, nearest);
    else
        fprintf(stderr, "ttorch: unknown option %s: see --help\n", word);
    return PARSED_WRONG;
}

static bool read_seconds(const char *text, double *ret_seconds) {
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(seconds) || seconds <= 0 || seconds > 86400)
        return false;
    *ret_seconds = seconds;
    return true;
}

/* `value` is NULL if nothing follows. Tells how many words were taken; -1 after a complaint. */
static int take_value(const struct option_row *row, const char *value, bool joined) {
    if (row->given != NULL)
        *row->given = true;
    switch (row->kind) {
    case OPTION_FLAG:
        if (joined)
            fprintf(stderr, "ttorch: %s takes no value\n", row->name);
        *(bool *)row->target = true;
        return joined ? -1 : 0;
    case OPTION_TEXT:
        if (value == NULL || *value == '\0')
            break;
        *(const char **)row->target = value;
        return 1;
    case OPTION_MAYBE_SECONDS:
        if (!joined && (value == NULL || !read_seconds(value, row->target)))
            return 0;
        /* fall through */
    case OPTION_SECONDS:
        if (value == NULL || !read_seconds(value, row->target))
            break;
        return 1;
    }
    fprintf(stderr, "ttorch: %s needs %s%s\n", row->name, row->argument,
            row->kind == OPTION_TEXT ? "" : ": a number above 0, at most 86400");
    return -1;
}

/* Reads the option at argv[*at] and moves past it and its value. */
static enum parsed parse_one(const struct option_row *rows, unsigned count, int argc, char **argv, int *at) {
    const char *word = argv[*at];
    const char *equals = strchr(word, '=');
    size_t length = equals != NULL ? (size_t)(equals - word) : strlen(word);
    const struct option_row *row =
        strcmp(word, "-h") == 0 ? find_row(rows, count, "--help", 6) : find_row(rows, count, word, length);
    if (row == NULL)
        return complain_unknown(rows, count, word);
    const char *next = *at + 1 < argc ? argv[*at + 1] : NULL;
    int taken = take_value(row, equals != NULL ? equals + 1 : next, equals != NULL);
    if (taken < 0)
        return PARSED_WRONG;
    *at += equals != NULL ? 1 : 1 + taken;
    return PARSED;
}

static void print_help(const struct verb *verb, const struct option_row *rows, unsigned own, unsigned count) {
    printf("ttorch %s%s%s\n\n%s\n%s", verb->name, *verb->usage != '\0' ? " " : "", verb->usage, verb->summary,
           verb->details);
    if (own > 0)
        printf("\nOptions\n");
    print_rows(rows, own);
    printf("\nWhich daemon to ask (default: the one of " CONFIG_DEFAULT_FILE ")\n");
    print_rows(rows + own, count - own);
    printf("\nExit codes: 0 done, 1 it could not be done, 2 wrong command line\n");
}

enum parsed options_parse(const struct verb *verb, struct cli *cli, const struct option_row *rows, int argc,
                          char **argv) {
    struct option_row all[OPTIONS_MAX];
    unsigned own = 0;
    for (; rows[own].name != NULL; own++)
        all[own] = rows[own];
    unsigned count = own + common_rows(cli, all + own);
    enum parsed parsed = PARSED;
    for (int at = 1; at < argc && parsed == PARSED;)
        parsed = parse_one(all, count, argc, argv, &at);
    if (parsed != PARSED || !cli->help)
        return parsed;
    print_help(verb, all, own, count);
    return PARSED_HELP;
}

enum parsed options_parse_common(struct cli *cli, int argc, char **argv, int *at) {
    struct option_row rows[OPTIONS_MAX];
    unsigned count = common_rows(cli, rows);
    enum parsed parsed = PARSED;
    for (*at = 1; *at < argc && argv[*at][0] == '-' && parsed == PARSED;)
        parsed = parse_one(rows, count, argc, argv, at);
    return parsed == PARSED && cli->help ? PARSED_HELP : parsed;
}
