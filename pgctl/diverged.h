/* WAL that is in no primary's history, kept before a rewind or a clone does away with it: the segments from where the
 * histories part, in <state directory>/diverged/<time>-<lsn>/, with a list of their transactions beside them. The
 * oldest directories go when all of them are larger than postgresql.diverged_keep, but never the newest.
 *
 * Three steps of an operation: copy -> prune -> list. Each of them spawns one child, or has nothing to do. */
#pragma once
#include "model/operation.h"
#include "pgctl/transactions.h"

struct pgctl;

#define DIVERGED_TIMELINES_MAX 4

/* What is kept and was not yet told: a rewind that is tried again, or ends in a clone, does not keep it twice. */
struct diverged {
    Position from; /* where the histories part; lsn 0 = nothing is kept */
    uint32_t copy;
    char directory[160];
    unsigned segments, left_out;
    struct diverged_timeline {
        uint32_t timeline;
        uint64_t start;
    } timelines[DIVERGED_TIMELINES_MAX];
    unsigned timelines_count, listed;
    struct transactions *transactions; /* while it is listed */
    struct diverged_wal told;
};

bool diverged_is_kept(const struct pgctl *pgctl, Position from);
/* Spawns the copying, or ends the operation. */
void diverged_copy(struct pgctl *pgctl, Position from);
/* False if nothing has to go. */
bool diverged_prune(struct pgctl *pgctl);
/* Spawns pg_waldump for the next timeline; false once all are listed and the list is written. */
bool diverged_list(struct pgctl *pgctl, const char *operation);
/* Into the operation's result; from then on it is told. */
void diverged_tell(struct pgctl *pgctl);
void diverged_forget(struct pgctl *pgctl);
