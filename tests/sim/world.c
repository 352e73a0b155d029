#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LSN_OF(length)   (1000 + 8 * (uint64_t)(length))
#define STEP             msec(1)
#define COMMIT_DELAY     msec(5)
#define PROPOSE_DEADLINE msec(2000)
#define ELECTION         msec(400)
#define FACTS_EVERY      msec(100)

static uint64_t draw(struct world *world, uint64_t below) {
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return world->random % below;
}

static void violated(struct world *world, const char *what, unsigned member) {
    if (world->violation[0] == '\0')
        snprintf(world->violation, sizeof world->violation, "%s (m%u at %llu ms)", what, member + 1,
                 (unsigned long long)(world->now / NSEC_PER_MSEC));
}

static bool connected(const struct world *world, unsigned a, unsigned b) {
    return a == b || (!world->members[a].cut_off && !world->members[b].cut_off);
}

/* ---- modelled PostgreSQL ---- */

static Position position_of(const struct modelled_postgres *postgres) {
    uint32_t timeline = postgres->length > 0 ? postgres->wal[postgres->length - 1].timeline : 1;
    return (Position){.timeline = timeline, .lsn = LSN_OF(postgres->length)};
}

static void append(struct world *world, struct modelled_postgres *postgres, uint32_t timeline) {
    if (postgres->length == WORLD_WAL) {
        fprintf(stderr, "world: the modelled WAL is full\n");
        abort();
    }
    postgres->wal[postgres->length++] = (struct wal_record){timeline, ++world->next_content};
}

static bool may_stream(const struct modelled_postgres *to, const struct modelled_postgres *from) {
    return to->length < from->length &&
           (to->length == 0 || to->wal[to->length - 1].timeline == from->wal[to->length - 1].timeline);
}

static bool receives(const struct world *world, unsigned to) {
    const struct modelled_postgres *standby = &world->members[to].postgres;
    if (standby->server != SERVER_STANDBY || standby->source < 0 || standby->frozen)
        return false;
    const struct modelled_postgres *source = &world->members[standby->source].postgres;
    return (source->server == SERVER_PRIMARY || source->server == SERVER_STANDBY) && !source->frozen &&
           connected(world, to, (unsigned)standby->source);
}

static void stream_all(struct world *world) {
    for (unsigned i = 0; i < world->members_count; i++) {
        if (!receives(world, i))
            continue;
        struct modelled_postgres *to = &world->members[i].postgres;
        const struct modelled_postgres *from = &world->members[to->source].postgres;
        while (may_stream(to, from) && draw(world, 4) != 0) {
            to->wal[to->length] = from->wal[to->length];
            to->length++;
        }
    }
}

/* Which of the rule's names have flushed at least `length` records, as PostgreSQL sees it: by position alone. */
static unsigned names_past(const struct world *world, unsigned primary, unsigned length) {
    const struct modelled_postgres *postgres = &world->members[primary].postgres;
    unsigned past = 0;
    for (unsigned n = 0; n < postgres->rule.names_count; n++)
        for (unsigned i = 0; i < world->members_count; i++) {
            const struct modelled_postgres *standby = &world->members[i].postgres;
            if (receives(world, i) && standby->source == (int)primary && standby->length >= length &&
                strcmp(standby->upstream, postgres->rule.names[n]) == 0) {
                past++;
                break;
            }
        }
    return past;
}

static void acknowledge(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = &world->members[member].postgres;
    while (postgres->acknowledged < postgres->length &&
           names_past(world, member, postgres->acknowledged + 1) >= postgres->rule.needed) {
        uint32_t content = postgres->wal[postgres->acknowledged++].content;
        if (postgres->acknowledged <= postgres->waiting_from)
            continue;
        world->acknowledged[world->acknowledged_count++ % (WORLD_WAL * 4)] = content;
    }
}

