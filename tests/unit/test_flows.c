/* The flows of the design, on the real core in a modelled cluster: each must end with one open primary, every member
 * streaming and counted, and nothing acknowledged lost. Several seeds each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/world.h"

#define SEEDS 12

static struct world *world;

/* ---- what happens to a member ---- */

static void kill_host(unsigned member) {
    daemon_kill(world, member);
    postgres_stop(world, member);
}

static void isolate(unsigned member, bool cut) {
    for (unsigned i = 0; i < world->members_count; i++)
        if (i != member)
            world->cuts[member][i] = world->cuts[i][member] = cut;
    log_disturbed(world);
}

static void request_switchover(unsigned at, const char *to) {
    struct event event = {.kind = EVENT_REQUEST};
    event.request.kind = REQUEST_KIND_SWITCHOVER;
    snprintf(event.request.to, sizeof event.request.to, "%s", to);
    give(world, at, &event);
}

/* ---- the flows ---- */

static bool has_other_primary(const struct world *w) { return world_primary(w) >= 0 && w->topology.epoch > 1; }

static void must(bool held, const char *what, uint64_t seed) {
    if (held && world->violation[0] == '\0')
        return;
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct modelled_member *m = &world->members[i];
        print_error("m%u up=%d server=%d data=%d copy=%u epoch=%u sealed=%d open=%d rules=%d job=%d/%s cut=%d "
                    "trouble=%s why=%s\n",
                    i + 1, m->up, m->postgres.server, m->postgres.data, m->postgres.copy, m->core.topology.epoch,
                    m->core.topology.sealed, m->core.topology.open, m->core.topology.rules_count, m->core.job.running,
                    operation_kind_name(m->core.job.operation.kind), m->core.cut.valid, m->core.job.trouble,
                    m->core.coordinator.why);
    }
    fail_msg("seed %llu: %s; violation: %s", (unsigned long long)seed, what,
             world->violation[0] != '\0' ? world->violation : "none");
}

static void begin(unsigned members, uint64_t seed, Durability durability) {
    struct plan plan;
    plan_plain(&plan, members, seed, durability);
    world->trace = getenv("TRACE") != NULL;
    world_init(world, &plan);
}

static void found(unsigned members, uint64_t seed) {
    begin(members, seed, DURABILITY_QUORUM);
    must(world_run(world, world_is_redundant, msec(30000)), "the cluster is not founded", seed);
}

static void test_founding(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (unsigned members = 1; members <= 5; members++)
            found(members, seed);
}

static bool clones(const struct world *w) {
    return w->members[1].operating && w->members[1].operation.kind == OPERATE_CLONE;
}

/* Nobody but the founder has data yet; `strict` must not wait for those who never had any. */
static void test_founder_falls(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(3, seed, seed % 2 == 0 ? DURABILITY_STRICT : DURABILITY_QUORUM);
        must(world_run(world, clones, msec(30000)), "the first standby is not cloned", seed);
        postgres_stop(world, 0);
        must(world_run(world, world_is_redundant, msec(60000)), "it is not founded after the founder fell", seed);
    }
}

static void test_postgres_killed(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        world_advance(world, msec(seed * 37));
        int old = world_primary(world);
        nsec killed = world->now;
        postgres_stop(world, (unsigned)old);
        must(world_run(world, has_other_primary, msec(5000)), "no new primary", seed);
        must(world->now - killed < msec(700), "the lease was waited for although PostgreSQL is known to be dead", seed);
        must(world_primary(world) != old, "the fallen primary was preferred", seed);
        must(world_run(world, world_is_redundant, msec(30000)), "the old primary did not rejoin", seed);
    }
}

static void test_host_killed(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        world_advance(world, msec(2000 + seed * 31));
        int old = world_primary(world);
        nsec killed = world->now;
        kill_host((unsigned)old);
        must(world_run(world, has_other_primary, msec(6000)), "no new primary", seed);
        must(world->now - killed < msec(2600), "slower than lease + 0.6 s", seed);
        world_advance(world, msec(3000));
        daemon_start(world, (unsigned)old);
        must(world_run(world, world_is_redundant, msec(30000)), "the old primary did not rejoin", seed);
    }
}

/* m3 alone acknowledged the last commits, and may not be primary: m2 streams them from it. */
static void test_host_killed_beside_one_of_priority_0(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct plan plan;
        plan_plain(&plan, 3, seed, DURABILITY_QUORUM);
        plan.priorities[2] = 0;
        world_init(world, &plan);
        must(world_run(world, world_is_redundant, msec(30000)), "the cluster is not founded", seed);
        world->cuts[0][1] = world->cuts[1][0] = 1;
        world_advance(world, msec(200));
        must(world->members[2].postgres.length > world->members[1].postgres.length, "m2 lacks nothing", seed);
        kill_host(0);
        must(world_run(world, has_other_primary, msec(3000)), "no new primary", seed);
        must(world_primary(world) == 1, "m3 may not be primary", seed);
    }
}

static void test_partitioned_primary(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        int old = world_primary(world);
        isolate((unsigned)old, true);
        must(world_run(world, has_other_primary, msec(6000)), "no new primary", seed);
        world_advance(world, msec(2000));
        isolate((unsigned)old, false);
        must(world_run(world, world_is_redundant, msec(30000)), "the old primary did not rejoin", seed);
    }
}

static void test_daemon_killed(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        int primary = world_primary(world);
        uint32_t epoch = world->members[primary].core.topology.epoch;
        daemon_kill(world, (unsigned)primary);
        world_advance(world, msec(300));
        daemon_start(world, (unsigned)primary);
        world_advance(world, msec(5000));
        must(world_primary(world) == primary, "a restart of the daemon moved the primary", seed);
        must(world->members[primary].core.topology.epoch == epoch, "a restart of the daemon ended the epoch", seed);
    }
}

