#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <ldns/ldns.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "publish/dns.h"
#include "publish/dns_limit.h"
#include "publish/dns_message.h"
#include "publish/dns_server.h"
#include "publish/dns_view.h"
#include "publish/dns_zone.h"

#define MB    (1024 * 1024)
#define HOSTS 16 /* as many as may vote */

/* ---- what there is to tell ---- */

struct world {
    Topology topology;
    History history;
    struct face face;
    Observation seen[MEMBERS_MAX];
};

static void add_member(struct world *w, const char *host) {
    uint32_t id = ++w->topology.members_count;
    Member *member = &w->topology.members[id - 1];
    *member = (Member){.id = id, .postgres_port = 5430 + id, .witness = host == NULL, .copy = 1};
    snprintf(member->name, sizeof member->name, host == NULL ? "w%u" : "m%u", id);
    snprintf(member->postgres_host, sizeof member->postgres_host, "%s", host == NULL ? "" : host);
}

static void see(struct world *w, uint32_t id, ServerState server, uint64_t lsn) {
    w->face.members[id - 1] = (struct face_member){.heard = true, .age_ms = 10};
    w->seen[id - 1] = (Observation){.member = id, .copy = 1, .server = server, .streaming = server == SERVER_STANDBY};
    w->seen[id - 1].position = (Position){.timeline = 7, .lsn = lsn};
}

/* `hosts`: separated by spaces, "-" for a witness. The first is the primary, the others stream. */
static void world_make(struct world *w, const char *hosts) {
    char list[8192], *rest = list, *host;
    memset(w, 0, sizeof *w);
    snprintf(list, sizeof list, "%s", hosts);
    while ((host = strsep(&rest, " ")) != NULL)
        add_member(w, strcmp(host, "-") == 0 ? NULL : host);
    w->topology.cluster_id = 0xabc;
    w->topology.index = 4711;
    w->topology.epoch = 7;
    w->topology.open = true;
    w->topology.primary = (Copy){.member = 1, .copy = 1};
    w->topology.settings.lease_ms = 2000;
    w->face = (struct face){.topology = &w->topology, .history = &w->history, .seen = w->seen, .fresh = true};
    see(w, 1, SERVER_PRIMARY, 100 * MB);
    for (uint32_t id = 2; id <= w->topology.members_count; id++)
        see(w, id, SERVER_STANDBY, 100 * MB);
}

static void view_of(const struct world *w, struct dns_view *view) { dns_view_of(&w->face, 16 * MB, view); }

/* ---- the view ---- */

static const char *names_of(const struct dns_view *view, const struct dns_group *group) {
    static char text[256];
    size_t length = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < group->count; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", i > 0 ? " " : "",
                                   view->hosts[group->members[i]].name);
    return text;
}

static void set_sealed(struct world *w) {
    w->topology.sealed = true;
    w->seen[1].streaming = w->seen[2].streaming = false;
}
static void set_closed(struct world *w) { w->topology.open = false; }
static void set_stale(struct world *w) { w->face.fresh = false; }
static void set_lagging(struct world *w) { see(w, 3, SERVER_STANDBY, 83 * MB); }
static void set_at_bound(struct world *w) { see(w, 3, SERVER_STANDBY, 84 * MB); }
static void set_silent(struct world *w) { w->face.members[2].age_ms = 2001; }
static void set_down(struct world *w) { see(w, 3, SERVER_DOWN, 100 * MB); }
static void set_not_streaming(struct world *w) { w->seen[2].streaming = false; }
static void set_none(struct world *w) {
    set_down(w);
    see(w, 2, SERVER_HUNG, 0);
}
static void set_unfounded(struct world *w) { memset(&w->topology, 0, sizeof w->topology); }
static void set_primary_unheard(struct world *w) { w->face.members[0].heard = false; }
static void set_nothing(struct world *w) { (void)w; }

