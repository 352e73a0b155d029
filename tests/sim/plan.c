/* The plan of a run: its settings and its faults, all from the seed. With a bug planted, of a kind in which it would
 * show sooner. */
#include <string.h>

#include "tests/sim/world.h"

#define FOUNDED msec(2500) /* the first fault comes after this */

static const char *const fault_names[FAULT_KINDS] = {
    [FAULT_POSTGRES_KILL] = "postgres is killed",
    [FAULT_POSTGRES_FREEZE] = "postgres freezes",
    [FAULT_POSTGRES_RESTART] = "postgres is restarted",
    [FAULT_DAEMON_KILL] = "daemon is killed",
    [FAULT_DAEMON_FREEZE] = "daemon freezes",
    [FAULT_DAEMON_STOP] = "daemon is stopped",
    [FAULT_HOST_KILL] = "host is killed",
    [FAULT_HOST_FREEZE] = "host freezes",
    [FAULT_GUARD_FREEZE] = "guard freezes",
    [FAULT_DISK_LOST] = "data directory is lost",
    [FAULT_RESTORED] = "data directory is restored from a backup",
    [FAULT_ISOLATE] = "isolated",
    [FAULT_CUT_ONE_WAY] = "cut off one way",
    [FAULT_CUT_PAIR] = "cut off from another",
    [FAULT_MUTE] = "mute",
    [FAULT_LOSS] = "messages get lost",
    [FAULT_SLOW_NETWORK] = "slow network",
    [FAULT_SLOW_APPLY] = "slow apply",
    [FAULT_LATE_PROPOSALS] = "late proposals",
    [FAULT_LEADER_CHANGE] = "leader changes",
    [FAULT_OPERATIONS_FAIL] = "operations fail",
    [FAULT_PROMOTIONS_FAIL] = "promotions fail",
    [FAULT_SLOW_RELOAD] = "slow reload",
    [FAULT_SWITCHOVER] = "switchover",
};
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
    [FAULT_RESTORED] = {3, 0},           [FAULT_MUTE] = {4, 5000},
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
    [PLANTED_VOIDSEAL] =
        F(LATE_PROPOSALS) | F(HOST_KILL) | F(POSTGRES_KILL) | F(DAEMON_KILL) | F(CUT_PAIR) | F(PROMOTIONS_FAIL),
    [PLANTED_HIGHEST] = F(HOST_KILL) | F(ISOLATE) | F(CUT_PAIR) | F(POSTGRES_FREEZE),
    [PLANTED_FOLLOWCHK] = F(ISOLATE) | F(HOST_KILL) | F(PROMOTIONS_FAIL) | F(CUT_PAIR),
    [PLANTED_NAMES] = F(ISOLATE) | F(CUT_PAIR) | F(HOST_KILL) | F(DAEMON_FREEZE) | F(PROMOTIONS_FAIL),
    [PLANTED_COPY] = F(RESTORED) | F(HOST_KILL) | F(POSTGRES_KILL) | F(CUT_PAIR) | F(DAEMON_KILL),
    [PLANTED_BASECHK] = F(RESTORED) | F(LATE_PROPOSALS) | F(POSTGRES_KILL),
    [PLANTED_NOBROKEN] = F(HOST_KILL) | F(ISOLATE) | F(POSTGRES_KILL) | F(PROMOTIONS_FAIL) | F(CUT_PAIR),
    [PLANTED_STANDBYRST] = F(POSTGRES_RESTART) | F(CUT_PAIR) | F(DAEMON_FREEZE) | F(DAEMON_KILL),
    [PLANTED_SENDERS] = F(SLOW_RELOAD) | F(DAEMON_KILL) | F(DAEMON_FREEZE) | F(POSTGRES_KILL) | F(CUT_PAIR),
    [PLANTED_DEFINED] = F(SLOW_RELOAD) | F(HOST_KILL) | F(POSTGRES_KILL) | F(ISOLATE),
    [PLANTED_ACKNEW] = F(CUT_PAIR) | F(HOST_KILL) | F(SLOW_NETWORK) | F(ISOLATE),
    [PLANTED_DOMIN] = F(PROMOTIONS_FAIL) | F(POSTGRES_KILL) | F(DISK_LOST) | F(HOST_KILL),
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

/* Some show only if things happen in a certain order: a scene that is played again and again. */
struct scene {
    enum fault_kind kind;
    enum victim victim;
    unsigned leases, at_ms, jitter_ms; /* when: at + leases * lease + up to jitter */
    unsigned lasts_ms, lasts_jitter_ms;
    unsigned pick, other; /* which after the primary, from 1; 0 = any */
};
#define SCENES_MAX 6
#define ROUND_MS   12000
#define GUARD_FAILS                                                  \
    {                                                                \
        {FAULT_GUARD_FREEZE, VICTIM_PRIMARY, 0, 0, 10, 6000, 1000},  \
            {FAULT_SLOW_APPLY, VICTIM_STANDBY, 0, 0, 10, 7000, 0},   \
            {FAULT_DAEMON_KILL, VICTIM_STANDBY, 1, 0, 150, 5, 60}, { \
            FAULT_DAEMON_KILL, VICTIM_STANDBY, 1, 0, 300, 5, 60      \
        }                                                            \
    }
