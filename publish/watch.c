#include "publish/watch.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct watcher {
    struct http_exchange *exchange;
    uint64_t until; /* milliseconds of the loop */
    TAILQ_ENTRY(watcher) link;
};

struct watch {
    TAILQ_HEAD(watchers, watcher) watchers;
    uv_timer_t timer; /* at the first one's end */
    void (*answer)(void *user, struct http_exchange *exchange);
    void *user;
    void (*closed)(void *user);
    void *closed_user;
};

static void answer(struct watch *watch, struct watcher *watcher) {
    TAILQ_REMOVE(&watch->watchers, watcher, link);
    watch->answer(watch->user, watcher->exchange);
    free(watcher);
}

static void start_timer(struct watch *watch);

static void on_timer(uv_timer_t *timer) {
    struct watch *watch = timer->data;
    struct watcher *watcher;
    while ((watcher = TAILQ_FIRST(&watch->watchers)) != NULL && watcher->until <= uv_now(timer->loop))
        answer(watch, watcher);
    start_timer(watch);
}

static void start_timer(struct watch *watch) {
    const struct watcher *first = TAILQ_FIRST(&watch->watchers);
    uint64_t now = uv_now(watch->timer.loop);
    if (first == NULL)
        uv_timer_stop(&watch->timer);
    else
        uv_timer_start(&watch->timer, on_timer, first->until > now ? first->until - now : 0, 0);
}

/* Kept in the order of their ends. Most wait equally long, so the place is looked for from the last one on. */
static void insert(struct watch *watch, struct watcher *watcher) {
    struct watcher *before = TAILQ_LAST(&watch->watchers, watchers);
    while (before != NULL && before->until > watcher->until)
        before = TAILQ_PREV(before, watchers, link);
    if (before != NULL)
        TAILQ_INSERT_AFTER(&watch->watchers, before, watcher, link);
    else
        TAILQ_INSERT_HEAD(&watch->watchers, watcher, link);
}

void watch_add(struct watch *watch, struct http_exchange *exchange, uint64_t wait_ms) {
    struct watcher *watcher = calloc(1, sizeof *watcher);
    if (watcher == NULL || wait_ms == 0) {
        free(watcher);
        watch->answer(watch->user, exchange);
        return;
    }
    watcher->exchange = exchange;
    watcher->until = uv_now(watch->timer.loop) + wait_ms;
    insert(watch, watcher);
    start_timer(watch);
}

void watch_changed(struct watch *watch) {
    struct watcher *watcher;
    while ((watcher = TAILQ_FIRST(&watch->watchers)) != NULL)
        answer(watch, watcher);
    uv_timer_stop(&watch->timer);
}

status watch_open(struct watch **ret_watch, uv_loop_t *loop,
                  void (*answer_it)(void *user, struct http_exchange *exchange), void *user, struct error *error) {
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return error_set(error, "out of memory");
    TAILQ_INIT(&watch->watchers);
    watch->answer = answer_it;
    watch->user = user;
    uv_timer_init(loop, &watch->timer);
    watch->timer.data = watch;
    *ret_watch = watch;
    return OK;
}

static void on_closed(uv_handle_t *handle) {
    struct watch *watch = handle->data;
    watch->closed(watch->closed_user);
    free(watch);
}

void watch_close(struct watch *watch, void (*closed)(void *user), void *user) {
    watch->closed = closed;
    watch->closed_user = user;
    watch_changed(watch);
    uv_close((uv_handle_t *)&watch->timer, on_closed);
}

bool watch_wait(const char *text, uint64_t *ret_ms) {
    char *unit;
    if (!isdigit((unsigned char)*text) || strlen(text) > 9)
        return false;
    uint64_t number = strtoull(text, &unit, 10);
    if (strcmp(unit, "ms") != 0)
        number *= 1000;
    if (*unit != '\0' && strcmp(unit, "s") != 0 && strcmp(unit, "ms") != 0)
        return false;
    *ret_ms = number < WATCH_MAX_MS ? number : WATCH_MAX_MS;
    return true;
}
