/* When a name server is told what, by a server of our own in the same loop that takes everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <ldns/ldns.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "publish/dns_update.h"

#define SECRET   "c2VjcmV0LW9mLXRoZS10ZXN0LXNlY3JldC1vZi10aGU="
#define TSIG_MAC 3
#define PATIENCE 30000
#define SHORT_MS 50
#define LATER_MS 1300 /* by then what is new of standbys has been told */
#define LEASE_MS 1000 /* and by that much later that there is none */
#define WIRE_MAX 4096
#define LOG_MAX  1024

struct world {
    uv_loop_t loop;
    uv_udp_t udp;
    uv_tcp_t listener;
    uv_timer_t clock;
    bool over;
    uint8_t wire[WIRE_MAX]; /* of a datagram */
    char log[LOG_MAX];      /* of each update: its epoch, the primary, the standbys */
    struct dns_update *update;
    char key_file[32];
};

/* ---- the server ---- */

/* The data of the records that are put in at the name, with commas between them. */
static void data_at(const ldns_pkt *packet, const char *label, char text[DNS_TEXT_MAX]) {
    const ldns_rr_list *list = ldns_pkt_authority(packet);
    size_t length = 0;
    text[0] = '\0';
    for (size_t i = 0; i < ldns_rr_list_rr_count(list); i++) {
        const ldns_rr *rr = ldns_rr_list_rr(list, i);
        char *owner = ldns_rdf2str(ldns_rr_owner(rr));
        char *data = ldns_rr_rd_count(rr) > 0 ? ldns_rdf2str(ldns_rr_rdf(rr, 0)) : NULL;
        if (data != NULL && strncmp(owner, label, strlen(label)) == 0)
            length += (size_t)snprintf(text + length, DNS_TEXT_MAX - length, "%s%s", length > 0 ? "," : "", data);
        free(owner);
        free(data);
    }
}

static void note(struct world *w, const ldns_pkt *packet) {
    char mark[DNS_TEXT_MAX], primary[DNS_TEXT_MAX], standbys[DNS_TEXT_MAX];
    size_t length = strlen(w->log);
    data_at(packet, "_ttorch.", mark);
    data_at(packet, "primary.", primary);
    data_at(packet, "standbys.", standbys);
    if (mark[0] != '\0') /* else it only looks */
        snprintf(w->log + length, sizeof w->log - length, "%.7s %s %s\n", strstr(mark, "epoch="), primary, standbys);
}

static uint8_t *answer(struct world *w, const uint8_t *bytes, size_t length, size_t *ret_length) {
    ldns_pkt *request, *reply = ldns_pkt_new();
    uint8_t *wire;
    assert_int_equal(ldns_wire2pkt(&request, bytes, length), LDNS_STATUS_OK);
    bool update = ldns_pkt_get_opcode(request) == LDNS_PACKET_UPDATE;
    if (update)
        note(w, request);
    ldns_pkt_set_id(reply, ldns_pkt_id(request));
    ldns_pkt_set_qr(reply, true);
    ldns_pkt_set_aa(reply, true);
    ldns_pkt_set_opcode(reply, ldns_pkt_get_opcode(request));
    ldns_pkt_set_rcode(reply, update ? LDNS_RCODE_NOERROR : LDNS_RCODE_NXDOMAIN);
    ldns_rdf *mac = ldns_rdf_clone(ldns_rr_rdf(ldns_pkt_tsig(request), TSIG_MAC));
    assert_int_equal(ldns_pkt_tsig_sign(reply, "key.", SECRET, 300, "hmac-sha256.", mac), LDNS_STATUS_OK);
    assert_int_equal(ldns_pkt2wire(&wire, reply, ret_length), LDNS_STATUS_OK);
    ldns_rdf_deep_free(mac);
    ldns_pkt_free(request);
    ldns_pkt_free(reply);
    return wire;
}

static void on_udp_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer) {
    struct world *w = handle->data;
    (void)suggested;
    *ret_buffer = uv_buf_init((char *)w->wire, sizeof w->wire);
}

