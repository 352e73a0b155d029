/* Any bytes as a DNS query. The first byte chooses the zone and the transport, the rest is the query: it gets no
 * answer, or one that is its answer, that ldns can read, and that is no longer than it may be. */
#include <ldns/ldns.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "publish/dns_zone.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static struct dns_zone *zone_make(bool fresh) {
    static const char *const hosts[] = {"10.0.0.1", "fd00::2", "c.example.net"};
    struct dns_view view = {.fresh = fresh, .index = 1, .hosts_count = 3, .primary = {.count = 1}};
    struct dns_zone *zone;
    struct error error;
    for (unsigned i = 0; i < 3; i++) {
        snprintf(view.hosts[i].name, sizeof view.hosts[i].name, "m%u", i + 1);
        snprintf(view.hosts[i].host, sizeof view.hosts[i].host, "%s", hosts[i]);
        view.standbys.members[i] = view.any.members[i] = i;
    }
    view.standbys.count = 2;
    view.any.count = 3;
    require(dns_zone_open(&zone, "db.example.org", "", 1, &error) == OK);
    dns_zone_show(zone, &view);
    return zone;
}

static void check_answer(const uint8_t *query, const uint8_t *answer, size_t size, enum dns_transport transport) {
    ldns_pkt *packet = NULL;
    require(size >= 12 && size <= (transport == DNS_TCP ? DNS_ANSWER_MAX : DNS_UDP_MAX));
    require(memcmp(query, answer, 2) == 0);
    require(ldns_wire2pkt(&packet, answer, size) == LDNS_STATUS_OK);
    require(ldns_pkt_qr(packet) && !ldns_pkt_ra(packet));
    require(transport != DNS_UDP_LIMITED || ldns_pkt_ancount(packet) + ldns_pkt_nscount(packet) == 0);
    ldns_pkt_free(packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    static struct dns_zone *zones[2];
    uint8_t answer[DNS_ANSWER_MAX];
    if (zones[0] == NULL) {
        zones[0] = zone_make(false);
        zones[1] = zone_make(true);
    }
    if (length == 0)
        return 0;
    enum dns_transport transport = bytes[0] % 3;
    size_t size = dns_zone_answer(zones[bytes[0] / 3 % 2], transport, bytes + 1, length - 1, answer);
    if (size > 0)
        check_answer(bytes + 1, answer, size, transport);
    return 0;
}
