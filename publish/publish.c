#include "publish/publish.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "publish/face.h"
#include "publish/hook.h"
#include "publish/http.h"
#include "publish/outputs.h"
#include "publish/routes.h"
#include "publish/template.h"
#include "publish/web.h"
#include "publish/writer.h"

/* Lags change all the time: when nothing else has, the file is written only that often. */
#define LAG_INTERVAL_MS 1000
/* Making the texts costs more than anything else an idle daemon does: so often when neither record nor freshness
 * changed, which are shown at once. */
#define LOOK_INTERVAL_MS 200
/* Something happens many times a second, and then we are asked to look: a timer is there only in case it does not. */
#define PATIENCE_MS 100

struct publish {
    uv_loop_t *loop;
    struct publish_config config;
    struct publish_callbacks callbacks;
    void *user;
    struct routes routes;
    struct http_server *local;
    struct web *web; /* NULL if it is not wanted */
    char socket_path[PATH_MAX_LENGTH + 1];
    struct outputs *outputs;
    struct hook *hook; /* NULL if none is wanted */
    char *told;        /* to the hook last: the topology without lags and index; NULL before that */

    uv_timer_t timer;                  /* runs while something may have changed that was not looked at */
    char *news;                        /* the topology without lags, as published last; NULL before that */
    uint64_t looked_at, lags_shown_at; /* milliseconds of the loop */
    uint64_t index;                    /* of the record, then */
    bool fresh;

    struct face_output rows[WRITER_FILES_MAX + 1 + WEB_ROWS_MAX + FACE_OUTPUTS_MAX];
    unsigned parts_open;
    void (*closed)(void *user);
    void *closed_user;
};

/* ---- what changed ---- */

static void on_timer(uv_timer_t *timer) { publish_changed(timer->data); }

static void look_again_in(struct publish *publish, uint64_t due_ms) {
    if (!uv_is_active((uv_handle_t *)&publish->timer) || uv_timer_get_due_in(&publish->timer) > due_ms)
        uv_timer_start(&publish->timer, on_timer, due_ms, 0);
}

/* How long not to look again yet: not at all when the record or freshness has changed. */
static uint64_t rest_ms(const struct publish *publish, const struct face *face) {
    if (face->topology->index != publish->index || face->fresh != publish->fresh)
        return 0;
    uint64_t passed_ms = uv_now(publish->loop) - publish->looked_at;
    return passed_ms < LOOK_INTERVAL_MS ? LOOK_INTERVAL_MS - passed_ms : 0;
}

/* Freshness ends by the clock, and no event tells: a look just then leaves the files the time to say so. */
static void look_when_stale(struct publish *publish, const struct face *face) {
    if (face->fresh && face->fresh_until != NSEC_NEVER)
        look_again_in(publish, msec_between(face->now, face->fresh_until) + 1);
}

/* True if more than lags has changed since the last time. */
static bool take_news(struct publish *publish, const struct face *face) {
    char *news = face_dump(face_topology(face, false));
    bool differs = news != NULL && (publish->news == NULL || strcmp(news, publish->news) != 0);
    if (!differs) {
        free(news);
        return false;
    }
    free(publish->news);
    publish->news = news;
    return true;
}

static void lags_changed(struct publish *publish) {
    uint64_t passed_ms = uv_now(publish->loop) - publish->lags_shown_at;
    if (passed_ms < LAG_INTERVAL_MS) {
        look_again_in(publish, LAG_INTERVAL_MS - passed_ms + PATIENCE_MS);
        return;
    }
    publish->lags_shown_at = uv_now(publish->loop);
    outputs_lags_changed(publish->outputs);
}

/* Whether something is different for clients: entries of the record that change nothing here are no news. */
static bool take_told(struct publish *publish, const struct face *face) {
    json_t *topology = face_topology(face, false);
    json_object_del(topology, "index");
    char *told = face_dump(topology);
    if (told == NULL || (publish->told != NULL && strcmp(told, publish->told) == 0)) {
        free(told);
        return false;
    }
    free(publish->told);
    publish->told = told;
    return true;
}

/* Nothing before we know the present: a daemon that starts has no news for anybody. */
static void tell_hook(struct publish *publish, const struct face *face) {
    if (publish->hook == NULL || (publish->told == NULL && !face->fresh) || !take_told(publish, face))
        return;
    struct form form = {.face = face, .config = &publish->config};
    hook_tell(publish->hook, face->topology->index, face_topology_json(face), template_environment(&form));
}

static void tell_watchers(struct publish *publish) {
    watch_changed(publish->routes.watch);
    char *event = routes_event(&publish->routes.face);
    struct http_server *servers[] = {publish->local, publish->web != NULL ? web_server(publish->web) : NULL};
    for (unsigned i = 0; event != NULL && i < sizeof servers / sizeof *servers; i++)
        if (servers[i] != NULL)
            http_stream_send(servers[i], event);
    free(event);
}

void publish_changed(struct publish *publish) {
    const struct face *face = routes_face(&publish->routes);
    uint64_t rest = rest_ms(publish, face);
    if (rest > 0) {
        look_again_in(publish, rest + PATIENCE_MS);
        return;
    }
    uv_timer_stop(&publish->timer);
    publish->looked_at = uv_now(publish->loop);
    publish->index = face->topology->index;
    publish->fresh = face->fresh;
    look_when_stale(publish, face);
    if (!take_news(publish, face)) {
        lags_changed(publish);
        return;
    }
    publish->lags_shown_at = publish->looked_at;
    outputs_changed(publish->outputs);
    tell_watchers(publish);
    tell_hook(publish, &publish->routes.face);
}

