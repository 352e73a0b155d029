/* Who this daemon is in the cluster, kept in `<directory>/identity` and replaced atomically. Losing this file or the
 * log beside it loses votes: a raft id is never used again with another directory. Knows nothing of libraft. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct identity {
    uint64_t cluster_id; /* 0 = fresh: belongs to no cluster yet */
    uint64_t raft_id;    /* random, 63 bits */
    uint32_t start_count;
    bool founding;  /* we founded, and some configured member has not been made a voter yet */
    bool log_begun; /* something that matters was written to the log directory: it must still be there */
    bool rejoining; /* an operator said that the record was lost: the others may take us back under this raft id */
    int lock;       /* the directory, locked against a second daemon; not written */
};

/* Creates the directory (0700) and a fresh identity if there is none, counts this start, and writes it. FAILED if the
 * directory is not ours or in use. With a text in `ret_damage` what is there can't be trusted; then nothing was
 * changed, and the identity is empty but for its lock. */
status identity_open(struct identity *ret_identity, const char *directory, struct error *ret_damage,
                     struct error *error) must_check;
/* Sets what is in the directory aside, in `<directory>/damaged` in place of what an earlier call has put there, and
 * begins anew with another raft id that asks to rejoin. FAILED if the directory is in use. */
status identity_reset(const char *directory, struct error *error) must_check;
void identity_close(struct identity *identity);
/* On disk, file and directory entry, when it returns OK. */
status identity_write(const struct identity *identity, const char *directory, struct error *error) must_check;
/* A random number of 63 bits, never 0. */
status identity_random(uint64_t *ret_number, struct error *error) must_check;
