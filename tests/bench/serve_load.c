/* Asks one ttorchd as many programs would; for tests/bench/serve.py, which reads the line of JSON that each ends with.
 *
 *   serve_load checks PORT CONNECTIONS SECONDS RATE PATH    RATE a second, 0 = as fast as they are answered; each
 *                                                           connection has one request under way
 *   serve_load connects PORT CONNECTIONS SECONDS RATE PATH  the same with a new connection for each request
 *   serve_load watch PORT CONNECTIONS PATH                  one request each; prints a line once all are sent
 *   serve_load dns PORT WINDOW SECONDS NAME                 questions over UDP, WINDOW under way at once */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX      16384
#define CONNECTIONS_MAX 2000
#define SAMPLES_MAX     2000000
#define BATCH           32

static struct sockaddr_in target = {.sin_family = AF_INET};
static const char *request;
static bool each_anew;

static uint32_t *samples_us;
static size_t samples_count;
static uint64_t answers, wrong;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_us(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int by_size(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static double sample_ms(double part) {
    size_t at = (size_t)(part * (double)samples_count);
    return samples_count == 0 ? 0 : samples_us[at < samples_count ? at : samples_count - 1] / 1000.0;
}

static void count_answer(bool good, uint64_t asked_us) {
    answers++;
    wrong += !good;
    if (samples_count < SAMPLES_MAX)
        samples_us[samples_count++] = (uint32_t)(now_us(CLOCK_MONOTONIC) - asked_us);
}

static int report(double seconds) {
    qsort(samples_us, samples_count, sizeof *samples_us, by_size);
    printf("{\"answers\": %llu, \"wrong\": %llu, \"seconds\": %.3f, \"median_ms\": %.3f, \"late_ms\": %.3f, "
           "\"worst_ms\": %.3f}\n",
           (unsigned long long)answers, (unsigned long long)wrong, seconds, sample_ms(0.5), sample_ms(0.99),
           sample_ms(1));
    return 0;
}

/* ---- HTTP ---- */

struct connection {
    int fd; /* -1: to be opened */
    uint64_t asked_us;
    size_t length;
    char text[ANSWER_MAX + 1];
};

static struct connection *connections;
static unsigned count, idle_count;
static struct connection *idle[CONNECTIONS_MAX];
static int poller;

static void connection_open(struct connection *c) {
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&target, sizeof target) != 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) != 0)
        die("epoll");
}

