/* How many answers a second a network gets over UDP, where the sender's address may be forged: so that nobody is
 * flooded with our answers. A fixed table, keyed with a secret: networks that fall on the same place share it. */
#pragma once
#include <stdint.h>
#include <sys/socket.h>

#include "base/error.h"

#define DNS_LIMIT_PLACES 4096

enum dns_verdict {
    DNS_PASS,
    DNS_SLIP, /* one of two beyond the limit: answer that TCP is wanted, so that an honest client gets through */
    DNS_DROP
};

struct dns_limit {
    uint32_t per_second; /* 0 = no limit */
    uint64_t secret;
    struct {
        uint64_t second;
        uint32_t answers;
    } places[DNS_LIMIT_PLACES];
};

void dns_limit_init(struct dns_limit *limit, uint32_t per_second);
/* A network is a /24 of IPv4 or a /56 of IPv6. */
enum dns_verdict dns_limit_take(struct dns_limit *limit, const struct sockaddr *from, uint64_t now_ms);
