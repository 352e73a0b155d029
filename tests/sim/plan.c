/* The plan of a run: its settings and its faults, all from the seed. With a bug planted, of a kind in which it would
 * show sooner. */
#include <string.h>

#include "tests/sim/world.h"

#define FOUNDED msec(2500) /* the first fault comes after this */

static const char *const fault_names[FAULT_KINDS] = {
    "postgres is killed", "postgres freezes", "postgres is restarted", "daemon is killed",  "daemon freezes",
    "daemon is stopped",  "host is killed",   "host freezes",          "guard freezes",     "data directory is lost",
    "isolated",           "cut off one way",  "cut off from",          "messages get lost", "slow network",
    "slow apply",         "late proposals",   "leader changes",        "operations fail",   "promotions fail",
    "slow reload",        "switchover"};
const char *fault_name(enum fault_kind kind) { return fault_names[kind]; }

static const char *const planted_names[PLANTED_COUNT] = {
    "CUT",       "JOINT",     "UNIQTL",  "BARRIER", "PLEDGE",    "TAG",      "VOIDSEAL",
    "HIGHEST",   "FOLLOWCHK", "NAMES",   "COPY",    "BASECHK",   "NOBROKEN", "STANDBYRST",
    "SENDERS",   "DEFINED",   "ACKNEW",  "DOMIN",   "RETRY",     "PRESEAL",  "AMNESIA",
    "STALETOPO", "MIXED",     "DEADREP", "DRIFT",   "REPLYTIME", "EARLY",    "UNOPENED"};
const char *planted_name(unsigned bug) { return planted_names[bug]; }

/* How often each fault comes, and how long it lasts at most. */
static const struct {
    unsigned weight, most_ms;
} usual[FAULT_KINDS] = {
    [FAULT_POSTGRES_KILL] = {14, 0},     [FAULT_POSTGRES_FREEZE] = {5, 5000},
    [FAULT_POSTGRES_RESTART] = {4, 0},   [FAULT_DAEMON_KILL] = {8, 4000},
    [FAULT_DAEMON_FREEZE] = {5, 5000},   [FAULT_DAEMON_STOP] = {3, 6000},
    [FAULT_HOST_KILL] = {9, 8000},       [FAULT_HOST_FREEZE] = {4, 5000},
    [FAULT_GUARD_FREEZE] = {2, 4000},    [FAULT_DISK_LOST] = {4, 0},
    [FAULT_ISOLATE] = {8, 6000},         [FAULT_CUT_ONE_WAY] = {7, 6000},
    [FAULT_CUT_PAIR] = {6, 6000},        [FAULT_LOSS] = {3, 6000},
    [FAULT_SLOW_NETWORK] = {4, 6000},    [FAULT_SLOW_APPLY] = {4, 6000},
    [FAULT_LATE_PROPOSALS] = {4, 6000},  [FAULT_LEADER_CHANGE] = {6, 0},
    [FAULT_OPERATIONS_FAIL] = {4, 5000}, [FAULT_PROMOTIONS_FAIL] = {5, 5000},
    [FAULT_SLOW_RELOAD] = {4, 6000},     [FAULT_SWITCHOVER] = {9, 0},
};

