/* The HTTP server over TCP: an occupied port is tried again, and a renewed certificate is taken while it runs. What is
 * wrong is told, and holds up nothing else. */
#pragma once
#include "publish/http.h"
#include "publish/publish.h"

#define WEB_ROWS_MAX 3

struct web;

struct web_callbacks {
    http_handler *serve;
    void *serve_user;
    void (*notice)(void *user, const char *text);
    void *user;
};

/* The strings of `config` must stay valid. */
status web_open(struct web **ret_web, uv_loop_t *loop, const struct publish_config *config,
                const struct web_callbacks *callbacks, struct error *error) must_check;
/* NULL while it could not listen. */
struct http_server *web_server(const struct web *web);
/* Reads the certificate anew. One that cannot be used is told, and the one in use is kept. */
void web_reload(struct web *web);
/* How it does, as rows for the status; returns how many. `index` is that of the record. */
unsigned web_rows(struct web *web, uint64_t index, struct face_output *ret_rows);
void web_close(struct web *web, void (*closed)(void *user), void *user);
