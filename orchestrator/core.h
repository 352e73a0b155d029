/* The pure core: step(state, event) -> new state + ordered actions. The same code runs in the daemon and in the
 * simulator. No clock, no socket, no malloc, no libpq, no libuv; randomness none.
 *
 * A step absorbs its event, then looks at the whole state in a fixed order:
 *   reconcile  record + own facts -> the operation that our PostgreSQL needs next
 *   lease      as primary: renew, and tell the guard how long we may write
 *   observe    tell the others what we see, at once when it changed
 *   decide     on the coordinator: record + everybody's observations -> the command to propose
 * Everything is level-triggered: a lost message, a failed operation or a void proposal is made good by a later step. */
#pragma once
#include "orchestrator/action.h"
#include "orchestrator/event.h"

/* What does not change while the daemon runs. */
struct core_config {
    char name[NAME_MAX_LENGTH + 1];
    uint64_t raft_id;
    uint32_t start_count;
    uint32_t probe_timeout_ms; /* a durable write that takes longer means a hung PostgreSQL or disk */
    bool poolers;              /* there are some that hold clients back during a switchover */
};

/* As a voter: the promise to let no epoch but `epoch` begin before `until`. */
struct promise {
    uint32_t epoch;
    nsec until;
    bool given_back; /* the primary of `epoch` said that it never will write in it again */
};

/* As primary: who endorsed our epoch, and until when. */
struct lease {
    uint32_t epoch;
    nsec endorsed_until[MEMBERS_MAX]; /* by member id - 1; send time + duration - margin */
    nsec until;                       /* a majority's */
    nsec renewed_at;                  /* when the last renewal was sent; 0 = none was */
};

/* A standby that receives nothing: its position is final until it follows or starts again. */
struct cut {
    bool valid;
    uint32_t pledged;
    Position position;
    uint64_t oldest_lsn; /* of its WAL */
};

struct job {
    bool running;
    struct operation operation;
    nsec began_at;
    nsec ended_at; /* facts seen before this say nothing about what we did */
    uint64_t next_serial;
    enum operation_kind failed_kind; /* the last failure, for back-off */
    unsigned failures;
    nsec retry_at;
    char progress[REASON_MAX_LENGTH + 1];
    char trouble[REASON_MAX_LENGTH + 1];
};

/* When the coordinator saw each step of the failover under way; 0 = not yet. */
struct trace {
    uint32_t epoch; /* that was suspected last */
    nsec suspected;
    nsec answered[MEMBERS_MAX]; /* the seal, by member id - 1 */
    nsec writes;
};

struct coordinator {
    nsec since;        /* leader since */
    nsec assigned_at;  /* when we saw the standing epoch assigned */
    nsec sealed_at;    /* when we saw the standing seal */
    unsigned unopened; /* epochs in a row that did not open */
    uint64_t counted_seal;
    uint64_t intent_number; /* the standing intent, and since when we know it */
    nsec intent_since;
    nsec yield_again_at;
    nsec stuck_since;               /* the newest rule cannot be met, and no other one can begin; 0 = not so */
    nsec absent_since[MEMBERS_MAX]; /* a member of the rule that does not count now; 0 = it does */
    struct trace trace;
    char why[REASON_MAX_LENGTH + 1]; /* what it waits for, or why it does nothing */
};

struct core {
    struct core_config config;
    nsec now;
    uint64_t wall_ms;
    nsec wake_at; /* the next step is due by then, whatever happens */

    Topology topology;
    History history;
    uint32_t self; /* our member id; 0 before founding */
    bool synced;   /* applied our own Started: we know all that was committed when we started */
    nsec started_at;

    bool leader; /* the coordinator */
    uint64_t term;
    struct coordinator coordinator;
    bool proposing[2]; /* by enum proposer */
    nsec propose_again_at[2];

    bool facts_known, looked; /* the latter: in this step */
    struct facts facts;
    nsec heard_at[MEMBERS_MAX]; /* by member id - 1, of its observation; 0 = never */
    struct {
        uint32_t epoch;
        uint64_t lsn;
    } primary_wal; /* the furthest that a primary was heard to have written, in its epoch */

    struct promise promise;
    struct lease lease;
    struct cut cut;
    struct job job;

    uint32_t relinquished_epoch;     /* as its primary: we never write in it (again) */
    uint32_t failed_promotion_epoch; /* promoting for it was begun and did not succeed: kill, then give up */
    nsec down_since;
    nsec hung_since;
    nsec standbys_lacked_at; /* as primary: commits were last seen to wait for want of standbys */
    nsec followed_at;
    nsec fetched_at;                  /* FETCH begun */
    nsec streaming_lost_at;           /* attached, yet not streaming since then; 0 = streaming */
    uint32_t attached_epoch;          /* FOLLOW done in this epoch */
    bool must_rewind;                 /* the position was seen to have left the lineage of the standing epoch */
    bool must_clone;                  /* and rewinding does not help */
    Position left_lineage_at;         /* with must_rewind: where; lsn 0 = the record does not know */
    char note[REASON_MAX_LENGTH + 1]; /* for the history; until it is recorded */
    uint32_t granted_copy;            /* number recorded for the data directory that we are about to make */
    uint32_t first_durable_epoch;     /* the first durable write of this epoch ended at `first_durable_lsn` */
    uint64_t first_durable_lsn;
    uint32_t durable_epoch;     /* a durable write of this epoch reached its rule's standbys */
    uint32_t forced_generation; /* the rule that every sender uses since `forced_lsn` */
    uint64_t forced_lsn;
    uint32_t acknowledged_generation;
    uint64_t checkpointed_intent; /* number of the intent for which we made a checkpoint */
    uint64_t paused_intent;       /* the same for pausing the poolers */

    uint64_t asked_serial; /* an operator's request whose intent is being recorded; 0 = none */
    uint32_t asked_to;
    bool stopping;
    nsec stopping_since;
    bool left; /* ACTION_EXIT was said */

    nsec observed_at;     /* our observation was last sent */
    nsec all_observed_at; /* and to all members, not to voters only */
    Observation sent;

    /* Last, as only the places of members that there are get touched. */
    Observation seen[MEMBERS_MAX]; /* by member id - 1; our own too */
};

/* `core` is all zeros, or was in use before. */
void core_init(struct core *core, const struct core_config *config, nsec now);
void core_step(struct core *core, const struct event *event, struct actions *ret_actions);

/* Progress text of the operation under way, for people. */
void core_progress(struct core *core, uint64_t serial, const char *text);
