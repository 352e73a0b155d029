#include "publish/publish.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "publish/face.h"
#include "publish/file.h"
#include "publish/http.h"
#include "publish/routes.h"

/* Lags change all the time: when nothing else has, the file is written only that often. */
#define LAG_INTERVAL_MS 1000
/* Making the texts costs more than anything else an idle daemon does: so often when neither record nor freshness
 * changed, which are shown at once. */
#define LOOK_INTERVAL_MS 50

struct publish {
    uv_loop_t *loop;
    struct publish_callbacks callbacks;
    void *user;
    struct routes routes;
    struct http_server *local, *tcp;
    char socket_path[PATH_MAX_LENGTH + 1];

    struct {
        char path[PATH_MAX_LENGTH + 1];
        uv_timer_t timer;     /* runs while something may have changed that is not written yet */
        char *text, *lagless; /* as written last; NULL before that */
        uint64_t looked_at;   /* milliseconds of the loop, as the next */
        uint64_t index;       /* of the record, then */
        bool fresh;
        uint64_t written_at;
        bool failing; /* told once, until it works again */
        struct face face;
    } file;

    unsigned parts_open;
    void (*closed)(void *user);
    void *closed_user;
};

/* ---- the topology file ---- */

static bool same(const char *a, const char *b) { return a != NULL && b != NULL && strcmp(a, b) == 0; }

static void file_keep(struct publish *publish, char *text, char *lagless) {
    free(publish->file.text);
    free(publish->file.lagless);
    publish->file.text = text;
    publish->file.lagless = lagless;
}

static void on_file_timer(uv_timer_t *timer) { publish_changed(timer->data); }

static void file_again_in(struct publish *publish, uint64_t due_ms) {
    uv_timer_t *timer = &publish->file.timer;
    if (!uv_is_active((uv_handle_t *)timer) || uv_timer_get_due_in(timer) > due_ms)
        uv_timer_start(timer, on_file_timer, due_ms, 0);
}

static void file_write(struct publish *publish, char *text, char *lagless) {
    struct error error;
    publish->file.written_at = uv_now(publish->loop);
    uv_timer_stop(&publish->file.timer);
    bool failed = file_replace(publish->file.path, text, &error) != OK;
    if (failed && !publish->file.failing)
        publish->callbacks.notice(publish->user, error.text);
    publish->file.failing = failed;
    if (!failed) {
        file_keep(publish, text, lagless);
        return;
    }
    free(text);
    free(lagless);
    file_keep(publish, NULL, NULL); /* so that it differs, and is tried again */
    file_again_in(publish, LAG_INTERVAL_MS);
}

/* How long to wait before the file may be written: not at all if more than lags has changed. */
static uint64_t file_due_ms(const struct publish *publish, const char *lagless) {
    if (!publish->file.failing && !same(lagless, publish->file.lagless))
        return 0;
    uint64_t waited_ms = uv_now(publish->loop) - publish->file.written_at;
    return waited_ms < LAG_INTERVAL_MS ? LAG_INTERVAL_MS - waited_ms : 0;
}

static void file_changed(struct publish *publish, char *text, char *lagless) {
    uint64_t due_ms = file_due_ms(publish, lagless);
    if (due_ms == 0) {
        file_write(publish, text, lagless);
        return;
    }
    file_again_in(publish, due_ms);
    free(text);
    free(lagless);
}

/* How long not to look again yet: not at all when the record or freshness has changed. */
static uint64_t file_rest_ms(const struct publish *publish, const struct face *face) {
    if (face->topology->index != publish->file.index || face->fresh != publish->file.fresh)
        return 0;
    uint64_t passed_ms = uv_now(publish->loop) - publish->file.looked_at;
    return passed_ms < LOOK_INTERVAL_MS ? LOOK_INTERVAL_MS - passed_ms : 0;
}