static void on_datagram(uv_udp_t *udp, ssize_t length, const uv_buf_t *buffer, const struct sockaddr *from,
                        unsigned flags) {
    size_t size;
    (void)flags;
    if (length <= 0 || from == NULL)
        return;
    uint8_t *wire = answer(udp->data, (const uint8_t *)buffer->base, (size_t)length, &size);
    uv_buf_t reply = uv_buf_init((char *)wire, (unsigned)size);
    assert_true(uv_udp_try_send(udp, &reply, 1, from) > 0);
    LDNS_FREE(wire);
}

struct client {
    uv_tcp_t tcp;
    struct world *world;
    uint8_t wire[WIRE_MAX];
    size_t length;
};

static void on_client_closed(uv_handle_t *handle) { free(handle->data); }

static void on_tcp_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer) {
    struct client *client = handle->data;
    (void)suggested;
    *ret_buffer = uv_buf_init((char *)client->wire + client->length, (unsigned)(sizeof client->wire - client->length));
}

static void on_bytes(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct client *client = stream->data;
    (void)buffer;
    if (length < 0) {
        uv_close((uv_handle_t *)stream, on_client_closed);
        return;
    }
    client->length += (size_t)length;
    size_t size = (size_t)client->wire[0] << 8 | client->wire[1];
    if (client->length < 2 || client->length < 2 + size)
        return;
    uint8_t *wire = answer(client->world, client->wire + 2, size, &size);
    uint8_t prefix[2] = {(uint8_t)(size >> 8), (uint8_t)size};
    uv_buf_t reply[] = {uv_buf_init((char *)prefix, 2), uv_buf_init((char *)wire, (unsigned)size)};
    assert_int_equal(uv_try_write(stream, reply, 2), 2 + size);
    client->length = 0;
    LDNS_FREE(wire);
}

static void on_connection(uv_stream_t *listener, int result) {
    struct world *w = listener->data;
    struct client *client = calloc(1, sizeof *client);
    assert_true(client != NULL && result == 0);
    assert_int_equal(uv_tcp_init(&w->loop, &client->tcp), 0);
    client->tcp.data = client;
    client->world = w;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&client->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&client->tcp, on_tcp_allocate, on_bytes), 0);
}

