/* Term and vote once more, with a checksum: libraft's own metadata files have none, and a flipped bit in them would
 * make us vote twice in a term. Written before libraft's, so after a crash this one may be ahead, by one step at most.
 * And up to where the log was on disk, but for the last second: libraft takes missing files for files that never were.
 *
 * Two slots take turns, so that a write cut short spoils neither the other one nor our trust. Blocks for one fdatasync,
 * as libraft does for its own in elections; beside these, once a second at most. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct ballot {
    uint64_t serial; /* of the newest slot; 0 = none was ever written */
    uint64_t term, vote;
    uint64_t previous_term, previous_vote; /* as long as libraft's files may still have these */
    uint64_t last_index;                   /* the log reached at least up to here */
};

/* The newest sound slot of `<directory>/ballot`; serial 0 if there is no such file. FAILED: no slot is sound, or the
 * file can't be read. */
status ballot_read(struct ballot *ret_ballot, const char *directory, struct error *error) must_check;
/* On disk when it returns OK. `ballot` becomes the newest slot, with its former term and vote as the previous ones. */
status ballot_write(struct ballot *ballot, const char *directory, uint64_t term, uint64_t vote, uint64_t last_index,
                    struct error *error) must_check;
/* False: libraft's files do not say what they said last. */
bool ballot_agrees(const struct ballot *ballot, uint64_t term, uint64_t vote);