void publish_changed(struct publish *publish) {
    if (publish->file.path[0] == '\0')
        return;
    const struct face *face = routes_face(&publish->routes);
    uint64_t rest_ms = file_rest_ms(publish, face);
    if (rest_ms > 0) {
        file_again_in(publish, rest_ms);
        return;
    }
    publish->file.looked_at = uv_now(publish->loop);
    publish->file.index = face->topology->index;
    publish->file.fresh = face->fresh;
    char *text = face_topology_json(face);
    char *lagless = face_dump(face_topology(face, false));
    if (text != NULL && lagless != NULL && !same(text, publish->file.text)) {
        file_changed(publish, text, lagless);
        return;
    }
    free(text);
    free(lagless);
}

/* Nobody keeps the file true from now on. */
static void file_retire(struct publish *publish) {
    json_t *last = publish->file.text != NULL ? json_loads(publish->file.text, 0, NULL) : NULL;
    if (last == NULL)
        return;
    json_object_set_new(last, "fresh", json_false());
    json_object_set_new(last, "primary", json_null());
    char *text = face_dump(last);
    struct error error;
    if (text != NULL && file_replace(publish->file.path, text, &error) != OK)
        publish->callbacks.notice(publish->user, error.text);
    free(text);
}

/* ---- opening and closing ---- */

static status open_local(struct publish *publish, const struct publish_config *config, struct error *error) {
    int fd;
    if (http_listen_unix(&fd, config->socket_path, error) != OK)
        return FAILED;
    if (http_open(&publish->local, publish->loop, fd, true, routes_serve, &publish->routes, error) == OK)
        return OK;
    unlink(config->socket_path);
    return FAILED;
}

static status open_tcp(struct publish *publish, const struct publish_config *config, struct error *error) {
    int fd;
    if (config->http_listen[0] == '\0')
        return OK;
    if (http_listen_tcp(&fd, config->http_listen, config->http_port, error) != OK)
        return FAILED;
    return http_open(&publish->tcp, publish->loop, fd, false, routes_serve, &publish->routes, error);
}

static status open_both(struct publish *publish, const struct publish_config *config, struct error *error) {
    if (open_local(publish, config, error) != OK)
        return error_prefix(error, "socket");
    publish->parts_open++;
    if (open_tcp(publish, config, error) != OK)
        return error_prefix(error, "http");
    publish->parts_open += publish->tcp != NULL;
    return OK;
}

status publish_open(struct publish **ret_publish, uv_loop_t *loop, const struct publish_config *config,
                    const struct publish_callbacks *callbacks, void *user, struct error *error) {
    struct publish *publish = calloc(1, sizeof *publish);
    if (publish == NULL)
        return error_set(error, "out of memory");
    publish->loop = loop;
    publish->callbacks = *callbacks;
    publish->user = user;
    publish->routes.callbacks = &publish->callbacks;
    publish->routes.user = user;
    snprintf(publish->socket_path, sizeof publish->socket_path, "%s", config->socket_path);
    snprintf(publish->file.path, sizeof publish->file.path, "%s", config->topology_file);
    uv_timer_init(loop, &publish->file.timer);
    publish->file.timer.data = publish;
    publish->parts_open = 1;
    if (open_both(publish, config, error) != OK) {
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
    file_keep(publish, NULL, NULL);
    free(publish);
}

static void on_server_closed(void *user) { part_closed(user); }

static void on_timer_closed(uv_handle_t *handle) { part_closed(handle->data); }

void publish_close(struct publish *publish, void (*closed)(void *user), void *user) {
    publish->closed = closed;
    publish->closed_user = user;
    if (publish->local != NULL) {
        unlink(publish->socket_path);
        http_close(publish->local, on_server_closed, publish);
    }
    if (publish->tcp != NULL)
        http_close(publish->tcp, on_server_closed, publish);
    file_retire(publish);
    uv_close((uv_handle_t *)&publish->file.timer, on_timer_closed);
}
