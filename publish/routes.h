/* What there is at which path: one row a method and path. */
#pragma once
#include "publish/http.h"
#include "publish/publish.h"
#include "publish/watch.h"

struct routes {
    const struct publish_callbacks *callbacks;
    void *user;
    void (*add_outputs)(void *publish, struct face *face); /* how they do; may be NULL */
    void *publish;
    const struct publish_config *config;
    struct watch *watch;
    struct face face;
    nsec filled_at;
    char *checks_text, *topology_text; /* of this face; NULL until asked for */
};

/* What there is to show now; valid until the next call. */
const struct face *routes_face(struct routes *routes);
/* What /v1/topology says, as a server-sent event; malloc'ed. */
char *routes_event(const struct face *face);
void routes_free(struct routes *routes);
/* Answers with the topology. */
void routes_topology(struct routes *routes, struct http_exchange *exchange);

/* An http_handler; `user` is the struct routes. */
void routes_serve(void *user, struct http_exchange *exchange);
