/* Who becomes primary after a seal (DESIGN 8.3). Only answers to the standing seal count; together they must cover
 * every recorded rule; and the chosen position must be at or past every answer's, whether or not its member may become
 * primary, because that answer may be the only other place of an acknowledged commit. */
#include <stdio.h>
#include <string.h>

#include "base/panic.h"
#include "orchestrator/parts.h"

#define ASYNC_WAIT msec(1000) /* in async nothing need be covered, so give every member the time to answer */

/* Who has fallen silent neither covers a rule nor is chosen: it might be gone, and its data directory with it.
 * Observers never report: no rule names them, so they have nothing that only they could have. */
bool candidate_reports(const struct core *core, uint32_t member) {
    const Observation *seen = observation(core, member);
    return topology_votes(&core->topology, member) && heard_within(core, member, HEARD_AGE) && core->topology.sealed &&
           (seen->prepared_seal == core->topology.seal_index || (planted(TAG) && seen->prepared_seal != 0)) &&
           seen->data == DATA_COMPLETE && seen->server == SERVER_STANDBY && seen->copy != 0;
}

static bool reports_copy(const struct core *core, Copy copy) {
    return candidate_reports(core, copy.member) && (observation(core, copy.member)->copy == copy.copy || planted(COPY));
}

/* A member whose last WAL is of a later epoch than the rule's: that epoch's base was covered when it was assigned. */
static bool later_epoch_reports(const struct core *core, uint32_t epoch) {
    if (planted(DOMIN))
        return false;
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        uint32_t id = core->topology.members[i].id;
        if (candidate_reports(core, id) &&
            observation(core, id)->position.timeline > core->topology.timeline_offset + epoch)
            return true;
    }
    return false;
}

static unsigned rule_reports(const struct core *core, const Rule *rule) {
    unsigned reports = 0;
    for (unsigned i = 0; i < rule->standbys_count; i++)
        reports += reports_copy(core, rule->standbys[i]);
    return reports;
}

static bool rule_covered(const struct core *core, const Rule *rule) {
    if (reports_copy(core, rule->primary) || later_epoch_reports(core, rule->epoch))
        return true;
    return rule->needed > 0 && rule_reports(core, rule) >= rule->standbys_count - rule->needed + 1;
}

static bool all_rules_covered(const struct core *core, struct choice *choice) {
    for (unsigned i = 0; i < core->topology.rules_count; i++) {
        const Rule *rule = &core->topology.rules[i];
        if (rule_covered(core, rule))
            continue;
        char text[96];
        rule_text(&core->topology, rule, text, sizeof text);
        snprintf(choice->why, sizeof choice->why,
                 "commits may be acknowledged that no answer holds: rule %.60s of %s needs %s, or %u of its standbys",
                 text, member_name(core, rule->primary.member), member_name(core, rule->primary.member),
                 rule->needed > 0 ? rule->standbys_count - rule->needed + 1 : 0);
        return false;
    }
    return true;
}

static bool majority_released(const struct core *core, struct choice *choice) {
    unsigned released = 0, voters = topology_voters(&core->topology);
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Observation *seen = observation(core, core->topology.members[i].id);
        if (core->topology.members[i].observer)
            continue;
        released += seen->released_seal == core->topology.seal_index || (planted(TAG) && seen->released_seal != 0) ||
                    (planted(PRESEAL) && seen->expired_epoch == core->topology.epoch);
    }
    if (released > voters / 2)
        return true;
    snprintf(choice->why, sizeof choice->why,
             "%u of %u voters have released epoch %u, a majority is needed: its primary may still write", released,
             voters, core->topology.epoch);
    return false;
}

uint32_t candidate_source(const struct core *core) {
    uint32_t source = 0;
    Position highest = {0};
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Member *member = &core->topology.members[i];
        if (!candidate_reports(core, member->id))
            continue;
        int order = position_compare(observation(core, member->id)->position, highest);
        if (order > 0 || (order == 0 && member->priority > 0)) {
            highest = observation(core, member->id)->position;
            source = member->priority > 0 ? 0 : member->id;
        }
    }
    return source;
}

/* ---- the choice ---- */

struct candidate {
    uint32_t id;
    Position position;
    bool asked_for;   /* an operator named it */
    bool failed_last; /* its last assignment did not open */
    uint32_t priority;
};

/* Negative when a is the better primary. Total: two members never tie. */
static int candidate_compare(const struct candidate *a, const struct candidate *b) {
    /* 1. Nothing acknowledged is lost: the longest WAL first. */
    int order = position_compare(b->position, a->position);
    if (order != 0)
        return order;
    /* 2. An operator's wish. */
    if (a->asked_for != b->asked_for)
        return a->asked_for ? -1 : 1;
    /* 3. One that has just failed as primary comes after one that has not. */
    if (a->failed_last != b->failed_last)
        return a->failed_last ? 1 : -1;
    /* 4. The configured priority. */
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    /* 5. The order of the members list. */
    require(a->id != b->id);
    return a->id < b->id ? -1 : 1;
}

