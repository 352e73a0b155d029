/* The core's decisions as tables: what a member's PostgreSQL needs next, who may be chosen, and what a lease is worth.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/parts.h"

static struct core core;
static struct actions actions;

/* m1 is primary of epoch 3 on timeline 4 (base 3/5000), rule ANY 1 (m2, m3); we are `self`, synced. */
static void standing_epoch(uint32_t self) {
    struct core_config config = {.raft_id = 100 + self, .start_count = 1, .probe_timeout_ms = 1000};
    snprintf(config.name, sizeof config.name, "m%u", self);
    core_init(&core, &config, NSEC_PER_SEC);
    Topology *topology = &core.topology;
    topology->cluster_id = 1;
    topology->index = 50;
    topology->settings.lease_ms = topology->longest_lease_ms = 2000;
    topology->system_identifier = 77;
    topology->timeline_offset = 1;
    topology->members_count = 3;
    for (unsigned i = 0; i < 3; i++) {
        Member *member = &topology->members[i];
        *member = (Member){.id = i + 1, .raft_id = 101 + i, .priority = 100, .copy = 1};
        snprintf(member->name, sizeof member->name, "m%u", i + 1);
    }
    topology->epoch = 3;
    topology->primary = (Copy){1, 1};
    topology->open = true;
    topology->generation = 7;
    topology->rules_count = 1;
    topology->rules[0] = (Rule){
        .generation = 7, .epoch = 3, .primary = {1, 1}, .needed = 1, .standbys_count = 2, .standbys = {{2, 1}, {3, 1}}};
    topology->epochs_count = 2;
    topology->epochs[0] = (Epoch){.epoch = 2, .primary = {2, 1}, .timeline = 3, .base = {2, 4000}};
    topology->epochs[1] = (Epoch){.epoch = 3, .primary = {1, 1}, .timeline = 4, .base = {3, 5000}};
    core.self = self;
    core.synced = true;
    core.facts_known = true;
    core.facts.guard = true;
    core.facts.data = DATA_COMPLETE;
    core.facts.copy = 1;
    core.facts.system_identifier = 77;
    core.facts.standby_signal = true;
    core.facts.guard_deadline = NSEC_NEVER;
    core.forced_generation = 7;
    core.now = 100 * NSEC_PER_SEC;
}

/* m4 with data and m5 without. */
static void observers(void) {
    Topology *topology = &core.topology;
    for (unsigned i = topology->members_count; i < 5; i++) {
        Member *member = &topology->members[topology->members_count++];
        *member = (Member){.id = i + 1, .raft_id = 101 + i, .priority = 100, .copy = 1, .observer = true};
        member->witness = i == 4;
        snprintf(member->name, sizeof member->name, "m%u", i + 1);
    }
}

static enum operation_kind next_operation(void) {
    actions.count = 0;
    core.wake_at = NSEC_NEVER;
    reconcile_step(&core, &actions);
    for (unsigned i = 0; i < actions.count; i++)
        if (actions.list[i].kind == ACTION_OPERATE)
            return actions.list[i].operation.kind;
    return OPERATE_NONE;
}

/* ---- reconcile ---- */

static void primary_writes(void) {
    core.seen[0].member = 1;
    core.seen[0].running_epoch = core.topology.epoch;
    core.heard_at[0] = core.now;
}

static void cut_at(uint32_t timeline, uint64_t lsn) {
    core.facts.server = SERVER_STANDBY;
    core.facts.position = (Position){timeline, lsn};
    core.cut = (struct cut){.valid = true, .pledged = core.topology.epoch - 1, .position = {timeline, lsn}};
}

static void seal(void) {
    core.topology.sealed = true;
    core.topology.open = false;
    core.topology.seal_index = 50;
}

