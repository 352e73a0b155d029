/* Three voters and two observers: whoever has no vote gets the record nevertheless, and only what was committed. */
#include <stdio.h>
#include <string.h>

#include "raft/parts.h"
#include "tests/unit/record_world.h"

#define FIRST_OBSERVER NODES

static void everybody_starts(void) {
    members = MEMBERS;
    cluster_start();
    for (unsigned i = FIRST_OBSERVER; i < MEMBERS; i++)
        node_start(i);
    uint64_t count = 1;
    run_until(is_all_applied, &count);
}

static bool is_admitted(void *user) {
    unsigned observer = *(unsigned *)user;
    int leader = leader_of();
    return leader >= 0 && nodes[leader].admitted[observer] == status_of(observer).raft_id;
}

static void test_observers_follow(void **state) {
    (void)state;
    everybody_starts();
    for (unsigned i = FIRST_OBSERVER; i < MEMBERS; i++)
        run_until(is_admitted, &i);
    unsigned leader = settle(1);
    assert_int_equal(nodes[0].found_ids[FIRST_OBSERVER], 0);
    commit(leader, "from the leader");
    struct outcome there = commit(FIRST_OBSERVER, "from an observer");
    assert_int_equal(nodes[FIRST_OBSERVER].last_index, there.index); /* applied there too */
    uint64_t count = 3;
    run_until(is_all_applied, &count);
    states_equal();
    struct record_status s = status_of(FIRST_OBSERVER);
    assert_int_equal(s.cluster_id, nodes[0].founded_id);
    assert_int_equal(s.last_applied, there.index);
    assert_int_equal(s.role, RECORD_FOLLOWER);
    assert_int_equal(s.voters, NODES);
    assert_false(s.voter);
    assert_string_equal(s.waiting, "");
    assert_int_equal(status_of(leader).voters, NODES);
}

static const char *feeder(unsigned observer) {
    const struct peer *from = nodes[observer].record->feed.from;
    return from != NULL ? from->config.name : "";
}

/* An observer takes whom it reaches first, so the second one may have to try again. */
static void test_observers_share_the_voters(void **state) {
    (void)state;
    everybody_starts();
    unsigned first = FIRST_OBSERVER, second = FIRST_OBSERVER + 1;
    for (unsigned i = 0; i < 10 && strcmp(feeder(first), feeder(second)) == 0; i++) {
        uint64_t count = 1;
        node_stop(second);
        node_start(second);
        run_until(is_all_applied, &count);
    }
    assert_string_not_equal(feeder(first), feeder(second));
}

static bool is_waiting(void *user) { return status_of(*(unsigned *)user).waiting[0] != '\0'; }

/* Whoever comes first, the voters found. */
static void test_observer_comes_first(void **state) {
    (void)state;
    unsigned observer = FIRST_OBSERVER, voters = NODES;
    uint64_t count = 1;
    members = MEMBERS;
    node_start(observer);
    run_until(is_waiting, &observer);
    for (unsigned i = 0; i < NODES; i++)
        node_start(i);
    observer = FIRST_OBSERVER;
    run_until(is_all_applied, &count);
    assert_int_equal(nodes[0].found_calls, 1);
    node_start(FIRST_OBSERVER + 1);
    run_until(is_all_applied, &count);
    states_equal();
    assert_int_equal(status_of(0).voters, voters);
}

static bool is_difference_told(void *user) {
    (void)user;
    return strstr(nodes[FIRST_OBSERVER].why[0], "durability") != NULL;
}

static void test_different_line(void **state) {
    struct error error;
    (void)state;
    members = MEMBERS;
    cluster_start();
    struct record_shared_line saved = lines[1];
    lines[1] = (struct record_shared_line){"durability", "async", "/etc/other.yaml", 9};
    assert_int_equal(node_open(FIRST_OBSERVER, &error), OK);
    lines[1] = saved;
    run_until(is_difference_told, NULL);
    assert_string_equal(nodes[FIRST_OBSERVER].why[0], "durability is quorum at m1 (/etc/ttorch/ttorch.yaml:5), async "
                                                      "here (/etc/other.yaml:9)");
    assert_non_null(strstr(status_of(FIRST_OBSERVER).waiting, "durability is quorum at m1"));
    assert_int_equal(status_of(FIRST_OBSERVER).cluster_id, 0);
    assert_int_equal(nodes[FIRST_OBSERVER].count, 0);
    /* Mended, it is let in. */
    uint64_t count = 1;
    node_stop(FIRST_OBSERVER);
    node_start(FIRST_OBSERVER);
    run_until(is_all_applied, &count);
}

