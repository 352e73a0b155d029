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
    [FAULT_POWER_CUT] = "power cut",
    [FAULT_DISK_HANGS] = "disk hangs",
    [FAULT_HOST_PAUSE] = "host pauses with its clock",
    [FAULT_UNHEARD] = "not heard by another",
    [FAULT_HELD] = "commands of a kind are held up",
    [FAULT_BUSY] = "busy clients",
    [FAULT_MENDED] = "mended early",
};
const char *fault_name(enum fault_kind kind) { return fault_names[kind]; }

static const char *const planted_names[PLANTED_COUNT] = {
    "CUT",       "JOINT",     "UNIQTL", "BARRIER",  "PLEDGE",   "TAG",        "VOIDSEAL", "HIGHEST",
    "FOLLOWCHK", "NAMES",     "COPY",   "BASECHK",  "NOBROKEN", "STANDBYRST", "SENDERS",  "DEFINED",
    "ACKNEW",    "DOMIN",     "RETRY",  "PRESEAL",  "AMNESIA",  "STALETOPO",  "MIXED",    "DEADREP",
    "DRIFT",     "REPLYTIME", "EARLY",  "UNOPENED", "UNFLUSHED"};
const char *planted_name(unsigned bug) { return planted_names[bug]; }

/* How often each fault comes, and how long it lasts at most. */
static const struct {
    unsigned weight, most_ms;
} usual[FAULT_KINDS] = {
    [FAULT_POSTGRES_KILL] = {14, 0},
    [FAULT_POSTGRES_FREEZE] = {5, 5000},
    [FAULT_POSTGRES_RESTART] = {4, 0},
    [FAULT_DAEMON_KILL] = {8, 4000},
    [FAULT_DAEMON_FREEZE] = {5, 5000},
    [FAULT_DAEMON_STOP] = {3, 6000},
    [FAULT_HOST_KILL] = {9, 8000},
    [FAULT_HOST_FREEZE] = {4, 5000},
    [FAULT_GUARD_FREEZE] = {2, 4000},
    [FAULT_DISK_LOST] = {4, 0},
    [FAULT_RESTORED] = {3, 0},
    [FAULT_MUTE] = {4, 5000},
    [FAULT_ISOLATE] = {8, 6000},
    [FAULT_CUT_ONE_WAY] = {7, 6000},
    [FAULT_CUT_PAIR] = {6, 6000},
    [FAULT_LOSS] = {3, 6000},
    [FAULT_SLOW_NETWORK] = {4, 6000},
    [FAULT_SLOW_APPLY] = {4, 6000},
    [FAULT_LATE_PROPOSALS] = {4, 6000},
    [FAULT_LEADER_CHANGE] = {6, 0},
    [FAULT_OPERATIONS_FAIL] = {4, 5000},
    [FAULT_PROMOTIONS_FAIL] = {5, 5000},
    [FAULT_SLOW_RELOAD] = {4, 6000},
    [FAULT_SWITCHOVER] = {9, 0},
    [FAULT_POWER_CUT] = {8, 6000},
    [FAULT_DISK_HANGS] = {5, 6000},
    [FAULT_HOST_PAUSE] = {4, 4000},
    [FAULT_UNHEARD] = {4, 3000},
    [FAULT_HELD] = {4, 3000},
    [FAULT_BUSY] = {2, 300},
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
    unsigned pick, other; /* member, or which after the primary, from 1; 0 = any */
    enum cue cue;         /* if any, `at` counts from it */
    unsigned what;
};
#define SCENES_MAX 12
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
    /* What m3 answered to the first seal is the last that anybody hears of it; then it acknowledges for m2. */
    [PLANTED_TAG] = {{FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 0, 10, 0, 0, 1},
                     {FAULT_UNHEARD, VICTIM_MEMBER, 0, 0, 1, 4000, 0, 3, 1, CUE_RECORDED, Command_assign_tag},
                     {FAULT_UNHEARD, VICTIM_MEMBER, 0, 0, 1, 4000, 0, 3, 2, CUE_THEN},
                     {FAULT_BUSY, VICTIM_MEMBER, 0, 0, 1, 500, 0, 0, 0, CUE_RECORDED, Command_open_tag},
                     {FAULT_POSTGRES_FREEZE, VICTIM_MEMBER, 0, 0, 3, 300, 0, 1, 0, CUE_OPERATION, OPERATE_FOLLOW},
                     {FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 100, 100, 0, 0, 2, 0, CUE_THEN}},
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
    /* m3 leaves the rule, and the end of that change is held up until the next epoch is assigned: to m2, because m3
     * lacks what m1 acknowledged last. It leaves m2's rule alone, by which m3 covers everything. */
    [PLANTED_VOIDSEAL] = {{FAULT_DAEMON_FREEZE, VICTIM_MEMBER, 0, 0, 10, 9000, 0, 3},
                          {FAULT_HELD, VICTIM_LEADER, 0, 0, 1, 9000, 0, 0, 0, CUE_PROPOSED, Command_rule_done_tag},
                          {FAULT_MENDED, VICTIM_MEMBER, 0, 0, 1, 0, 0, 3, 0, CUE_THEN},
                          {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 100, 200, 300, 0, 1, 2, CUE_THEN},
                          {FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 100, 150, 0, 0, 1, 0, CUE_THEN},
                          {FAULT_MENDED, VICTIM_EVERYONE, 0, 0, 1, 0, 0, 0, 0, CUE_RECORDED, Command_assign_tag},
                          {FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 1, 15, 0, 0, 2, 0, CUE_THEN}},
    /* One is promoted and falls before it opens, which leaves its timeline behind; then the others lose their disks. */
    [PLANTED_DOMIN] = {{FAULT_PROMOTIONS_FAIL, VICTIM_MEMBER, 0, 0, 10, 1500, 500, 1},
                       {FAULT_PROMOTIONS_FAIL, VICTIM_MEMBER, 0, 0, 10, 1500, 500, 2},
                       {FAULT_PROMOTIONS_FAIL, VICTIM_MEMBER, 0, 0, 10, 1500, 500, 3},
                       {FAULT_POSTGRES_KILL, VICTIM_PRIMARY, 0, 20, 50, 0, 0},
                       {FAULT_DISK_LOST, VICTIM_NEXT, 0, 100, 2000, 0, 0, 1},
                       {FAULT_DISK_LOST, VICTIM_NEXT, 0, 100, 2000, 0, 0, 2}},
    /* The chosen one is restored from a backup before it knows that it is chosen. */
    [PLANTED_BASECHK] = {{FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 0, 10, 0, 0, 1},
                         {FAULT_HELD, VICTIM_LEADER, 0, 0, 1, 500, 500, 0, 0, CUE_PROPOSED, Command_assign_tag},
                         {FAULT_RESTORED, VICTIM_MEMBER, 0, 0, 50, 0, 0, 2, 0, CUE_THEN}},
    /* m1, alone with WAL of its own, falls; m2 follows it and cannot open, as m3 does not reach it; it falls, too,
     * while m1 is rewound towards it. m1 was the last to have what m3 lacks. */
    [PLANTED_NOBROKEN] = {{FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 0, 10, 400, 0, 1, 2},
                          {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 100, 100, 400, 0, 1, 1, CUE_THEN},
                          {FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 30, 40, 0, 0, 1, 0, CUE_THEN},
                          {FAULT_MENDED, VICTIM_EVERYONE, 0, 0, 1, 0, 0, 0, 0, CUE_THEN},
                          {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 0, 1, 6000, 0, 2, 1, CUE_RECORDED, Command_assign_tag},
                          {FAULT_DAEMON_KILL, VICTIM_ACTOR, 0, 0, 1, 5, 10, 0, 0, CUE_OPERATION, OPERATE_REWIND},
                          {FAULT_HOST_KILL, VICTIM_MEMBER, 0, 0, 1, 8000, 0, 2, 0, CUE_THEN}},
    /* m2 leaves the rule, for its daemon is silent, and goes on acknowledging until the new one is in force; m3, then
     * alone in it, lags. */
    [PLANTED_ACKNEW] = {{FAULT_DAEMON_FREEZE, VICTIM_MEMBER, 0, 0, 10, 9000, 0, 2},
                        {FAULT_POSTGRES_FREEZE, VICTIM_MEMBER, 0, 0, 1, 200, 200, 3, 0, CUE_PROPOSED,
                         Command_rule_begin_tag},
                        {FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 0, 5, 0, 0, 1, 0, CUE_RECORDED, Command_rule_done_tag}},
    /* `strict`, and m2 still streams from m1 although its daemon is down and it left the rule. m1 falls with WAL that
     * only m2 has; m3 becomes primary, and m1 is rewound and counts; m3 falls, and m1, alone, becomes primary again
     * with everybody in its rule. There m2 reports a position that is past all of m1's new WAL. */
    [PLANTED_NAMES] = {{FAULT_DAEMON_KILL, VICTIM_MEMBER, 0, 0, 10, 30000, 0, 2},
                       {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 0, 5, 30000, 0, 1, 2, CUE_RECORDED, Command_rule_done_tag},
                       {FAULT_BUSY, VICTIM_MEMBER, 0, 0, 5, 400, 0, 0, 0, CUE_THEN},
                       {FAULT_HOST_KILL, VICTIM_MEMBER, 0, 350, 50, 30000, 0, 1, 0, CUE_THEN},
                       {FAULT_MENDED, VICTIM_MEMBER, 0, 0, 5, 0, 0, 1, 0, CUE_RECORDED, Command_assign_tag},
                       {FAULT_POSTGRES_KILL, VICTIM_MEMBER, 0, 0, 5, 0, 0, 3, 0, CUE_RECORDED, Command_rule_done_tag},
                       {FAULT_HOST_KILL, VICTIM_MEMBER, 0, 0, 40, 10000, 0, 1, 0, CUE_RECORDED, Command_open_tag},
                       {FAULT_MENDED, VICTIM_MEMBER, 0, 0, 5, 0, 0, 2, 0, CUE_THEN}},
    /* Voter m2's promise runs out and is given anew, which m3, the coordinator, does not hear; then m3's own runs out.
     * It seals and releases, restarts, and promises m1 by what it knew, which m2, now the coordinator, does not hear.
     */
    [PLANTED_STALETOPO] = {{FAULT_LEADER_CHANGE, VICTIM_MEMBER, 0, 0, 10, 0, 0, 3},
                           {FAULT_SLOW_APPLY, VICTIM_MEMBER, 0, 0, 10, 9000, 0, 3},
                           {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 100, 50, 9000, 0, 1, 1},
                           {FAULT_CUT_PAIR, VICTIM_MEMBER, 1, 30, 60, 9000, 0, 1, 2, CUE_THEN},
                           {FAULT_UNHEARD, VICTIM_MEMBER, 0, 650, 150, 9000, 0, 2, 1, CUE_THEN},
                           {FAULT_MENDED, VICTIM_MEMBER, 0, 0, 1, 0, 0, 1, 0, CUE_THEN},
                           {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 0, 1, 9000, 0, 1, 2, CUE_THEN},
                           {FAULT_MENDED, VICTIM_MEMBER, 0, 5, 20, 0, 0, 1, 0, CUE_RECORDED, Command_seal_tag},
                           {FAULT_MENDED, VICTIM_MEMBER, 0, 0, 1, 0, 0, 2, 0, CUE_THEN},
                           {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 0, 1, 4000, 0, 1, 1, CUE_THEN},
                           {FAULT_DAEMON_KILL, VICTIM_MEMBER, 0, 0, 5, 5, 10, 3, 0, CUE_THEN},
                           {FAULT_UNHEARD, VICTIM_MEMBER, 0, 0, 1, 900, 400, 3, 2, CUE_THEN}},
    /* Written here, and nowhere on a disk but m1's. */
    [PLANTED_UNFLUSHED] = {{FAULT_DISK_HANGS, VICTIM_MEMBER, 0, 0, 10, 800, 0, 2},
                           {FAULT_CUT_PAIR, VICTIM_MEMBER, 0, 0, 10, 500, 0, 1, 2},
                           {FAULT_POWER_CUT, VICTIM_MEMBER, 0, 100, 150, 800, 0, 2, 0, CUE_THEN},
                           {FAULT_POWER_CUT, VICTIM_MEMBER, 0, 0, 5, 6000, 0, 1, 0, CUE_THEN}},
};