static void down(void) { core.facts.server = SERVER_DOWN; }
static void streaming(void) {
    core.facts.server = SERVER_STANDBY;
    core.facts.streaming = true;
    core.facts.position = (Position){4, 6000};
    core.attached_epoch = 3;
    primary_writes();
}
static void streaming_when_sealed(void) {
    streaming();
    seal();
}
static void cut_for_this_seal(void) {
    cut_at(4, 6000);
    seal();
    core.cut.pledged = 3;
}
static void cut_before_this_seal(void) {
    cut_at(4, 6000);
    seal();
    core.cut.pledged = 2;
}
/* m3 has more WAL than we, and may not be primary. */
static void m3_answers(uint32_t priority, Position position) {
    core.topology.members[2].priority = priority;
    core.seen[2] = (Observation){.member = 3,
                                 .data = DATA_COMPLETE,
                                 .server = SERVER_STANDBY,
                                 .copy = 1,
                                 .position = position,
                                 .prepared_seal = 50};
    core.heard_at[2] = core.now;
}
static void source_ahead(void) {
    cut_for_this_seal();
    m3_answers(0, (Position){4, 6100});
}
static void eligible_ahead(void) {
    cut_for_this_seal();
    m3_answers(100, (Position){4, 6100});
}
static void neither_may_be_primary(void) {
    source_ahead();
    core.topology.members[1].priority = 0;
}
static void another_has_as_much(void) {
    source_ahead();
    core.seen[0] = core.seen[2];
    core.seen[0].member = 1;
    core.heard_at[0] = core.now;
}
static void source_silent(void) {
    source_ahead();
    core.heard_at[2] -= msec(1001);
}
static void source_of_another_history(void) {
    source_ahead();
    core.topology.epochs[1].base = (Position){3, 5000};
    core.cut.position = (Position){3, 5001};
}
static void source_lacks_what_comes_next(void) {
    source_ahead();
    core.seen[2].oldest_lsn = 6050;
}
static void fetched_a_moment_ago(void) {
    source_ahead();
    core.fetched_at = core.now - msec(2999);
}
static void fetching(void) {
    source_ahead();
    core.cut.valid = false;
    core.facts.receiver = core.facts.streaming = true;
    core.fetched_at = core.now - msec(1001);
    snprintf(core.facts.upstream_name, sizeof core.facts.upstream_name, "m2_1_0");
}
static void fetched_it_all(void) {
    fetching();
    core.facts.position.lsn = 6100;
}
static void fetch_begins(void) {
    fetching();
    core.facts.streaming = false;
    core.fetched_at = core.now - msec(900);
}
static void fetch_does_not_stream(void) {
    fetching();
    core.facts.streaming = false;
}
static void fetching_and_source_silent(void) {
    fetching();
    core.heard_at[2] -= msec(1001);
}
static void fetching_and_assigned(void) {
    fetching();
    core.topology.sealed = false;
}
static void uncut_and_new_primary(void) {
    streaming();
    core.attached_epoch = 2;
}
static void prefix_and_primary_writes(void) {
    cut_at(4, 5500);
    primary_writes();
}
static void prefix_at_fork(void) {
    cut_at(3, 5000);
    primary_writes();
}
static void prefix_but_primary_silent(void) { cut_at(4, 5500); }
static void diverged(void) {
    cut_at(3, 5001);
    primary_writes();
}
static void diverged_before_open(void) {
    diverged();
    core.topology.open = false;
    core.topology.rules[0].standbys_count = 1;
    core.topology.rules[0].standbys[0].member = 9;
}
static void diverged_and_needed_to_open(void) {
    diverged();
    core.topology.open = false;
}
static void wal_gone(void) {
    streaming();
    core.facts.streaming = false;
    core.seen[0].oldest_lsn = 7000;
}
static void primary_writes_unopened(uint32_t durability) {
    core.topology.open = false;
    core.topology.settings.durability = durability;
    core.seen[0].running_epoch = core.topology.epoch;
    core.heard_at[0] = core.now;
}
static void wal_gone_unopened(uint32_t durability) {
    cut_at(4, 6000);
    primary_writes_unopened(durability);
    core.seen[0].oldest_lsn = 7000;
}
static void wal_gone_before_open_in_strict(void) { wal_gone_unopened(DURABILITY_STRICT); }
static void still_replays_before_open_in_strict(void) { /* where it ends is not known before it is cut */
    wal_gone_before_open_in_strict();
    core.cut.valid = false;
}
static void wal_gone_before_open_in_quorum(void) { wal_gone_unopened(DURABILITY_QUORUM); }
static void wal_kept(void) {
    wal_gone();
    core.seen[0].oldest_lsn = 5000;
}
static void must_rewind(void) {
    down();
    core.must_rewind = true;
}
static void must_rewind_when_sealed(void) {
    must_rewind();
    seal();
}
static void must_clone_when_sealed(void) {
    down();
    core.must_clone = true;
    core.granted_copy = 1;
    seal();
}
static void empty(void) {
    down();
    core.facts.data = DATA_EMPTY;
    core.facts.copy = 0;
    core.granted_copy = 1;
}
static void empty_without_number(void) {
    empty();
    core.granted_copy = 0;
}
static void empty_before_open(void) {
    empty();
    core.topology.open = false;
}
/* What the hands say of a label or a pledge that cannot be trusted. */
static void damaged(void) { snprintf(core.facts.damaged, sizeof core.facts.damaged, "postgresql/label is damaged"); }
static void label_damaged(void) {
    down();
    damaged();
    core.facts.data = DATA_REFUSED;
    core.facts.copy = 0;
    core.granted_copy = 1;
    primary_writes();
}
static void label_damaged_while_streaming(void) {
    label_damaged();
    streaming();
}
static void label_mended(void) {
    label_damaged();
    core.facts.data = DATA_BROKEN;
    core.facts.damaged[0] = '\0';
}
static void label_mended_before_open(void) {
    label_mended();
    core.topology.open = false;
}
static void pledge_damaged(void) {
    prefix_and_primary_writes();
    damaged();
    core.facts.pledged_epoch = UINT32_MAX;
}
static void pledge_damaged_while_streaming(void) {
    streaming();
    damaged();
    core.facts.pledged_epoch = UINT32_MAX;
}
static void empty_before_open_in_strict(void) {
    empty();
    primary_writes_unopened(DURABILITY_STRICT);
}
static void empty_before_open_in_quorum(void) {
    empty();
    primary_writes_unopened(DURABILITY_QUORUM);
}
static void complete_before_open_in_strict(void) { /* and a rewind has failed */
    down();
    primary_writes_unopened(DURABILITY_STRICT);
    core.must_clone = true;
    core.granted_copy = 1;
}
static void complete_before_open_in_quorum(void) {
    complete_before_open_in_strict();
    core.topology.settings.durability = DURABILITY_QUORUM;
}
static void complete_and_not_needed(void) {
    complete_before_open_in_strict();
    core.topology.rules[0].standbys[0].copy = 2;
}
static void broken(void) {
    down();
    core.facts.data = DATA_BROKEN;
    core.granted_copy = 1;
}
static void foreign(void) {
    down();
    core.facts.system_identifier = 78;
}
static void no_guard(void) {
    down();
    core.facts.guard = false;
}
static void not_synced(void) {
    down();
    core.synced = false;
}
static void writes_in_old_epoch(void) {
    core.facts.server = SERVER_PRIMARY;
    core.facts.position = (Position){3, 7000};
}
static void stopping_standby(void) {
    streaming();
    core.stopping = true;
    core.stopping_since = core.now;
}
static void stale_facts(void) {
    down();
    core.facts.seen_at = core.now - 1;
    core.job.ended_at = core.now;
}
static void just_failed(void) {
    down();
    core.job.failed_kind = OPERATE_START;
    core.job.retry_at = core.now + 1;
}
static void shut_briefly(void) {
    streaming();
    core.facts.admission_pending = core.now - msec(9000);
}
static void shut_for_long(void) {
    streaming();
    core.facts.admission_pending = core.now - msec(10001);
}
static void hung_briefly(void) {
    core.facts.server = SERVER_HUNG;
    core.hung_since = core.now - msec(2000);
}
static void hung_for_long(void) {
    core.facts.server = SERVER_HUNG;
    core.hung_since = core.now - msec(11000);
}

static void test_reconcile_standby(void **state) {
    (void)state;
    static const struct {
        const char *situation;
        void (*arrange)(void);
        enum operation_kind expected;
    } rows[] = {
        {"down", down, OPERATE_START},
        {"streaming", streaming, OPERATE_NONE},
        {"sealed while streaming", streaming_when_sealed, OPERATE_CUT},
        {"cut for this seal", cut_for_this_seal, OPERATE_NONE},
        {"cut, but no pledge of this epoch", cut_before_this_seal, OPERATE_CUT},
        {"has less WAL than one that may not be primary", source_ahead, OPERATE_FETCH},
        {"has less WAL than one that may be primary", eligible_ahead, OPERATE_NONE},
        {"has less WAL, and may not be primary itself", neither_may_be_primary, OPERATE_NONE},
        {"another that may be primary has all", another_has_as_much, OPERATE_NONE},
        {"who has more WAL is silent", source_silent, OPERATE_NONE},
        {"who has more WAL has another history", source_of_another_history, OPERATE_NONE},
        {"who has more WAL no longer has the next", source_lacks_what_comes_next, OPERATE_NONE},
        {"tried to stream it a moment ago", fetched_a_moment_ago, OPERATE_NONE},
        {"streams it", fetching, OPERATE_NONE},
        {"has it all", fetched_it_all, OPERATE_CUT},
        {"is to stream it", fetch_begins, OPERATE_NONE},
        {"does not come to stream it", fetch_does_not_stream, OPERATE_CUT},
        {"streams from one that has fallen silent", fetching_and_source_silent, OPERATE_CUT},
        {"streams, and somebody was assigned", fetching_and_assigned, OPERATE_CUT},
        {"attached to an older epoch's primary", uncut_and_new_primary, OPERATE_CUT},
        {"on the primary's timeline", prefix_and_primary_writes, OPERATE_FOLLOW},
        {"exactly at the fork", prefix_at_fork, OPERATE_FOLLOW},
        {"the primary does not write yet", prefix_but_primary_silent, OPERATE_NONE},
        {"one byte past the fork", diverged, OPERATE_STOP},
        {"past the fork, primary not open", diverged_before_open, OPERATE_NONE},
        {"past the fork, but opening needs us", diverged_and_needed_to_open, OPERATE_STOP},
        {"the primary no longer has the next WAL", wal_gone, OPERATE_STOP},
        {"so it is, and `strict` needs us to open", wal_gone_before_open_in_strict, OPERATE_STOP},
        {"so it seems before we are cut", still_replays_before_open_in_strict, OPERATE_CUT},
        {"so it is, and `quorum` opens without", wal_gone_before_open_in_quorum, OPERATE_FOLLOW},
        {"not streaming, but the primary has the next WAL", wal_kept, OPERATE_NONE},
        {"stopped to be rewound", must_rewind, OPERATE_REWIND},
        {"was to be rewound, and the epoch was sealed", must_rewind_when_sealed, OPERATE_START},
        {"was to be cloned, and the epoch was sealed", must_clone_when_sealed, OPERATE_START},
        {"no data directory, number granted", empty, OPERATE_CLONE},
        {"no data directory, no number yet", empty_without_number, OPERATE_NONE},
        {"no data directory, primary not open", empty_before_open, OPERATE_NONE},
        {"no data directory, and `strict` opens only with a standby", empty_before_open_in_strict, OPERATE_CLONE},
        {"no data directory, and `quorum` opens without", empty_before_open_in_quorum, OPERATE_NONE},
        {"it cannot be rewound, and `strict` needs it to open", complete_before_open_in_strict, OPERATE_CLONE},
        {"it cannot be rewound, and `quorum` opens without", complete_before_open_in_quorum, OPERATE_NONE},
        {"data that might be the last copy", complete_and_not_needed, OPERATE_NONE},
        {"half a clone", broken, OPERATE_CLONE},
        {"another cluster's data", foreign, OPERATE_NONE},
        {"nobody knows what its data directory is", label_damaged, OPERATE_NONE},
        {"the same, while it runs", label_damaged_while_streaming, OPERATE_STOP},
        {"that was given up", label_mended, OPERATE_CLONE},
        {"that was given up, primary not open", label_mended_before_open, OPERATE_NONE},
        {"nobody knows what it has pledged", pledge_damaged, OPERATE_NONE},
        {"the same, while it streams", pledge_damaged_while_streaming, OPERATE_NONE},
        {"no guard", no_guard, OPERATE_NONE},
        {"not synced", not_synced, OPERATE_NONE},
        {"writes in an epoch that is over", writes_in_old_epoch, OPERATE_KILL},
        {"told to stop", stopping_standby, OPERATE_STOP},
        {"facts older than the last operation", stale_facts, OPERATE_NONE},
        {"failed a moment ago", just_failed, OPERATE_NONE},
        {"has let nobody in for nine seconds", shut_briefly, OPERATE_NONE},
        {"has let nobody in for ten seconds", shut_for_long, OPERATE_KILL},
        {"hangs for two seconds", hung_briefly, OPERATE_NONE},
        {"hangs for eleven seconds", hung_for_long, OPERATE_KILL},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        standing_epoch(2);
        rows[i].arrange();
        enum operation_kind found = next_operation();
        if (found != rows[i].expected)
            fail_msg("%s: %s, expected %s", rows[i].situation, operation_kind_name(found),
                     operation_kind_name(rows[i].expected));
    }
}

