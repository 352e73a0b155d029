#include "orchestrator/core.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/panic.h"
#include "orchestrator/parts.h"

#define PROPOSE_AGAIN msec(20) /* after a proposal that did not commit */

void core_init(struct core *core, const struct core_config *config, nsec now) {
    memset(core->seen, 0, sizeof *core->seen * core->topology.members_count);
    memset(core, 0, offsetof(struct core, seen));
    core->config = *config;
    core->now = core->started_at = now;
    core->job.next_serial = 1;
}

/* ---- what the parts share ---- */

bool due(struct core *core, nsec at) {
    if (core->now >= at)
        return true;
    if (at < core->wake_at)
        core->wake_at = at;
    return false;
}

static bool is_busy(const struct core *core, const struct actions *actions) {
    for (unsigned i = 0; i < actions->count; i++)
        if (actions->list[i].kind == ACTION_SEND)
            return true;
    return core->looked && is_primary(core);
}

bool due_about(struct core *core, const struct actions *actions, nsec last, nsec every) {
    return due(core, last + every) || (core->now >= last + every / 4 * 3 && is_busy(core, actions));
}

struct action *act(struct actions *actions, enum action_kind kind) {
    require(actions->count < ACTIONS_MAX);
    struct action *action = &actions->list[actions->count++];
    action->kind = kind;
    return action;
}

void say(struct actions *actions, bool warning, const char *format, ...) {
    if (actions->count >= ACTIONS_MAX - 6) /* the sentences of a step may never crowd out its deeds */
        return;
    struct action *action = act(actions, ACTION_LOG);
    action->log.warning = warning;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(action->log.text, sizeof action->log.text, format, arguments);
    va_end(arguments);
}

/* The largest of the commands that are decided here: only a founder's, which has all members, is larger. */
#define COMMAND_USED (offsetof(Command, body) + sizeof(((Command *)0)->body.assign))
_Static_assert(sizeof(RuleBegin) <= sizeof(Assign) && sizeof(SetIntent) <= sizeof(Assign), "commands");

Command *propose(struct core *core, struct actions *actions, enum proposer proposer, pb_size_t body) {
    if (core->proposing[proposer] || !due(core, core->propose_again_at[proposer]))
        return NULL;
    core->proposing[proposer] = true;
    struct action *action = act(actions, ACTION_PROPOSE);
    action->propose.proposer = proposer;
    Command *command = &action->propose.command;
    memset(command, 0, COMMAND_USED);
    command->version = COMMAND_VERSION;
    command->epoch = core->topology.epoch;
    command->wall_ms = core->wall_ms;
    command->which_body = body;
    return command;
}

bool is_primary(const struct core *core) {
    return core->self != 0 && core->topology.epoch != 0 && core->topology.primary.member == core->self;
}

bool is_witness(const struct core *core) {
    const Member *member = topology_member(&core->topology, core->self);
    return member != NULL && member->witness;
}

bool is_observer(const struct core *core) { return core->self != 0 && !topology_votes(&core->topology, core->self); }

bool heard_within(const struct core *core, uint32_t member, nsec age) {
    require(member >= 1 && member <= MEMBERS_MAX);
    nsec at = core->heard_at[member - 1];
    return at != 0 && core->now <= at + age;
}

const Observation *observation(const struct core *core, uint32_t member) {
    require(member >= 1 && member <= MEMBERS_MAX);
    return &core->seen[member - 1];
}

const char *member_name(const struct core *core, uint32_t member) {
    const Member *found = topology_member(&core->topology, member);
    return found != NULL ? found->name : "?";
}

uint32_t running_epoch(const struct core *core) {
    uint32_t timeline = core->facts.position.timeline;
    if (!core->facts_known || core->facts.server != SERVER_PRIMARY || core->topology.epoch == 0 ||
        timeline <= core->topology.timeline_offset)
        return 0;
    if (planted(UNIQTL)) {
        const Epoch *epoch = topology_epoch_of_timeline(&core->topology, timeline);
        return epoch != NULL ? epoch->epoch : UINT32_MAX;
    }
    return timeline - core->topology.timeline_offset;
}

/* ---- absorbing events ---- */

static void know_ourselves(struct core *core) {
    const Member *self = topology_member_named(&core->topology, core->config.name);
    core->self = self != NULL && self->raft_id == core->config.raft_id ? self->id : 0;
    if (planted(BARRIER) && core->self != 0)
        core->synced = true;
}

/* Our own Started, applied: what we now know is at least all that was committed when we started. */
static void absorb_started(struct core *core, struct actions *actions, const Command *command, enum applied applied,
                           const struct error *why) {
    const Started *started = &command->body.started;
    if (started->raft_id != core->config.raft_id || started->start_count != core->config.start_count)
        return;
    if (applied == APPLIED) {
        if (!core->synced)
            say(actions, false, "caught up with the record at index %llu", (unsigned long long)core->topology.index);
        core->synced = true;
        return;
    }
    struct action *action = act(actions, ACTION_EXIT);
    action->exit.failed = true;
    snprintf(action->exit.why, sizeof action->exit.why, "the cluster refuses this member: %.120s", why->text);
}

