#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"

#define LOSS_PER_MILLE 200

unsigned long planted_bugs;

/* ---- chance ---- */

uint64_t draw(struct world *world, uint64_t below) {
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (world->random >> 11) % below;
}

bool chance(struct world *world, unsigned in_thousand) { return draw(world, 1000) < in_thousand; }

nsec draw_time(struct world *world, nsec most) {
    unsigned shift = (unsigned)draw(world, 4) * 2;
    return 1 + draw(world, (most >> shift) + 1);
}

/* ---- clocks: each member's runs at its own rate ---- */

static nsec unpaused_time(const struct world *world, unsigned member) {
    const struct modelled_member *self = &world->members[member];
    return self->clock_offset + world->now + (nsec)((int64_t)world->now * self->drift_ppm / 1000000);
}

nsec local_time(const struct world *world, unsigned member) {
    const struct modelled_member *self = &world->members[member];
    return self->pauses > 0 ? self->paused_local : unpaused_time(world, member);
}

/* The first moment at which the member's clock shows at least `local`. */
nsec true_time(const struct world *world, unsigned member, nsec local) {
    const struct modelled_member *self = &world->members[member];
    if (local == NSEC_NEVER)
        return NSEC_NEVER;
    int64_t since = (int64_t)(local - self->clock_offset);
    if (since <= 0)
        return world->now;
    nsec at = (nsec)(since / (1000000 + self->drift_ppm) * 1000000 +
                     since % (1000000 + self->drift_ppm) * 1000000 / (1000000 + self->drift_ppm));
    return at + 2;
}

/* ---- what is due when ---- */

static bool earlier(const struct occasion *a, const struct occasion *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void occasion_add(struct world *world, struct occasion occasion) {
    require(world->occasions_count < OCCASIONS_MAX);
    occasion.order = world->next_order++;
    unsigned i = world->occasions_count++;
    for (; i > 0 && earlier(&occasion, &world->occasions[(i - 1) / 2]); i = (i - 1) / 2)
        world->occasions[i] = world->occasions[(i - 1) / 2];
    world->occasions[i] = occasion;
}

static struct occasion occasion_take(struct world *world) {
    struct occasion first = world->occasions[0], last = world->occasions[--world->occasions_count];
    unsigned i = 0, n = world->occasions_count;
    for (unsigned child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && earlier(&world->occasions[child + 1], &world->occasions[child]))
            child++;
        if (!earlier(&world->occasions[child], &last))
            break;
        world->occasions[i] = world->occasions[child];
    }
    world->occasions[i] = last;
    return first;
}

void timer_at_latest(struct world *world, unsigned member, enum timer timer, nsec at) {
    if (world->timers[member][timer] > at)
        world->timers[member][timer] = at;
}

/* ---- transcript ---- */

