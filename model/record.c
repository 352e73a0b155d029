/* The record's only mutation. Each command says on which epoch, seal or generation it was decided; where the record has
 * moved on, the command is void: a delayed or repeated proposal can never undo what came after it. */
#include <stdio.h>
#include <string.h>

#include "base/panic.h"
#include "model/model.h"
#include "model/planted.h"

static enum applied void_because(struct error *why, const char *fact) {
    (void)error_set(why, "%s", fact);
    return VOID_COMMAND;
}

static HistoryEntry *remember(History *history, uint64_t index, const Command *command, HistoryKind kind,
                              uint32_t epoch, uint32_t member) {
    if (history->entries_count == HISTORY_MAX) {
        memmove(&history->entries[0], &history->entries[1], sizeof(HistoryEntry) * (HISTORY_MAX - 1));
        history->entries_count--;
    }
    HistoryEntry *entry = &history->entries[history->entries_count++];
    memset(entry, 0, sizeof *entry);
    entry->index = index;
    entry->wall_ms = command->wall_ms;
    entry->kind = kind;
    entry->epoch = epoch;
    entry->member = member;
    snprintf(entry->reason, sizeof entry->reason, "%s", command->reason);
    return entry;
}

static Member *member_mutable(Topology *topology, uint32_t id) { return (Member *)topology_member(topology, id); }

/* ---- rules ---- */

static bool rules_ask_the_same(const Rule *a, const Rule *b) {
    if (a->needed != b->needed || a->standbys_count != b->standbys_count || !copy_equal(a->primary, b->primary))
        return false;
    for (unsigned i = 0; i < a->standbys_count; i++)
        if (!rule_names_copy(b, a->standbys[i]))
            return false;
    return true;
}

/* Whatever covers the newer of two rules that ask the same also covers the older, so the older need not be kept: this
 * bounds the list while one candidate is tried again and again. */
static void rules_append(Topology *topology, const Rule *rule) {
    for (unsigned i = 0; i < topology->rules_count; i++) {
        if (rules_ask_the_same(&topology->rules[i], rule)) {
            memmove(&topology->rules[i], &topology->rules[i + 1], sizeof(Rule) * (topology->rules_count - i - 1));
            topology->rules_count--;
            i--;
        }
    }
    require(topology->rules_count < RULES_MAX);
    topology->rules[topology->rules_count++] = *rule;
    topology->generation = rule->generation;
}

static void rules_keep_newest(Topology *topology) {
    require(topology->rules_count > 0);
    topology->rules[0] = topology->rules[topology->rules_count - 1];
    topology->rules_count = 1;
}

/* ---- what no sane proposer sends ---- */

static bool members_are_sound(const Found *found) {
    unsigned voters = 0, with_data = 0;
    for (unsigned i = 0; i < found->members_count; i++) {
        if (found->members[i].id != i + 1 || found->members[i].copy != 0 || found->members[i].start_count != 0)
            return false;
        voters += !found->members[i].observer;
        with_data += !found->members[i].witness;
    }
    return found->cluster_id != 0 && voters > 0 && voters <= VOTERS_MAX && with_data <= DATA_MEMBERS_MAX;
}

/* It names voters that there are, each once, and never its own primary. */
static bool rule_is_sound(const Topology *topology, const Rule *rule) {
    for (unsigned i = 0; i < rule->standbys_count; i++) {
        uint32_t member = rule->standbys[i].member;
        if (!topology_votes(topology, member) || member == rule->primary.member)
            return false;
        for (unsigned j = 0; j < i; j++)
            if (rule->standbys[j].member == member)
                return false;
    }
    return true;
}

/* ---- one function a command ---- */

static enum applied apply_found(Topology *topology, History *history, uint64_t index, const Command *command,
                                struct error *why) {
    const Found *found = &command->body.found;
    if (topology->cluster_id != 0)
        return void_because(why, "the cluster is founded already");
    if (!members_are_sound(found))
        return void_because(why,
                            "its members are not numbered from 1, or too few or too many of them vote or hold data");
    topology->cluster_id = found->cluster_id;
    memcpy(topology->cluster_name, found->cluster_name, sizeof topology->cluster_name);
    memcpy(topology->members, found->members, sizeof(Member) * found->members_count);
    topology->members_count = found->members_count;
    topology->settings = found->settings;
    topology->longest_lease_ms = found->settings.lease_ms;
    remember(history, index, command, HISTORY_FOUNDED, 0, 0);
    return APPLIED;
}

static enum applied apply_started(Topology *topology, const Command *command, struct error *why) {
    const Started *started = &command->body.started;
    Member *member = member_mutable(topology, started->member);
    if (member == NULL || member->raft_id != started->raft_id)
        return void_because(why, "no such member is recorded: its raft directory was lost or belongs to another one");
    if (started->start_count < member->start_count)
        return void_because(why, "its raft directory is older than the cluster knows: restored from a backup?");
    member->start_count = started->start_count;
    return APPLIED;
}