static void connection_ask(struct connection *c) {
    c->asked_us = now_us(CLOCK_MONOTONIC);
    c->length = 0;
    if (c->fd < 0)
        connection_open(c);
    if (send(c->fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        die("send");
}

/* Whether the answer is all there. */
static bool connection_complete(const struct connection *c) {
    const char *body = strstr(c->text, "\r\n\r\n"), *length = strcasestr(c->text, "content-length:");
    return body != NULL && length != NULL &&
           c->length >= (size_t)(body + 4 - c->text) + strtoul(length + strlen("content-length:"), NULL, 10);
}

static void connection_read(struct connection *c) {
    ssize_t got = recv(c->fd, c->text + c->length, ANSWER_MAX - c->length, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        fprintf(stderr, "serve_load: a connection was closed after %zu bytes\n", c->length);
        exit(1);
    }
    c->length += (size_t)got;
    c->text[c->length] = '\0';
    if (!connection_complete(c))
        return;
    count_answer(strncmp(c->text, "HTTP/1.1 200", 12) == 0, c->asked_us);
    if (each_anew) {
        close(c->fd);
        c->fd = -1;
    }
    idle[idle_count++] = c;
}

static void connections_make(const char *number) {
    count = (unsigned)atoi(number);
    connections = calloc(count, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (count == 0 || count > CONNECTIONS_MAX || connections == NULL || poller < 0)
        die("connections");
    for (unsigned i = 0; i < count; i++) {
        connections[i].fd = -1;
        idle[idle_count++] = &connections[i];
    }
}

static void connections_wait(int timeout_ms) {
    struct epoll_event events[64];
    int ready = epoll_wait(poller, events, 64, timeout_ms);
    for (int i = 0; i < ready; i++)
        connection_read(events[i].data.ptr);
}

static int run_checks(double seconds, double rate) {
    uint64_t began = now_us(CLOCK_MONOTONIC), end = began + (uint64_t)(seconds * 1e6), now, asked = 0;
    while ((now = now_us(CLOCK_MONOTONIC)) < end) {
        uint64_t due = rate > 0 ? (uint64_t)((double)(now - began) * rate / 1e6) : UINT64_MAX;
        for (; idle_count > 0 && asked < due; asked++)
            connection_ask(idle[--idle_count]);
        connections_wait(idle_count < count && rate <= 0 ? 100 : 1);
    }
    return report((double)(now - began) / 1e6);
}

/* The clock of the others, as they say when what was changed. */
static int run_watch(void) {
    uint64_t first = 0;
    while (idle_count > 0)
        connection_ask(idle[--idle_count]);
    printf("{\"watching\": %u}\n", count);
    fflush(stdout);
    while (answers < count) {
        connections_wait(-1);
        if (first == 0 && answers > 0)
            first = now_us(CLOCK_REALTIME);
    }
    printf("{\"answers\": %llu, \"wrong\": %llu, \"first_ms\": %.3f, \"last_ms\": %.3f}\n", (unsigned long long)answers,
           (unsigned long long)wrong, (double)first / 1000, (double)now_us(CLOCK_REALTIME) / 1000);
    return 0;
}

/* ---- DNS ---- */

/* A question for the address of `name`, number `id`; returns its length. */
static size_t question(const char *name, uint16_t id, uint8_t *ret_bytes) {
    static const uint8_t head[] = {0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, tail[] = {0, 0, 1, 0, 1};
    memcpy(ret_bytes, head, sizeof head);
    ret_bytes[0] = (uint8_t)(id >> 8);
    ret_bytes[1] = (uint8_t)id;
    size_t at = sizeof head;
    for (size_t length; *name != '\0'; name += length + (name[length] == '.')) {
        length = strcspn(name, ".");
        ret_bytes[at++] = (uint8_t)length;
        memcpy(ret_bytes + at, name, length);
        at += length;
    }
    memcpy(ret_bytes + at, tail, sizeof tail);
    return at + sizeof tail;
}

static uint64_t asked_us[65536]; /* by number */

static unsigned send_batch(int fd, const char *name, uint16_t *id, unsigned most) {
    static uint8_t bytes[BATCH][300];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH] = {0};
    most = most < BATCH ? most : BATCH;
    for (unsigned i = 0; i < most; i++) {
        asked_us[*id] = now_us(CLOCK_MONOTONIC);
        parts[i] = (struct iovec){bytes[i], question(name, (*id)++, bytes[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int sent = sendmmsg(fd, messages, most, 0);
    return sent > 0 ? (unsigned)sent : 0;
}

static unsigned receive_batch(int fd) {
    static uint8_t bytes[BATCH][1500];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH] = {0};
    for (unsigned i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) /* NOERROR, with one answer at least */
        count_answer(messages[i].msg_len > 12 && (bytes[i][3] & 15) == 0 && bytes[i][7] > 0,
                     asked_us[bytes[i][0] << 8 | bytes[i][1]]);
    return got > 0 ? (unsigned)got : 0;
}

/* What is not answered within 100 ms is lost: another one is asked. */
static int run_dns(unsigned window, double seconds, const char *name) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&target, sizeof target) != 0)
        die("connect");
    uint64_t began = now_us(CLOCK_MONOTONIC), end = began + (uint64_t)(seconds * 1e6), now;
    unsigned under_way = 0, got;
    uint16_t id = 0;
    while ((now = now_us(CLOCK_MONOTONIC)) < end) {
        if (under_way < window)
            under_way += send_batch(fd, name, &id, window - under_way);
        if (under_way >= window && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 100) == 0)
            under_way = 0;
        while ((got = receive_batch(fd)) > 0)
            under_way = got < under_way ? under_way - got : 0;
    }
    return report((double)(now - began) / 1e6);
}

/* ---- the command line ---- */

static const char *get(const char *path) {
    char *text = NULL;
    if (asprintf(&text, "GET %s HTTP/1.1\r\nHost: ttorchd\r\n%s\r\n", path, each_anew ? "Connection: close\r\n" : "") <
        0)
        die("request");
    return text;
}

int main(int argc, char **argv) {
    samples_us = malloc(SAMPLES_MAX * sizeof *samples_us);
    if (argc < 5 || samples_us == NULL)
        return 2;
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port = htons((uint16_t)atoi(argv[2]));
    each_anew = strcmp(argv[1], "connects") == 0;
    if (strcmp(argv[1], "dns") == 0 && argc == 6)
        return run_dns((unsigned)atoi(argv[3]), atof(argv[4]), argv[5]);
    connections_make(argv[3]);
    if (strcmp(argv[1], "watch") == 0 && argc == 5) {
        request = get(argv[4]);
        return run_watch();
    }
    if (argc != 7 || (strcmp(argv[1], "checks") != 0 && !each_anew))
        return 2;
    request = get(argv[6]);
    return run_checks(atof(argv[4]), atof(argv[5]));
}
