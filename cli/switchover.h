/* What a switchover will do, and how one ended; from /v1/status alone. */
#pragma once
#include <jansson.h>

#include "base/error.h"

/* A standby further behind would keep writers waiting while it catches up. */
#define SWITCHOVER_LAG_MAX (16u << 20)

struct switchover_plan {
    char from[NAME_MAX_LENGTH + 1];
    char to[NAME_MAX_LENGTH + 1]; /* "" = the best standby */
    int64_t epoch;                /* in which it begins */
    int64_t lag_bytes;            /* of `to`, or the least of all; -1 if not known */
};

/* Fails with why it cannot be. `to` may be "". */
status switchover_plan(const json_t *status, const char *to, struct switchover_plan *ret_plan,
                       struct error *error) must_check;

enum switchover_outcome { SWITCHOVER_UNDER_WAY, SWITCHOVER_DONE, SWITCHOVER_FAILED };

/* `number` is that of the accepted request. */
enum switchover_outcome switchover_outcome(const struct switchover_plan *plan, int64_t number, const json_t *status);