/* The same port for both; returns it. */
static uint16_t serve(struct world *w) {
    struct sockaddr_in address;
    int length = sizeof address;
    assert_int_equal(uv_tcp_init(&w->loop, &w->listener), 0);
    assert_int_equal(uv_udp_init(&w->loop, &w->udp), 0);
    w->listener.data = w->udp.data = w;
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
    assert_int_equal(uv_udp_bind(&w->udp, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_udp_getsockname(&w->udp, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(uv_tcp_bind(&w->listener, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&w->listener, 4, on_connection), 0);
    assert_int_equal(uv_udp_recv_start(&w->udp, on_udp_allocate, on_datagram), 0);
    return ntohs(address.sin_port);
}

/* ---- the world ---- */

static void on_notice(void *user, const char *text) {
    (void)user;
    fail_msg("%s", text);
}

static void on_clock(uv_timer_t *clock) { ((struct world *)clock->data)->over = true; }

static void run_for(struct world *w, uint64_t ms) {
    w->over = false;
    uv_timer_start(&w->clock, on_clock, ms, 0);
    while (!w->over)
        uv_run(&w->loop, UV_RUN_ONCE);
}

static void run_until_told(struct world *w, uint64_t index) {
    w->over = false;
    uv_timer_start(&w->clock, on_clock, PATIENCE, 0);
    while (dns_update_index(w->update) != index && !w->over)
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_false(w->over);
}

static void world_open(struct world *w) {
    struct error error;
    memset(w, 0, sizeof *w);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    uv_timer_init(&w->loop, &w->clock);
    w->clock.data = w;
    strcpy(w->key_file, "/tmp/ttorch-key-XXXXXX");
    int fd = mkstemp(w->key_file);
    assert_true(fd >= 0 && write(fd, SECRET "\n", strlen(SECRET) + 1) > 0);
    close(fd);
    const struct dns_update_config config = {.server = "127.0.0.1",
                                             .port = serve(w),
                                             .zone = "example.org",
                                             .domain = "db.example.org",
                                             .key_name = "key",
                                             .key_file = w->key_file,
                                             .algorithm = "hmac-sha256",
                                             .ttl_s = 1,
                                             .number = 1};
    assert_int_equal(dns_update_open(&w->update, &w->loop, &config, on_notice, w, &error), OK);
}

static void world_close(struct world *w) {
    dns_update_close(w->update, NULL, NULL);
    uv_close((uv_handle_t *)&w->clock, NULL);
    uv_close((uv_handle_t *)&w->udp, NULL);
    uv_close((uv_handle_t *)&w->listener, NULL);
    while (uv_run(&w->loop, UV_RUN_ONCE) != 0)
        continue;
    assert_int_equal(uv_loop_close(&w->loop), 0);
    unlink(w->key_file);
}

/* Three members, of which that one is the primary and as many others are standbys. */
static void tell(struct world *w, uint32_t epoch, uint64_t index, unsigned primary, unsigned standbys) {
    struct dns_view view;
    memset(&view, 0, sizeof view);
    view.fresh = true;
    view.cluster_id = 0xabc;
    view.epoch = epoch;
    view.index = index;
    view.hosts_count = 3;
    view.primary.count = view.any.count = 1;
    view.primary.members[0] = view.any.members[0] = primary;
    for (unsigned i = 0; i < 3; i++) {
        view.hosts[i] = (struct dns_host){.id = i + 1, .port = 5432};
        snprintf(view.hosts[i].name, sizeof view.hosts[i].name, "m%u", i + 1);
        snprintf(view.hosts[i].host, sizeof view.hosts[i].host, "10.0.0.%u", i + 1);
        if (i != primary && view.standbys.count < standbys)
            view.standbys.members[view.standbys.count++] = view.any.members[view.any.count++] = i;
    }
    if (standbys == 0)
        view.standbys = view.primary;
    dns_update_tell(w->update, &view, LEASE_MS, true);
}

/* ---- when what is told ---- */

#define BOTH     "epoch=7 10.0.0.1 10.0.0.2,10.0.0.3\n"
#define ONE_LEFT "epoch=7 10.0.0.1 10.0.0.2\n"

static void test_primary_before_standbys(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    tell(&w, 7, 100, 0, 2);
    run_until_told(&w, 100);
    tell(&w, 7, 101, 0, 1); /* it goes down, and so a standby has nobody to stream from */
    run_for(&w, SHORT_MS);
    tell(&w, 7, 102, 0, 0);
    run_for(&w, SHORT_MS);
    tell(&w, 8, 103, 1, 0);
    tell(&w, 8, 104, 1, 1);
    run_until_told(&w, 104);
    assert_string_equal(w.log, BOTH "epoch=8 10.0.0.2 10.0.0.1\n");
    world_close(&w);
}

static void test_standbys_later(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    tell(&w, 7, 100, 0, 2);
    run_for(&w, 1);
    tell(&w, 7, 101, 0, 1); /* perhaps while the first one is under way */
    run_until_told(&w, 101);
    tell(&w, 7, 102, 0, 2);
    run_for(&w, SHORT_MS);
    tell(&w, 7, 103, 0, 1); /* as the server has it: nothing to tell */
    run_for(&w, LATER_MS);
    tell(&w, 7, 104, 0, 2);
    run_until_told(&w, 104);
    const char *tail = strstr(w.log, ONE_LEFT);
    assert_non_null(tail);
    assert_string_equal(tail, ONE_LEFT BOTH);
    world_close(&w);
}

static void test_no_standbys(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    tell(&w, 7, 100, 0, 2);
    run_until_told(&w, 100);
    tell(&w, 7, 101, 0, 1);
    run_for(&w, SHORT_MS);
    tell(&w, 7, 102, 0, 0); /* they go one by one */
    run_for(&w, LATER_MS);
    tell(&w, 8, 103, 1, 0);
    run_until_told(&w, 103);
    tell(&w, 8, 104, 1, 1);
    run_until_told(&w, 104);
    tell(&w, 8, 105, 1, 0); /* and now it is true */
    run_until_told(&w, 105);
    assert_string_equal(w.log,
                        BOTH "epoch=8 10.0.0.2 10.0.0.2\nepoch=8 10.0.0.2 10.0.0.1\nepoch=8 10.0.0.2 10.0.0.2\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_primary_before_standbys),
        cmocka_unit_test(test_standbys_later),
        cmocka_unit_test(test_no_standbys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
