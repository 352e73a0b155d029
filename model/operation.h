/* What the core may ask of the hands that hold PostgreSQL, and what they answer. One operation at a time; KILL may be
 * asked at any moment and cancels the one under way. Each is safe to repeat. Plain data, no pointers. */
#pragma once
#include "base/error.h"
#include "model/model.h"

enum operation_kind {
    OPERATE_NONE,
    OPERATE_INITDB,  /* make a new, empty instance: label it `copy`; leaves a standby.signal */
    OPERATE_ADOPT,   /* label the data directory found here `copy`; checks that nothing runs in it; as a standby */
    OPERATE_CLONE,   /* pg_basebackup from `upstream` into a fresh directory, then swap it in; label it `copy`; keep the
                      * diverged WAL of the one it replaces */
    OPERATE_REWIND,  /* server down: keep the diverged WAL, then pg_rewind from `upstream`; same copy. Leaves a standby
                      * that streams from there under a name that no rule has; a CUT is to follow */
    OPERATE_START,   /* as a standby of nobody, whatever settings say: standby.signal and settings are written first */
    OPERATE_STOP,    /* fast; senders of standbys not streaming are terminated first */
    OPERATE_KILL,    /* the guard kills every process of the instance; also the fence */
    OPERATE_CUT,     /* standby: cut the receiver, replay all; pledge `epoch`; result.position is final */
    OPERATE_FOLLOW,  /* standby: stream from `upstream` as `name`; reload, no restart */
    OPERATE_FETCH,   /* standby, cut: stream from `upstream`, which is cut as well, as `name` (of epoch 0: no rule has
                      * it); a CUT is to follow */
    OPERATE_PROMOTE, /* standby, cut, at `base`: write `rule`, promote to `timeline`, put standby.signal back */
    OPERATE_RULE,    /* primary: write `rule`, wait until every sender uses it; result.lsn = WAL end at that moment */
    OPERATE_CHECKPOINT, /* primary: an immediate one, before a planned stop */
    OPERATE_PAUSE       /* the poolers hold their clients back; done as well when not all of them could */
};

/* synchronous_standby_names as names; needed = 0 writes the empty setting (degraded). */
struct rule_setting {
    uint32_t generation;
    uint32_t needed;
    uint16_t names_count;
    char names[VOTERS_MAX][64]; /* `<member>_<copy>_<epoch>` */
};

struct upstream {
    char name[NAME_MAX_LENGTH + 1]; /* member */
    char host[HOST_MAX_LENGTH + 1];
    uint32_t port;
};

struct operation {
    enum operation_kind kind;
    uint64_t serial;           /* echoed in the result */
    uint32_t epoch;            /* CUT: the sealed epoch to pledge. FOLLOW, PROMOTE: the epoch that begins */
    uint32_t copy;             /* INITDB, ADOPT, CLONE */
    struct upstream upstream;  /* CLONE, REWIND, FOLLOW, FETCH */
    char application_name[64]; /* FOLLOW, FETCH: `<member>_<copy>_<epoch>` */
    Position base;             /* PROMOTE: refuse unless the position is exactly this. REWIND, CLONE: where the WAL
                                * that is to go left the primary's history; lsn 0 = not known, or it did not */
    uint32_t timeline;         /* PROMOTE: the timeline that the new primary must get */
    struct rule_setting rule;  /* PROMOTE, RULE */
    uint32_t deadline_ms;
};

enum operation_outcome {
    OUTCOME_DONE,
    OUTCOME_FAILED,   /* tried, with an error; may be tried again */
    OUTCOME_REFUSED,  /* the preconditions do not hold (position is not base, data directory is not ours, ...) */
    OUTCOME_CANCELLED /* by KILL */
};

struct operation_result {
    uint64_t serial;
    enum operation_kind kind;
    enum operation_outcome outcome;
    Position position; /* CUT */
    uint64_t lsn;      /* RULE, PROMOTE. CUT: start of the oldest WAL segment that is there; 0 = unknown */
    struct diverged_wal {
        uint64_t bytes;   /* 0 = none was kept */
        uint32_t commits; /* in it; those of ttorch's own probe do not count */
        char path[160];   /* directory that holds it, with a list in transactions.txt */
    } diverged;           /* REWIND, CLONE */
    struct error error;
};

const char *operation_kind_name(enum operation_kind kind); /* "clone" */

/* What the hands keep true by themselves on every data member, without being asked again. */
struct upkeep {
    uint16_t peers_count;
    struct upkeep_peer {
        char name[NAME_MAX_LENGTH + 1];
        char host[HOST_MAX_LENGTH + 1]; /* admitted to replication by pg_hba.conf */
        uint64_t slot_lsn;              /* advance its slot up to here; 0 = leave it */
    } peers[DATA_MEMBERS_MAX];          /* the other data members: each has one physical slot, `ttorch_<name>` */
};
