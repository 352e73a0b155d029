/* The zone's answers: made once for each change of the view, so that a query costs a look-up and a copy. Pure: bytes
 * in, bytes out. ldns writes the records; the query, one name in a fixed frame, is read here without allocation.
 *
 *   primary, standbys, any, each member's name    A or AAAA; CNAME if the member is given by a host name
 *   _postgresql._tcp, and below each of those     SRV: the primary first (priority 0), then the standbys (10)
 *   the apex                                      SOA (its serial is the index of the record) and NS */
#pragma once
#include <stddef.h>

#include "publish/dns_view.h"

#define DNS_NAME_MAX    255   /* bytes of a name on the wire */
#define DNS_ANSWER_MAX  16384 /* a full set of SRV with the longest names has some 10 KB */
#define DNS_UDP_PLAIN   512   /* what a client without EDNS takes */
#define DNS_UDP_MAX     1232  /* and the most that we send in one datagram: it is never fragmented */
#define DNS_QUERY_MAX   4096  /* longer ones are no queries */
#define DNS_LABEL_BYTES 64

struct dns_zone;

/* `zone` and `ns` are names as in "db.example.org" or "db.example.org."; `ns` may be "": then every member's name is
 * one of a name server. The zone starts out not fresh. */
status dns_zone_open(struct dns_zone **ret_zone, const char *zone, const char *ns, uint32_t ttl_s,
                     struct error *error) must_check;
void dns_zone_close(struct dns_zone *zone);
/* Makes the answers anew. A record that cannot be made (a name too long) is left out. */
void dns_zone_show(struct dns_zone *zone, const struct dns_view *view);

enum dns_transport { DNS_UDP, DNS_UDP_LIMITED /* says only: ask again over TCP */, DNS_TCP };
/* The length of the answer in `ret_answer` (at least DNS_ANSWER_MAX bytes); 0 if this gets none: it is no query, or it
 * cannot be read. */
size_t dns_zone_answer(struct dns_zone *zone, enum dns_transport transport, const uint8_t *query, size_t length,
                       uint8_t *ret_answer);

/* The type of the record that leads to this host: A, AAAA or CNAME, by its number. */
uint16_t dns_host_type(const char *host);