static void serving(void) {
    core.facts.server = SERVER_PRIMARY;
    core.facts.position = (Position){4, 9000};
}
static void serving_sealed(void) {
    serving();
    seal();
}
static void serving_joint(void) {
    serving();
    core.topology.rules_count = 2;
    core.topology.rules[1] = core.topology.rules[0];
    core.topology.rules[1].generation = core.topology.generation = 8;
}
static void serving_slow_disk(void) {
    serving();
    core.facts.durable_pending = core.now - msec(1001);
}
static void stream_from_us(uint32_t member) { /* caught up, by what the primary sees */
    Sender *sender = &core.facts.senders[core.facts.senders_count++];
    snprintf(sender->name, sizeof sender->name, "m%u_1_3", member);
    snprintf(sender->state, sizeof sender->state, "streaming");
}
/* Facts that come while a durable write has been waiting for long. */
static void waits_in_strict(void) {
    serving_slow_disk();
    core.topology.settings.durability = DURABILITY_STRICT;
    reconcile_facts(&core);
}
static void waits_for_a_standby(void) {
    waits_in_strict();
    core.now += msec(500);
}
static void a_standby_catches_up(void) {
    serving_slow_disk();
    stream_from_us(2);
    snprintf(core.facts.senders[0].state, sizeof core.facts.senders[0].state, "catchup");
    waits_in_strict();
}
static void a_standby_came_just_now(void) {
    waits_in_strict();
    core.now += msec(500);
    stream_from_us(2);
    reconcile_facts(&core);
}
static void a_standby_came_and_it_hangs(void) {
    a_standby_came_just_now();
    core.now += msec(501);
}
static void serving_fast_disk(void) {
    serving();
    core.facts.durable_pending = core.now - msec(900);
}
static void serving_silent(void) {
    serving();
    core.facts.answer_pending = core.now - msec(1001);
}
static void serving_slow_to_answer(void) {
    serving();
    core.facts.answer_pending = core.now - msec(900);
}
static void serving_shut(void) {
    serving();
    core.facts.admission_pending = core.now - msec(1001);
}
static void serving_slow_to_let_in(void) {
    serving();
    core.facts.admission_pending = core.now - msec(900);
}
static void intent(void) {
    core.topology.intent = (Intent){.kind = INTENT_SWITCHOVER, .from = 1, .epoch = 3, .number = 40};
}
static void serving_switchover(void) {
    serving();
    intent();
}
static void serving_switchover_checkpointed(void) {
    serving();
    intent();
    core.checkpointed_intent = 40;
}
static void serving_switchover_with_poolers(void) {
    serving_switchover_checkpointed();
    core.config.poolers = true;
}
static void serving_switchover_paused(void) {
    serving_switchover_with_poolers();
    core.paused_intent = 40;
}
static void serving_will_not_stop(void) {
    serving();
    intent();
    core.job.failed_kind = OPERATE_STOP;
    core.job.failures = 1;
}
static void assigned(void) {
    core.topology.open = false;
    cut_at(3, 5000);
    core.facts.guard_epoch = 3;
    core.facts.guard_deadline = core.now + msec(1000);
}
static void assigned_without_lease(void) {
    assigned();
    core.facts.guard_deadline = NSEC_NEVER;
}
static void assigned_lease_of_old_epoch(void) {
    assigned();
    core.facts.guard_epoch = 2;
}
static void assigned_elsewhere(void) {
    assigned();
    cut_at(3, 4999);
}
static void assigned_other_copy(void) {
    assigned();
    core.facts.copy = 2;
}
static void assigned_pledged(void) {
    assigned();
    core.facts.pledged_epoch = 3;
}
static void assigned_unfenced(void) {
    assigned_without_lease();
    snprintf(core.facts.unfenced, sizeof core.facts.unfenced, "watchdog: /dev/watchdog: No such file or directory");
}
static void assigned_damaged(void) {
    assigned();
    core.facts.pledged_epoch = UINT32_MAX;
    snprintf(core.facts.damaged, sizeof core.facts.damaged, "postgresql/pledge has a wrong checksum");
}
static void assigned_uncut(void) {
    assigned();
    core.cut.valid = false;
}
static void restarted_in_epoch(void) {
    core.facts.server = SERVER_STANDBY;
    core.facts.position = (Position){4, 9000};
    core.cut.valid = true;
    core.cut.position = core.facts.position;
}
static void fell(void) {
    down();
    core.down_since = core.now - msec(10);
}
static void fell_without_signal(void) {
    down();
    core.facts.standby_signal = false;
    core.down_since = core.now - msec(10);
}
static void fell_and_was_restored(void) { /* from a backup, in place */
    fell_without_signal();
    core.facts.copy = 0;
}
static void fell_with_the_only_copy(void) {
    fell();
    core.topology.rules[0].needed = core.topology.rules[0].standbys_count = 0;
}

