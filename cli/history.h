/* What /v1/history says: as a table, or as a trace of each change of primary. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

void history_table_print(FILE *out, const json_t *history, bool colours);

/* For each opening of an epoch when its steps came, as the coordinator saw them. Times are the wall clock of the member
 * that was the coordinator. */
void history_trace_print(FILE *out, const json_t *history, bool colours);

/* Leaves the entries of the newest change of primary only, from the seal to the opening; all if nothing was opened. */
void history_keep_last(json_t *history);
