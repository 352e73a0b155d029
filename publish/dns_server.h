/* The sockets of the responder: UDP and TCP on each address, on the caller's loop. What is answered is the caller's. An
 * address that cannot be had (another program is there, it does not exist yet) is told once and tried again. */
#pragma once
#include <stddef.h>
#include <uv.h>

#include "base/error.h"
#include "publish/dns_zone.h"

#define DNS_ADDRESSES_MAX 8
#define DNS_CLIENTS_MAX   64 /* over TCP at once; one more, and the one that was silent for longest has to go */

struct dns_server;

struct dns_server_config {
    const char *listen; /* addresses, separated by commas */
    uint16_t port;
    uint32_t rate_limit; /* answers a second to one network over UDP, 0 = no limit */
};

struct dns_server_callbacks {
    size_t (*answer)(void *user, enum dns_transport transport, const uint8_t *query, size_t length,
                     uint8_t *ret_answer);
    void (*notice)(void *user, const char *text);
};

status dns_server_open(struct dns_server **ret_server, uv_loop_t *loop, const struct dns_server_config *config,
                       const struct dns_server_callbacks *callbacks, void *user, struct error *error) must_check;
/* What is wrong with an address now; "" if nothing is. */
const char *dns_server_trouble(const struct dns_server *server);
void dns_server_close(struct dns_server *server, void (*closed)(void *user), void *user);
