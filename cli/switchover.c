#include "cli/switchover.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "cli/options.h"
#include "cli/text.h"

#define POLL_INTERVAL_MS 100 /* the daemon answers from memory */

/* ---- may it be ---- */

static status check_cluster(const json_t *cluster, struct error *error) {
    if (!json_is_true(json_object_get(cluster, "fresh")))
        return error_set(error, "%s has no contact with a quorum: nothing can be decided", text_of(cluster, "self"));
    if (*text_of(cluster, "primary") == '\0' || !json_is_true(json_object_get(cluster, "open")))
        return error_set(error, "there is no primary that is open to clients: wait until there is");
    const json_t *under_way = json_object_get(cluster, "switchover");
    if (json_is_object(under_way))
        return error_set(error, "a switchover from %s to %s is under way", text_of(under_way, "from"),
                         *text_of(under_way, "to") != '\0' ? text_of(under_way, "to") : "the best standby");
    return OK;
}

static status check_target(const json_t *member, struct error *error) {
    const char *name = text_of(member, "name"), *duty = text_of(member, "duty"), *state = text_of(member, "state");
    int64_t lag = number_of(member, "lag_bytes");
    char size[TEXT_MAX];
    if (strcmp(duty, "primary") == 0)
        return error_set(error, "%s is the primary already", name);
    if (strcmp(duty, "witness") == 0)
        return error_set(error, "%s is a witness: it holds no data", name);
    if (strcmp(duty, "observer") == 0)
        return error_set(error, "%s is an observer: it has no vote, and no commit waits for it", name);
    if (strcmp(state, "streaming") != 0 && lag >= 0)
        return error_set(error, "%s is %s, not streaming, and %s behind", name, state, text_bytes((uint64_t)lag, size));
    if (strcmp(state, "streaming") != 0)
        return error_set(error, "%s is %s, not streaming", name, state);
    if (lag > (int64_t)SWITCHOVER_LAG_MAX)
        return error_set(error, "%s is %s behind: wait until it has caught up", name, text_bytes((uint64_t)lag, size));
    return OK;
}

