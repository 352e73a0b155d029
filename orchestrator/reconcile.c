/* What our PostgreSQL needs next: record + own facts -> one operation. The rules are tried in order, and the first that
 * holds decides. Nothing here remembers a plan: after each result, and after each change of record or facts, the
 * question is asked anew, so a restart of this daemon at any point goes on from what is really there.
 *
 *              INITDB/ADOPT                     CUT               PROMOTE (we are assigned, position = base)
 *     empty ----------------> down ---START--> standby ---> cut ------------------------------------> primary
 *       |                      ^ ^ |            ^ ^          | FOLLOW (a prefix of the epoch's history)   |
 *       +-------CLONE----------+ | +---REWIND---+ +----------+                                            |
 *                                |   (diverged; after STOP)                                               |
 *                                +----------------------------- KILL (fenced), STOP (switchover) <--------+
 */
#include <stdio.h>
#include <string.h>

#include "orchestrator/parts.h"

#define OWN_RESTART_WAIT    msec(1000)  /* a fallen primary leaves the machine to its successor's promotion first */
#define HUNG_STANDBY        msec(10000) /* a standby that does not answer, or lets nobody in, is restarted after this */
#define NOT_STREAMING       msec(300000) /* attached to an open primary, yet not streaming, for whatever reason */
#define LEASE_FOR_PROMOTION msec(200)    /* what must be left of the lease when promotion begins */
#define HANDOVER_DEADLINE   msec(15000)  /* SIGTERM: after this, stop without a successor */
#define FETCH_PATIENCE      msec(1000)   /* from the beginning of a fetch until it streams */
#define FETCH_AGAIN         msec(3000)   /* in between we are one who has answered the seal */
#define RETRY_FIRST         msec(100)
#define RETRY_MAX           msec(5000)

/* How long the hands may take for each operation, in ms. */
static const uint32_t operation_deadline_ms[] = {
    [OPERATE_INITDB] = 120000,  [OPERATE_ADOPT] = 10000,   [OPERATE_CLONE] = 24u * 3600 * 1000,
    [OPERATE_REWIND] = 3600000, [OPERATE_START] = 3600000, [OPERATE_STOP] = 10000,
    [OPERATE_KILL] = 10000,     [OPERATE_CUT] = 60000,     [OPERATE_FOLLOW] = 5000,
    [OPERATE_PROMOTE] = 8000,   [OPERATE_RULE] = 5000,     [OPERATE_CHECKPOINT] = 60000,
    [OPERATE_PAUSE] = 60000,    [OPERATE_FETCH] = 5000,
};

struct wish {
    enum operation_kind kind;
    const char *why;
};

static struct wish nothing(void) { return (struct wish){.kind = OPERATE_NONE}; }
static struct wish wish(enum operation_kind kind, const char *why) { return (struct wish){kind, why}; }

/* A pledge is of a sealed epoch, and who has caught up knows every seal that it ever answered. */
uint32_t newest_pledge(const struct core *core) {
    const Topology *topology = &core->topology;
    return topology->sealed || topology->epoch == 0 ? topology->epoch : topology->epoch - 1;
}

static const Member *self_member(const struct core *core) { return topology_member(&core->topology, core->self); }

/* ---- we as the primary of the standing epoch ---- */

static void relinquish(struct core *core, struct actions *actions, const char *why) {
    if (core->relinquished_epoch == core->topology.epoch)
        return;
    core->relinquished_epoch = core->topology.epoch;
    snprintf(core->job.trouble, sizeof core->job.trouble, "%.190s", why);
    say(actions, true, "gives up epoch %u: %s", core->topology.epoch, why);
}

static uint32_t epoch_timeline(const struct core *core) {
    if (planted(UNIQTL))
        return topology_epoch(&core->topology, core->topology.epoch)->timeline;
    return core->topology.timeline_offset + core->topology.epoch;
}

