/* What the parts of pgctl/ share: the whole state, and how operations run.
 *
 *   pgctl.c         opening, closing, the guard's news
 *   operate.c       runs one operation: steps, their questions, children, deadline
 *   operate_*.c     the operations themselves, each a table of steps
 *   diverged.c      keeping and listing WAL that a rewind or clone does away with
 *   observer.c      facts, and the durable write of a primary
 *   upkeep.c        slots, login, pg_hba
 *   settings.c datadir.c tablespaces.c version.c file.c    files
 *   door.c child.c                           the wish for a connection, one child process */
#pragma once
#include <limits.h>

#include "pgctl/child.h"
#include "pgctl/datadir.h"
#include "pgctl/diverged.h"
#include "pgctl/door.h"
#include "pgctl/guard.h"
#include "pgctl/pgctl.h"
#include "pgctl/settings.h"
#include "pgctl/tablespaces.h"
#include "session/session.h"

/* ---- operations ---- */

/* A step is entered once, or again after operate_again; then exactly one of the others is called for what it began. */
struct step {
    const char *name;
    void (*enter)(struct pgctl *pgctl);
    void (*answered)(struct pgctl *pgctl, const PGresult *result);
    void (*failed)(struct pgctl *pgctl, const struct error *error); /* of a question; NULL: that ends the operation */
    void (*ended)(struct pgctl *pgctl, const struct child_result *result);
    void (*guard)(struct pgctl *pgctl); /* the guard says something new */
    bool may_fail;                      /* `ended` is called however its child ends */
};

struct machine {
    const struct step *steps;
    int first;
    unsigned deadline_ms; /* unless the operation says otherwise */
};
extern const struct machine machine_initdb, machine_adopt, machine_clone, machine_rewind, machine_start, machine_stop,
    machine_kill, machine_cut, machine_follow, machine_fetch, machine_promote, machine_rule, machine_checkpoint;

/* Senders that have not yet been seen with the new rule. */
#define WAITED_SENDERS_MAX 64

struct operate {
    struct operation operation; /* kind is OPERATE_NONE when idle */
    const struct machine *machine;
    int state;
    struct session *session;     /* of the current step or a sequence of them */
    struct session *replication; /* for IDENTIFY_SYSTEM */
    bool kept;                   /* the sessions are of the operation before */
    bool identify;               /* wanted now */
    struct session *probe;       /* a commit that must wait */
    struct child *child;
    uv_timer_t again;
    uv_timer_t deadline;
    struct operation_result result;
    struct operation_result cancelled; /* not yet told; kind is OPERATE_NONE if there is none */
    /* what single operations remember */
    uint64_t settings_written_us; /* wall clock, compared with pg_conf_load_time() only */
    uint64_t replayed;            /* CUT: at the last look, without a receiver */
    unsigned cut_resets;
    unsigned looks;  /* how often in this state */
    long log_offset; /* START: where this server's log begins */
    pid_t guard_pid; /* START: of the guard that was asked */
    uint64_t exits;  /* and its exits before */
    int probe_pid;   /* RULE: whose commit must wait */
    int senders[WAITED_SENDERS_MAX];
    unsigned senders_count;
    bool senders_known;
    bool restarted;                     /* PROMOTE: once, to forget a void timeline; START: once, with more */
    Position diverged;                  /* REWIND: where the histories part */
    bool rewriting;                     /* REWIND: the data directory is not what it was */
    char tablespaces[CHILD_OUTPUT_MAX]; /* CLONE: as the upstream lists them */
};