static void test_reconcile_primary(void **state) {
    (void)state;
    static const struct {
        const char *situation;
        void (*arrange)(void);
        enum operation_kind expected;
        bool gives_up;
    } rows[] = {
        {"serving", serving, OPERATE_NONE, false},
        {"sealed while serving", serving_sealed, OPERATE_KILL, false},
        {"a joint rule", serving_joint, OPERATE_RULE, false},
        {"a durable write hangs", serving_slow_disk, OPERATE_KILL, false},
        {"a durable write is slow", serving_fast_disk, OPERATE_NONE, false},
        {"`strict`: it waits for a standby", waits_for_a_standby, OPERATE_NONE, false},
        {"`strict`: a standby catches up", a_standby_catches_up, OPERATE_NONE, false},
        {"`strict`: a standby came just now", a_standby_came_just_now, OPERATE_NONE, false},
        {"`strict`: a standby came, and it hangs", a_standby_came_and_it_hangs, OPERATE_KILL, false},
        {"it does not answer", serving_silent, OPERATE_KILL, false},
        {"it is slow to answer", serving_slow_to_answer, OPERATE_NONE, false},
        {"lets no new session in", serving_shut, OPERATE_KILL, false},
        {"is slow to let a new session in", serving_slow_to_let_in, OPERATE_NONE, false},
        {"switchover", serving_switchover, OPERATE_CHECKPOINT, false},
        {"switchover, checkpoint done", serving_switchover_checkpointed, OPERATE_STOP, false},
        {"switchover, there are poolers", serving_switchover_with_poolers, OPERATE_PAUSE, false},
        {"switchover, their clients wait", serving_switchover_paused, OPERATE_STOP, false},
        {"switchover, does not stop", serving_will_not_stop, OPERATE_KILL, false},
        {"assigned, at base, lease armed", assigned, OPERATE_PROMOTE, false},
        {"assigned, no lease", assigned_without_lease, OPERATE_NONE, false},
        {"assigned, the lease is an older epoch's", assigned_lease_of_old_epoch, OPERATE_NONE, false},
        {"assigned, position differs", assigned_elsewhere, OPERATE_NONE, true},
        {"assigned, another copy", assigned_other_copy, OPERATE_NONE, true},
        {"assigned, but pledged not to", assigned_pledged, OPERATE_NONE, false},
        {"assigned, but what it pledged is not known", assigned_damaged, OPERATE_NONE, true},
        {"assigned, not cut", assigned_uncut, OPERATE_CUT, false},
        {"restarted within its epoch", restarted_in_epoch, OPERATE_NONE, true},
        {"assigned, its guard takes no lease", assigned_unfenced, OPERATE_NONE, true},
        {"fell", fell, OPERATE_NONE, true},
        {"fell, and only it acknowledged", fell_with_the_only_copy, OPERATE_START, true},
        {"fell, could start as a primary", fell_without_signal, OPERATE_START, false},
        {"fell, and another data directory is there", fell_and_was_restored, OPERATE_NONE, false},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        standing_epoch(1);
        rows[i].arrange();
        enum operation_kind found = next_operation();
        if (found != rows[i].expected || (core.relinquished_epoch == 3) != rows[i].gives_up)
            fail_msg("%s: %s, gives up %d", rows[i].situation, operation_kind_name(found),
                     core.relinquished_epoch == 3);
    }
}

/* ---- stop ---- */

static void test_told_to_stop_before_the_record_is_known(void **state) {
    (void)state;
    static const struct core_config config = {.name = "m1", .raft_id = 101, .start_count = 2};
    core_init(&core, &config, NSEC_PER_SEC);
    core.facts_known = core.facts.guard = core.stopping = true;
    core.facts.server = SERVER_PRIMARY;
    assert_int_equal(next_operation(), OPERATE_STOP);
}

/* ---- candidate ---- */

static void report(uint32_t member, uint32_t copy, uint32_t timeline, uint64_t lsn) {
    core.heard_at[member - 1] = core.now;
    core.seen[member - 1] = (Observation){.member = member,
                                          .synced = true,
                                          .data = DATA_COMPLETE,
                                          .server = SERVER_STANDBY,
                                          .copy = copy,
                                          .position = {timeline, lsn},
                                          .prepared_seal = 50,
                                          .released_seal = 50};
}

static void voter_only(uint32_t member) {
    core.heard_at[member - 1] = core.now;
    core.seen[member - 1] = (Observation){.member = member, .synced = true, .released_seal = 50};
}

static void both_equal(void) {
    report(2, 1, 4, 6000);
    report(3, 1, 4, 6000);
}
static void third_ahead(void) {
    report(2, 1, 4, 6000);
    report(3, 1, 4, 6001);
}
static void one_is_no_cover(void) {
    report(2, 1, 4, 6000);
    voter_only(3);
}
static void one_has_fallen_silent(void) {
    both_equal();
    core.heard_at[2] = core.now - msec(1001);
}
static void old_primary_covers(void) {
    report(1, 1, 4, 6000);
    voter_only(2);
}
static void old_primary_ahead(void) {
    report(1, 1, 4, 6100);
    report(2, 1, 4, 6000);
}
static void other_copies(void) {
    both_equal();
    core.seen[1].copy = 2;
}
static void not_released(void) {
    both_equal();
    core.seen[1].released_seal = core.seen[2].released_seal = 0;
}
static void answers_to_old_seal(void) {
    both_equal();
    core.seen[1].prepared_seal = 40;
}
static void half_rewound(void) {
    both_equal();
    core.seen[2].data = DATA_BROKEN;
}
static void highest_not_eligible(void) {
    third_ahead();
    core.topology.members[2].priority = 0;
}
static void equal_not_eligible(void) {
    both_equal();
    core.topology.members[1].priority = 0;
}
static void preferred(void) {
    both_equal();
    core.topology.members[2].priority = 200;
}
static void asked_for(void) {
    both_equal();
    core.topology.intent = (Intent){.kind = INTENT_SWITCHOVER, .from = 1, .to = 3, .epoch = 3};
}
static void joint_rule_uncovered(void) {
    both_equal();
    core.topology.rules_count = 2;
    core.topology.rules[1] = (Rule){.generation = 8, .epoch = 3, .primary = {1, 1}};
}
static void later_timeline_covers(void) {
    report(2, 1, 5, 6000);
    voter_only(3);
}
static void failed_last(void) {
    both_equal();
    report(1, 1, 4, 6000);
    core.topology.rules_count = 2;
    core.topology.rules[1] = core.topology.rules[0];
    core.topology.rules[0].epoch = 2;
}

static void observer_ahead(void) {
    observers();
    both_equal();
    report(4, 1, 4, 7000);
}
static void observer_of_the_rule(void) {
    one_is_no_cover();
    observers();
    core.topology.rules[0].standbys[1].member = 4;
    report(4, 1, 4, 6000);
}
static void observer_on_later_timeline(void) {
    one_is_no_cover();
    observers();
    report(4, 1, 5, 6000);
}
static void observers_released(void) {
    both_equal();
    observers();
    core.seen[2].released_seal = 0;
    report(4, 1, 4, 6000);
    voter_only(5);
}
static void observers_silent(void) {
    both_equal();
    observers();
}

