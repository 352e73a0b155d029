#include "publish/routes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/checks.h"
#include "publish/face.h"
#include "publish/metrics.h"

#define FACE_AGE_MAX_MS 20

struct route {
    const char *method; /* GET serves HEAD too: the answer's body is then left out */
    const char *path;
    void (*serve)(struct routes *routes, struct http_exchange *exchange);
};

static void answer_error(struct http_exchange *exchange, unsigned http_status, const char *allow, const char *format,
                         ...) __attribute__((format(printf, 4, 5)));

static void answer_error(struct http_exchange *exchange, unsigned http_status, const char *allow, const char *format,
                         ...) {
    char text[ERROR_TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    http_answer(exchange, http_status, face_dump(json_pack("{s:o}", "error", face_text(text))), allow);
}

static void answer_json(struct http_exchange *exchange, unsigned http_status, char *text) {
    if (text != NULL)
        http_answer(exchange, http_status, text, NULL);
    else
        answer_error(exchange, 500, NULL, "out of memory");
}

void routes_free(struct routes *routes) {
    free(routes->checks_text);
    free(routes->topology_text);
    routes->checks_text = routes->topology_text = NULL;
}

const struct face *routes_face(struct routes *routes) {
    routes->callbacks->face(routes->user, &routes->face);
    if (routes->add_outputs != NULL)
        routes->add_outputs(routes->publish, &routes->face);
    routes->filled_at = time_now();
    routes_free(routes);
    return &routes->face;
}

/* For those who ask thousands of times a second: a little older at most. Lease and freshness are compared with the
 * clock each time. */
static const struct face *recent_face(struct routes *routes, nsec now) {
    return now > routes->filled_at + msec(FACE_AGE_MAX_MS) ? routes_face(routes) : &routes->face;
}

/* Made once for all who ask of the same face. */
static char *copy_of(char **made, char *(*make)(const struct face *face), const struct face *face) {
    if (*made == NULL)
        *made = make(face);
    return *made != NULL ? strdup(*made) : NULL;
}

/* ---- checks ---- */

static bool read_query(const struct http_exchange *exchange, struct check_query *ret_query) {
    const char *lag = http_argument(exchange, "lag"), *state = http_argument(exchange, "replication_state");
    const char *mode = http_argument(exchange, "mode");
    *ret_query = (struct check_query){.now = time_now(), .lag_bytes_max = UINT64_MAX};
    ret_query->received = mode != NULL && strcmp(mode, "write") == 0;
    ret_query->streaming = state != NULL && strcmp(state, "streaming") == 0;
    return lag == NULL || check_lag(lag, &ret_query->lag_bytes_max);
}

static void serve_check(struct routes *routes, struct http_exchange *exchange, const struct check *check) {
    struct check_query query;
    if (!read_query(exchange, &query)) {
        answer_error(exchange, 400, NULL, "lag: expected bytes, or a size such as 64kB, 16MB or 1GB");
        return;
    }
    const struct face *face = recent_face(routes, query.now);
    bool tagged = check->tags && http_argument_begins(exchange, "tag_");
    unsigned http_status = !tagged && check->passes(face, &query) ? 200 : 503;
    if (strcmp(exchange->method, "GET") != 0) {
        http_answer(exchange, http_status, strdup(""), NULL);
        return;
    }
    answer_json(exchange, http_status, copy_of(&routes->checks_text, patroni_json, face));
}

static void serve_patroni(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, patroni_json(routes_face(routes)));
}

static void serve_patroni_cluster(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, patroni_cluster_json(routes_face(routes)));
}

static void serve_patroni_history(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, patroni_history_json(routes_face(routes)));
}

static void serve_metrics(struct routes *routes, struct http_exchange *exchange) {
    http_answer_text(exchange, 200, METRICS_TYPE, metrics_text(routes_face(routes), time_now()));
}

/* ---- reading ---- */

void routes_topology(struct routes *routes, struct http_exchange *exchange) {
    const struct face *face = recent_face(routes, time_now());
    answer_json(exchange, face->fresh ? 200 : 503, copy_of(&routes->topology_text, face_topology_json, face));
}

