/* The invariants of the design (its section 11), as far as the model can tell, at the moments when they could break. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/world.h"

#define COMMIT_BIT 0x80000000u

void violated(struct world *world, const char *format, ...) {
    if (world->violation[0] != '\0')
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(world->violation, sizeof world->violation, format, arguments);
    va_end(arguments);
    tell(world, -1, "VIOLATION %s", world->violation);
}

/* ---- I1, I9: nothing acknowledged is lost ---- */

/* The first acknowledged commit that is not on this disk; 0 = none. */
static uint32_t missing(const struct world *world, unsigned member) {
    static uint8_t held[WORLD_CONTENTS];
    const struct modelled_postgres *postgres = &world->members[member].postgres;
    memset(held, 0, world->next_content + 1);
    for (unsigned i = 0; i < postgres->length; i++)
        held[postgres->wal[i].content & ~COMMIT_BIT] = 1;
    for (uint32_t i = 1; i <= world->next_content; i++)
        if (world->acknowledged[i] && !held[i])
            return i;
    return 0;
}

static bool holds(const struct modelled_postgres *postgres, uint32_t content) {
    for (unsigned i = postgres->length; i-- > 0;)
        if (postgres->wal[i].content == content)
            return true;
    return false;
}

static bool promised(const struct world *world) { return world->plan.durability != DURABILITY_ASYNC; }

static void check_nothing_lost(struct world *world, unsigned member, const char *when) {
    if (!promised(world))
        return;
    uint32_t content = missing(world, member);
    if (content != 0)
        violated(world, "%s: m%u lacks acknowledged commit %u", when, member + 1, content);
}

static bool is_open_primary(const struct world *world, unsigned member) {
    const Topology *topology = &world->topology;
    const struct modelled_postgres *postgres = &world->members[member].postgres;
    return topology->open && topology->primary.member == member + 1 && postgres->length > 0 &&
           postgres->copy == topology->primary.copy &&
           postgres->wal[postgres->length - 1].timeline == topology_epoch(topology, topology->epoch)->timeline;
}

void check_acknowledged(struct world *world, unsigned member, uint32_t content) {
    world->acknowledged[content & ~COMMIT_BIT] = 1;
    world->acknowledged_count++;
    if (!promised(world) || world->topology.epoch == 0)
        return;
    unsigned primary = world->topology.primary.member - 1;
    if (primary != member && is_open_primary(world, primary) && !holds(&world->members[primary].postgres, content))
        violated(world, "I1: m%u acknowledged commit %u, which open primary m%u lacks", member + 1,
                 content & ~COMMIT_BIT, primary + 1);
}

/* ---- I2: one writer; I3: each epoch and timeline has one primary, ever ---- */

/* Without its guard, or with a clock that left out a pause, only cut and cover protect the data. */
static bool writes(const struct world *world, unsigned member) {
    const struct modelled_postgres *postgres = &world->members[member].postgres;
    return postgres->server == SERVER_PRIMARY && postgres->frozen == 0 && postgres->guard_frozen == 0 &&
           world->now >= world->members[member].clock_wrong_until;
}

void check_step(struct world *world) {
    unsigned writers = 0;
    for (unsigned i = 0; i < world->members_count; i++)
        writers += writes(world, i);
    if (writers > 1)
        violated(world, "I2: two PostgreSQLs write");
}

void check_promoted(struct world *world, unsigned member, uint32_t epoch, uint32_t timeline) {
    world->promotions++;
    if (timeline >= 256 || epoch >= 256)
        return;
    if (world->timeline_owner[timeline] != 0)
        violated(world, "I2: m%u begins timeline %u, which has begun before", member + 1, timeline);
    world->timeline_owner[timeline] = world->promotions;
    world->promoted_epoch[epoch] = member + 1;
    /* Begun in time, it may come true after its epoch has ended, if the guard is frozen or its clock left out a pause.
     * Nobody acknowledges for it then: I1 sees to that. */
    const struct modelled_member *self = &world->members[member];
    bool too_late = world->topology.sealed || world->topology.epoch > epoch;
    bool unguarded = self->postgres.guard_frozen > 0 || world->now < self->clock_wrong_until;
    if (!too_late || !unguarded)
        check_nothing_lost(world, member, "I9: promoted");
}

