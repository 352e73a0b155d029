/* The kernel's watchdog, as ttorch-guard keeps it: open and fed while PostgreSQL has a deadline, so that a machine on
 * which not even the guard runs any more is reset; closed in peace once no deadline is left.
 *
 *             begin: a deadline            end: no deadline, or nothing runs
 *     CLOSED ------------------> FED -------------------------------------> CLOSED
 *        |   no such device, or it cannot be set
 *        +---> automatic: said once; required: refused
 *
 * Past the deadline it is not fed: if killing takes as long as its timeout, the machine goes. Nothing allocates. */
#pragma once
#include "base/error.h"
#include "base/time.h"
#include "pgctl/guard_protocol.h"

enum watchdog_mode { WATCHDOG_OFF, WATCHDOG_AUTOMATIC, WATCHDOG_REQUIRED };

struct watchdog {
    enum watchdog_mode mode;
    const char *device;
    int timeout_s;                                             /* wanted */
    int (*control)(int fd, unsigned long request, int *value); /* ioctl, but in tests */
    int fd;                                                    /* -1 = closed */
    nsec interval, next_feed;
    bool complained; /* automatic: said once */
};

/* False if `mode` is no such word. `device` must stay valid. */
bool watchdog_init(struct watchdog *watchdog, const char *mode, const char *device, int timeout_s);
/* FAILED only when it is required and cannot be used: with a text that begins with GUARD_NO_WATCHDOG. */
status watchdog_begin(struct watchdog *watchdog, struct error *error) must_check;
/* After every wake-up. `deadline` of what runs, NSEC_NEVER if nothing runs or it has none. */
void watchdog_tend(struct watchdog *watchdog, nsec deadline, nsec now);
/* When to tend it next at the latest; NSEC_NEVER while it is closed. */
nsec watchdog_next(const struct watchdog *watchdog);