static bool read_number(const char *text, uint64_t *ret_number) {
    char *end;
    *ret_number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0';
}

/* ?index=70&wait=30s: when it is no longer what index 70 (and fresh=true, if that is said) was, or after 30 s. */
static void serve_topology(struct routes *routes, struct http_exchange *exchange) {
    const char *index = http_argument(exchange, "index"), *wait = http_argument(exchange, "wait");
    const char *fresh = http_argument(exchange, "fresh");
    uint64_t known = 0, wait_ms = index != NULL ? WATCH_DEFAULT_MS : 0;
    if (index != NULL && !read_number(index, &known)) {
        answer_error(exchange, 400, NULL, "index: expected the number of an earlier answer");
        return;
    }
    if (wait != NULL && !watch_wait(wait, &wait_ms)) {
        answer_error(exchange, 400, NULL, "wait: expected a time such as 30s or 500ms");
        return;
    }
    const struct face *face = recent_face(routes, time_now());
    bool differs = (index != NULL && known != face->topology->index) ||
                   (fresh != NULL && strcmp(fresh, face->fresh ? "true" : "false") != 0);
    watch_add(routes->watch, exchange, differs ? 0 : wait_ms);
}

char *routes_event(const struct face *face) {
    json_t *json = face_topology(face, true);
    char *data = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL, *event = NULL;
    if (data == NULL ||
        asprintf(&event, "id: %" PRIu64 "\nevent: topology\ndata: %s\n\n", face->topology->index, data) < 0)
        event = NULL;
    free(data);
    json_decref(json);
    return event;
}

static void serve_stream(struct routes *routes, struct http_exchange *exchange) {
    if (strcmp(exchange->method, "HEAD") == 0)
        http_answer_text(exchange, 200, "text/event-stream", strdup(""));
    else
        http_stream(exchange, routes_event(recent_face(routes, time_now())));
}

static void serve_members(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, face_members_json(routes_face(routes)));
}

static void serve_why(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, face_why_json(routes_face(routes)));
}

static void serve_status(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, face_status_json(routes_face(routes)));
}

static void serve_history(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, face_history_json(routes_face(routes)));
}

static void serve_health(struct routes *routes, struct http_exchange *exchange) {
    const struct face *face = routes_face(routes);
    answer_json(exchange, face->fresh ? 200 : 503, face_health_json(face, &routes->config->health));
}

/* ---- changing ---- */

/* {"to": "m2"} or {} or nothing. */
static status read_switchover(const struct http_exchange *exchange, struct face_request *ret_request,
                              struct error *error) {
    *ret_request = (struct face_request){.kind = REQUEST_SWITCHOVER};
    if (exchange->body_length == 0)
        return OK;
    json_error_t mistake;
    json_t *body = json_loadb(exchange->body, exchange->body_length, JSON_REJECT_DUPLICATES, &mistake);
    if (body == NULL)
        return error_set(error, "the body is not JSON: line %d: %s", mistake.line, mistake.text);
    const char *to = "";
    status result = OK;
    if (json_unpack_ex(body, &mistake, JSON_STRICT, "{s?s}", "to", &to) != 0)
        result = error_set(error, "the body must be {\"to\": \"MEMBER\"} or {}: %s", mistake.text);
    else if (strlen(to) > NAME_MAX_LENGTH)
        result = error_set(error, "\"to\": a member's name has at most %d characters", NAME_MAX_LENGTH);
    else
        strcpy(ret_request->to, to);
    json_decref(body);
    return result;
}

static void on_answer(void *context, const struct face_answer *answer) {
    struct http_exchange *exchange = context;
    if (answer->http_status == 202)
        answer_json(exchange, 202, face_dump(json_pack("{s:I}", "number", (json_int_t)answer->number)));
    else
        answer_error(exchange, (unsigned)answer->http_status, NULL, "%s", answer->text);
}