/* The faults in which a planted bug shows. */
#define F(kind) (1ul << FAULT_##kind)
static const unsigned long favoured[PLANTED_COUNT] = {
    [PLANTED_CUT] = F(CUT_PAIR) | F(POSTGRES_KILL) | F(SWITCHOVER) | F(SLOW_APPLY),
    [PLANTED_JOINT] = F(SLOW_RELOAD) | F(HOST_KILL) | F(POSTGRES_FREEZE) | F(CUT_PAIR) | F(ISOLATE),
    [PLANTED_UNIQTL] = F(PROMOTIONS_FAIL) | F(POSTGRES_KILL) | F(ISOLATE) | F(HOST_KILL),
    [PLANTED_BARRIER] = F(DAEMON_KILL) | F(POSTGRES_KILL) | F(SLOW_APPLY) | F(CUT_PAIR) | F(CUT_ONE_WAY),
    [PLANTED_PLEDGE] = F(DAEMON_KILL) | F(POSTGRES_KILL) | F(SLOW_APPLY) | F(CUT_PAIR) | F(CUT_ONE_WAY),
    [PLANTED_TAG] = F(CUT_ONE_WAY) | F(CUT_PAIR) | F(POSTGRES_KILL) | F(DAEMON_FREEZE) | F(SLOW_NETWORK),
    [PLANTED_VOIDSEAL] = F(LATE_PROPOSALS) | F(HOST_KILL) | F(POSTGRES_KILL) | F(LEADER_CHANGE) | F(SLOW_RELOAD),
    [PLANTED_HIGHEST] = F(HOST_KILL) | F(ISOLATE) | F(CUT_PAIR) | F(POSTGRES_FREEZE),
    [PLANTED_FOLLOWCHK] = F(ISOLATE) | F(HOST_KILL) | F(PROMOTIONS_FAIL) | F(CUT_PAIR),
    [PLANTED_NAMES] = F(ISOLATE) | F(CUT_PAIR) | F(HOST_KILL) | F(DAEMON_FREEZE) | F(PROMOTIONS_FAIL),
    [PLANTED_COPY] = F(DISK_LOST) | F(HOST_KILL) | F(POSTGRES_KILL) | F(ISOLATE),
    [PLANTED_BASECHK] = F(DISK_LOST) | F(PROMOTIONS_FAIL) | F(CUT_PAIR) | F(SLOW_APPLY) | F(POSTGRES_KILL),
    [PLANTED_NOBROKEN] = F(HOST_KILL) | F(ISOLATE) | F(DAEMON_KILL) | F(OPERATIONS_FAIL) | F(PROMOTIONS_FAIL),
    [PLANTED_STANDBYRST] = F(POSTGRES_RESTART) | F(CUT_PAIR) | F(DAEMON_FREEZE) | F(DAEMON_KILL),
    [PLANTED_SENDERS] = F(SLOW_RELOAD) | F(HOST_KILL) | F(POSTGRES_FREEZE) | F(CUT_PAIR) | F(ISOLATE),
    [PLANTED_DEFINED] = F(SLOW_RELOAD) | F(HOST_KILL) | F(POSTGRES_KILL) | F(ISOLATE),
    [PLANTED_ACKNEW] = F(CUT_PAIR) | F(HOST_KILL) | F(SLOW_NETWORK) | F(ISOLATE),
    [PLANTED_DOMIN] = F(PROMOTIONS_FAIL) | F(POSTGRES_KILL) | F(HOST_KILL),
    [PLANTED_RETRY] = F(PROMOTIONS_FAIL) | F(POSTGRES_KILL) | F(HOST_KILL),
    [PLANTED_PRESEAL] = F(CUT_ONE_WAY) | F(CUT_PAIR) | F(ISOLATE) | F(LOSS) | F(LATE_PROPOSALS),
    [PLANTED_AMNESIA] = F(DAEMON_KILL) | F(CUT_PAIR) | F(HOST_KILL) | F(CUT_ONE_WAY),
    [PLANTED_STALETOPO] = F(DAEMON_KILL) | F(CUT_ONE_WAY) | F(CUT_PAIR) | F(SLOW_APPLY),
    [PLANTED_MIXED] = F(ISOLATE) | F(CUT_PAIR) | F(CUT_ONE_WAY),
    [PLANTED_DEADREP] = F(POSTGRES_RESTART) | F(SLOW_NETWORK) | F(DAEMON_FREEZE),
    [PLANTED_DRIFT] = F(ISOLATE),
    [PLANTED_REPLYTIME] = F(ISOLATE) | F(SLOW_NETWORK) | F(CUT_ONE_WAY),
    [PLANTED_EARLY] = F(LEADER_CHANGE) | F(LATE_PROPOSALS) | F(HOST_KILL),
    [PLANTED_UNOPENED] = F(POSTGRES_KILL),
};

/* ---- drawing ---- */

struct dice {
    uint64_t state;
};

static uint64_t roll(struct dice *dice, uint64_t below) {
    dice->state ^= dice->state << 13;
    dice->state ^= dice->state >> 7;
    dice->state ^= dice->state << 17;
    return (dice->state >> 11) % below;
}

static enum fault_kind roll_kind(struct dice *dice, int bug) {
    unsigned long wanted = bug >= 0 && roll(dice, 100) < 80 ? favoured[bug] : ~0ul;
    unsigned total = 0;
    for (unsigned i = 0; i < FAULT_KINDS; i++)
        total += wanted >> i & 1 ? usual[i].weight : 0;
    uint64_t at = roll(dice, total);
    for (unsigned i = 0; i < FAULT_KINDS; i++) {
        unsigned weight = wanted >> i & 1 ? usual[i].weight : 0;
        if (at < weight)
            return i;
        at -= weight;
    }
    return FAULT_POSTGRES_KILL;
}

