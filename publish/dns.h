/* DNS: this member answers for one zone, and keeps the records at a name server up to date (RFC 2136). Both tell the
 * same view of the face. Knows ldns; never fences, never blocks. Everything runs on the caller's loop. */
#pragma once
#include <uv.h>

#include "publish/publish.h"

struct dns_config {
    const char *zone; /* "db.example.org" */
    uint32_t ttl_ms;  /* DNS counts seconds: rounded up */
    uint64_t max_lag_bytes;
    const char *listen; /* addresses separated by commas; "" = does not answer */
    uint16_t port;
    const char *ns; /* or "" */
    uint32_t rate_limit;
};

struct dns_callbacks {
    void (*face)(void *user, struct face *ret_face);
    void (*notice)(void *user, const char *text);
};

struct dns;

/* Fails only on what never becomes right by itself. */
status dns_open(struct dns **ret_dns, uv_loop_t *loop, const struct dns_config *config,
                const struct dns_callbacks *callbacks, void *user, struct error *error) must_check;
/* Something may have changed. Cheap: nothing is looked at before it is needed. */
void dns_changed(struct dns *dns);
/* For `ttorch status`: what is wrong, "" if nothing is. Valid until the next call of anything here. */
const char *dns_status(struct dns *dns);
void dns_close(struct dns *dns, void (*closed)(void *user), void *user);
