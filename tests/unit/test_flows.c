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

static bool has_other_primary(const struct world *w) {
    return world_primary(w) >= 0 && w->members[world_primary(w)].core.topology.epoch > 1;
}

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

static void found(unsigned members, uint64_t seed) {
    world_init(world, members, seed, DURABILITY_QUORUM);
    world->trace = getenv("TRACE") != NULL;
    must(world_run(world, world_is_redundant, msec(30000)), "the cluster is not founded", seed);
}

static void test_founding(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (unsigned members = 1; members <= 5; members++)
            found(members, seed);
}

static void test_postgres_killed(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        world_advance(world, msec(seed * 37));
        int old = world_primary(world);
        nsec killed = world->now;
        world_kill_postgres(world, (unsigned)old);
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
        world_kill_host(world, (unsigned)old);
        must(world_run(world, has_other_primary, msec(6000)), "no new primary", seed);
        must(world->now - killed < msec(2600), "slower than lease + 0.6 s", seed);
        world_advance(world, msec(3000));
        world_start_daemon(world, (unsigned)old);
        must(world_run(world, world_is_redundant, msec(30000)), "the old primary did not rejoin", seed);
    }
}

static void test_partitioned_primary(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        int old = world_primary(world);
        world->members[old].cut_off = true;
        must(world_run(world, has_other_primary, msec(6000)), "no new primary", seed);
        world_advance(world, msec(2000));
        world->members[old].cut_off = false;
        must(world_run(world, world_is_redundant, msec(30000)), "the old primary did not rejoin", seed);
    }
}

static void test_daemon_killed(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        int primary = world_primary(world);
        uint32_t epoch = world->members[primary].core.topology.epoch;
        world_kill_daemon(world, (unsigned)primary);
        world_advance(world, msec(300));
        world_start_daemon(world, (unsigned)primary);
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
        world->members[old].postgres.frozen = true;
        must(world_run(world, has_other_primary, msec(5000)), "no new primary", seed);
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
        world_request_switchover(world, (unsigned)(seed % 3), to);
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
            world_kill_host(world, i);
        world_advance(world, msec(3000));
        for (unsigned i = 0; i < 3; i++)
            world_start_daemon(world, i);
        must(world_run(world, world_is_redundant, msec(40000)), "the cluster did not come back", seed);
    }
}

static void test_standby_lost_and_back(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        int primary = world_primary(world);
        unsigned standby = (unsigned)(primary + 1) % 3, other = (unsigned)(primary + 2) % 3;
        world_kill_host(world, standby);
        world_advance(world, msec(8000));
        world_kill_host(world, other);
        world_advance(world, msec(3000));
        must(world_primary(world) == primary || world->leader < 0, "a standby's death moved the primary", seed);
        world_start_daemon(world, standby);
        world_start_daemon(world, other);
        must(world_run(world, world_is_redundant, msec(40000)), "the standbys did not come back", seed);
    }
}

static void test_lost_data_directory(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        found(3, seed);
        unsigned standby = (unsigned)(world_primary(world) + 1) % 3;
        world_kill_host(world, standby);
        world->members[standby].postgres.data = DATA_EMPTY;
        world->members[standby].postgres.length = 0;
        world->members[standby].postgres.copy = 0;
        world_start_daemon(world, standby);
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
                world_kill_postgres(world, member);
                break;
            case 1:
                world_kill_host(world, member);
                break;
            case 2:
                world_kill_daemon(world, member);
                break;
            case 3:
                world->members[member].cut_off = true;
                break;
            case 4:
                world->members[member].postgres.frozen = world->members[member].postgres.server == SERVER_PRIMARY;
                break;
            }
            world_advance(world, msec((dice >> 45) % 4000));
        }
        for (unsigned i = 0; i < 3; i++) {
            world->members[i].cut_off = false;
            if (!world->members[i].up)
                world_start_daemon(world, i);
        }
        must(world_run(world, world_is_redundant, msec(120000)), "it did not heal", seed);
    }
}

int main(void) {
    world = malloc(sizeof *world);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_founding),
        cmocka_unit_test(test_postgres_killed),
        cmocka_unit_test(test_host_killed),
        cmocka_unit_test(test_partitioned_primary),
        cmocka_unit_test(test_daemon_killed),
        cmocka_unit_test(test_frozen_postgres),
        cmocka_unit_test(test_switchover),
        cmocka_unit_test(test_everything_restarted),
        cmocka_unit_test(test_standby_lost_and_back),
        cmocka_unit_test(test_lost_data_directory),
        cmocka_unit_test(test_random_faults),
    };
    if (getenv("TESTS") != NULL)
        cmocka_set_test_filter(getenv("TESTS"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(world);
    return failed;
}
