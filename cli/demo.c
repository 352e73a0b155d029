/* `ttorch demo`: founds a throw-away cluster, writes to it, breaks it round by round, and tells what a client saw. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/panic.h"
#include "cli/cli.h"
#include "cli/demo_cluster.h"
#include "cli/demo_faults.h"
#include "cli/demo_ledger.h"
#include "cli/demo_report.h"
#include "cli/demo_screen.h"
#include "cli/demo_watch.h"
#include "cli/status_table.h"

#define STEP_MS        50     /* between two looks at the cluster */
#define FOUND_LIMIT_MS 120000 /* initdb and six clones on a small machine */
#define ROUND_LIMIT_MS 90000  /* for each part of a round */
#define QUIET_MS       1000   /* of undisturbed writing before a fault */
#define RESTARTS_MAX   20     /* of daemons that ended by themselves */
#define LOG_TAIL       6      /* lines of each log that are shown when the demo fails */

struct options {
    unsigned members, rounds;
    const struct fault *fault;
    const char *lease, *directory, *stop;
    bool json, keep;
};

struct demo {
    struct options options;
    struct cluster cluster;
    struct screen screen;
    struct ledger *ledger;
    struct demo_report report;
    json_t *status; /* as of the last step; NULL when no daemon answers */
    char told[512]; /* its summary, as last told */
    bool founded;   /* a daemon that ends by itself from now on is started again */
    unsigned restarts;
    int signal_fd;
    int interrupted; /* by this signal; 0 = not */

    struct {
        unsigned struck; /* member */
        json_int_t epoch;
        pid_t postmaster;
        nsec began, struck_at;
    } round; /* the one under way */
};

/* ---- command line ---- */

static void print_usage(FILE *out) {
    fprintf(out,
            "usage: ttorch demo [OPTIONS]\n"
            "Founds a throw-away cluster on this machine, writes to it, strikes its primary, and tells what was seen.\n"
            "\n"
            "  --members N      3 to 7 (3)\n"
            "  --fault FAULT    what strikes the primary (kill):\n"
            "                     kill        PostgreSQL is killed\n"
            "                     host        everything is killed at once: PostgreSQL, ttorchd, guard\n"
            "                     freeze      PostgreSQL hangs\n"
            "                     daemon      ttorchd alone is killed: nothing is to be noticed\n"
            "                     switchover  it hands over, as asked\n"
            "  --rounds N       how often (1); 0 = only found\n"
            "  --lease TIME     how long a primary may go on without a majority (2s)\n"
            "  --json           one object on stdout instead of text\n"
            "  --keep           leave the cluster running, and tell how to look around\n"
            "  --directory DIR  where, instead of in a fresh directory in $TMPDIR; must not exist\n"
            "  --stop DIR       end a cluster that --keep left running\n"
            "\n"
            "Exit codes: 0 all rounds were completed and nothing was lost, 1 not so, 2 wrong command line\n");
}

static bool parse_number(const char *name, const char *text, unsigned from, unsigned to, unsigned *ret_number) {
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && number >= from && number <= to) {
        *ret_number = (unsigned)number;
        return true;
    }
    fprintf(stderr, "ttorch demo: --%s %s: write a number from %u to %u\n", name, text, from, to);
    return false;
}

static bool parse_fault(const char *text, const struct fault **ret_fault) {
    *ret_fault = fault_named(text);
    if (!*ret_fault)
        fprintf(stderr, "ttorch demo: --fault %s: write one of %s\n", text, fault_names());
    return *ret_fault != NULL;
}

static bool parse_lease(const char *text, const char **ret_lease) {
    size_t digits = strspn(text, "0123456789");
    *ret_lease = text;
    if (digits > 0 && digits < 7 && (strcmp(text + digits, "s") == 0 || strcmp(text + digits, "ms") == 0))
        return true;
    fprintf(stderr, "ttorch demo: --lease %s: write a time as 2s or 800ms\n", text);
    return false;
}

