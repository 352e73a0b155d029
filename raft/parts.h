/* What the files of this folder share. One struct record; each file owns one of its members and offers a few functions
 * to the others:
 *
 *   record.c      open, close, the deferred turn and the tick
 *   engine.c      libraft: its life, its storage watched for failures, its roles, the applied commands
 *   transport.c   libraft's streams over our connections
 *   connection.c  TCP: listening, dialling, hello, frames
 *   peers.c       the message connections
 *   heartbeat.c   what libraft says all the time, over those
 *   feed.c        the record of observers, which voters feed
 *   founding.c    from fresh directories to one cluster
 *   rejoin.c      a member whose record was lost comes back
 *   ballot.c, segments.c, identity.c: what is on disk, and whether it can be trusted
 *   propose.c     proposals, ours and forwarded ones
 *
 * Calls of the contract that change something are deferred to the next turn of the loop, because the caller may be
 * inside one of its callbacks, and that inside libraft. */
#pragma once
#include <raft.h>
#include <raft/uv.h>
#include <stdatomic.h>

#include "peer.pb.h"
#include "raft/ballot.h"
#include "raft/frame.h"
#include "raft/identity.h"
#include "raft/record.h"
#include "raft/resolve.h"

#define PEER_PROTOCOL      2
#define CLUSTER_NAME_MAX   63
#define HELLO_BYTES_MAX    2048 /* largest frame before the hello has been accepted */
#define SEND_BACKLOG_MAX   1048576
#define HELD_BYTES_MAX     1024                               /* a renewal, an endorsement and an observation */
#define CONNECTIONS_MAX    (2 * MEMBERS_MAX + 8 * VOTERS_MAX) /* accepted ones */
#define STRANGERS_MAX      16 /* accepted, hello not yet seen; and one for each observer */
#define GREETING_MAX       (1 * NSEC_PER_SEC)
#define RECONNECT_AFTER    msec(100)
#define RECONNECT_REFUSED  msec(1000)
#define OBSERVER_TICK_MS   100 /* instead of what is below */
#define TICKS_PER_ELECTION 10
#define USER_TIMEOUT_MS    500
#define WHY_MAX            1536
#define DISK_STALL_MAX     (5 * NSEC_PER_SEC)
#define PROPOSALS_MAX      1024

_Static_assert(sizeof(((PeerPropose *)0)->command.bytes) == COMMAND_BYTES_MAX, "peer.options: command");
_Static_assert(sizeof(((PeerHello *)0)->member) == NAME_MAX_LENGTH + 1, "peer.options: member");

struct peer;

/* ---- connection.c ---------------------------------------------------------------------------------------------- */

/*   dial:    CONNECTING -> GREETING -> OPEN -> CLOSING
 *   accept:                GREETING -> OPEN -> CLOSING                                                              */
enum connection_state { CONNECTION_CONNECTING, CONNECTION_GREETING, CONNECTION_OPEN, CONNECTION_CLOSING };

struct connection {
    struct connection *next;
    struct record *record;
    struct peer *peer; /* NULL until an accepted connection has said hello */
    enum connection_state state;
    PeerHello_Kind kind;
    bool outbound;
    bool refusing;   /* closes once its last frame is written */
    bool refused;    /* the other side said so */
    PeerHello hello; /* the other side's, once OPEN */
    bool fresh;      /* we said in ours that we belong to no cluster; meanwhile we may */
    uv_tcp_t tcp;
    uv_connect_t connect;
    nsec deadline; /* of CONNECTING, GREETING and of a refusal */
    nsec heard_at, sent_at;
    uint8_t *input;
    size_t input_used, input_size;
    uint8_t held[HELD_BYTES_MAX]; /* frames that wait for record_release */
    size_t held_used;
    unsigned handles; /* not yet closed */
    char name[96];    /* for people */

    /* RAFT only. Accepted: our end of the pair whose other end is libraft's. */
    uv_pipe_t pipe;
    bool piped;
    struct raft_uv_connect *request; /* outbound: libraft waits for the socket */
    raft_uv_connect_cb connected;

    struct feeding {
        bool on;
        uint32_t session;
        uint64_t index; /* up to where it was fed */
    } feeding;          /* an observer, by us */
};

status connections_listen(struct record *record, struct error *error) must_check;
/* NULL with a reason if it can't even be tried. */
struct connection *connection_dial(struct record *record, struct peer *peer, PeerHello_Kind kind, struct error *error);
void connection_close(struct connection *connection, const char *why);
void connection_send(struct connection *connection, enum frame_type type, const uint8_t *payload, size_t length);
void connection_send_message(struct connection *connection, enum frame_type type, const pb_msgdesc_t *fields,
                             const void *message);
/* Tells the other side why before it closes. */
void connection_refuse(struct connection *connection, const char *why, bool stale);
size_t connection_backlog(const struct connection *connection);
void connections_release(struct record *record);
void connections_tick(struct record *record, nsec now);
void connections_close(struct record *record);

