/* The modelled Raft: one committed log. Members apply it at their own pace; a restarted daemon falls back to its
 * snapshot until it hears a leader; a proposal may be lost, or land late; the outcome may never be known. */
#include <stdio.h>
#include <string.h>

#include "base/panic.h"
#include "tests/sim/world.h"

#define PROPOSE_DEADLINE msec(2000)
#define ELECTION         msec(250)

static bool majority_reached(const struct world *world, unsigned from) {
    unsigned reached = 0, voters = world->members_count - world->plan.observers;
    if (is_observer_member(world, from))
        return false;
    for (unsigned i = 0; i < voters; i++) /* observers are the last */
        reached += daemon_runs(world, i) && connected(world, from, i) && world->members[i].postgres.disk_hangs == 0;
    return daemon_runs(world, from) && reached > voters / 2;
}

/* ---- committing ---- */

static void commit(struct world *world, const uint8_t *bytes, size_t length) {
    require(world->log_length < WORLD_LOG);
    memcpy(world->log[world->log_length], bytes, length);
    world->log_bytes[world->log_length++] = (uint16_t)length;
    struct error why = {""};
    if (command_decode(&world->command, bytes, length, &why) != OK)
        panic("a command cannot be decoded", __FILE__, __LINE__);
    enum applied applied = record_apply(&world->topology, &world->history, world->log_length, &world->command, &why);
    world->log_hash[world->log_length] = topology_hash(&world->topology);
    check_committed(world, &world->command, applied);
    if (applied == APPLIED)
        plan_cue(world, CUE_RECORDED, world->command.which_body, world->leader < 0 ? 0 : (unsigned)world->leader);
    if (world->log_length % world->plan.snapshot_every == 0) {
        world->snapshot_index = world->log_length;
        world->snapshot.version = SNAPSHOT_VERSION;
        world->snapshot.topology = world->topology;
        world->snapshot.history = world->history;
    }
    for (unsigned i = 0; i < world->members_count; i++)
        if (world->members[i].up)
            timer_at_latest(world, i, TIMER_APPLY,
                            world->now + 100000 + draw_time(world, msec(world->members[i].slow_apply > 0 ? 800 : 4)));
}

void log_found(struct world *world) {
    Command *found = &world->founding;
    memset(found, 0, sizeof *found);
    found->version = COMMAND_VERSION;
    found->which_body = Command_found_tag;
    Found *body = &found->body.found;
    body->cluster_id = 1;
    body->settings =
        (Settings){.durability = world->plan.durability, .lease_ms = world->plan.lease_ms, .max_loss_bytes = 100000};
    body->members_count = (pb_size_t)world->members_count;
    for (unsigned i = 0; i < world->members_count; i++) {
        Member *member = &body->members[i];
        member->id = i + 1;
        snprintf(member->name, sizeof member->name, "m%u", i + 1);
        member->raft_id = 100 + i;
        member->priority = is_observer_member(world, i) ? 0 : world->plan.priorities[i];
        member->witness = is_witness_member(world, i);
        member->observer = is_observer_member(world, i);
    }
    uint8_t bytes[ENTRY_MAX];
    size_t length = command_encode(found, bytes, sizeof bytes);
    require(length > 0);
    commit(world, bytes, length);
}

/* ---- proposing ---- */

void log_propose(struct world *world, unsigned member, const struct action *action) {
    struct modelled_member *self = &world->members[member];
    enum proposer proposer = action->propose.proposer;
    enum timer timer = proposer == PROPOSER_COORDINATOR ? TIMER_PROPOSAL : TIMER_PROPOSAL_MEMBER;
    self->proposals[proposer].waits = true;
    self->proposals[proposer].index = 0;
    self->proposals[proposer].number++;
    world->timers[member][timer] = world->now + PROPOSE_DEADLINE;
    unsigned number = 0;
    while (number < 64 && world->proposals[number].used)
        number++;
    bool reaches = world->leader >= 0 && connected(world, member, (unsigned)world->leader);
    if (!reaches || number == 64 || world->log_length > WORLD_LOG - 64) {
        world->timers[member][timer] = world->now + draw_time(world, msec(100)); /* rejected */
        return;
    }
    struct proposal_slot *slot = &world->proposals[number];
    slot->used = true;
    slot->member = member;
    slot->proposer = proposer;
    slot->number = self->proposals[proposer].number;
    slot->what = action->propose.command.which_body;
    slot->held = false;
    slot->length = command_encode(&action->propose.command, slot->bytes, sizeof slot->bytes);
    require(slot->length > 0);
    slot->late = self->late_proposals > 0 && chance(world, 600);
    nsec delay = 200000 + draw(world, (uint64_t)world->plan.delay_us * 2000);
    if (slot->late) {
        delay += draw(world, msec(4000));
        if (chance(world, 500)) /* and given up before */
            world->timers[member][timer] = world->now + draw(world, msec(100));
    }
    occasion_add(world, (struct occasion){.at = world->now + delay, .kind = OCCASION_PROPOSAL, .a = number});
    plan_cue(world, CUE_PROPOSED, slot->what, member);
    if (planted(EARLY)) {
        struct event event = {.kind = EVENT_APPLIED};
        world->command = action->propose.command;
        event.applied.index = self->core.topology.index + 1;
        event.applied.command = &world->command;
        self->applied++;
        give(world, member, &event);
        check_applied(world, member);
    }
}

