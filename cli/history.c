#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "cli/history.h"
#include "cli/options.h"
#include "cli/text.h"

static void time_cell(struct table *table, int64_t wall_ms) {
    char text[TEXT_MAX] = "-";
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm local;
    if (wall_ms > 0 && localtime_r(&seconds, &local) != NULL)
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
    table_cell(table, PLAIN, text);
}

static void entry_row(struct table *table, const json_t *entry) {
    char text[TEXT_MAX];
    const char *member = text_of(entry, "member");
    int64_t lost = number_of(entry, "lost_bytes");
    time_cell(table, number_of(entry, "time_ms"));
    snprintf(text, sizeof text, "%" PRId64, number_of(entry, "epoch"));
    table_cell(table, PLAIN, text);
    table_cell(table, PLAIN, text_of(entry, "kind"));
    table_cell(table, BOLD, *member != '\0' ? member : "-");
    table_cell(table, RED, lost > 0 ? text_bytes((uint64_t)lost, text) : "");
    table_cell(table, PLAIN, text_of(entry, "reason"));
}

void history_table_print(FILE *out, const json_t *history, bool colours) {
    static const struct table_column columns[] = {{"Time", false},   {"Epoch", true}, {"Event", false},
                                                  {"Member", false}, {"Lost", true},  {"Reason", false},
                                                  {NULL, false}};
    const json_t *entries = json_object_get(history, "history"), *entry;
    if (json_array_size(entries) == 0) {
        fputs("nothing is recorded yet\n", out);
        return;
    }
    struct table *table = table_new(columns);
    size_t i;
    json_array_foreach(entries, i, entry) entry_row(table, entry);
    table_print(table, out, colours);
    table_free(table);
}

static int run(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    bool as_json = false, last = false, trace = false;
    const struct option_row rows[] = {
        {"--json", OPTION_FLAG, NULL, "print what the daemon answers, for programs", &as_json, NULL},
        {"--last", OPTION_FLAG, NULL, "only the newest change of primary, from its seal to its opening", &last, NULL},
        {"--trace", OPTION_FLAG, NULL, "when each step of a change of primary came, and how long it took", &trace,
         NULL},
        {0}};
    enum parsed parsed = options_parse(verb, cli, rows, argc, argv);
    if (parsed != PARSED)
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    struct client client;
    struct error error;
    json_t *history;
    if (cli_connect(cli, &client) != OK)
        return EXIT_FAILED;
    if (client_get(&client, "/v1/history", &history, &error) != OK)
        return cli_failed(&error);
    if (last)
        history_keep_last(history);
    if (as_json) {
        json_dumpf(history, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (trace) {
        history_trace_print(stdout, history, text_colours(stdout));
    } else {
        history_table_print(stdout, history, text_colours(stdout));
    }
    json_decref(history);
    return EXIT_DONE;
}

const struct verb verb_history = {
    "history", "[--last] [--trace] [--json]", "what was decided, and why; newest last",
    "\nTimes are local ones. Lost is what a failover in `async` is known to have lost: "
    "WAL that the\nprimary had told of, up to a moment before its end.\n"
    "A trace is what the coordinator of that change saw: it begins when the old primary is "
    "suspected,\nand ends when its successor's first write is acknowledged.\n",
    run};