static void write_and_acknowledge(struct world *world) {
    for (unsigned i = 0; i < world->members_count; i++) {
        struct modelled_postgres *postgres = &world->members[i].postgres;
        if (postgres->server != SERVER_PRIMARY || postgres->frozen)
            continue;
        if (!world->quiet && draw(world, 20) == 0 && postgres->length < WORLD_WAL - 64)
            append(world, postgres, postgres->wal[postgres->length - 1].timeline);
        if (postgres->written_durably == 0) {
            append(world, postgres, postgres->wal[postgres->length - 1].timeline);
            postgres->written_durably = postgres->length;
        }
        acknowledge(world, i);
    }
}

static void stop_server(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = &world->members[member].postgres;
    postgres->server = SERVER_DOWN;
    postgres->source = -1;
    postgres->upstream[0] = '\0';
    postgres->frozen = false;
    postgres->guard_deadline = NSEC_NEVER;
}

/* ---- the hands ---- */

static void give(struct world *world, unsigned member, struct event *event);

static void fill_senders(const struct world *world, unsigned member, struct facts *facts) {
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct modelled_postgres *standby = &world->members[i].postgres;
        if (!receives(world, i) || standby->source != (int)member)
            continue;
        Sender *sender = &facts->senders[facts->senders_count++];
        snprintf(sender->name, sizeof sender->name, "%s", standby->upstream);
        snprintf(sender->state, sizeof sender->state, "streaming");
        sender->flush_lsn = LSN_OF(standby->length);
    }
}

static void give_facts(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = &world->members[member].postgres;
    static struct facts facts;
    memset(&facts, 0, sizeof facts);
    facts.seen_at = world->now;
    facts.data = postgres->data;
    facts.copy = postgres->copy;
    facts.system_identifier = postgres->data == DATA_COMPLETE ? 77 : 0;
    facts.standby_signal = true;
    facts.pledged_epoch = postgres->pledged;
    facts.guard = true;
    facts.server = postgres->frozen ? SERVER_HUNG : postgres->server;
    facts.guard_epoch = postgres->guard_epoch;
    facts.guard_deadline = postgres->guard_deadline;
    facts.position = position_of(postgres);
    facts.receiver = postgres->source >= 0;
    facts.streaming = receives(world, member);
    snprintf(facts.upstream_name, sizeof facts.upstream_name, "%s", postgres->upstream);
    if (postgres->server == SERVER_PRIMARY && postgres->written_durably != 0) {
        facts.durable_seen = true;
        facts.durable_lsn = LSN_OF(postgres->written_durably);
    }
    fill_senders(world, member, &facts);
    world->members[member].facts_at = world->now + FACTS_EVERY;
    give(world, member, &(struct event){.kind = EVENT_FACTS, .facts = &facts});
}

static int member_named(const struct world *world, const char *name) {
    for (unsigned i = 0; i < world->members_count; i++)
        if (strcmp(world->members[i].config.name, name) == 0)
            return (int)i;
    return -1;
}

static nsec duration(struct world *world, enum operation_kind kind) {
    static const unsigned most[] = {
        [OPERATE_INITDB] = 500, [OPERATE_ADOPT] = 10,   [OPERATE_CLONE] = 2000, [OPERATE_REWIND] = 800,
        [OPERATE_START] = 300,  [OPERATE_STOP] = 200,   [OPERATE_KILL] = 10,    [OPERATE_CUT] = 30,
        [OPERATE_FOLLOW] = 10,  [OPERATE_PROMOTE] = 80, [OPERATE_RULE] = 20,    [OPERATE_CHECKPOINT] = 50};
    return msec(1 + draw(world, most[kind]));
}

/* pg_rewind and pg_basebackup both leave what the source has. */
static bool copy_from(struct world *world, unsigned member, const struct operation *operation) {
    int source = member_named(world, operation->upstream.name);
    if (source < 0 || !connected(world, member, (unsigned)source) ||
        world->members[source].postgres.server != SERVER_PRIMARY)
        return false;
    struct modelled_postgres *to = &world->members[member].postgres, *from = &world->members[source].postgres;
    memcpy(to->wal, from->wal, sizeof to->wal);
    to->length = from->length;
    to->data = DATA_COMPLETE;
    return true;
}

