#include "publish/routes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/face.h"

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

const struct face *routes_face(struct routes *routes) {
    routes->callbacks->face(routes->user, &routes->face);
    if (routes->add_outputs != NULL)
        routes->add_outputs(routes->publish, &routes->face);
    return &routes->face;
}

/* ---- reading ---- */

static void serve_topology(struct routes *routes, struct http_exchange *exchange) {
    const struct face *face = routes_face(routes);
    answer_json(exchange, face->fresh ? 200 : 503, face_topology_json(face));
}

static void serve_status(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, face_status_json(routes_face(routes)));
}

static void serve_history(struct routes *routes, struct http_exchange *exchange) {
    answer_json(exchange, 200, face_history_json(routes_face(routes)));
}

static void serve_health(struct routes *routes, struct http_exchange *exchange) {
    const struct face *face = routes_face(routes);
    json_t *json = json_pack("{s:o, s:s, s:b, s:o}", "member", face_text(face->name), "version", face->version, "fresh",
                             face->fresh, "waiting", face_text(face->waiting));
    answer_json(exchange, face->fresh ? 200 : 503, face_dump(json));
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

/* ---- the table ---- */

static const struct route table[] = {
    {"GET", "/v1/topology", serve_topology},      /* who is the primary; 503 unless fresh */
    {"GET", "/v1/status", serve_status},          /* all that `ttorch status` shows */
    {"GET", "/v1/history", serve_history},        /* what was decided, and why */
    {"GET", "/v1/health", serve_health},          /* this daemon: 503 unless in touch with a quorum */
    {"POST", "/v1/switchover", serve_switchover}, /* {"to": "m2"} or {}: 202 with the number of the intent */
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
    const struct route *route = find(exchange->path);
    if (route == NULL)
        answer_not_found(exchange);
    else if (!exchange->local && !reads(exchange->method)) /* TCP knows nobody by name yet */
        answer_error(exchange, 403, NULL, "changes are accepted only over the daemon's unix socket");
    else if (!serves(route, exchange->method))
        answer_error(exchange, 405, reads(route->method) ? "GET, HEAD" : route->method, "%s takes %s, not %.20s",
                     route->path, route->method, exchange->method);
    else
        route->serve(routes, exchange);
}
