#include "publish/dns_exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"

#define UDP_MS        700 /* to wait for a datagram before TCP is tried */
#define TCP_MS        3000
#define UDP_MAX       1232
#define LENGTH_BYTES  2
#define REPLY_MAX     65535
#define HEADER_BYTES  12
#define MESSAGE_MAX   65535
#define TRUNCATED_BIT 2
#define ANSWER_BIT    0x80

struct dns_exchange {
    enum { EXCHANGE_UDP, EXCHANGE_TCP, EXCHANGE_OVER } phase;
    uv_loop_t *loop;
    struct sockaddr_storage server;
    dns_exchange_done *done;
    void *user;
    uv_timer_t deadline;
    uv_udp_t udp;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    unsigned handles;
    bool answered;
    struct error trouble;
    size_t request_length;
    uint8_t *request; /* behind its length, as TCP wants it */
    size_t received;  /* with the length before it over TCP */
    uint8_t reply[LENGTH_BYTES + REPLY_MAX];
};

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle) {
    struct dns_exchange *exchange = handle->data;
    if (--exchange->handles > 0)
        return;
    exchange->done(exchange->user, exchange->answered ? exchange->reply + LENGTH_BYTES : NULL,
                   exchange->answered ? exchange->received - LENGTH_BYTES : 0,
                   exchange->answered ? NULL : exchange->trouble.text);
    free(exchange->request);
    free(exchange);
}

static void close_handle(uv_handle_t *handle) {
    if (!uv_is_closing(handle))
        uv_close(handle, on_closed);
}

static void end(struct dns_exchange *exchange) {
    bool used_tcp = exchange->tcp.data != NULL;
    if (exchange->phase == EXCHANGE_OVER)
        return;
    exchange->phase = EXCHANGE_OVER;
    close_handle((uv_handle_t *)&exchange->deadline);
    close_handle((uv_handle_t *)&exchange->udp);
    if (used_tcp)
        close_handle((uv_handle_t *)&exchange->tcp);
}

static void end_failed(struct dns_exchange *exchange, const char *why) {
    if (exchange->phase != EXCHANGE_OVER)
        (void)!error_set(&exchange->trouble, "%s", why);
    end(exchange);
}

/* ---- TCP ---- */

static bool is_reply(const struct dns_exchange *exchange, const uint8_t *bytes, size_t length) {
    return length >= HEADER_BYTES && memcmp(bytes, exchange->request + LENGTH_BYTES, 2) == 0 &&
           (bytes[2] & ANSWER_BIT) != 0;
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer) {
    struct dns_exchange *exchange = handle->data;
    (void)suggested;
    *ret_buffer = uv_buf_init((char *)exchange->reply + exchange->received,
                              (unsigned)(sizeof exchange->reply - exchange->received));
}

static void on_tcp_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct dns_exchange *exchange = stream->data;
    (void)buffer;
    if (length < 0) {
        end_failed(exchange, length == UV_EOF ? "the server closed the connection" : uv_strerror((int)length));
        return;
    }
    exchange->received += (size_t)length;
    size_t whole = LENGTH_BYTES + ((size_t)exchange->reply[0] << 8 | exchange->reply[1]);
    if (exchange->received < LENGTH_BYTES || exchange->received < whole)
        return;
    exchange->received = whole;
    exchange->answered = is_reply(exchange, exchange->reply + LENGTH_BYTES, whole - LENGTH_BYTES);
    end_failed(exchange, "the answer is to another question");
}

static void on_tcp_written(uv_write_t *write, int result) {
    if (result != 0)
        end_failed(write->data, uv_strerror(result));
}

static void on_connected(uv_connect_t *connect, int result) {
    struct dns_exchange *exchange = connect->data;
    uv_stream_t *stream = (uv_stream_t *)&exchange->tcp;
    uv_buf_t request = uv_buf_init((char *)exchange->request, (unsigned)(LENGTH_BYTES + exchange->request_length));
    exchange->write.data = exchange;
    if (result == 0)
        result = uv_write(&exchange->write, stream, &request, 1, on_tcp_written);
    if (result == 0)
        result = uv_read_start(stream, on_allocate, on_tcp_read);
    if (result != 0)
        end_failed(exchange, uv_strerror(result));
}