/* What PostgreSQL cannot see: equal positions with different contents. */
void check_received(struct world *world, unsigned to, unsigned from) {
    const struct modelled_postgres *a = &world->members[to].postgres, *b = &world->members[from].postgres;
    if (a->length > 0 && a->wal[a->length - 1].content != b->wal[a->length - 1].content)
        violated(world, "I2: timeline %u has two contents, on m%u and m%u", a->wal[a->length - 1].timeline, to + 1,
                 from + 1);
}

void check_committed(struct world *world, const Command *command, enum applied applied) {
    const Topology *topology = &world->topology;
    if (command->reason[0] != '\0')
        tell(world, -1, "record %u: %s%s", world->log_length, command->reason, applied == APPLIED ? "" : " (void)");
    if (applied != APPLIED)
        return;
    if (command->which_body == Command_assign_tag && topology->epochs_count > 1 && !planted(UNIQTL)) {
        const Epoch *epochs = &topology->epochs[topology->epochs_count - 2];
        if (epochs[1].epoch <= epochs[0].epoch || epochs[1].timeline <= epochs[0].timeline)
            violated(world, "I3: epoch %u after %u, timeline %u after %u", epochs[1].epoch, epochs[0].epoch,
                     epochs[1].timeline, epochs[0].timeline);
    }
    if (command->which_body == Command_open_tag) {
        unsigned primary = topology->primary.member - 1;
        world->opened++;
        world->failovers += topology->epoch > 1;
        if (is_open_primary(world, primary))
            check_nothing_lost(world, primary, "I1: opened");
    }
}

/* ---- I4: a position told in prepare stays ---- */

void check_told(struct world *world, unsigned member, const Observation *told) {
    if (told->prepared_seal == 0 || told->prepared_seal != world->topology.seal_index || !world->topology.sealed)
        return;
    if (told->copy == 0)
        return; /* of a data directory without a number: counts for nothing */
    world->claimed[member].seal = told->prepared_seal;
    world->claimed[member].copy = told->copy;
    world->claimed[member].length = (unsigned)((told->position.lsn - LSN_OF(0)) / 8);
    const struct modelled_postgres *postgres = &world->members[member].postgres;
    if (postgres->copy == told->copy && postgres->length > world->claimed[member].length)
        violated(world, "I4: m%u told a position that it is already past", member + 1);
}

static void check_claim(struct world *world, unsigned member) {
    const struct modelled_postgres *postgres = &world->members[member].postgres;
    if (!world->topology.sealed || world->claimed[member].seal != world->topology.seal_index ||
        world->claimed[member].copy != postgres->copy || postgres->data != DATA_COMPLETE)
        return;
    if (postgres->length > world->claimed[member].length)
        violated(world, "I4: m%u received WAL after it had told its position", member + 1);
    if (postgres->length < world->claimed[member].length)
        violated(world, "I4: m%u lost WAL after it had told its position", member + 1);
}

/* ---- I5: nothing is done before it is committed ---- */

void check_operation(struct world *world, unsigned member, const struct operation *operation) {
    const Topology *topology = &world->topology;
    if (operation->epoch > topology->epoch)
        violated(world, "I5: m%u begins %s for epoch %u, and only %u is committed", member + 1,
                 operation_kind_name(operation->kind), operation->epoch, topology->epoch);
    if (operation->kind == OPERATE_PROMOTE && operation->epoch == topology->epoch &&
        topology->primary.member != member + 1)
        violated(world, "I3: m%u begins to promote for epoch %u of m%u", member + 1, operation->epoch,
                 topology->primary.member);
    check_claim(world, member);
    if (operation->kind != OPERATE_FETCH)
        return;
    if (world->members[member].core.cut.valid)
        violated(world, "I4: m%u goes on to stream, and its answer stands", member + 1);
    world->claimed[member].seal = 0; /* it is withdrawn */
}

