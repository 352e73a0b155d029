/* What /v1/history says, as a table. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

void history_table_print(FILE *out, const json_t *history, bool colours);
