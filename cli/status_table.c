#include "cli/status_table.h"

#include <string.h>

#include "base/limits.h"
#include "cli/text.h"

#define LINE_MAX_LENGTH 1024

/* ---- the headline ---- */

static void print_primary(FILE *out, const json_t *status, bool colours) {
    const char *primary = text_of(status, "primary");
    if (*primary == '\0') {
        text_coloured(out, colours, YELLOW, "no primary");
        return;
    }
    fputs("primary ", out);
    text_coloured(out, colours, BOLD, primary);
    int64_t since = number_of(status, "since_ms"), now = number_of(status, "time_ms");
    char duration[TEXT_MAX];
    if (json_is_true(json_object_get(status, "open")) && since >= 0 && now >= since)
        fprintf(out, " for %s", text_duration((uint64_t)(now - since), duration));
}

static void print_rules(FILE *out, const json_t *status) {
    size_t i;
    const json_t *rule;
    fprintf(out, "durability %s", text_of(status, "durability"));
    json_array_foreach(json_object_get(status, "rules"), i, rule)
        fprintf(out, "%s %s", i == 0 ? ":" : " and", json_string_value(rule));
}

static void print_headline(FILE *out, const json_t *status, bool colours) {
    const char *separator = text_separator();
    const char *cluster = text_of(status, "cluster");
    if (*cluster == '\0') {
        fputs("the cluster is not founded yet\n", out);
        return;
    }
    text_coloured(out, colours, BOLD, cluster);
    fprintf(out, "%sepoch %lld%s", separator, (long long)number_of(status, "epoch"), separator);
    print_primary(out, status, colours);
    fputs(separator, out);
    print_rules(out, status);
    fputc('\n', out);
}

/* ---- warnings, in words ---- */

static void warn(FILE *out, bool colours, enum colour colour, const char *text) {
    text_coloured(out, colours, colour, text);
    fputc('\n', out);
}

static void print_doubts(FILE *out, const json_t *status, bool colours) {
    char line[LINE_MAX_LENGTH];
    const char *waiting = text_of(status, "waiting");
    if (*waiting != '\0') {
        snprintf(line, sizeof line, "%s: %s", text_of(status, "self"), waiting);
        warn(out, colours, YELLOW, line);
    }
    if (!json_is_true(json_object_get(status, "fresh")) && number_of(status, "epoch") > 0) {
        snprintf(line, sizeof line, "%s has no contact with a quorum: this may be old news", text_of(status, "self"));
        warn(out, colours, RED, line);
    }
    if (json_is_true(json_object_get(status, "degraded")))
        warn(out, colours, RED, "degraded: no standby acknowledges commits, so nothing fails over by itself");
}

/* The primary writes on whatever the standbys lack: what that would cost now is worth knowing beforehand. */
static void print_possible_loss(FILE *out, const json_t *status, bool colours) {
    char line[LINE_MAX_LENGTH], loss[TEXT_MAX], bound[TEXT_MAX];
    int64_t now = number_of(status, "possible_loss_bytes"), most = number_of(status, "max_loss_bytes");
    bool open = json_is_true(json_object_get(status, "open"));
    if (strcmp(text_of(status, "durability"), "async") != 0 || !open)
        return;
    text_bytes((uint64_t)most, bound);
    if (!json_is_integer(json_object_get(status, "possible_loss_bytes")))
        snprintf(line, sizeof line, "no standby streams: nothing fails over by itself if more than %s is missing",
                 bound);
    else
        snprintf(line, sizeof line, "a failover now would lose %s; it is refused above %s (max_loss)",
                 text_bytes((uint64_t)now, loss), bound);
    warn(out, colours, now > most || now < 0 ? RED : PLAIN, line);
}

static void print_changes(FILE *out, const json_t *status, bool colours) {
    char line[LINE_MAX_LENGTH];
    const json_t *switchover = json_object_get(status, "switchover");
    if (json_is_object(switchover)) {
        const char *to = text_of(switchover, "to");
        snprintf(line, sizeof line, "switchover from %s to %s under way", text_of(switchover, "from"),
                 *to != '\0' ? to : "the best standby");
        warn(out, colours, YELLOW, line);
    }
    if (json_is_true(json_object_get(status, "sealed")))
        warn(out, colours, YELLOW, "the epoch is sealed: the next primary is being chosen");
    else if (number_of(status, "epoch") > 0 && !json_is_true(json_object_get(status, "open")))
        warn(out, colours, YELLOW, "the epoch is not open yet: clients are not pointed at its primary");
}