static const struct scene scenes[PLANTED_COUNT][SCENES_MAX] = {
    /* A standby restarts right after it answered, lives in the past, and meets a primary whose guard does not kill. */
    [PLANTED_BARRIER] = GUARD_FAILS,
    [PLANTED_PLEDGE] = GUARD_FAILS,
    /* One voter's promise runs out, the other's did a moment ago, but was given anew. */
    [PLANTED_PRESEAL] = {{FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 0, 10, 0, 300},
                         {FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 100, 500, 5000, 0},
                         {FAULT_LOSS, VICTIM_MEMBER, 0, 0, 10, 6000, 0}},
    [PLANTED_AMNESIA] = {{FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 0, 10, 6000, 0},
                         {FAULT_DAEMON_KILL, VICTIM_STANDBY, 1, 100, 1500, 5, 30}},
    /* What the primary sends is lost, while late replies still come in, and it learns of the seal late. */
    [PLANTED_REPLYTIME] = {{FAULT_SLOW_NETWORK, VICTIM_MEMBER, 0, 0, 10, 6000, 0},
                           {FAULT_SLOW_APPLY, VICTIM_PRIMARY, 0, 0, 10, 6000, 0},
                           {FAULT_MUTE, VICTIM_PRIMARY, 0, 300, 1000, 5000, 0}},
    /* A member leaves the rule because its daemon is silent, while its WAL sender still goes by the old one: it and
     * another acknowledge, and are not there when the two who lag answer. */
    [PLANTED_SENDERS] = {{FAULT_SLOW_RELOAD, VICTIM_MEMBER, 0, 0, 10, 11000, 0},
                         {FAULT_DAEMON_FREEZE, VICTIM_NEXT, 0, 0, 10, 10000, 1000, 1},
                         {FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 6000, 700, 900, 0, 0, 3},
                         {FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 6000, 700, 900, 0, 0, 4},
                         {FAULT_POSTGRES_FREEZE, VICTIM_NEXT, 0, 6650, 200, 4000, 0, 2},
                         {FAULT_HOST_KILL, VICTIM_PRIMARY, 0, 6700, 200, 5000, 0}},
    /* The end of a rule change lands when the next epoch is assigned, whose primary dies before it is open. */
    [PLANTED_VOIDSEAL] = {{FAULT_LATE_PROPOSALS, VICTIM_MEMBER, 0, 0, 10, 11000, 0},
                          {FAULT_DAEMON_FREEZE, VICTIM_NEXT, 0, 0, 10, 7000, 10, 2},
                          {FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 7200, 600, 400, 500, 0, 2},
                          {FAULT_POSTGRES_KILL, VICTIM_PRIMARY, 0, 7400, 600, 0, 0},
                          {FAULT_HOST_KILL, VICTIM_PRIMARY, 0, 7450, 700, 6000, 0}},
    /* The chosen one is restored from a backup before it knows that it is chosen. */
    [PLANTED_BASECHK] = {{FAULT_LATE_PROPOSALS, VICTIM_MEMBER, 0, 0, 10, 8000, 0},
                         {FAULT_POSTGRES_KILL, VICTIM_PRIMARY, 0, 500, 10, 0, 0},
                         {FAULT_RESTORED, VICTIM_NEXT, 0, 530, 2000, 0, 0, 1},
                         {FAULT_RESTORED, VICTIM_NEXT, 0, 530, 2000, 0, 0, 2}},
    /* The old primary is rewound towards one that never opens. */
    [PLANTED_NOBROKEN] = {{FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 0, 10, 900, 0, 0, 1},
                          {FAULT_ISOLATE, VICTIM_PRIMARY, 0, 300, 100, 1300, 300},
                          {FAULT_POSTGRES_FREEZE, VICTIM_NEXT, 1, 350, 150, 2000, 500, 1},
                          {FAULT_HOST_KILL, VICTIM_PRIMARY, 1, 1300, 1200, 6000, 0}},
    /* Opened without anybody else having its base; then gone. */
    [PLANTED_ACKNEW] = {{FAULT_CUT_PAIR, VICTIM_PRIMARY, 0, 0, 10, 800, 0, 0, 2},
                        {FAULT_POSTGRES_KILL, VICTIM_PRIMARY, 0, 300, 10, 0, 0},
                        {FAULT_POSTGRES_FREEZE, VICTIM_NEXT, 0, 308, 40, 400, 300, 2},
                        {FAULT_POSTGRES_KILL, VICTIM_PRIMARY, 0, 380, 250, 0, 0}},
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

static void play_scenes(struct dice *dice, struct plan *plan, int bug) {
    nsec from = NSEC_PER_SEC + FOUNDED;
    plan->faults_count = 0;
    for (unsigned round = 0; round < 4; round++, from += msec(ROUND_MS) + roll(dice, msec(2000)))
        for (unsigned i = 0; i < SCENES_MAX && scenes[bug][i].jitter_ms > 0; i++) {
            const struct scene *scene = &scenes[bug][i];
            struct fault *fault = &plan->faults[plan->faults_count++];
            bool instant = usual[scene->kind].most_ms == 0, with_lease = scene->lasts_ms == 0;
            *fault = (struct fault){.kind = scene->kind, .victim = scene->victim};
            fault->at = from + msec(scene->at_ms + scene->leases * plan->lease_ms) + roll(dice, msec(scene->jitter_ms));
            fault->lasts = instant ? 0
                                   : msec(with_lease ? plan->lease_ms : scene->lasts_ms) +
                                         roll(dice, msec(scene->lasts_jitter_ms) + 1);
            fault->member = (uint8_t)(scene->pick > 0 ? scene->pick - 1 : roll(dice, 8));
            fault->other = (uint8_t)(scene->other > 0 ? scene->other - 1 : roll(dice, 8));
        }
    for (unsigned i = 1; i < plan->faults_count; i++) /* in order of time */
        for (unsigned j = i; j > 0 && plan->faults[j].at < plan->faults[j - 1].at; j--) {
            struct fault later = plan->faults[j - 1];
            plan->faults[j - 1] = plan->faults[j];
            plan->faults[j] = later;
        }
    plan->ends = from + msec(10000);
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
    if (bug >= 0 && scenes[bug][0].jitter_ms > 0) {
        plan->members = bug == PLANTED_SENDERS ? 5 : 3;
        plan->priorities[0] = plan->priorities[1] = plan->priorities[2] = 100;
        plan->priorities[3] = plan->priorities[4] = 100;
        plan->witness = bug == PLANTED_PRESEAL ? 2 : 0;
        plan->durability = DURABILITY_QUORUM;
        plan->lease_ms = 1000;
        play_scenes(&dice, plan, bug);
    } else
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
    if (fault->victim == VICTIM_NEXT)
        return (primary + 1 + fault->member) % world->members_count;
    if (fault->victim == VICTIM_LEADER && world->leader >= 0)
        return (unsigned)world->leader;
    if (fault->victim == VICTIM_STANDBY && any == primary)
        return (any + 1) % world->members_count;
    return any;
}

static bool intact(const struct world *world, Copy copy) {
    const struct modelled_postgres *postgres = &world->members[copy.member - 1].postgres;
    return postgres->data == DATA_COMPLETE && postgres->copy == copy.copy;
}

/* What no protocol can save is no fault: a copy is lost only while the others have all that was acknowledged. That is
 * the primary, once it has written in its epoch; or so many of its rule's standbys that they cover it. */
static bool may_lose(const struct world *world, unsigned member) {
    const Topology *topology = &world->topology;
    if (!has_data(world, member) || topology->epoch == 0 || topology->settings.durability != DURABILITY_QUORUM)
        return false;
    if (topology->primary.member != member + 1) {
        const struct modelled_postgres *primary = &world->members[topology->primary.member - 1].postgres;
        return intact(world, topology->primary) &&
               position_of(primary).timeline == topology_epoch(topology, topology->epoch)->timeline;
    }
    for (unsigned i = 0; i < topology->members_count; i++)
        if (topology->members[i].priority == 0)
            return false; /* it may be the only one left that has everything, and may not be primary */
    for (unsigned i = 0; i < sizeof world->proposals / sizeof *world->proposals; i++)
        if (world->proposals[i].used)
            return false; /* a weaker rule may be under way */
    return topology->rules[0].needed > 0 && world_is_redundant(world);
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

static void lose_data(struct world *world, unsigned member, bool restored) {
    struct modelled_postgres *postgres = &world->members[member].postgres;
    if (!may_lose(world, member) || (restored && postgres->length < 40))
        return;
    kill_postgres(world, member, 0);
    postgres->copy = 0;
    postgres->data = restored ? DATA_COMPLETE : DATA_EMPTY;
    postgres->length = restored ? postgres->length - 1 - (unsigned)draw(world, 20) : 0;
}

static void cut(struct world *world, unsigned from, unsigned to, int by) {
    if (from != to)
        world->cuts[from][to] = (uint8_t)(world->cuts[from][to] + by);
}

static void cut_for(struct world *world, enum fault_kind kind, unsigned member, unsigned other, int by) {
    if (kind != FAULT_MUTE)
        cut(world, member, other, by);
    for (unsigned i = 0; kind == FAULT_MUTE && i < world->members_count; i++)
        cut(world, member, i, by);
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
    case FAULT_RESTORED:
        lose_data(world, member, fault->kind == FAULT_RESTORED);
        return;
    case FAULT_ISOLATE:
    case FAULT_CUT_ONE_WAY:
    case FAULT_CUT_PAIR:
    case FAULT_MUTE:
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
    case FAULT_MUTE:
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