static void promote(struct world *world, unsigned member, const struct operation *operation,
                    struct operation_result *result) {
    struct modelled_postgres *postgres = &world->members[member].postgres;
    if (postgres->server != SERVER_STANDBY || position_compare(position_of(postgres), operation->base) != 0) {
        result->outcome = OUTCOME_REFUSED;
        return;
    }
    postgres->server = SERVER_PRIMARY;
    postgres->rule = operation->rule;
    postgres->acknowledged = postgres->waiting_from = postgres->length;
    postgres->written_durably = 0;
    append(world, postgres, operation->timeline); /* the end-of-recovery record */
    result->lsn = LSN_OF(postgres->length);
}

static void carry_out(struct world *world, unsigned member, const struct operation *operation,
                      struct operation_result *result) {
    struct modelled_postgres *postgres = &world->members[member].postgres;
    bool done = true;
    switch (operation->kind) {
    case OPERATE_INITDB:
        postgres->length = 1;
        postgres->wal[0] = (struct wal_record){1, ++world->next_content};
        postgres->data = DATA_COMPLETE;
        postgres->copy = operation->copy;
        break;
    case OPERATE_ADOPT:
        postgres->copy = operation->copy;
        break;
    case OPERATE_CLONE:
        done = copy_from(world, member, operation);
        postgres->copy = done ? operation->copy : postgres->copy;
        break;
    case OPERATE_REWIND:
        done = copy_from(world, member, operation);
        break;
    case OPERATE_START:
        postgres->server = SERVER_STANDBY;
        postgres->guard_deadline = NSEC_NEVER;
        break;
    case OPERATE_STOP:
    case OPERATE_KILL:
        stop_server(world, member);
        break;
    case OPERATE_CUT:
        done = postgres->server == SERVER_STANDBY;
        postgres->source = -1;
        postgres->upstream[0] = '\0';
        if (operation->epoch > postgres->pledged)
            postgres->pledged = operation->epoch;
        result->position = position_of(postgres);
        break;
    case OPERATE_FOLLOW:
        done = postgres->server == SERVER_STANDBY;
        postgres->source = member_named(world, operation->upstream.name);
        snprintf(postgres->upstream, sizeof postgres->upstream, "%s", operation->application_name);
        break;
    case OPERATE_PROMOTE:
        promote(world, member, operation, result);
        break;
    case OPERATE_RULE:
        done = postgres->server == SERVER_PRIMARY;
        postgres->rule = operation->rule;
        result->lsn = LSN_OF(postgres->length);
        break;
    default:
        break;
    }
    if (!done)
        result->outcome = OUTCOME_FAILED;
}

static void end_operation(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    struct operation operation = self->operation;
    struct operation_result result = {.serial = operation.serial, .kind = operation.kind, .outcome = OUTCOME_DONE};
    self->operating = false;
    carry_out(world, member, &operation, &result);
    give(world, member, &(struct event){.kind = EVENT_RESULT, .result = &result});
    if (self->up)
        give_facts(world, member);
}

/* ---- the record ---- */

static void log_append(struct world *world, const Command *command) {
    if (world->log_length == WORLD_LOG) {
        fprintf(stderr, "world: the modelled log is full\n");
        abort();
    }
    world->log[world->log_length] = *command;
    world->log_at[world->log_length++] = world->now + COMMIT_DELAY;
}

static bool reachable_majority(const struct world *world, unsigned from) {
    unsigned reached = 0;
    for (unsigned i = 0; i < world->members_count; i++)
        reached += world->members[i].up && connected(world, from, i);
    return world->members[from].up && reached > world->members_count / 2;
}

static void give_role(struct world *world, unsigned member, bool leader) {
    struct event event = {.kind = EVENT_ROLE};
    event.role.leader = leader;
    event.role.term = world->term;
    give(world, member, &event);
}

