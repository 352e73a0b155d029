#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/options.h"
#include "cli/status_table.h"
#include "cli/text.h"

static int print_once(const struct client *client, bool as_json) {
    struct error error;
    json_t *cluster;
    if (client_get(client, "/v1/status", &cluster, &error) != OK)
        return cli_failed(&error);
    if (as_json) {
        json_dumpf(cluster, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        status_table_print(stdout, cluster, text_colours(stdout));
    }
    json_decref(cluster);
    return EXIT_DONE;
}

/* ---- watching ---- */

/* The other screen, no cursor, no wrapping; and back. */
#define SCREEN_ENTER "\033[?1049h\033[?25l\033[?7l"
#define SCREEN_LEAVE "\033[?7h\033[?25h\033[?1049l"

static void on_signal(int number) {
    if (write(STDOUT_FILENO, SCREEN_LEAVE, sizeof SCREEN_LEAVE - 1) < 0)
        _exit(128 + number);
    raise(number); /* SA_RESETHAND: now it ends us */
}

static void screen_enter(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_NODEFER};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    fputs(SCREEN_ENTER, stdout);
}

/* One frame, made apart so that the terminal gets it in one piece. */
static void draw(const struct client *client, bool terminal, bool colours) {
    char *text = NULL;
    size_t length;
    FILE *frame = open_memstream(&text, &length);
    if (frame == NULL)
        return;
    struct error error;
    json_t *cluster;
    if (client_get(client, "/v1/status", &cluster, &error) == OK) {
        status_table_print(frame, cluster, colours);
        json_decref(cluster);
    } else {
        fprintf(frame, "%s\n", error.text);
    }
    fclose(frame);
    fputs(terminal ? "\033[H\033[2J" : "", stdout);
    fputs(text, stdout);
    fputs(terminal ? "" : "\n", stdout);
    fflush(stdout);
    free(text);
}

static int watch(const struct client *client, double seconds) {
    bool terminal = isatty(STDOUT_FILENO), colours = text_colours(stdout);
    struct timespec interval = {.tv_sec = (time_t)seconds,
                                .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    if (terminal)
        screen_enter();
    while (!ferror(stdout)) {
        draw(client, terminal, colours);
        nanosleep(&interval, NULL);
    }
    return EXIT_FAILED;
}

static int run(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    bool as_json = false, watching = false;
    double seconds = 1;
    const struct option_row rows[] = {
        {"--json", OPTION_FLAG, NULL, "print what the daemon answers, for programs", &as_json, NULL},
        {"--watch", OPTION_MAYBE_SECONDS, "SECONDS", "again and again, every second if not said", &seconds, &watching},
        {0}};
    enum parsed parsed = options_parse(verb, cli, rows, argc, argv);
    if (parsed != PARSED)
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    if (as_json && watching) {
        fprintf(stderr, "ttorch: --json and --watch do not go together\n");
        return EXIT_USAGE;
    }
    struct client client;
    if (cli_connect(cli, &client) != OK)
        return EXIT_FAILED;
    return watching ? watch(&client, seconds) : print_once(&client, as_json);
}

const struct verb verb_status = {
    "status", "[--json] [--watch [SECONDS]]", "the members: duty, state, timeline, lag, sync, upstream",
    "\nThe headline names the cluster, its epoch and primary, and the rule in force: ANY 1 (m2, m3) means that a\n"
    "commit is acknowledged once one of m2 and m3 has it on disk too. Lag is what a member has yet to receive.\n"
    "Sync tells whether the rule counts the member.\n",
    run};
