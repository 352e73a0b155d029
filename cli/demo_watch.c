#include "cli/demo_watch.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_LIMIT_MS 300

struct client watch_client(const struct cluster *cluster, unsigned member) {
    struct client client = {.timeout_ms = ANSWER_LIMIT_MS};
    snprintf(client.socket_path, sizeof client.socket_path, "%s", cluster->members[member].socket);
    return client;
}

json_t *watch_member(const struct cluster *cluster, unsigned member) {
    struct error error;
    json_t *view = NULL;
    const struct client client = watch_client(cluster, member);
    if (!cluster->members[member].daemon || client_get(&client, "/v1/status", &view, &error) != OK)
        return NULL;
    return view;
}

static json_int_t number(const json_t *json, const char *key) { return json_integer_value(json_object_get(json, key)); }

static bool is_true(const json_t *json, const char *key) { return json_is_true(json_object_get(json, key)); }

static const char *text(const json_t *json, const char *key) {
    const char *value = json_string_value(json_object_get(json, key));
    return value ? value : "";
}

json_t *watch_status(const struct cluster *cluster) {
    json_t *best = NULL;
    for (unsigned i = 0; i < cluster->count && !is_true(best, "fresh"); i++) {
        json_t *view = watch_member(cluster, i);
        if (!best || is_true(view, "fresh") || number(view, "index") > number(best, "index")) {
            json_decref(best);
            best = view;
        } else {
            json_decref(view);
        }
    }
    return best;
}

const char *status_primary(const json_t *view) { return text(view, "primary"); }

json_int_t status_epoch(const json_t *view) { return number(view, "epoch"); }

bool status_open(const json_t *view) {
    return is_true(view, "fresh") && is_true(view, "open") && status_primary(view)[0] != '\0';
}

static bool member_counts(const json_t *member) {
    const char *duty = text(member, "duty");
    if (strcmp(duty, "primary") == 0 || strcmp(duty, "witness") == 0)
        return true;
    return strcmp(text(member, "state"), "streaming") == 0 && strcmp(text(member, "sync"), "sync") == 0;
}

bool status_redundant(const json_t *view) {
    size_t i;
    const json_t *member, *members = json_object_get(view, "members");
    if (!status_open(view) || json_array_size(members) == 0 || json_array_size(json_object_get(view, "rules")) != 1)
        return false;
    json_array_foreach(members, i, member) {
        if (!member_counts(member))
            return false;
    }
    return true;
}

static size_t append(char *buffer, size_t size, size_t at, const char *before, const char *word, const char *after) {
    int length = snprintf(buffer + at, size - at, "%s%s%s", before, word, after);
    return length > 0 && (size_t)length < size - at ? at + (size_t)length : at;
}

void status_summary(const json_t *view, char *buffer, size_t size) {
    size_t i;
    const json_t *member;
    const char *primary = status_primary(view), *waiting = text(view, "waiting");
    if (!view || status_epoch(view) == 0) {
        snprintf(buffer, size, "%s", !view ? "no daemon answers yet" : waiting[0] ? waiting : "no primary yet");
        return;
    }
    size_t at = (size_t)snprintf(buffer, size, "epoch %lld", (long long)status_epoch(view));
    at = append(buffer, size, at, ", ", primary[0] ? "primary " : "no primary", primary);
    at = append(buffer, size, at, "", !primary[0] || status_open(view) ? "" : ", not yet open", "");
    json_array_foreach(json_object_get(view, "members"), i, member) {
        if (strcmp(text(member, "duty"), "standby") != 0)
            continue;
        at = append(buffer, size, at, "; ", text(member, "name"), " ");
        at = append(buffer, size, at, "", text(member, "state"), "");
        at = append(buffer, size, at, "", strcmp(text(member, "sync"), "sync") == 0 ? " (counts)" : "", "");
    }
}