void log_land(struct world *world, unsigned number) {
    struct proposal_slot *slot = &world->proposals[number];
    if (world->held[slot->what] > 0) { /* its proposer gives up early, and tries again */
        slot->held = slot->late = true;
        timer_at_latest(world, slot->member,
                        slot->proposer == PROPOSER_COORDINATOR ? TIMER_PROPOSAL : TIMER_PROPOSAL_MEMBER,
                        world->now + draw(world, msec(100)));
        return;
    }
    slot->used = slot->held = false;
    bool reaches = world->leader >= 0 && majority_reached(world, (unsigned)world->leader) &&
                   (slot->late || connected(world, slot->member, (unsigned)world->leader));
    if (!reaches)
        return; /* lost; its proposer learns it from its deadline */
    commit(world, slot->bytes, slot->length);
    struct modelled_member *proposer = &world->members[slot->member];
    if (proposer->up && proposer->proposals[slot->proposer].waits &&
        proposer->proposals[slot->proposer].number == slot->number)
        proposer->proposals[slot->proposer].index = world->log_length;
}

/* Those that are held no more. */
void log_land_held(struct world *world) {
    for (unsigned i = 0; i < sizeof world->proposals / sizeof *world->proposals; i++)
        if (world->proposals[i].used && world->proposals[i].held && world->held[world->proposals[i].what] == 0)
            occasion_add(world, (struct occasion){.at = world->now + 1000, .kind = OCCASION_PROPOSAL, .a = i});
}

/* Applied here, or its deadline has passed. */
void log_proposal_ends(struct world *world, unsigned member, enum proposer proposer) {
    struct modelled_member *self = &world->members[member];
    if (!self->up || !self->proposals[proposer].waits)
        return;
    self->proposals[proposer].waits = false;
    struct event event = {.kind = EVENT_PROPOSED};
    event.proposed.proposer = proposer;
    event.proposed.committed = self->proposals[proposer].index != 0 && self->applied >= self->proposals[proposer].index;
    give(world, member, &event);
}

/* ---- applying ---- */

static void give_role(struct world *world, unsigned member, bool leader) {
    struct event event = {.kind = EVENT_ROLE};
    event.role.leader = leader;
    event.role.term = world->term;
    tell(world, (int)member, "%s in term %llu", leader ? "leads" : "leads no more", (unsigned long long)world->term);
    give(world, member, &event);
}

static void give_roles(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    if (self->role_lost_due) {
        self->role_lost_due = false;
        give_role(world, member, false);
    }
    if (self->role_due && world->leader == (int)member && self->applied == world->log_length) {
        self->role_due = false;
        give_role(world, member, true);
    }
}

void log_apply(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    if (!self->up)
        return;
    give_roles(world, member);
    if (!self->up || self->applied >= world->log_length)
        return;
    bool hears = world->leader >= 0 && linked(world, (unsigned)world->leader, member) &&
                 daemon_runs(world, (unsigned)world->leader) && self->postgres.disk_hangs == 0;
    if (!hears) {
        timer_at_latest(world, member, TIMER_APPLY, world->now + msec(10) + draw(world, msec(20)));
        return;
    }
    struct error error;
    if (command_decode(&world->command, world->log[self->applied], world->log_bytes[self->applied], &error) != OK)
        panic("a command cannot be decoded", __FILE__, __LINE__);
    struct event event = {.kind = EVENT_APPLIED};
    event.applied.index = self->applied + 1;
    event.applied.command = &world->command;
    self->applied++;
    if (self->applied > self->ever_applied)
        self->ever_applied = self->applied;
    give(world, member, &event);
    check_applied(world, member);
    for (enum proposer i = 0; i < 2; i++)
        if (self->up && self->proposals[i].waits && self->proposals[i].index != 0 &&
            self->applied >= self->proposals[i].index)
            log_proposal_ends(world, member, i);
    nsec pause = self->slow_apply > 0 ? draw_time(world, msec(800)) : draw_time(world, 300000);
    if (self->up)
        timer_at_latest(world, member, TIMER_APPLY, world->now + pause);
}

/* ---- leading ---- */

void log_disturbed(struct world *world) {
    nsec at = world->now + ELECTION + draw(world, ELECTION);
    if (world->world_timers[WORLD_TIMER_ELECTION] > at)
        world->world_timers[WORLD_TIMER_ELECTION] = at;
}

static void lead(struct world *world, unsigned member) {
    world->leader = (int)member;
    world->term++;
    world->members[member].role_due = true;
    timer_at_latest(world, member, TIMER_APPLY, world->now + 1000);
}

/* The deposed leader learns it a little later. */
static void depose(struct world *world) {
    struct modelled_member *old = &world->members[world->leader];
    if (old->up && !old->role_due) {
        old->role_lost_due = true;
        timer_at_latest(world, (unsigned)world->leader, TIMER_APPLY, world->now + draw_time(world, msec(600)));
    }
    old->role_due = false;
    world->leader = -1;
}

void log_elect(struct world *world) {
    if (world->leader >= 0 && majority_reached(world, (unsigned)world->leader))
        return;
    if (world->leader >= 0)
        depose(world);
    unsigned first = (unsigned)draw(world, world->members_count);
    for (unsigned n = 0; n < world->members_count; n++) {
        unsigned i = (first + n) % world->members_count;
        if (majority_reached(world, i)) {
            lead(world, i);
            return;
        }
    }
    world->world_timers[WORLD_TIMER_ELECTION] = world->now + msec(100);
}

void log_drop_leader(struct world *world) {
    if (world->leader >= 0)
        depose(world);
    log_disturbed(world);
}

void log_yield(struct world *world, unsigned from, unsigned to) {
    if (world->leader != (int)from || is_observer_member(world, to) || !daemon_runs(world, to) ||
        !connected(world, from, to))
        return;
    depose(world);
    lead(world, to);
}
