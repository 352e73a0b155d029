/* Keeps the records at a name server as the view is, until the server has acknowledged them, and looks every minute
 * whether they still are. The coordinator's member sends at once; the others some seconds later, if need be: then all
 * is as it should be, as a rule, and one question is all they ask. That an old view never overwrites a newer one rests
 * on the mark (dns_message.h), not on who sends. Without a quorum or an open primary nothing is sent. */
#pragma once
#include "publish/dns_message.h"

struct dns_update;

struct dns_update_config {
    const char *server; /* an address */
    uint16_t port;
    const char *zone; /* "" = the domain */
    const char *domain;
    const char *key_name;
    const char *key_file;
    const char *algorithm; /* "hmac-sha256" */
    uint32_t ttl_s;
    unsigned number; /* of our member: when it is its turn */
};

status dns_update_open(struct dns_update **ret_update, uv_loop_t *loop, const struct dns_update_config *config,
                       void (*notice)(void *user, const char *text), void *user, struct error *error) must_check;
/* A change of the primary is told at once, one of the standbys alone a second later; when none is left, a lease later
 * still: then there may be another primary. */
void dns_update_tell(struct dns_update *update, const struct dns_view *view, uint32_t lease_ms, bool coordinator);
/* Why the server does not have the newest; "" if it has, or there is nothing to tell. */
const char *dns_update_trouble(const struct dns_update *update);
/* Index of what the server acknowledged last; 0 before that. */
uint64_t dns_update_index(const struct dns_update *update);
void dns_update_close(struct dns_update *update, void (*closed)(void *user), void *user);
