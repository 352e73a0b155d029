/* The hands on this host's PostgreSQL: its data directory, its processes (through ttorch-guard), its settings files,
 * and short SQL through non-blocking libpq. They do what an operation says, and tell what they see; they decide
 * nothing, and know nothing of members, rules, epochs beyond carrying their numbers.
 *
 * Everything runs on the caller's libuv loop and never blocks it; PostgreSQL's programs are child processes with a
 * deadline and captured stderr. Callbacks come from the loop, never from inside a call. Given strings are copied. */
#pragma once
#include <uv.h>

#include "base/error.h"
#include "model/facts.h"
#include "model/operation.h"

struct pgctl;

struct pgctl_parameter {
    const char *name;
    const char *value;
};

struct pgctl_config {
    const char *member;         /* our name */
    const char *bin_directory;  /* "/usr/lib/postgresql/15/bin" */
    const char *data_directory; /* PGDATA; its parent must be writable: clones are swapped in by rename */
    const char
        *state_directory;      /* ours, mode 0700, outside PGDATA: label, pledge, settings file, pgpass, guard socket */
    const char *guard_program; /* path of ttorch-guard */
    const char *listen_addresses; /* PostgreSQL's own setting */
    uint16_t port;
    const char *socket_directory;
    const char *superuser;        /* role that we use locally over the socket (peer): "postgres" */
    const char *replication_user; /* "ttorch" */
    const char *password_file;    /* holds the replication login's password, one line, mode checked by config/ */
    const struct pgctl_parameter *parameters_all;
    unsigned parameters_all_count;
    const struct pgctl_parameter *parameters_primary;
    unsigned parameters_primary_count;
    const struct pgctl_parameter *parameters_standby;
    unsigned parameters_standby_count;
    const char *const *hba_lines; /* the user's own lines, put before ours */
    unsigned hba_lines_count;
    uint64_t slot_keep_bytes;     /* max_slot_wal_keep_size */
    uint64_t diverged_keep_bytes; /* most that is kept of diverged WAL, of all times together */
    const char *watchdog;         /* "off", "automatic" or "required"; NULL = off; of the next guard that is started */
    const char *watchdog_device;
    unsigned watchdog_s;        /* its timeout */
    unsigned probe_interval_ms; /* durable write on a primary */
};

struct pgctl_callbacks {
    void (*facts)(void *user, const struct facts *facts);
    void (*done)(void *user, const struct operation_result *result);
    /* Progress of the operation under way, for people: "clone: 43 % of 1.2 GB". */
    void (*progress)(void *user, uint64_t serial, const char *text);
    void (*notice)(void *user, const char *text);
};

/* Takes over a guard that is already there (a restarted daemon), else starts one. FAILED: programs missing, a version
 * of PostgreSQL that is not 14 to 18 (named), directories unusable. */
status pgctl_open(struct pgctl **ret_pgctl, uv_loop_t *loop, const struct pgctl_config *config,
                  const struct pgctl_callbacks *callbacks, void *user, struct error *error) must_check;

/* Begins an operation. Must not be called while another is under way, except for OPERATE_KILL. */
void pgctl_operate(struct pgctl *pgctl, const struct operation *operation);

/* The guard kills every process of the instance when `deadline` (CLOCK_BOOTTIME) passes; NSEC_NEVER lifts it (for a
 * standby). A deadline never moves backwards in the same epoch. Returns false if no guard took it. */
bool pgctl_arm(struct pgctl *pgctl, uint32_t epoch, nsec deadline);

/* Replaces what is kept true without asking (slots, pg_hba, login). */
void pgctl_upkeep(struct pgctl *pgctl, const struct upkeep *upkeep);

/* Changed parameters and hba lines, at run time: written, reloaded. Parameters that need a restart are named in a
 * notice and take effect at the next start. */
status pgctl_reload(struct pgctl *pgctl, const struct pgctl_config *config, struct error *error) must_check;

/* An operator gives up what damaged files of ours held (facts.damaged); the sound ones stay. A pledge is taken to have
 * been of `epoch`, the newest that it can have been of. A data directory is number `copy`, or, if nobody knows (0), a
 * broken one without a number. */
status pgctl_mend(struct pgctl *pgctl, uint32_t epoch, uint32_t copy, struct error *error) must_check;

/* `keep` = the guard and PostgreSQL go on without us (a restart of the daemon); else the guard is told to end, which
 * kills what still runs: stop PostgreSQL first. */
void pgctl_close(struct pgctl *pgctl, bool keep, void (*closed)(void *user), void *user);