/* An epoch that opened keeps only its own rule. */
static bool last_epoch_opened(const Topology *topology) {
    for (unsigned i = 0; i < topology->rules_count; i++)
        if (topology->rules[i].epoch < topology->epoch)
            return false;
    return true;
}

/* Every data member that is heard of at all has answered: there is nobody to wait for. */
static bool all_reachable_report(const struct core *core) {
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Member *member = &core->topology.members[i];
        if (!member->witness && !member->observer && heard_within(core, member->id, ASYNC_WAIT) &&
            !candidate_reports(core, member->id))
            return false;
    }
    return true;
}

/* In async the loss is measured from the last WAL end that the primary told us of. */
static bool async_loss_allowed(struct core *core, struct choice *choice) {
    const Topology *topology = &core->topology;
    struct choice unused;
    if (all_rules_covered(core, &unused))
        return true; /* the old primary itself answers, for example: nothing is lost */
    if (!all_reachable_report(core) && !due(core, core->coordinator.sealed_at + ASYNC_WAIT)) {
        snprintf(choice->why, sizeof choice->why, "waits up to a second for every member to answer (async)");
        return false;
    }
    if (core->primary_wal.epoch != topology->epoch && last_epoch_opened(topology)) {
        snprintf(choice->why, sizeof choice->why, "nobody here knows how far %s had written",
                 member_name(core, topology->primary.member));
        return false;
    }
    if (core->primary_wal.epoch == topology->epoch && core->primary_wal.lsn > choice->base.lsn)
        choice->lost_bytes = core->primary_wal.lsn - choice->base.lsn;
    if (choice->lost_bytes <= topology->settings.max_loss_bytes)
        return true;
    char loss[SIZE_TEXT_MAX], bound[SIZE_TEXT_MAX];
    snprintf(choice->why, sizeof choice->why, "with %s %s of WAL would be lost, max_loss is %s: waits for %s",
             member_name(core, choice->member), size_text(choice->lost_bytes, loss),
             size_text(topology->settings.max_loss_bytes, bound), member_name(core, topology->primary.member));
    return false;
}

static bool best_reporter(const struct core *core, struct choice *choice) {
    const Topology *topology = &core->topology;
    bool opened = last_epoch_opened(topology);
    uint32_t source = candidate_source(core);
    struct candidate best = {0};
    for (unsigned i = 0; i < topology->members_count; i++) {
        const Member *member = &topology->members[i];
        if (!candidate_reports(core, member->id))
            continue;
        struct candidate candidate = {
            .id = member->id,
            .position = observation(core, member->id)->position,
            .asked_for = topology->intent.kind == INTENT_SWITCHOVER && topology->intent.to == member->id,
            .failed_last = !opened && topology->primary.member == member->id,
            .priority = member->priority,
        };
        if (planted(RETRY) && candidate.failed_last)
            continue;
        if (member->priority > 0 && (best.id == 0 || candidate_compare(&candidate, &best) < 0))
            best = candidate;
    }
    if (best.id == 0) {
        snprintf(choice->why, sizeof choice->why, "no member that may be primary has answered the seal yet");
        return false;
    }
    if (source != 0 && !planted(HIGHEST)) {
        bool streams = position_is_prefix(topology, best.position, observation(core, source)->position);
        snprintf(choice->why, sizeof choice->why,
                 "%s has less WAL than %s, which may not be primary (priority 0), and %s", member_name(core, best.id),
                 member_name(core, source),
                 streams ? "streams it from there first" : "cannot stream it, as it left that history");
        return false;
    }
    choice->member = best.id;
    choice->base = best.position;
    choice->copy = observation(core, best.id)->copy;
    return true;
}

static void say_who(const struct core *core, struct choice *choice) {
    char lsn[LSN_TEXT_MAX], loss[SIZE_TEXT_MAX];
    struct choice unused;
    const char *name = member_name(core, choice->member);
    lsn_text(choice->base.lsn, lsn);
    if (all_rules_covered(core, &unused))
        snprintf(choice->why, sizeof choice->why, "%s has all that was acknowledged, up to %s on timeline %u", name,
                 lsn, choice->base.timeline);
    else
        snprintf(choice->why, sizeof choice->why, "%s has the most WAL, up to %s on timeline %u; %s known to be lost",
                 name, lsn, choice->base.timeline,
                 choice->lost_bytes > 0 ? size_text(choice->lost_bytes, loss) : "nothing is");
}

void candidate_choose(struct core *core, struct choice *ret_choice) {
    *ret_choice = (struct choice){0};
    bool async = core->topology.settings.durability == DURABILITY_ASYNC;
    if (!majority_released(core, ret_choice))
        return;
    if (!async && !all_rules_covered(core, ret_choice))
        return;
    if (!best_reporter(core, ret_choice))
        return;
    if (async && !async_loss_allowed(core, ret_choice))
        return;
    say_who(core, ret_choice);
    ret_choice->found = true;
}
