#include "publish/dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/dns_server.h"
#include "publish/dns_update.h"

/* Freshness ends by the clock, without an event. A look costs as much as a hundred answers, so not for each query. */
#define LOOK_AGE_MS 5
/* News for the name server are collected for so long: that of the record, and what members see, which is something new
 * all the time and seldom for the zone. */
#define PUSH_MS        5
#define PUSH_SELDOM_MS 200

struct dns {
    uv_loop_t *loop;
    struct dns_callbacks callbacks;
    void *user;
    uint64_t max_lag_bytes;
    struct dns_zone *zone;
    struct dns_server *server; /* NULL: does not answer */
    struct dns_update *update; /* NULL: sends nothing */
    char listen[512], update_server[80];
    uv_timer_t push;
    unsigned parts_open;
    bool changed;              /* since the last look */
    uint64_t looked_ms, index; /* when, and of which record */
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
    dns->index = dns->face.topology->index;
    dns_view_of(&dns->face, dns->max_lag_bytes, &view);
    if (dns->update != NULL)
        dns_update_tell(dns->update, &view, dns->face.topology->settings.lease_ms,
                        strcmp(dns->face.leader, dns->face.name) == 0);
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

static void on_push(uv_timer_t *timer) { look(timer->data); }

void dns_changed(struct dns *dns) {
    dns->changed = true;
    if (dns->update == NULL)
        return;
    const Topology *topology = dns->face.topology; /* NULL before the first look */
    uint64_t due_ms = topology == NULL || topology->index != dns->index ? PUSH_MS : PUSH_SELDOM_MS;
    if (!uv_is_active((uv_handle_t *)&dns->push) || uv_timer_get_due_in(&dns->push) > due_ms)
        uv_timer_start(&dns->push, on_push, due_ms, 0);
}

unsigned dns_outputs(const struct dns *dns, struct face_output ret_rows[DNS_OUTPUTS]) {
    unsigned count = 0;
    if (dns->server != NULL)
        ret_rows[count++] = (struct face_output){.name = "dns.listen",
                                                 .where = dns->listen,
                                                 .shown = dns->view.fresh,
                                                 .index = dns->view.index,
                                                 .trouble = dns_server_trouble(dns->server)};
    if (dns->update != NULL)
        ret_rows[count++] = (struct face_output){.name = "dns.update.server",
                                                 .where = dns->update_server,
                                                 .shown = dns_update_index(dns->update) > 0,
                                                 .index = dns_update_index(dns->update),
                                                 .trouble = dns_update_trouble(dns->update)};
    return count;
}

/* ---- opening and closing ---- */

static status open_server(struct dns *dns, const struct dns_config *config, struct error *error) {
    static const struct dns_server_callbacks callbacks = {on_query, on_notice};
    const struct dns_server_config server = {config->listen, config->port, config->rate_limit};
    if (config->listen[0] == '\0')
        return OK;
    snprintf(dns->listen, sizeof dns->listen, "%s", config->listen);
    return dns_server_open(&dns->server, dns->loop, &server, &callbacks, dns, error);
}

static uint32_t whole_seconds(uint32_t ms) { return (ms + 999) / 1000; }

static status open_update(struct dns *dns, const struct dns_config *config, struct error *error) {
    const struct dns_update_config update = {
        .server = config->update.server,
        .port = config->update.port,
        .zone = config->update.zone,
        .domain = config->zone,
        .key_name = config->update.key_name,
        .key_file = config->update.key_file,
        .algorithm = config->update.algorithm,
        .ttl_s = whole_seconds(config->update.ttl_ms),
        .number = config->update.number,
    };
    if (update.server[0] == '\0')
        return OK;
    snprintf(dns->update_server, sizeof dns->update_server, "%s port %u", update.server, update.port);
    return dns_update_open(&dns->update, dns->loop, &update, on_notice, dns, error);
}

static status open_parts(struct dns *dns, const struct dns_config *config, struct error *error) {
    if (dns_zone_open(&dns->zone, config->zone, config->ns, whole_seconds(config->ttl_ms), error) != OK)
        return FAILED;
    if (open_server(dns, config, error) != OK)
        return FAILED;
    dns->parts_open += dns->server != NULL;
    if (open_update(dns, config, error) != OK)
        return FAILED;
    dns->parts_open += dns->update != NULL;
    return OK;
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
    uv_timer_init(loop, &dns->push);
    dns->push.data = dns;
    dns->parts_open = 1;
    if (open_parts(dns, config, error) != OK) {
        dns_close(dns, NULL, NULL);
        return FAILED;
    }
    *ret_dns = dns;
    return OK;
}

static void part_closed(void *user) {
    struct dns *dns = user;
    if (--dns->parts_open > 0)
        return;
    if (dns->closed != NULL)
        dns->closed(dns->closed_user);
    dns_zone_close(dns->zone);
    free(dns);
}

static void on_push_closed(uv_handle_t *handle) { part_closed(handle->data); }

void dns_close(struct dns *dns, void (*closed)(void *user), void *user) {
    dns->closed = closed;
    dns->closed_user = user;
    uv_close((uv_handle_t *)&dns->push, on_push_closed);
    if (dns->server != NULL)
        dns_server_close(dns->server, part_closed, dns);
    if (dns->update != NULL)
        dns_update_close(dns->update, part_closed, dns);
}
