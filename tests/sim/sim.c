/* Many seeds of the modelled cluster: what was run, how fast, and whether an invariant broke. A seed that fails is
 * minimised (faults are dropped while it still fails) and told as a transcript.
 *
 * A step is one call of core_step or one event of the model (WAL streamed, acknowledgement, reload, message, fault...).
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/world.h"

#define HEALS_WITHIN msec(120000) /* after the last fault is mended: I8 */

static struct world *world;
static volatile uint64_t seed_under_way;

struct totals {
    uint64_t seeds, steps, core_steps, failovers, waiting, violations;
    double used; /* seconds of processor time */
};

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double seconds_now(void) { return seconds_of(CLOCK_MONOTONIC); }
static double seconds_used(void) { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

/* ---- one run ---- */

static void explain_stuck(void) {
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct modelled_member *m = &world->members[i];
        tell(world, (int)i,
             "up %d, %s, data %s, copy %u, epoch %u%s%s, rules %u, %s %s, cut %d, attached %u, streams %d, position "
             "%u/%llu, "
             "trouble \"%s\", coordinator: \"%s\"",
             m->up, server_state_name(m->postgres.server), data_state_name(m->postgres.data), m->postgres.copy,
             m->core.topology.epoch, m->core.topology.sealed ? " sealed" : "", m->core.topology.open ? " open" : "",
             m->core.topology.rules_count, m->core.job.running ? "doing" : "last",
             operation_kind_name(m->core.job.operation.kind), m->core.cut.valid, m->core.attached_epoch,
             m->postgres.streaming, position_of(&m->postgres).timeline,
             (unsigned long long)position_of(&m->postgres).lsn, m->core.job.trouble, m->core.coordinator.why);
    }
}

/* Whoever has WAL of a later epoch has all that was acknowledged in `epoch`; but an observer is not asked. */
static bool somebody_is_later(uint32_t epoch) {
    for (unsigned i = 0; i < world->members_count; i++)
        if (!is_observer_member(world, i) && world->members[i].postgres.data == DATA_COMPLETE &&
            position_of(&world->members[i].postgres).timeline > world->topology.timeline_offset + epoch)
            return true;
    return false;
}

/* What docs/SIMULATOR.md says under "Known limits": nobody but the old primary is known to have everything, and a fault
 * took its disk. */
static bool waits_for_help(void) {
    const Topology *topology = &world->topology;
    for (unsigned i = 0; i < topology->rules_count && topology->sealed; i++) {
        const Rule *rule = &topology->rules[i];
        const struct modelled_postgres *primary = &world->members[rule->primary.member - 1].postgres;
        if (rule->needed == 0 && topology->settings.durability == DURABILITY_QUORUM &&
            (primary->lost_copies >> rule->primary.copy % 64 & 1) != 0 && !somebody_is_later(rule->epoch))
            return true;
    }
    return false;
}

/* True if all invariants held. */
static bool run(const struct plan *plan, bool trace, struct totals *totals) {
    seed_under_way = plan->seed;
    world->trace = trace;
    world_init(world, plan);
    world_advance(world, plan->ends - world->now);
    if (world->violation[0] == '\0' && !world_run(world, world_is_redundant, HEALS_WITHIN) &&
        world->violation[0] == '\0') {
        if (waits_for_help()) {
            tell(world, -1, "it waits for help");
            totals->waiting++;
        } else
            violated(world, "I8: it does not heal within %u s", (unsigned)(HEALS_WITHIN / NSEC_PER_SEC));
        explain_stuck();
    }
    check_end(world);
    totals->seeds++;
    totals->steps += world->core_steps + world->events;
    totals->core_steps += world->core_steps;
    totals->failovers += world->failovers;
    return world->violation[0] == '\0';
}

static bool still_fails(const struct plan *plan) {
    struct totals unused = {0};
    return !run(plan, false, &unused);
}

static void minimise(struct plan *plan) {
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = 0; i < plan->faults_count; i++) {
            if (plan->faults[i].off)
                continue;
            plan->faults[i].off = true;
            if (still_fails(plan))
                again = true;
            else
                plan->faults[i].off = false;
        }
    }
}