static void test_view(void **state) {
    (void)state;
    static const struct {
        void (*change)(struct world *);
        bool fresh;
        const char *primary, *standbys, *any;
    } rows[] = {
        {set_nothing, true, "m1", "m2 m3", "m1 m2 m3"},
        {set_lagging, true, "m1", "m2", "m1 m2"},
        {set_at_bound, true, "m1", "m2 m3", "m1 m2 m3"},
        {set_silent, true, "m1", "m2", "m1 m2"},
        {set_down, true, "m1", "m2", "m1 m2"},
        {set_not_streaming, true, "m1", "m2", "m1 m2"},
        {set_none, true, "m1", "m1", "m1"},
        {set_primary_unheard, true, "m1", "m1", "m1"}, /* then no lag is known */
        {set_sealed, true, "", "m2 m3", "m2 m3"},
        {set_closed, true, "", "m2 m3", "m2 m3"},
        {set_stale, false, "", "", ""},
        {set_unfounded, false, "", "", ""},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct world w;
        struct dns_view view;
        world_make(&w, "10.0.0.1 10.0.0.2 10.0.0.3 -");
        rows[i].change(&w);
        view_of(&w, &view);
        print_message("# view %u\n", i);
        assert_int_equal(view.fresh, rows[i].fresh);
        assert_string_equal(names_of(&view, &view.primary), rows[i].primary);
        assert_string_equal(names_of(&view, &view.standbys), rows[i].standbys);
        assert_string_equal(names_of(&view, &view.any), rows[i].any);
    }
}

/* ---- asking ---- */

static struct dns_zone *zone_of(const char *hosts) {
    struct world w;
    struct dns_view view;
    struct dns_zone *zone;
    struct error error;
    world_make(&w, hosts);
    view_of(&w, &view);
    assert_int_equal(dns_zone_open(&zone, "db.example.org", "", 1, &error), OK);
    dns_zone_show(zone, &view);
    return zone;
}

/* `edns`: size of the client's buffer, 0 = without EDNS. */
static size_t make_query(uint8_t query[512], const char *name, const char *type, uint16_t edns) {
    uint8_t *wire;
    size_t length;
    ldns_pkt *packet =
        ldns_pkt_query_new(ldns_dname_new_frm_str(name), ldns_get_rr_type_by_name(type), LDNS_RR_CLASS_IN, LDNS_RD);
    ldns_pkt_set_id(packet, 0xbeef);
    ldns_pkt_set_edns_udp_size(packet, edns);
    assert_int_equal(ldns_pkt2wire(&wire, packet, &length), LDNS_STATUS_OK);
    assert_true(length <= 512);
    memcpy(query, wire, length);
    LDNS_FREE(wire);
    ldns_pkt_free(packet);
    return length;
}

static ldns_pkt *ask_over(struct dns_zone *zone, const char *name, const char *type, uint16_t edns,
                          enum dns_transport transport, size_t *ret_size) {
    uint8_t query[512], answer[DNS_ANSWER_MAX];
    size_t length = make_query(query, name, type, edns);
    size_t size = dns_zone_answer(zone, transport, query, length, answer);
    ldns_pkt *packet = NULL;
    assert_true(size >= 12);
    assert_int_equal(ldns_wire2pkt(&packet, answer, size), LDNS_STATUS_OK);
    assert_int_equal(ldns_pkt_id(packet), 0xbeef);
    assert_true(ldns_pkt_qr(packet) && ldns_pkt_rd(packet) && !ldns_pkt_ra(packet));
    assert_memory_equal(answer + 12, query + 12, strlen(name) + 1 + 4); /* letter by letter */
    if (ret_size != NULL)
        *ret_size = size;
    return packet;
}

static ldns_pkt *ask(struct dns_zone *zone, const char *name, const char *type) {
    return ask_over(zone, name, type, 1232, DNS_UDP, NULL);
}

/* "CODE|data of each answer|types of the authority". */
static const char *said(ldns_pkt *packet) {
    static char text[8192];
    size_t length = 0;
    ldns_lookup_table *code = ldns_lookup_by_id(ldns_rcodes, ldns_pkt_get_rcode(packet));
    length += (size_t)snprintf(text, sizeof text, "%s%s", code->name, ldns_pkt_tc(packet) ? " TC" : "");
    for (size_t i = 0; i < ldns_pkt_ancount(packet); i++) {
        const ldns_rr *rr = ldns_rr_list_rr(ldns_pkt_answer(packet), i);
        length += (size_t)snprintf(text + length, sizeof text - length, "|");
        for (size_t f = 0; f < ldns_rr_rd_count(rr); f++) {
            char *data = ldns_rdf2str(ldns_rr_rdf(rr, f));
            length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", f > 0 ? " " : "", data);
            free(data);
        }
    }
    for (size_t i = 0; i < ldns_pkt_nscount(packet); i++) {
        char *owner = ldns_rdf2str(ldns_rr_owner(ldns_rr_list_rr(ldns_pkt_authority(packet), i)));
        assert_string_equal(owner, "db.example.org.");
        length += (size_t)snprintf(text + length, sizeof text - length, "|SOA");
        free(owner);
    }
    ldns_pkt_free(packet);
    return text;
}

static void assert_says(struct dns_zone *zone, const char *name, const char *type, const char *expected) {
    print_message("# %s %s\n", name, type);
    assert_string_equal(said(ask(zone, name, type)), expected);
}