static bool at_base(const struct core *core) {
    const Epoch *epoch = topology_epoch(&core->topology, core->topology.epoch);
    if (planted(BASECHK))
        return true;
    return epoch != NULL && core->facts.copy == epoch->primary.copy &&
           position_compare(core->cut.position, epoch->base) == 0;
}

/* A PostgreSQL is primary at most once per epoch: whatever ended or cannot begin is never taken up again in it. */
static void judge_primacy(struct core *core, struct actions *actions) {
    const struct facts *facts = &core->facts;
    if (!is_primary(core) || core->relinquished_epoch == core->topology.epoch)
        return;
    if (facts->server == SERVER_DOWN && facts->standby_signal)
        relinquish(core, actions,
                   core->topology.intent.from == core->self ? "PostgreSQL was stopped for the switchover"
                                                            : "PostgreSQL is down");
    else if (facts->server == SERVER_DOWN && facts->data != DATA_COMPLETE && facts->data != DATA_UNKNOWN)
        relinquish(core, actions, "its data directory is gone");
    else if (facts->server == SERVER_STANDBY && facts->unfenced[0] != '\0')
        relinquish(core, actions, facts->unfenced);
    else if (facts->server == SERVER_STANDBY && facts->damaged[0] != '\0')
        relinquish(core, actions, facts->damaged);
    else if (facts->server == SERVER_STANDBY && facts->position.timeline == epoch_timeline(core))
        relinquish(core, actions, "PostgreSQL was restarted and came up as a standby");
    else if (facts->server == SERVER_STANDBY && core->cut.valid && !core->job.running && !at_base(core))
        relinquish(core, actions, "its position is not the one that it was chosen for");
}

static void judge_durability(struct core *core) {
    const Topology *topology = &core->topology;
    const struct facts *facts = &core->facts;
    const Rule *rule = rule_newest(topology);
    if (rule == NULL || running_epoch(core) != topology->epoch || rule->epoch != topology->epoch)
        return;
    if (facts->durable_seen && core->first_durable_epoch != topology->epoch) {
        core->first_durable_epoch = topology->epoch;
        core->first_durable_lsn = facts->durable_lsn;
    }
    if (core->forced_generation != rule->generation)
        return;
    if (core->first_durable_epoch == topology->epoch &&
        (rule_flushed(topology, rule, facts->senders, facts->senders_count, core->first_durable_lsn) >= rule->needed ||
         planted(ACKNEW)))
        core->durable_epoch = topology->epoch;
    if (rule_flushed(topology, rule, facts->senders, facts->senders_count, core->forced_lsn) >= rule->needed ||
        planted(ACKNEW))
        core->acknowledged_generation = rule->generation;
}

/* `strict` never goes below one acknowledgement: its writes wait until standbys stream, and its PostgreSQL is well. */
static bool lacks_standbys(const struct core *core) {
    const struct facts *facts = &core->facts;
    const Rule *rule = rule_newest(&core->topology);
    return core->topology.settings.durability == DURABILITY_STRICT && rule != NULL &&
           rule_streaming(&core->topology, rule, facts->senders, facts->senders_count) < rule->needed;
}

void reconcile_facts(struct core *core) {
    const struct facts *facts = &core->facts;
    if (facts->copy == core->granted_copy)
        core->granted_copy = 0; /* it is made, whether or not that operation said so: no other may get its number */
    if (facts->server == SERVER_PRIMARY && lacks_standbys(core))
        core->standbys_lacked_at = core->now;
    if (facts->server == SERVER_DOWN) {
        if (core->down_since == 0)
            core->down_since = core->now;
    } else {
        core->down_since = 0;
    }
    if (facts->server != SERVER_HUNG)
        core->hung_since = 0;
    else if (core->hung_since == 0)
        core->hung_since = core->now;
    if (facts->server != SERVER_STANDBY || facts->receiver || facts->upstream_name[0] != '\0')
        core->cut.valid = false;
    if (facts->server != SERVER_STANDBY)
        core->attached_epoch = 0;
    if (facts->streaming)
        core->streaming_lost_at = 0;
    else if (core->streaming_lost_at == 0)
        core->streaming_lost_at = core->now;
    /* A restarted daemon finds its standby attached. */
    char name[NAME_MAX_LENGTH + 1];
    uint32_t copy, epoch;
    if (facts->server == SERVER_STANDBY && application_name_parse(facts->upstream_name, name, &copy, &epoch) &&
        copy == facts->copy)
        core->attached_epoch = epoch;
}

