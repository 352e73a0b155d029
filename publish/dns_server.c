#include "publish/dns_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "publish/dns_limit.h"

#define IDLE_MS       10000 /* a client over TCP that says nothing for so long, or takes no answer, has to go */
#define TICK_MS       1000
#define RETRY_TICKS   5 /* an address that could not be had is tried again */
#define BACKLOG       128
#define UDP_BATCH     16          /* datagrams of one system call */
#define UDP_SLOT      (64 * 1024) /* libuv's: what recvmmsg takes for each */
#define LENGTH_BYTES  2
#define SEND_BUFFER   (LENGTH_BYTES + DNS_ANSWER_MAX)
#define RECEIVE_BYTES (LENGTH_BYTES + DNS_QUERY_MAX)

struct address {
    struct dns_server *server;
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_storage at;
    uv_udp_t *udp; /* both, or neither while it cannot be had */
    uv_tcp_t *tcp;
    char trouble[128];
};

struct client {
    struct dns_server *server;
    struct client *next;
    uv_tcp_t tcp;
    uv_write_t write;
    uint64_t heard_ms;
    bool writing; /* nothing is read meanwhile: a client has one answer under way at most */
    size_t received;
    uint8_t receive[RECEIVE_BYTES];
    uint8_t send[SEND_BUFFER];
};

struct dns_server {
    uv_loop_t *loop;
    struct dns_server_callbacks callbacks;
    void *user;
    struct dns_limit limit;
    unsigned addresses_count;
    struct address addresses[DNS_ADDRESSES_MAX];
    uv_timer_t tick;
    unsigned ticks;
    unsigned clients_count;
    struct client *clients;
    bool closing;
    unsigned handles; /* open, or closing */
    void (*closed)(void *user);
    void *closed_user;
    uint8_t answer[DNS_ANSWER_MAX];
    char udp_buffer[UDP_BATCH * UDP_SLOT];
};

/* ---- the end of a handle ---- */

static void handle_closed(struct dns_server *server) {
    if (--server->handles > 0 || !server->closing)
        return;
    if (server->closed != NULL)
        server->closed(server->closed_user);
    free(server);
}

static void on_socket_closed(uv_handle_t *handle) {
    struct address *address = handle->data;
    free(handle);
    handle_closed(address->server);
}

static void on_client_closed(uv_handle_t *handle) {
    struct client *client = handle->data;
    struct dns_server *server = client->server;
    free(client);
    handle_closed(server);
}

static void on_tick_closed(uv_handle_t *handle) { handle_closed(handle->data); }

/* ---- UDP ---- */

static void on_udp_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer) {
    struct dns_server *server = ((struct address *)handle->data)->server;
    (void)suggested;
    *ret_buffer = uv_buf_init(server->udp_buffer, sizeof server->udp_buffer);
}

static enum dns_transport udp_transport(enum dns_verdict verdict) {
    return verdict == DNS_SLIP ? DNS_UDP_LIMITED : DNS_UDP;
}

static void on_udp(uv_udp_t *udp, ssize_t length, const uv_buf_t *buffer, const struct sockaddr *from, unsigned flags) {
    struct dns_server *server = ((struct address *)udp->data)->server;
    if (length <= 0 || from == NULL || (flags & UV_UDP_PARTIAL) != 0)
        return;
    enum dns_verdict verdict = dns_limit_take(&server->limit, from, uv_now(server->loop));
    if (verdict == DNS_DROP)
        return;
    size_t size = server->callbacks.answer(server->user, udp_transport(verdict), (const uint8_t *)buffer->base,
                                           (size_t)length, server->answer);
    /* What the socket cannot take now is lost, as any datagram may be: the client asks again. */
    uv_buf_t answer = uv_buf_init((char *)server->answer, (unsigned)size);
    if (size > 0)
        uv_udp_try_send(udp, &answer, 1, from);
}

/* ---- TCP ---- */

static void client_close(struct client *client) {
    struct dns_server *server = client->server;
    if (uv_is_closing((uv_handle_t *)&client->tcp))
        return;
    for (struct client **at = &server->clients; *at != NULL; at = &(*at)->next)
        if (*at == client) {
            *at = client->next;
            break;
        }
    server->clients_count--;
    uv_close((uv_handle_t *)&client->tcp, on_client_closed);
}

static void client_serve(struct client *client);
static void on_tcp(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer);

static void on_tcp_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer) {
    struct client *client = handle->data;
    (void)suggested;
    *ret_buffer = uv_buf_init((char *)client->receive + client->received, (unsigned)(RECEIVE_BYTES - client->received));
}