static void test_answers(void **state) {
    (void)state;
    static const struct {
        const char *name, *type, *said;
    } rows[] = {
        {"primary.db.example.org.", "A", "NOERROR|10.0.0.1"},
        {"PRIMARY.db.eXample.org.", "A", "NOERROR|10.0.0.1"},
        {"primary.db.example.org.", "AAAA", "NOERROR|SOA"},
        {"primary.db.example.org.", "TXT", "NOERROR|SOA"},
        {"primary.db.example.org.", "ANY", "NOERROR|10.0.0.1"},
        {"standbys.db.example.org.", "A", "NOERROR|10.0.0.2"},
        {"standbys.db.example.org.", "AAAA", "NOERROR|fd00::3"},
        {"any.db.example.org.", "AAAA", "NOERROR|fd00::3"},
        {"m1.db.example.org.", "A", "NOERROR|10.0.0.1"},
        {"m3.db.example.org.", "AAAA", "NOERROR|fd00::3"},
        {"m3.db.example.org.", "A", "NOERROR|SOA"},
        {"w4.db.example.org.", "A", "NXDOMAIN|SOA"},
        {"_postgresql._tcp.db.example.org.", "SRV",
         "NOERROR|0 1 5431 m1.db.example.org.|10 1 5432 m2.db.example.org.|10 1 5433 m3.db.example.org."},
        {"_postgresql._tcp.primary.db.example.org.", "SRV", "NOERROR|0 1 5431 m1.db.example.org."},
        {"_postgresql._tcp.standbys.db.example.org.", "SRV",
         "NOERROR|10 1 5432 m2.db.example.org.|10 1 5433 m3.db.example.org."},
        {"_postgresql._tcp.db.example.org.", "A", "NOERROR|SOA"},
        {"_tcp.db.example.org.", "A", "NOERROR|SOA"},
        {"_tcp.primary.db.example.org.", "SRV", "NOERROR|SOA"},
        {"db.example.org.", "SOA", "NOERROR|m1.db.example.org. hostmaster.db.example.org. 4711 60 10 600 1"},
        {"db.example.org.", "NS", "NOERROR|m1.db.example.org.|m2.db.example.org.|m3.db.example.org."},
        {"db.example.org.", "A", "NOERROR|SOA"},
        {"nobody.db.example.org.", "A", "NXDOMAIN|SOA"},
        {"x.primary.db.example.org.", "A", "NXDOMAIN|SOA"},
        {"db.example.org.", "AXFR", "REFUSED"},
        {"db.example.org.", "IXFR", "REFUSED"},
        {"example.org.", "SOA", "REFUSED"},
        {"xdb.example.org.", "A", "REFUSED"},
        {"primary.db.example.com.", "A", "REFUSED"},
        {".", "NS", "REFUSED"},
    };
    struct dns_zone *zone = zone_of("10.0.0.1 10.0.0.2 fd00::3 -");
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, ".") != 0) /* its length is not that of its text */
            assert_says(zone, rows[i].name, rows[i].type, rows[i].said);
    dns_zone_close(zone);
}

static void test_host_names(void **state) {
    (void)state;
    struct dns_zone *zone = zone_of("a.example.net b.example.net 10.0.0.3");
    assert_says(zone, "primary.db.example.org.", "A", "NOERROR|a.example.net.");
    assert_says(zone, "primary.db.example.org.", "AAAA", "NOERROR|a.example.net.");
    assert_says(zone, "primary.db.example.org.", "CNAME", "NOERROR|a.example.net.");
    assert_says(zone, "m2.db.example.org.", "A", "NOERROR|b.example.net.");
    assert_says(zone, "m3.db.example.org.", "A", "NOERROR|10.0.0.3");
    /* One alias at a time, in turns; an address among them by its own name. */
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|b.example.net.");
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|m3.db.example.org.");
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|b.example.net.");
    assert_says(zone, "_postgresql._tcp.primary.db.example.org.", "SRV", "NOERROR|0 1 5431 a.example.net.");
    assert_says(zone, "db.example.org.", "NS", "NOERROR|a.example.net.|b.example.net.|m3.db.example.org.");
    dns_zone_close(zone);
}

static void test_rotation(void **state) {
    (void)state;
    struct dns_zone *zone = zone_of("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4");
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|10.0.0.2|10.0.0.3|10.0.0.4");
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|10.0.0.3|10.0.0.4|10.0.0.2");
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|10.0.0.4|10.0.0.2|10.0.0.3");
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|10.0.0.2|10.0.0.3|10.0.0.4");
    dns_zone_close(zone);
}

