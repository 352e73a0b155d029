#include "pgctl/version.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct version versions[] = {
    /* major, control, checkpoint, transaction_timeout */
    {14, 1300, true, false}, {15, 1300, true, false}, {16, 1300, false, false},
    {17, 1700, false, true}, {18, 1800, false, true},
};

const struct version *version_find(unsigned major) {
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        if (versions[i].major == major)
            return &versions[i];
    return NULL;
}

status version_parse(unsigned *ret_number, const char *text, struct error *error) {
    unsigned major, minor = 0;
    int named = (int)strcspn(text, "\n");
    if (sscanf(text, "postgres (PostgreSQL) %u.%u", &major, &minor) < 1)
        return error_set(error, "\"%.*s\" is not a version of PostgreSQL", named, text);
    if (version_find(major) == NULL)
        return error_set(error, "%.*s is not supported: it must be PostgreSQL 14 to 18", named, text);
    *ret_number = major * 10000 + minor;
    return OK;
}
