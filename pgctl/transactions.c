#include "pgctl/transactions.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_MAX           4096      /* transactions under way; of further ones only the commit is told */
#define RELATIONS_MAX      6         /* told by name */
#define TEXT_MAX           (1 << 20) /* some 10000 commits; further ones are only counted */
#define FIRST_USER_RELFILE 16384     /* FirstNormalObjectId: below it are the system catalogs */

struct relation {
    uint32_t tablespace, database, file;
    unsigned records;
};

struct transaction {
    uint32_t xid;
    unsigned records, messages, catalogs, others;
    uint64_t bytes;
    struct relation relations[RELATIONS_MAX];
    unsigned relations_count;
};

struct transactions {
    struct transactions_sum sum;
    uint64_t last; /* LSN of the last record taken */
    unsigned open_count;
    size_t length;
    struct transaction open[OPEN_MAX];
    char text[TEXT_MAX];
};

struct transactions *transactions_new(void) {
    return calloc(1, sizeof(struct transactions));
}
void transactions_free(struct transactions *transactions) { free(transactions); }
const char *transactions_text(const struct transactions *transactions) { return transactions->text; }

void transactions_sum(const struct transactions *transactions, struct transactions_sum *ret_sum) {
    *ret_sum = transactions->sum;
    ret_sum->unfinished += transactions->open_count;
}

/* ---- what a transaction did ---- */

/* The newest are at the end, where the search begins. */
static struct transaction *find(struct transactions *transactions, uint32_t xid) {
    for (unsigned i = transactions->open_count; i-- > 0;)
        if (transactions->open[i].xid == xid)
            return &transactions->open[i];
    return NULL;
}

static struct transaction *find_or_begin(struct transactions *transactions, uint32_t xid) {
    struct transaction *found = find(transactions, xid);
    if (found != NULL || transactions->open_count == OPEN_MAX)
        return found;
    found = &transactions->open[transactions->open_count++];
    *found = (struct transaction){.xid = xid};
    return found;
}

static void forget(struct transactions *transactions, struct transaction *transaction) {
    *transaction = transactions->open[--transactions->open_count];
}

static void add_relation(struct transaction *transaction, const struct relation *touched) {
    if (touched->file < FIRST_USER_RELFILE) {
        transaction->catalogs += touched->records;
        return;
    }
    for (unsigned i = 0; i < transaction->relations_count; i++) {
        struct relation *known = &transaction->relations[i];
        if (known->file == touched->file && known->database == touched->database) {
            known->records += touched->records;
            return;
        }
    }
    if (transaction->relations_count < RELATIONS_MAX)
        transaction->relations[transaction->relations_count++] = *touched;
    else
        transaction->others += touched->records;
}

static void add_record(struct transaction *transaction, const char *rmgr, unsigned bytes, const char *description) {
    struct relation touched = {.records = 1};
    const char *block = strstr(description, "blkref #0: rel ");
    transaction->records++;
    transaction->bytes += bytes;
    if (strcmp(rmgr, "LogicalMessage") == 0 && strstr(description, "prefix \"ttorch\"") != NULL)
        transaction->messages++;
    if (block != NULL && sscanf(block, "blkref #0: rel %" SCNu32 "/%" SCNu32 "/%" SCNu32, &touched.tablespace,
                                &touched.database, &touched.file) == 3)
        add_relation(transaction, &touched);
}

/* A subtransaction has an xid of its own until its parent commits. */
static void merge(struct transaction *into, const struct transaction *from) {
    into->records += from->records;
    into->messages += from->messages;
    into->catalogs += from->catalogs;
    into->others += from->others;
    into->bytes += from->bytes;
    for (unsigned i = 0; i < from->relations_count; i++)
        add_relation(into, &from->relations[i]);
}

/* ---- ends ---- */

static void say(struct transactions *transactions, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct transactions *transactions, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof transactions->text - transactions->length;
    int length = vsnprintf(transactions->text + transactions->length, room, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < room)
        transactions->length += (size_t)length;
    else
        transactions->text[transactions->length] = '\0';
}

