/* A voter's promise: for one lease, no epoch but this may begin (DESIGN 5). */
#include "orchestrator/parts.h"

/* Nobody knows what a voter promised before it restarted, so it counts itself as promised for the longest lease that
 * was ever recorded. A voter that sees an epoch assigned promises it one lease at once: the new primary needs time for
 * its first renewal. */
void voter_reset(struct core *core, bool restarted) {
    uint32_t lease_ms = restarted || !core->synced ? core->topology.longest_lease_ms : core->topology.settings.lease_ms;
    if (planted(AMNESIA) && (restarted || !core->synced))
        lease_ms = 0;
    nsec until = (restarted ? core->started_at : core->now) + msec(lease_ms);
    core->promise = (struct promise){.epoch = core->topology.epoch, .until = until};
}

static bool may_endorse(const struct core *core, uint32_t from, uint32_t epoch) {
    return !is_observer(core) && (core->synced || planted(STALETOPO)) && epoch == core->topology.epoch &&
           !core->topology.sealed && core->topology.primary.member == from && core->cut.pledged < epoch &&
           !core->promise.given_back && core->facts.pledged_epoch < epoch;
}

bool voter_endorses(struct core *core, uint32_t from, const Renew *renew) {
    if (!may_endorse(core, from, renew->epoch))
        return false;
    nsec until = core->now + msec(planted(MIXED) ? core->topology.settings.lease_ms : renew->duration_ms);
    core->promise.epoch = renew->epoch;
    if (until > core->promise.until)
        core->promise.until = until;
    return true;
}

void voter_renewed(struct core *core, struct actions *actions, uint32_t from, const Renew *renew) {
    if (!voter_endorses(core, from, renew))
        return;
    struct action *action = act(actions, ACTION_SEND);
    action->send.audience = SEND_ONE;
    action->send.to = from;
    action->send.message = (Message){.which_body = Message_endorse_tag};
    action->send.message.body.endorse =
        (Endorse){.epoch = renew->epoch, .sent_at = renew->sent_at, .duration_ms = renew->duration_ms};
}

/* Only the promisee can give a promise back, and it does so for ever: a later renewal is a delayed one. */
void voter_relinquished(struct core *core, uint32_t from, uint32_t epoch) {
    if (epoch != 0 && epoch == core->topology.epoch && core->topology.primary.member == from)
        core->promise.given_back = true;
}

bool voter_expired(struct core *core) {
    if (core->topology.epoch == 0)
        return false;
    return core->promise.given_back || due(core, core->promise.until);
}