static status find_target(const json_t *cluster, const char *to, const json_t **ret_member, struct error *error) {
    size_t i;
    const json_t *member;
    const char *names[MEMBERS_MAX + 1] = {NULL};
    json_array_foreach(json_object_get(cluster, "members"), i, member) {
        if (strcmp(text_of(member, "name"), to) == 0) {
            *ret_member = member;
            return OK;
        }
        if (i < MEMBERS_MAX)
            names[i] = text_of(member, "name");
    }
    const char *nearest = nearest_name(to, names);
    return error_set(error, "there is no member \"%s\"%s%s%s", to, nearest != NULL ? ": did you mean " : "",
                     nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
}

/* The standby that is least behind; when none will do, why each will not. */
static status find_best(const json_t *cluster, const json_t **ret_member, struct error *error) {
    size_t i;
    const json_t *member, *best = NULL;
    struct error reasons = {"no standby can take over"};
    json_array_foreach(json_object_get(cluster, "members"), i, member) {
        struct error reason;
        if (strcmp(text_of(member, "duty"), "standby") != 0)
            continue;
        if (check_target(member, &reason) != OK) {
            size_t at = strlen(reasons.text);
            snprintf(reasons.text + at, sizeof reasons.text - at, "; %.120s", reason.text);
        } else if (best == NULL || number_of(member, "lag_bytes") < number_of(best, "lag_bytes")) {
            best = member;
        }
    }
    if (best == NULL)
        return error_set(error, "%s", reasons.text);
    *ret_member = best;
    return OK;
}

status switchover_plan(const json_t *json, const char *to, struct switchover_plan *ret_plan, struct error *error) {
    const json_t *target;
    if (check_cluster(json, error) != OK)
        return FAILED;
    if (*to == '\0' && find_best(json, &target, error) != OK)
        return FAILED;
    if (*to != '\0' && (find_target(json, to, &target, error) != OK || check_target(target, error) != OK))
        return FAILED;
    struct switchover_plan plan = {.epoch = number_of(json, "epoch"), .lag_bytes = number_of(target, "lag_bytes")};
    snprintf(plan.from, sizeof plan.from, "%s", text_of(json, "primary"));
    snprintf(plan.to, sizeof plan.to, "%s", to);
    *ret_plan = plan;
    return OK;
}

enum switchover_outcome switchover_outcome(const struct switchover_plan *plan, int64_t number, const json_t *cluster) {
    bool open = json_is_true(json_object_get(cluster, "open"));
    const char *primary = text_of(cluster, "primary");
    /* The daemon that we ask may not have applied the request itself yet. */
    if (number_of(cluster, "index") < number || !open)
        return SWITCHOVER_UNDER_WAY;
    if (number_of(cluster, "epoch") > plan->epoch)
        return strcmp(primary, plan->to) == 0 || (*plan->to == '\0' && strcmp(primary, plan->from) != 0)
                   ? SWITCHOVER_DONE
                   : SWITCHOVER_FAILED;
    bool ended = number_of(json_object_get(cluster, "switchover"), "number") != number;
    return ended ? SWITCHOVER_FAILED : SWITCHOVER_UNDER_WAY;
}

/* ---- doing it ---- */

static bool confirmed(const struct switchover_plan *plan, const char *name) {
    char size[TEXT_MAX], answer[16];
    printf("Switch %s over: primary %s -> %s%s.\n"
           "Writes pause shortly, sessions on %s end; %s then follows as a standby. ",
           name, plan->from, *plan->to != '\0' ? plan->to : "the best standby",
           plan->lag_bytes < 0    ? ""
           : plan->lag_bytes == 0 ? ", which has received everything"
                                  : ", which is a little behind",
           plan->from, plan->from);
    if (plan->lag_bytes > 0)
        printf("It lacks %s. ", text_bytes((uint64_t)plan->lag_bytes, size));
    printf("Go on? [y/N] ");
    fflush(stdout);
    return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

static void wait_ms(long milliseconds) {
    struct timespec interval = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    nanosleep(&interval, NULL);
}

/* Why it failed stands in the record. */
static void print_reasons(const struct client *client, int64_t number) {
    struct error error;
    json_t *history;
    if (client_get(client, "/v1/history", &history, &error) != OK)
        return;
    size_t i;
    const json_t *entry;
    json_array_foreach(json_object_get(history, "history"), i,
                       entry) if (number_of(entry, "index") > number && *text_of(entry, "reason") != '\0')
        fprintf(stderr, "  %s: %s\n", text_of(entry, "kind"), text_of(entry, "reason"));
    json_decref(history);
}

static int print_outcome(const struct client *client, enum switchover_outcome outcome, const json_t *cluster,
                         int64_t number, nsec began) {
    char duration[TEXT_MAX];
    text_duration(msec_between(began, time_now()), duration);
    if (outcome == SWITCHOVER_DONE) {
        printf("%s is the primary since epoch %lld, after %s\n", text_of(cluster, "primary"),
               (long long)number_of(cluster, "epoch"), duration);
        return EXIT_DONE;
    }
    fprintf(stderr, "ttorch: the switchover failed after %s: %s is the primary, epoch %lld\n", duration,
            text_of(cluster, "primary"), (long long)number_of(cluster, "epoch"));
    print_reasons(client, number);
    return EXIT_FAILED;
}

static int follow(const struct client *client, const struct switchover_plan *plan, int64_t number, nsec began,
                  double timeout) {
    nsec deadline = began + (nsec)(timeout * (double)NSEC_PER_SEC);
    struct error error = {"it is still under way"};
    while (time_now() < deadline) {
        json_t *cluster;
        if (client_get(client, "/v1/status", &cluster, &error) == OK) {
            enum switchover_outcome outcome = switchover_outcome(plan, number, cluster);
            int code = outcome != SWITCHOVER_UNDER_WAY ? print_outcome(client, outcome, cluster, number, began) : -1;
            json_decref(cluster);
            if (code >= 0)
                return code;
            error_set(&error, "it is still under way");
        }
        wait_ms(POLL_INTERVAL_MS);
    }
    fprintf(stderr, "ttorch: no outcome within %g s: %s; see ttorch status\n", timeout, error.text);
    return EXIT_FAILED;
}

static int switch_over(const struct client *client, const struct switchover_plan *plan, double timeout) {
    struct error error;
    json_t *answer, *body = *plan->to != '\0' ? json_pack("{s:s}", "to", plan->to) : json_object();
    nsec began = time_now();
    status result = client_post(client, "/v1/switchover", body, &answer, &error);
    json_decref(body);
    if (result != OK)
        return cli_failed(&error);
    int64_t number = number_of(answer, "number");
    json_decref(answer);
    return follow(client, plan, number, began, timeout);
}

static int plan_and_switch_over(const struct client *client, const char *to, bool yes, double timeout) {
    struct error error;
    json_t *cluster;
    struct switchover_plan plan;
    if (client_get(client, "/v1/status", &cluster, &error) != OK)
        return cli_failed(&error);
    bool possible = switchover_plan(cluster, to, &plan, &error) == OK;
    bool wanted = possible && (yes || !isatty(STDIN_FILENO) || confirmed(&plan, text_of(cluster, "cluster")));
    json_decref(cluster);
    if (!possible)
        return cli_failed(&error);
    return wanted ? switch_over(client, &plan, timeout) : EXIT_FAILED;
}

static int run(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    const char *to = "";
    bool yes = false;
    double timeout = 60;
    const struct option_row rows[] = {
        {"--to", OPTION_TEXT, "MEMBER", "the next primary; the best standby if not said", &to, NULL},
        {"--yes", OPTION_FLAG, NULL, "do not ask first", &yes, NULL},
        {"--timeout", OPTION_SECONDS, "SECONDS", "how long to wait for the outcome (60)", &timeout, NULL},
        {0}};
    enum parsed parsed = options_parse(verb, cli, rows, argc, argv);
    if (parsed != PARSED)
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    struct client client;
    if (cli_connect(cli, &client) != OK)
        return EXIT_FAILED;
    return plan_and_switch_over(&client, to, yes, timeout);
}

const struct verb verb_switchover = {
    "switchover", "[--to MEMBER] [--yes] [--timeout SECONDS]", "make another member the primary, losing nothing",
    "\nWrites pause while the primary stops, its last WAL reaches the next one and that is promoted. The old\n"
    "primary follows as a standby. When it cannot be done in time the old primary goes on, in a new epoch.\n",
    run};