static void report(struct plan *plan) {
    struct totals unused = {0};
    minimise(plan);
    printf("seed %llu: %u members (%u witnesses, %u observers), durability %s, lease %u ms; the transcript with as few "
           "faults as "
           "fail:\n",
           (unsigned long long)plan->seed, plan->members, plan->witnesses, plan->observers,
           durability_name(plan->durability), plan->lease_ms);
    run(plan, true, &unused);
    printf("seed %llu: %s\n", (unsigned long long)plan->seed, world->violation);
}

/* ---- many runs ---- */

struct options {
    double seconds;
    uint64_t seed, seeds; /* 0 = as many as there is time for */
    unsigned jobs;
    int bug;
    bool json, trace, tap, keep_going;
};

static void say_totals(const struct options *options, const struct totals *totals) {
    double took = totals->used, rate = took > 0 ? (double)totals->steps / took : 0,
           core_rate = took > 0 ? (double)totals->core_steps / took : 0;
    if (options->json)
        printf("{\"seeds\":%llu,\"steps\":%llu,\"steps_per_s\":%.0f,\"core_steps\":%llu,\"core_steps_per_s\":%.0f,"
               "\"failovers\":%llu,\"failovers_per_minute\":%.0f,\"first_seed\":%llu,\"waiting\":%llu,"
               "\"violations\":%llu}\n",
               (unsigned long long)totals->seeds, (unsigned long long)totals->steps, rate,
               (unsigned long long)totals->core_steps, core_rate, (unsigned long long)totals->failovers,
               took > 0 ? (double)totals->failovers * 60 / took : 0, (unsigned long long)options->seed,
               (unsigned long long)totals->waiting, (unsigned long long)totals->violations);
    else
        printf("%llu seeds from %llu, %llu steps (%.0f a second), %llu failovers, %llu wait for help, "
               "%llu violations\n",
               (unsigned long long)totals->seeds, (unsigned long long)options->seed, (unsigned long long)totals->steps,
               rate, (unsigned long long)totals->failovers, (unsigned long long)totals->waiting,
               (unsigned long long)totals->violations);
}

/* Every `jobs`th seed, from the `job`th on. */
static struct totals run_many(const struct options *options, unsigned job) {
    struct totals totals = {0};
    double began = seconds_now(), used = seconds_used();
    for (uint64_t i = job; (options->seeds == 0 || i < options->seeds) &&
                           (options->seconds <= 0 || seconds_now() - began < options->seconds);
         i += options->jobs) {
        struct plan plan;
        plan_draw(&plan, options->seed + i, options->bug);
        if (run(&plan, options->trace, &totals))
            continue;
        totals.violations++;
        if (options->keep_going) {
            printf("seed %llu: %s\n", (unsigned long long)plan.seed, world->violation);
            continue;
        }
        report(&plan);
        break;
    }
    totals.used = seconds_used() - used;
    return totals;
}

static void add_totals(struct totals *sum, const struct totals *totals) {
    sum->seeds += totals->seeds;
    sum->steps += totals->steps;
    sum->core_steps += totals->core_steps;
    sum->failovers += totals->failovers;
    sum->waiting += totals->waiting;
    sum->violations += totals->violations;
    sum->used += totals->used;
}

/* Each job in a process of its own, which writes its totals when it is done. One that dies is a violation, too. */
static int run_jobs(const struct options *options) {
    struct totals sum = {0}, totals;
    int ends[2];
    if (pipe(ends) != 0)
        return 2;
    fflush(stdout);
    for (unsigned job = 0; job < options->jobs; job++) {
        pid_t child = options->jobs > 1 ? fork() : 0;
        if (child > 0)
            continue;
        totals = run_many(options, job);
        if (write(ends[1], &totals, sizeof totals) != (ssize_t)sizeof totals)
            return 2;
        if (options->jobs > 1)
            exit(0);
    }
    close(ends[1]);
    for (unsigned job = 0; job < options->jobs; job++)
        if (read(ends[0], &totals, sizeof totals) == (ssize_t)sizeof totals)
            add_totals(&sum, &totals);
        else
            sum.violations++;
    while (options->jobs > 1 && wait(NULL) > 0)
        continue;
    close(ends[0]);
    say_totals(options, &sum);
    return sum.violations > 0;
}

/* ---- each planted bug must be found ---- */