static void on_written(uv_write_t *write, int result) {
    struct client *client = write->data;
    if (result != 0) {
        client_close(client);
        return;
    }
    client->writing = false;
    client->heard_ms = uv_now(client->server->loop);
    uv_read_start((uv_stream_t *)&client->tcp, on_tcp_allocate, on_tcp);
    client_serve(client);
}

static void client_send(struct client *client, size_t length) {
    client->send[0] = (uint8_t)(length >> 8);
    client->send[1] = (uint8_t)length;
    uv_buf_t buffer = uv_buf_init((char *)client->send, (unsigned)(LENGTH_BYTES + length));
    client->write.data = client;
    uv_read_stop((uv_stream_t *)&client->tcp);
    client->writing = uv_write(&client->write, (uv_stream_t *)&client->tcp, &buffer, 1, on_written) == 0;
    if (!client->writing)
        client_close(client);
}

/* Answers the first whole query that has arrived; the next ones when that has gone. */
static void client_serve(struct client *client) {
    struct dns_server *server = client->server;
    if (client->received < LENGTH_BYTES)
        return;
    size_t length = (size_t)client->receive[0] << 8 | client->receive[1];
    if (length > DNS_QUERY_MAX) {
        client_close(client);
        return;
    }
    if (client->received < LENGTH_BYTES + length)
        return;
    size_t size = server->callbacks.answer(server->user, DNS_TCP, client->receive + LENGTH_BYTES, length,
                                           client->send + LENGTH_BYTES);
    client->received -= LENGTH_BYTES + length;
    memmove(client->receive, client->receive + LENGTH_BYTES + length, client->received);
    if (size > 0)
        client_send(client, size);
    else
        client_close(client);
}

static void on_tcp(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct client *client = stream->data;
    (void)buffer;
    if (length < 0) {
        client_close(client);
        return;
    }
    client->received += (size_t)length;
    if (!client->writing)
        client_serve(client);
}

static struct client *longest_silent(const struct dns_server *server) {
    struct client *oldest = server->clients;
    for (struct client *client = oldest; client != NULL; client = client->next)
        if (client->heard_ms <= oldest->heard_ms) /* the newest come first */
            oldest = client;
    return oldest;
}

static void on_connection(uv_stream_t *listener, int result) {
    struct dns_server *server = ((struct address *)listener->data)->server;
    struct client *client = result == 0 ? calloc(1, sizeof *client) : NULL;
    if (client == NULL)
        return;
    client->server = server;
    client->tcp.data = client;
    client->heard_ms = uv_now(server->loop);
    if (uv_tcp_init(server->loop, &client->tcp) != 0) {
        free(client);
        return;
    }
    server->handles++;
    if (server->clients_count == DNS_CLIENTS_MAX)
        client_close(longest_silent(server));
    client->next = server->clients;
    server->clients = client;
    server->clients_count++;
    if (uv_accept(listener, (uv_stream_t *)&client->tcp) != 0 ||
        uv_read_start((uv_stream_t *)&client->tcp, on_tcp_allocate, on_tcp) != 0)
        client_close(client);
}

static void close_silent(struct dns_server *server) {
    for (struct client *client = server->clients, *next; client != NULL; client = next) {
        next = client->next;
        if (uv_now(server->loop) - client->heard_ms > IDLE_MS)
            client_close(client);
    }
}

/* ---- addresses ---- */

static void address_drop(struct address *address) {
    if (address->udp != NULL)
        uv_close((uv_handle_t *)address->udp, on_socket_closed);
    if (address->tcp != NULL)
        uv_close((uv_handle_t *)address->tcp, on_socket_closed);
    address->udp = NULL;
    address->tcp = NULL;
}

static int listen_udp(struct address *address) {
    struct dns_server *server = address->server;
    address->udp = calloc(1, sizeof *address->udp);
    if (address->udp == NULL)
        return UV_ENOMEM;
    require(uv_udp_init_ex(server->loop, address->udp, AF_UNSPEC | UV_UDP_RECVMMSG) == 0);
    server->handles++;
    address->udp->data = address;
    int result = uv_udp_bind(address->udp, (const struct sockaddr *)&address->at,
                             address->at.ss_family == AF_INET6 ? UV_UDP_IPV6ONLY : 0);
    return result == 0 ? uv_udp_recv_start(address->udp, on_udp_allocate, on_udp) : result;
}

