/* ttorch-guard's loop: the instance, the daemons that connect, SIGTERM. */
#pragma once
#include "base/error.h"
#include "pgctl/guard_watchdog.h"

/* Serves until told to end and nothing of the instance is left. `listener` is a listening SOCK_SEQPACKET socket;
 * `signals` a signalfd for SIGCHLD and SIGTERM, both blocked (it may carry others, which are ignored). */
status guard_serve(int listener, int signals, const struct watchdog *watchdog, struct error *error) must_check;