/* ---- wishes ---- */

static bool waits_for(struct core *core, nsec since, nsec patience) {
    return since != 0 && due(core, since + patience);
}

/* Why a primary that runs does not serve; NULL if it does. */
static const char *primary_trouble(struct core *core) {
    const struct facts *facts = &core->facts;
    nsec timeout = msec(core->config.probe_timeout_ms);
    if (waits_for(core, facts->durable_pending, timeout) && due(core, core->standbys_lacked_at + timeout))
        return "a durable write has not returned within the probe's timeout";
    if (waits_for(core, facts->answer_pending, timeout) || waits_for(core, core->hung_since, timeout))
        return "it has not answered within the probe's timeout";
    if (waits_for(core, facts->admission_pending, timeout))
        return "it has let no new session in within the probe's timeout";
    return NULL;
}

static bool wants_handover(const struct core *core) {
    const Intent *intent = &core->topology.intent;
    return intent->kind == INTENT_SWITCHOVER && intent->from == core->self && intent->epoch == core->topology.epoch;
}

static struct wish wish_of_serving_primary(struct core *core) {
    const Topology *topology = &core->topology;
    const char *trouble = primary_trouble(core);
    if (trouble != NULL)
        return wish(OPERATE_KILL, trouble);
    if (wants_handover(core)) {
        if (core->job.failed_kind == OPERATE_STOP && core->job.failures > 0)
            return wish(OPERATE_KILL, "it did not stop in time for the switchover");
        if (core->checkpointed_intent != topology->intent.number)
            return wish(OPERATE_CHECKPOINT, "before the planned stop");
        if (core->config.poolers && core->paused_intent != topology->intent.number)
            return wish(OPERATE_PAUSE, "clients of the poolers wait until the next primary is open");
        return wish(OPERATE_STOP, "switchover");
    }
    if (core->stopping && due(core, core->stopping_since + HANDOVER_DEADLINE))
        return wish(OPERATE_STOP, "the daemon ends and nobody could take over");
    const Rule *rule = rule_newest(topology);
    if (core->forced_generation != rule->generation && (topology->rules_count > 1 || !topology->open))
        return wish(OPERATE_RULE, "the rule has changed");
    return nothing();
}

static struct wish wish_as_primary_server(struct core *core) {
    if (is_primary(core) && !core->topology.sealed && running_epoch(core) == core->topology.epoch &&
        core->failed_promotion_epoch != core->topology.epoch)
        return wish_of_serving_primary(core);
    return wish(OPERATE_KILL, "it writes in an epoch that has ended");
}

static bool lease_is_armed(struct core *core) {
    const struct facts *facts = &core->facts;
    return facts->guard_epoch == core->topology.epoch && facts->guard_deadline != NSEC_NEVER &&
           facts->guard_deadline > core->now + LEASE_FOR_PROMOTION;
}

static struct wish wish_as_assigned(struct core *core) {
    if (core->failed_promotion_epoch == core->topology.epoch)
        return wish(OPERATE_KILL, "its promotion failed");
    if (core->relinquished_epoch == core->topology.epoch || core->facts.pledged_epoch >= core->topology.epoch)
        return nothing();
    if (!core->cut.valid)
        return wish(OPERATE_CUT, "before promotion");
    if (at_base(core) && lease_is_armed(core))
        return wish(OPERATE_PROMOTE, "assigned");
    return nothing();
}

/* True once the member that everyone should follow writes in the standing epoch. */
static bool primary_writes(const struct core *core) {
    const Observation *primary = observation(core, core->topology.primary.member);
    nsec age = is_observer(core) ? HEARD_AGE_SELDOM : HEARD_AGE;
    return heard_within(core, core->topology.primary.member, age) && primary->running_epoch == core->topology.epoch;
}

