/* What the hands see of this host's PostgreSQL, several times a second and at once when it changes. Facts never leave
 * the host as they are; the core makes the member's Observation of them. Plain data, no pointers. */
#pragma once
#include "base/time.h"
#include "model/model.h"

struct facts {
    nsec seen_at; /* of the inside: when it was asked for, so that an answer is never taken for newer than it is */

    /* the data directory */
    DataState data;
    uint32_t copy;              /* from our label beside it; 0 = it has none (never ours: adopted, or just made) */
    uint64_t system_identifier; /* from pg_control; 0 if unknown */
    uint32_t server_version;    /* of the programs in the bin directory, as 150020 */
    bool standby_signal;
    uint32_t pledged_epoch;              /* kept on disk by OPERATE_PLEDGE */
    char refused[REASON_MAX_LENGTH + 1]; /* why data is DATA_REFUSED */
    char damaged[REASON_MAX_LENGTH + 1]; /* why a file of the hands' own cannot be trusted; "" = all can. Then `data` is
                                            refused, or `pledged_epoch` as high as can be, until an operator says */

    /* the processes: what the guard says */
    bool guard;         /* a guard answers; without one nothing runs and nothing may be renewed */
    ServerState server; /* SERVER_DOWN only once the postmaster and all its descendants are reaped */
    uint32_t guard_epoch;
    char unfenced[REASON_MAX_LENGTH + 1]; /* why it took no lease: a watchdog is required and cannot be used */
    nsec guard_deadline;                  /* at which the guard kills; NSEC_NEVER if none is set (a standby) */

    /* the inside, while it answers SQL; position.timeline is IDENTIFY_SYSTEM's (the last record's timeline) */
    Position position;      /* standby: end of replay. primary: end of flushed WAL */
    uint32_t response_ms;   /* how long it took to answer last */
    uint64_t receive_lsn;   /* standby: end of what the receiver flushed; 0 if none */
    bool receiver;          /* a WAL receiver process exists */
    bool streaming;         /* and it streams */
    char upstream_name[64]; /* application_name in the primary_conninfo in force: `<member>_<copy>_<epoch>`; or empty */
    bool durable_seen;      /* primary: a durable write has completed since promotion or start */
    uint64_t durable_lsn;   /* end of the last one */
    nsec durable_pending;   /* since when the one under way has been waiting; 0 if none */
    nsec answer_pending;    /* since when it has been silent; 0 if it answers */
    nsec admission_pending; /* since when a new session has been waiting to be let in; 0 if none is */
    uint64_t oldest_lsn;    /* primary: start of the oldest WAL segment that it has; 0 = unknown */
    uint16_t senders_count;
    Sender senders[SENDERS_MAX];
};
