/* What the coordinator proposes: record + everybody's observations -> at most one command. Rules in order; the first
 * that holds decides, and what each waits for is kept as a sentence in coordinator.why. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "orchestrator/parts.h"

#define OPEN_DEADLINE       msec(10000) /* an assigned primary that has not opened by then is sealed */
#define STUCK_DEADLINE      msec(10000) /* an epoch whose rule can neither be met nor changed is sealed after this */
#define RETRY_PAUSE         msec(500)   /* between failed epochs, times their number, up to RETRY_PAUSE_MAX */
#define RETRY_PAUSE_MAX     msec(10000)
#define SILENT_AGE          msec(450)  /* two observations missed: a standby that also lacks WAL may be gone */
#define ABSENT_BLOCKING     msec(300)  /* a standby whose absence blocks commits leaves the rule after this */
#define ABSENT_HARMLESS     msec(5000) /* one whose absence does not */
#define SWITCHOVER_DEADLINE msec(30000)
#define YIELD_AFTER         msec(1000)
#define YIELD_AGAIN         msec(10000)
#define CATCH_UP_BYTES      (16u << 20) /* a standby further behind than this does not join the rule yet */

static void because(Command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void because(Command *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command->reason, sizeof command->reason, format, arguments);
    va_end(arguments);
}

static void wait_for(struct core *core, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wait_for(struct core *core, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(core->coordinator.why, sizeof core->coordinator.why, format, arguments);
    va_end(arguments);
}

static Command *decide(struct core *core, struct actions *actions, pb_size_t body) {
    return propose(core, actions, PROPOSER_COORDINATOR, body);
}

/* ---- 1. the first primary ---- */

/* The member whose data directory is to become the first primary's: the only one that holds data, else the first that
 * may be primary. 0 = cannot be told yet. */
static uint32_t founding_member(struct core *core) {
    const Topology *topology = &core->topology;
    uint32_t holder = 0, empty = 0, best_priority = 0;
    for (unsigned i = 0; i < topology->members_count; i++) {
        const Member *member = &topology->members[i];
        const Observation *seen = observation(core, member->id);
        if (member->observer)
            continue; /* it may come at any time */
        if (!heard_within(core, member->id, HEARD_AGE) || !seen->synced) {
            wait_for(core, "waiting for %s before the first primary is chosen", member->name);
            return 0;
        }
        if (member->witness)
            continue;
        if (seen->data == DATA_UNKNOWN || seen->data == DATA_REFUSED) {
            wait_for(core, "the data directory of %s cannot be used: %.120s", member->name, seen->trouble);
            return 0;
        }
        if (seen->data == DATA_COMPLETE && holder != 0) {
            wait_for(core, "both %s and %s hold a data directory; move one of them away", member_name(core, holder),
                     member->name);
            return 0;
        }
        if (seen->data == DATA_COMPLETE)
            holder = member->id;
        else if (member->priority > best_priority) {
            empty = member->id;
            best_priority = member->priority;
        }
    }
    if (holder == 0 && empty == 0)
        wait_for(core, "no member may be primary: give one a priority above 0");
    return holder != 0 ? holder : empty;
}

static void assign(struct core *core, Command *command, const struct choice *choice) {
    Topology *topology = &core->topology;
    Assign *body = &command->body.assign;
    body->epoch = topology->epoch + 1;
    body->seal_index = topology->seal_index;
    body->primary = (Copy){.member = choice->member, .copy = choice->copy};
    body->base = choice->base;
    body->timeline = topology->epoch == 0 ? choice->base.timeline + 1 : topology->timeline_offset + topology->epoch + 1;
    if (planted(UNIQTL))
        body->timeline = choice->base.timeline + 1;
    body->system_identifier = observation(core, choice->member)->system_identifier;
    body->lost_bytes = choice->lost_bytes;
    Rule *rule = &body->rule;
    rule->generation = topology->generation + 1;
    rule->epoch = body->epoch;
    rule->primary = body->primary;
}

static bool decide_first_primary(struct core *core, struct actions *actions) {
    if (core->topology.epoch != 0)
        return false;
    uint32_t id = founding_member(core);
    if (id == 0)
        return true;
    const Observation *seen = observation(core, id);
    const Member *member = topology_member(&core->topology, id);
    if (member->copy == 0) {
        Command *command = decide(core, actions, Command_new_copy_tag);
        if (command != NULL) {
            command->body.new_copy = (NewCopy){.member = id, .copy = 1};
            because(command, "%s %s the first primary's data directory", member->name,
                    seen->data == DATA_COMPLETE ? "brings" : "makes");
        }
        return true;
    }
    if (seen->server != SERVER_STANDBY || seen->copy != member->copy || seen->position.lsn == 0 ||
        seen->position.timeline == 0 || !seen->founding_ready) {
        wait_for(core, "waiting for %s to prepare its data directory", member->name);
        return true;
    }
    Command *command = decide(core, actions, Command_assign_tag);
    if (command != NULL) {
        struct choice choice = {.member = id, .base = seen->position, .copy = seen->copy};
        assign(core, command, &choice);
        because(command, "%s is the first primary", member->name);
    }
    return true;
}

/* ---- 2. seal ---- */

static unsigned voters_expired(const struct core *core) {
    unsigned expired = 0;
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        uint32_t id = core->topology.members[i].id;
        expired += topology_votes(&core->topology, id) && heard_within(core, id, HEARD_AGE) &&
                   observation(core, id)->expired_epoch == core->topology.epoch;
    }
    return expired;
}