static bool opening_needs_us(const struct core *core) {
    const Rule *rule = rule_newest(&core->topology);
    return rule_names_copy(rule, (Copy){.member = core->self, .copy = core->facts.copy});
}

/* `strict` opens no epoch without a standby, and one without data becomes a standby only by a clone. It has nothing
 * that this could destroy. Nor is more lost by it than by the rewind that opening needs, and that did not help. */
static bool opening_needs_a_clone(const struct core *core) {
    const Topology *topology = &core->topology;
    bool has_nothing = core->facts.data == DATA_EMPTY || core->facts.data == DATA_BROKEN;
    return topology->settings.durability == DURABILITY_STRICT && !topology->sealed && !is_observer(core) &&
           (has_nothing || (core->must_clone && opening_needs_us(core))) && primary_writes(core);
}

static struct wish wish_attached(struct core *core) {
    if (core->facts.streaming || !core->topology.open || !primary_writes(core) || core->streaming_lost_at == 0)
        return nothing();
    if (!due(core, core->streaming_lost_at + NOT_STREAMING) || !due(core, core->followed_at + NOT_STREAMING))
        return nothing();
    core->must_clone = true;
    return nothing();
}

/* The primary no longer has the WAL that comes after ours. */
static bool wal_is_gone(const struct core *core) {
    const Observation *primary = observation(core, core->topology.primary.member);
    return primary_writes(core) && !core->facts.streaming && core->facts.position.lsn != 0 &&
           core->facts.position.lsn < primary->oldest_lsn;
}

static struct wish wish_as_follower(struct core *core) {
    const Topology *topology = &core->topology;
    if (wal_is_gone(core) && (topology->open || (core->cut.valid && opening_needs_us(core))))
        core->must_clone = true;
    if (core->must_clone && (topology->open || opening_needs_a_clone(core)))
        return wish(OPERATE_STOP, "it must be cloned anew");
    if (core->attached_epoch == topology->epoch)
        return wish_attached(core);
    if (!core->cut.valid)
        return wish(OPERATE_CUT, "before following a new primary");
    if (!primary_writes(core) || core->facts.pledged_epoch >= topology->epoch)
        return nothing();
    if (lineage_contains(topology, topology->epoch, core->cut.position) || planted(FOLLOWCHK))
        return wish(OPERATE_FOLLOW, "its WAL is part of the primary's history");
    if (!topology->open && !opening_needs_us(core) && !planted(NOBROKEN))
        return nothing(); /* our rewind might destroy the last copy of something acknowledged */
    core->must_rewind = true;
    uint32_t timeline = core->cut.position.timeline;
    core->left_lineage_at = (Position){timeline, lineage_end(topology, topology->epoch, timeline)};
    return wish(OPERATE_STOP, "its WAL left the primary's history: it must be rewound");
}

/* What we have not got yet still comes. */
static bool still_fetches(struct core *core, uint32_t source) {
    char name[NAME_MAX_LENGTH + 1];
    uint32_t copy, epoch;
    return application_name_parse(core->facts.upstream_name, name, &copy, &epoch) && epoch == 0 &&
           position_compare(core->facts.position, observation(core, source)->position) < 0 &&
           (core->facts.streaming || !due(core, core->fetched_at + FETCH_PATIENCE));
}

/* What we stream from one that is cut as well is final, too, once we are cut again: until then we have not answered. It
 * is no primary, so that nothing is acknowledged by this, and the pledge stands. */
static struct wish wish_when_sealed(struct core *core) {
    const Topology *topology = &core->topology;
    uint32_t source = self_member(core)->priority > 0 && !is_observer(core) ? candidate_source(core) : 0;
    if (!core->cut.valid || core->cut.pledged < topology->epoch)
        return source != 0 && still_fetches(core, source) ? nothing() : wish(OPERATE_CUT, "the epoch was sealed");
    if (source != 0 && position_is_prefix(topology, core->cut.position, observation(core, source)->position) &&
        core->cut.position.lsn >= observation(core, source)->oldest_lsn && due(core, core->fetched_at + FETCH_AGAIN))
        return wish(OPERATE_FETCH, "one that may not be primary has more WAL");
    return nothing();
}

