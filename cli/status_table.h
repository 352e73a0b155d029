/* What /v1/status says, as the table that people read. Prints nothing but that: no cursor movement. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* `colours`: ANSI colours, for a terminal. UTF-8 only where the locale (setlocale) has it. */
void status_table_print(FILE *out, const json_t *status, bool colours);
