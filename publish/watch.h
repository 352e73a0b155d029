/* Clients that wait for the topology to change: each gets its answer when it has, or when its time is up. */
#pragma once
#include "publish/http.h"

#define WATCH_DEFAULT_MS 30000
#define WATCH_MAX_MS     60000 /* a client that has gone is noticed only then */

struct watch;

/* `answer` must answer the exchange. */
status watch_open(struct watch **ret_watch, uv_loop_t *loop, void (*answer)(void *user, struct http_exchange *exchange),
                  void *user, struct error *error) must_check;
void watch_add(struct watch *watch, struct http_exchange *exchange, uint64_t wait_ms);
/* Answers all. */
void watch_changed(struct watch *watch);
/* Answers all, then closes. */
void watch_close(struct watch *watch, void (*closed)(void *user), void *user);
/* "30s", "500ms", "30"; at most WATCH_MAX_MS are waited. */
bool watch_wait(const char *text, uint64_t *ret_ms);