static const unsigned long together[PLANTED_COUNT] = {
    [PLANTED_BARRIER] = 1ul << PLANTED_PLEDGE, /* each covers the other */
    [PLANTED_PLEDGE] = 1ul << PLANTED_BARRIER,
};

static void plant(int bug) { planted_bugs = bug < 0 ? 0 : 1ul << bug | together[bug]; }

/* Looks for one of this bug's seeds that fails with it and holds without, for `options->seconds` of processor time. */
static bool find_planted(const struct options *options, int bug, struct totals *totals, char *ret_violation) {
    double began = seconds_used();
    struct plan plan;
    while (seconds_used() - began < options->seconds) {
        plan_draw(&plan, options->seed + totals->seeds, bug);
        plant(bug);
        if (run(&plan, false, totals))
            continue;
        memcpy(ret_violation, world->violation, sizeof world->violation);
        plant(-1);
        struct totals unused = {0};
        if (run(&plan, false, &unused))
            return true;
        printf("# seed %llu fails without the bug: %s\n", (unsigned long long)plan.seed, world->violation);
    }
    return false;
}

static int find_all_planted(const struct options *options) {
    unsigned missed = 0;
    printf("1..%d\n", PLANTED_COUNT);
    for (int bug = 0; bug < PLANTED_COUNT; bug++) {
        const char *name = planted_name((unsigned)bug);
        struct totals totals = {0};
        char violation[sizeof world->violation] = "";
        bool found = find_planted(options, bug, &totals, violation);
        missed += !found;
        printf("%s %d - %s: %s after %llu seeds\n", found ? "ok" : "not ok", bug + 1, name,
               found ? violation : "not found", (unsigned long long)totals.seeds);
        fflush(stdout);
    }
    return missed > 0;
}

static void on_abort(int number) {
    char text[96];
    /* An assertion of ours failed, in no library function. NOLINTNEXTLINE(bugprone-signal-handler) */
    int length = snprintf(text, sizeof text, "# aborted in seed %llu\n", (unsigned long long)seed_under_way);
    if (write(2, text, (size_t)length) < 0)
        _exit(2);
    signal(number, SIG_DFL);
    raise(number);
}

static int bug_named(const char *name) {
    for (unsigned i = 0; i < PLANTED_COUNT; i++)
        if (strcmp(planted_name(i), name) == 0)
            return (int)i;
    fprintf(stderr, "sim: no such planted bug: %s\n", name);
    exit(2);
}

/* Others each time, unless SIM_SEED says which: ./dev test sets it, and says so. */
static uint64_t fresh_seed(void) {
    const char *given = getenv("SIM_SEED");
    return given != NULL && given[0] != '\0' ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000000;
}

int main(int argc, char **argv) {
    struct options options = {.seconds = 10, .seed = fresh_seed(), .jobs = 1, .bug = -1};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--json") == 0)
            options.json = true;
        else if (strcmp(argv[i], "--trace") == 0)
            options.trace = true;
        else if (strcmp(argv[i], "--keep-going") == 0)
            options.keep_going = true;
        else if (strcmp(argv[i], "--planted") == 0)
            options.tap = true;
        else if (strcmp(argv[i], "--seconds") == 0)
            options.seconds = atof(value), i++;
        else if (strcmp(argv[i], "--seed") == 0)
            options.seed = strtoull(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--seeds") == 0)
            options.seeds = strtoull(value, NULL, 10), options.seconds = 0, i++;
        else if (strcmp(argv[i], "--jobs") == 0)
            options.jobs = (unsigned)strtoul(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--plant") == 0)
            options.bug = bug_named(value), i++;
        else {
            fprintf(stderr, "usage: sim [--seconds N | --seeds N] [--seed S] [--jobs N] [--json] [--trace] "
                            "[--keep-going] [--plant BUG | --planted]\n");
            return 2;
        }
    }
    if (options.jobs < 1 || options.jobs > 64) {
        fprintf(stderr, "sim: --jobs is 1 to 64\n");
        return 2;
    }
    signal(SIGABRT, on_abort);
    signal(SIGSEGV, on_abort);
    world = calloc(1, sizeof *world);
    if (world == NULL)
        return 2;
    plant(options.bug);
    int failed = options.tap ? find_all_planted(&options) : run_jobs(&options);
    free(world);
    return failed;
}
