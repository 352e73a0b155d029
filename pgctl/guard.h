/* The daemon's side of ttorch-guard, the parent of the postmaster. The guard starts PostgreSQL, reports its exit once
 * every process of the instance is reaped, and kills them all at a deadline that the daemon extends. It outlives the
 * daemon: a restarted daemon finds it by its socket and takes it over.
 *
 * Everything runs on the caller's libuv loop; callbacks come from the loop, never from inside a call. */
#pragma once
#include <sys/types.h>
#include <uv.h>

#include "base/error.h"
#include "base/time.h"
#include "pgctl/guard_protocol.h"

struct guard;

struct guard_state {
    bool connected; /* a guard answers; if not, the rest is the last that it said */
    enum guard_server server;
    pid_t guard_pid;
    pid_t postmaster_pid;             /* 0 when down */
    int exit_status;                  /* as from waitpid, of the last postmaster that ended */
    uint64_t exits;                   /* how many postmasters of this guard have ended and been reaped entirely */
    bool killed_by_deadline;          /* the last end was ours, at the deadline */
    uint32_t epoch;                   /* last armed; survives the daemon */
    nsec deadline;                    /* CLOCK_BOOTTIME; NSEC_NEVER = none */
    char failure[GUARD_TEXT_MAX + 1]; /* why the last start, signal or kill came to nothing, or no guard answers */
};

/* Called on every change, at once; also once after opening. When the guard itself is gone (connected = false) its
 * postmaster is killed by the kernel; the client then starts a new guard, which first kills what is left of the
 * instance, and reports connected again. */
typedef void guard_changed(void *user, const struct guard_state *state);

struct guard_config {
    const char *program;        /* path of ttorch-guard */
    const char *socket_path;    /* unix SOCK_SEQPACKET, in a directory of mode 0700; at most 107 bytes */
    const char *data_directory; /* PGDATA: whose left-over processes a new guard kills before anything else */
    const char *log_file;       /* where a guard and its PostgreSQL write stdout and stderr */
    const char *watchdog;       /* "off", "automatic" or "required"; NULL = off. The three are a new guard's; one that
                                 * is taken over keeps its own */
    const char *watchdog_device;
    unsigned watchdog_s; /* its timeout */
};

/* Connects to the guard at socket_path, or starts one (detached: own session, survives us, not our child for long). */
status guard_open(struct guard **ret_guard, uv_loop_t *loop, const struct guard_config *config, guard_changed *changed,
                  void *user, struct error *error) must_check;
const struct guard_state *guard_state(const struct guard *guard);

/* Starts `argv[0]` with the guard as its parent and no deadline. FAILED when one is running or no guard answers. */
status guard_start(struct guard *guard, const char *const argv[], struct error *error) must_check;
/* Sends `signal` to the postmaster (SIGINT = fast stop, SIGHUP = reload, SIGUSR1 = look for the promote file). */
status guard_signal(struct guard *guard, int signal, struct error *error) must_check;
/* SIGKILL to the postmaster and every descendant, until none is left; then `changed` with GUARD_DOWN. */
status guard_kill(struct guard *guard, struct error *error) must_check;
/* Sets epoch and deadline. FAILED if no guard took it (the answer is awaited for at most a few ms on the socket, which
 * is local; the guard does nothing slow). A deadline of the same epoch never moves backwards; NSEC_NEVER lifts it. */
status guard_arm(struct guard *guard, uint32_t epoch, nsec deadline, struct error *error) must_check;
/* `keep`: disconnect and leave the guard alone. Else: tell it to kill what runs and exit. */
void guard_close(struct guard *guard, bool keep, void (*closed)(void *user), void *user);