static int listen_tcp(struct address *address) {
    struct dns_server *server = address->server;
    address->tcp = calloc(1, sizeof *address->tcp);
    if (address->tcp == NULL)
        return UV_ENOMEM;
    require(uv_tcp_init(server->loop, address->tcp) == 0);
    server->handles++;
    address->tcp->data = address;
    int result = uv_tcp_bind(address->tcp, (const struct sockaddr *)&address->at,
                             address->at.ss_family == AF_INET6 ? UV_TCP_IPV6ONLY : 0);
    return result == 0 ? uv_listen((uv_stream_t *)address->tcp, BACKLOG, on_connection) : result;
}

static void address_open(struct address *address) {
    struct dns_server *server = address->server;
    bool told = address->trouble[0] != '\0';
    address->trouble[0] = '\0';
    int result = listen_udp(address);
    if (result == 0)
        result = listen_tcp(address);
    if (result == 0)
        return;
    address_drop(address);
    uint16_t port = ntohs(((const struct sockaddr_in *)&address->at)->sin_port); /* at the same place in IPv6 */
    snprintf(address->trouble, sizeof address->trouble, "%s port %u: %s", address->text, port, uv_strerror(result));
    char text[sizeof address->trouble + 64];
    snprintf(text, sizeof text, "dns: %s; tried again every %d s", address->trouble, RETRY_TICKS * TICK_MS / 1000);
    if (!told)
        server->callbacks.notice(server->user, text);
}

static void on_tick(uv_timer_t *timer) {
    struct dns_server *server = timer->data;
    close_silent(server);
    if (++server->ticks % RETRY_TICKS != 0)
        return;
    for (unsigned i = 0; i < server->addresses_count; i++)
        if (server->addresses[i].udp == NULL)
            address_open(&server->addresses[i]);
}

static status address_parse(struct dns_server *server, const char *text, uint16_t port, struct error *error) {
    struct address *address = &server->addresses[server->addresses_count];
    if (server->addresses_count == DNS_ADDRESSES_MAX)
        return error_set(error, "at most %d addresses", DNS_ADDRESSES_MAX);
    if (strlen(text) >= sizeof address->text || (uv_ip4_addr(text, port, (struct sockaddr_in *)&address->at) != 0 &&
                                                 uv_ip6_addr(text, port, (struct sockaddr_in6 *)&address->at) != 0))
        return error_set(error, "%s: not an address", text);
    address->server = server;
    snprintf(address->text, sizeof address->text, "%s", text);
    server->addresses_count++;
    return OK;
}

static status addresses_parse(struct dns_server *server, const struct dns_server_config *config, struct error *error) {
    char list[1024], *rest = list, *word;
    if (snprintf(list, sizeof list, "%s", config->listen) >= (int)sizeof list)
        return error_set(error, "too many addresses");
    while ((word = strsep(&rest, ", ")) != NULL)
        if (word[0] != '\0' && address_parse(server, word, config->port, error) != OK)
            return FAILED;
    return server->addresses_count > 0 ? OK : error_set(error, "no address to listen on");
}

/* ---- opening and closing ---- */

status dns_server_open(struct dns_server **ret_server, uv_loop_t *loop, const struct dns_server_config *config,
                       const struct dns_server_callbacks *callbacks, void *user, struct error *error) {
    struct dns_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return error_set(error, "out of memory");
    server->loop = loop;
    server->callbacks = *callbacks;
    server->user = user;
    dns_limit_init(&server->limit, config->rate_limit);
    if (addresses_parse(server, config, error) != OK) {
        free(server);
        return FAILED;
    }
    uv_timer_init(loop, &server->tick);
    server->tick.data = server;
    server->handles = 1;
    uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
    for (unsigned i = 0; i < server->addresses_count; i++)
        address_open(&server->addresses[i]);
    *ret_server = server;
    return OK;
}

const char *dns_server_trouble(const struct dns_server *server) {
    for (unsigned i = 0; i < server->addresses_count; i++)
        if (server->addresses[i].trouble[0] != '\0')
            return server->addresses[i].trouble;
    return "";
}

void dns_server_close(struct dns_server *server, void (*closed)(void *user), void *user) {
    server->closing = true;
    server->closed = closed;
    server->closed_user = user;
    while (server->clients != NULL)
        client_close(server->clients);
    for (unsigned i = 0; i < server->addresses_count; i++)
        address_drop(&server->addresses[i]);
    uv_close((uv_handle_t *)&server->tick, on_tick_closed);
}