static struct wish wish_as_standby_server(struct core *core) {
    const Topology *topology = &core->topology;
    if (core->stopping)
        return wish(OPERATE_STOP, "the daemon ends");
    if (waits_for(core, core->facts.admission_pending, HUNG_STANDBY))
        return wish(OPERATE_KILL, "it lets no new session in");
    if (topology->epoch == 0)
        return core->cut.valid ? nothing() : wish(OPERATE_CUT, "before the first primary is assigned");
    if (core->facts.copy == 0)
        return wish(OPERATE_STOP, "its data directory has no number yet");
    if (topology->sealed)
        return wish_when_sealed(core);
    return is_primary(core) ? wish_as_assigned(core) : wish_as_follower(core);
}

bool data_is_foreign(const struct core *core) {
    uint64_t found = core->facts.system_identifier, wanted = core->topology.system_identifier;
    return found != 0 && wanted != 0 && found != wanted;
}

static struct wish wish_of_founder(struct core *core) {
    if (self_member(core)->copy == 0)
        return nothing(); /* somebody else makes the first instance */
    if (core->facts.data == DATA_EMPTY)
        return wish(OPERATE_INITDB, "the first data directory");
    if (core->facts.data == DATA_COMPLETE)
        return core->facts.copy == 0 ? wish(OPERATE_ADOPT, "the first data directory") : wish(OPERATE_START, "");
    return nothing();
}

static struct wish wish_for_clone(struct core *core) {
    bool may = !is_primary(core) && (core->topology.open || opening_needs_a_clone(core));
    return may ? wish(OPERATE_CLONE, "") : nothing();
}

static struct wish wish_down(struct core *core) {
    const Topology *topology = &core->topology;
    if (core->stopping)
        return nothing();
    if (topology->epoch == 0)
        return wish_of_founder(core);
    /* Once there is no primary to be like, what is whole is asked what it has: it may have to cover a rule. */
    bool replace = !topology->sealed;
    if (core->facts.data == DATA_EMPTY || core->facts.data == DATA_BROKEN || (core->must_clone && replace))
        return wish_for_clone(core);
    if (core->facts.data != DATA_COMPLETE || data_is_foreign(core))
        return nothing();
    if (core->facts.copy == 0)
        return wish(OPERATE_ADOPT, "it holds this cluster's data");
    if (core->must_rewind && replace)
        return topology->open || opening_needs_us(core) || planted(NOBROKEN) ? wish(OPERATE_REWIND, "") : nothing();
    const Rule *rule = rule_newest(topology);
    bool only_copy = rule != NULL && rule->needed == 0; /* what it acknowledged may be nowhere else */
    bool just_fell = !only_copy && core->relinquished_epoch != 0 && core->relinquished_epoch + 1 >= topology->epoch;
    if (just_fell && !(topology->open && topology->epoch > core->relinquished_epoch) &&
        !due(core, core->down_since + OWN_RESTART_WAIT))
        return nothing();
    return wish(OPERATE_START, "");
}

static struct wish wish_hung(struct core *core) {
    if (is_primary(core) && primary_trouble(core) != NULL)
        return wish(OPERATE_KILL, "PostgreSQL does not answer");
    return due(core, core->hung_since + HUNG_STANDBY) ? wish(OPERATE_KILL, "PostgreSQL does not answer") : nothing();
}

/* Without the record's present we may still give power up. */
static struct wish wish_when_unsynced(const struct core *core) {
    bool up = core->facts.server == SERVER_PRIMARY || core->facts.server == SERVER_STANDBY;
    return core->stopping && up ? wish(OPERATE_STOP, "the daemon ends") : nothing();
}

