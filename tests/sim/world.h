/* A modelled cluster around the real core: members with their daemon, guard and PostgreSQL, one committed log, a
 * network and a clock for each, all driven by events: the world jumps to whatever is due next. Everything that happens
 * comes from the seed and the plan.
 *
 * PostgreSQL is modelled as records of WAL (timeline, content): it compares timelines and positions, never contents, as
 * the real one does; a receiver's first reply reports what it has as flushed, before any check; each WAL sender and the
 * checkpointer take a new setting at their own time. The real codec carries commands, the real `record_apply` them.
 *
 *   world.c     time, daemons, actions, network      postgres.c  PostgreSQL, guard, the hands
 *   log.c       the modelled Raft                    check.c     the invariants I1 - I9 of the design
 *   plan.c      settings and faults of a run         sim.c       many seeds, one transcript, one verdict */
#pragma once
#include "model/planted.h"
#include "orchestrator/core.h"

#define WORLD_MEMBERS  5
#define WORLD_WAL      1024
#define WORLD_CONTENTS 8192
#define WORLD_LOG      2048
#define ENTRY_MAX      1024 /* bytes of an encoded command */
#define SETTINGS_KEPT  16
#define MESSAGES_MAX   1024
#define OCCASIONS_MAX  8192
#define FAULTS_MAX     24

/* ---- what a run is made of ---- */

enum fault_kind {
    FAULT_POSTGRES_KILL,
    FAULT_POSTGRES_FREEZE,
    FAULT_POSTGRES_RESTART, /* by somebody else: an administrator, systemd */
    FAULT_DAEMON_KILL,
    FAULT_DAEMON_FREEZE,
    FAULT_DAEMON_STOP, /* asked to hand over and end */
    FAULT_HOST_KILL,
    FAULT_HOST_FREEZE,
    FAULT_GUARD_FREEZE,
    FAULT_DISK_LOST,
    FAULT_RESTORED,    /* an older data directory, from a backup, in the place of the own */
    FAULT_ISOLATE,     /* from everyone */
    FAULT_CUT_ONE_WAY, /* what `member` sends to `other` is lost */
    FAULT_CUT_PAIR,    /* between the two, both ways */
    FAULT_MUTE,        /* what it sends to anyone is lost */
    FAULT_LOSS,        /* a part of all messages */
    FAULT_SLOW_NETWORK,
    FAULT_SLOW_APPLY,
    FAULT_LATE_PROPOSALS,
    FAULT_LEADER_CHANGE,
    FAULT_OPERATIONS_FAIL,
    FAULT_PROMOTIONS_FAIL,
    FAULT_SLOW_RELOAD,
    FAULT_SWITCHOVER,
    FAULT_POWER_CUT,  /* the host is killed, and what it had not flushed is gone */
    FAULT_DISK_HANGS, /* no flush returns, nor does a process end that waits for one */
    FAULT_HOST_PAUSE, /* a virtual machine, and its clock with it */
    FAULT_UNHEARD,    /* what its daemon tells `other` is lost; Raft and WAL get through */
    FAULT_HELD,       /* commands of the kind `what` land only when this ends */
    FAULT_BUSY,       /* clients write much more */
    FAULT_MENDED,     /* what was done to the member (or to everyone) ends now; in scenes only */
    FAULT_KINDS
};

/* Faults choose their victim when they happen, so that the minimised plan still means something. */
enum victim {
    VICTIM_MEMBER,
    VICTIM_PRIMARY,
    VICTIM_STANDBY,
    VICTIM_LEADER,
    VICTIM_NEXT /* after the primary */,
    VICTIM_ACTOR /* whose doing gave the cue */,
    VICTIM_EVERYONE
};

/* What a fault may wait for, once the one before it has begun. */
enum cue {
    CUE_NONE,      /* for its time only */
    CUE_THEN,      /* for nothing more */
    CUE_OPERATION, /* a member begins the operation `what` */
    CUE_PROPOSED,  /* somebody proposes the command `what` */
    CUE_RECORDED   /* it is recorded, and not void */
};

/* Begins at `at`; or before, `after` its cue. */
struct fault {
    nsec at, after, lasts;
    enum cue cue;
    unsigned what; /* operation kind, or tag of a command's body */
    enum fault_kind kind;
    enum victim victim;
    uint8_t member, other; /* by number; meaning depends on the victim */
    bool off;              /* dropped while minimising */
};

