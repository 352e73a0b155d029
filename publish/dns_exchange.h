/* One question to a name server and its answer: over TCP if it is an update, as its outcome must be known (and Knot
 * does not answer one over UDP); else over UDP, and over TCP if one of the two does not fit, or nothing comes back.
 * Never blocks. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

struct dns_exchange;

/* Called exactly once, when nothing of the exchange is left in the loop. `reply` is NULL if there was none, and
 * `trouble` then says why; it has the identifier of the request, and is otherwise not looked into. */
typedef void dns_exchange_done(void *user, const uint8_t *reply, size_t length, const char *trouble);

status dns_exchange_start(struct dns_exchange **ret_exchange, uv_loop_t *loop, const struct sockaddr_storage *server,
                          const uint8_t *request, size_t length, bool update, dns_exchange_done *done, void *user,
                          struct error *error) must_check;
/* Leads to `done`, too. */
void dns_exchange_cancel(struct dns_exchange *exchange);
