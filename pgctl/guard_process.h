/* The processes of an instance, as /proc shows them. Used by ttorch-guard alone: nothing here allocates. */
#pragma once
#include <sys/types.h>

#include "base/error.h"
#include "base/time.h"

/* SIGKILL to the postmaster (our child, not reaped; or 0) and then to every descendant of ours that one look at /proc
 * shows, whatever session it leads. Somebody may have forked meanwhile: repeat until waitpid says that there is no
 * child. */
void instance_processes_kill(pid_t postmaster);

/* SIGKILL to every process that an earlier postmaster on `data_directory` left behind, and waits until none is left:
 * those of our user whose program is called postgres and whose working directory is the data directory. Then nothing is
 * in the way of a new postmaster. FAILED when some are still there at `deadline`. */
status leftovers_kill(const char *data_directory, nsec deadline, struct error *error) must_check;