/* The cluster in which the scene of a bug is played: three members, if nothing else is said. */
static const struct stage {
    unsigned members, witnesses;
    Durability durability;
    unsigned hurry, snapshot_every;
} stages[PLANTED_COUNT] = {
    [PLANTED_SENDERS] = {.members = 5},
    [PLANTED_PRESEAL] = {.witnesses = 1},
    [PLANTED_NAMES] = {.members = 5, .witnesses = 2, .durability = DURABILITY_STRICT, .hurry = 5},
    [PLANTED_NOBROKEN] = {.hurry = 10},
    [PLANTED_TAG] = {.hurry = 10},
    [PLANTED_STALETOPO] = {.witnesses = 1, .durability = DURABILITY_ASYNC, .hurry = 20, .snapshot_every = 6},
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

/* One in four begins when something happens, and does not wait for it for long. */
static void roll_cue(struct dice *dice, struct fault *fault) {
    static const unsigned operations[] = {OPERATE_CUT,  OPERATE_FOLLOW, OPERATE_REWIND, OPERATE_CLONE, OPERATE_PROMOTE,
                                          OPERATE_RULE, OPERATE_START,  OPERATE_STOP,   OPERATE_FETCH};
    static const unsigned commands[] = {Command_seal_tag,      Command_assign_tag,    Command_open_tag,
                                        Command_rule_done_tag, Command_new_copy_tag,  Command_started_tag,
                                        Command_assign_tag,    Command_rule_begin_tag};
    unsigned command = commands[roll(dice, 8)], operation = operations[roll(dice, 9)];
    uint64_t kind = roll(dice, 12);
    fault->what = command;
    if (kind > 2 || fault->kind == FAULT_HELD)
        return;
    fault->cue = kind == 0 ? CUE_OPERATION : kind == 1 ? CUE_PROPOSED : CUE_RECORDED;
    fault->what = kind == 0 ? operation : command;
    fault->after = roll(dice, msec(roll(dice, 2) == 0 ? 4 : 60));
    if (kind == 0 && roll(dice, 2) == 0)
        fault->victim = VICTIM_ACTOR;
    fault->at += msec(200 + roll(dice, 2000));
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
        roll_cue(dice, fault);
        if (fault->at + fault->lasts > plan->ends)
            plan->ends = fault->at + fault->lasts;
    }
    plan->ends += msec(10);
}