static bool parse_option(struct options *options, int option) {
    switch (option) {
    case 'm':
        return parse_number("members", optarg, 3, DEMO_MEMBERS_MAX, &options->members);
    case 'r':
        return parse_number("rounds", optarg, 0, ROUNDS_MAX, &options->rounds);
    case 'f':
        return parse_fault(optarg, &options->fault);
    case 'l':
        return parse_lease(optarg, &options->lease);
    case 'd':
        options->directory = optarg;
        return true;
    case 's':
        options->stop = optarg;
        return true;
    case 'j':
        return options->json = true;
    case 'k':
        return options->keep = true;
    default:
        return false;
    }
}

/* Returns an exit_code, or -1 to go on. */
static int parse_options(struct options *options, int argc, char **argv) {
    static const struct option rows[] = {{"members", required_argument, NULL, 'm'},
                                         {"rounds", required_argument, NULL, 'r'},
                                         {"fault", required_argument, NULL, 'f'},
                                         {"lease", required_argument, NULL, 'l'},
                                         {"directory", required_argument, NULL, 'd'},
                                         {"stop", required_argument, NULL, 's'},
                                         {"json", no_argument, NULL, 'j'},
                                         {"keep", no_argument, NULL, 'k'},
                                         {"help", no_argument, NULL, 'h'},
                                         {0}};
    *options = (struct options){.members = 3, .rounds = 1, .fault = fault_named("kill"), .lease = "2s"};
    optind = 0;
    for (int option; (option = getopt_long(argc, argv, "", rows, NULL)) != -1;) {
        if (option == 'h') {
            print_usage(stdout);
            return EXIT_DONE;
        }
        if (!parse_option(options, option))
            return EXIT_USAGE;
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "ttorch demo: unexpected \"%s\": see ttorch demo --help\n", argv[optind]);
    return EXIT_USAGE;
}

/* ---- one step: signals, daemons, status, screen ---- */

static status demo_reap(struct demo *demo, struct error *error) {
    int ended;
    if (cluster_reap(&demo->cluster, &ended, error) != OK)
        return FAILED;
    if (ended < 0)
        return OK;
    const char *name = demo->cluster.members[ended].name;
    if (!demo->founded)
        return error_set(error, "ttorchd of %s ended", name);
    if (++demo->restarts > demo->report.rounds_count + RESTARTS_MAX)
        return error_set(error, "ttorchd of %s ended by itself once more", name);
    screen_say(&demo->screen, "ttorchd of %s ended and was started again", name);
    return OK;
}

static status demo_signals(struct demo *demo, struct error *error) {
    struct signalfd_siginfo signal;
    while (read(demo->signal_fd, &signal, sizeof signal) == sizeof signal)
        if (signal.ssi_signo != SIGCHLD) {
            demo->interrupted = (int)signal.ssi_signo;
            return error_set(error, "interrupted");
        }
    return demo_reap(demo, error);
}

static void print_ledger_line(FILE *out, const struct demo *demo) {
    struct ledger_ack newest;
    size_t count = demo->ledger ? ledger_newest(demo->ledger, &newest) : 0;
    if (count == 0)
        return;
    uint64_t ago = msec_between(newest.acknowledged_at, time_now());
    if (ago < 100)
        fprintf(out, "\n%zu rows acknowledged\n", count);
    else
        fprintf(out, "\n%zu rows acknowledged, none for %llu ms\n", count, (unsigned long long)ago);
}

static void demo_draw(struct demo *demo) {
    char *text = NULL, summary[sizeof demo->told];
    size_t size;
    status_summary(demo->status, summary, sizeof summary);
    if (!demo->screen.live) {
        if (strcmp(summary, demo->told) != 0)
            screen_say(&demo->screen, "  %s", summary);
        memcpy(demo->told, summary, sizeof summary);
        return;
    }
    FILE *out = open_memstream(&text, &size);
    require(out != NULL);
    fputc('\n', out);
    if (demo->status && status_epoch(demo->status) > 0)
        status_table_print(out, demo->status, true);
    else
        fprintf(out, "%s\n", summary);
    print_ledger_line(out, demo);
    fclose(out);
    screen_draw(&demo->screen, text);
    free(text);
}