static void async_and_nothing_known(void) {
    core.topology.settings.durability = DURABILITY_ASYNC;
    core.topology.rules[0].needed = core.topology.rules[0].standbys_count = 0;
    core.coordinator.sealed_at = core.now - msec(5000);
}
static void async_unknown_loss(void) {
    both_equal();
    async_and_nothing_known();
}
static void async_loss(void) {
    async_unknown_loss();
    core.coordinator.sealed_at = core.now - msec(10);
    core.primary_wal.epoch = 3;
    core.primary_wal.lsn = 6100;
    core.topology.settings.max_loss_bytes = 100;
}
static void async_loss_too_large(void) {
    async_loss();
    core.topology.settings.max_loss_bytes = 99;
}
static void async_primary_may_answer(void) {
    async_loss();
    core.heard_at[0] = core.now;
}
static void async_observer_does_not_answer(void) {
    async_loss();
    observers();
    core.heard_at[3] = core.now;
}
static void async_old_primary_answers(void) {
    old_primary_covers();
    async_and_nothing_known();
}

static void test_choose(void **state) {
    (void)state;
    static const struct {
        const char *situation;
        void (*arrange)(void);
        uint32_t chosen; /* 0 = nobody */
    } rows[] = {
        {"two equal standbys: the first", both_equal, 2},
        {"the longest WAL wins", third_ahead, 3},
        {"one of two standbys covers nothing", one_is_no_cover, 0},
        {"who has fallen silent covers nothing", one_has_fallen_silent, 0},
        {"the rule's primary covers it", old_primary_covers, 1},
        {"its answer must be reached, too", old_primary_ahead, 1},
        {"another copy is no reporter of the rule", other_copies, 0},
        {"no majority released", not_released, 0},
        {"answers to an older seal", answers_to_old_seal, 0},
        {"a half rewound member is no reporter", half_rewound, 0},
        {"the highest may not be primary: wait", highest_not_eligible, 0},
        {"an equal one may", equal_not_eligible, 3},
        {"priority among equals", preferred, 3},
        {"an operator's wish among equals", asked_for, 3},
        {"every recorded rule must be covered", joint_rule_uncovered, 0},
        {"WAL of a later epoch covers", later_timeline_covers, 2},
        {"one that failed comes last", failed_last, 2},
        {"an observer's WAL need not be reached", observer_ahead, 2},
        {"and covers no rule", observer_of_the_rule, 0},
        {"whatever its timeline", observer_on_later_timeline, 0},
        {"observers release nothing", observers_released, 0},
        {"and are missed by nobody", observers_silent, 2},
        {"async: a loss that nobody can tell", async_unknown_loss, 0},
        {"async: a known loss, and nobody else to ask", async_loss, 2},
        {"async: a loss above the bound", async_loss_too_large, 0},
        {"async: the old primary may answer yet", async_primary_may_answer, 0},
        {"async: nobody waits for an observer", async_observer_does_not_answer, 2},
        {"async: the old primary itself has it all", async_old_primary_answers, 1},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        standing_epoch(2);
        seal();
        rows[i].arrange();
        struct choice choice;
        candidate_choose(&core, &choice);
        uint32_t chosen = choice.found ? choice.member : 0;
        if (chosen != rows[i].chosen)
            fail_msg("%s: chose %u (%s)", rows[i].situation, chosen, choice.why);
        assert_true(choice.why[0] != '\0');
    }
}

/* ---- seal ---- */

static bool seals(void) {
    core.proposing[PROPOSER_COORDINATOR] = false;
    actions.count = 0;
    decide_step(&core, &actions);
    for (unsigned i = 0; i < actions.count; i++)
        if (actions.list[i].kind == ACTION_PROPOSE && actions.list[i].propose.command.which_body == Command_seal_tag)
            return true;
    return false;
}

/* The primary writes, and has not opened for long. */
static void test_unopened_epoch_waits_for_a_copy(void **state) {
    (void)state;
    standing_epoch(3);
    core.leader = true;
    primary_writes_unopened(DURABILITY_STRICT);
    core.coordinator.assigned_at = core.now - msec(10001);
    assert_false(seals()); /* nobody else has data */
    core.seen[1] = (Observation){.member = 2, .data = DATA_COMPLETE, .copying = true};
    core.heard_at[1] = core.now;
    assert_false(seals());
    core.seen[1].copying = false;
    assert_true(seals());
    core.seen[1].copying = true;
    core.heard_at[1] = core.now - msec(1001);
    core.seen[2].data = DATA_COMPLETE;
    core.heard_at[2] = core.now;
    assert_true(seals()); /* silent: its clone may be over */
    core.heard_at[1] = core.now;
    core.topology.settings.durability = DURABILITY_QUORUM;
    assert_true(seals());
}

/* Its newest rule names nobody who streams, and no other rule may begin. */
static void test_stuck_rules_end_the_epoch(void **state) {
    (void)state;
    standing_epoch(3);
    core.leader = true;
    primary_writes();
    for (unsigned i = 1; i < RULE_CHANGES_MAX; i++)
        core.topology.rules[i] = core.topology.rules[0];
    core.topology.rules_count = RULE_CHANGES_MAX;
    assert_false(seals());
    core.now += msec(9999);
    primary_writes();
    assert_false(seals());
    core.now += msec(1);
    assert_true(seals());
    core.topology.rules_count--; /* another change may begin */
    assert_false(seals());
    core.topology.rules_count++;
    assert_false(seals()); /* from now on */
}

/* From then on we have not answered; and no rule of any epoch has the name. */
static void test_fetch(void **state) {
    (void)state;
    standing_epoch(2);
    source_ahead();
    assert_int_equal(next_operation(), OPERATE_FETCH);
    assert_false(core.cut.valid);
    assert_string_equal(core.job.operation.upstream.name, "m3");
    assert_string_equal(core.job.operation.application_name, "m2_1_0");
}

/* ---- assign ---- */

static const Assign *assigned_now(void) {
    actions.count = 0;
    decide_step(&core, &actions);
    for (unsigned i = 0; i < actions.count; i++)
        if (actions.list[i].kind == ACTION_PROPOSE && actions.list[i].propose.command.which_body == Command_assign_tag)
            return &actions.list[i].propose.command.body.assign;
    return NULL;
}

/* m3 cannot follow m2, which removed the WAL that comes next: no rule may wait for it. */
static void test_rule_names_who_can_follow(void **state) {
    (void)state;
    standing_epoch(2);
    seal();
    core.leader = true;
    report(2, 1, 4, 6000);
    report(3, 1, 4, 5000);
    core.seen[1].oldest_lsn = 5000;
    const Assign *assign = assigned_now();
    assert_non_null(assign);
    assert_int_equal(assign->rule.needed, 1);
    assert_true(rule_names_copy(&assign->rule, (Copy){3, 1}));
    core.proposing[PROPOSER_COORDINATOR] = false;
    core.seen[1].oldest_lsn = 5001;
    assign = assigned_now();
    assert_non_null(assign);
    assert_int_equal(assign->rule.needed, 0);
    assert_int_equal(assign->rule.standbys_count, 0);
}

