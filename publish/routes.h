/* What there is at which path: one row a method and path. */
#pragma once
#include "publish/http.h"
#include "publish/publish.h"

struct routes {
    const struct publish_callbacks *callbacks;
    void *user;
    void (*add_outputs)(void *publish, struct face *face); /* how they do; may be NULL */
    void *publish;
    struct face face; /* filled anew each time; too large for the stack */
};

/* What there is to show now; valid until the next call. */
const struct face *routes_face(struct routes *routes);

/* An http_handler; `user` is the struct routes. */
void routes_serve(void *user, struct http_exchange *exchange);