/* Whichever voter feeds it. */
static void test_each_voter_dies(void **state) {
    (void)state;
    uint64_t count;
    everybody_starts();
    for (unsigned i = 0; i < NODES; i++) {
        int gone = (int)i;
        node_stop(i);
        run_until(is_role_elsewhere, &gone);
        commit(FIRST_OBSERVER, "with two");
        count = nodes[FIRST_OBSERVER].count;
        run_until(is_all_applied, &count);
        node_start(i);
        settle(count);
        states_equal();
    }
}

static void test_observer_starts_again(void **state) {
    (void)state;
    everybody_starts();
    unsigned leader = settle(1), observer = FIRST_OBSERVER;
    uint64_t raft_id = status_of(observer).raft_id, count = 3001;
    node_stop(observer);
    many(leader, 3000);
    node_start(observer);
    run_until(is_all_applied, &count);
    states_equal();
    assert_int_equal(status_of(observer).raft_id, raft_id);
    assert_int_equal(status_of(observer).start_count, 2);
    assert_int_equal(nodes[observer].restored, 1); /* of a snapshot, and not entry by entry */
    commit(observer, "from an observer");
}

static void test_observer_lost_its_directory(void **state) {
    (void)state;
    everybody_starts();
    unsigned observer = FIRST_OBSERVER;
    uint64_t raft_id = status_of(observer).raft_id, count = 1;
    node_stop(observer);
    remove_tree(nodes[observer].directory);
    node_start(observer);
    run_until(is_all_applied, &count);
    run_until(is_admitted, &observer);
    assert_int_not_equal(status_of(observer).raft_id, raft_id);
    assert_int_equal(status_of(observer).start_count, 1);
    states_equal();
}

static bool is_turned_away(void *user) { return strstr(nodes[*(unsigned *)user].why[0], "connected already") != NULL; }

/* Two of one name: the second is let in only once the first has gone. */
static void test_observer_twice(void **state) {
    (void)state;
    struct error error;
    unsigned first = FIRST_OBSERVER, second = FIRST_OBSERVER + 1;
    uint64_t count = 1;
    members = MEMBERS;
    cluster_start();
    node_start(first);
    run_until(is_all_applied, &count);
    assert_int_equal(node_open_as(second, first, &error), OK);
    run_until(is_turned_away, &second);
    assert_int_equal(nodes[second].count, 0);
    assert_false(status_of(second).lost); /* no rejoining helps */
    node_stop(first);
    run_until(is_all_applied, &count);
    states_equal();
}

static bool is_fresh(void *user) { return status_of(*(unsigned *)user).quorum_heard_at + msec(500) > time_now(); }
static bool is_stale(void *user) { return status_of(*(unsigned *)user).quorum_heard_at + msec(1000) < time_now(); }

static nsec voters_heard_at(void) {
    nsec newest = 0;
    for (unsigned i = 0; i < NODES; i++)
        if (nodes[i].record != NULL && status_of(i).quorum_heard_at > newest)
            newest = status_of(i).quorum_heard_at;
    return newest;
}

/* It is never fresher than its voter, and a voter alone is not fresh. */
static void test_freshness(void **state) {
    (void)state;
    unsigned observer = FIRST_OBSERVER;
    everybody_starts();
    run_until(is_fresh, &observer);
    for (nsec end = time_now() + msec(600); time_now() < end; run_for(msec(10)))
        assert_true(status_of(observer).quorum_heard_at <= voters_heard_at());
    unsigned leader = settle(1);
    for (unsigned i = 0; i < NODES; i++)
        if (i != leader)
            node_stop(i);
    run_until(is_stale, &observer);
    for (unsigned i = 0; i < NODES; i++)
        if (i != leader)
            node_start(i);
    run_until(is_fresh, &observer);
}

#define feed_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {feed_test(test_observers_follow),
                                       feed_test(test_observer_comes_first),
                                       feed_test(test_different_line),
                                       feed_test(test_each_voter_dies),
                                       feed_test(test_observer_starts_again),
                                       feed_test(test_observer_lost_its_directory),
                                       feed_test(test_observers_share_the_voters),
                                       feed_test(test_observer_twice),
                                       feed_test(test_freshness)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