static void roll_faults(struct dice *dice, struct plan *plan, int bug) {
    plan->faults_count = 3 + (unsigned)roll(dice, FAULTS_MAX - 3);
    nsec at = NSEC_PER_SEC + FOUNDED, most_pause = msec(200 + roll(dice, 3000));
    plan->ends = at;
    for (unsigned i = 0; i < plan->faults_count; i++) {
        struct fault *fault = &plan->faults[i];
        at += roll(dice, 3) == 0 ? roll(dice, msec(60)) : roll(dice, most_pause);
        fault->kind = roll_kind(dice, bug);
        fault->at = at;
        fault->lasts = usual[fault->kind].most_ms == 0 ? 0 : msec(10) + roll(dice, msec(usual[fault->kind].most_ms));
        fault->victim = (enum victim)roll(dice, 4);
        fault->member = (uint8_t)roll(dice, 8);
        fault->other = (uint8_t)roll(dice, 8);
        if (fault->at + fault->lasts > plan->ends)
            plan->ends = fault->at + fault->lasts;
    }
    plan->ends += msec(10);
}

void plan_plain(struct plan *plan, unsigned members, uint64_t seed, Durability durability) {
    memset(plan, 0, sizeof *plan);
    plan->seed = seed;
    plan->members = members;
    plan->durability = durability;
    plan->lease_ms = 2000;
    for (unsigned i = 0; i < WORLD_MEMBERS; i++)
        plan->priorities[i] = 100;
    plan->delay_us = 2000;
    plan->write_ms = 20;
    plan->hurry = 1;
    plan->ends = NSEC_NEVER;
}

void plan_draw(struct plan *plan, uint64_t seed, int bug) {
    struct dice dice = {seed * 0x9E3779B97F4A7C15ull ^ 0x5DEECE66Dull};
    if (dice.state == 0)
        dice.state = 1;
    for (unsigned i = 0; i < 8; i++)
        roll(&dice, 2);
    static const unsigned sizes[] = {3, 3, 3, 3, 3, 3, 4, 4, 5, 5};
    static const unsigned leases[] = {2000, 2000, 1000, 3000};
    plan_plain(plan, sizes[roll(&dice, 10)], seed, DURABILITY_QUORUM);
    uint64_t durability = roll(&dice, 100);
    if (durability < 7)
        plan->durability = DURABILITY_ASYNC;
    else if (durability < 15)
        plan->durability = DURABILITY_STRICT;
    if (roll(&dice, 100) < 20)
        plan->witness = plan->members - 1;
    plan->lease_ms = leases[roll(&dice, 4)];
    if (roll(&dice, 100) < 15 || bug == PLANTED_HIGHEST)
        plan->priorities[roll(&dice, plan->members)] = 0;
    bool drifts = roll(&dice, 2) == 0 || bug == PLANTED_DRIFT;
    for (unsigned i = 0; i < plan->members && drifts; i++)
        plan->drift_ppm[i] =
            (roll(&dice, 2) == 0 ? 1 : -1) * (int32_t)(10000 - roll(&dice, 10000) / (1 + roll(&dice, 4)));
    plan->delay_us = 200 + (unsigned)roll(&dice, 3000);
    plan->write_ms = 15 + (unsigned)roll(&dice, 100);
    plan->hurry = 1 + (unsigned)roll(&dice, 10);
    if (bug == PLANTED_DRIFT || bug == PLANTED_PRESEAL || bug == PLANTED_MIXED || bug == PLANTED_REPLYTIME ||
        bug == PLANTED_AMNESIA || bug == PLANTED_STALETOPO) {
        plan->hurry = 20;
        plan->delay_us = 200;
        plan->witness = 0;
    }
    roll_faults(&dice, plan, bug);
}

/* ---- happening ---- */

static bool has_data(const struct world *world, unsigned member) {
    return member == 0 || member != world->plan.witness;
}

static unsigned resolve(const struct world *world, const struct fault *fault) {
    unsigned any = fault->member % world->members_count;
    unsigned primary = world->topology.epoch > 0 ? world->topology.primary.member - 1 : any;
    if (fault->victim == VICTIM_PRIMARY)
        return primary;
    if (fault->victim == VICTIM_LEADER && world->leader >= 0)
        return (unsigned)world->leader;
    if (fault->victim == VICTIM_STANDBY && any == primary)
        return (any + 1) % world->members_count;
    return any;
}