/* m2 has diverged, and a number that it was given is of a directory that it never made. m3 is silent. */
static void test_strict_names_what_is_there(void **state) {
    (void)state;
    standing_epoch(1);
    seal();
    core.leader = true;
    core.topology.settings.durability = DURABILITY_STRICT;
    core.topology.members[1].copy = 2;
    report(1, 1, 4, 6000);
    report(2, 1, 3, 5001);
    core.seen[2].released_seal = 50;
    const Assign *assign = assigned_now();
    assert_non_null(assign);
    assert_int_equal(assign->primary.member, 1);
    assert_int_equal(assign->rule.needed, 1);
    assert_int_equal(assign->rule.standbys_count, 2);
    assert_true(rule_names_copy(&assign->rule, (Copy){2, 1}));
    assert_true(rule_names_copy(&assign->rule, (Copy){3, 1}));
}

/* ---- voter and lease ---- */

static void test_voter(void **state) {
    (void)state;
    Renew renew = {.epoch = 3, .sent_at = 5, .duration_ms = 2000};
    standing_epoch(2);
    assert_true(voter_endorses(&core, 1, &renew));
    assert_false(voter_expired(&core));
    core.now += msec(1999);
    assert_false(voter_expired(&core));
    core.now += msec(1);
    assert_true(voter_expired(&core));
    standing_epoch(2);
    assert_false(voter_endorses(&core, 3, &renew)); /* not the primary */
    renew.epoch = 2;
    assert_false(voter_endorses(&core, 1, &renew)); /* not the epoch */
    renew.epoch = 3;
    core.synced = false;
    assert_false(voter_endorses(&core, 1, &renew)); /* wakes in the past */
    standing_epoch(2);
    core.facts.pledged_epoch = 3;
    assert_false(voter_endorses(&core, 1, &renew)); /* pledged, whatever the record seems to say */
    standing_epoch(2);
    seal();
    assert_false(voter_endorses(&core, 1, &renew));
}

static void test_voter_gets_promise_back(void **state) {
    (void)state;
    Renew renew = {.epoch = 3, .sent_at = 5, .duration_ms = 2000};
    standing_epoch(2);
    assert_true(voter_endorses(&core, 1, &renew));
    voter_relinquished(&core, 3, 3); /* not its to give back */
    assert_false(voter_expired(&core));
    voter_relinquished(&core, 1, 3);
    assert_true(voter_expired(&core));
    assert_false(voter_endorses(&core, 1, &renew)); /* a delayed renewal */
}

static void test_restarted_voter_is_promised(void **state) {
    (void)state;
    standing_epoch(2);
    core.started_at = core.now;
    voter_reset(&core, true);
    core.now += msec(1999);
    assert_false(voter_expired(&core));
    core.now += msec(1);
    assert_true(voter_expired(&core));
}

static const struct action *armed(void) {
    for (unsigned i = 0; i < actions.count; i++)
        if (actions.list[i].kind == ACTION_ARM)
            return &actions.list[i];
    return NULL;
}

/* The guard's deadline goes when a standby is not going to be promoted; not while it may be a primary unseen. */
static void test_deadline_is_lifted(void **state) {
    (void)state;
    standing_epoch(1);
    assigned();
    seal();
    core.job.ended_at = core.now;
    core.facts.seen_at = core.now - 1;
    actions.count = 0;
    reconcile_step(&core, &actions);
    assert_null(armed());
    core.facts.seen_at = core.now; /* a frozen daemon gets both at one moment, in any order */
    reconcile_step(&core, &actions);
    assert_null(armed());
    core.facts.seen_at = core.now + 1;
    reconcile_step(&core, &actions);
    assert_non_null(armed());
    assert_true(armed()->arm.deadline == NSEC_NEVER);
}

/* The lease runs from the *send* time of what a majority endorsed, less the margin. */
static void test_lease(void **state) {
    (void)state;
    standing_epoch(1);
    serving();
    nsec sent = core.now;
    actions.count = 0;
    lease_step(&core, &actions);
    assert_null(armed()); /* our own endorsement is no majority */
    core.now += msec(300);
    actions.count = 0;
    lease_endorsed(&core, &actions, 2, &(Endorse){.epoch = 3, .sent_at = sent, .duration_ms = 2000});
    assert_non_null(armed());
    assert_true(armed()->arm.deadline == sent + msec(2000) - lease_margin(2000));
    actions.count = 0;
    lease_endorsed(&core, &actions, 3, &(Endorse){.epoch = 2, .sent_at = core.now, .duration_ms = 2000});
    lease_endorsed(&core, &actions, 3, &(Endorse){.epoch = 3, .sent_at = core.now + 1, .duration_ms = 2000});
    assert_null(armed()); /* another epoch's; and a time that we have not sent */
}

/* Whatever observers say, the lease is as long as a majority of the voters promised. */
static void test_lease_without_observers(void **state) {
    (void)state;
    standing_epoch(1);
    serving();
    observers();
    nsec sent = core.now;
    lease_step(&core, &actions);
    core.now += msec(300);
    actions.count = 0;
    const Endorse endorse = {.epoch = 3, .sent_at = sent, .duration_ms = 2000};
    lease_endorsed(&core, &actions, 4, &endorse);
    lease_endorsed(&core, &actions, 5, &endorse);
    assert_null(armed());
    lease_endorsed(&core, &actions, 3, &endorse);
    assert_non_null(armed());
}

static void test_observer_promises_nothing(void **state) {
    (void)state;
    standing_epoch(4);
    observers();
    core.promise.epoch = 3;
    assert_false(voter_endorses(&core, 1, &(Renew){.epoch = 3, .sent_at = 1, .duration_ms = 2000}));
    core.heard_at[0] = 0;
    observe_step(&core, &actions);
    assert_int_equal(core.seen[3].expired_epoch, 0);
}

/* ---- who is told how often ---- */

static const struct action *told_after(unsigned ms) {
    core.now += msec(ms);
    core.wake_at = NSEC_NEVER;
    actions.count = 0;
    observe_step(&core, &actions);
    return actions.count > 0 ? &actions.list[0] : NULL;
}

static void test_audience(void **state) {
    (void)state;
    static const enum audience of_voter[] = {SEND_VOTERS, SEND_VOTERS, SEND_VOTERS, SEND_VOTERS, SEND_ALL};
    standing_epoch(2);
    observers();
    streaming();
    assert_int_equal(told_after(0)->send.audience, SEND_ALL);
    for (unsigned i = 0; i < 5; i++) {
        assert_null(told_after(100));
        assert_int_equal(told_after(100)->send.audience, of_voter[i]);
    }
    core.facts.streaming = false; /* that is urgent */
    assert_int_equal(told_after(1)->send.audience, SEND_ALL);
    standing_epoch(4);
    observers();
    streaming();
    assert_int_equal(told_after(0)->send.audience, SEND_VOTERS);
    assert_null(told_after(999));
    assert_true(core.wake_at == core.now + msec(1));
    assert_int_equal(told_after(1)->send.audience, SEND_VOTERS);
    core.facts.streaming = false;
    assert_int_equal(told_after(1)->send.audience, SEND_VOTERS);
}

/* ---- what the coordinator decides with observers around ---- */

static void sees_standby(uint32_t member, bool streams) {
    char name[NAME_MAX_LENGTH + 1];
    snprintf(name, sizeof name, "m%u", member);
    Observation *primary = &core.seen[0];
    Sender *sender = &primary->senders[primary->senders_count++];
    *sender = (Sender){.flush_lsn = 6000};
    application_name(sender->name, name, 1, 3);
    strcpy(sender->state, "streaming");
    core.heard_at[member - 1] = core.now;
    core.seen[member - 1] = (Observation){.member = member,
                                          .synced = true,
                                          .data = DATA_COMPLETE,
                                          .server = SERVER_STANDBY,
                                          .copy = 1,
                                          .streaming = streams,
                                          .attached_epoch = 3};
}