static void elect(struct world *world) {
    if (world->leader >= 0 && reachable_majority(world, (unsigned)world->leader))
        return;
    if (world->leader >= 0) {
        if (world->members[world->leader].up)
            give_role(world, (unsigned)world->leader, false);
        world->leader = -1;
        world->leader_at = world->now + ELECTION;
    }
    if (world->now < world->leader_at)
        return;
    unsigned first = (unsigned)draw(world, world->members_count);
    for (unsigned n = 0; n < world->members_count; n++) {
        unsigned i = (first + n) % world->members_count;
        if (!reachable_majority(world, i) || world->members[i].applied < world->log_length)
            continue;
        world->leader = (int)i;
        world->term++;
        give_role(world, i, true);
        return;
    }
}

static void apply_log(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    if (world->leader < 0 || !connected(world, member, (unsigned)world->leader))
        if (!reachable_majority(world, member))
            return;
    while (self->up && self->applied < world->log_length &&
           world->now >= world->log_at[self->applied] + msec(draw(world, 20))) {
        struct event event = {.kind = EVENT_APPLIED};
        event.applied.index = self->applied + 1;
        event.applied.command = &world->log[self->applied];
        self->applied++;
        give(world, member, &event);
    }
}

/* ---- actions ---- */

static void send(struct world *world, unsigned from, unsigned to, const Message *message) {
    if (!connected(world, from, to) || world->messages_count == sizeof world->messages / sizeof *world->messages)
        return;
    struct world_message *slot = &world->messages[world->messages_count++];
    slot->at = world->now + msec(1 + draw(world, 3));
    slot->from = from;
    slot->to = to;
    slot->message = *message;
}

static void propose_modelled(struct world *world, unsigned member, const struct action *action) {
    bool committed = world->leader >= 0 && reachable_majority(world, (unsigned)world->leader) &&
                     connected(world, member, (unsigned)world->leader);
    if (committed)
        log_append(world, &action->propose.command);
    struct modelled_member *self = &world->members[member];
    enum proposer proposer = action->propose.proposer;
    self->proposals[proposer].waits = true;
    self->proposals[proposer].index = committed ? world->log_length : 0;
    self->proposals[proposer].until = world->now + (committed ? PROPOSE_DEADLINE : COMMIT_DELAY);
}

/* A proposal is committed once it has been applied here; its outcome may also never be known. */
static void end_proposals(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    for (unsigned i = 0; i < 2; i++) {
        bool applied = self->proposals[i].index != 0 && self->applied >= self->proposals[i].index;
        if (!self->proposals[i].waits || (!applied && world->now < self->proposals[i].until))
            continue;
        self->proposals[i].waits = false;
        struct event event = {.kind = EVENT_PROPOSED};
        event.proposed.proposer = (enum proposer)i;
        event.proposed.committed = applied;
        give(world, member, &event);
    }
}

static void do_action(struct world *world, unsigned member, const struct action *action) {
    struct modelled_member *self = &world->members[member];
    switch (action->kind) {
    case ACTION_PROPOSE:
        propose_modelled(world, member, action);
        break;
    case ACTION_SEND:
        for (unsigned i = 0; i < world->members_count; i++)
            if (action->send.to == 0 ? i != member : i + 1 == action->send.to)
                send(world, member, i, &action->send.message);
        break;
    case ACTION_ARM:
        self->postgres.guard_epoch = action->arm.epoch;
        self->postgres.guard_deadline = action->arm.deadline;
        self->facts_at = world->now;
        break;
    case ACTION_OPERATE:
        self->operating = true;
        self->operation = action->operation;
        self->operation_ends = world->now + duration(world, action->operation.kind);
        break;
    case ACTION_YIELD:
        if (world->leader == (int)member && world->members[action->yield.to - 1].up &&
            world->members[action->yield.to - 1].applied == world->log_length) {
            give_role(world, member, false);
            world->leader = (int)action->yield.to - 1;
            world->term++;
            give_role(world, (unsigned)world->leader, true);
        }
        break;
    case ACTION_LOG:
        if (world->trace)
            fprintf(stderr, "# %6llu ms m%u %s\n", (unsigned long long)(world->now / NSEC_PER_MSEC), member + 1,
                    action->log.text);
        break;
    case ACTION_EXIT:
        self->exited = true;
        self->up = false;
        break;
    case ACTION_ANSWER:
        break;
    }
}

