/* One line an action: no decision is made here. */
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"

#define PROPOSE_DEADLINE_MS 2000

struct proposal {
    struct daemon *daemon;
    enum proposer proposer;
};

/* Two proposals are under way at most, so their places are fixed. */
static struct proposal proposals[2];

static void proposed(void *user, enum record_outcome outcome, uint64_t index, const char *why) {
    struct proposal *proposal = user;
    (void)index;
    (void)why;
    struct inbox_item *item = inbox_add(&proposal->daemon->inbox, EVENT_PROPOSED);
    item->event.proposed.proposer = proposal->proposer;
    item->event.proposed.committed = outcome == RECORD_COMMITTED;
}

static void run_propose(struct daemon *daemon, const struct action *action) {
    uint8_t bytes[COMMAND_BYTES_MAX];
    struct proposal *proposal = &proposals[action->propose.proposer];
    *proposal = (struct proposal){daemon, action->propose.proposer};
    size_t length = command_encode(&action->propose.command, bytes, sizeof bytes);
    record_propose(daemon->record, bytes, length, PROPOSE_DEADLINE_MS, proposed, proposal);
}

static bool addressed(const struct daemon *daemon, const struct action *action, const Member *member) {
    if (action->send.audience == SEND_ONE)
        return member->id == action->send.to;
    return member->id != daemon->core.self && (action->send.audience == SEND_ALL || !member->observer);
}

static void run_send(struct daemon *daemon, const struct action *action) {
    uint8_t bytes[Message_size];
    size_t length = message_encode(&action->send.message, bytes, sizeof bytes);
    const Topology *topology = &daemon->core.topology;
    for (unsigned i = 0; i < topology->members_count; i++) {
        const Member *member = &topology->members[i];
        if (addressed(daemon, action, member))
            record_send(daemon->record, member->name, bytes, length);
    }
}

static void run_answer(struct daemon *daemon, const struct action *action) {
    for (unsigned i = 0; i < ANSWERS_MAX; i++) {
        if (daemon->answers[i].serial != action->answer.serial)
            continue;
        struct face_answer answer = {.http_status = action->answer.http_status, .number = action->answer.number};
        memcpy(answer.text, action->answer.text, sizeof answer.text);
        daemon->answers[i].serial = 0;
        daemon->answers[i].answer(daemon->answers[i].context, &answer);
    }
}

static void run_operate(struct daemon *daemon, const struct action *action) {
    if (action->operation.kind == OPERATE_PAUSE) {
        daemon->pause_serial = action->operation.serial;
        poolers_pause(daemon->poolers, hands_paused, daemon);
    } else if (daemon->pgctl != NULL) {
        pgctl_operate(daemon->pgctl, &action->operation);
    }
}

static void run_arm(struct daemon *daemon, const struct action *action) {
    if (daemon->pgctl != NULL && !pgctl_arm(daemon->pgctl, action->arm.epoch, action->arm.deadline))
        log_warning("the guard did not take the lease of epoch %u", action->arm.epoch);
}

static void run_mend(struct daemon *daemon, const struct action *action) {
    struct error error;
    if (daemon->pgctl != NULL && pgctl_mend(daemon->pgctl, action->mend.epoch, action->mend.copy, &error) != OK)
        log_error("a damaged file was not replaced: %s", error.text);
}

static void run_yield(struct daemon *daemon, const struct action *action) {
    const Member *to = topology_member(&daemon->core.topology, action->yield.to);
    record_step_aside(daemon->record, to != NULL ? to->name : NULL);
}

static void run(struct daemon *daemon, const struct action *action) {
    switch (action->kind) {
    case ACTION_PROPOSE:
        run_propose(daemon, action);
        break;
    case ACTION_SEND:
        run_send(daemon, action);
        break;
    case ACTION_ARM:
        run_arm(daemon, action);
        break;
    case ACTION_OPERATE:
        run_operate(daemon, action);
        break;
    case ACTION_MEND:
        run_mend(daemon, action);
        break;
    case ACTION_ANSWER:
        run_answer(daemon, action);
        break;
    case ACTION_YIELD:
        run_yield(daemon, action);
        break;
    case ACTION_LOG:
        log_line(action->log.warning ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "%s", action->log.text);
        break;
    case ACTION_EXIT:
        if (action->exit.failed)
            daemon_again(daemon, AFTERWARDS_STAND_BY, action->exit.why);
        else
            daemon_end(daemon, false, 0, action->exit.why);
        break;
    }
}

void driver_run(struct daemon *daemon, const struct actions *actions) {
    for (unsigned i = 0; i < actions->count && !daemon->ending; i++)
        run(daemon, &actions->list[i]);
}