static enum applied apply_seal(Topology *topology, History *history, uint64_t index, const Command *command,
                               struct error *why) {
    if (topology->epoch == 0 || topology->sealed)
        return void_because(why, "there is no unsealed epoch");
    topology->sealed = true;
    topology->open = false;
    topology->seal_index = index;
    remember(history, index, command, HISTORY_SEALED, topology->epoch, topology->primary.member);
    return APPLIED;
}

static enum applied apply_assign(Topology *topology, History *history, uint64_t index, const Command *command,
                                 struct error *why) {
    const Assign *assign = &command->body.assign;
    const Member *primary = topology_member(topology, assign->primary.member);
    if (topology->epoch != 0 && (!topology->sealed || assign->seal_index != topology->seal_index))
        return void_because(why, "decided on answers to another seal");
    if (assign->epoch != topology->epoch + 1 || assign->rule.generation != topology->generation + 1)
        return void_because(why, "decided on an older epoch or rule");
    if (primary == NULL || primary->witness || primary->observer || assign->primary.copy == 0 ||
        assign->primary.copy > primary->copy)
        return void_because(why, "no such data directory was ever given a number");
    if (topology->epoch != 0 && assign->timeline != topology->timeline_offset + assign->epoch && !planted(UNIQTL))
        return void_because(why, "its timeline is not the epoch's");
    if (assign->timeline < assign->epoch || assign->rule.epoch != assign->epoch ||
        !copy_equal(assign->rule.primary, assign->primary) || !rule_is_sound(topology, &assign->rule))
        return void_because(why, "its rule is not one for this primary");
    if (topology->rules_count == RULES_MAX)
        return void_because(why, "too many epochs failed to open; their rules must be covered first");

    if (topology->epoch == 0) {
        topology->timeline_offset = assign->timeline - assign->epoch;
        topology->system_identifier = assign->system_identifier;
    }
    require(assign->epoch > topology->epoch);
    topology->epoch = assign->epoch;
    topology->primary = assign->primary;
    topology->sealed = false;
    topology->open = false;
    topology->assign_index = index;
    rules_append(topology, &assign->rule);
    if (topology->epochs_count == EPOCHS_MAX) {
        memmove(&topology->epochs[0], &topology->epochs[1], sizeof(Epoch) * (EPOCHS_MAX - 1));
        topology->epochs_count--;
    }
    topology->epochs[topology->epochs_count++] =
        (Epoch){.epoch = assign->epoch, .primary = assign->primary, .timeline = assign->timeline, .base = assign->base};

    HistoryEntry *entry = remember(history, index, command, HISTORY_ASSIGNED, assign->epoch, assign->primary.member);
    entry->position = assign->base;
    entry->lost_bytes = assign->lost_bytes;
    return APPLIED;
}

static enum applied apply_open(Topology *topology, History *history, uint64_t index, const Command *command,
                               struct error *why) {
    if (topology->epoch == 0 || topology->sealed || topology->open)
        return void_because(why, "there is no assigned epoch that waits to be opened");
    topology->open = true;
    rules_keep_newest(topology);
    remember(history, index, command, HISTORY_OPENED, topology->epoch, topology->primary.member);
    if (topology->intent.kind == INTENT_SWITCHOVER && topology->intent.epoch < topology->epoch)
        memset(&topology->intent, 0, sizeof topology->intent);
    return APPLIED;
}

static enum applied apply_rule_begin(Topology *topology, const Command *command, struct error *why) {
    const Rule *rule = &command->body.rule_begin.rule;
    if (topology->epoch == 0 || topology->sealed || !topology->open)
        return void_because(why, "the epoch is sealed or not open");
    if (rule->generation != topology->generation + 1 || rule->epoch != topology->epoch ||
        !copy_equal(rule->primary, topology->primary))
        return void_because(why, "decided on an older rule");
    if (topology->rules_count >= RULE_CHANGES_MAX)
        return void_because(why, "too many rule changes are under way");
    if (!rule_is_sound(topology, rule))
        return void_because(why, "its rule is not one for this primary");
    if (planted(JOINT))
        topology->rules_count = 0;
    rules_append(topology, rule);
    return APPLIED;
}

static enum applied apply_rule_done(Topology *topology, History *history, uint64_t index, const Command *command,
                                    struct error *why) {
    if ((topology->epoch == 0 || topology->sealed || !topology->open) && !planted(VOIDSEAL))
        return void_because(why, "the epoch is sealed or not open");
    if (!planted(VOIDSEAL) && command->body.rule_done.generation != topology->generation)
        return void_because(why, "a newer rule has begun");
    rules_keep_newest(topology);
    remember(history, index, command, HISTORY_RULE, topology->epoch, topology->primary.member);
    return APPLIED;
}