struct plan {
    uint64_t seed;
    unsigned members;
    unsigned observers; /* the last of the members: they apply the log, and have no vote */
    unsigned witnesses; /* those before them */
    Durability durability;
    uint32_t lease_ms;
    uint32_t priorities[WORLD_MEMBERS];
    int32_t drift_ppm[WORLD_MEMBERS];
    unsigned delay_us;       /* of messages, at most */
    unsigned write_ms;       /* between the commits of a client, about */
    unsigned snapshot_every; /* log entries */
    bool wall_jumps;         /* wall clocks show anything at all */
    bool poolers;
    unsigned hurry;      /* operations take 1 / hurry of their usual time */
    unsigned copying_ms; /* a big database: clones and rewinds take up to so much longer */
    bool no_rewinds;     /* what pg_rewind needs is not there */
    unsigned keeps;      /* records of WAL; who lacks more cannot stream. 0 = all */
    unsigned faults_count;
    struct fault faults[FAULTS_MAX];
    nsec ends; /* of all faults */
};

/* ---- PostgreSQL ---- */

struct wal_record {
    uint32_t timeline;
    uint32_t content; /* unique in the run */
};

struct receiver_name {
    uint32_t member, copy, epoch; /* member 0 = nobody */
};

struct setting {
    uint32_t needed;
    unsigned names_count;
    struct receiver_name names[WORLD_MEMBERS];
};

/* A WAL sender, by the member that it serves. */
struct sender {
    bool live, streaming;
    uint32_t session;
    struct receiver_name name;
    unsigned flushed; /* records, by the replies that came */
    uint32_t uses;    /* version of the setting */
};

struct modelled_postgres {
    DataState data;
    uint32_t copy;
    uint64_t lost_copies; /* what faults did away with: bits of 1 << copy */
    uint32_t pledged;
    ServerState server;
    bool standby_signal;
    unsigned length;  /* records of WAL written */
    unsigned flushed; /* of them on this disk, power cut or not */
    struct wal_record wal[WORLD_WAL];
    /* as a standby */
    int source;                /* in primary_conninfo: index; -1 = nobody */
    struct receiver_name name; /* under which it connects */
    char name_text[64];
    bool attached, streaming;
    uint32_t session;
    /* as an upstream */
    struct sender senders[WORLD_MEMBERS];
    struct setting settings[SETTINGS_KEPT];
    uint32_t setting_newest; /* version */
    bool commits_wait;       /* the checkpointer's part: the setting is not empty */
    /* as a primary */
    unsigned waiting_from; /* records from here on were written in this epoch */
    unsigned acknowledged; /* records before this were acknowledged to clients */
    unsigned durable_at;   /* length that the durable write under way waits for; 0 = none */
    nsec durable_since, durable_next;
    bool durable_seen;
    uint64_t durable_lsn;
    /* the guard */
    uint32_t guard_epoch;
    nsec guard_deadline; /* on the member's clock */
    unsigned guard_frozen;
    unsigned frozen;
    nsec frozen_since;
    unsigned disk_hangs;
    bool dying; /* killed, yet not gone before its disk answers */
};

/* ---- members ---- */

enum timer {
    TIMER_TICK,
    TIMER_FACTS,
    TIMER_OPERATION,
    TIMER_GUARD,
    TIMER_APPLY,
    TIMER_PROPOSAL,
    TIMER_PROPOSAL_MEMBER,
    TIMER_CLIENT,
    TIMER_DURABLE,
    TIMER_RECEIVER,
    TIMER_CHECKPOINTER,
    TIMER_FLUSH,
    TIMER_RESTART, /* of PostgreSQL, by itself */
    TIMERS
};
enum world_timer { WORLD_TIMER_ELECTION, WORLD_TIMER_FAULT, WORLD_TIMERS };

struct modelled_member {
    struct core_config config;
    nsec clock_offset;
    int32_t drift_ppm;
    bool up;         /* its daemon runs */
    unsigned frozen; /* and does nothing */
    nsec thaws_at;
    unsigned pauses;
    nsec paused_local;      /* what its clock showed then */
    nsec clock_wrong_until; /* true time; a lease counted over a pause is none */
    uint32_t starts;
    unsigned applied;      /* log entries given to the core */
    unsigned ever_applied; /* before the last crash */
    bool role_due;         /* elected, and not told yet */
    bool role_lost_due;
    struct {
        bool waits;
        unsigned index; /* of the log entry; 0 = rejected, or not known yet */
        uint32_t number;
    } proposals[2];
    unsigned slow_apply, operations_fail, promotions_fail, slow_reload, late_proposals;
    bool operating;
    struct operation operation;
    nsec operation_began;
    bool carried_out; /* the operation waits for its effect */
    struct facts facts;
    nsec postgres_restart_at;
    bool restart_as_primary;
    struct modelled_postgres postgres;
    struct core core; /* last: of an earlier run until its daemon starts */
};

