/* Tablespaces: where the links of a data directory lead, and where those of a clone are to lead.
 *
 * A clone is complete before it takes the place of what is there, so for a while there are two of each tablespace, and
 * pg_basebackup wants an empty directory for each. Those of a clone therefore get a directory of their own below the
 * location, LOCATION/ttorch-MEMBER-COPY. Nothing here needs a running server. */
#pragma once
#include <stdint.h>

#include "base/error.h"

#define TABLESPACES_MAX 64

/* Paths, to be freed with paths_free. */
struct paths {
    unsigned count;
    char *list[4 * TABLESPACES_MAX];
};
void paths_free(struct paths *paths);

/* Options of pg_basebackup for the upstream's tablespaces. `listing` is what psql said: a line "locations", then one
 * line each. FAILED: too many, or nobody could name them on a command line. */
status tablespaces_map(struct paths *ret_options, const char *listing, const char *member, uint32_t copy,
                       struct error *error) must_check;

/* Adds what tablespaces of the data directory `leftover` have on disk and `current` does not use: it goes with it. */
void tablespaces_of_leftover(struct paths *paths, const char *leftover, const char *current, const char *member,
                             unsigned major);

/* Another data directory on this machine has its tablespace in ours, or ours is in its: pg_rewind, which goes by the
 * files below a link, would take the one for a part of the other. `ret_path` (PATH_MAX) is that place. */
bool tablespaces_overlap(const char *data_directory, char *ret_path);
