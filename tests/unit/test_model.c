/* The record and the functions on positions, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/model.h"

/* ---- positions ---- */

static void test_position_compare(void **state) {
    (void)state;
    static const struct {
        Position a, b;
        int order;
    } rows[] = {
        {{1, 100}, {1, 100}, 0},
        {{1, 100}, {1, 101}, -1},
        {{2, 50}, {1, 9000}, 1}, /* a later timeline starts from what was covered */
        {{1, 9000}, {2, 50}, -1},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        int order = position_compare(rows[i].a, rows[i].b);
        assert_int_equal((order > 0) - (order < 0), rows[i].order);
    }
}

static void test_application_name(void **state) {
    (void)state;
    char text[APPLICATION_NAME_MAX], member[NAME_MAX_LENGTH + 1];
    uint32_t copy, epoch;
    application_name(text, "db-one", 3, 17);
    assert_string_equal(text, "db-one_3_17");
    assert_true(application_name_parse(text, member, &copy, &epoch));
    assert_string_equal(member, "db-one");
    assert_int_equal(copy, 3);
    assert_int_equal(epoch, 17);
    static const char *const others[] = {"", "walreceiver", "m1_2", "m1_2_3_4", "m1_2_3 ", "_1_2", "M1_1_1", "m1_x_2"};
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(application_name_parse(others[i], member, &copy, &epoch));
}

/* Epoch 1 on timeline 2 from 1/500, epoch 2 on 3 from 2/800, epoch 3 never opened, epoch 4 on 5 from 3/1000. */
static Topology lineage(void) {
    Topology topology = Topology_init_zero;
    topology.timeline_offset = 1;
    topology.epochs_count = 4;
    topology.epochs[0] = (Epoch){.epoch = 1, .timeline = 2, .base = {1, 500}};
    topology.epochs[1] = (Epoch){.epoch = 2, .timeline = 3, .base = {2, 800}};
    topology.epochs[2] = (Epoch){.epoch = 3, .timeline = 4, .base = {3, 900}};
    topology.epochs[3] = (Epoch){.epoch = 4, .timeline = 5, .base = {3, 1000}};
    return topology;
}

