#include "cli/cli.h"

#include <curl/curl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "config/config.h"

#define VERBS_MAX 16

const struct verb *const verbs[] = {
    &verb_status,           &verb_switchover, &verb_history, &verb_dsn,     &verb_rejoin, &verb_haproxy_config,
    &verb_pgbouncer_config, &verb_demo,       &verb_help,    &verb_version, NULL};

/* ---- for all verbs ---- */

int cli_failed(const struct error *error) {
    fprintf(stderr, "ttorch: %s\n", error->text);
    return EXIT_FAILED;
}

static void complain(void *user, const char *line) {
    (void)user;
    fprintf(stderr, "%s\n", line);
}

static status socket_of_config(const char *file, struct client *ret_client) {
    struct config *config = calloc(1, sizeof *config);
    if (config == NULL)
        return error_set(NULL, "out of memory");
    status result = config_load_for_client(config, file, complain, NULL);
    if (result == OK)
        config_socket_path(config, ret_client->socket_path, sizeof ret_client->socket_path);
    else
        fprintf(stderr,
                "ttorch: where the daemon listens is read from %s: mend it, or name another --config FILE or "
                "a --socket PATH\n",
                file);
    free(config);
    return result;
}

status cli_connect(const struct cli *cli, struct client *ret_client) {
    *ret_client = (struct client){.ca = cli->ca, .cert = cli->cert, .key = cli->key};
    if (cli->url != NULL)
        snprintf(ret_client->url, sizeof ret_client->url, "%s", cli->url);
    else if (cli->socket != NULL)
        snprintf(ret_client->socket_path, sizeof ret_client->socket_path, "%s", cli->socket);
    else
        return socket_of_config(cli->config_file, ret_client);
    return OK;
}

json_t *cli_status(const struct cli *cli) {
    struct client client;
    struct error error;
    json_t *cluster;
    if (cli_connect(cli, &client) != OK)
        return NULL;
    if (client_get(&client, "/v1/status", &cluster, &error) == OK)
        return cluster;
    cli_failed(&error);
    return NULL;
}

/* ---- the small verbs ---- */

static int run_demo(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    (void)verb, (void)cli;
    return demo_main(argc, argv);
}

static int run_version(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    static const struct option_row none[] = {{0}};
    enum parsed parsed = options_parse(verb, cli, none, argc, argv);
    if (parsed == PARSED)
        puts("ttorch " TTORCH_VERSION);
    return parsed == PARSED_WRONG ? EXIT_USAGE : EXIT_DONE;
}

const struct verb verb_demo = {"demo", "[OPTIONS]", "a throw-away cluster on this machine, and what faults do to it",
                               "", run_demo};
const struct verb verb_version = {"version", "", "print the version of this program", "", run_version};

/* ---- finding the verb ---- */

static const struct verb *find_verb(const char *name) {
    const char *names[VERBS_MAX + 1] = {NULL};
    for (unsigned i = 0; verbs[i] != NULL; i++) {
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
        names[i] = verbs[i]->name;
    }
    const char *nearest = nearest_name(name, names);
    if (nearest != NULL)
        fprintf(stderr, "ttorch: unknown verb \"%s\": did you mean \"%s\"?\n", name, nearest);
    else
        fprintf(stderr, "ttorch: unknown verb \"%s\": see ttorch help\n", name);
    return NULL;
}

static void print_overview(void) {
    printf("ttorch VERB [OPTIONS]: look at a cluster of PostgreSQL and steer it\n\nVerbs\n");
    for (unsigned i = 0; verbs[i] != NULL; i++)
        printf("  %-16s %s\n", verbs[i]->name, verbs[i]->summary);
    printf("\nWhich daemon to ask (default: the one of " CONFIG_DEFAULT_FILE ")\n");
    print_common_options();
    printf("\nExit codes: 0 done, 1 it could not be done, 2 wrong command line\n"
           "ttorch help VERB tells more about one.\n");
}

static int run_help(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    (void)verb;
    if (argc < 2 || argv[1][0] == '-') {
        print_overview();
        return EXIT_DONE;
    }
    const struct verb *about = find_verb(argv[1]);
    if (about == NULL)
        return EXIT_USAGE;
    char help[] = "--help";
    char *arguments[] = {argv[1], help, NULL};
    return about == verb ? run_help(verb, cli, 1, argv) : about->run(about, cli, 2, arguments);
}

const struct verb verb_help = {"help", "[VERB]", "what there is, or what a verb does", "", run_help};

int cli_main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    setlocale(LC_ALL, "");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    struct cli cli = {.config_file = CONFIG_DEFAULT_FILE};
    int at;
    enum parsed parsed = options_parse_common(&cli, argc, argv, &at);
    if (parsed == PARSED_WRONG)
        return EXIT_USAGE;
    if (parsed == PARSED_HELP || at >= argc) {
        print_overview();
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    }
    const struct verb *verb = find_verb(argv[at]);
    return verb != NULL ? verb->run(verb, &cli, argc - at, argv + at) : EXIT_USAGE;
}