static void play_scene(struct dice *dice, struct plan *plan, const struct scene *scene, nsec from) {
    struct fault *fault = &plan->faults[plan->faults_count++];
    bool instant = usual[scene->kind].most_ms == 0, with_lease = scene->lasts_ms == 0;
    *fault = (struct fault){.kind = scene->kind, .victim = scene->victim, .cue = scene->cue, .what = scene->what};
    nsec after = msec(scene->at_ms + scene->leases * plan->lease_ms) + roll(dice, msec(scene->jitter_ms));
    fault->at = scene->cue == CUE_NONE ? from + after : NSEC_NEVER;
    fault->after = after;
    fault->lasts =
        instant ? 0
                : msec(with_lease ? plan->lease_ms : scene->lasts_ms) + roll(dice, msec(scene->lasts_jitter_ms) + 1);
    fault->member = (uint8_t)(scene->pick > 0 ? scene->pick - 1 : roll(dice, 8));
    fault->other = (uint8_t)(scene->other > 0 ? scene->other - 1 : roll(dice, 8));
}

static void play_scenes(struct dice *dice, struct plan *plan, int bug) {
    nsec from = NSEC_PER_SEC + FOUNDED;
    bool has_cues = false;
    plan->faults_count = 0;
    for (unsigned i = 0; i < SCENES_MAX; i++)
        has_cues |= scenes[bug][i].cue != CUE_NONE;
    for (unsigned round = 0; round < (has_cues ? 1 : 4); round++, from += msec(ROUND_MS) + roll(dice, msec(2000)))
        for (unsigned i = 0; i < SCENES_MAX && scenes[bug][i].jitter_ms > 0; i++)
            play_scene(dice, plan, &scenes[bug][i], from);
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
    plan->snapshot_every = 32;
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
        plan->witnesses = 1;
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
    plan->snapshot_every = 2 + (unsigned)roll(&dice, 40);
    plan->wall_jumps = true;
    plan->poolers = roll(&dice, 2) == 0;
    if (bug == PLANTED_DRIFT || bug == PLANTED_PRESEAL || bug == PLANTED_MIXED || bug == PLANTED_REPLYTIME ||
        bug == PLANTED_AMNESIA || bug == PLANTED_STALETOPO) {
        plan->hurry = 20;
        plan->delay_us = 200;
        plan->witnesses = 0;
    }
    if (bug >= 0 && scenes[bug][0].jitter_ms > 0) {
        const struct stage *stage = &stages[bug];
        plan->members = stage->members > 0 ? stage->members : 3;
        plan->witnesses = stage->witnesses;
        for (unsigned i = 0; i < WORLD_MEMBERS; i++)
            plan->priorities[i] = 100;
        plan->durability = stage->durability;
        plan->lease_ms = 1000;
        plan->hurry = stage->hurry > 0 ? stage->hurry : plan->hurry;
        plan->snapshot_every = stage->snapshot_every > 0 ? stage->snapshot_every : plan->snapshot_every;
        play_scenes(&dice, plan, bug);
    } else {
        plan->observers = bug < 0 && plan->members > 3 && seed % 2 == 0;
        roll_faults(&dice, plan, bug);
    }
    if (bug < 0 && roll(&dice, 8) == 0)
        plan->copying_ms = 1000 + (unsigned)roll(&dice, 14000);
    plan->no_rewinds = bug < 0 && roll(&dice, 8) == 0;
    if (bug < 0 && roll(&dice, 8) == 0)
        plan->keeps = 10 + (unsigned)roll(&dice, 200);
}

