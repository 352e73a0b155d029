#include "cli/text.h"

#include <inttypes.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COLUMNS_MAX 10
#define GAP         2

/* ---- amounts ---- */

const char *text_bytes(uint64_t bytes, char *buffer) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    unsigned unit = 0;
    double amount = (double)bytes;
    for (; amount >= 1000 && unit < 5; unit++)
        amount /= 1024;
    snprintf(buffer, TEXT_MAX, amount < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", amount, units[unit]);
    return buffer;
}

const char *text_duration(uint64_t milliseconds, char *buffer) {
    uint64_t seconds = milliseconds / 1000;
    if (seconds < 10)
        snprintf(buffer, TEXT_MAX, "%.2f s", (double)milliseconds / 1000);
    else if (seconds < 60)
        snprintf(buffer, TEXT_MAX, "%" PRIu64 " s", seconds);
    else if (seconds < 3600)
        snprintf(buffer, TEXT_MAX, "%" PRIu64 " min %" PRIu64 " s", seconds / 60, seconds % 60);
    else if (seconds < 86400)
        snprintf(buffer, TEXT_MAX, "%" PRIu64 " h %" PRIu64 " min", seconds / 3600, seconds % 3600 / 60);
    else
        snprintf(buffer, TEXT_MAX, "%" PRIu64 " d %" PRIu64 " h", seconds / 86400, seconds % 86400 / 3600);
    return buffer;
}

/* ---- the terminal ---- */

const char *text_separator(void) { return strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? " \u00b7 " : ", "; }

bool text_colours(FILE *out) {
    const char *unwanted = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(fileno(out)) && (unwanted == NULL || *unwanted == '\0') && terminal != NULL &&
           strcmp(terminal, "dumb") != 0;
}

void text_coloured(FILE *out, bool colours, enum colour colour, const char *text) {
    if (colours && colour != PLAIN)
        fprintf(out, "\033[%dm%s\033[0m", (int)colour, text);
    else
        fputs(text, out);
}

/* ---- JSON ---- */

const char *text_of(const json_t *json, const char *key) {
    const char *text = json_string_value(json_object_get(json, key));
    return text != NULL ? text : "";
}

int64_t number_of(const json_t *json, const char *key) {
    const json_t *number = json_object_get(json, key);
    return json_is_integer(number) ? json_integer_value(number) : -1;
}

bool holds_data(const json_t *member) {
    return strcmp(text_of(member, "duty"), "witness") != 0 && *text_of(member, "host") != '\0';
}

/* ---- tables ---- */

struct table {
    const struct table_column *columns;
    unsigned columns_count, cells_count, cells_room;
    struct cell {
        char *text;
        enum colour colour;
    } * cells;
};

struct table *table_new(const struct table_column *columns) {
    struct table *table = calloc(1, sizeof *table);
    if (table == NULL)
        return NULL;
    table->columns = columns;
    while (table->columns_count < COLUMNS_MAX && columns[table->columns_count].title != NULL)
        table->columns_count++;
    return table;
}

static char *without_controls(const char *text) {
    char *copy = strdup(text);
    for (char *at = copy; at != NULL && *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    return copy;
}

void table_cell(struct table *table, enum colour colour, const char *text) {
    if (table == NULL)
        return;
    if (table->cells_count == table->cells_room) {
        unsigned room = table->cells_room * 2 + COLUMNS_MAX;
        struct cell *cells = realloc(table->cells, room * sizeof *cells);
        if (cells == NULL)
            return;
        table->cells = cells;
        table->cells_room = room;
    }
    table->cells[table->cells_count++] = (struct cell){.text = without_controls(text), .colour = colour};
}

/* In characters: UTF-8's continuation bytes take no room. */
static unsigned width_of(const char *text) {
    unsigned width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static const char *cell_text(const struct table *table, unsigned cell) {
    return table->cells[cell].text != NULL ? table->cells[cell].text : "";
}

/* 0 for a column without contents. */
static unsigned column_width(const struct table *table, unsigned column) {
    unsigned width = 0;
    for (unsigned cell = column; cell < table->cells_count; cell += table->columns_count)
        if (width_of(cell_text(table, cell)) > width)
            width = width_of(cell_text(table, cell));
    unsigned title = width_of(table->columns[column].title);
    return width > 0 && title > width ? title : width;
}

static void print_row(const struct table *table, const unsigned *widths, const struct cell *row, FILE *out,
                      bool colours) {
    unsigned owed = 0; /* spaces not printed yet, so that none end a line */
    for (unsigned column = 0; column < table->columns_count; column++) {
        const char *text = row[column].text != NULL ? row[column].text : "";
        if (widths[column] == 0)
            continue;
        unsigned padding = widths[column] - width_of(text);
        bool right = table->columns[column].right;
        if (*text != '\0') {
            fprintf(out, "%*s", (int)(owed + (right ? padding : 0)), "");
            text_coloured(out, colours, row[column].colour, text);
            owed = 0;
        } else {
            owed += right ? padding : 0;
        }
        owed += GAP + (right ? 0 : padding);
    }
    fputc('\n', out);
}

void table_print(const struct table *table, FILE *out, bool colours) {
    if (table == NULL)
        return;
    unsigned widths[COLUMNS_MAX];
    struct cell titles[COLUMNS_MAX];
    for (unsigned column = 0; column < table->columns_count; column++) {
        widths[column] = column_width(table, column);
        titles[column] = (struct cell){.text = (char *)table->columns[column].title, .colour = BOLD};
    }
    print_row(table, widths, titles, out, colours);
    for (unsigned cell = 0; cell + table->columns_count <= table->cells_count; cell += table->columns_count)
        print_row(table, widths, table->cells + cell, out, colours);
}

void table_free(struct table *table) {
    if (table == NULL)
        return;
    for (unsigned cell = 0; cell < table->cells_count; cell++)
        free(table->cells[cell].text);
    free(table->cells);
    free(table);
}
