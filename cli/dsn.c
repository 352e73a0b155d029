#include "cli/dsn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/text.h"

/* libpq tries the hosts one after another: a dead one must not hold a client up for long. */
#define CONNECT_TIMEOUT_SECONDS 3

static void print_value(FILE *out, const char *key, const char *value) {
    if (value == NULL)
        return;
    fprintf(out, " %s=", key);
    if (*value != '\0' && strpbrk(value, " \t\r\n\v\f'\\") == NULL) {
        fputs(value, out);
        return;
    }
    fputc('\'', out);
    for (; *value != '\0'; value++)
        fprintf(out, *value == '\'' || *value == '\\' ? "\\%c" : "%c", *value);
    fputc('\'', out);
}

/* "host=a,b,c port=1,2,3"; tells how many. */
static unsigned print_hosts(FILE *out, const json_t *members) {
    size_t i;
    const json_t *member;
    unsigned count = 0;
    json_array_foreach(members, i, member) if (holds_data(member))
        fprintf(out, "%s%s", count++ == 0 ? "host=" : ",", text_of(member, "host"));
    count = 0;
    json_array_foreach(members, i, member) if (holds_data(member))
        fprintf(out, "%s%lld", count++ == 0 ? " port=" : ",", (long long)number_of(member, "port"));
    return count;
}

status dsn_text(const json_t *json, const struct dsn *dsn, char **ret_text, struct error *error) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return error_set(error, "out of memory");
    unsigned hosts = print_hosts(out, json_object_get(json, "members"));
    print_value(out, "dbname", dsn->database);
    print_value(out, "user", dsn->user);
    print_value(out, "target_session_attrs", dsn->session);
    fprintf(out, " connect_timeout=%d", CONNECT_TIMEOUT_SECONDS);
    if (fclose(out) == 0 && hosts > 0) {
        *ret_text = text;
        return OK;
    }
    free(text);
    return error_set(error, hosts > 0 ? "out of memory" : "the cluster has no data members yet");
}

static int print_dsn(struct cli *cli, const struct dsn *dsn) {
    struct error error;
    json_t *json = cli_status(cli);
    if (json == NULL)
        return EXIT_FAILED;
    char *text;
    status result = dsn_text(json, dsn, &text, &error);
    json_decref(json);
    if (result != OK)
        return cli_failed(&error);
    puts(text);
    free(text);
    return EXIT_DONE;
}

static int run(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    bool reading = false, any = false;
    struct dsn dsn = {.session = "read-write"};
    const struct option_row rows[] = {
        {"--read", OPTION_FLAG, NULL, "for reading: a standby if there is one", &reading, NULL},
        {"--any", OPTION_FLAG, NULL, "whichever answers first", &any, NULL},
        {"--database", OPTION_TEXT, "NAME", "database to connect to", &dsn.database, NULL},
        {"--user", OPTION_TEXT, "NAME", "user to connect as", &dsn.user, NULL},
        {0}};
    enum parsed parsed = options_parse(verb, cli, rows, argc, argv);
    if (parsed != PARSED)
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    if (reading && any) {
        fprintf(stderr, "ttorch: --read and --any do not go together\n");
        return EXIT_USAGE;
    }
    if (reading || any)
        dsn.session = reading ? "prefer-standby" : "any";
    return print_dsn(cli, &dsn);
}

const struct verb verb_dsn = {
    "dsn", "[--read|--any] [--database NAME] [--user NAME]", "a connection string that finds the primary by itself",
    "\nFor libpq and what is built on it: psql \"$(ttorch dsn)\". It names all data members, so it stays right\n"
    "when the primary changes.\n",
    run};