void publish_reload(struct publish *publish) {
    if (publish->web != NULL)
        web_reload(publish->web);
}

bool publish_settled(const struct publish *publish) {
    return outputs_settled(publish->outputs) && (publish->hook == NULL || hook_settled(publish->hook));
}

/* ---- how it does ---- */

static void add_outputs(void *user, struct face *face) {
    struct publish *publish = user;
    unsigned count = outputs_rows(publish->outputs, publish->rows);
    if (publish->hook != NULL)
        publish->rows[count++] = hook_row(publish->hook);
    if (publish->web != NULL)
        count += web_rows(publish->web, face->topology->index, &publish->rows[count]);
    for (unsigned i = 0; i < face->outputs_count && i < FACE_OUTPUTS_MAX; i++)
        publish->rows[count++] = face->outputs[i];
    face->outputs = publish->rows;
    face->outputs_count = count;
}

static const struct face *on_face(void *user) { return routes_face(&((struct publish *)user)->routes); }

static void on_notice(void *user, const char *text) {
    struct publish *publish = user;
    publish->callbacks.notice(publish->user, text);
}

static void on_written(void *user, const char *name) {
    struct publish *publish = user;
    if (publish->callbacks.written != NULL)
        publish->callbacks.written(publish->user, name);
}

/* ---- opening and closing ---- */

static status open_local(struct publish *publish, struct error *error) {
    struct http_door door = {.local = true};
    if (http_listen_unix(&door.fd, publish->socket_path, error) != OK)
        return FAILED;
    if (http_open(&publish->local, publish->loop, &door, routes_serve, &publish->routes, error) == OK)
        return OK;
    unlink(publish->socket_path);
    return FAILED;
}

static status open_web(struct publish *publish, struct error *error) {
    const struct web_callbacks callbacks = {
        .serve = routes_serve, .serve_user = &publish->routes, .notice = on_notice, .user = publish};
    if (publish->config.http_listen[0] == '\0')
        return OK;
    if (web_open(&publish->web, publish->loop, &publish->config, &callbacks, error) != OK)
        return FAILED;
    publish->parts_open++;
    return OK;
}

static void on_watch_over(void *user, struct http_exchange *exchange) {
    routes_topology(&((struct publish *)user)->routes, exchange);
}

static status open_hook(struct publish *publish, struct error *error) {
    struct hook_config config = {.program = publish->config.hook, .timeout_ms = publish->config.hook_timeout_ms};
    if (config.program[0] == '\0')
        return OK;
    if (hook_open(&publish->hook, publish->loop, &config, on_notice, publish, error) != OK)
        return FAILED;
    publish->parts_open++;
    return OK;
}

static status open_parts(struct publish *publish, struct error *error) {
    static const struct outputs_callbacks callbacks = {.face = on_face, .notice = on_notice, .written = on_written};
    if (watch_open(&publish->routes.watch, publish->loop, on_watch_over, publish, error) != OK)
        return FAILED;
    publish->parts_open++;
    if (open_local(publish, error) != OK)
        return error_prefix(error, "socket");
    publish->parts_open++;
    if (outputs_open(&publish->outputs, publish->loop, &publish->config, &callbacks, publish, error) != OK)
        return FAILED;
    publish->parts_open++;
    if (open_hook(publish, error) != OK)
        return FAILED;
    publish->routes.add_outputs = add_outputs;
    publish->routes.publish = publish;
    return open_web(publish, error);
}

status publish_open(struct publish **ret_publish, uv_loop_t *loop, const struct publish_config *config,
                    const struct publish_callbacks *callbacks, void *user, struct error *error) {
    struct publish *publish = calloc(1, sizeof *publish);
    if (publish == NULL)
        return error_set(error, "out of memory");
    publish->loop = loop;
    publish->config = *config;
    publish->callbacks = *callbacks;
    publish->user = user;
    publish->routes.callbacks = &publish->callbacks;
    publish->routes.user = user;
    publish->routes.config = &publish->config;
    snprintf(publish->socket_path, sizeof publish->socket_path, "%s", config->socket_path);
    publish->config.socket_path = publish->socket_path;
    uv_timer_init(loop, &publish->timer);
    publish->timer.data = publish;
    publish->parts_open++;
    if (open_parts(publish, error) != OK) {
        publish_close(publish, NULL, NULL);
        return FAILED;
    }
    *ret_publish = publish;
    return OK;
}

static void part_closed(struct publish *publish) {
    if (--publish->parts_open > 0)
        return;
    if (publish->closed != NULL)
        publish->closed(publish->closed_user);
    free(publish->news);
    free(publish->told);
    routes_free(&publish->routes);
    free(publish);
}

static void on_part_closed(void *user) { part_closed(user); }

static void on_timer_closed(uv_handle_t *handle) { part_closed(handle->data); }

void publish_close(struct publish *publish, void (*closed)(void *user), void *user) {
    publish->closed = closed;
    publish->closed_user = user;
    publish->routes.add_outputs = NULL; /* they go before the last answers are given */
    if (publish->routes.watch != NULL)
        watch_close(publish->routes.watch, on_part_closed, publish);
    if (publish->local != NULL) {
        unlink(publish->socket_path);
        http_close(publish->local, on_part_closed, publish);
    }
    if (publish->web != NULL)
        web_close(publish->web, on_part_closed, publish);
    if (publish->outputs != NULL)
        outputs_close(publish->outputs, on_part_closed, publish);
    if (publish->hook != NULL)
        hook_close(publish->hook, on_part_closed, publish);
    uv_close((uv_handle_t *)&publish->timer, on_timer_closed);
}