/* ---- happening ---- */

static bool has_data(const struct world *world, unsigned member) { return !is_witness_member(world, member); }

static unsigned resolve(const struct world *world, const struct fault *fault) {
    unsigned any = fault->member % world->members_count;
    if (fault->victim == VICTIM_ACTOR && world->cue_member < world->members_count)
        return world->cue_member;
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

/* But for `member`, everybody has the data directory that is recorded for it. */
static bool others_intact(const struct world *world, unsigned member) {
    for (unsigned i = 0; i < world->topology.members_count; i++) {
        const Member *other = &world->topology.members[i];
        Copy recorded = {.member = other->id, .copy = other->copy};
        if (i != member && has_data(world, i) && !intact(world, recorded))
            return false;
    }
    return true;
}

/* Somebody who may be primary streams from `member`: what it lacks at most is the end of a history that is its own, and
 * as long as it is not frozen the others still have that. */
static bool another_may_be_primary(const struct world *world, unsigned member) {
    for (unsigned i = 0; i < world->topology.members_count; i++) {
        const struct modelled_postgres *postgres = &world->members[i].postgres;
        if (world->topology.members[i].priority > 0 && postgres->attached && postgres->streaming &&
            postgres->frozen == 0 && postgres->source == (int)member)
            return true;
    }
    return false;
}

/* What no protocol can save is no fault: a copy is lost only while the others have all that was acknowledged. That is
 * the primary, once it has written in its epoch; or so many of its rule's standbys that they cover it. */
static bool may_lose(const struct world *world, unsigned member) {
    const Topology *topology = &world->topology;
    if (!has_data(world, member) || topology->epoch == 0 || topology->settings.durability != DURABILITY_QUORUM)
        return false;
    if (topology->primary.member != member + 1) {
        const struct modelled_postgres *primary = &world->members[topology->primary.member - 1].postgres;
        /* And then its disk is what the next epoch stands on. */
        bool may_be_chosen = topology->sealed && !daemon_runs(world, topology->primary.member - 1);
        return intact(world, topology->primary) && (!may_be_chosen || others_intact(world, member)) &&
               position_of(primary).timeline == topology_epoch(topology, topology->epoch)->timeline;
    }
    for (unsigned i = 0; i < sizeof world->proposals / sizeof *world->proposals; i++)
        if (world->proposals[i].used)
            return false; /* a weaker rule may be under way */
    const Rule *rule = &topology->rules[0];
    for (unsigned i = 0; i < rule->standbys_count; i++)
        if (!intact(world, rule->standbys[i]))
            return false; /* lost a moment ago, and nobody knows yet */
    return rule->needed > 0 && world_is_redundant(world) && another_may_be_primary(world, member);
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
    postgres->lost_copies |= 1ull << postgres->copy % 64;
    postgres->copy = 0;
    postgres->data = restored ? DATA_COMPLETE : DATA_EMPTY;
    postgres->length = postgres->flushed = restored ? postgres->length - 1 - (unsigned)draw(world, 20) : 0;
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

/* Ends what was done to `member` (-1: to anyone) before its time. */
static void mend(struct world *world, int member) {
    for (unsigned i = 0; i < world->occasions_count; i++) {
        struct occasion *occasion = &world->occasions[i], ends = *occasion;
        if (ends.kind != OCCASION_FAULT_ENDS || (member >= 0 && ends.from != member))
            continue;
        occasion->kind = OCCASION_VOID;
        fault_end(world, (enum fault_kind)ends.a, ends.from, ends.to, ends.b);
        i = 0; /* the list is another now */
    }
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
    case FAULT_HOST_PAUSE:
        host_pause(world, member, true);
        /* fall through */
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
    case FAULT_POWER_CUT:
        daemon_kill(world, member);
        self->operating = false;
        kill_postgres(world, member, 0);
        if (fault->kind == FAULT_POWER_CUT)
            self->postgres.length = self->postgres.flushed;
        break;
    case FAULT_DISK_HANGS:
        postgres_disk(world, member, true);
        break;
    case FAULT_UNHEARD:
        world->unheard[member][other]++;
        break;
    case FAULT_HELD:
        world->held[fault->what]++;
        break;
    case FAULT_BUSY:
        world->busy++;
        for (unsigned i = 0; i < world->members_count; i++)
            if (world->members[i].postgres.server == SERVER_PRIMARY)
                timer_at_latest(world, i, TIMER_CLIENT, world->now + msec(1));
        break;
    case FAULT_MENDED:
        mend(world, fault->victim == VICTIM_EVERYONE ? -1 : (int)member);
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
        if (fault->victim == VICTIM_MEMBER && world->leader >= 0 && world->leader != (int)member)
            log_yield(world, (unsigned)world->leader, member);
        else
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
                                              .a = fault->kind,
                                              .b = fault->what});
}