static struct wish wish_now(struct core *core) {
    if (!core->facts.guard)
        return nothing();
    if (!core->synced)
        return wish_when_unsynced(core);
    switch (core->facts.server) {
    case SERVER_PRIMARY:
        return wish_as_primary_server(core);
    case SERVER_STANDBY:
        return wish_as_standby_server(core);
    case SERVER_DOWN:
        return wish_down(core);
    case SERVER_HUNG:
        return wish_hung(core);
    default:
        return nothing();
    }
}

/* ---- the operation under way ---- */

/* A promotion whose epoch has ended must not come true later; everything else may run to its end. */
static bool must_break_off(struct core *core) {
    const struct operation *operation = &core->job.operation;
    if (operation->kind == OPERATE_KILL)
        return false;
    if (operation->kind == OPERATE_PROMOTE && (core->topology.sealed || core->topology.epoch != operation->epoch))
        return true;
    return core->facts.server == SERVER_PRIMARY && wish_as_primary_server(core).kind == OPERATE_KILL;
}

static void fill_upstream(const struct core *core, struct operation *operation) {
    bool fetch = operation->kind == OPERATE_FETCH;
    struct upstream *upstream = &operation->upstream;
    application_name(operation->application_name, core->config.name, core->facts.copy,
                     fetch ? 0 : core->topology.epoch);
    uint32_t id = fetch ? candidate_source(core) : core->topology.primary.member;
    const Member *member = topology_member(&core->topology, id);
    if (member == NULL)
        return;
    snprintf(upstream->name, sizeof upstream->name, "%s", member->name);
    snprintf(upstream->host, sizeof upstream->host, "%s", member->postgres_host);
    upstream->port = member->postgres_port;
}

static void fill_operation(const struct core *core, struct operation *operation) {
    const Topology *topology = &core->topology;
    const Member *self = self_member(core); /* NULL: told to stop before the record is known */
    operation->epoch = topology->epoch;
    operation->copy = self != NULL ? self->copy : 0;
    operation->deadline_ms = operation_deadline_ms[operation->kind];
    fill_upstream(core, operation);
    if (operation->kind == OPERATE_CUT)
        operation->epoch = newest_pledge(core); /* nothing about the epoch that stands */
    if (operation->kind == OPERATE_PROMOTE || operation->kind == OPERATE_RULE)
        rule_setting(topology, rule_newest(topology), &operation->rule);
    if (operation->kind == OPERATE_REWIND || (operation->kind == OPERATE_CLONE && core->must_rewind))
        operation->base = core->left_lineage_at;
    if (operation->kind == OPERATE_PROMOTE) {
        operation->base = topology_epoch(topology, topology->epoch)->base;
        operation->timeline = epoch_timeline(core);
    }
}

static void begin(struct core *core, struct actions *actions, struct wish wish) {
    struct job *job = &core->job;
    memset(&job->operation, 0, sizeof job->operation);
    job->operation.kind = wish.kind;
    job->operation.serial = job->next_serial++;
    fill_operation(core, &job->operation);
    job->running = true;
    job->began_at = core->now;
    job->progress[0] = '\0';
    if (wish.kind == OPERATE_START || wish.kind == OPERATE_FETCH)
        core->cut.valid = false;
    if (wish.kind == OPERATE_FETCH)
        core->fetched_at = core->now;
    act(actions, ACTION_OPERATE)->operation = job->operation;
    say(actions, false, "%s%s%s", operation_kind_name(wish.kind), wish.why[0] != '\0' ? ": " : "", wish.why);
}

/* A new data directory gets a new number before it is made, so that the old one's answers can never be taken for it. */
static bool copy_number_granted(struct core *core, struct actions *actions, enum operation_kind kind) {
    if (kind != OPERATE_CLONE && !(kind == OPERATE_ADOPT && core->topology.epoch > 0))
        return true;
    const Member *self = self_member(core);
    if (core->granted_copy != 0 && core->granted_copy == self->copy)
        return true;
    if (is_primary(core) && !core->topology.sealed)
        return false; /* not before its epoch has ended */
    Command *command = propose(core, actions, PROPOSER_MEMBER, Command_new_copy_tag);
    if (command != NULL) {
        command->body.new_copy = (NewCopy){.member = core->self, .copy = self->copy + 1};
        snprintf(command->reason, sizeof command->reason, "%s makes a new data directory, its copy %u", self->name,
                 self->copy + 1);
    }
    return false;
}