/* We are m2 and lead; m1 is open, m2, m3 and the observer m4 stream. */
static void coordinating(void) {
    standing_epoch(2);
    observers();
    core.leader = true;
    primary_writes();
    core.seen[0].position = (Position){4, 6000};
    for (uint32_t member = 2; member <= 4; member++)
        sees_standby(member, true);
}

static pb_size_t proposed_now(void) {
    core.proposing[PROPOSER_COORDINATOR] = false;
    actions.count = 0;
    decide_step(&core, &actions);
    for (unsigned i = 0; i < actions.count; i++)
        if (actions.list[i].kind == ACTION_PROPOSE)
            return actions.list[i].propose.command.which_body;
    return 0;
}

static void nobody_heard(void) { /* as by a coordinator that has just started */
    memset(&core.seen[2], 0, sizeof core.seen[2]);
    core.heard_at[2] = 0;
}
static void daemon_just_started(void) { core.seen[2] = (Observation){.member = 3}; }
static void directory_of_another_number(void) { core.seen[2].copy = 2; }

/* Commits wait for m3 alone. It leaves the rule at once only if it tells that it is not the one named there. */
static void test_rule_outlives_ignorance(void **state) {
    (void)state;
    static const struct {
        const char *situation;
        void (*arrange)(void);
        bool leaves;
    } rows[] = {{"not heard of yet", nobody_heard, false},
                {"does not know its data directory yet", daemon_just_started, false},
                {"has another data directory", directory_of_another_number, true}};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        coordinating();
        core.topology.members[1].witness = true;
        core.topology.rules[0].standbys[0] = (Copy){3, 1};
        core.topology.rules[0].standbys_count = 1;
        rows[i].arrange();
        if ((proposed_now() == Command_rule_begin_tag) != rows[i].leaves)
            fail_msg("%s: %s", rows[i].situation, rows[i].leaves ? "stays" : "leaves at once");
        core.now += msec(310);
        core.heard_at[0] = core.now;
        if (proposed_now() != Command_rule_begin_tag)
            fail_msg("%s: stays for ever", rows[i].situation);
    }
}

static void test_decide_without_observers(void **state) {
    (void)state;
    coordinating();
    assert_int_equal(proposed_now(), 0); /* m4 streams, and joins no rule */
    core.seen[3].expired_epoch = core.seen[4].expired_epoch = core.seen[1].expired_epoch = 3;
    core.heard_at[4] = core.now;
    assert_int_equal(proposed_now(), 0); /* two of three voters are a majority, three of five members are none */
    core.seen[2].expired_epoch = 3;
    assert_int_equal(proposed_now(), Command_seal_tag);
    seal();
    report(2, 1, 4, 6000);
    report(3, 1, 4, 6000);
    report(4, 1, 4, 6000);
    assert_int_equal(proposed_now(), Command_assign_tag);
    const Assign *assign = &actions.list[0].propose.command.body.assign;
    assert_int_equal(assign->primary.member, 2);
    assert_int_equal(assign->rule.standbys_count, 1);
    assert_int_equal(assign->rule.standbys[0].member, 3);
    assert_int_equal(assign->rule.needed, 1);
}

static void test_strict_rule_without_observers(void **state) {
    (void)state;
    coordinating();
    seal();
    core.topology.settings.durability = DURABILITY_STRICT;
    report(1, 1, 4, 6000);
    core.seen[1].prepared_seal = core.seen[2].prepared_seal = 0;
    core.seen[1].released_seal = 50;
    assert_int_equal(proposed_now(), Command_assign_tag);
    const Assign *assign = &actions.list[0].propose.command.body.assign;
    assert_int_equal(assign->rule.standbys_count, 2); /* everyone that may acknowledge */
    assert_int_equal(assign->rule.standbys[1].member, 3);
}

static const char *asked_to_switch(const char *to, int *ret_http_status) {
    struct event event = {.kind = EVENT_REQUEST};
    snprintf(event.request.to, sizeof event.request.to, "%s", to);
    actions.count = 0;
    decide_request(&core, &actions, &event);
    const struct action *answer = &actions.list[0];
    *ret_http_status = answer->kind == ACTION_ANSWER ? answer->answer.http_status : 0;
    return answer->kind == ACTION_ANSWER ? answer->answer.text : "";
}

static void test_switchover_to_an_observer(void **state) {
    int http_status;
    (void)state;
    coordinating();
    core.topology.members[3].priority = 1000;
    assert_string_equal(asked_to_switch("m4", &http_status),
                        "m4 may not be primary (it is an observer: it has no vote, "
                        "and no commit waits for it)");
    assert_int_equal(http_status, 409);
    assert_string_equal(asked_to_switch("", &http_status), "");
    assert_int_equal(actions.list[0].propose.command.body.set_intent.intent.to, 2);
}

static void being_killed(void) {
    serving();
    core.facts.server = SERVER_STOPPING;
}

static void test_no_renewal_without_right(void **state) {
    (void)state;
    static void (*const arrange[])(void) = {serving_sealed, no_guard, not_synced, being_killed, fell_and_was_restored};
    for (unsigned i = 0; i < sizeof arrange / sizeof arrange[0]; i++) {
        standing_epoch(1);
        arrange[i]();
        actions.count = 0;
        lease_step(&core, &actions);
        assert_int_equal(actions.count, 0);
    }
}

/* ---- diverged WAL ---- */

static const Command *proposed_note(void) {
    actions.count = 0;
    reconcile_step(&core, &actions);
    for (unsigned i = 0; i < actions.count; i++)
        if (actions.list[i].kind == ACTION_PROPOSE && actions.list[i].propose.command.which_body == Command_note_tag)
            return &actions.list[i].propose.command;
    return NULL;
}

static void test_diverged_wal_is_noted(void **state) {
    (void)state;
    standing_epoch(2);
    must_rewind();
    assert_int_equal(next_operation(), OPERATE_REWIND);
    struct operation_result result = {.serial = core.job.operation.serial,
                                      .kind = OPERATE_REWIND,
                                      .diverged = {.bytes = 1229, .commits = 3, .path = "/kept"}};
    reconcile_result(&core, &actions, &result);
    const Command *note = proposed_note();
    assert_non_null(note);
    assert_string_equal(note->reason, "m2 was rewound: 3 commits (1.2 kB of WAL) that no primary has, kept in /kept");
    Command lost = *note;
    assert_null(proposed_note()); /* it is under way */
    core.proposing[PROPOSER_MEMBER] = false;
    assert_non_null(proposed_note()); /* it was lost: again */
    struct event applied = {.kind = EVENT_APPLIED, .now = core.now, .applied = {.index = 51, .command = &lost}};
    core_step(&core, &applied, &actions);
    core.proposing[PROPOSER_MEMBER] = false;
    assert_null(proposed_note());
    assert_int_equal(core.history.entries_count, 1);
    assert_int_equal(core.history.entries[0].kind, HISTORY_NOTE);
    assert_int_equal(core.history.entries[0].member, 2);
}