static enum applied apply_new_copy(Topology *topology, History *history, uint64_t index, const Command *command,
                                   struct error *why) {
    const NewCopy *body = &command->body.new_copy;
    Member *member = member_mutable(topology, body->member);
    if (member == NULL || member->witness || body->copy != member->copy + 1)
        return void_because(why, "another copy number has been given out");
    if (topology->epoch != 0 && !topology->sealed && topology->primary.member == body->member)
        return void_because(why, "it is the primary");
    member->copy = body->copy;
    remember(history, index, command, HISTORY_MEMBER, topology->epoch, body->member);
    return APPLIED;
}

static enum applied apply_set_intent(Topology *topology, History *history, uint64_t index, const Command *command,
                                     struct error *why) {
    const Intent *intent = &command->body.set_intent.intent;
    if (!topology->open || topology->sealed || intent->epoch != topology->epoch)
        return void_because(why, "the epoch is sealed or not open");
    if (topology->intent.kind != INTENT_NONE)
        return void_because(why, "another operator's request is under way");
    if (intent->to != 0 && !topology_votes(topology, intent->to))
        return void_because(why, "there is no such member, or it is an observer");
    topology->intent = *intent;
    topology->intent.number = index;
    remember(history, index, command, HISTORY_SWITCHOVER, topology->epoch, intent->to);
    return APPLIED;
}

static enum applied apply_end_intent(Topology *topology, History *history, uint64_t index, const Command *command,
                                     struct error *why) {
    if (topology->intent.kind == INTENT_NONE || topology->intent.number != command->body.end_intent.number)
        return void_because(why, "the request is not under way");
    memset(&topology->intent, 0, sizeof topology->intent);
    remember(history, index, command, HISTORY_SWITCHOVER, topology->epoch, 0);
    return APPLIED;
}

static enum applied apply_note(const Topology *topology, History *history, uint64_t index, const Command *command,
                               struct error *why) {
    if (topology_member(topology, command->body.note.member) == NULL)
        return void_because(why, "no such member is recorded");
    remember(history, index, command, HISTORY_NOTE, topology->epoch, command->body.note.member);
    return APPLIED;
}

static enum applied apply_readmit(Topology *topology, History *history, uint64_t index, const Command *command,
                                  struct error *why) {
    const Readmit *readmit = &command->body.readmit;
    Member *member = member_mutable(topology, readmit->member);
    if (member == NULL || member->raft_id != readmit->old_raft_id)
        return void_because(why, "it was decided on another raft id of that member");
    if (readmit->raft_id == 0 || readmit->raft_id == readmit->old_raft_id)
        return void_because(why, "it has no new raft id");
    member->raft_id = readmit->raft_id;
    member->start_count = 0;
    if (readmit->old_raft_id != 0) /* the first coming of a hundred observers would push all else out of the history */
        remember(history, index, command, HISTORY_MEMBER, topology->epoch, member->id);
    return APPLIED;
}

/* Commands about members are decided on the member's own counters, the rest on the epoch. */
static bool decided_on_epoch(const Command *command) {
    return command->which_body != Command_found_tag && command->which_body != Command_started_tag &&
           command->which_body != Command_new_copy_tag && command->which_body != Command_end_intent_tag &&
           command->which_body != Command_note_tag && command->which_body != Command_readmit_tag;
}

enum applied record_apply(Topology *topology, History *history, uint64_t index, const Command *command,
                          struct error *why) {
    require(index > topology->index);
    topology->index = index;
    if (command->which_body != Command_found_tag && topology->cluster_id == 0)
        return void_because(why, "the cluster is not founded yet");
    if (decided_on_epoch(command) && command->epoch != topology->epoch &&
        !(planted(VOIDSEAL) && command->which_body == Command_rule_done_tag))
        return void_because(why, "decided on another epoch");
    switch (command->which_body) {
    case Command_found_tag:
        return apply_found(topology, history, index, command, why);
    case Command_started_tag:
        return apply_started(topology, command, why);
    case Command_seal_tag:
        return apply_seal(topology, history, index, command, why);
    case Command_assign_tag:
        return apply_assign(topology, history, index, command, why);
    case Command_open_tag:
        return apply_open(topology, history, index, command, why);
    case Command_rule_begin_tag:
        return apply_rule_begin(topology, command, why);
    case Command_rule_done_tag:
        return apply_rule_done(topology, history, index, command, why);
    case Command_new_copy_tag:
        return apply_new_copy(topology, history, index, command, why);
    case Command_set_intent_tag:
        return apply_set_intent(topology, history, index, command, why);
    case Command_end_intent_tag:
        return apply_end_intent(topology, history, index, command, why);
    case Command_note_tag:
        return apply_note(topology, history, index, command, why);
    case Command_readmit_tag:
        return apply_readmit(topology, history, index, command, why);
    default:
        return void_because(why, "a command that this version does not know");
    }
}
