/* Everything that can reach the pure core. The time comes with the event; nothing in the core looks at a clock. */
#pragma once
#include "base/time.h"
#include "model/facts.h"
#include "model/operation.h"

enum event_kind {
    EVENT_TICK,     /* the time that core.wake_at asked for */
    EVENT_APPLIED,  /* a committed command, in index order */
    EVENT_RESTORED, /* a snapshot replaced the record */
    EVENT_ROLE,     /* Raft's role here changed */
    EVENT_MESSAGE,  /* from a member, or from ourselves */
    EVENT_FACTS,    /* the hands saw something */
    EVENT_RESULT,   /* an operation ended */
    EVENT_PROPOSED, /* a proposal ended, one way or the other */
    EVENT_REQUEST,  /* an operator asks */
    EVENT_STOP      /* the daemon was told to hand over and end */
};

enum proposer { PROPOSER_COORDINATOR, PROPOSER_MEMBER }; /* one proposal under way for each */

enum request_kind { REQUEST_KIND_SWITCHOVER, REQUEST_KIND_MEND };

struct event {
    enum event_kind kind;
    nsec now;
    uint64_t wall_ms; /* for the history only */
    union {
        struct {
            uint64_t index;
            const Command *command;
        } applied;
        struct {
            const Snapshot *snapshot;
        } restored;
        struct {
            bool leader; /* after an entry of its own term */
            uint64_t term;
        } role;
        struct {
            const char *from; /* member name */
            const Message *message;
        } message;
        const struct facts *facts;
        const struct operation_result *result;
        struct {
            enum proposer proposer;
            bool committed;
        } proposed;
        struct {
            enum request_kind kind;
            char to[NAME_MAX_LENGTH + 1]; /* "" = the best */
            uint64_t serial;
        } request;
    };
};
