/* Reasons. A function that can fail returns a `status` that must be looked at, and leaves a sentence for a person
 * in the caller's `struct error`. Each level that passes it up puts its own name before it:
 * "rejoin: rewind: could not connect to 10.0.1.20:5432". No final period; never a secret. */
#pragma once
#include <stdbool.h>

#include "base/limits.h"

#define must_check __attribute__((warn_unused_result))

typedef enum status { OK = 0, FAILED = -1 } status;

struct error {
    char text[ERROR_TEXT_MAX];
};

/* Both return FAILED, so that `return error_set(error, ...)` reads well. `error` may be NULL. */
status error_set(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
status error_prefix(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