static void test_frozen_postgres(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        int old = world_primary(world);
        postgres_freeze(world, (unsigned)old, true);
        must(world_run(world, has_other_primary, msec(5000)), "no new primary", seed);
        must(world_run(world, world_is_redundant, msec(30000)), "the old primary did not rejoin", seed);
    }
}

/* No flush returns, and no process that waits for one can be killed. */
static void test_disk_hangs(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        unsigned old = (unsigned)world_primary(world);
        postgres_disk(world, old, true);
        must(world_run(world, has_other_primary, msec(8000)), "no new primary", seed);
        world_advance(world, msec(3000));
        postgres_disk(world, old, false);
        must(world_run(world, world_is_redundant, msec(30000)), "the old primary did not rejoin", seed);
    }
}

static void test_switchover(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        world_advance(world, msec(500));
        int old = world_primary(world);
        const char *to = old == 1 ? "m3" : "m2";
        request_switchover((unsigned)(seed % 3), to);
        must(world_run(world, has_other_primary, msec(10000)), "no switchover", seed);
        must(strcmp(world->members[world_primary(world)].config.name, to) == 0, "not the member that was named", seed);
        must(world_run(world, world_is_redundant, msec(30000)), "not redundant after the switchover", seed);
    }
}

static void test_everything_restarted(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        for (unsigned i = 0; i < 3; i++)
            kill_host(i);
        world_advance(world, msec(3000));
        for (unsigned i = 0; i < 3; i++)
            daemon_start(world, i);
        must(world_run(world, world_is_redundant, msec(40000)), "the cluster did not come back", seed);
    }
}

static void test_standby_lost_and_back(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        int primary = world_primary(world);
        unsigned standby = (unsigned)(primary + 1) % 3, other = (unsigned)(primary + 2) % 3;
        kill_host(standby);
        world_advance(world, msec(8000));
        kill_host(other);
        world_advance(world, msec(3000));
        must(world_primary(world) == primary || world->leader < 0, "a standby's death moved the primary", seed);
        daemon_start(world, standby);
        daemon_start(world, other);
        must(world_run(world, world_is_redundant, msec(40000)), "the standbys did not come back", seed);
    }
}

static void test_lost_data_directory(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        unsigned standby = (unsigned)(world_primary(world) + 1) % 3;
        kill_host(standby);
        world->members[standby].postgres.data = DATA_EMPTY;
        world->members[standby].postgres.length = world->members[standby].postgres.flushed = 0;
        world->members[standby].postgres.copy = 0;
        daemon_start(world, standby);
        must(world_run(world, world_is_redundant, msec(40000)), "it was not cloned", seed);
        must(world->members[standby].postgres.copy >= 2, "a new data directory under an old number", seed);
    }
}

static void test_random_faults(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        found(3, seed);
        uint64_t dice = seed * 7919;
        for (unsigned round = 0; round < 6; round++) {
            dice = dice * 6364136223846793005ull + 1442695040888963407ull;
            unsigned member = (unsigned)(dice >> 33) % 3, fault = (unsigned)(dice >> 40) % 5;
            switch (fault) {
            case 0:
                postgres_stop(world, member);
                break;
            case 1:
                kill_host(member);
                break;
            case 2:
                daemon_kill(world, member);
                break;
            case 3:
                isolate(member, true);
                break;
            case 4:
                if (world->members[member].postgres.server == SERVER_PRIMARY)
                    postgres_freeze(world, member, true);
                break;
            }
            world_advance(world, msec((dice >> 45) % 4000));
        }
        for (unsigned i = 0; i < 3; i++) {
            isolate(i, false);
            if (!world->members[i].up)
                daemon_start(world, i);
        }
        must(world_run(world, world_is_redundant, msec(120000)), "it did not heal", seed);
    }
}

/* What the wall clock shows goes into the history, and into no decision. */
static void test_wall_clock(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t core_steps = 0, events = 0, topology = 0;
        for (unsigned jumps = 0; jumps < 2; jumps++) {
            struct plan plan;
            plan_draw(&plan, seed, -1);
            plan.wall_jumps = jumps == 1;
            world_init(world, &plan);
            world_advance(world, plan.ends);
            must(true, "", seed);
            if (jumps == 1) {
                assert_int_equal(world->core_steps, core_steps);
                assert_int_equal(world->events, events);
                assert_int_equal(topology_hash(&world->topology), topology);
            }
            core_steps = world->core_steps;
            events = world->events;
            topology = topology_hash(&world->topology);
        }
    }
}

int main(void) {
    world = calloc(1, sizeof *world);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_founding),
        cmocka_unit_test(test_founder_falls),
        cmocka_unit_test(test_postgres_killed),
        cmocka_unit_test(test_host_killed),
        cmocka_unit_test(test_host_killed_beside_one_of_priority_0),
        cmocka_unit_test(test_partitioned_primary),
        cmocka_unit_test(test_daemon_killed),
        cmocka_unit_test(test_frozen_postgres),
        cmocka_unit_test(test_disk_hangs),
        cmocka_unit_test(test_switchover),
        cmocka_unit_test(test_everything_restarted),
        cmocka_unit_test(test_standby_lost_and_back),
        cmocka_unit_test(test_lost_data_directory),
        cmocka_unit_test(test_random_faults),
        cmocka_unit_test(test_wall_clock),
    };
    if (getenv("TESTS") != NULL)
        cmocka_set_test_filter(getenv("TESTS"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(world);
    return failed;
}