/* ---- transport.c ----------------------------------------------------------------------------------------------- */

void transport_init(struct record *record);
/* A RAFT connection is OPEN, or closes. */
void transport_opened(struct connection *connection);
void transport_closed(struct connection *connection);

/* ---- peers.c --------------------------------------------------------------------------------------------------- */

enum lines { LINES_UNKNOWN, LINES_AGREE, LINES_DIFFER };

struct peer {
    struct record_peer config;
    unsigned index;
    struct resolver resolver;
    struct connection *messages; /* OPEN or on its way there */
    bool up;                     /* as last told to the caller */
    bool disowns;                /* it says that our record is not the one that we had; for the reason in `why` */
    char why[WHY_MAX];           /* it is not up */
    nsec retry_at;
    /* From its hello; 0 if never seen. */
    uint64_t raft_id, cluster_id;
    uint32_t start_count;
    bool rejoining;
    uint64_t admitted_id; /* of an observer: the raft id that is known to be recorded */
    nsec answered_at;     /* an AppendEntries result of our term */
    raft_index has_log;   /* up to where it said that its log reaches, in the term `has_log_of` */
    raft_term has_log_of;
    nsec other_way_at; /* when the next heartbeat must go libraft's way; see heartbeat.c */
    /* While founding. */
    enum lines lines;
    bool *lines_seen; /* of ours */
    unsigned lines_count;
    char difference[WHY_MAX];
};

void peers_tick(struct record *record, nsec now);
void peers_opened(struct connection *connection);
void peers_closed(struct connection *connection, const char *why);
status peers_frame(struct connection *connection, const struct frame *frame, struct error *error) must_check;
void peer_report(struct record *record, struct peer *peer, bool up, const char *why);
struct peer *peer_named(struct record *record, const char *name);
/* Whether what another member says of itself fits; the reason is for both sides. */
struct refusal {
    struct error reason;
    bool stale; /* its record is not the one that it had as a member: it has to rejoin */
};
status peer_hello_check(struct record *record, struct peer *expected, const PeerHello *hello, struct peer **ret_peer,
                        struct refusal *ret_refusal) must_check;
bool peer_reachable(const struct peer *peer);

/* ---- heartbeat.c ------------------------------------------------------------------------------------------------ */

/* Sends the message to its member, if it is a short one that may go by the message connection; else false. */
bool heartbeat_send(struct record *record, const struct raft_message *message);
status heartbeat_frame(struct connection *connection, const struct frame *frame, struct error *error) must_check;

/* ---- feed.c ---------------------------------------------------------------------------------------------------- */

struct feed {
    uint64_t index;    /* up to where the record is known here; on a voter 0 until it has applied something */
    bool restored;     /* on a voter: from a snapshot, with another index */
    uint32_t session;  /* from here on: of an observer */
    struct peer *from; /* who feeds us; NULL = nobody can */
    nsec asked_at;
    nsec answered_at; /* by one in touch with a quorum */
};

void feed_tick(struct record *record, nsec now);
unsigned feed_tick_after(const struct record *record, nsec now); /* ms */
/* On voters. Before a command is applied, and on each turn: what libraft has restored is fed. */
void feed_settle(struct record *record);
void feed_applied(struct record *record, uint64_t index, const uint8_t *command, size_t length);
void feed_role_changed(struct record *record);
status feed_frame(struct connection *connection, const struct frame *frame, struct error *error) must_check;

/* ---- founding.c ------------------------------------------------------------------------------------------------ */

void founding_opened(struct record *record, struct peer *peer);
status founding_frame(struct record *record, struct peer *peer, const struct frame *frame,
                      struct error *error) must_check;
void founding_tick(struct record *record);
void founded_send(struct record *record, struct peer *peer);
void founding_waiting(const struct record *record, char *ret_text, size_t size);

/* ---- rejoin.c -------------------------------------------------------------------------------------------------- */

void rejoin_tick(struct record *record, nsec now);
/* Why our record can't be used any more: found here, or said by another member. NULL = it can. */
const char *rejoin_needed(const struct record *record);

/* ---- propose.c ------------------------------------------------------------------------------------------------- */

struct proposal;
void proposals_turn(struct record *record, nsec now); /* submit or forward what waits, and end what is due */
status proposals_frame(struct record *record, struct peer *peer, const struct frame *frame,
                       struct error *error) must_check;
void proposals_disconnected(struct record *record, struct peer *peer);
bool proposals_submitted(const struct record *record); /* some are in the log, not yet committed */
void proposals_close(struct record *record);

/* ---- engine.c -------------------------------------------------------------------------------------------------- */