/* What no protocol can save is no fault: a copy is lost only while the others have all that was acknowledged. */
static bool may_lose(const struct world *world, unsigned member) {
    const Topology *topology = &world->topology;
    if (world->plan.durability == DURABILITY_STRICT || !has_data(world, member) || !topology->open ||
        topology->rules_count != 1 || topology->rules[0].needed == 0)
        return false;
    const Rule *rule = &topology->rules[0];
    unsigned intact = 0;
    for (unsigned i = 0; i < rule->standbys_count; i++) {
        const struct modelled_postgres *postgres = &world->members[rule->standbys[i].member - 1].postgres;
        intact += rule->standbys[i].member != member + 1u && postgres->data == DATA_COMPLETE &&
                  postgres->copy == rule->standbys[i].copy;
    }
    bool primary_intact = topology->primary.member != member + 1 &&
                          world->members[topology->primary.member - 1].postgres.copy == topology->primary.copy &&
                          world->members[topology->primary.member - 1].postgres.data == DATA_COMPLETE;
    return primary_intact && intact + rule->needed >= rule->standbys_count + 1u;
}

static void kill_postgres(struct world *world, unsigned member, nsec restart_within) {
    struct modelled_member *self = &world->members[member];
    if (self->postgres.server == SERVER_DOWN || !has_data(world, member))
        return;
    self->restart_as_primary = self->postgres.server == SERVER_PRIMARY;
    nsec deadline = self->postgres.guard_deadline;
    nsec guard_at = world->timers[member][TIMER_GUARD];
    postgres_stop(world, member);
    if (restart_within == 0)
        return;
    if (planted(STANDBYRST) || planted(DEADREP)) { /* its guard went on */
        self->postgres.guard_deadline = deadline;
        world->timers[member][TIMER_GUARD] = guard_at;
    }
    world->timers[member][TIMER_RESTART] = world->now + msec(1) + draw_time(world, restart_within);
}

static void cut(struct world *world, unsigned from, unsigned to, int by) {
    if (from != to)
        world->cuts[from][to] = (uint8_t)(world->cuts[from][to] + by);
}

static void cut_for(struct world *world, enum fault_kind kind, unsigned member, unsigned other, int by) {
    cut(world, member, other, by);
    if (kind == FAULT_CUT_PAIR)
        cut(world, other, member, by);
    for (unsigned i = 0; kind == FAULT_ISOLATE && i < world->members_count; i++) {
        if (i != other)
            cut(world, member, i, by);
        cut(world, i, member, by);
    }
    log_disturbed(world);
}

static void request_switchover(struct world *world, unsigned member, unsigned to) {
    struct event event = {.kind = EVENT_REQUEST};
    event.request.kind = REQUEST_KIND_SWITCHOVER;
    if (draw(world, 2) == 0)
        strcpy(event.request.to, world->members[to].config.name);
    if (daemon_runs(world, member))
        give(world, member, &event);
}

void fault_begin(struct world *world, const struct fault *fault) {
    unsigned member = resolve(world, fault),
             other = (member + 1 + fault->other % (world->members_count - 1)) % world->members_count;
    struct modelled_member *self = &world->members[member];
    tell(world, (int)member, "FAULT: %s (m%u) for %u ms", fault_name(fault->kind), other + 1,
         (unsigned)(fault->lasts / NSEC_PER_MSEC));
    switch (fault->kind) {
    case FAULT_POSTGRES_KILL:
        kill_postgres(world, member, draw(world, 3) == 0 ? msec(100) : 0);
        break;
    case FAULT_POSTGRES_RESTART:
        kill_postgres(world, member, msec(200));
        break;
    case FAULT_POSTGRES_FREEZE:
        postgres_freeze(world, member, true);
        break;
    case FAULT_DAEMON_KILL:
        daemon_kill(world, member);
        break;
    case FAULT_HOST_FREEZE:
        postgres_freeze(world, member, true);
        self->postgres.guard_frozen++;
        /* fall through */
    case FAULT_DAEMON_FREEZE:
        if (world->now + fault->lasts > self->thaws_at)
            self->thaws_at = world->now + fault->lasts;
        daemon_freeze(world, member, true);
        break;
    case FAULT_DAEMON_STOP:
        if (daemon_runs(world, member))
            give(world, member, &(struct event){.kind = EVENT_STOP});
        break;
    case FAULT_HOST_KILL:
        daemon_kill(world, member);
        self->operating = false;
        kill_postgres(world, member, 0);
        break;
    case FAULT_GUARD_FREEZE:
        self->postgres.guard_frozen++;
        facts_changed(world, member);
        break;
    case FAULT_DISK_LOST:
        if (!may_lose(world, member))
            return;
        kill_postgres(world, member, 0);
        self->postgres.data = DATA_EMPTY;
        self->postgres.copy = 0;
        self->postgres.length = 0;
        return;
    case FAULT_ISOLATE:
    case FAULT_CUT_ONE_WAY:
    case FAULT_CUT_PAIR:
        cut_for(world, fault->kind, member, other, 1);
        break;
    case FAULT_LOSS:
        world->losing++;
        break;
    case FAULT_SLOW_NETWORK:
        world->slow_network++;
        break;
    case FAULT_SLOW_APPLY:
        self->slow_apply++;
        break;
    case FAULT_LATE_PROPOSALS:
        for (unsigned i = 0; i < world->members_count; i++)
            world->members[i].late_proposals++;
        break;
    case FAULT_LEADER_CHANGE:
        log_drop_leader(world);
        break;
    case FAULT_OPERATIONS_FAIL:
        self->operations_fail++;
        break;
    case FAULT_PROMOTIONS_FAIL:
        for (unsigned i = 0; i < world->members_count; i++)
            world->members[i].promotions_fail++;
        break;
    case FAULT_SLOW_RELOAD:
        for (unsigned i = 0; i < world->members_count; i++)
            world->members[i].slow_reload++;
        break;
    case FAULT_SWITCHOVER:
        request_switchover(world, (unsigned)draw(world, world->members_count), other);
        break;
    case FAULT_KINDS:
        break;
    }
    if (fault->lasts > 0)
        occasion_add(world, (struct occasion){.at = world->now + fault->lasts,
                                              .kind = OCCASION_FAULT_ENDS,
                                              .from = (uint8_t)member,
                                              .to = (uint8_t)other,
                                              .a = fault->kind});
}