/* Waits for a signal, but not long, and looks at everything anew. */
static status demo_step(struct demo *demo, struct error *error) {
    poll(&(struct pollfd){.fd = demo->signal_fd, .events = POLLIN}, 1, STEP_MS);
    if (demo_signals(demo, error) != OK)
        return FAILED;
    json_decref(demo->status);
    demo->status = watch_status(&demo->cluster);
    demo_draw(demo);
    return OK;
}

static status demo_await(struct demo *demo, bool (*reached)(struct demo *demo), uint64_t limit_ms, const char *what,
                         struct error *error) {
    const nsec limit = time_now() + msec(limit_ms);
    do {
        if (time_now() > limit)
            return error_set(error, "%s: not within %llu s", what, (unsigned long long)limit_ms / 1000);
        if (demo_step(demo, error) != OK)
            return FAILED;
    } while (!reached(demo));
    return OK;
}

/* ---- founding ---- */

static bool is_redundant(struct demo *demo) { return status_redundant(demo->status); }

static status demo_found(struct demo *demo, struct error *error) {
    const struct options *options = &demo->options;
    struct cluster *cluster = &demo->cluster;
    const nsec began = time_now();
    if (cluster_make(cluster, options->members, options->lease, options->directory, error) != OK)
        return FAILED;
    screen_say(&demo->screen, "%u members in %s%s%s", cluster->count, cluster->directory,
               cluster->user[0] ? ", run by user " : "", cluster->user);
    for (unsigned i = 0; i < cluster->count; i++)
        if (cluster_start(cluster, i, error) != OK)
            return FAILED;
    if (demo_await(demo, is_redundant, FOUND_LIMIT_MS, "founding: all members stream", error) != OK)
        return FAILED;
    demo->founded = true;
    screen_say(&demo->screen, "founded in %.1f s: all members stream, and commits wait for standbys",
               (double)msec_between(began, time_now()) / 1000);
    return OK;
}

static int demo_primary(const struct demo *demo) { return cluster_find(&demo->cluster, status_primary(demo->status)); }

static status demo_open_ledger(struct demo *demo, struct error *error) {
    const char *conninfos[DEMO_MEMBERS_MAX];
    int primary = demo_primary(demo);
    if (primary < 0)
        return error_set(error, "ledger: no primary");
    if (ledger_found(demo->cluster.members[primary].conninfo, demo->cluster.password, error) != OK)
        return FAILED;
    for (unsigned i = 0; i < demo->cluster.count; i++)
        conninfos[i] = demo->cluster.members[i].conninfo;
    return ledger_start(&demo->ledger, conninfos, demo->cluster.count, error);
}

/* ---- a round ---- */

static bool is_quiet(struct demo *demo) {
    struct ledger_ack newest;
    nsec now = time_now();
    return status_redundant(demo->status) && demo_primary(demo) >= 0 && now > demo->round.began + msec(QUIET_MS) &&
           ledger_newest(demo->ledger, &newest) > 0 && newest.acknowledged_at + msec(QUIET_MS / 2) > now;
}

static bool has_moved(const struct demo *demo) {
    return status_open(demo->status) && status_epoch(demo->status) > demo->round.epoch;
}

static bool is_written(struct demo *demo) {
    struct ledger_ack newest;
    return (has_moved(demo) || !demo->options.fault->moves_primary) && ledger_newest(demo->ledger, &newest) > 0 &&
           newest.sent_at > demo->round.struck_at;
}

/* The member that was struck must say so itself: the others may not have noticed yet that it was away. */
static bool is_whole(struct demo *demo) {
    if (!status_redundant(demo->status))
        return false;
    json_t *own = watch_member(&demo->cluster, demo->round.struck);
    bool whole = status_redundant(own);
    json_decref(own);
    return whole;
}

/* A fault that ends the lease is seen after it, not at once. */
static bool is_lease_over(struct demo *demo) {
    json_int_t lease = json_integer_value(json_object_get(demo->status, "lease_ms"));
    return lease > 0 && time_now() > demo->round.struck_at + msec(2 * (uint64_t)lease) && is_whole(demo);
}

