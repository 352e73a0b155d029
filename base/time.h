/* Time is a `nsec`: nanoseconds of CLOCK_BOOTTIME on this machine, which also counts suspended time. Values of two
 * machines are never compared. The pure libraries receive the time in events; only hands call `time_now`. */
#pragma once
#include <stdint.h>

typedef uint64_t nsec;

#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC  1000000000ull
#define NSEC_NEVER    UINT64_MAX

static inline nsec msec(uint64_t milliseconds) { return milliseconds * NSEC_PER_MSEC; }

/* Milliseconds from `from` to `to`, 0 if `to` is not later. */
static inline uint64_t msec_between(nsec from, nsec to) { return to > from ? (to - from) / NSEC_PER_MSEC : 0; }

nsec time_now(void);
/* Wall clock in milliseconds since 1970, for people only: no decision may rest on it. */
uint64_t time_wall_ms(void);