/* In `strict`, a primary that writes may have to wait until somebody is cloned or rewound from it: to end its epoch,
 * and the copying with it, would help nobody; nor while no other member has data. */
static bool waits_for_a_copy(const struct core *core) {
    const Topology *topology = &core->topology;
    if (topology->settings.durability != DURABILITY_STRICT ||
        observation(core, topology->primary.member)->running_epoch != topology->epoch)
        return false;
    bool another_has_data = false;
    for (unsigned i = 0; i < topology->members_count; i++) {
        uint32_t id = topology->members[i].id;
        if (id == topology->primary.member || !topology_votes(topology, id) || !heard_within(core, id, HEARD_AGE))
            continue;
        if (observation(core, id)->copying)
            return true;
        another_has_data = another_has_data || observation(core, id)->data == DATA_COMPLETE;
    }
    return !another_has_data;
}

static unsigned rule_counting(const struct core *core, const Rule *rule);

/* As many changes are under way as may be, and the last one waits for standbys that do not stream: commits wait, too,
 * and nothing can be changed any more in this epoch. The next one begins with one rule, by who answers. */
static bool rules_are_stuck(struct core *core) {
    const Topology *topology = &core->topology;
    nsec *since = &core->coordinator.stuck_since;
    const Rule *newest = rule_newest(topology);
    if (!topology->open || topology->rules_count < RULE_CHANGES_MAX || rule_counting(core, newest) >= newest->needed)
        *since = 0;
    else if (*since == 0)
        *since = core->now;
    return *since != 0 && due(core, *since + STUCK_DEADLINE);
}