static status round_strike(struct demo *demo, struct demo_round *round, struct error *error) {
    const struct fault *fault = demo->options.fault;
    demo->round.began = time_now();
    if (demo_await(demo, is_quiet, ROUND_LIMIT_MS, "writes go on undisturbed", error) != OK)
        return FAILED;
    demo->round.struck = (unsigned)demo_primary(demo);
    demo->round.epoch = status_epoch(demo->status);
    demo->round.postmaster = cluster_postmaster(&demo->cluster, demo->round.struck);
    round->fault = fault->name;
    snprintf(round->from, sizeof round->from, "%s", status_primary(demo->status));
    screen_say(&demo->screen, "round %u: %s %s", demo->report.rounds_count + 1, fault->told, round->from);
    return fault->strike(&demo->cluster, demo->round.struck, &demo->round.struck_at, error);
}

static status round_heal(struct demo *demo, struct demo_round *round, struct error *error) {
    const struct fault *fault = demo->options.fault;
    if (demo_await(demo, is_written, ROUND_LIMIT_MS, "writes go on after the fault", error) != OK ||
        fault->mend(&demo->cluster, demo->round.struck, error) != OK ||
        demo_await(demo, is_whole, ROUND_LIMIT_MS, "all members stream again", error) != OK)
        return FAILED;
    round->redundant_ms = msec_between(demo->round.struck_at, time_now());
    return fault->moves_primary ? OK
                                : demo_await(demo, is_lease_over, ROUND_LIMIT_MS, "all members go on to stream", error);
}

static status round_check_unmoved(const struct demo *demo, struct error *error) {
    if (demo->options.fault->moves_primary)
        return OK;
    if (cluster_postmaster(&demo->cluster, demo->round.struck) != demo->round.postmaster)
        return error_set(error, "PostgreSQL was restarted, which this fault must not do");
    if (status_epoch(demo->status) != demo->round.epoch)
        return error_set(error, "the primary changed, which this fault must not do");
    return OK;
}

static status round_measure(struct demo *demo, struct demo_round *round, struct error *error) {
    struct ledger_ack *acks;
    size_t lost, count = ledger_acks(demo->ledger, &acks);
    nsec struck_at = demo->round.struck_at;
    int primary = demo_primary(demo);
    snprintf(round->to, sizeof round->to, "%s", status_primary(demo->status));
    const struct gap outage = acks_longest_gap(acks, count, struck_at, time_now());
    round->outage_ms = msec_between(outage.began, outage.ended);
    round->next_write_ms = msec_between(struck_at, outage.ended);
    status outcome = primary < 0
                         ? error_set(error, "no primary to look for the rows on")
                         : ledger_count_lost(demo->cluster.members[primary].conninfo, acks, count, &lost, error);
    free(acks);
    if (outcome != OK)
        return FAILED;
    round->lost = lost > demo->report.lost ? lost - demo->report.lost : 0;
    demo->report.lost += round->lost;
    demo->report.rounds_count++;
    screen_say(&demo->screen, "  outage %llu ms, %zu rows lost, all members stream after %.1f s; primary %s",
               (unsigned long long)round->outage_ms, round->lost, (double)round->redundant_ms / 1000, round->to);
    return round_check_unmoved(demo, error);
}

static status demo_round(struct demo *demo, struct error *error) {
    struct demo_round *round = &demo->report.rounds[demo->report.rounds_count];
    return round_strike(demo, round, error) == OK && round_heal(demo, round, error) == OK
               ? round_measure(demo, round, error)
               : FAILED;
}

static status demo_run(struct demo *demo, struct error *error) {
    if (demo_found(demo, error) != OK || demo_open_ledger(demo, error) != OK)
        return FAILED;
    for (unsigned i = 0; i < demo->options.rounds; i++)
        if (demo_round(demo, error) != OK)
            return error_prefix(error, "round %u", i + 1);
    return OK;
}

/* ---- the end ---- */

