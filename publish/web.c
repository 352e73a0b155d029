#include "publish/web.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LISTEN_AGAIN_MS 1000

static const char *const part_names[TLS_PARTS] = {
    [TLS_CERTIFICATE] = "http.certificate_file", [TLS_KEY] = "http.key_file", [TLS_CLIENT_CA] = "http.client_ca_file"};

struct web {
    uv_loop_t *loop;
    const char *address;
    uint16_t port;
    struct tls_files files;
    struct web_callbacks callbacks;
    struct http_server *server; /* NULL while it could not listen */
    struct tls *tls;            /* NULL without, or before the first that could be used */
    uv_timer_t again;
    char where[HOST_MAX_LENGTH + 16];
    struct error listen_trouble, tls_trouble; /* "" = none */
    enum tls_part troubled;                   /* which of the files it is */
    struct error expired;                     /* written when asked for */
    unsigned parts_open;
    void (*closed)(void *user);
    void *closed_user;
};

static bool wants_tls(const struct web *web) { return web->files.paths[TLS_CERTIFICATE][0] != '\0'; }

/* Told once, until it is another one. */
static void tell(struct web *web, struct error *trouble, const struct error *news) {
    if (strcmp(trouble->text, news->text) != 0)
        web->callbacks.notice(web->callbacks.user, news->text);
    *trouble = *news;
}

/* ---- the certificate ---- */

static status load(struct web *web, struct tls **ret_tls) {
    struct error error;
    if (tls_load(ret_tls, &web->files, &web->troubled, &error) == OK) {
        web->tls_trouble.text[0] = '\0';
        return OK;
    }
    error_prefix(&error, "%s: %s", part_names[web->troubled], web->files.paths[web->troubled]);
    tell(web, &web->tls_trouble, &error);
    return FAILED;
}

void web_reload(struct web *web) {
    struct tls *fresh;
    if (!wants_tls(web) || load(web, &fresh) != OK)
        return;
    tls_leave(web->tls);
    web->tls = fresh;
    if (web->server != NULL)
        http_renew(web->server, fresh);
}

static const char *expiry_trouble(struct web *web) {
    char when[32] = "";
    struct tm parts;
    time_t expires = web->tls != NULL ? tls_expires(web->tls) : 0;
    if (web->tls == NULL || expires > time(NULL))
        return "";
    if (gmtime_r(&expires, &parts) != NULL)
        (void)strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &parts);
    (void)error_set(&web->expired, "http.certificate_file: expired at %s: renew it, and send ttorchd SIGHUP", when);
    return web->expired.text;
}

/* The key stands in no row of its own. */
static const char *tls_trouble(struct web *web, enum tls_part part) {
    bool here = (web->troubled == TLS_CLIENT_CA) == (part == TLS_CLIENT_CA);
    if (web->tls_trouble.text[0] != '\0' && here)
        return web->tls_trouble.text;
    return part == TLS_CERTIFICATE ? expiry_trouble(web) : "";
}

static struct face_output tls_row(struct web *web, enum tls_part part, uint64_t index) {
    return (struct face_output){.name = part_names[part],
                                .where = web->files.paths[part],
                                .shown = web->server != NULL,
                                .index = index,
                                .trouble = tls_trouble(web, part)};
}

/* ---- listening ---- */

static status open_server(struct web *web, struct error *error) {
    struct http_door door = {.tls = web->tls};
    if (wants_tls(web) && web->tls == NULL) {
        if (load(web, &web->tls) != OK)
            return error_set(error, "http.listen: waits for a certificate that can be used");
        door.tls = web->tls;
    }
    if (http_listen_tcp(&door.fd, web->address, web->port, error) != OK ||
        http_open(&web->server, web->loop, &door, web->callbacks.serve, web->callbacks.serve_user, error) != OK)
        return error_prefix(error, "http.listen");
    web->parts_open++;
    return OK;
}

/* An occupied port is no reason to leave PostgreSQL alone. */
static void on_listen(uv_timer_t *timer) {
    struct web *web = timer->data;
    struct error error;
    if (open_server(web, &error) == OK) {
        web->listen_trouble.text[0] = '\0';
        uv_timer_stop(timer);
        return;
    }
    tell(web, &web->listen_trouble, &error);
    if (!uv_is_active((uv_handle_t *)timer))
        uv_timer_start(timer, on_listen, LISTEN_AGAIN_MS, LISTEN_AGAIN_MS);
}

struct http_server *web_server(const struct web *web) {
    return web->server;
}

unsigned web_rows(struct web *web, uint64_t index, struct face_output *ret_rows) {
    unsigned count = 0;
    ret_rows[count++] = (struct face_output){.name = "http.listen",
                                             .where = web->where,
                                             .shown = web->server != NULL,
                                             .index = index,
                                             .trouble = web->listen_trouble.text};
    if (wants_tls(web))
        ret_rows[count++] = tls_row(web, TLS_CERTIFICATE, index);
    if (wants_tls(web) && web->files.paths[TLS_CLIENT_CA][0] != '\0')
        ret_rows[count++] = tls_row(web, TLS_CLIENT_CA, index);
    return count;
}

/* ---- opening and closing ---- */

status web_open(struct web **ret_web, uv_loop_t *loop, const struct publish_config *config,
                const struct web_callbacks *callbacks, struct error *error) {
    struct web *web = calloc(1, sizeof *web);
    if (web == NULL)
        return error_set(error, "out of memory");
    web->loop = loop;
    web->address = config->http_listen;
    web->port = config->http_port;
    web->files = (struct tls_files){{[TLS_CERTIFICATE] = config->http_certificate_file,
                                     [TLS_KEY] = config->http_key_file,
                                     [TLS_CLIENT_CA] = config->http_client_ca_file}};
    web->callbacks = *callbacks;
    snprintf(web->where, sizeof web->where, "%s port %u", web->address, web->port);
    uv_timer_init(loop, &web->again);
    web->again.data = web;
    web->parts_open = 1;
    on_listen(&web->again);
    *ret_web = web;
    return OK;
}

static void part_closed(struct web *web) {
    if (--web->parts_open > 0)
        return;
    tls_leave(web->tls);
    web->closed(web->closed_user);
    free(web);
}

static void on_server_closed(void *user) { part_closed(user); }
static void on_timer_closed(uv_handle_t *handle) { part_closed(handle->data); }

void web_close(struct web *web, void (*closed)(void *user), void *user) {
    web->closed = closed;
    web->closed_user = user;
    if (web->server != NULL)
        http_close(web->server, on_server_closed, web);
    uv_close((uv_handle_t *)&web->again, on_timer_closed);
}