/* Why the standing epoch must end, or NULL. */
static const char *reason_to_seal(struct core *core, char *buffer, size_t size) {
    const Topology *topology = &core->topology;
    const char *primary = member_name(core, topology->primary.member);
    const Observation *seen = observation(core, topology->primary.member);
    if (core->heard_at[topology->primary.member - 1] != 0 && seen->relinquished_epoch == topology->epoch) {
        bool planned = topology->intent.kind == INTENT_SWITCHOVER && topology->intent.epoch == topology->epoch;
        snprintf(buffer, size, planned ? "%s stopped PostgreSQL for the switchover" : "%s reports: %.140s", primary,
                 seen->trouble[0] != '\0' ? seen->trouble : "its PostgreSQL is gone");
        return buffer;
    }
    unsigned expired = voters_expired(core);
    if (expired > topology_voters(topology) / 2) {
        snprintf(buffer, size, "%u of %u voters have not heard from %s for one lease", expired,
                 topology_voters(topology), primary);
        return buffer;
    }
    if (!topology->open && due(core, core->coordinator.assigned_at + OPEN_DEADLINE) && !waits_for_a_copy(core)) {
        snprintf(buffer, size, "%s did not become writable within %llu s", primary,
                 (unsigned long long)(OPEN_DEADLINE / NSEC_PER_SEC));
        return buffer;
    }
    if (rules_are_stuck(core)) {
        snprintf(buffer, size, "commits wait for standbys that do not stream, and %u changes of that are under way",
                 topology->rules_count - 1);
        return buffer;
    }
    return NULL;
}

static bool decide_seal(struct core *core, struct actions *actions) {
    char reason[REASON_MAX_LENGTH + 1];
    if (core->topology.sealed || reason_to_seal(core, reason, sizeof reason) == NULL)
        return false;
    trace_suspected(core);
    Command *command = decide(core, actions, Command_seal_tag);
    if (command != NULL)
        because(command, "epoch %u ends: %.160s", core->topology.epoch, reason);
    return true;
}

/* ---- 3. assign ---- */

/* S of the new epoch: the answering members whose WAL is a prefix of the base, if the primary has what comes next. They
 * can follow at once. */
static void rule_of_reporters(const struct core *core, Assign *assign) {
    Rule *rule = &assign->rule;
    uint64_t oldest_lsn = observation(core, assign->primary.member)->oldest_lsn;
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        uint32_t id = core->topology.members[i].id;
        const Observation *seen = observation(core, id);
        if (id == assign->primary.member || !candidate_reports(core, id))
            continue;
        if (position_is_prefix(&core->topology, seen->position, assign->base) && seen->position.lsn >= oldest_lsn)
            rule->standbys[rule->standbys_count++] = (Copy){.member = id, .copy = seen->copy};
    }
}

/* Has any commit that counts been acknowledged by a standby? Not before the first one was cloned. */
static bool was_acknowledged_by_standbys(const Topology *topology) {
    for (unsigned i = 0; i < topology->rules_count; i++)
        if (topology->rules[i].needed > 0)
            return true;
    return false;
}

/* The data directory that it tells of. The recorded number may be of one that it was yet to make, and did not. */
static uint32_t copy_told(const struct core *core, const Member *member) {
    const Observation *seen = observation(core, member->id);
    return seen->data == DATA_COMPLETE && seen->copy != 0 ? seen->copy : member->copy;
}

/* `strict` never goes below one acknowledgement: then every other data member may give it. */
static void rule_of_everyone(const struct core *core, Assign *assign) {
    Rule *rule = &assign->rule;
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Member *member = &core->topology.members[i];
        uint32_t copy = copy_told(core, member);
        if (!member->witness && !member->observer && member->id != assign->primary.member && copy != 0)
            rule->standbys[rule->standbys_count++] = (Copy){.member = member->id, .copy = copy};
    }
}

static nsec retry_pause(const struct core *core) {
    nsec pause = RETRY_PAUSE * core->coordinator.unopened;
    return pause < RETRY_PAUSE_MAX ? pause : RETRY_PAUSE_MAX;
}