static void print_tail(FILE *out, const char *path) {
    char lines[LOG_TAIL][256] = {{0}};
    unsigned count = 0;
    FILE *log = fopen(path, "re");
    if (!log)
        return;
    while (fgets(lines[count % LOG_TAIL], sizeof lines[0], log))
        count++;
    fclose(log);
    fprintf(out, "%s ends with\n", path);
    for (unsigned i = count > LOG_TAIL ? count - LOG_TAIL : 0; i < count; i++) {
        const char *line = lines[i % LOG_TAIL];
        fprintf(out, "  %s%s", line, strchr(line, '\n') ? "" : "\n");
    }
}

static void print_hints(FILE *out, const struct cluster *cluster) {
    const char *directory = cluster->directory, *ttorch = cluster->ttorch;
    const struct cluster_member *first = &cluster->members[0];
    fprintf(out,
            "\nThe cluster runs on, in %s. To look around:\n"
            "  %s --config %s status --watch\n"
            "  %s --config %s history\n"
            "  %s --config %s switchover\n"
            "  export PGUSER=postgres PGPASSFILE=%s/pgpass\n"
            "  psql \"$(%s --config %s dsn)\"\n"
            "  tail -F %s/*.log\n"
            "To end it and remove its directory:\n"
            "  %s demo --stop %s\n",
            directory, ttorch, first->config, ttorch, first->config, ttorch, first->config, directory, ttorch,
            first->config, directory, ttorch, directory);
}

static void print_json(const struct demo *demo, bool kept) {
    json_t *all = report_json(&demo->report);
    if (kept)
        json_object_set_new(all, "directory", json_string(demo->cluster.directory));
    json_dumpf(all, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

static void print_report(struct demo *demo, status outcome, const struct error *error) {
    struct ledger_ack *acks = NULL;
    const bool keep = demo->options.keep && !demo->interrupted;
    demo->report.acks_count = demo->ledger ? ledger_acks(demo->ledger, &acks) : 0;
    demo->report.acks = acks;
    demo->report.members = demo->options.members;
    demo->report.problem = outcome == OK ? "" : error->text;
    if (demo->options.json)
        print_json(demo, keep);
    else
        report_print(stdout, &demo->report);
    if (outcome != OK) {
        fflush(stdout);
        fprintf(stderr, "ttorch demo: %s\n", error->text);
        for (unsigned i = 0; i < demo->cluster.count && !demo->interrupted; i++)
            print_tail(stderr, demo->cluster.members[i].log);
    }
    if (keep && demo->cluster.made)
        print_hints(demo->options.json ? stderr : stdout, &demo->cluster);
    fflush(stdout);
    free(acks);
}

static int demo_end(struct demo *demo, status outcome, const struct error *error) {
    screen_close(&demo->screen);
    print_report(demo, outcome, error);
    ledger_stop(demo->ledger);
    json_decref(demo->status);
    if (demo->interrupted || !demo->options.keep) {
        cluster_kill(&demo->cluster);
        cluster_remove(&demo->cluster);
    }
    close(demo->signal_fd);
    if (demo->interrupted)
        return 128 + demo->interrupted;
    return outcome == OK && demo->report.lost == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* Blocked in all threads; read in demo_step. With every orphan our child, nothing of the demo can get out of sight. */
static status demo_prepare(struct demo *demo, struct error *error) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return error_set(error, "could not prepare: %s", strerror(errno));
    demo->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return demo->signal_fd >= 0 ? OK : error_set(error, "signalfd: %s", strerror(errno));
}

int demo_main(int argc, char **argv) {
    struct error error = {{0}};
    struct options options;
    int code = parse_options(&options, argc, argv);
    if (code >= 0)
        return code;
    if (options.stop) {
        if (cluster_stop(options.stop, &error) == OK)
            return EXIT_DONE;
        fprintf(stderr, "ttorch demo: %s\n", error.text);
        return EXIT_FAILED;
    }
    struct demo *demo = calloc(1, sizeof *demo);
    require(demo != NULL);
    demo->options = options;
    FILE *out = !options.json ? stdout : isatty(STDERR_FILENO) ? stderr : NULL;
    screen_open(&demo->screen, out, out && isatty(fileno(out)));
    status outcome = demo_prepare(demo, &error);
    if (outcome == OK)
        outcome = demo_run(demo, &error);
    code = demo_end(demo, outcome, &error);
    free(demo);
    return code;
}