static void give(struct world *world, unsigned member, struct event *event) {
    struct modelled_member *self = &world->members[member];
    if (!self->up)
        return;
    struct actions *actions = malloc(sizeof *actions);
    if (actions == NULL)
        abort();
    event->now = world->now;
    event->wall_ms = world->now / NSEC_PER_MSEC;
    core_step(&self->core, event, actions);
    for (unsigned i = 0; i < actions->count; i++)
        do_action(world, member, &actions->list[i]);
    free(actions);
}

/* ---- invariants ---- */

static void check_nothing_lost(struct world *world, unsigned primary) {
    const struct modelled_postgres *postgres = &world->members[primary].postgres;
    static uint8_t held[WORLD_WAL * 8];
    memset(held, 0, sizeof held);
    for (unsigned i = 0; i < postgres->length; i++)
        if (postgres->wal[i].content < sizeof held)
            held[postgres->wal[i].content] = 1;
    for (unsigned i = 0; i < world->acknowledged_count && i < WORLD_WAL * 4; i++)
        if (!held[world->acknowledged[i]])
            violated(world, "I1: an acknowledged commit is not on the open primary", primary);
}

static void check(struct world *world) {
    int open = world_primary(world);
    if (open >= 0)
        check_nothing_lost(world, (unsigned)open);
    unsigned leased = 0;
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct modelled_postgres *postgres = &world->members[i].postgres;
        bool may_write = postgres->server == SERVER_PRIMARY && world->now < postgres->guard_deadline;
        leased += may_write && !postgres->frozen;
    }
    if (leased > 1)
        violated(world, "I2: two members are unfenced and writable", 0);
}

/* ---- running ---- */

static void deliver(struct world *world) {
    for (unsigned i = 0; i < world->messages_count;) {
        if (world->messages[i].at > world->now) {
            i++;
            continue;
        }
        struct world_message message = world->messages[i];
        world->messages[i] = world->messages[--world->messages_count];
        if (!connected(world, message.from, message.to))
            continue;
        struct event event = {.kind = EVENT_MESSAGE};
        event.message.from = world->members[message.from].config.name;
        event.message.message = &message.message;
        give(world, message.to, &event);
    }
}

static void guards(struct world *world) {
    for (unsigned i = 0; i < world->members_count; i++) {
        struct modelled_postgres *postgres = &world->members[i].postgres;
        bool up = postgres->server != SERVER_DOWN && postgres->server != SERVER_UNKNOWN;
        if (up && postgres->guard_deadline != NSEC_NEVER && world->now >= postgres->guard_deadline) {
            stop_server(world, i);
            world->members[i].facts_at = world->now;
        }
    }
}

static void step_member(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    if (!self->up)
        return;
    apply_log(world, member);
    end_proposals(world, member);
    if (self->operating && world->now >= self->operation_ends)
        end_operation(world, member);
    if (self->up && world->now >= self->facts_at)
        give_facts(world, member);
    if (self->up && world->now >= self->core.wake_at)
        give(world, member, &(struct event){.kind = EVENT_TICK});
}

static void world_step(struct world *world) {
    world->now += STEP;
    guards(world);
    write_and_acknowledge(world);
    stream_all(world);
    elect(world);
    deliver(world);
    for (unsigned i = 0; i < world->members_count; i++)
        step_member(world, i);
    check(world);
}

bool world_run(struct world *world, bool (*until)(const struct world *), nsec limit) {
    nsec end = world->now + limit;
    while (world->now < end) {
        world_step(world);
        if (world->violation[0] != '\0')
            return false;
        if (until(world))
            return true;
    }
    return false;
}

void world_advance(struct world *world, nsec time) {
    nsec end = world->now + time;
    while (world->now < end && world->violation[0] == '\0')
        world_step(world);
}

/* ---- founding and faults ---- */