static bool decide_assign(struct core *core, struct actions *actions) {
    if (!core->topology.sealed)
        return false;
    struct choice choice;
    candidate_choose(core, &choice);
    if (!choice.found) {
        wait_for(core, "no primary yet: %.170s", choice.why);
        return true;
    }
    if (!due(core, core->coordinator.sealed_at + retry_pause(core))) {
        wait_for(core, "pauses before the next attempt: %u epochs in a row did not open", core->coordinator.unopened);
        return true;
    }
    Command *command = decide(core, actions, Command_assign_tag);
    if (command == NULL)
        return true;
    assign(core, command, &choice);
    Assign *body = &command->body.assign;
    if (core->topology.settings.durability != DURABILITY_ASYNC) {
        rule_of_reporters(core, body);
        if (core->topology.settings.durability == DURABILITY_STRICT && body->rule.standbys_count == 0 &&
            was_acknowledged_by_standbys(&core->topology))
            rule_of_everyone(core, body);
        body->rule.needed = rule_needed(&core->topology, body->rule.standbys_count);
    }
    because(command, "%s becomes primary: %.140s", member_name(core, choice.member), choice.why);
    return true;
}

/* ---- 4. open ---- */

static bool decide_open(struct core *core, struct actions *actions) {
    const Topology *topology = &core->topology;
    if (topology->open)
        return false;
    const Observation *seen = observation(core, topology->primary.member);
    if (seen->running_epoch != topology->epoch || !seen->durable) {
        wait_for(core, "waiting for %s to become writable in epoch %u", member_name(core, topology->primary.member),
                 topology->epoch);
        return true;
    }
    Command *command = decide(core, actions, Command_open_tag);
    if (command != NULL) {
        char trace[144];
        trace_text(core, trace, sizeof trace);
        because(command, "%s is writable in epoch %u%s%.140s", member_name(core, topology->primary.member),
                topology->epoch, trace[0] != '\0' ? ": " : "", trace);
    }
    return true;
}

/* ---- 5. and 6. rules inside an epoch ---- */

static const Sender *sender_of(const struct core *core, const Member *member) {
    const Observation *primary = observation(core, core->topology.primary.member);
    char name[APPLICATION_NAME_MAX];
    application_name(name, member->name, observation(core, member->id)->copy, core->topology.epoch);
    for (unsigned i = 0; i < primary->senders_count; i++)
        if (strcmp(primary->senders[i].name, name) == 0)
            return &primary->senders[i];
    return NULL;
}

/* Both ends say that it streams: the primary's row alone outlives a standby that went silent. */
static bool counts(const struct core *core, const Member *member) {
    const Sender *sender = sender_of(core, member);
    const Observation *seen = observation(core, member->id);
    return sender != NULL && strcmp(sender->state, "streaming") == 0 && heard_within(core, member->id, HEARD_AGE) &&
           seen->server == SERVER_STANDBY && seen->streaming && seen->attached_epoch == core->topology.epoch;
}

static bool caught_up(const struct core *core, const Member *member) {
    const Sender *sender = sender_of(core, member);
    return sender != NULL &&
           sender->flush_lsn + CATCH_UP_BYTES >= observation(core, core->topology.primary.member)->position.lsn;
}

/* Counts, and is not suspected of holding up commits: silent, with WAL outstanding. */
static bool present(const struct core *core, const Member *member) {
    if (!counts(core, member))
        return false;
    return heard_within(core, member->id, SILENT_AGE) ||
           sender_of(core, member)->flush_lsn >= observation(core, core->topology.primary.member)->position.lsn;
}

/* A member of the rule stays until the primary has outlived its absence for a while; how long depends on whether
 * commits wait for it. What matters is that the primary was heard *after* that while: when the primary itself has died,
 * its standbys stop streaming too, and must not be dropped from the rule that its failover has to cover. */
static bool still_stays(struct core *core, const Member *member, bool blocking) {
    nsec *since = &core->coordinator.absent_since[member->id - 1];
    if (present(core, member)) {
        *since = 0;
        return true;
    }
    if (*since == 0)
        *since = core->now;
    nsec leaves_at = *since + (blocking ? ABSENT_BLOCKING : ABSENT_HARMLESS);
    return !due(core, leaves_at) || core->heard_at[core->topology.primary.member - 1] < leaves_at;
}