static void serve_switchover(struct routes *routes, struct http_exchange *exchange) {
    struct face_request request;
    struct error error;
    if (read_switchover(exchange, &request, &error) == OK)
        routes->callbacks->request(routes->user, &request, on_answer, exchange);
    else
        answer_error(exchange, 400, NULL, "%s", error.text);
}

static void serve_rejoin(struct routes *routes, struct http_exchange *exchange) {
    static const struct face_request request = {.kind = REQUEST_REJOIN};
    routes->callbacks->request(routes->user, &request, on_answer, exchange);
}

/* ---- the table ---- */

static const struct route table[] = {
    {"GET", "/v1/topology", serve_topology}, /* who is the primary; 503 unless fresh; waits for a change if asked */
    {"GET", "/v1/topology/stream", serve_stream}, /* the same after each change, as server-sent events */
    {"GET", "/v1/status", serve_status},          /* all that `ttorch status` shows */
    {"GET", "/v1/members", serve_members},        /* the members alone */
    {"GET", "/v1/history", serve_history},        /* what was decided, and why */
    {"GET", "/v1/why", serve_why},                /* what is waited for now */
    {"GET", "/v1/health", serve_health},          /* what needs attention; 503 unless in touch with a quorum */
    {"POST", "/v1/switchover", serve_switchover}, /* {"to": "m2"} or {}: 202 with the number of the intent */
    {"POST", "/v1/rejoin", serve_rejoin},         /* 202: this member gives up a record, or a file, that is damaged */
    {"GET", "/metrics", serve_metrics},           /* for Prometheus */
    {"GET", "/patroni", serve_patroni},           /* as Patroni says it: this member, */
    {"GET", "/cluster", serve_patroni_cluster},   /* all members, */
    {"GET", "/history", serve_patroni_history},   /* and timelines; its checks are in checks.c */
};
#define TABLE_END (table + sizeof table / sizeof *table)

/* No path has two methods so far. */
static const struct route *find(const char *path) {
    for (const struct route *route = table; route < TABLE_END; route++)
        if (strcmp(route->path, path) == 0)
            return route;
    return NULL;
}

static bool reads(const char *method) { return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0; }

static bool serves(const struct route *route, const char *method) {
    return strcmp(route->method, method) == 0 || (reads(route->method) && reads(method));
}

static void answer_not_found(struct http_exchange *exchange) {
    char paths[ERROR_TEXT_MAX / 2] = "";
    for (const struct route *route = table; route < TABLE_END; route++) {
        size_t at = strlen(paths);
        snprintf(paths + at, sizeof paths - at, "%s%s", at > 0 ? ", " : "", route->path);
    }
    answer_error(exchange, 404, NULL, "there is nothing at %.200s, but at %s", exchange->path, paths);
}

void routes_serve(void *user, struct http_exchange *exchange) {
    struct routes *routes = user;
    const struct check *check = check_find(exchange->path);
    const struct route *route = check == NULL ? find(exchange->path) : NULL;
    if (check != NULL && (reads(exchange->method) || strcmp(exchange->method, "OPTIONS") == 0))
        serve_check(routes, exchange, check);
    else if (check != NULL && exchange->local)
        answer_error(exchange, 405, "GET, HEAD, OPTIONS", "%s takes GET, not %.20s", check->path, exchange->method);
    else if (route == NULL && check == NULL)
        answer_not_found(exchange);
    else if (route != NULL && strcmp(exchange->method, "OPTIONS") == 0)
        http_answer(exchange, 200, strdup(""), reads(route->method) ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
    else if (!exchange->local && !reads(exchange->method)) /* TCP knows nobody by name yet */
        answer_error(exchange, 403, NULL, "changes are accepted only over the daemon's unix socket");
    else if (!serves(route, exchange->method))
        answer_error(exchange, 405, reads(route->method) ? "GET, HEAD, OPTIONS" : "POST, OPTIONS",
                     "%s takes %s, not %.20s", route->path, route->method, exchange->method);
    else
        route->serve(routes, exchange);
}