static void test_lineage(void **state) {
    (void)state;
    Topology topology = lineage();
    static const struct {
        uint32_t epoch;
        Position position;
        bool contained;
    } rows[] = {
        {4, {5, 4000}, true},                      /* its own timeline */
        {4, {3, 1000}, true},                      /* exactly the base */
        {4, {3, 1001}, false},                     /* past it: diverged */
        {4, {4, 901}, false},                      /* the epoch that never opened */
        {4, {2, 800}, true},                       /* grandparent, at the fork */
        {4, {2, 801}, false},                      /* grandparent, past the fork */
        {4, {1, 500}, true},                       /* before the first epoch */
        {4, {1, 501}, false},  {4, {9, 1}, false}, /* unknown */
        {2, {5, 1}, false},                        /* a descendant is no ancestor */
        {7, {3, 1}, false},                        /* no such epoch */
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        if (lineage_contains(&topology, rows[i].epoch, rows[i].position) != rows[i].contained)
            fail_msg("row %u", i);
}

static void test_prefix(void **state) {
    (void)state;
    Topology topology = lineage();
    assert_true(position_is_prefix(&topology, (Position){3, 900}, (Position){3, 1000}));
    assert_false(position_is_prefix(&topology, (Position){3, 1001}, (Position){3, 1000}));
    assert_true(position_is_prefix(&topology, (Position){2, 700}, (Position){3, 1000}));
    assert_false(position_is_prefix(&topology, (Position){2, 801}, (Position){3, 1000}));
    assert_false(position_is_prefix(&topology, (Position){4, 950}, (Position){3, 1000}));
}

/* ---- the record: what a command may do in each situation ---- */

static Topology topology;
static History history;
static uint64_t next_index;

static enum applied apply(Command command) {
    struct error why;
    command.version = COMMAND_VERSION;
    return record_apply(&topology, &history, ++next_index, &command, &why);
}

static Command found_command(void) {
    Command command = {.which_body = Command_found_tag};
    command.body.found.cluster_id = 42;
    command.body.found.settings = (Settings){.lease_ms = 2000};
    command.body.found.members_count = 3;
    for (unsigned i = 0; i < 3; i++)
        command.body.found.members[i] = (Member){.id = i + 1, .raft_id = 100 + i, .priority = 100};
    return command;
}

static Command assign_command(uint32_t epoch, uint32_t member) {
    Command command = {.epoch = epoch - 1, .which_body = Command_assign_tag};
    Assign *assign = &command.body.assign;
    *assign = (Assign){.epoch = epoch,
                       .seal_index = topology.seal_index,
                       .primary = {member, 1},
                       .base = {epoch, 1000 * epoch},
                       .timeline = epoch + 1};
    assign->rule = (Rule){.generation = topology.generation + 1, .epoch = epoch, .primary = {member, 1}};
    return command;
}

static Command simple(pb_size_t body) { return (Command){.epoch = topology.epoch, .which_body = body}; }

static void to_epoch_one(void) {
    memset(&topology, 0, sizeof topology);
    memset(&history, 0, sizeof history);
    next_index = 0;
    assert_int_equal(apply(found_command()), APPLIED);
    for (uint32_t member = 1; member <= 3; member++) {
        Command copy = {.which_body = Command_new_copy_tag};
        copy.body.new_copy = (NewCopy){.member = member, .copy = 1};
        assert_int_equal(apply(copy), APPLIED);
    }
    assert_int_equal(apply(assign_command(1, 1)), APPLIED);
}

static void test_found_once(void **state) {
    (void)state;
    to_epoch_one();
    assert_int_equal(apply(found_command()), VOID_COMMAND);
    assert_int_equal(topology.cluster_id, 42);
}

static void test_epoch_commands(void **state) {
    (void)state;
    to_epoch_one();
    assert_int_equal(apply(simple(Command_open_tag)), APPLIED);
    assert_int_equal(apply(simple(Command_open_tag)), VOID_COMMAND);
    assert_int_equal(apply(assign_command(2, 2)), VOID_COMMAND); /* not sealed */
    assert_int_equal(apply(simple(Command_seal_tag)), APPLIED);
    assert_true(topology.sealed && !topology.open);
    assert_int_equal(apply(simple(Command_seal_tag)), VOID_COMMAND);
    assert_int_equal(apply(simple(Command_open_tag)), VOID_COMMAND);
    Command late = assign_command(2, 2);
    late.body.assign.seal_index--; /* chosen from answers to another seal */
    assert_int_equal(apply(late), VOID_COMMAND);
    late = assign_command(2, 2);
    late.body.assign.timeline++; /* timelines belong to epochs */
    assert_int_equal(apply(late), VOID_COMMAND);
    late = assign_command(2, 2);
    late.body.assign.primary.copy = 2; /* never given out */
    assert_int_equal(apply(late), VOID_COMMAND);
    assert_int_equal(apply(assign_command(2, 2)), APPLIED);
    Command stale = simple(Command_seal_tag);
    stale.epoch = 1;
    assert_int_equal(apply(stale), VOID_COMMAND);
    assert_false(topology.sealed);
}

static Command rule_command(uint32_t generation, uint32_t standby) {
    Command command = simple(Command_rule_begin_tag);
    command.body.rule_begin.rule = (Rule){.generation = generation,
                                          .epoch = topology.epoch,
                                          .primary = topology.primary,
                                          .needed = 1,
                                          .standbys_count = 1};
    command.body.rule_begin.rule.standbys[0] = (Copy){standby, 1};
    return command;
}

static void test_rules(void **state) {
    (void)state;
    to_epoch_one();
    assert_int_equal(apply(rule_command(2, 2)), VOID_COMMAND); /* not open */
    assert_int_equal(apply(simple(Command_open_tag)), APPLIED);
    assert_int_equal(apply(rule_command(3, 2)), VOID_COMMAND); /* a generation is missing */
    assert_int_equal(apply(rule_command(2, 2)), APPLIED);
    assert_int_equal(topology.rules_count, 2);
    assert_int_equal(apply(rule_command(3, 3)), APPLIED); /* a third is added, none is dropped */
    assert_int_equal(topology.rules_count, 3);
    Command done = simple(Command_rule_done_tag);
    done.body.rule_done.generation = 2;
    assert_int_equal(apply(done), VOID_COMMAND); /* done of the second says nothing about the third */
    assert_int_equal(apply(simple(Command_seal_tag)), APPLIED);
    done.body.rule_done.generation = 3;
    assert_int_equal(apply(done), VOID_COMMAND); /* a seal voids what was under way */
    assert_int_equal(topology.rules_count, 3);
    assert_int_equal(apply(assign_command(2, 2)), APPLIED);
    assert_int_equal(topology.rules_count, 4); /* the old rules stand beside the new epoch's */
    assert_int_equal(apply(simple(Command_open_tag)), APPLIED);
    assert_int_equal(topology.rules_count, 1);
    assert_int_equal(topology.rules[0].epoch, 2);
}

static void test_failing_epochs_are_bounded(void **state) {
    (void)state;
    to_epoch_one();
    for (uint32_t epoch = 2; epoch < 40; epoch++) {
        assert_int_equal(apply(simple(Command_seal_tag)), APPLIED);
        assert_int_equal(apply(assign_command(epoch, 1 + epoch % 2)), APPLIED);
        assert_in_range(topology.rules_count, 1, 3);
    }
    assert_int_equal(topology.epochs_count, EPOCHS_MAX);
    assert_int_equal(topology.epochs[EPOCHS_MAX - 1].epoch, 39);
}

static void test_member_commands(void **state) {
    (void)state;
    to_epoch_one();
    Command started = {.which_body = Command_started_tag};
    started.body.started = (Started){.member = 2, .raft_id = 101, .start_count = 5};
    assert_int_equal(apply(started), APPLIED);
    assert_int_equal(apply(started), APPLIED); /* repeated by a retry */
    started.body.started.start_count = 4;
    assert_int_equal(apply(started), VOID_COMMAND); /* a disk from the past */
    started.body.started = (Started){.member = 2, .raft_id = 999, .start_count = 9};
    assert_int_equal(apply(started), VOID_COMMAND); /* a stranger under its name */
    Command copy = {.which_body = Command_new_copy_tag};
    copy.body.new_copy = (NewCopy){.member = 1, .copy = 2};
    assert_int_equal(apply(copy), VOID_COMMAND); /* the primary keeps its data directory */
    copy.body.new_copy = (NewCopy){.member = 2, .copy = 2};
    assert_int_equal(apply(copy), APPLIED);
    assert_int_equal(apply(copy), VOID_COMMAND); /* numbers are never given twice */
}

/* m4 is an observer that was not there at the founding. */
static void test_observers(void **state) {
    (void)state;
    Command founding = found_command();
    memset(&topology, 0, sizeof topology);
    next_index = 0;
    founding.body.found.members_count = 4;
    founding.body.found.members[3] = (Member){.id = 4, .observer = true};
    for (unsigned i = 0; i < 3; i++)
        founding.body.found.members[i].observer = true;
    assert_int_equal(apply(founding), VOID_COMMAND); /* nobody would vote */
    for (unsigned i = 0; i < 3; i++)
        founding.body.found.members[i].observer = false;
    assert_int_equal(apply(founding), APPLIED);
    assert_int_equal(topology_voters(&topology), 3);
    assert_int_equal(topology_data_members(&topology), 3);
    assert_false(topology_votes(&topology, 4) || topology_votes(&topology, 5) || topology_votes(&topology, 0));
    Command admit = {.which_body = Command_readmit_tag};
    admit.body.readmit = (Readmit){.member = 4, .old_raft_id = 7, .raft_id = 104};
    assert_int_equal(apply(admit), VOID_COMMAND);
    admit.body.readmit.old_raft_id = 0;
    assert_int_equal(apply(admit), APPLIED);
    assert_int_equal(topology.members[3].raft_id, 104);
    for (uint32_t member = 1; member <= 4; member++) {
        Command copy = {.which_body = Command_new_copy_tag};
        copy.body.new_copy = (NewCopy){.member = member, .copy = 1};
        assert_int_equal(apply(copy), APPLIED);
    }
    assert_int_equal(apply(assign_command(1, 4)), VOID_COMMAND);
    assert_int_equal(apply(assign_command(1, 1)), APPLIED);
    assert_int_equal(apply(simple(Command_open_tag)), APPLIED);
    assert_int_equal(apply(rule_command(2, 4)), VOID_COMMAND);
    Command intent = simple(Command_set_intent_tag);
    intent.body.set_intent.intent = (Intent){.kind = INTENT_SWITCHOVER, .from = 1, .to = 4, .epoch = 1};
    assert_int_equal(apply(intent), VOID_COMMAND);
}

/* ---- codecs ---- */

static void test_snapshot_roundtrip(void **state) {
    (void)state;
    to_epoch_one();
    Snapshot *before = calloc(1, sizeof *before), *after = calloc(1, sizeof *after);
    uint8_t *bytes = malloc(SNAPSHOT_BYTES_MAX);
    before->version = SNAPSHOT_VERSION;
    before->topology = topology;
    before->history = history;
    size_t length = snapshot_encode(before, bytes, SNAPSHOT_BYTES_MAX);
    assert_true(length > 0);
    struct error error;
    assert_int_equal(snapshot_decode(after, bytes, length, &error), OK);
    assert_memory_equal(&before->topology, &after->topology, sizeof topology);
    assert_int_equal(snapshot_decode(after, bytes, length - 1, &error), FAILED);
    assert_non_null(strstr(error.text, "malformed snapshot"));
    before->version = SNAPSHOT_VERSION + 1;
    length = snapshot_encode(before, bytes, SNAPSHOT_BYTES_MAX);
    assert_int_equal(snapshot_decode(after, bytes, length, &error), FAILED);
    assert_non_null(strstr(error.text, "upgrade"));
    free(before);
    free(after);
    free(bytes);
}

static void test_unknown_fields_are_tolerated(void **state) {
    (void)state;
    Command command = simple(Command_seal_tag), decoded;
    command.version = COMMAND_VERSION;
    uint8_t bytes[COMMAND_BYTES_MAX];
    size_t length = command_encode(&command, bytes, sizeof bytes);
    bytes[length++] = 0xF8; /* field 4095, varint */
    bytes[length++] = 0xFF;
    bytes[length++] = 0x01;
    bytes[length++] = 0x07;
    struct error error;
    assert_int_equal(command_decode(&decoded, bytes, length, &error), OK);
    assert_int_equal(decoded.which_body, Command_seal_tag);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_position_compare),
        cmocka_unit_test(test_application_name),
        cmocka_unit_test(test_lineage),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_found_once),
        cmocka_unit_test(test_epoch_commands),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_failing_epochs_are_bounded),
        cmocka_unit_test(test_member_commands),
        cmocka_unit_test(test_observers),
        cmocka_unit_test(test_snapshot_roundtrip),
        cmocka_unit_test(test_unknown_fields_are_tolerated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
