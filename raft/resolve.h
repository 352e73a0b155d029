/* Host name to address without blocking the loop and without libuv's pool, where libraft writes its log: one thread of
 * its own for each lookup, at most one lookup at a time for each name. The answer is fetched by asking again. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/time.h"

struct lookup;

struct resolver {
    struct lookup *lookup; /* under way, or NULL */
    struct sockaddr_storage address;
    bool known;
    nsec asked_at; /* of the newest answer or failure */
    char why[128]; /* the last failure */
};

enum resolved { RESOLVED, RESOLVING, UNRESOLVED };

/* RESOLVED: `ret_address` is set, perhaps with an old answer while a newer one is sought. UNRESOLVED: see `why`. */
enum resolved resolve(struct resolver *resolver, const char *host, uint16_t port, struct sockaddr_storage *ret_address);
/* A lookup under way is left to end by itself. */
void resolver_close(struct resolver *resolver);
/* Numeric IPv4 or IPv6 only; false if `host` is a name. */
bool resolve_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_address);
