/* What this member tells the others about itself: at once when something changed that somebody acts on, else several
 * times a second. An observation is the whole state, so that a lost one is made good by the next. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/parts.h"

#define FACTS_AGE msec(1500) /* the hands call a server hung that has not answered for a second */

static void observe_voter(struct core *core, Observation *own) {
    const Topology *topology = &core->topology;
    bool expired = core->synced && !is_observer(core) && voter_expired(core);
    own->expired_epoch = expired ? topology->epoch : 0;
    own->released_seal = expired && topology->sealed ? topology->seal_index : 0;
}

#define RESPONSE_STEP_MS 10 /* what is quicker is quick enough */

/* In steps, as an observation is compared with the last one all the time. */
static uint32_t response_ms(const struct facts *facts) {
    if (facts->server != SERVER_STANDBY && facts->server != SERVER_PRIMARY)
        return 0;
    return (facts->response_ms / RESPONSE_STEP_MS + 1) * RESPONSE_STEP_MS;
}

static void observe_instance(struct core *core, Observation *own) {
    const struct facts *facts = &core->facts;
    own->data = facts->data;
    own->copy = facts->copy;
    own->system_identifier = facts->system_identifier;
    own->server_version = facts->server_version;
    own->server = facts->server;
    own->position = facts->position;
    own->receive_lsn = facts->receive_lsn;
    own->response_ms = response_ms(facts);
    own->streaming = facts->streaming;
    own->attached_epoch = core->attached_epoch;
    own->copying =
        core->job.running && (core->job.operation.kind == OPERATE_CLONE || core->job.operation.kind == OPERATE_REWIND);
    own->standby_signal = facts->standby_signal;
    own->guard_epoch = facts->guard_epoch;
    snprintf(own->upstream, sizeof own->upstream, "%s", facts->upstream_name);
    bool final = core->cut.valid && facts->server == SERVER_STANDBY && !facts->receiver;
    if (final) {
        own->position = core->cut.position;
        own->oldest_lsn = core->cut.oldest_lsn;
    }
    if (final && core->topology.sealed && core->cut.pledged >= core->topology.epoch)
        own->prepared_seal = core->topology.seal_index;
    own->founding_ready = final && core->topology.epoch == 0;
}

static void observe_primary(struct core *core, Observation *own) {
    const struct facts *facts = &core->facts;
    /* A daemon that was frozen must not tell of what it saw before as if it were so now. */
    own->running_epoch = core->now <= facts->seen_at + FACTS_AGE ? running_epoch(core) : 0;
    own->relinquished_epoch = core->relinquished_epoch;
    own->durable = own->running_epoch != 0 && core->durable_epoch == own->running_epoch;
    own->rule_in_force = core->forced_generation;
    own->rule_acknowledged =
        core->acknowledged_generation != 0 && core->acknowledged_generation == core->forced_generation;
    own->lease_left_ms = is_primary(core) ? msec_between(core->now, core->lease.until) : 0;
    if (own->running_epoch != 0) /* before its first durable write it tells what it had when it was cut */
        own->oldest_lsn = facts->oldest_lsn != 0 ? facts->oldest_lsn : core->cut.oldest_lsn;
    own->senders_count = facts->senders_count;
    memcpy(own->senders, facts->senders, sizeof(Sender) * facts->senders_count);
}

static const char *trouble(const struct core *core) {
    const struct facts *facts = &core->facts;
    if (facts->damaged[0] != '\0')
        return facts->damaged;
    if (facts->refused[0] != '\0')
        return facts->refused;
    if (data_is_foreign(core))
        return "its data directory is another system's, not this cluster's: it is cloned once that is moved away";
    return facts->unfenced[0] != '\0' ? facts->unfenced : core->job.trouble;
}

static void observe_words(struct core *core, Observation *own) {
    const struct job *job = &core->job;
    if (job->running && job->progress[0] != '\0')
        snprintf(own->activity, sizeof own->activity, "%s", job->progress);
    else if (job->running)
        snprintf(own->activity, sizeof own->activity, "%s", operation_kind_name(job->operation.kind));
    else if (core->leader && core->coordinator.why[0] != '\0')
        snprintf(own->activity, sizeof own->activity, "%s", core->coordinator.why);
    snprintf(own->trouble, sizeof own->trouble, "%s", trouble(core));
}

/* Copies what changes all the time and is acted on by nobody at once. */
static void copy_the_unurgent(Observation *to, const Observation *from) {
    to->applied_index = from->applied_index;
    to->receive_lsn = from->receive_lsn;
    to->lease_left_ms = from->lease_left_ms;
    to->oldest_lsn = from->oldest_lsn;
    to->response_ms = from->response_ms;
    memcpy(to->activity, from->activity, sizeof to->activity);
    if (to->prepared_seal == from->prepared_seal)
        to->position = from->position;
    for (unsigned i = 0; i < to->senders_count && to->senders_count == from->senders_count; i++) {
        to->senders[i].sent_lsn = from->senders[i].sent_lsn;
        to->senders[i].flush_lsn = from->senders[i].flush_lsn;
        to->senders[i].replay_lsn = from->senders[i].replay_lsn;
        to->senders[i].replay_lag_ms = from->senders[i].replay_lag_ms;
    }
}

static bool changed_urgently(const Observation *own, const Observation *sent) {
    Observation compared = *own;
    copy_the_unurgent(&compared, sent);
    return memcmp(&compared, sent, sizeof compared) != 0;
}

/* To whom this is to be told now: voters want to hear of each other often, observers and what is told to them costs
 * less. False: to nobody yet. */
static bool audience_now(struct core *core, const struct actions *actions, const Observation *own,
                         enum audience *ret_audience) {
    bool all = due_about(core, actions, core->all_observed_at, OBSERVE_SELDOM) || changed_urgently(own, &core->sent);
    *ret_audience = all && !is_observer(core) ? SEND_ALL : SEND_VOTERS;
    return all || (!is_observer(core) && due_about(core, actions, core->observed_at, OBSERVE_EVERY));
}

static void tell(struct core *core, struct actions *actions, const Observation *own, enum audience audience) {
    core->observed_at = core->now;
    if (audience == SEND_ALL || is_observer(core))
        core->all_observed_at = core->now;
    core->sent = *own;
    struct action *action = act(actions, ACTION_SEND);
    action->send.audience = audience;
    memset(&action->send.message, 0, sizeof action->send.message);
    action->send.message.which_body = Message_observation_tag;
    action->send.message.body.observation = *own;
}

void observe_step(struct core *core, struct actions *actions) {
    Observation own;
    enum audience audience;
    memset(&own, 0, sizeof own);
    own.member = core->self;
    own.applied_index = core->topology.index;
    own.synced = core->synced;
    own.start_count = core->config.start_count;
    observe_voter(core, &own);
    if (core->facts_known && !is_witness(core)) {
        observe_instance(core, &own);
        observe_primary(core, &own);
    }
    observe_words(core, &own);
    core->seen[core->self - 1] = own;
    core->heard_at[core->self - 1] = core->now;
    voter_relinquished(core, core->self, own.relinquished_epoch);
    if (audience_now(core, actions, &own, &audience))
        tell(core, actions, &own, audience);
    (void)due(core, core->all_observed_at + OBSERVE_SELDOM);
    if (!is_observer(core))
        (void)due(core, core->observed_at + OBSERVE_EVERY);
}