/* What this member cannot show to others, and why. */
static void print_publishing(FILE *out, const json_t *status, bool colours) {
    char line[LINE_MAX_LENGTH];
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(status, "publishing"), i, row) {
        if (*text_of(row, "error") == '\0')
            continue;
        snprintf(line, sizeof line, "%s: %s (%s): %s", text_of(status, "self"), text_of(row, "output"),
                 text_of(row, "where"), text_of(row, "error"));
        warn(out, colours, RED, line);
    }
}

/* ---- the members ---- */

static enum colour state_colour(const char *state) {
    static const struct {
        const char *state;
        enum colour colour;
    } colours[] = {{"running", GREEN}, {"streaming", GREEN}, {"down", RED},       {"hung", RED},
                   {"refused", RED},   {"broken", RED},      {"unreachable", RED}};
    for (unsigned i = 0; i < sizeof colours / sizeof *colours; i++)
        if (strcmp(colours[i].state, state) == 0)
            return colours[i].colour;
    return YELLOW;
}

static const char *or_dash(const char *text) { return *text != '\0' ? text : "-"; }

static void lag_cell(struct table *table, const json_t *member) {
    int64_t bytes = number_of(member, "lag_bytes"), ms = number_of(member, "lag_ms");
    char size[TEXT_MAX], duration[TEXT_MAX], text[2 * TEXT_MAX + 2];
    if (bytes < 0)
        snprintf(text, sizeof text, "-");
    else if (ms <= 0)
        snprintf(text, sizeof text, "%s", text_bytes((uint64_t)bytes, size));
    else if (ms < 1000)
        snprintf(text, sizeof text, "%s, %d ms", text_bytes((uint64_t)bytes, size), (int)ms);
    else
        snprintf(text, sizeof text, "%s, %s", text_bytes((uint64_t)bytes, size), text_duration((uint64_t)ms, duration));
    table_cell(table, PLAIN, text);
}

static void timeline_cell(struct table *table, const json_t *member) {
    int64_t timeline = number_of(member, "timeline");
    char text[TEXT_MAX] = "-";
    if (timeline > 0)
        snprintf(text, sizeof text, "%lld", (long long)timeline);
    table_cell(table, PLAIN, text);
}

/* What it is doing and what troubles it; for one that is silent, since when. */
static void note_cell(struct table *table, const json_t *member) {
    const char *activity = text_of(member, "activity"), *trouble = text_of(member, "trouble");
    char text[LINE_MAX_LENGTH], duration[TEXT_MAX];
    if (strcmp(text_of(member, "state"), "unreachable") == 0)
        snprintf(text, sizeof text, "last heard of %s ago",
                 text_duration((uint64_t)number_of(member, "age_ms"), duration));
    else
        snprintf(text, sizeof text, "%s%s%s", activity, *activity != '\0' && *trouble != '\0' ? "; " : "", trouble);
    table_cell(table, *trouble != '\0' ? RED : PLAIN, text);
}

static void member_row(struct table *table, const json_t *member) {
    const char *duty = text_of(member, "duty"), *state = text_of(member, "state");
    table_cell(table, BOLD, text_of(member, "name"));
    table_cell(table, strcmp(duty, "primary") == 0 ? BOLD : PLAIN, or_dash(duty));
    table_cell(table, state_colour(state), or_dash(state));
    timeline_cell(table, member);
    lag_cell(table, member);
    table_cell(table, PLAIN, or_dash(text_of(member, "sync")));
    table_cell(table, PLAIN, or_dash(text_of(member, "upstream")));
    note_cell(table, member);
}

void status_table_print(FILE *out, const json_t *status, bool colours) {
    static const struct table_column columns[] = {{"Member", false},   {"Duty", false}, {"State", false},
                                                  {"Timeline", true},  {"Lag", true},   {"Sync", false},
                                                  {"Upstream", false}, {"Note", false}, {NULL, false}};
    const json_t *members = json_object_get(status, "members"), *member;
    print_headline(out, status, colours);
    print_doubts(out, status, colours);
    print_changes(out, status, colours);
    print_possible_loss(out, status, colours);
    print_publishing(out, status, colours);
    if (json_array_size(members) == 0)
        return;
    struct table *table = table_new(columns);
    size_t i;
    json_array_foreach(members, i, member) member_row(table, member);
    fputc('\n', out);
    table_print(table, out, colours);
    table_free(table);
}