void tell(struct world *world, int member, const char *format, ...) {
    if (!world->trace)
        return;
    printf("%9.3f ", (double)world->now / 1e6);
    if (member >= 0)
        printf("m%d ", member + 1);
    else
        printf("-- ");
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

/* ---- network ---- */

bool linked(const struct world *world, unsigned from, unsigned to) { return world->cuts[from][to] == 0; }
bool connected(const struct world *world, unsigned a, unsigned b) {
    return world->cuts[a][b] == 0 && world->cuts[b][a] == 0;
}

static nsec message_delay(struct world *world) {
    nsec delay = 50000 + draw(world, (uint64_t)world->plan.delay_us * 1000);
    if (world->slow_network > 0 && chance(world, 300))
        delay += draw(world, msec(1500));
    return delay;
}

static size_t used_bytes(const Message *message) {
    return message->which_body == Message_observation_tag ? sizeof *message
                                                          : offsetof(Message, body) + sizeof(Renew) + sizeof(Endorse);
}

static bool addressed(const struct world *world, unsigned from, unsigned to, const struct action *action) {
    if (action->send.audience == SEND_ONE)
        return to + 1 == action->send.to;
    return to != from && (action->send.audience == SEND_ALL || !is_observer_member(world, to));
}

static void send(struct world *world, unsigned from, const struct action *action) {
    const Message *message = &action->send.message;
    if (message->which_body == Message_observation_tag)
        check_told(world, from, &message->body.observation);
    if (world->free_messages_count == 0)
        return;
    uint16_t number = world->free_messages[world->free_messages_count - 1];
    struct message_slot *slot = &world->messages[number];
    slot->readers = 0;
    for (unsigned i = 0; i < world->members_count; i++) {
        if (!addressed(world, from, i, action))
            continue;
        if (!linked(world, from, i) || world->unheard[from][i] > 0 || !world->members[i].up ||
            (world->losing > 0 && chance(world, LOSS_PER_MILLE)))
            continue;
        slot->readers++;
        occasion_add(world, (struct occasion){.at = world->now + message_delay(world),
                                              .kind = OCCASION_MESSAGE,
                                              .from = (uint8_t)from,
                                              .to = (uint8_t)i,
                                              .a = number});
    }
    if (slot->readers == 0)
        return;
    memcpy(&slot->message, message, used_bytes(message));
    world->free_messages_count--;
}

static void deliver(struct world *world, struct occasion *occasion) {
    struct modelled_member *to = &world->members[occasion->to];
    struct message_slot *slot = &world->messages[occasion->a];
    if (to->up && to->frozen > 0) {
        occasion->at = to->thaws_at + 1000;
        occasion_add(world, *occasion);
        return;
    }
    if (to->up && linked(world, occasion->from, occasion->to)) {
        struct event event = {.kind = EVENT_MESSAGE};
        event.message.from = world->members[occasion->from].config.name;
        event.message.message = &slot->message;
        give(world, occasion->to, &event);
    }
    if (--slot->readers == 0)
        world->free_messages[world->free_messages_count++] = (uint16_t)occasion->a;
}

/* ---- daemons ---- */

bool daemon_runs(const struct world *world, unsigned member) {
    return world->members[member].up && world->members[member].frozen == 0;
}

bool is_witness_member(const struct world *world, unsigned member) {
    unsigned voters = world->members_count - world->plan.observers;
    return member < voters && member >= voters - world->plan.witnesses;
}

bool is_observer_member(const struct world *world, unsigned member) {
    return member >= world->members_count - world->plan.observers;
}

static void do_action(struct world *world, unsigned member, const struct action *action) {
    switch (action->kind) {
    case ACTION_PROPOSE:
        log_propose(world, member, action);
        break;
    case ACTION_SEND:
        send(world, member, action);
        break;
    case ACTION_ARM:
        postgres_arm(world, member, action->arm.epoch, action->arm.deadline);
        break;
    case ACTION_OPERATE:
        check_operation(world, member, &action->operation);
        hands_begin(world, member, &action->operation);
        break;
    case ACTION_YIELD:
        log_yield(world, member, action->yield.to - 1);
        break;
    case ACTION_LOG:
        tell(world, (int)member, "%s", action->log.text);
        break;
    case ACTION_EXIT:
        tell(world, (int)member, "exits: %s", action->exit.why);
        daemon_kill(world, member);
        break;
    case ACTION_MEND: /* no file is damaged here */
        break;
    case ACTION_ANSWER:
        tell(world, (int)member, "answers %d: %s", action->answer.http_status, action->answer.text);
        break;
    }
}

void give(struct world *world, unsigned member, struct event *event) {
    struct modelled_member *self = &world->members[member];
    event->now = local_time(world, member);
    event->wall_ms = world->now / NSEC_PER_MSEC;
    if (world->plan.wall_jumps)
        event->wall_ms = (world->now + member) * 0x9E3779B97F4A7C15ull >> 20;
    world->core_steps++;
    core_step(&self->core, event, &world->actions);
    world->timers[member][TIMER_TICK] = true_time(world, member, self->core.wake_at);
    for (unsigned i = 0; i < world->actions.count && self->up; i++)
        do_action(world, member, &world->actions.list[i]);
    check_published(world, member);
}

void daemon_start(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    if (self->up)
        return;
    tell(world, (int)member, "the daemon starts");
    self->up = true;
    self->operating = false;
    self->role_due = self->role_lost_due = false;
    memset(self->proposals, 0, sizeof self->proposals);
    self->config.start_count = ++self->starts;
    core_init(&self->core, &self->config, local_time(world, member));
    for (enum timer timer = 0; timer < TIMER_CLIENT; timer++)
        if (timer != TIMER_GUARD)
            world->timers[member][timer] = NSEC_NEVER;
    world->timers[member][TIMER_TICK] = world->now;
    world->timers[member][TIMER_FACTS] = world->now + draw(world, msec(30));
    world->timers[member][TIMER_APPLY] = world->now + draw_time(world, msec(300));
    self->applied = 0;
    if (world->snapshot_index > 0 && self->ever_applied >= world->snapshot_index) {
        self->applied = world->snapshot_index;
        struct event event = {.kind = EVENT_RESTORED};
        event.restored.snapshot = &world->snapshot;
        give(world, member, &event);
    }
    log_disturbed(world);
}

void daemon_kill(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    if (!self->up)
        return;
    self->up = false;
    hands_die(world, member);
    for (enum timer timer = 0; timer < TIMER_CLIENT; timer++)
        if (timer != TIMER_GUARD && timer != TIMER_OPERATION)
            world->timers[member][timer] = NSEC_NEVER;
    if (world->leader == (int)member)
        world->leader = -1;
    log_disturbed(world);
}

void daemon_freeze(struct world *world, unsigned member, bool frozen) {
    struct modelled_member *self = &world->members[member];
    self->frozen += frozen ? 1u : -1u;
    log_disturbed(world);
}

/* A virtual machine that is paused, with its clock: whatever it counts it counts too little of. */
void host_pause(struct world *world, unsigned member, bool paused) {
    struct modelled_member *self = &world->members[member];
    if (paused && self->pauses == 0)
        self->paused_local = unpaused_time(world, member);
    self->pauses += paused ? 1u : -1u;
    if (self->pauses > 0)
        return;
    self->clock_offset -= unpaused_time(world, member) - self->paused_local;
    self->clock_wrong_until = world->now + msec(2 * world->plan.lease_ms);
}

/* ---- one event ---- */

static void on_daemon_timer(struct world *world, unsigned member, enum timer timer) {
    struct modelled_member *self = &world->members[member];
    if (self->up && self->frozen > 0) {
        world->timers[member][timer] = self->thaws_at + 1;
        return;
    }
    switch (timer) {
    case TIMER_TICK:
        if (self->up)
            give(world, member, &(struct event){.kind = EVENT_TICK});
        break;
    case TIMER_FACTS:
        hands_tell(world, member);
        break;
    case TIMER_OPERATION:
        hands_end(world, member);
        break;
    case TIMER_APPLY:
        log_apply(world, member);
        break;
    default:
        log_proposal_ends(world, member, timer == TIMER_PROPOSAL ? PROPOSER_COORDINATOR : PROPOSER_MEMBER);
        break;
    }
}

static void on_timer(struct world *world, unsigned member, enum timer timer) {
    world->timers[member][timer] = NSEC_NEVER;
    switch (timer) {
    case TIMER_GUARD:
        postgres_guard(world, member);
        break;
    case TIMER_CLIENT:
        postgres_client(world, member);
        break;
    case TIMER_DURABLE:
        postgres_durable(world, member);
        break;
    case TIMER_RECEIVER:
        postgres_receive(world, member);
        break;
    case TIMER_CHECKPOINTER:
        postgres_checkpointer(world, member);
        break;
    case TIMER_FLUSH:
        postgres_flush(world, member);
        break;
    case TIMER_RESTART:
        postgres_restarts(world, member);
        break;
    default:
        on_daemon_timer(world, member, timer);
        break;
    }
}

static void on_occasion(struct world *world, struct occasion occasion) {
    switch ((enum occasion_kind)occasion.kind) {
    case OCCASION_MESSAGE:
        deliver(world, &occasion);
        break;
    case OCCASION_ACKNOWLEDGE:
        postgres_acknowledged(world, occasion.to, occasion.from, occasion.a, occasion.b);
        break;
    case OCCASION_RELOAD:
        postgres_sender_reloads(world, occasion.from, occasion.to, occasion.a, occasion.b);
        break;
    case OCCASION_SENDER_ENDS:
        postgres_sender_ends(world, occasion.to, occasion.from, occasion.a);
        break;
    case OCCASION_PROPOSAL:
        log_land(world, occasion.a);
        break;
    case OCCASION_FAULT_ENDS:
        fault_end(world, (enum fault_kind)occasion.a, occasion.from, occasion.to, occasion.b);
        break;
    case OCCASION_VOID:
        break;
    }
}

/* The earliest of all timers: [member][timer], then the world's own. */
static nsec earliest(const struct world *world, unsigned *ret_which) {
    const nsec *timers = &world->timers[0][0];
    unsigned count = world->members_count * TIMERS, which = 0;
    nsec best = NSEC_NEVER;
    for (unsigned i = 0; i < count; i++)
        if (timers[i] < best) {
            best = timers[i];
            which = i;
        }
    for (unsigned i = 0; i < WORLD_TIMERS; i++)
        if (world->world_timers[i] < best) {
            best = world->world_timers[i];
            which = WORLD_MEMBERS * TIMERS + i;
        }
    *ret_which = which;
    return best;
}

/* One event, if there is one until `end`. */
static bool world_step(struct world *world, nsec end) {
    unsigned which;
    nsec at = earliest(world, &which);
    bool occasion = world->occasions_count > 0 && world->occasions[0].at <= at;
    if (occasion)
        at = world->occasions[0].at;
    if (at > end) {
        world->now = end;
        return false;
    }
    if (at > world->now)
        world->now = at;
    world->events++;
    if (occasion)
        on_occasion(world, occasion_take(world));
    else if (which < WORLD_MEMBERS * TIMERS)
        on_timer(world, which / TIMERS, which % TIMERS);
    else {
        world->world_timers[which - WORLD_MEMBERS * TIMERS] = NSEC_NEVER;
        if (which - WORLD_MEMBERS * TIMERS == WORLD_TIMER_ELECTION)
            log_elect(world);
        else
            plan_next_fault(world);
    }
    check_step(world);
    return true;
}

bool world_run(struct world *world, bool (*until)(const struct world *), nsec limit) {
    nsec end = world->now + limit;
    nsec look = world->now;
    while (world->now < end) {
        look += msec(5);
        while (world_step(world, look) && world->violation[0] == '\0')
            continue;
        if (world->violation[0] != '\0')
            return false;
        if (until(world))
            return true;
    }
    return false;
}

void world_advance(struct world *world, nsec time) {
    nsec end = world->now + time;
    while (world->violation[0] == '\0' && world_step(world, end))
        continue;
}

/* ---- the beginning ---- */

void world_init(struct world *world, const struct plan *plan) {
    bool trace = world->trace;
    size_t behind = offsetof(struct world, members) + sizeof world->members;
    memset(world, 0, offsetof(struct world, members));
    for (unsigned i = 0; i < WORLD_MEMBERS; i++)
        memset(&world->members[i], 0, offsetof(struct modelled_member, core));
    memset((char *)world + behind, 0, offsetof(struct world, actions) - behind);
    world->trace = trace;
    world->plan = *plan;
    world->now = NSEC_PER_SEC;
    world->random = plan->seed * 0x9E3779B97F4A7C15ull + 0x1234567;
    world->members_count = plan->members;
    world->leader = -1;
    for (unsigned i = 0; i < MESSAGES_MAX; i++)
        world->free_messages[i] = (uint16_t)(MESSAGES_MAX - 1 - i);
    world->free_messages_count = MESSAGES_MAX;
    memset(world->timers, 0xff, sizeof world->timers);
    memset(world->world_timers, 0xff, sizeof world->world_timers);
    for (unsigned i = 0; i < world->members_count; i++) {
        struct modelled_member *self = &world->members[i];
        snprintf(self->config.name, sizeof self->config.name, "m%u", i + 1);
        self->config.raft_id = 100 + i;
        self->config.probe_timeout_ms = 1000;
        self->config.poolers = plan->poolers;
        self->drift_ppm = plan->drift_ppm[i];
        self->clock_offset = draw(world, 1000) * NSEC_PER_SEC;
        self->postgres.data = DATA_EMPTY;
        self->postgres.server = SERVER_DOWN;
        self->postgres.source = -1;
        self->postgres.guard_deadline = NSEC_NEVER;
    }
    log_found(world);
    for (unsigned i = 0; i < world->members_count; i++)
        daemon_start(world, i);
    world->world_timers[WORLD_TIMER_ELECTION] = world->now + msec(100);
    world->cue_came = NSEC_NEVER;
    plan_next_fault(world);
}