void fault_end(struct world *world, enum fault_kind kind, unsigned member, unsigned other) {
    struct modelled_member *self = &world->members[member];
    tell(world, (int)member, "mended: %s", fault_name(kind));
    switch (kind) {
    case FAULT_POSTGRES_FREEZE:
        postgres_freeze(world, member, false);
        break;
    case FAULT_DAEMON_STOP:
        daemon_kill(world, member);
        daemon_start(world, member);
        break;
    case FAULT_DAEMON_KILL:
    case FAULT_HOST_KILL:
        daemon_start(world, member);
        break;
    case FAULT_HOST_FREEZE:
        self->postgres.guard_frozen--;
        postgres_guard(world, member);
        postgres_freeze(world, member, false);
        daemon_freeze(world, member, false);
        break;
    case FAULT_DAEMON_FREEZE:
        daemon_freeze(world, member, false);
        break;
    case FAULT_GUARD_FREEZE:
        self->postgres.guard_frozen--;
        postgres_guard(world, member);
        facts_changed(world, member);
        break;
    case FAULT_ISOLATE:
    case FAULT_CUT_ONE_WAY:
    case FAULT_CUT_PAIR:
        cut_for(world, kind, member, other, -1);
        break;
    case FAULT_LOSS:
        world->losing--;
        break;
    case FAULT_SLOW_NETWORK:
        world->slow_network--;
        break;
    case FAULT_SLOW_APPLY:
        self->slow_apply--;
        break;
    case FAULT_LATE_PROPOSALS:
        for (unsigned i = 0; i < world->members_count; i++)
            world->members[i].late_proposals--;
        break;
    case FAULT_OPERATIONS_FAIL:
        self->operations_fail--;
        break;
    case FAULT_PROMOTIONS_FAIL:
        for (unsigned i = 0; i < world->members_count; i++)
            world->members[i].promotions_fail--;
        break;
    case FAULT_SLOW_RELOAD:
        for (unsigned i = 0; i < world->members_count; i++)
            world->members[i].slow_reload--;
        break;
    default:
        break;
    }
}

/* Begins the fault that is due, and looks for the next; after the last, mends what is left. */
void plan_next_fault(struct world *world) {
    const struct plan *plan = &world->plan;
    while (world->next_fault < plan->faults_count && plan->faults[world->next_fault].at <= world->now) {
        const struct fault *fault = &plan->faults[world->next_fault++];
        if (!fault->off)
            fault_begin(world, fault);
    }
    if (world->next_fault < plan->faults_count) {
        world->world_timers[WORLD_TIMER_FAULT] = plan->faults[world->next_fault].at;
        return;
    }
    if (world->now < plan->ends) {
        world->world_timers[WORLD_TIMER_FAULT] = plan->ends;
        return;
    }
    tell(world, -1, "the last fault is mended");
    world->quiet = true;
    world->quiet_since = world->now;
    for (unsigned i = 0; i < world->members_count; i++)
        daemon_start(world, i);
}
