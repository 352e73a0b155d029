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
    struct {
        const char *server; /* an address; "" = sends no updates */
        uint16_t port;
        const char *zone;
        const char *key_name;
        const char *key_file;
        const char *algorithm; /* "hmac-sha256" */
        uint32_t ttl_ms;
        unsigned number; /* of our member */
    } update;
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
/* How it does, for the status: at most DNS_OUTPUTS rows, returns how many. They are valid until the next call. */
#define DNS_OUTPUTS 2
unsigned dns_outputs(const struct dns *dns, struct face_output ret_rows[DNS_OUTPUTS]);
void dns_close(struct dns *dns, void (*closed)(void *user), void *user);