void world_start_daemon(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    self->up = true;
    self->exited = false;
    self->applied = 0;
    self->operating = false;
    memset(self->proposals, 0, sizeof self->proposals);
    self->config.start_count = ++self->starts;
    self->facts_at = world->now;
    core_init(&self->core, &self->config, world->now);
    give(world, member, &(struct event){.kind = EVENT_TICK});
}

void world_init(struct world *world, unsigned members, uint64_t seed, Durability durability) {
    memset(world, 0, sizeof *world);
    world->now = NSEC_PER_SEC;
    world->random = seed * 0x9E3779B97F4A7C15ull + 1;
    world->members_count = members;
    world->leader = -1;
    Command found = {.version = COMMAND_VERSION, .which_body = Command_found_tag};
    found.body.found.cluster_id = 1;
    found.body.found.settings = (Settings){.durability = durability, .lease_ms = 2000, .max_loss_bytes = 1000};
    found.body.found.members_count = (pb_size_t)members;
    for (unsigned i = 0; i < members; i++) {
        struct modelled_member *self = &world->members[i];
        snprintf(self->config.name, sizeof self->config.name, "m%u", i + 1);
        self->config.raft_id = 100 + i;
        self->config.probe_timeout_ms = 1000;
        self->postgres.data = DATA_EMPTY;
        self->postgres.server = SERVER_DOWN;
        self->postgres.source = -1;
        self->postgres.guard_deadline = NSEC_NEVER;
        Member *member = &found.body.found.members[i];
        member->id = i + 1;
        snprintf(member->name, sizeof member->name, "m%u", i + 1);
        member->raft_id = 100 + i;
        member->priority = 100;
    }
    log_append(world, &found);
    for (unsigned i = 0; i < members; i++)
        world_start_daemon(world, i);
}

void world_kill_postgres(struct world *world, unsigned member) {
    stop_server(world, member);
    world->members[member].facts_at = world->now;
}

void world_kill_daemon(struct world *world, unsigned member) {
    world->members[member].up = false;
    world->members[member].operating = false;
    if (world->leader == (int)member) {
        world->leader = -1;
        world->leader_at = world->now + ELECTION;
    }
}

void world_kill_host(struct world *world, unsigned member) {
    world_kill_daemon(world, member);
    stop_server(world, member);
}

void world_request_switchover(struct world *world, unsigned at, const char *to) {
    struct event event = {.kind = EVENT_REQUEST};
    event.request.kind = REQUEST_KIND_SWITCHOVER;
    snprintf(event.request.to, sizeof event.request.to, "%s", to);
    give(world, at, &event);
}

/* ---- what holds ---- */

static const Topology *newest_topology(const struct world *world) {
    const Topology *newest = NULL;
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct modelled_member *member = &world->members[i];
        if (member->up && (newest == NULL || member->core.topology.index > newest->index))
            newest = &member->core.topology;
    }
    return newest;
}

int world_primary(const struct world *world) {
    const Topology *topology = newest_topology(world);
    if (topology == NULL || !topology->open || topology->sealed)
        return -1;
    unsigned index = topology->primary.member - 1;
    const struct modelled_postgres *postgres = &world->members[index].postgres;
    bool writes = postgres->server == SERVER_PRIMARY && !postgres->frozen &&
                  postgres->wal[postgres->length - 1].timeline == topology->timeline_offset + topology->epoch;
    return writes ? (int)index : -1;
}

bool world_is_redundant(const struct world *world) {
    int primary = world_primary(world);
    const Topology *topology = newest_topology(world);
    if (primary < 0 || topology->rules_count != 1)
        return false;
    unsigned others = 0;
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct modelled_member *member = &world->members[i];
        if (!member->up || i == (unsigned)primary)
            continue;
        others++;
        if (!receives(world, i) || member->postgres.source != primary ||
            !rule_names_copy(&topology->rules[0], (Copy){.member = i + 1, .copy = member->postgres.copy}))
            return false;
    }
    return topology->rules[0].standbys_count == others || topology->settings.durability == DURABILITY_ASYNC;
}
