#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/time.h"
#include "cli/options.h"
#include "cli/text.h"

#define POLL_INTERVAL_MS 100 /* the daemon answers from memory */

static bool is_so(const json_t *own, const char *key) { return json_is_true(json_object_get(own, key)); }

static void tell_lost_record(const char *name, const char *waiting) {
    printf(
        "%s can't use its record:\n  %s\n\n"
        "It is set aside (raft/damaged in its data_directory), and %s comes back with an empty one, as a new voter.\n"
        "The other members take it back once they are a majority without it. What only the lost record held is gone\n"
        "for good. PostgreSQL's data is kept, and cloned anew only where it does not fit any more. Go on? [y/N] ",
        name, waiting, name);
}

static void tell_damaged_file(const char *name, const char *waiting) {
    printf("%s can't use a file of its own:\n  %s\n\n"
           "If it is the label, which says what the data directory is, that one is cloned anew from the primary, and\n"
           "replaced once the clone is complete; unless this is the primary. If it is the pledge, it is written anew\n"
           "from the record: nothing is cloned. Go on? [y/N] ",
           name, waiting);
}

static bool confirmed(const json_t *own) {
    char answer[16];
    if (is_so(own, "record_lost"))
        tell_lost_record(text_of(own, "self"), text_of(own, "waiting"));
    else
        tell_damaged_file(text_of(own, "self"), text_of(own, "waiting"));
    fflush(stdout);
    return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

/* It knows who it is, and the present. */
static bool is_back(const json_t *own) {
    return !is_so(own, "record_lost") && is_so(own, "fresh") && *text_of(own, "waiting") == '\0';
}

static status post(const struct client *client, struct error *error) {
    json_t *answer, *nothing = json_object();
    status result = client_post(client, "/v1/rejoin", nothing, &answer, error);
    json_decref(nothing);
    if (result == OK)
        json_decref(answer);
    return result;
}

/* Back with a new record it can tell what a damaged file may have held: that is the second step, if there are two. */
static void mend(const struct client *client, const json_t *own) {
    struct error error;
    if (is_so(own, "file_damaged") && !is_so(own, "record_lost"))
        (void)post(client, &error); /* if it is not yet time, it says so in its status */
}

/* While it begins anew nobody answers. */
static int follow(const struct client *client, nsec began, double timeout, const char *done) {
    nsec deadline = began + (nsec)(timeout * (double)NSEC_PER_SEC);
    char why[ERROR_TEXT_MAX] = "it does not answer";
    while (time_now() < deadline) {
        json_t *own;
        if (client_get(client, "/v1/status", &own, NULL) == OK) {
            char duration[TEXT_MAX];
            bool back = is_back(own);
            if (back)
                printf("%s %s, after %s; ttorch status shows how its PostgreSQL does\n", text_of(own, "self"), done,
                       text_duration(msec_between(began, time_now()), duration));
            snprintf(why, sizeof why, "%s", text_of(own, "waiting"));
            mend(client, own);
            json_decref(own);
            if (back)
                return EXIT_DONE;
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_INTERVAL_MS * 1000000l}, NULL);
    }
    fprintf(stderr, "ttorch: not back within %g s: %s\nIt goes on trying; see ttorch status\n", timeout, why);
    return EXIT_FAILED;
}

static int rejoin(const struct client *client, bool yes, double timeout) {
    struct error error;
    json_t *own;
    if (client_get(client, "/v1/status", &own, &error) != OK)
        return cli_failed(&error);
    bool lost = is_so(own, "record_lost"), wanted = lost || is_so(own, "file_damaged");
    bool go_on = wanted && (yes || confirmed(own));
    if (!wanted)
        fprintf(stderr, "ttorch: the record of %s is not lost: nothing was done\n", text_of(own, "self"));
    json_decref(own);
    if (!go_on)
        return EXIT_FAILED;
    nsec began = time_now();
    if (post(client, &error) != OK)
        return cli_failed(&error);
    return follow(client, began, timeout, lost ? "is a voter again" : "has replaced the damaged file");
}

static int run(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    bool yes = false;
    double timeout = 60;
    const struct option_row rows[] = {
        {"--yes", OPTION_FLAG, NULL, "do not ask first", &yes, NULL},
        {"--timeout", OPTION_SECONDS, "SECONDS", "how long to wait until it is back (default 60)", &timeout, NULL},
        {0}};
    enum parsed parsed = options_parse(verb, cli, rows, argc, argv);
    if (parsed != PARSED)
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    struct client client;
    if (cli_connect(cli, &client) != OK)
        return EXIT_FAILED;
    return rejoin(&client, yes, timeout);
}

const struct verb verb_rejoin = {
    "rejoin", "[--yes] [--timeout SECONDS]", "bring back this member, whose record was lost or damaged",
    "\nRun it on the host of that member. The other members have to be a majority without it: they replace the voter\n"
    "that it was by a new one, because nobody knows any more what the old one had promised. A record that is not lost\n"
    "is never thrown away. A damaged file that says what the data directory is, or what the member has pledged, is\n"
    "replaced, too.\n",
    run};