/* ---- I6: the same record everywhere ---- */

/* In lanes, as it is the most frequent thing done here. */
uint64_t topology_hash(const Topology *topology) {
    const unsigned char *bytes = (const unsigned char *)topology;
    uint64_t lanes[4] = {1, 2, 3, 4}, words[4], hash = 0;
    size_t i = 0;
    size_t used = offsetof(Topology, members) + sizeof(Member) * topology->members_count;
    size_t behind = offsetof(Topology, members) + sizeof topology->members;
    for (; i + sizeof words <= sizeof *topology; i += sizeof words) {
        if (i >= used && i < behind) /* there are many places for members, and few members */
            i = behind;
        memcpy(words, bytes + i, sizeof words);
        for (unsigned lane = 0; lane < 4; lane++)
            lanes[lane] = (lanes[lane] ^ words[lane]) * 0x9E3779B97F4A7C15ull;
    }
    memset(words, 0, sizeof words);
    memcpy(words, bytes + i, sizeof *topology - i);
    for (unsigned lane = 0; lane < 4; lane++)
        hash = (hash ^ lanes[lane] ^ lanes[lane] >> 29 ^ words[lane]) * 0x9E3779B97F4A7C15ull;
    return hash;
}

void check_applied(struct world *world, unsigned member) {
    const struct modelled_member *self = &world->members[member];
    if (!self->up)
        return;
    check_claim(world, member);
    if (self->applied > world->log_length || topology_hash(&self->core.topology) != world->log_hash[self->applied])
        violated(world, "I6: m%u has another topology at index %u", member + 1, self->applied);
}

/* ---- I7: one primary is published for an epoch, and only one that writes, or did ---- */

void check_published(struct world *world, unsigned member) {
    const struct modelled_member *self = &world->members[member];
    const Topology *topology = &self->core.topology;
    if (!self->up || topology->epoch == 0 || topology->epoch >= 256 || topology->sealed ||
        !(topology->open || planted(UNOPENED)))
        return;
    uint32_t *published = &world->published_primary[topology->epoch];
    if (*published == topology->primary.member)
        return;
    if (*published != 0)
        violated(world, "I7: epoch %u is published with m%u and with m%u", topology->epoch, *published,
                 topology->primary.member);
    *published = topology->primary.member;
    if (world->promoted_epoch[topology->epoch] != topology->primary.member)
        violated(world, "I7: m%u is published for epoch %u, and never wrote in it", topology->primary.member,
                 topology->epoch);
}

void check_end(struct world *world) {
    if (world->topology.open && is_open_primary(world, world->topology.primary.member - 1))
        check_nothing_lost(world, world->topology.primary.member - 1, "I1: at the end");
}

/* ---- what holds ---- */

int world_primary(const struct world *world) {
    const Topology *topology = &world->topology;
    if (!topology->open || topology->sealed)
        return -1;
    unsigned index = topology->primary.member - 1;
    const struct modelled_postgres *postgres = &world->members[index].postgres;
    return postgres->server == SERVER_PRIMARY && postgres->frozen == 0 && is_open_primary(world, index) ? (int)index
                                                                                                        : -1;
}

bool world_is_redundant(const struct world *world) {
    int primary = world_primary(world);
    const Topology *topology = &world->topology;
    if (primary < 0 || topology->rules_count != 1)
        return false;
    unsigned others = 0;
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct modelled_member *member = &world->members[i];
        if (!member->up || i == (unsigned)primary || is_witness_member(world, i))
            continue;
        others += !is_observer_member(world, i);
        if (!member->postgres.attached || !member->postgres.streaming || member->postgres.source != primary ||
            member->postgres.data != DATA_COMPLETE)
            return false;
        if (topology->settings.durability != DURABILITY_ASYNC && !is_observer_member(world, i) &&
            !rule_names_copy(&topology->rules[0], (Copy){.member = i + 1, .copy = member->postgres.copy}))
            return false;
    }
    return topology->rules[0].standbys_count == others || topology->settings.durability == DURABILITY_ASYNC;
}
