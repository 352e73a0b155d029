/* The verbs of `ttorch`, one file each. What was asked for goes to stdout, complaints to stderr. */
#pragma once
#include "cli/client.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1, /* it could not be done, or no daemon could be asked */
    EXIT_USAGE = 2   /* the command line is wrong */
};

/* Which daemon to ask; given before or after the verb. */
struct cli {
    const char *config_file;
    const char *socket;          /* NULL: as the configuration file says */
    const char *url;             /* NULL: over the unix socket */
    const char *ca, *cert, *key; /* files for https, or NULL */
    bool help;
};

struct verb {
    const char *name;
    const char *usage; /* "[--json] [--watch [SECONDS]]" */
    const char *summary;
    const char *details; /* a paragraph for `ttorch help VERB` */
    /* argv[0] is the verb's name; returns an exit_code. */
    int (*run)(const struct verb *verb, struct cli *cli, int argc, char **argv);
};

extern const struct verb verb_status, verb_switchover, verb_history, verb_dsn, verb_rejoin, verb_haproxy_config,
    verb_pgbouncer_config, verb_demo, verb_help, verb_version;

/* All verbs, ended by NULL. */
extern const struct verb *const verbs[];

/* Asks verb by verb; the whole of main(). */
int cli_main(int argc, char **argv);

/* The daemon that `cli` means. Fails with one or several complaints on stderr. */
status cli_connect(const struct cli *cli, struct client *ret_client) must_check;

/* What the daemon answers to GET /v1/status, to be freed; NULL with a complaint on stderr. */
json_t *cli_status(const struct cli *cli) must_check;

/* "ttorch: ..." on stderr; returns EXIT_FAILED. */
int cli_failed(const struct error *error);

/* The demo parses its own command line. */
int demo_main(int argc, char **argv);
