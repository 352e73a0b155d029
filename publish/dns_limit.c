#include "publish/dns_limit.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/random.h>

#include "base/panic.h"

void dns_limit_init(struct dns_limit *limit, uint32_t per_second) {
    memset(limit, 0, sizeof *limit);
    limit->per_second = per_second;
    /* With GRND_NONBLOCK it fails only before the kernel's generator is ready: then the key is guessable, no more. */
    if (getrandom(&limit->secret, sizeof limit->secret, GRND_NONBLOCK) != sizeof limit->secret)
        limit->secret = (uintptr_t)limit;
}

static uint64_t network_of(const struct sockaddr *from) {
    uint64_t network = 0;
    if (from->sa_family == AF_INET) {
        memcpy(&network, &((const struct sockaddr_in *)from)->sin_addr, 3);
        return network;
    }
    const uint8_t *address = ((const struct sockaddr_in6 *)from)->sin6_addr.s6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)from)->sin6_addr))
        memcpy(&network, address + 12, 3);
    else
        memcpy(&network, address, 7);
    return network;
}

/* The finaliser of MurmurHash3, with a key before it. */
static uint64_t mix(uint64_t value, uint64_t secret) {
    value ^= secret;
    value = (value ^ value >> 33) * 0xff51afd7ed558ccdull;
    value = (value ^ value >> 33) * (0xc4ceb9fe1a85ec53ull ^ secret << 1);
    return value ^ value >> 33;
}

enum dns_verdict dns_limit_take(struct dns_limit *limit, const struct sockaddr *from, uint64_t now_ms) {
    if (limit->per_second == 0)
        return DNS_PASS;
    require(from->sa_family == AF_INET || from->sa_family == AF_INET6);
    uint64_t place = mix(network_of(from), limit->secret) % DNS_LIMIT_PLACES, second = now_ms / 1000;
    if (limit->places[place].second != second) {
        limit->places[place].second = second;
        limit->places[place].answers = 0;
    }
    uint32_t answers = ++limit->places[place].answers;
    if (answers <= limit->per_second)
        return DNS_PASS;
    return (answers - limit->per_second) % 2 == 1 ? DNS_SLIP : DNS_DROP;
}