enum occasion_kind {
    OCCASION_MESSAGE,
    OCCASION_ACKNOWLEDGE,
    OCCASION_RELOAD,
    OCCASION_SENDER_ENDS,
    OCCASION_PROPOSAL,
    OCCASION_FAULT_ENDS,
    OCCASION_VOID /* a fault that was mended before its time */
};

struct occasion {
    nsec at;
    uint32_t order;
    uint8_t kind, from, to;
    uint32_t a, b;
};

struct message_slot {
    Message message;
    unsigned readers;
};

struct proposal_slot {
    bool used, late, held;
    unsigned what; /* tag of the command's body */
    unsigned member;
    enum proposer proposer;
    uint32_t number;
    size_t length;
    uint8_t bytes[ENTRY_MAX];
};

struct world {
    struct plan plan;
    nsec now; /* true time; no member knows it */
    uint64_t random;
    unsigned members_count;
    nsec timers[WORLD_MEMBERS][TIMERS];
    nsec world_timers[WORLD_TIMERS];
    struct modelled_member members[WORLD_MEMBERS];

    /* network */
    uint8_t cuts[WORLD_MEMBERS][WORLD_MEMBERS];    /* [from][to] */
    uint8_t unheard[WORLD_MEMBERS][WORLD_MEMBERS]; /* [from][to] */
    unsigned losing, slow_network;
    unsigned free_messages_count;
    uint16_t free_messages[MESSAGES_MAX];
    unsigned occasions_count;
    uint32_t next_order;

    /* the log */
    int leader; /* the one that can commit; -1 = none */
    uint64_t term;
    unsigned log_length;
    Topology topology; /* all that is committed */
    History history;
    unsigned snapshot_index;
    struct proposal_slot proposals[64];
    uint8_t held[32]; /* by tag of the command's body */

    /* faults */
    unsigned next_fault;
    nsec cue_came; /* for it; NSEC_NEVER = not yet */
    unsigned cue_member;
    unsigned busy;
    bool quiet; /* no fault is under way or to come */
    nsec quiet_since;

    /* contents and what was promised about them */
    uint32_t next_content, next_session;
    uint8_t acknowledged[WORLD_CONTENTS];
    uint32_t acknowledged_count;
    uint32_t timeline_owner[256]; /* promotion that made it */
    uint32_t promotions;
    uint32_t published_primary[256]; /* by epoch; member id */
    uint32_t promoted_epoch[256];    /* by epoch; member id that was writable in it */
    struct {
        uint64_t seal;
        uint32_t copy;
        unsigned length;
    } claimed[WORLD_MEMBERS]; /* the position told in prepare */
    char violation[256];      /* the first broken invariant; empty = none */

    uint64_t core_steps, events;
    unsigned failovers, opened;
    bool trace;

    /* from here on nothing is read before it is written: a new run need not clear it */
    struct actions actions;
    Snapshot snapshot; /* of the log, up to snapshot_index */
    Command command;   /* decoded, for the moment */
    Command founding;
    struct message_slot messages[MESSAGES_MAX];
    struct occasion occasions[OCCASIONS_MAX];
    uint16_t log_bytes[WORLD_LOG];
    uint8_t log[WORLD_LOG][ENTRY_MAX];
    uint64_t log_hash[WORLD_LOG + 1]; /* of the topology after each entry */
};

