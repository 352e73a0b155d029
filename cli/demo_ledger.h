/* The demo's client: writes numbered rows at a steady rate, as a good application does, and keeps every
 * acknowledgement. Knows libpq and the members' addresses; knows nothing of the daemons: which member takes writes it
 * finds out by asking PostgreSQL. Runs on a thread of its own. */
#pragma once
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/time.h"

/* A row that PostgreSQL answered for, without the warning that it may not have been replicated. */
struct ledger_ack {
    uint64_t number;
    nsec sent_at;
    nsec acknowledged_at;
};

struct ledger;

/* Makes the table on a primary, and gives role postgres a password for logins over TCP. Blocks. */
status ledger_found(const char *conninfo, const char *password, struct error *error) must_check;

/* Begins to write: one connection is kept open to each member (`conninfos`, copied). */
status ledger_start(struct ledger **ret_ledger, const char *const conninfos[], unsigned count,
                    struct error *error) must_check;
void ledger_stop(struct ledger *ledger); /* NULL is fine */

/* Everything acknowledged up to now, in the order of acknowledgement. The caller frees `*ret_acks`. */
size_t ledger_acks(struct ledger *ledger, struct ledger_ack **ret_acks);
/* The newest one, and how many there are: 0 = none, `*ret_ack` untouched. */
size_t ledger_newest(struct ledger *ledger, struct ledger_ack *ret_ack);

/* Of `acks`, how many are not on the member of `conninfo`: rows lost. Blocks, at most some seconds. */
status ledger_count_lost(const char *conninfo, const struct ledger_ack *acks, size_t count, size_t *ret_lost,
                         struct error *error) must_check;
