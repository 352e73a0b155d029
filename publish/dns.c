#include "publish/dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/dns_server.h"

/* Freshness ends by the clock, without an event. A look costs as much as a hundred answers, so not for each query. */
#define LOOK_AGE_MS 5

struct dns {
    uv_loop_t *loop;
    struct dns_callbacks callbacks;
    void *user;
    uint64_t max_lag_bytes;
    struct dns_zone *zone;
    struct dns_server *server; /* NULL: does not answer */
    bool changed;              /* since the last look */
    uint64_t looked_ms;
    struct dns_view view;
    struct face face; /* as of the last look */
    void (*closed)(void *user);
    void *closed_user;
};

/* ---- the view ---- */

static void look(struct dns *dns) {
    struct dns_view view;
    dns->changed = false;
    dns->looked_ms = uv_now(dns->loop);
    dns->callbacks.face(dns->user, &dns->face);
    dns_view_of(&dns->face, dns->max_lag_bytes, &view);
    if (memcmp(&view, &dns->view, sizeof view) == 0)
        return;
    dns->view = view;
    dns_zone_show(dns->zone, &dns->view);
}

static size_t on_query(void *user, enum dns_transport transport, const uint8_t *query, size_t length,
                       uint8_t *ret_answer) {
    struct dns *dns = user;
    if (dns->changed || uv_now(dns->loop) - dns->looked_ms >= LOOK_AGE_MS)
        look(dns);
    return dns_zone_answer(dns->zone, transport, query, length, ret_answer);
}

static void on_notice(void *user, const char *text) {
    struct dns *dns = user;
    dns->callbacks.notice(dns->user, text);
}

void dns_changed(struct dns *dns) { dns->changed = true; }

const char *dns_status(struct dns *dns) { return dns->server != NULL ? dns_server_trouble(dns->server) : ""; }

/* ---- opening and closing ---- */

static status open_server(struct dns *dns, const struct dns_config *config, struct error *error) {
    static const struct dns_server_callbacks callbacks = {on_query, on_notice};
    const struct dns_server_config server = {config->listen, config->port, config->rate_limit};
    if (config->listen[0] == '\0')
        return OK;
    return dns_server_open(&dns->server, dns->loop, &server, &callbacks, dns, error);
}

static status open_parts(struct dns *dns, const struct dns_config *config, struct error *error) {
    if (dns_zone_open(&dns->zone, config->zone, config->ns, (config->ttl_ms + 999) / 1000, error) != OK)
        return FAILED;
    return open_server(dns, config, error);
}

status dns_open(struct dns **ret_dns, uv_loop_t *loop, const struct dns_config *config,
                const struct dns_callbacks *callbacks, void *user, struct error *error) {
    struct dns *dns = calloc(1, sizeof *dns);
    if (dns == NULL)
        return error_set(error, "out of memory");
    dns->loop = loop;
    dns->callbacks = *callbacks;
    dns->user = user;
    dns->max_lag_bytes = config->max_lag_bytes;
    dns->changed = true;
    if (open_parts(dns, config, error) != OK) {
        dns_zone_close(dns->zone);
        free(dns);
        return FAILED;
    }
    *ret_dns = dns;
    return OK;
}

static void on_server_closed(void *user) {
    struct dns *dns = user;
    if (dns->closed != NULL)
        dns->closed(dns->closed_user);
    dns_zone_close(dns->zone);
    free(dns);
}

void dns_close(struct dns *dns, void (*closed)(void *user), void *user) {
    dns->closed = closed;
    dns->closed_user = user;
    if (dns->server != NULL)
        dns_server_close(dns->server, on_server_closed, dns);
    else
        on_server_closed(dns);
}