static void test_rewind_and_clone_know_the_divergence(void **state) {
    (void)state;
    standing_epoch(2);
    primary_writes();
    cut_at(3, 5001); /* past the base of epoch 3 */
    assert_int_equal(next_operation(), OPERATE_STOP);
    must_rewind();
    core.job.running = false;
    assert_int_equal(next_operation(), OPERATE_REWIND);
    assert_int_equal(core.job.operation.base.timeline, 3);
    assert_int_equal(core.job.operation.base.lsn, 5000);
    core.must_clone = true;
    core.granted_copy = 1;
    core.job.running = false;
    assert_int_equal(next_operation(), OPERATE_CLONE);
    assert_int_equal(core.job.operation.base.timeline, 3);
    assert_int_equal(core.job.operation.base.lsn, 5000);
}

static void see(uint32_t copy, DataState data) {
    core.facts.copy = copy;
    core.facts.data = data;
    core.facts.seen_at = ++core.now;
    struct facts facts = core.facts;
    core_step(&core, &(struct event){.kind = EVENT_FACTS, .now = core.now, .facts = &facts}, &actions);
}

enum spoken { NOTHING = 0, OBSERVATION = 1, RENEWAL = 2, ENDORSEMENT = 4 };

static unsigned spoken(void) {
    unsigned said = 0;
    for (unsigned i = 0; i < actions.count; i++) {
        pb_size_t body = actions.list[i].send.message.which_body;
        if (actions.list[i].kind == ACTION_SEND)
            said |= body == Message_observation_tag ? OBSERVATION : body == Message_renew_tag ? RENEWAL : ENDORSEMENT;
    }
    return said;
}

static void look_in(unsigned ms) {
    core.now += msec(ms);
    see(core.facts.copy, core.facts.data);
}

static void renewed_in(unsigned ms) {
    Message message = {.which_body = Message_renew_tag,
                       .body.renew = {.epoch = 3, .sent_at = core.now, .duration_ms = 2000}};
    core.now += msec(ms);
    core_step(&core,
              &(struct event){.kind = EVENT_MESSAGE, .now = core.now, .message = {.from = "m1", .message = &message}},
              &actions);
}

/* A primary looks at its server every 190 ms, and a standby hears from it as often: then they speak, and neither has to
 * be woken for it at 200 ms. */
static void test_what_is_told_together(void **state) {
    (void)state;
    standing_epoch(1);
    serving();
    core.lease = (struct lease){.epoch = 3, .until = core.now + msec(1800)};
    look_in(1);
    assert_int_equal(spoken(), OBSERVATION | RENEWAL);
    look_in(140);
    assert_int_equal(spoken(), NOTHING);
    look_in(50);
    assert_int_equal(spoken(), OBSERVATION | RENEWAL);
    standing_epoch(2);
    streaming();
    look_in(1);
    assert_int_equal(spoken(), OBSERVATION);
    look_in(190);
    assert_int_equal(spoken(), NOTHING);
    renewed_in(2);
    assert_int_equal(spoken(), OBSERVATION | ENDORSEMENT);
    renewed_in(100);
    assert_int_equal(spoken(), ENDORSEMENT);
    look_in(100);
    assert_int_equal(spoken(), OBSERVATION);
}

/* A clone is said to have failed, and yet it is there; then it is lost, and a backup put in its place. */
static void test_a_number_is_given_once(void **state) {
    (void)state;
    standing_epoch(2);
    empty();
    assert_int_equal(next_operation(), OPERATE_CLONE);
    struct operation_result result = {
        .serial = core.job.operation.serial, .kind = OPERATE_CLONE, .outcome = OUTCOME_FAILED};
    reconcile_result(&core, &actions, &result);
    see(0, DATA_EMPTY);
    assert_int_equal(core.granted_copy, 1); /* it has failed: the number is still to be used */
    see(1, DATA_COMPLETE);
    assert_int_equal(core.granted_copy, 0);
    core.job.running = false;
    core.proposing[PROPOSER_MEMBER] = false;
    see(0, DATA_COMPLETE);
    assert_false(core.job.running);
    assert_true(core.proposing[PROPOSER_MEMBER]); /* asks for another one */
}

static void label_damaged_while_serving(void) {
    label_damaged();
    serving();
}

/* The newest epoch that can have been pledged was sealed, and only who has caught up knows that. */
static void test_damaged_files_are_given_up(void **state) {
    (void)state;
    static const struct {
        const char *situation;
        void (*arrange)(void);
        bool sealed, synced;
        int expected_status;
        uint32_t expected_epoch, expected_copy;
    } rows[] = {
        {"nothing is damaged", streaming, false, true, 409, 0, 0},
        {"the epoch stands", pledge_damaged, false, true, 202, 2, 0},
        {"the epoch was sealed", pledge_damaged, true, true, 202, 3, 0},
        {"what has happened meanwhile is not known", pledge_damaged, false, false, 409, 0, 0},
        {"which data directory it is, is not known", label_damaged, false, true, 202, 2, 0},
        {"it is the one that writes", label_damaged_while_serving, false, true, 202, 2, 1},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct event event = {.kind = EVENT_REQUEST, .request = {.kind = REQUEST_KIND_MEND, .serial = 5}};
        int http_status = 0;
        uint32_t epoch = 0, copy = 0;
        standing_epoch(rows[i].expected_copy != 0 ? 1 : 2);
        rows[i].arrange();
        if (rows[i].sealed)
            seal();
        core.synced = rows[i].synced;
        actions.count = 0;
        decide_request(&core, &actions, &event);
        for (unsigned k = 0; k < actions.count; k++) {
            if (actions.list[k].kind == ACTION_ANSWER)
                http_status = actions.list[k].answer.http_status;
            if (actions.list[k].kind == ACTION_MEND) {
                epoch = actions.list[k].mend.epoch;
                copy = actions.list[k].mend.copy;
            }
        }
        if (http_status != rows[i].expected_status || epoch != rows[i].expected_epoch || copy != rows[i].expected_copy)
            fail_msg("%s: %d, epoch %u, copy %u", rows[i].situation, http_status, epoch, copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule_names_who_can_follow),
        cmocka_unit_test(test_unopened_epoch_waits_for_a_copy),
        cmocka_unit_test(test_stuck_rules_end_the_epoch),
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_strict_names_what_is_there),
        cmocka_unit_test(test_what_is_told_together),
        cmocka_unit_test(test_a_number_is_given_once),
        cmocka_unit_test(test_reconcile_standby),
        cmocka_unit_test(test_reconcile_primary),
        cmocka_unit_test(test_told_to_stop_before_the_record_is_known),
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_voter),
        cmocka_unit_test(test_voter_gets_promise_back),
        cmocka_unit_test(test_restarted_voter_is_promised),
        cmocka_unit_test(test_diverged_wal_is_noted),
        cmocka_unit_test(test_rewind_and_clone_know_the_divergence),
        cmocka_unit_test(test_damaged_files_are_given_up),
        cmocka_unit_test(test_deadline_is_lifted),
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_no_renewal_without_right),
        cmocka_unit_test(test_lease_without_observers),
        cmocka_unit_test(test_observer_promises_nothing),
        cmocka_unit_test(test_audience),
        cmocka_unit_test(test_rule_outlives_ignorance),
        cmocka_unit_test(test_decide_without_observers),
        cmocka_unit_test(test_strict_rule_without_observers),
        cmocka_unit_test(test_switchover_to_an_observer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
