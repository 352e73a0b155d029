/* The instance that ttorch-guard holds: one postmaster at a time and all its descendants, and the deadline. Nothing
 * here blocks or allocates; the owner calls `instance_reap` on SIGCHLD and `instance_tick` after every wake-up,
 * whatever the reason.
 *
 *             start             it exits               none left
 *     DOWN ----------> RUNNING -----------> LEAVING -------------+
 *      ^                  | it crashed, kill,  | the moment      |
 *      |                  v deadline           v is over         |
 *      |                  +----------------> KILLING             |
 *      | none left                             |                 |
 *      +---------------------------------------+-----------------+ */
#pragma once
#include <sys/types.h>

#include "base/error.h"
#include "base/time.h"
#include "pgctl/guard_protocol.h"

enum instance_phase {
    INSTANCE_DOWN,
    INSTANCE_RUNNING,
    INSTANCE_LEAVING, /* the postmaster exited; its log collector has a moment to write what it still reads */
    INSTANCE_KILLING,
};

struct instance {
    enum instance_phase phase;
    pid_t postmaster; /* 0 once reaped */
    int exec_failure; /* pipe that holds the errno of a failed exec, else nothing */
    int timer;        /* timerfd that wakes us at the deadline */
    nsec ended;       /* when it was killed, or exited */
    nsec next_look;   /* LEAVING: when the moment is over; KILLING: when to look for survivors again */
    nsec look_delay;
    struct guard_told told;
};

status instance_init(struct instance *instance, struct error *error) must_check;

/* `argv` ends with NULL. An exec that fails is told as an exit, with told.failure. */
status instance_start(struct instance *instance, char *const argv[], struct error *error) must_check;
status instance_signal(struct instance *instance, int signal, struct error *error) must_check;
/* Does nothing when nothing runs. */
void instance_kill(struct instance *instance);
/* A smaller epoch is refused; an earlier deadline of the same epoch is taken as already known. */
status instance_arm(struct instance *instance, uint32_t epoch, nsec deadline, struct error *error) must_check;

void instance_reap(struct instance *instance);
/* Kills at the deadline, and goes on killing. */
void instance_tick(struct instance *instance);
/* Whether nothing has to be done by any time: nothing runs, or what runs has no deadline. */
bool instance_is_patient(const struct instance *instance);
/* When the next tick is due at the latest, apart from the deadline, for which the timerfd wakes us. */
nsec instance_next(const struct instance *instance);
