/* The transactions in a piece of WAL, from what pg_waldump prints of it line by line. */
#pragma once
#include <stdint.h>

#include "base/error.h"

#define TRANSACTIONS_RECORDS_MAX 1000000 /* records to read: some seconds, and more than anybody will look through */

struct transactions_sum {
    unsigned commits;
    unsigned probes;     /* commits of nothing but ttorch's own durable write; not among the commits */
    unsigned unfinished; /* transactions that wrote and did not commit */
    uint64_t records;
    uint64_t end; /* LSN after the last record, 0 if there was none */
};

struct transactions;

/* NULL when out of memory. */
struct transactions *transactions_new(void);
void transactions_free(struct transactions *transactions);
/* Lines that are not of a record, and records at or below one that was taken already, change nothing. */
void transactions_take(struct transactions *transactions, const char *line);
void transactions_sum(const struct transactions *transactions, struct transactions_sum *ret_sum);
/* A line for each commit: xid, commit time, LSN, records, bytes, relations. Valid until the next call of any. */
const char *transactions_text(const struct transactions *transactions);