/* ---- world.c ---- */
void world_init(struct world *world, const struct plan *plan);
/* Runs until `until` holds or `limit` passes; false if it does not come to hold, or an invariant broke. */
bool world_run(struct world *world, bool (*until)(const struct world *), nsec limit);
void world_advance(struct world *world, nsec time);
uint64_t draw(struct world *world, uint64_t below);
bool chance(struct world *world, unsigned in_thousand);
/* A duration that is mostly short. */
nsec draw_time(struct world *world, nsec most);
void occasion_add(struct world *world, struct occasion occasion);
void timer_at_latest(struct world *world, unsigned member, enum timer timer, nsec at);
nsec local_time(const struct world *world, unsigned member);
nsec true_time(const struct world *world, unsigned member, nsec local);
bool linked(const struct world *world, unsigned from, unsigned to);
bool connected(const struct world *world, unsigned a, unsigned b); /* both ways */
bool daemon_runs(const struct world *world, unsigned member);
bool is_witness_member(const struct world *world, unsigned member);
bool is_observer_member(const struct world *world, unsigned member);
void host_pause(struct world *world, unsigned member, bool paused);
void give(struct world *world, unsigned member, struct event *event);
void daemon_start(struct world *world, unsigned member);
void daemon_kill(struct world *world, unsigned member);
void daemon_freeze(struct world *world, unsigned member, bool frozen);
void tell(struct world *world, int member, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- log.c ---- */
void log_found(struct world *world);
void log_propose(struct world *world, unsigned member, const struct action *action);
void log_land(struct world *world, unsigned slot);
void log_land_held(struct world *world);
void log_apply(struct world *world, unsigned member);
void log_proposal_ends(struct world *world, unsigned member, enum proposer proposer);
void log_elect(struct world *world);
void log_disturbed(struct world *world); /* somebody came, went or was cut off */
void log_yield(struct world *world, unsigned from, unsigned to);
void log_drop_leader(struct world *world);

/* ---- postgres.c ---- */
#define LSN_OF(length) (1000 + 8 * (uint64_t)(length))
Position position_of(const struct modelled_postgres *postgres);
bool postgres_serves(const struct modelled_postgres *postgres);
void postgres_stop(struct world *world, unsigned member);
void postgres_freeze(struct world *world, unsigned member, bool frozen);
void postgres_guard(struct world *world, unsigned member);
void postgres_arm(struct world *world, unsigned member, uint32_t epoch, nsec deadline);
void postgres_client(struct world *world, unsigned member);
void postgres_durable(struct world *world, unsigned member);
void postgres_receive(struct world *world, unsigned member);
void postgres_acknowledged(struct world *world, unsigned member, unsigned from, uint32_t session, unsigned length);
void postgres_sender_reloads(struct world *world, unsigned member, unsigned to, uint32_t session, uint32_t version);
void postgres_checkpointer(struct world *world, unsigned member);
void postgres_sender_ends(struct world *world, unsigned member, unsigned to, uint32_t session);
void postgres_flush(struct world *world, unsigned member);
void postgres_disk(struct world *world, unsigned member, bool hangs);
void postgres_restarts(struct world *world, unsigned member);
void hands_begin(struct world *world, unsigned member, const struct operation *operation);
void hands_end(struct world *world, unsigned member);
void hands_die(struct world *world, unsigned member);  /* with their daemon */
void hands_tell(struct world *world, unsigned member); /* facts */
void facts_changed(struct world *world, unsigned member);

/* ---- check.c ---- */
void violated(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_step(struct world *world);
void check_committed(struct world *world, const Command *command, enum applied applied);
void check_applied(struct world *world, unsigned member);
void check_operation(struct world *world, unsigned member, const struct operation *operation);
void check_promoted(struct world *world, unsigned member, uint32_t epoch, uint32_t timeline);
void check_acknowledged(struct world *world, unsigned member, uint32_t content);
void check_received(struct world *world, unsigned to, unsigned from);
void check_told(struct world *world, unsigned member, const Observation *told);
void check_published(struct world *world, unsigned member);
void check_end(struct world *world);
uint64_t topology_hash(const Topology *topology);
/* The member that the record calls primary, open and really writable; -1 = none. */
int world_primary(const struct world *world);
/* One open primary, and every other member with a running daemon streams from it and counts in its one rule. */
bool world_is_redundant(const struct world *world);

/* ---- plan.c ---- */
/* A run without faults: `members` of them, default settings. */
void plan_plain(struct plan *plan, unsigned members, uint64_t seed, Durability durability);
/* What the seed says; with a bug planted, of a kind in which it would show. */
void plan_draw(struct plan *plan, uint64_t seed, int bug);
void fault_begin(struct world *world, const struct fault *fault);
void fault_end(struct world *world, enum fault_kind kind, unsigned member, unsigned other, unsigned what);
void plan_next_fault(struct world *world);
/* Something happened by the doing of `member` that the next fault may be waiting for. */
void plan_cue(struct world *world, enum cue cue, unsigned what, unsigned member);
const char *fault_name(enum fault_kind kind);
const char *planted_name(unsigned bug);