static unsigned rule_counting(const struct core *core, const Rule *rule) {
    unsigned counting = 0;
    for (unsigned i = 0; i < rule->standbys_count; i++) {
        const Member *member = topology_member(&core->topology, rule->standbys[i].member);
        counting +=
            member != NULL && observation(core, member->id)->copy == rule->standbys[i].copy && present(core, member);
    }
    return counting;
}

/* The data directory that we take it to have. A daemon that has just started does not know its own yet, and a new
 * coordinator has heard of nobody: neither is a reason to leave the rule. */
static uint32_t copy_in_rule(const struct core *core, const Rule *rule, uint32_t member) {
    uint32_t copy = observation(core, member)->copy;
    for (unsigned i = 0; i < rule->standbys_count && copy == 0; i++)
        if (rule->standbys[i].member == member)
            copy = rule->standbys[i].copy;
    return copy;
}

/* The rule as it should be now: whoever counts joins, whoever has been absent leaves. */
static void wanted_rule(struct core *core, const Rule *newest, Rule *ret_rule) {
    const Topology *topology = &core->topology;
    bool blocking = rule_counting(core, newest) < newest->needed;
    *ret_rule = (Rule){.generation = topology->generation + 1, .epoch = topology->epoch, .primary = topology->primary};
    if (topology->settings.durability == DURABILITY_ASYNC)
        return;
    for (unsigned i = 0; i < topology->members_count; i++) {
        const Member *member = &topology->members[i];
        Copy copy = {.member = member->id, .copy = copy_in_rule(core, newest, member->id)};
        if (member->witness || member->observer || member->id == topology->primary.member)
            continue;
        bool in = rule_names_copy(newest, copy);
        if (in ? still_stays(core, member, blocking) : counts(core, member) && caught_up(core, member))
            ret_rule->standbys[ret_rule->standbys_count++] = copy;
    }
    ret_rule->needed = rule_needed(topology, ret_rule->standbys_count);
}

static bool same_standbys(const Rule *a, const Rule *b) {
    if (a->needed != b->needed || a->standbys_count != b->standbys_count)
        return false;
    for (unsigned i = 0; i < a->standbys_count; i++)
        if (!rule_names_copy(b, a->standbys[i]))
            return false;
    return true;
}

static bool decide_rule_done(struct core *core, struct actions *actions) {
    const Topology *topology = &core->topology;
    const Observation *primary = observation(core, topology->primary.member);
    if (topology->rules_count < 2 || primary->running_epoch != topology->epoch ||
        primary->rule_in_force != topology->generation || !primary->rule_acknowledged)
        return false;
    Command *command = decide(core, actions, Command_rule_done_tag);
    if (command != NULL) {
        char text[96];
        rule_text(topology, rule_newest(topology), text, sizeof text);
        command->body.rule_done.generation = topology->generation;
        because(command, "commits are acknowledged by %s%s", text,
                rule_newest(topology)->needed == 0 && topology->settings.durability == DURABILITY_QUORUM
                    ? ": degraded, no standby holds them"
                    : "");
    }
    return true;
}

static bool decide_rule_begin(struct core *core, struct actions *actions) {
    const Topology *topology = &core->topology;
    const Rule *newest = rule_newest(topology);
    if (observation(core, topology->primary.member)->running_epoch != topology->epoch ||
        !heard_within(core, topology->primary.member, HEARD_AGE))
        return false;
    /* A change under way is finished first, unless it cannot be met any more. */
    if (topology->rules_count > 1 &&
        (rule_counting(core, newest) >= newest->needed || topology->rules_count >= RULE_CHANGES_MAX))
        return false;
    Rule wanted;
    wanted_rule(core, newest, &wanted);
    if (same_standbys(newest, &wanted) ||
        (topology->settings.durability == DURABILITY_STRICT && wanted.needed == 0 && newest->needed > 0))
        return false;
    Command *command = decide(core, actions, Command_rule_begin_tag);
    if (command != NULL) {
        char text[96];
        rule_text(topology, &wanted, text, sizeof text);
        command->body.rule_begin.rule = wanted;
        because(command, "the rule changes to %s", text);
    }
    return true;
}

