/* Amounts and tables for people. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define TEXT_MAX 32
/* Both write into a buffer of at least TEXT_MAX bytes and return it. */
const char *text_bytes(uint64_t bytes, char *buffer);           /* "512 B", "16 kB", "1.2 MB" */
const char *text_duration(uint64_t milliseconds, char *buffer); /* "0.31 s", "3 min 12 s", "5 h 2 min" */

/* What lies between two statements: a middle dot where the locale has UTF-8. */
const char *text_separator(void);

/* True if `out` is a terminal on which colours are welcome. */
bool text_colours(FILE *out);

/* ANSI colours, as the numbers of a terminal's escape sequences. */
enum colour { PLAIN = 0, BOLD = 1, RED = 31, GREEN = 32, YELLOW = 33 };
void text_coloured(FILE *out, bool colours, enum colour colour, const char *text);

/* Member `key` of `json` as text, "" if it is missing or no string. */
const char *text_of(const json_t *json, const char *key);
/* The same as a number; -1 if it is missing or no number. */
int64_t number_of(const json_t *json, const char *key);
/* Whether a member of the status has a PostgreSQL. */
bool holds_data(const json_t *member);

/* ---- a table as wide as its contents; columns without any are left out ---- */
struct table;
struct table_column {
    const char *title;
    bool right; /* aligned, for numbers */
};

/* `columns` ends with a NULL title and must outlive the table. NULL when memory ran out; the functions below then do
 * nothing. */
struct table *table_new(const struct table_column *columns);
/* The next cell, row by row. Control characters become spaces: what members report is shown, not obeyed. */
void table_cell(struct table *table, enum colour colour, const char *text);
void table_print(const struct table *table, FILE *out, bool colours);
void table_free(struct table *table);
