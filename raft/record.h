/* The replicated record: a Raft log of opaque commands agreed among the voters, fed to observers, and the messages
 * between daemons.
 * The only user of libraft; no libraft type or name appears here. It knows nothing of PostgreSQL, leases or what a
 * command means.
 *
 * Everything runs on the caller's libuv loop; callbacks come from the loop, never from inside a call. Strings and
 * buffers given in are copied. Fail-stop: any error in writing log, term or vote ends in `fatal`, after which the
 * caller must exit without acting again. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/time.h"
#include "model/model.h"

struct record;

/* One line of the configuration that must be the same on every member, as `config/` renders it. */
struct record_shared_line {
    char key[96];    /* "members.m2.peer" */
    char value[288]; /* canonical text of the value */
    char file[256];
    int line;
};

struct record_peer {
    char name[NAME_MAX_LENGTH + 1];
    char host[HOST_MAX_LENGTH + 1]; /* name or numeric address, IPv4 or IPv6 */
    uint16_t port;
    bool observer; /* has no part in the log: one of the voters feeds it what was committed */
};

struct record_config {
    const char *directory; /* holds identity, log, term, vote, snapshots; created with mode 0700 */
    const char *cluster_name;
    unsigned self; /* index into peers: their order is that of the members list, the same everywhere */
    const struct record_peer *peers;
    unsigned peers_count;
    const struct record_shared_line *shared;
    unsigned shared_count;
    unsigned heartbeat_ms; /* a third of an election timeout at most; commits do not wait for one */
    unsigned election_ms;  /* 250 to 300 */
    unsigned freshness_ms; /* how often an observer asks whether its voter is in touch with a quorum; >= 100 */
    const char *refused;   /* why the record in the directory must not be used; NULL = it may */
};

enum record_role { RECORD_FOUNDING, RECORD_FOLLOWER, RECORD_CANDIDATE, RECORD_LEADER };

enum record_outcome {
    RECORD_COMMITTED, /* applied at `index` */
    RECORD_REJECTED,  /* certainly not in the log, and never will be */
    RECORD_UNKNOWN    /* leadership or connection lost, or deadline passed: it may still be applied */
};

struct record_callbacks {
    /* A committed command. On the leader and everywhere else, in index order, each once per start of the daemon. */
    void (*apply)(void *user, uint64_t index, const uint8_t *command, size_t length);
    /* Fill a snapshot of everything applied so far, at most `size` bytes; returns its length. */
    size_t (*snapshot)(void *user, uint8_t *buffer, size_t size);
    /* Replace everything applied so far. FAILED = the snapshot is unusable, and `fatal` follows. */
    status (*restore)(void *user, const uint8_t *snapshot, size_t length, struct error *error);
    /* Role, term or leader changed. RECORD_LEADER is only said after an entry of this term has been committed and
     * applied here. `leader` is a member name, or NULL if unknown. */
    void (*role)(void *user, enum record_role role, uint64_t term, const char *leader);
    /* Founding: on the founder only, the first voter of the list, once every voter has been seen with the same shared
     * lines and it has become leader of a log that was empty. `raft_ids[i]` belongs to peers[i]; 0 for observers, which
     * come later. The caller proposes the first command. */
    void (*found)(void *user, uint64_t cluster_id, const uint64_t *raft_ids);
    /* On the leader, again and again until it says true: `name` asks to come back under `raft_id`, its record having
     * been lost; or is an observer, which may come under any. True once that id is its recorded one; else the caller
     * proposes the command that records it. */
    bool (*readmit)(void *user, const char *name, uint64_t raft_id);
    /* A message from another member (or from ourselves, see record_send). */
    void (*message)(void *user, const char *from, const uint8_t *bytes, size_t length);
    /* The message connection to a peer went up or down. `why` when it went down or is refused: "m2 belongs to another
     * cluster", "members.m2.peer is 10.0.0.9:7432 at m2 (/etc/ttorch/ttorch.yaml:7), 10.0.0.3:7432 here (line 7)". */
    void (*peer)(void *user, const char *name, bool up, const char *why);
    /* Worth a line in the log, said once per occurrence and rate limited. */
    void (*notice)(void *user, const char *text);
    /* The record can't go on (disk error, corrupt log, id collision): exit. */
    void (*fatal)(void *user, const char *why);
};

/* Opens or founds. Listens on peers[self], or on every address if its host is a name. FAILED (port taken, directory not
 * ours or in use) leaves nothing open once the loop has run until idle. When what is in the directory can't be trusted,
 * or `config.refused` says so, it is OK too, but nothing is ever applied or proposed: the others, and record_status,
 * are told why, until record_reset. */
status record_open(struct record **ret_record, uv_loop_t *loop, const struct record_config *config,
                   const struct record_callbacks *callbacks, void *user, struct error *error) must_check;

/* Proposes through the leader, wherever it is. `done` is called exactly once, unless the record is closed first. */
typedef void record_done(void *user, enum record_outcome outcome, uint64_t index, const char *why);
void record_propose(struct record *record, const uint8_t *command, size_t length, unsigned deadline_ms,
                    record_done *done, void *user);

/* Best effort, unordered across reconnections, dropped when the peer is not connected or 1 MiB behind. To ourselves
 * too: delivered on the next turn of the loop. Peers of an observation are all members: name = NULL. */
void record_send(struct record *record, const char *name, const uint8_t *bytes, size_t length);
/* What is sent between these two goes to each peer in one piece: it costs the peer one waking. */
void record_hold(struct record *record);
void record_release(struct record *record);

/* Hand the leadership to `name`, or to the voter most up to date if NULL. No promise; the role callback tells. */
void record_step_aside(struct record *record, const char *name);

struct record_status {
    enum record_role role;
    uint64_t term;
    char leader[NAME_MAX_LENGTH + 1]; /* "" if unknown */
    uint64_t cluster_id;              /* 0 while founding */
    uint64_t raft_id;                 /* ours */
    uint32_t start_count;             /* of this raft_id, counted on disk, 1 at the first start */
    uint64_t last_applied;
    unsigned voters;              /* in the newest configuration known here; on an observer, that of the file */
    bool voter;                   /* we are one */
    nsec quorum_heard_at;         /* when we last knew a majority to be in touch: as leader, a majority's answers;
                                     as follower, the leader's last message; as observer, what our voter knows, and
                                     never later than it. For freshness, never for a lease */
    bool lost;                    /* the record can't be used, for the reason in `waiting`: only record_reset helps */
    char waiting[ERROR_TEXT_MAX]; /* while founding or rejoining: for whom, and why */
};
void record_status(const struct record *record, struct record_status *ret_status);

/* Sets the record in `directory` aside, in `<directory>/damaged`, for an empty one with another raft id, which the
 * other members take back as soon as they are a majority. Not while it is open. */
status record_reset(const char *directory, struct error *error) must_check;

/* Closes everything and then calls `closed` (may be NULL); no other callback comes after this call. Not after `fatal`:
 * then exit. */
void record_close(struct record *record, void (*closed)(void *user), void *user);
