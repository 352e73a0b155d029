/* The primary's permission to write, in time (DESIGN 5): counted from the *send* time of renewals that a majority of
 * voters endorsed, and always on this machine's clock. The guard holds the deadline. */
#include <string.h>

#include "orchestrator/parts.h"

#define RENEWALS_PER_LEASE 10
#define FIRST_RENEWALS     msec(5) /* until a majority has endorsed: voters may not have applied the assignment yet */
#define WAKE_AND_KILL_MS   60      /* the guard's wake-up and its kill of all processes, under load */

/* Clock rates may differ by 2 % between two machines. */
nsec lease_margin(uint32_t duration_ms) { return planted(DRIFT) ? 0 : msec(duration_ms) / 50 + msec(WAKE_AND_KILL_MS); }

/* Down, and another data directory is there: a backup, which somebody may start as a primary. So nothing can be given
 * back, and yet we shall not write again. */
static bool data_was_replaced(const struct core *core) {
    return core->facts.server == SERVER_DOWN && core->facts.data == DATA_COMPLETE &&
           core->facts.copy != core->topology.primary.copy;
}

/* What is being killed writes no more, but may take long to die: a process that waits for a hung disk cannot. Others
 * need not wait for that: the lease runs out. */
static bool may_renew(const struct core *core) {
    return core->synced && is_primary(core) && !core->topology.sealed && core->facts.guard &&
           core->facts.server != SERVER_STOPPING && !data_was_replaced(core) &&
           core->relinquished_epoch != core->topology.epoch;
}

static nsec renewal_every(const struct core *core) {
    return core->lease.until == 0 ? FIRST_RENEWALS : msec(core->topology.settings.lease_ms) / RENEWALS_PER_LEASE;
}

static void send_renewal(struct core *core, struct actions *actions) {
    uint32_t lease_ms = core->topology.settings.lease_ms * (planted(MIXED) ? 2 : 1);
    core->lease.renewed_at = core->now;
    struct action *action = act(actions, ACTION_SEND);
    action->send.audience = SEND_VOTERS;
    action->send.message = (Message){.which_body = Message_renew_tag};
    Renew renew = {.epoch = core->topology.epoch, .sent_at = core->now, .duration_ms = lease_ms};
    action->send.message.body.renew = renew;
    if (voter_endorses(core, core->self, &renew))
        lease_endorsed(core, actions, core->self,
                       &(Endorse){.epoch = renew.epoch, .sent_at = renew.sent_at, .duration_ms = renew.duration_ms});
}

void lease_step(struct core *core, struct actions *actions) {
    if (!may_renew(core))
        return;
    if (core->lease.epoch != core->topology.epoch)
        core->lease = (struct lease){.epoch = core->topology.epoch};
    if (due_about(core, actions, core->lease.renewed_at, renewal_every(core)))
        send_renewal(core, actions);
    (void)due(core, core->lease.renewed_at + renewal_every(core));
}

/* The latest moment that a majority of voters has promised us. */
static nsec majority_until(const struct core *core) {
    nsec until[MEMBERS_MAX]; /* of the voters, the latest first */
    unsigned voters = 0;
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Member *member = &core->topology.members[i];
        if (member->observer)
            continue;
        nsec endorsed = core->lease.endorsed_until[member->id - 1];
        unsigned place = voters++;
        for (; place > 0 && until[place - 1] < endorsed; place--)
            until[place] = until[place - 1];
        until[place] = endorsed;
    }
    return voters == 0 ? 0 : until[voters / 2];
}

void lease_endorsed(struct core *core, struct actions *actions, uint32_t from, const Endorse *endorse) {
    if (!may_renew(core) || endorse->epoch != core->topology.epoch || endorse->epoch != core->lease.epoch ||
        endorse->sent_at > core->now)
        return;
    nsec margin = lease_margin(endorse->duration_ms), duration = msec(endorse->duration_ms);
    nsec until = (planted(REPLYTIME) ? core->now : endorse->sent_at) + (duration > margin ? duration - margin : 0);
    nsec *endorsed = &core->lease.endorsed_until[from - 1];
    if (until > *endorsed)
        *endorsed = until;
    nsec agreed = majority_until(core);
    if (agreed <= core->lease.until)
        return;
    core->lease.until = agreed;
    struct action *action = act(actions, ACTION_ARM);
    action->arm.epoch = core->lease.epoch;
    action->arm.deadline = agreed;
}