static void absorb_applied(struct core *core, struct actions *actions, const struct event *event) {
    const Command *command = event->applied.command;
    struct error why = {""};
    uint32_t epoch_before = core->topology.epoch;
    bool sealed_before = core->topology.sealed;
    enum applied applied = record_apply(&core->topology, &core->history, event->applied.index, command, &why);
    if (command->which_body == Command_found_tag || core->self == 0)
        know_ourselves(core);
    if (command->which_body == Command_started_tag)
        absorb_started(core, actions, command, applied, &why);
    if (core->topology.epoch != epoch_before) {
        voter_reset(core, false);
        core->coordinator.assigned_at = core->now;
        core->must_rewind = core->must_clone = false;
        memset(core->coordinator.absent_since, 0, sizeof core->coordinator.absent_since);
    }
    if (command->which_body == Command_new_copy_tag && applied == APPLIED && core->synced && core->topology.epoch > 0 &&
        command->body.new_copy.member == core->self)
        core->granted_copy = command->body.new_copy.copy;
    if (command->which_body == Command_set_intent_tag && core->proposing[PROPOSER_MEMBER] &&
        command->body.set_intent.intent.to == core->asked_to)
        decide_answer(core, actions, &applied, why.text);
    if (command->which_body == Command_note_tag && strcmp(command->reason, core->note) == 0)
        core->note[0] = '\0';
    if (core->topology.sealed && !sealed_before)
        core->coordinator.sealed_at = core->now;
    if (applied == APPLIED && core->synced && command->reason[0] != '\0') /* before that it is old news */
        say(actions, false, "record %llu: %s", (unsigned long long)event->applied.index, command->reason);
}

static void absorb_restored(struct core *core, const Snapshot *snapshot) {
    core->topology = snapshot->topology;
    core->history = snapshot->history;
    know_ourselves(core);
    voter_reset(core, true);
    core->coordinator.assigned_at = core->coordinator.sealed_at = core->now;
}

static void absorb_role(struct core *core, const struct event *event) {
    bool was = core->leader;
    core->leader = event->role.leader;
    core->term = event->role.term;
    if (core->leader && !was) {
        memset(&core->coordinator, 0, sizeof core->coordinator);
        core->coordinator.since = core->coordinator.assigned_at = core->coordinator.sealed_at = core->now;
    }
}

static void absorb_observation(struct core *core, uint32_t from, const Observation *seen) {
    if (seen->member != from)
        return;
    core->seen[from - 1] = *seen;
    core->heard_at[from - 1] = core->now;
    voter_relinquished(core, from, seen->relinquished_epoch);
    if (seen->running_epoch > core->primary_wal.epoch) {
        core->primary_wal.epoch = seen->running_epoch;
        core->primary_wal.lsn = 0;
    }
    if (seen->running_epoch != 0 && seen->running_epoch == core->primary_wal.epoch &&
        seen->position.lsn > core->primary_wal.lsn)
        core->primary_wal.lsn = seen->position.lsn;
}

static void absorb_message(struct core *core, struct actions *actions, const struct event *event) {
    const Member *from = topology_member_named(&core->topology, event->message.from);
    if (from == NULL || from->id > MEMBERS_MAX)
        return;
    const Message *message = event->message.message;
    switch (message->which_body) {
    case Message_observation_tag:
        absorb_observation(core, from->id, &message->body.observation);
        break;
    case Message_renew_tag:
        voter_renewed(core, actions, from->id, &message->body.renew);
        break;
    case Message_endorse_tag:
        lease_endorsed(core, actions, from->id, &message->body.endorse);
        break;
    default:
        break; /* a newer version's message */
    }
}

static void absorb_proposed(struct core *core, struct actions *actions, const struct event *event) {
    core->proposing[event->proposed.proposer] = false;
    if (event->proposed.proposer == PROPOSER_MEMBER)
        decide_answer(core, actions, NULL, NULL); /* if it was not answered when it was applied */
    if (!event->proposed.committed)
        core->propose_again_at[event->proposed.proposer] = core->now + PROPOSE_AGAIN;
}

static void absorb(struct core *core, const struct event *event, struct actions *actions) {
    switch (event->kind) {
    case EVENT_TICK:
        break;
    case EVENT_APPLIED:
        absorb_applied(core, actions, event);
        break;
    case EVENT_RESTORED:
        absorb_restored(core, event->restored.snapshot);
        break;
    case EVENT_ROLE:
        absorb_role(core, event);
        break;
    case EVENT_MESSAGE:
        absorb_message(core, actions, event);
        break;
    case EVENT_FACTS:
        core->facts = *event->facts;
        core->facts_known = true;
        reconcile_facts(core);
        break;
    case EVENT_RESULT:
        reconcile_result(core, actions, event->result);
        break;
    case EVENT_PROPOSED:
        absorb_proposed(core, actions, event);
        break;
    case EVENT_REQUEST:
        decide_request(core, actions, event);
        break;
    case EVENT_STOP:
        if (!core->stopping)
            core->stopping_since = core->now;
        core->stopping = true;
        break;
    }
}

/* Until our own Started comes back applied we know nothing of the present and act on nothing (DESIGN 4). */
static void ask_to_be_synced(struct core *core, struct actions *actions) {
    if (core->synced || core->self == 0)
        return;
    Command *command = propose(core, actions, PROPOSER_MEMBER, Command_started_tag);
    if (command == NULL)
        return;
    command->body.started =
        (Started){.member = core->self, .raft_id = core->config.raft_id, .start_count = core->config.start_count};
}

void core_step(struct core *core, const struct event *event, struct actions *ret_actions) {
    require(event->now >= core->now);
    core->now = event->now;
    core->wall_ms = event->wall_ms;
    core->wake_at = NSEC_NEVER;
    core->looked = event->kind == EVENT_FACTS;
    ret_actions->count = 0;
    absorb(core, event, ret_actions);
    ask_to_be_synced(core, ret_actions);
    reconcile_step(core, ret_actions);
    if (core->self == 0)
        return;
    lease_step(core, ret_actions);
    observe_step(core, ret_actions);
    decide_step(core, ret_actions);
}

void core_progress(struct core *core, uint64_t serial, const char *text) {
    if (core->job.running && core->job.operation.serial == serial)
        snprintf(core->job.progress, sizeof core->job.progress, "%s", text);
}
