/* What the demo measured: pure functions of the client's acknowledgements, and the report for people and programs.
 * Knows nothing of processes, PostgreSQL or daemons. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/time.h"
#include "cli/demo_ledger.h"

#define ROUNDS_MAX 1000

struct demo_round {
    const char *fault;
    char from[NAME_MAX_LENGTH + 1], to[NAME_MAX_LENGTH + 1]; /* primary before and after */
    uint64_t outage_ms;     /* longest time between two acknowledgements, from the fault on */
    uint64_t next_write_ms; /* from the fault to the acknowledgement that ended the outage */
    uint64_t redundant_ms;  /* from the fault until every member streamed and counted again */
    size_t lost;            /* acknowledged rows that the new primary does not have */
};

struct demo_report {
    unsigned members;
    unsigned rounds_count;
    struct demo_round rounds[ROUNDS_MAX];
    const struct ledger_ack *acks; /* of the whole demo */
    size_t acks_count;
    size_t lost;
    const char *problem; /* why the demo ended early; "" if it did not */
};

/* The longest time between two acknowledgements in a row of which the later came after `from`; if that is the time
 * since the last one, it ends with `until`. */
struct gap {
    nsec began, ended;
};
struct gap acks_longest_gap(const struct ledger_ack *acks, size_t count, nsec from, nsec until);
/* Of the rounds; the middle one, the upper of two. 0 without rounds. */
uint64_t rounds_outage_median(const struct demo_round *rounds, unsigned count);
uint64_t rounds_outage_worst(const struct demo_round *rounds, unsigned count);

void report_histogram(FILE *out, const struct ledger_ack *acks, size_t count);
void report_print(FILE *out, const struct demo_report *report);
json_t *report_json(const struct demo_report *report);
