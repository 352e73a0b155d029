/* The versions of PostgreSQL that we know, and all that differs between them for us. Everything that depends on a
 * version is a column here; no other file compares version numbers. */
#pragma once
#include <stdint.h>

#include "base/error.h"

struct version {
    unsigned major;               /* 15 */
    uint32_t control_version;     /* pg_control_version in global/pg_control */
    bool rewind_needs_checkpoint; /* pg_rewind takes the source's timeline from its last checkpoint */
    bool transaction_timeout;     /* the setting exists */
};

/* What `postgres --version` prints, as 150020. FAILED: not PostgreSQL, or one that we do not know (named). */
status version_parse(unsigned *ret_number, const char *text, struct error *error) must_check;
/* NULL if we do not know it. */
const struct version *version_find(unsigned major);