struct engine {
    struct raft raft;
    struct raft_io io; /* raft_uv's with some functions replaced */
    struct raft_io uv; /* raft_uv's as it made them */
    struct raft_fsm fsm;
    struct raft_uv_transport transport;
    struct raft_tracer tracer;
    raft_uv_accept_cb accept;
    raft_io_tick_cb tick; /* a leader's sends its heartbeats */
    raft_io_recv_cb receive;
    bool inited, started;
    bool starting; /* within raft_start */
    struct ballot ballot;
    nsec ballot_behind_at; /* since when the log has been longer than `ballot` says; 0 = it is not */
    struct error damage;   /* why what is on disk can't be trusted; "" = no reason is known */
    void *restored;        /* a snapshot met there, for the next turn */
    size_t restored_length;
    /* roles */
    enum record_role role;
    raft_term term;
    raft_id leader_id;                  /* 0 if unknown */
    struct peer *leader;                /* NULL if unknown */
    raft_term barrier_term, ready_term; /* a barrier of that term was issued, applied */
    raft_index nudged;                  /* followers were told of commits up to here */
    /* what is under way */
    struct raft_change change;
    struct raft_transfer transfer;
    bool changing, transferring;
    uint64_t commands_applied; /* in this life, and 1 for a snapshot */
    unsigned snapshots_writing;
    struct write *writes; /* to disk, under way */
    nsec quorum_heard_at;
    /* watchdog */
    raft_index progress_index;
    nsec progress_at;
    bool stepped_aside;
};

/* Starts libraft on `<directory>/log`, bootstrapping it if we found. FAILED with a text in engine.damage: what is there
 * can't be trusted, nothing was changed, and libraft does not run. */
status engine_open(struct record *record, struct error *error) must_check;
void engine_poll(struct record *record); /* roles, and commits to tell */
void engine_tick(struct record *record, nsec now);
unsigned engine_tick_after(const struct record *record, nsec now); /* ms */
void engine_close(struct record *record);
bool engine_leads(const struct record *record); /* with an entry of its own term applied */
const struct raft_server *engine_server(const struct record *record, const char *name);
status engine_add_voter(struct record *record, struct peer *peer, struct error *error); /* one step of it */
status engine_remove(struct record *record, uint64_t raft_id, struct error *error) must_check;
/* A message of libraft's has come; its strings and entries are the engine's from here on. */
void engine_receive(struct record *record, struct raft_message *message);
bool engine_settled(const struct record *record); /* the newest configuration is committed, as far as we know */
void engine_step_aside(struct record *record, const char *name);
unsigned engine_voters(const struct record *record);
uint64_t engine_applied(const struct record *record); /* index of the record up to here; 0 = nothing yet */

/* ---- record.c -------------------------------------------------------------------------------------------------- */

struct self_message {
    struct self_message *next;
    size_t length;
    uint8_t bytes[];
};

struct record {
    uv_loop_t *loop;
    struct record_callbacks callbacks;
    void *user;
    char directory[PATH_MAX_LENGTH + 1];
    char cluster_name[CLUSTER_NAME_MAX + 1];
    struct peer peers[MEMBERS_MAX];
    unsigned peers_count, self, founder, observers;
    struct record_shared_line *shared;
    unsigned shared_count;
    unsigned heartbeat_ms, election_ms, tick_ms, freshness_ms;
    struct identity identity;
    struct engine engine;
    struct feed feed;
    bool failed, closing, closed_engine;
    bool holding;         /* see record_hold */
    char damage[WHY_MAX]; /* why our record can't be used; then nothing but this is told to anybody; "" = it can */
    nsec rejoin_stuck_at; /* since when a change of the voters has been refused; 0 = it has not */
    void (*closed)(void *user);
    void *closed_user;

    uv_tcp_t listener;
    struct connection *connections;
    uv_timer_t timer;
    nsec ticked_at;
    uv_idle_t idle; /* runs while something is deferred */
    uv_check_t check;
    uv_prepare_t prepare;
    uv_async_t async; /* a thread of libuv's pool saw a disk error */
    unsigned handles; /* ours, not yet closed */
    atomic_bool disk_failed;
    char disk_error[256];

    struct self_message *to_self, **to_self_end;
    struct proposal *proposals, **proposals_end;
    uint64_t proposals_next;
    unsigned proposals_count;
    bool aside_wanted;
    char aside[NAME_MAX_LENGTH + 1];
    bool found_called; /* in this term of leadership */

    nsec noticed_at;
    unsigned notices_dropped;
};

void record_defer(struct record *record); /* another turn is wanted */
void record_tick_soon(struct record *record);
/* What a follower's tick has to do, it does when it has been woken anyway. */
void record_heard_leader(struct record *record, nsec now);
void record_fatal(struct record *record, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Rate limited. */
void record_notice(struct record *record, const char *format, ...) __attribute__((format(printf, 2, 3)));
void record_handle_closed(uv_handle_t *handle);    /* for handles counted in record->handles, data = record */
void record_closed_part(struct record *record);    /* something that closing waits for is gone */
bool record_observes(const struct record *record); /* we are no voter */
bool record_silent(const struct record *record);   /* failed or closing: no callback any more */