static void test_not_fresh(void **state) {
    (void)state;
    struct dns_zone *zone = zone_of("10.0.0.1 10.0.0.2");
    struct dns_view view = {.fresh = false};
    dns_zone_show(zone, &view);
    assert_says(zone, "primary.db.example.org.", "A", "SERVFAIL");
    assert_says(zone, "nobody.db.example.org.", "A", "SERVFAIL");
    assert_says(zone, "db.example.org.", "SOA", "SERVFAIL");
    assert_says(zone, "example.com.", "A", "REFUSED");
    dns_zone_close(zone);
}

static void test_no_primary(void **state) {
    (void)state;
    struct world w;
    struct dns_view view;
    struct dns_zone *zone = zone_of("10.0.0.1 10.0.0.2 10.0.0.3");
    world_make(&w, "10.0.0.1 10.0.0.2 10.0.0.3");
    set_sealed(&w);
    view_of(&w, &view);
    dns_zone_show(zone, &view);
    assert_says(zone, "primary.db.example.org.", "A", "NOERROR|SOA");
    assert_says(zone, "_postgresql._tcp.primary.db.example.org.", "SRV", "NOERROR|SOA");
    assert_says(zone, "standbys.db.example.org.", "A", "NOERROR|10.0.0.2|10.0.0.3");
    dns_zone_close(zone);
}

static void test_own_server_name(void **state) {
    (void)state;
    struct world w;
    struct dns_view view;
    struct dns_zone *zone;
    struct error error;
    world_make(&w, "10.0.0.1 10.0.0.2");
    view_of(&w, &view);
    assert_int_equal(dns_zone_open(&zone, "DB.example.org.", "ns1.example.org", 5, &error), OK);
    dns_zone_show(zone, &view);
    assert_says(zone, "db.example.org.", "NS", "NOERROR|ns1.example.org.");
    dns_zone_close(zone);
    assert_int_equal(dns_zone_open(&zone, "a..b", "", 5, &error), FAILED);
}

/* ---- size ---- */

/* Sixteen members with the longest of host names. */
static const char *long_hosts(void) {
    static char text[8192];
    size_t length = 0;
    for (unsigned i = 0; i < HOSTS; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%sh%02u.%060d.%060d.%060d.%057d",
                                   i > 0 ? " " : "", i, 1, 2, 3, 4);
    return text;
}

static void test_truncation(void **state) {
    (void)state;
    static const struct {
        uint16_t edns;
        enum dns_transport transport;
        bool truncated;
        size_t largest;
    } rows[] = {
        {0, DNS_UDP, true, 512},      {512, DNS_UDP, true, 512}, {1232, DNS_UDP, true, 1232},
        {65535, DNS_UDP, true, 1232}, {0, DNS_TCP, false, 8192}, {1232, DNS_TCP, false, 8192},
    };
    struct dns_zone *zone = zone_of(long_hosts());
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t size;
        ldns_pkt *packet =
            ask_over(zone, "_postgresql._tcp.db.example.org.", "SRV", rows[i].edns, rows[i].transport, &size);
        assert_int_equal(ldns_pkt_tc(packet), rows[i].truncated);
        assert_int_equal(ldns_pkt_ancount(packet), rows[i].truncated ? 0 : HOSTS);
        assert_int_equal(ldns_pkt_edns(packet), rows[i].edns != 0);
        assert_true(size <= rows[i].largest);
        ldns_pkt_free(packet);
    }
    dns_zone_close(zone);
}

/* Sixteen addresses fit into the plainest datagram, sixteen SRV into one with EDNS. */
static void test_sizes(void **state) {
    (void)state;
    char hosts[1024];
    size_t length = 0, size;
    for (unsigned i = 0; i < HOSTS; i++)
        length += (size_t)snprintf(hosts + length, sizeof hosts - length, "%sfd00::%x", i > 0 ? " " : "", i + 1);
    struct dns_zone *zone = zone_of(hosts);
    const char *service = "_postgresql._tcp.db.example.org.";
    ldns_pkt *packet = ask_over(zone, "any.db.example.org.", "AAAA", 0, DNS_UDP, &size);
    assert_int_equal(ldns_pkt_ancount(packet), HOSTS);
    ldns_pkt_free(packet);
    packet = ask_over(zone, service, "SRV", 1232, DNS_UDP, &size);
    assert_int_equal(ldns_pkt_ancount(packet), HOSTS);
    ldns_pkt_free(packet);
    assert_string_equal(said(ask_over(zone, service, "SRV", 0, DNS_UDP, &size)), "NOERROR TC");
    assert_string_equal(said(ask_over(zone, service, "SRV", 1232, DNS_UDP_LIMITED, &size)), "NOERROR TC");
    assert_true(size < 64);
    dns_zone_close(zone);
}