static void propose_handover(struct core *core, struct actions *actions) {
    const Topology *topology = &core->topology;
    if (!core->stopping || !is_primary(core) || !topology->open || topology->intent.kind != INTENT_NONE)
        return;
    Command *command = propose(core, actions, PROPOSER_MEMBER, Command_set_intent_tag);
    if (command == NULL)
        return;
    command->body.set_intent.intent = (Intent){.kind = INTENT_SWITCHOVER, .from = core->self, .epoch = topology->epoch};
    snprintf(command->reason, sizeof command->reason, "%s hands over: its daemon was told to stop", core->config.name);
}

static void propose_note(struct core *core, struct actions *actions) {
    if (core->note[0] == '\0')
        return;
    Command *command = propose(core, actions, PROPOSER_MEMBER, Command_note_tag);
    if (command == NULL)
        return;
    command->body.note.member = core->self;
    memcpy(command->reason, core->note, sizeof command->reason);
}

/* They tell of a time before the last operation ended, or of that very moment: nothing of what it did. */
static bool facts_are_old(const struct core *core) {
    return core->job.ended_at != 0 && core->facts.seen_at <= core->job.ended_at;
}

/* A standby that is not going to be promoted has nothing to be killed for. One that was seen before its promotion
 * ended may be a primary. */
static void lift_deadline(struct core *core, struct actions *actions) {
    bool may_promote = is_primary(core) && !core->topology.sealed && core->relinquished_epoch != core->topology.epoch;
    bool unseen = core->job.running || facts_are_old(core);
    if (core->facts.server != SERVER_STANDBY || core->facts.guard_deadline == NSEC_NEVER || unseen || may_promote)
        return;
    struct action *action = act(actions, ACTION_ARM);
    action->arm.epoch = core->facts.guard_epoch;
    action->arm.deadline = NSEC_NEVER;
    core->facts.guard_deadline = NSEC_NEVER;
}

/* Told to end: once our PostgreSQL is down and the others know, there is nothing left to do here. */
static void leave_when_done(struct core *core, struct actions *actions) {
    if (!core->stopping || core->left || core->job.running)
        return;
    bool down = is_witness(core) || !core->facts_known || core->facts.server == SERVER_DOWN;
    bool known = !core->synced || !is_primary(core) || core->topology.sealed ||
                 due(core, core->stopping_since + HANDOVER_DEADLINE + msec(2000));
    if (!down || !known)
        return;
    core->left = true;
    struct action *action = act(actions, ACTION_EXIT);
    action->exit.failed = false;
    snprintf(action->exit.why, sizeof action->exit.why, "handed over and stopped");
}

void reconcile_step(struct core *core, struct actions *actions) {
    leave_when_done(core, actions);
    if (!core->facts_known || is_witness(core) || core->left)
        return;
    if (core->synced) {
        judge_primacy(core, actions);
        judge_durability(core);
        lift_deadline(core, actions);
        propose_handover(core, actions);
        propose_note(core, actions);
    }
    if (core->job.running) {
        if (must_break_off(core))
            begin(core, actions, wish(OPERATE_KILL, "its epoch has ended"));
        return;
    }
    if (facts_are_old(core))
        return;
    struct wish next = wish_now(core);
    if (next.kind == OPERATE_NONE)
        return;
    if (next.kind == core->job.failed_kind && !due(core, core->job.retry_at))
        return;
    if (copy_number_granted(core, actions, next.kind))
        begin(core, actions, next);
}

/* ---- results ---- */