void fault_end(struct world *world, enum fault_kind kind, unsigned member, unsigned other, unsigned what) {
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
    case FAULT_POWER_CUT:
        daemon_start(world, member);
        break;
    case FAULT_DISK_HANGS:
        postgres_disk(world, member, false);
        break;
    case FAULT_UNHEARD:
        world->unheard[member][other]--;
        break;
    case FAULT_HELD:
        world->held[what]--;
        log_land_held(world);
        break;
    case FAULT_BUSY:
        world->busy--;
        break;
    case FAULT_HOST_PAUSE:
        host_pause(world, member, false);
        /* fall through */
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

static nsec begins_at(const struct world *world, const struct fault *fault) {
    nsec cued = world->cue_came == NSEC_NEVER ? NSEC_NEVER : world->cue_came + fault->after;
    return cued < fault->at ? cued : fault->at;
}

/* Begins the fault that is due, and looks for the next; after the last, mends what is left. */
void plan_next_fault(struct world *world) {
    const struct plan *plan = &world->plan;
    nsec next = NSEC_NEVER;
    while (world->next_fault < plan->faults_count && world->now < plan->ends) {
        const struct fault *fault = &plan->faults[world->next_fault];
        next = begins_at(world, fault);
        if (next > world->now)
            break;
        next = NSEC_NEVER;
        world->next_fault++;
        bool then = world->next_fault < plan->faults_count && fault[1].cue == CUE_THEN;
        world->cue_came = then ? world->now : NSEC_NEVER;
        if (!fault->off)
            fault_begin(world, fault);
    }
    if (world->now < plan->ends) {
        world->world_timers[WORLD_TIMER_FAULT] = next < plan->ends ? next : plan->ends;
        return;
    }
    tell(world, -1, "the last fault is mended");
    mend(world, -1);
    world->quiet = true;
    world->quiet_since = world->now;
    for (unsigned i = 0; i < world->members_count; i++)
        daemon_start(world, i);
}

void plan_cue(struct world *world, enum cue cue, unsigned what, unsigned member) {
    const struct fault *fault = &world->plan.faults[world->next_fault];
    if (world->next_fault >= world->plan.faults_count || world->cue_came != NSEC_NEVER || fault->cue != cue ||
        fault->what != what)
        return;
    world->cue_came = world->now;
    world->cue_member = member;
    world->world_timers[WORLD_TIMER_FAULT] =
        begins_at(world, fault) > world->now ? begins_at(world, fault) : world->now;
}
