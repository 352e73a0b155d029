/* A verb's options: one row each, from which both the command line is read and its help is written. */
#pragma once
#include <stdbool.h>

#include "cli/cli.h"

enum option_kind {
    OPTION_FLAG,         /* bool */
    OPTION_TEXT,         /* const char * */
    OPTION_SECONDS,      /* double, above 0 */
    OPTION_MAYBE_SECONDS /* double; stays as it is when no number follows */
};

struct option_row {
    const char *name; /* "--json" */
    enum option_kind kind;
    const char *argument; /* "SECONDS"; NULL for a flag */
    const char *help;
    void *target; /* as its kind says */
    bool *given;  /* may be NULL */
};

enum parsed { PARSED, PARSED_HELP, PARSED_WRONG };

/* Reads a verb's whole command line, with the options that every verb takes. PARSED_HELP: help was asked for and has
 * been printed. PARSED_WRONG: a complaint has been printed. `rows` end with a NULL name. */
enum parsed options_parse(const struct verb *verb, struct cli *cli, const struct option_row *rows, int argc,
                          char **argv);

/* Reads the options before the verb; `*at` is then the index of the verb. */
enum parsed options_parse_common(struct cli *cli, int argc, char **argv, int *at);

/* The name most like `word`, NULL if none is like it. `names` end with NULL. */
const char *nearest_name(const char *word, const char *const *names);

void print_common_options(void);