/* What a rewind or clone did away with is worth a line in the history. */
static void note_diverged(struct core *core, const struct operation_result *result) {
    const struct diverged_wal *diverged = &result->diverged;
    char size[SIZE_TEXT_MAX], text[2 * sizeof core->note];
    if (diverged->bytes == 0)
        return;
    snprintf(text, sizeof text, "%s was %s: %u commit%s (%s of WAL) that no primary has, kept in %s", core->config.name,
             result->kind == OPERATE_REWIND ? "rewound" : "cloned", diverged->commits,
             diverged->commits == 1 ? "" : "s", size_text(diverged->bytes, size), diverged->path);
    snprintf(core->note, sizeof core->note, "%.*s", REASON_MAX_LENGTH, text);
}

static void succeeded(struct core *core, const struct operation_result *result) {
    const struct operation *operation = &core->job.operation;
    switch (operation->kind) {
    case OPERATE_CUT:
        core->cut = (struct cut){
            .valid = true, .pledged = operation->epoch, .position = result->position, .oldest_lsn = result->lsn};
        core->attached_epoch = 0;
        break;
    case OPERATE_FOLLOW:
        core->cut.valid = false;
        core->attached_epoch = operation->epoch;
        core->followed_at = core->now;
        break;
    case OPERATE_PROMOTE:
    case OPERATE_RULE:
        core->cut.valid = false;
        core->forced_generation = operation->rule.generation;
        core->forced_lsn = result->lsn;
        break;
    case OPERATE_REWIND:
        core->must_rewind = false;
        break;
    case OPERATE_CLONE:
    case OPERATE_ADOPT:
        core->granted_copy = 0;
        core->must_rewind = core->must_clone = false;
        break;
    case OPERATE_CHECKPOINT:
        core->checkpointed_intent = core->topology.intent.number;
        break;
    case OPERATE_PAUSE:
        core->paused_intent = core->topology.intent.number;
        break;
    default:
        break;
    }
}

static void failed(struct core *core, struct actions *actions, const struct operation_result *result) {
    struct job *job = &core->job;
    const char *name = operation_kind_name(job->operation.kind);
    job->failures = job->failed_kind == job->operation.kind ? job->failures + 1 : 1;
    job->failed_kind = job->operation.kind;
    nsec pause = RETRY_FIRST << (job->failures < 8 ? job->failures - 1 : 7);
    job->retry_at = core->now + (pause < RETRY_MAX ? pause : RETRY_MAX);
    snprintf(job->trouble, sizeof job->trouble, "%s: %.160s", name, result->error.text);
    say(actions, true, "%s failed: %s", name, result->error.text);
    switch (job->operation.kind) {
    case OPERATE_PROMOTE:
        if (result->outcome == OUTCOME_REFUSED && core->topology.epoch == job->operation.epoch)
            relinquish(core, actions, result->error.text);
        else
            core->failed_promotion_epoch = job->operation.epoch;
        break;
    case OPERATE_REWIND:
        if (result->outcome == OUTCOME_REFUSED || job->failures >= 2)
            core->must_clone = true;
        break;
    case OPERATE_CHECKPOINT:
        core->checkpointed_intent = core->topology.intent.number;
        break;
    case OPERATE_PAUSE:
        core->paused_intent = core->topology.intent.number;
        break;
    default:
        break;
    }
}

void reconcile_result(struct core *core, struct actions *actions, const struct operation_result *result) {
    struct job *job = &core->job;
    if (!job->running || result->serial != job->operation.serial)
        return; /* of an operation that was broken off */
    job->running = false;
    job->ended_at = core->now;
    job->progress[0] = '\0';
    if (result->outcome != OUTCOME_DONE) {
        failed(core, actions, result);
        return;
    }
    succeeded(core, result);
    note_diverged(core, result);
    say(actions, false, "%s done in %llu ms", operation_kind_name(job->operation.kind),
        (unsigned long long)msec_between(job->began_at, core->now));
    if (job->failed_kind == job->operation.kind || job->operation.kind == OPERATE_FOLLOW) {
        job->failed_kind = OPERATE_NONE;
        job->failures = 0;
        job->trouble[0] = '\0';
    }
}