static void tell(struct transactions *transactions, const struct transaction *transaction, const char *time,
                 uint64_t lsn) {
    if (sizeof transactions->text - transactions->length < 512)
        return;
    say(transactions, "%" PRIu32 "  %.*s  %X/%X  %u records, %" PRIu64 " bytes:", transaction->xid,
        (int)strcspn(time, ";"), time, (unsigned)(lsn >> 32), (unsigned)lsn, transaction->records, transaction->bytes);
    for (unsigned i = 0; i < transaction->relations_count; i++) {
        const struct relation *relation = &transaction->relations[i];
        say(transactions, " %" PRIu32 "/%" PRIu32 "/%" PRIu32 " (%u)", relation->tablespace, relation->database,
            relation->file, relation->records);
    }
    if (transaction->others > 0)
        say(transactions, " other relations (%u)", transaction->others);
    if (transaction->catalogs > 0)
        say(transactions, " system catalogs (%u)", transaction->catalogs);
    say(transactions, "\n");
}

static void take_subtransactions(struct transactions *transactions, uint32_t parent, const char *description) {
    const char *list = strstr(description, "subxacts: ");
    unsigned xid;
    int length;
    for (list = list != NULL ? list + strlen("subxacts: ") : ""; sscanf(list, "%u%n", &xid, &length) == 1;
         list += length) {
        struct transaction *sub = find(transactions, xid), *whole = find_or_begin(transactions, parent);
        if (sub == NULL || whole == NULL || sub == whole)
            continue;
        merge(whole, sub);
        forget(transactions, sub);
    }
}

static void commit(struct transactions *transactions, uint32_t xid, const char *time, uint64_t lsn) {
    static const struct transaction unseen;
    take_subtransactions(transactions, xid, time);
    struct transaction *found = find(transactions, xid);
    struct transaction whole = found != NULL ? *found : unseen;
    whole.xid = xid;
    if (found != NULL)
        forget(transactions, found);
    if (whole.records > 0 && whole.messages == whole.records) {
        transactions->sum.probes++;
        return;
    }
    transactions->sum.commits++;
    tell(transactions, &whole, time, lsn);
}

static void roll_back(struct transactions *transactions, uint32_t xid, const char *description) {
    take_subtransactions(transactions, xid, description);
    struct transaction *found = find(transactions, xid);
    transactions->sum.unfinished++;
    if (found != NULL)
        forget(transactions, found);
}

/* "COMMIT 2026-11-23 21:48:13.5 UTC; subxacts: 727", "COMMIT_PREPARED 727: 2026-..." */
static void take_transaction_record(struct transactions *transactions, uint32_t xid, uint64_t lsn,
                                    const char *description) {
    int prepared = 0;
    unsigned of = xid;
    if (strncmp(description, "COMMIT ", 7) == 0)
        commit(transactions, xid, description + 7, lsn);
    else if (sscanf(description, "COMMIT_PREPARED %u: %n", &of, &prepared) == 1 && prepared > 0)
        commit(transactions, of, description + prepared, lsn);
    else if (strncmp(description, "ABORT ", 6) == 0)
        roll_back(transactions, xid, description);
    else if (sscanf(description, "ABORT_PREPARED %u: %n", &of, &prepared) == 1 && prepared > 0)
        roll_back(transactions, of, description);
}

void transactions_take(struct transactions *transactions, const char *line) {
    char rmgr[32];
    unsigned own, total, xid, high, low;
    const char *description = strstr(line, "desc: ");
    if (description == NULL || sscanf(line, "rmgr: %31s len (rec/tot): %u/ %u, tx: %u, lsn: %X/%X,", rmgr, &own, &total,
                                      &xid, &high, &low) != 6)
        return;
    uint64_t lsn = (uint64_t)high << 32 | low;
    if (lsn <= transactions->last)
        return;
    transactions->last = lsn;
    transactions->sum.records++;
    transactions->sum.end = (lsn + total + 7) & ~(uint64_t)7;
    description += strlen("desc: ");
    if (strcmp(rmgr, "Transaction") == 0) {
        take_transaction_record(transactions, xid, lsn, description);
        return;
    }
    struct transaction *transaction = xid != 0 ? find_or_begin(transactions, xid) : NULL;
    if (transaction != NULL)
        add_record(transaction, rmgr, total, description);
}