/* ---- frames that are not in order ---- */

static size_t answer_to(struct dns_zone *zone, const uint8_t *query, size_t length, uint8_t *answer) {
    uint8_t *exact = malloc(length > 0 ? length : 1); /* so that a sanitizer sees every byte too far */
    memcpy(exact, query, length);
    size_t size = dns_zone_answer(zone, DNS_UDP, exact, length, answer);
    free(exact);
    return size;
}

static void test_odd_queries(void **state) {
    (void)state;
    struct dns_zone *zone = zone_of("10.0.0.1 10.0.0.2");
    uint8_t query[512], answer[DNS_ANSWER_MAX];
    size_t length = make_query(query, "primary.db.example.org.", "A", 1232);
    for (size_t shorter = 0; shorter < length; shorter++)
        assert_int_equal(answer_to(zone, query, shorter, answer), 0);

    query[2] |= 0x80; /* an answer gets none */
    assert_int_equal(answer_to(zone, query, length, answer), 0);
    query[2] = 5 << 3; /* UPDATE */
    assert_int_equal(answer_to(zone, query, length, answer), 12);
    assert_int_equal(answer[3], LDNS_RCODE_NOTIMPL);
    query[2] = 0;
    query[5] = 2; /* questions */
    assert_int_equal(answer_to(zone, query, length, answer), 12);
    assert_int_equal(answer[3], LDNS_RCODE_FORMERR);
    query[5] = 1;
    query[length - 5] = 1; /* version of EDNS */
    assert_true(answer_to(zone, query, length, answer) > 12);
    assert_int_equal(answer[3], 0);
    ldns_pkt *packet;
    assert_int_equal(ldns_wire2pkt(&packet, answer, answer_to(zone, query, length, answer)), LDNS_STATUS_OK);
    assert_int_equal(ldns_pkt_edns_extended_rcode(packet), 1); /* BADVERS */
    assert_int_equal(ldns_pkt_ancount(packet), 0);
    ldns_pkt_free(packet);
    query[length - 5] = 0;
    memcpy(query + length, query + length - 11, 11); /* EDNS twice */
    query[11] = 2;
    assert_true(answer_to(zone, query, length + 11, answer) > 12);
    assert_int_equal(answer[3], LDNS_RCODE_FORMERR);
    query[11] = 1;
    dns_zone_close(zone);
}

static void check_answer(const uint8_t *query, const uint8_t *answer, size_t size) {
    ldns_pkt *packet = NULL;
    assert_true(size >= 12 && size <= DNS_UDP_MAX);
    assert_memory_equal(answer, query, 2);
    assert_int_equal(ldns_wire2pkt(&packet, answer, size), LDNS_STATUS_OK);
    assert_true(ldns_pkt_qr(packet));
    ldns_pkt_free(packet);
}

static void test_mutated(void **state) {
    (void)state;
    struct dns_zone *zone = zone_of("10.0.0.1 fd00::2 c.example.net");
    unsigned seed = 1, answered = 0;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t query[512], answer[DNS_ANSWER_MAX];
        size_t length = make_query(query, round % 2 ? "standbys.db.example.org." : "x.db.example.org.", "A", 1232);
        for (unsigned hits = 1 + (unsigned)rand_r(&seed) % 4; hits > 0; hits--)
            query[(unsigned)rand_r(&seed) % length] = (uint8_t)rand_r(&seed);
        length -= (unsigned)rand_r(&seed) % 4 == 0 ? (unsigned)rand_r(&seed) % length : 0;
        size_t size = answer_to(zone, query, length, answer);
        if (size == 0)
            continue;
        answered++;
        check_answer(query, answer, size);
    }
    assert_true(answered > 1000 && answered < 20000);
    dns_zone_close(zone);
}

/* ---- the limit ---- */

static struct sockaddr_storage address(const char *text) {
    struct sockaddr_storage at = {0};
    if (uv_ip4_addr(text, 1, (struct sockaddr_in *)&at) != 0)
        assert_int_equal(uv_ip6_addr(text, 1, (struct sockaddr_in6 *)&at), 0);
    return at;
}