/* ---- 7. operators' intents ---- */

static bool decide_end_intent(struct core *core, struct actions *actions) {
    const Intent *intent = &core->topology.intent;
    if (intent->kind == INTENT_NONE)
        return false;
    if (core->coordinator.intent_number != intent->number) {
        core->coordinator.intent_number = intent->number;
        core->coordinator.intent_since = core->now;
    }
    if (!due(core, core->coordinator.intent_since + SWITCHOVER_DEADLINE))
        return false;
    Command *command = decide(core, actions, Command_end_intent_tag);
    if (command != NULL) {
        command->body.end_intent.number = intent->number;
        because(command, "the switchover was given up: %s did not stop within %llu s", member_name(core, intent->from),
                (unsigned long long)(SWITCHOVER_DEADLINE / NSEC_PER_SEC));
    }
    return true;
}

/* ---- 8. who thinks ---- */

/* The coordinator had better not die together with the primary: then a lost host costs a lease or an election, not
 * both at once. */
static void decide_yield(struct core *core, struct actions *actions) {
    const Topology *topology = &core->topology;
    if (!is_primary(core) || !topology->open || topology->sealed || core->stopping ||
        !due(core, core->coordinator.since + YIELD_AFTER) || !due(core, core->coordinator.yield_again_at))
        return;
    for (unsigned i = 0; i < topology->members_count; i++) {
        uint32_t id = topology->members[i].id;
        const Observation *seen = observation(core, id);
        bool steady = topology->members[i].witness || (seen->server == SERVER_STANDBY && seen->streaming);
        if (id == core->self || topology->members[i].observer || !heard_within(core, id, HEARD_AGE) || !seen->synced ||
            !steady)
            continue;
        core->coordinator.yield_again_at = core->now + YIELD_AGAIN;
        act(actions, ACTION_YIELD)->yield.to = id;
        return;
    }
}

/* ---- all together ---- */

static void count_unopened(struct core *core) {
    if (core->topology.open)
        core->coordinator.unopened = 0;
    else if (core->topology.sealed && core->coordinator.counted_seal != core->topology.seal_index) {
        core->coordinator.counted_seal = core->topology.seal_index;
        bool opened = core->topology.rules_count == 1;
        core->coordinator.unopened = opened ? 0 : core->coordinator.unopened + 1;
    }
}

void decide_step(struct core *core, struct actions *actions) {
    if (!core->leader || !core->synced)
        return;
    core->coordinator.why[0] = '\0';
    trace_step(core);
    count_unopened(core);
    if (decide_first_primary(core, actions) || decide_seal(core, actions) || decide_assign(core, actions) ||
        decide_open(core, actions) || decide_rule_done(core, actions) || decide_rule_begin(core, actions))
        return;
    if (!decide_end_intent(core, actions))
        decide_yield(core, actions);
}

/* ---- an operator's request, on any member ---- */

static void answer(struct actions *actions, uint64_t serial, int http_status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void answer(struct actions *actions, uint64_t serial, int http_status, const char *format, ...) {
    struct action *action = act(actions, ACTION_ANSWER);
    action->answer.serial = serial;
    action->answer.number = 0;
    action->answer.http_status = http_status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(action->answer.text, sizeof action->answer.text, format, arguments);
    va_end(arguments);
}

void decide_answer(struct core *core, struct actions *actions, const enum applied *applied, const char *why) {
    uint64_t serial = core->asked_serial;
    const Intent *intent = &core->topology.intent;
    core->asked_serial = 0;
    if (serial == 0)
        return;
    if (applied == NULL) {
        answer(actions, serial, 503, "the request could not be recorded: is there a quorum? see ttorch status");
    } else if (*applied != APPLIED) {
        answer(actions, serial, 409, "%s", why);
    } else {
        answer(actions, serial, 202, "switching from %s to %s", member_name(core, intent->from),
               member_name(core, intent->to));
        actions->list[actions->count - 1].answer.number = intent->number;
    }
}

/* The member that a switchover would go to: the named one, or the one that counts with the best priority. */
static const Member *switchover_target(const struct core *core, const char *to) {
    const Member *best = NULL;
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Member *member = &core->topology.members[i];
        if (to[0] != '\0' ? strcmp(member->name, to) == 0
                          : member->id != core->topology.primary.member && !member->observer && member->priority > 0 &&
                                counts(core, member) && (best == NULL || member->priority > best->priority))
            best = member;
    }
    return best;
}