void operate_enter(struct pgctl *pgctl, int state);
void operate_again(struct pgctl *pgctl, unsigned after_ms);
void operate_ask(struct pgctl *pgctl, const char *sql);
void operate_ask_long(struct pgctl *pgctl, const char *sql); /* may take until the operation's deadline */
/* In a new session: one that has the settings in force now. */
void operate_ask_anew(struct pgctl *pgctl, const char *sql);
void operate_identify(struct pgctl *pgctl);
/* Connects for it while other steps go on. */
void operate_identify_early(struct pgctl *pgctl);
void operate_spawn(struct pgctl *pgctl, const char *const argv[], void (*line)(void *user, const char *line));
void operate_done(struct pgctl *pgctl);
void operate_failed(struct pgctl *pgctl, const struct error *error);
void operate_refuse(struct pgctl *pgctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
void operate_fail(struct pgctl *pgctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
void operate_progress(struct pgctl *pgctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "clone: 43 % of 1.2 GB" */
void operate_progress_kb(struct pgctl *pgctl, const char *what, unsigned long long done, unsigned long long all);
void operate_open(struct pgctl *pgctl);
void operate_close(struct pgctl *pgctl);
void operate_server_changed(struct pgctl *pgctl); /* gone, or another one */
void operate_guard_changed(struct pgctl *pgctl);
bool operate_busy(const struct pgctl *pgctl);

/* Shared by several operations. They end the operation and return FAILED when they cannot. */
status operate_need_down(struct pgctl *pgctl) must_check;    /* REFUSED while a server runs */
status operate_need_running(struct pgctl *pgctl) must_check; /* REFUSED while none runs */
status operate_write_settings(struct pgctl *pgctl) must_check;
status operate_reload(struct pgctl *pgctl) must_check;
/* Before a start: what the primary of this WAL had (of a new instance: what initdb had), as a standby with less ends at
 * once. A step's `enter`; and for its `ended`, which may have failed: PostgreSQL then says why. */
void operate_control(struct pgctl *pgctl);
void operate_control_read(struct pgctl *pgctl, const struct child_result *result);
status operate_start_server(struct pgctl *pgctl, const struct settings *settings) must_check;
status operate_start_alone(struct pgctl *pgctl) must_check; /* as a standby of nobody */
/* For a step that asks until the server answers. */
void operate_try_again(struct pgctl *pgctl, const struct error *error);
/* While the server comes up: true if it has gone instead, with the reason. */
bool operate_start_failed(struct pgctl *pgctl, struct error *ret_error);
/* The server started last, lately. */
bool operate_log_says(const struct pgctl *pgctl, const char *what);

/* ---- observer ---- */

struct observer {
    struct session *session;
    struct session *identify;
    struct session *durable;
    struct door *door;
    uv_timer_t tick;
    uv_timer_t durable_tick;
    uv_timer_t door_tick;
    bool again;    /* asked to look while looking */
    bool answered; /* since the postmaster started */
    nsec answered_at;
    nsec asking_since;
    nsec unanswered_since;        /* of the first question without an answer; 0 = none */
    nsec inside_asked_at;         /* what is told of the inside was asked for then, and may be no newer */
    nsec hasty_until;             /* things are in flux: look often */
    uint64_t lsn;                 /* as seen last */
    uint32_t replay_timeline;     /* by IDENTIFY_SYSTEM */
    uint64_t replay_timeline_lsn; /* for a position up to here */
    uint32_t received_timeline;
    bool was_primary;
};

status observer_open(struct pgctl *pgctl, struct error *error) must_check;
void observer_close(struct pgctl *pgctl);
/* Look now; and often for a while. */
void observer_poke(struct pgctl *pgctl);
void observer_guard_changed(struct pgctl *pgctl, const struct guard_state *before);
/* The data directory, as seen from outside, has changed. */
void observer_look_at_data(struct pgctl *pgctl);

/* Two columns of a question, and what they say: where the oldest WAL segment begins that is there; 0 = none is. */
#define SQL_OLDEST_WAL                                                                  \
    "(SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'), " \
    "pg_size_bytes(current_setting('wal_segment_size'))"
uint64_t result_oldest_lsn(const PGresult *result, int column);

/* ---- upkeep ---- */

#define UPKEEP_STATEMENTS_MAX (3 * DATA_MEMBERS_MAX + 8)

struct upkeeper {
    struct session *session;
    uv_timer_t tick;
    bool known;      /* pgctl_upkeep has been called */
    bool login_made; /* in this tenure as primary */
    bool checkpointed;
    bool check_restart;
    bool again;
    bool failed; /* something in this round */
    struct upkeep upkeep;
    char *statements[UPKEEP_STATEMENTS_MAX];
    unsigned statements_count;
    unsigned statement;
    struct error trouble; /* told last; said once */
};

status upkeep_open(struct pgctl *pgctl, struct error *error) must_check;
void upkeep_close(struct pgctl *pgctl);
/* A round soon: the server came up, or became primary. */
void upkeep_poke(struct pgctl *pgctl);
/* The server has gone, or is another one. */
void upkeep_server_changed(struct pgctl *pgctl);
/* pg_hba.conf and pg_ident.conf as they should be, and loaded. */
status upkeep_write_hba(struct pgctl *pgctl, struct error *error) must_check;

/* ---- all of it ---- */

struct pgctl {
    uv_loop_t *loop;
    struct pgctl_config config; /* our copies */
    struct pgctl_callbacks callbacks;
    void *user;
    unsigned server_version;
    const struct version *version;
    char session_options[512];

    char label_path[PATH_MAX];
    char pledge_path[PATH_MAX];
    char settings_path[PATH_MAX];
    char pgpass_path[PATH_MAX];
    char guard_socket[108];
    char log_path[PATH_MAX];
    char fresh_directory[PATH_MAX]; /* <data_directory>.new: one that is not complete */
    char old_directory[PATH_MAX];   /* <data_directory>.old: what a clone took the place of */

    struct guard *guard;
    struct guard_state guard_state;
    struct settings settings;
    struct minimums minimums;
    struct datadir data;
    uint32_t pledged; /* damaged: no epoch is above it */
    char pledge_damage[REASON_MAX_LENGTH + 1];
    struct facts facts;

    struct operate operate;
    struct diverged diverged;
    struct observer observer;
    struct upkeeper upkeeper;

    unsigned children; /* not yet reaped */
    struct child *remover;
    uv_timer_t last_handle; /* closed after all others */
    bool closing;
    bool guard_closed;
    void (*closed)(void *user);
    void *closed_user;
};

struct session *pgctl_session(struct pgctl *pgctl, bool replication);
void pgctl_notice(struct pgctl *pgctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Path of one of PostgreSQL's programs, in a buffer of PATH_MAX bytes. */
const char *pgctl_program(const struct pgctl *pgctl, const char *name, char *buffer);
/* Every child's `ended` calls it: closing waits for all of them. */
void pgctl_child_ended(struct pgctl *pgctl);
bool pgctl_server_running(const struct pgctl *pgctl);
/* Deletes fresh_directory and old_directory, with their tablespaces, in the background. */
void pgctl_remove_leftovers(struct pgctl *pgctl);
/* The command line that does that. */
struct removal {
    struct paths tablespaces; /* to be freed */
    const char *argv[8 + 4 * TABLESPACES_MAX];
};
void pgctl_removal(const struct pgctl *pgctl, struct removal *ret_removal);

status config_copy(struct pgctl_config *ret_copy, const struct pgctl_config *config, struct error *error) must_check;
void config_free(struct pgctl_config *config);