static void test_limit(void **state) {
    (void)state;
    struct dns_limit *limit = malloc(sizeof *limit);
    struct sockaddr_storage a = address("10.1.2.3"), same = address("10.1.2.250");
    struct sockaddr_storage six = address("fd00:1:2:300::1"), same6 = address("fd00:1:2:3ff::9");
    dns_limit_init(limit, 3);
    unsigned counts[3] = {0};
    for (unsigned i = 0; i < 13; i++)
        counts[dns_limit_take(limit, (struct sockaddr *)(i % 2 ? &a : &same), 1000 + i)]++;
    assert_int_equal(counts[DNS_PASS], 3);
    assert_int_equal(counts[DNS_SLIP], 5);
    assert_int_equal(counts[DNS_DROP], 5);
    assert_int_equal(dns_limit_take(limit, (struct sockaddr *)&a, 2000), DNS_PASS);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(dns_limit_take(limit, (struct sockaddr *)(i % 2 ? &six : &same6), 9000), DNS_PASS);
    assert_int_equal(dns_limit_take(limit, (struct sockaddr *)&six, 9999), DNS_SLIP);
    unsigned others = 0; /* another network is not concerned, unless it shares the place */
    for (unsigned i = 0; i < 100; i++) {
        char text[32];
        snprintf(text, sizeof text, "10.9.%u.1", i);
        struct sockaddr_storage other = address(text);
        others += dns_limit_take(limit, (struct sockaddr *)&other, 9999) == DNS_PASS;
    }
    assert_true(others > 90);
    dns_limit_init(limit, 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(dns_limit_take(limit, (struct sockaddr *)&a, 1), DNS_PASS);
    free(limit);
}

/* ---- updates ---- */

static const struct dns_place place = {.zone = "example.org.",
                                       .domain = "db.example.org.",
                                       .ttl_s = 1,
                                       .key_name = "key.",
                                       .secret = "c2VjcmV0LW9mLXRoZS10ZXN0LXNlY3JldC1vZi10aGU=",
                                       .algorithm = "hmac-sha256"};

/* "owner type class data" of each record of the section, a line each. */
static const char *section_text(const struct dns_message *message, ldns_pkt_section section) {
    static char text[8192];
    ldns_pkt *packet;
    assert_int_equal(ldns_wire2pkt(&packet, message->bytes, message->length), LDNS_STATUS_OK);
    ldns_rr_list *list = ldns_pkt_get_section_clone(packet, section);
    size_t length = 0;
    text[0] = '\0';
    for (size_t i = 0; i < ldns_rr_list_rr_count(list); i++) {
        const ldns_rr *rr = ldns_rr_list_rr(list, i);
        char *owner = ldns_rdf2str(ldns_rr_owner(rr)), *type = ldns_rr_type2str(ldns_rr_get_type(rr));
        char *class = ldns_rr_class2str(ldns_rr_get_class(rr));
        char *data = ldns_rr_rd_count(rr) > 0 ? ldns_rdf2str(ldns_rr_rdf(rr, 0)) : strdup("-");
        *strstr(owner, ".db.example.org.") = '\0';
        length += (size_t)snprintf(text + length, sizeof text - length, "%s %s %s %s\n", owner, type, class, data);
        free(owner), free(type), free(class), free(data);
    }
    ldns_rr_list_deep_free(list);
    ldns_pkt_free(packet);
    return text;
}

static void view_of_three(struct dns_view *view, const char *hosts) {
    struct world w;
    world_make(&w, hosts);
    view_of(&w, view);
}

#define SERVICE(under, rest) "_postgresql._tcp" under " SRV" rest "\n"
#define FIRST                " IN 0" /* of SRV its priority is shown */
#define LATER                " IN 10"
#define DELETED(name)        name " A ANY -\n" name " AAAA ANY -\n" name " CNAME ANY -\n"
#define MARK                 "\"cluster=0000000000000abc epoch=7 index=4711\""

static void test_write(void **state) {
    (void)state;
    struct dns_view view;
    struct dns_message message;
    struct error error;
    const struct dns_mark before = {0xabc, 6, 4000};
    view_of_three(&view, "10.0.0.1 fd00::2 c.example.net");
    assert_int_equal(dns_message_write(&place, &view, &before, &message, &error), OK);
    assert_string_equal(section_text(&message, LDNS_SECTION_ANSWER), /* what must be */
                        "_ttorch TXT IN \"cluster=0000000000000abc epoch=6 index=4000\"\n");
    assert_string_equal(
        section_text(&message, LDNS_SECTION_AUTHORITY),
        "_ttorch TXT ANY -\n_ttorch TXT IN " MARK
        "\n" SERVICE("", " ANY -") SERVICE("", FIRST) SERVICE("", LATER) SERVICE("", LATER)
            DELETED("primary") "primary A IN 10.0.0.1\n" SERVICE(".primary", " ANY -") SERVICE(".primary", FIRST)
                DELETED("standbys") "standbys CNAME IN c.example.net.\n" SERVICE(".standbys", " ANY -")
                    SERVICE(".standbys", LATER) SERVICE(".standbys", LATER)
                        DELETED("any") "any CNAME IN c.example.net.\n" SERVICE(".any", " ANY -") SERVICE(".any", FIRST)
                            SERVICE(".any", LATER) SERVICE(".any", LATER) DELETED("m1") "m1 A IN 10.0.0.1\n" DELETED(
                                "m2") "m2 AAAA IN fd00::2\n" DELETED("m3") "m3 CNAME IN c.example.net.\n");
    dns_message_free(&message);
    assert_int_equal(dns_message_write(&place, &view, NULL, &message, &error), OK);
    assert_string_equal(section_text(&message, LDNS_SECTION_ANSWER), "_ttorch TXT NONE -\n");
    dns_message_free(&message);
    view_of_three(&view, "10.0.0.1 10.0.0.2 fd00::3");
    assert_int_equal(dns_message_check(&place, &view, &message, &error), OK);
    assert_string_equal(section_text(&message, LDNS_SECTION_AUTHORITY), "");
    assert_string_equal(
        section_text(&message, LDNS_SECTION_ANSWER),
        "_ttorch TXT ANY -\n" SERVICE("", FIRST) SERVICE("", LATER) SERVICE("", LATER) /* any */
        "primary A IN 10.0.0.1\nprimary AAAA NONE -\nprimary CNAME NONE -\n" SERVICE(
            ".primary",
            FIRST) "standbys A IN 10.0.0.2\nstandbys AAAA IN fd00::3\nstandbys CNAME NONE "
                   "-\n" SERVICE(".standbys", LATER) SERVICE(
                       ".standbys",
                       LATER) "any A IN 10.0.0.1\nany A IN 10.0.0.2\nany AAAA IN fd00::3\nany CNAME NONE "
                              "-\n" SERVICE(".any", FIRST) SERVICE(".any", LATER) SERVICE(
                                  ".any", LATER) "m1 A IN 10.0.0.1\nm1 AAAA NONE -\nm1 CNAME NONE -\nm2 A IN "
                                                 "10.0.0.2\nm2 AAAA NONE -\nm2 "
                                                 "CNAME NONE -\nm3 A NONE -\nm3 AAAA IN fd00::3\nm3 CNAME NONE -\n");
    dns_message_free(&message);
    struct dns_place bad = place;
    strcpy(bad.secret, "no base64!");
    assert_int_equal(dns_message_read(&bad, &message, &error), FAILED);
    assert_non_null(strstr(error.text, "base64"));
    assert_null(strstr(error.text, "no base64!")); /* never the secret */
}

/* What a server would answer: to a read with that text (NULL: none), signed with `secret` (NULL: not at all). */
static size_t answer_of_server(const struct dns_message *message, int rcode, const char *text, bool authoritative,
                               const char *secret, uint8_t *ret_bytes) {
    ldns_pkt *request, *reply = ldns_pkt_new();
    uint8_t *wire;
    size_t length;
    assert_int_equal(ldns_wire2pkt(&request, message->bytes, message->length), LDNS_STATUS_OK);
    ldns_pkt_set_id(reply, ldns_pkt_id(request));
    ldns_pkt_set_qr(reply, true);
    ldns_pkt_set_aa(reply, authoritative);
    ldns_pkt_set_opcode(reply, ldns_pkt_get_opcode(request));
    ldns_pkt_set_rcode(reply, (uint8_t)rcode);
    if (text != NULL) {
        ldns_rr *rr;
        char record[512];
        snprintf(record, sizeof record, "_ttorch.db.example.org. 1 IN TXT %s", text);
        assert_int_equal(ldns_rr_new_frm_str(&rr, record, 0, NULL, NULL), LDNS_STATUS_OK);
        ldns_pkt_push_rr(reply, LDNS_SECTION_ANSWER, rr);
    }
    ldns_rdf *mac = ldns_rdf_new_frm_data(LDNS_RDF_TYPE_INT16_DATA, message->signature_length, message->signature);
    if (secret != NULL)
        assert_int_equal(ldns_pkt_tsig_sign(reply, "key.", secret, 300, "hmac-sha256.", mac), LDNS_STATUS_OK);
    assert_int_equal(ldns_pkt2wire(&wire, reply, &length), LDNS_STATUS_OK);
    memcpy(ret_bytes, wire, length);
    LDNS_FREE(wire);
    ldns_rdf_deep_free(mac);
    ldns_pkt_free(request);
    ldns_pkt_free(reply);
    return length;
}

static void test_replies(void **state) {
    (void)state;
    static const struct {
        bool write;
        int rcode;
        const char *text;
        bool foreign, authoritative, is_signed;
        const char *error; /* NULL: it can be used */
        bool conflict, marked;
    } rows[] = {
        {true, LDNS_RCODE_NOERROR, NULL, false, true, true, NULL, false, false},
        {true, LDNS_RCODE_NXRRSET, NULL, false, true, true, NULL, true, false},
        {true, LDNS_RCODE_YXRRSET, NULL, false, true, true, NULL, true, false},
        {true, LDNS_RCODE_REFUSED, NULL, false, true, true, "the server says REFUSED", false, false},
        {true, LDNS_RCODE_SERVFAIL, NULL, false, true, false, "the server says SERVFAIL", false, false},
        {true, LDNS_RCODE_NOERROR, NULL, false, true, false, "not signed", false, false},
        {true, LDNS_RCODE_NOERROR, NULL, true, true, true, "not signed", false, false},
        {true, LDNS_RCODE_NXRRSET, NULL, true, true, true, "the server says NXRRSET", false, false},
        {false, LDNS_RCODE_NOERROR, MARK, false, true, true, NULL, false, true},
        {false, LDNS_RCODE_NXDOMAIN, NULL, false, true, true, NULL, false, false},
        {false, LDNS_RCODE_NOERROR, NULL, false, false, true, "does not hold the zone", false, false},
        {false, LDNS_RCODE_NOERROR, "\"cluster=abc epoch=7 index=1\"", false, true, true, "not ttorch's", false, false},
        {false, LDNS_RCODE_NOERROR, "\"\"", false, true, true, "not ttorch's", false, false},
        {false, LDNS_RCODE_NOERROR, MARK, true, true, true, "not signed", false, false},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct dns_view view;
        struct dns_message message;
        struct dns_reply reply;
        struct error error;
        uint8_t bytes[2048];
        view_of_three(&view, "10.0.0.1 10.0.0.2");
        assert_int_equal(rows[i].write ? dns_message_write(&place, &view, NULL, &message, &error)
                                       : dns_message_read(&place, &message, &error),
                         OK);
        const char *secret = rows[i].foreign ? "d3Jvbmcgc2VjcmV0IHdyb25nIHNlY3JldA==" : place.secret;
        size_t length = answer_of_server(&message, rows[i].rcode, rows[i].text, rows[i].authoritative,
                                         rows[i].is_signed ? secret : NULL, bytes);
        print_message("# reply %u\n", i);
        status result = dns_reply_read(&place, &message, bytes, length, &reply, &error);
        assert_int_equal(result, rows[i].error == NULL ? OK : FAILED);
        if (rows[i].error != NULL)
            assert_non_null(strstr(error.text, rows[i].error));
        else
            assert_true(reply.conflict == rows[i].conflict && reply.marked == rows[i].marked);
        if (result == OK && reply.marked)
            assert_true(reply.mark.cluster_id == 0xabc && reply.mark.epoch == 7 && reply.mark.index == 4711);
        dns_message_free(&message);
    }
}

/* Whatever byte of it is changed on the way, a signed answer is not taken for one any more, unless the change is one
 * that the signature does not cover. */
static void test_mutated_replies(void **state) {
    (void)state;
    struct dns_message message;
    struct error error;
    uint8_t bytes[2048], changed[2048];
    unsigned seed = 7, refused = 0;
    assert_int_equal(dns_message_read(&place, &message, &error), OK);
    size_t length = answer_of_server(&message, LDNS_RCODE_NOERROR, MARK, true, place.secret, bytes);
    for (unsigned round = 0; round < 5000; round++) {
        struct dns_reply reply;
        memcpy(changed, bytes, length);
        changed[(unsigned)rand_r(&seed) % length] ^= (uint8_t)(1 << rand_r(&seed) % 8);
        size_t size = round % 4 == 0 ? (unsigned)rand_r(&seed) % length : length;
        uint8_t *exact = malloc(size + 1);
        memcpy(exact, changed, size);
        if (dns_reply_read(&place, &message, exact, size, &reply, &error) != OK)
            refused++;
        else
            assert_true(reply.marked && reply.mark.epoch == 7 && reply.mark.index == 4711);
        free(exact);
    }
    assert_true(refused > 4500);
    dns_message_free(&message);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_view),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_host_names),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_not_fresh),
        cmocka_unit_test(test_no_primary),
        cmocka_unit_test(test_own_server_name),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_odd_queries),
        cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_mutated_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