static void request_switchover(struct core *core, struct actions *actions, const struct event *event) {
    const Topology *topology = &core->topology;
    const char *to = event->request.to;
    uint64_t serial = event->request.serial;
    if (core->self == 0 || !core->synced || !topology->open || topology->sealed) {
        answer(actions, serial, 409, "there is no open primary to switch from at the moment");
        return;
    }
    if (topology->intent.kind != INTENT_NONE) {
        answer(actions, serial, 409, "a switchover from %s is under way already",
               member_name(core, topology->intent.from));
        return;
    }
    const Member *target = switchover_target(core, to);
    if (target == NULL && to[0] != '\0')
        answer(actions, serial, 404, "there is no member named \"%s\"", to);
    else if (target == NULL)
        answer(actions, serial, 409, "no standby streams from %s and may be primary",
               member_name(core, topology->primary.member));
    else if (target->id == topology->primary.member)
        answer(actions, serial, 409, "%s is the primary already", target->name);
    else if (target->observer || target->witness || target->priority == 0)
        answer(actions, serial, 409, "%s may not be primary (%s)", target->name,
               target->observer  ? "it is an observer: it has no vote, and no commit waits for it"
               : target->witness ? "it is a witness"
                                 : "priority 0");
    else if (!counts(core, target))
        answer(actions, serial, 409, "%s does not stream from %s", target->name,
               member_name(core, topology->primary.member));
    else if (!caught_up(core, target))
        answer(actions, serial, 409, "%s is too far behind %s", target->name,
               member_name(core, topology->primary.member));
    else {
        Command *command = propose(core, actions, PROPOSER_MEMBER, Command_set_intent_tag);
        if (command == NULL) {
            answer(actions, serial, 503, "this member is busy with another proposal; try again");
            return;
        }
        core->asked_serial = serial;
        core->asked_to = target->id;
        command->body.set_intent.intent = (Intent){
            .kind = INTENT_SWITCHOVER, .from = topology->primary.member, .to = target->id, .epoch = topology->epoch};
        because(command, "an operator asked to switch from %s to %s", member_name(core, topology->primary.member),
                target->name);
    }
}

/* What a damaged file held is known well enough only to who has caught up. */
static void request_mend(struct core *core, struct actions *actions, uint64_t serial) {
    if (core->facts.damaged[0] == '\0') {
        answer(actions, serial, 409, "no file of this member is damaged: nothing was done");
    } else if (!core->synced) {
        answer(actions, serial, 409, "it does not know yet what has happened meanwhile: is there a quorum?");
    } else {
        struct action *action = act(actions, ACTION_MEND);
        /* Who writes in the standing epoch was promoted as the copy that was assigned. */
        bool writes = is_primary(core) && running_epoch(core) == core->topology.epoch;
        action->mend.epoch = newest_pledge(core);
        action->mend.copy = writes ? core->topology.primary.copy : 0;
        answer(actions, serial, 202, "replaced");
    }
}

void decide_request(struct core *core, struct actions *actions, const struct event *event) {
    if (event->request.kind == REQUEST_KIND_MEND)
        request_mend(core, actions, event->request.serial);
    else
        request_switchover(core, actions, event);
}
