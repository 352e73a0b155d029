/* A libpq connection string for the cluster. */
#pragma once
#include <jansson.h>

#include "base/error.h"

struct dsn {
    const char *session;         /* target_session_attrs */
    const char *database, *user; /* NULL: not in the string */
};

/* All data members of /v1/status in their order. malloc'ed, the caller frees it. */
status dsn_text(const json_t *status, const struct dsn *dsn, char **ret_text, struct error *error) must_check;
