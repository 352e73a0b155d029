#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/history.h"
#include "cli/text.h"

#define STEPS_MAX    32
#define AFTER_MAX_MS (INT64_C(1000) * 3600 * 24 * 365)

/* The reason of an opening is "m2 is writable in epoch 5: sealed +8 ms, m2 +39 ms, ..., acknowledged +131 ms", counted
 * from the first suspicion. It was proposed at the last of these, and that is the entry's time. */
struct step {
    char what[64];
    int64_t after_ms;
};

static bool is_kind(const json_t *entry, const char *kind) { return strcmp(text_of(entry, "kind"), kind) == 0; }

static int compare_steps(const void *left, const void *right) {
    const struct step *a = left, *b = right;
    return (a->after_ms > b->after_ms) - (a->after_ms < b->after_ms);
}

static unsigned steps_parse(const char *reason, struct step steps[STEPS_MAX]) {
    unsigned count = 1;
    steps[0] = (struct step){.what = "suspected"};
    const char *at = strstr(reason, ": ");
    for (at = at != NULL ? at + 2 : NULL; at != NULL && count < STEPS_MAX; count++) {
        if (sscanf(at, "%63[^+]+%" SCNd64 " ms", steps[count].what, &steps[count].after_ms) != 2 ||
            steps[count].after_ms < 0 || steps[count].after_ms > AFTER_MAX_MS)
            break;
        steps[count].what[strlen(steps[count].what) - 1] = '\0'; /* the blank before the plus */
        at = strstr(at, ", ");
        at = at != NULL ? at + 2 : NULL;
    }
    qsort(steps, count, sizeof *steps, compare_steps);
    return count > 1 ? count : 0;
}

/* Where the change of primary began that ended with entry `opened`: behind the opening before it. */
static size_t change_begin(const json_t *entries, size_t opened) {
    size_t begin = opened;
    while (begin > 0 && !is_kind(json_array_get(entries, begin - 1), "opened"))
        begin--;
    while (begin < opened && !is_kind(json_array_get(entries, begin), "sealed"))
        begin++;
    return begin;
}

/* The reason of the last entry of that kind within the change. */
static const char *reason_of(const json_t *entries, size_t begin, size_t end, const char *kind) {
    for (size_t i = end; i-- > begin;)
        if (is_kind(json_array_get(entries, i), kind))
            return text_of(json_array_get(entries, i), "reason");
    return "";
}

static void time_text(char *buffer, size_t size, const char *format, int64_t wall_ms) {
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm local;
    buffer[0] = '\0';
    if (localtime_r(&seconds, &local) != NULL)
        strftime(buffer, size, format, &local);
    size_t length = strlen(buffer);
    snprintf(buffer + length, size - length, ".%03d", (int)(wall_ms % 1000));
}

static void step_row(struct table *table, const struct step *step, int64_t before_ms, int64_t began_ms,
                     const char *why) {
    char text[TEXT_MAX];
    time_text(text, sizeof text, "%H:%M:%S", began_ms + step->after_ms);
    table_cell(table, PLAIN, text);
    snprintf(text, sizeof text, "%" PRId64 " ms", step->after_ms);
    table_cell(table, PLAIN, text);
    snprintf(text, sizeof text, "+%" PRId64, step->after_ms - before_ms);
    table_cell(table, PLAIN, text);
    table_cell(table, BOLD, step->what);
    table_cell(table, PLAIN, why);
}

static void opening_print(FILE *out, const json_t *entries, size_t opened, bool colours) {
    static const struct table_column columns[] = {{"Time", false}, {"After", true}, {"Took", true},
                                                  {"Step", false}, {"Why", false},  {NULL, false}};
    const json_t *entry = json_array_get(entries, opened);
    size_t begin = change_begin(entries, opened);
    struct step steps[STEPS_MAX];
    char when[TEXT_MAX];
    unsigned count = steps_parse(text_of(entry, "reason"), steps);
    time_text(when, sizeof when, "%Y-%m-%d %H:%M:%S", number_of(entry, "time_ms"));
    fprintf(out, "epoch %" PRId64 " of %s was opened at %s\n", number_of(entry, "epoch"), text_of(entry, "member"),
            when);
    if (count == 0) {
        fputs("  not traced: nothing came before it, or another member became the coordinator meanwhile\n", out);
        return;
    }
    struct table *table = table_new(columns);
    int64_t began_ms = number_of(entry, "time_ms") - steps[count - 1].after_ms;
    for (unsigned i = 0; i < count; i++) {
        const char *why = i == 0                                   ? reason_of(entries, begin, opened, "sealed")
                          : strcmp(steps[i].what, "assigned") == 0 ? reason_of(entries, begin, opened, "assigned")
                                                                   : "";
        step_row(table, &steps[i], i > 0 ? steps[i - 1].after_ms : 0, began_ms, why);
    }
    table_print(table, out, colours);
    table_free(table);
}

void history_trace_print(FILE *out, const json_t *history, bool colours) {
    const json_t *entries = json_object_get(history, "history"), *entry;
    size_t i, printed = 0;
    json_array_foreach(entries, i, entry) {
        if (!is_kind(entry, "opened"))
            continue;
        if (printed++ > 0)
            fputc('\n', out);
        opening_print(out, entries, i, colours);
    }
    if (printed == 0)
        fputs("no primary was opened yet\n", out);
}

void history_keep_last(json_t *history) {
    json_t *entries = json_object_get(history, "history");
    size_t opened = json_array_size(entries);
    while (opened > 0 && !is_kind(json_array_get(entries, opened - 1), "opened"))
        opened--;
    if (opened == 0)
        return;
    json_t *kept = json_array();
    for (size_t i = change_begin(entries, opened - 1); i < opened; i++)
        json_array_append(kept, json_array_get(entries, i));
    json_object_set_new(history, "history", kept);
}