static void on_tcp_deadline(uv_timer_t *timer) { end_failed(timer->data, "no answer"); }

static void ask_tcp(struct dns_exchange *exchange) {
    exchange->phase = EXCHANGE_TCP;
    exchange->received = 0;
    uv_udp_recv_stop(&exchange->udp);
    require(uv_tcp_init(exchange->loop, &exchange->tcp) == 0);
    exchange->handles++;
    exchange->tcp.data = exchange->connect.data = exchange;
    uv_timer_start(&exchange->deadline, on_tcp_deadline, TCP_MS, 0);
    int result =
        uv_tcp_connect(&exchange->connect, &exchange->tcp, (const struct sockaddr *)&exchange->server, on_connected);
    if (result != 0)
        end_failed(exchange, uv_strerror(result));
}

/* ---- UDP ---- */

static void on_udp_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer) {
    struct dns_exchange *exchange = handle->data;
    (void)suggested;
    *ret_buffer = uv_buf_init((char *)exchange->reply + LENGTH_BYTES, REPLY_MAX);
}

static void on_udp(uv_udp_t *udp, ssize_t length, const uv_buf_t *buffer, const struct sockaddr *from, unsigned flags) {
    struct dns_exchange *exchange = udp->data;
    const uint8_t *bytes = exchange->reply + LENGTH_BYTES;
    (void)buffer, (void)flags;
    if (length == 0 || exchange->phase != EXCHANGE_UDP || (length > 0 && from == NULL))
        return;
    if (length < 0) { /* nobody is there, says the kernel */
        ask_tcp(exchange);
        return;
    }
    if (!is_reply(exchange, bytes, (size_t)length))
        return;
    if ((bytes[2] & TRUNCATED_BIT) != 0) {
        ask_tcp(exchange);
        return;
    }
    exchange->received = LENGTH_BYTES + (size_t)length;
    exchange->answered = true;
    end(exchange);
}

static void on_udp_deadline(uv_timer_t *timer) { ask_tcp(timer->data); }

/* Connected, so that the kernel lets through what comes from the server only. */
static void ask_udp(struct dns_exchange *exchange) {
    uv_buf_t request = uv_buf_init((char *)exchange->request + LENGTH_BYTES, (unsigned)exchange->request_length);
    exchange->phase = EXCHANGE_UDP;
    uv_timer_start(&exchange->deadline, on_udp_deadline, UDP_MS, 0);
    if (exchange->request_length > UDP_MAX ||
        uv_udp_connect(&exchange->udp, (const struct sockaddr *)&exchange->server) != 0 ||
        uv_udp_recv_start(&exchange->udp, on_udp_allocate, on_udp) != 0 ||
        uv_udp_try_send(&exchange->udp, &request, 1, NULL) < 0)
        ask_tcp(exchange);
}

/* ---- starting ---- */

status dns_exchange_start(struct dns_exchange **ret_exchange, uv_loop_t *loop, const struct sockaddr_storage *server,
                          const uint8_t *request, size_t length, bool update, dns_exchange_done *done, void *user,
                          struct error *error) {
    struct dns_exchange *exchange = calloc(1, sizeof *exchange);
    uint8_t *copy = length <= MESSAGE_MAX ? malloc(LENGTH_BYTES + length) : NULL;
    if (exchange == NULL || copy == NULL) {
        free(exchange);
        free(copy);
        return error_set(error, "out of memory");
    }
    copy[0] = (uint8_t)(length >> 8);
    copy[1] = (uint8_t)length;
    memcpy(copy + LENGTH_BYTES, request, length);
    exchange->request = copy;
    exchange->request_length = length;
    exchange->loop = loop;
    exchange->server = *server;
    exchange->done = done;
    exchange->user = user;
    require(uv_timer_init(loop, &exchange->deadline) == 0 && uv_udp_init(loop, &exchange->udp) == 0);
    exchange->handles = 2;
    exchange->deadline.data = exchange->udp.data = exchange;
    *ret_exchange = exchange;
    if (update)
        ask_tcp(exchange);
    else
        ask_udp(exchange);
    return OK;
}

void dns_exchange_cancel(struct dns_exchange *exchange) { end_failed(exchange, "cancelled"); }
