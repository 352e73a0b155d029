#include "publish/dns_update.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/dns_exchange.h"

#define CHECK_MS       60000 /* the server may have been restored from somewhere */
#define OTHERS_MS      3000  /* the coordinator goes first, then the members by their number */
#define OTHERS_STEP_MS 500
#define STANDBYS_MS    1000 /* what is new of standbys alone waits for so long */
#define RETRY_MIN_MS   500
#define RETRY_MAX_MS   15000

/*            tell                  conflict: unknown mark
 *   IDLE ------------> READ <------------------------------.
 *    ^  \               |  mark not newer                  |
 *    |   `-> CHECK      v                                  |
 *    |         |      WRITE -------------------------------'
 *    `---------+--------'   acknowledged
 *
 * What fails is tried again from READ, later and later. */
enum step { STEP_IDLE, STEP_READ, STEP_WRITE, STEP_CHECK };

struct dns_update {
    uv_loop_t *loop;
    void (*notice)(void *user, const char *text);
    void *user;
    struct dns_place place;
    struct sockaddr_storage server;
    char server_text[80];
    uv_timer_t timer; /* runs while STEP_IDLE and there is something to tell */
    enum step step;
    struct dns_exchange *exchange; /* not while STEP_IDLE */
    struct dns_message message;

    bool telling; /* `wanted` is to be told */
    bool coordinator;
    unsigned number; /* of our member */
    struct dns_view wanted, sent;
    bool acknowledged; /* the server has `wanted` */
    bool held;         /* or something newer */
    uint64_t since_ms; /* since when the server has other standbys than `wanted`, and else the same; 0: it has not */
    uint32_t lease_ms;
    bool mark_known, marked;
    struct dns_mark mark; /* as last seen */
    uint64_t index;
    unsigned failures;
    struct error trouble;
    bool closing;
    void (*closed)(void *user);
    void *closed_user;
};

static void go(struct dns_update *update, enum step step);

/* ---- when ---- */

static void on_timer(uv_timer_t *timer) {
    struct dns_update *update = timer->data;
    bool settled = update->acknowledged || update->held || !update->coordinator;
    go(update, settled && update->failures == 0 ? STEP_CHECK : update->mark_known ? STEP_WRITE : STEP_READ);
}

static uint64_t retry_ms(unsigned failures) {
    uint64_t ms = RETRY_MIN_MS;
    for (unsigned i = 1; i < failures && ms < RETRY_MAX_MS; i++)
        ms *= 2;
    return ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS;
}

/* When none streams it is perhaps the primary that is gone: after a lease there is another. */
static uint64_t patience_ms(const struct dns_update *update) {
    const struct dns_view *view = &update->wanted;
    bool none = view->standbys.count == 0 || view->standbys.members[0] == view->primary.members[0];
    return none ? STANDBYS_MS + update->lease_ms : STANDBYS_MS;
}

static uint64_t due_ms(const struct dns_update *update) {
    if (update->failures > 0)
        return retry_ms(update->failures);
    if (update->acknowledged || update->held)
        return CHECK_MS;
    if (!update->coordinator)
        return OTHERS_MS + (uint64_t)update->number * OTHERS_STEP_MS;
    uint64_t due_ms = update->since_ms > 0 ? update->since_ms + patience_ms(update) : 0;
    uint64_t now_ms = uv_now(update->loop);
    return due_ms > now_ms ? due_ms - now_ms : 0;
}

static void rest(struct dns_update *update) {
    update->step = STEP_IDLE;
    if (update->telling && !update->closing)
        uv_timer_start(&update->timer, on_timer, due_ms(update), 0);
}

/* ---- what is new ---- */

/* What was sent may have been overtaken by news meanwhile: they differ in more than the index. */
static bool same_records(const struct dns_view *a, const struct dns_view *b) {
    struct dns_view copy = *a;
    copy.index = b->index;
    return memcmp(&copy, b, sizeof copy) == 0;
}

static bool same_primary(const struct dns_view *a, const struct dns_view *b) {
    struct dns_view copy = *a;
    copy.standbys = b->standbys;
    copy.any = b->any;
    return same_records(&copy, b);
}

/* The server has what was sent. Standbys go when a primary does and come back after it; and a server may be slow with
 * an update that follows another one. So what is new of them alone waits, lest the next primary has to; most of it
 * never has to be told. */
static void compare(struct dns_update *update) {
    update->acknowledged = same_records(&update->sent, &update->wanted);
    if (update->acknowledged || !same_primary(&update->sent, &update->wanted))
        update->since_ms = 0;
    else if (update->since_ms == 0)
        update->since_ms = uv_now(update->loop);
}

static void take_news(struct dns_update *update, const struct dns_view *view) {
    bool has_sent = update->acknowledged || update->since_ms > 0;
    update->wanted = *view;
    update->held = false;
    if (has_sent)
        compare(update);
}

/* ---- how it went ---- */

static void went_wrong(struct dns_update *update, const char *why) {
    struct error trouble;
    (void)!error_set(&trouble, "dns.update.server %s: %s", update->server_text, why);
    if (strcmp(trouble.text, update->trouble.text) != 0)
        update->notice(update->user, trouble.text); /* once, until it changes */
    update->trouble = trouble;
    update->failures++;
    update->mark_known = false;
    rest(update);
}

static void went_right(struct dns_update *update) {
    char text[ERROR_TEXT_MAX];
    update->failures = 0;
    if (update->trouble.text[0] == '\0')
        return;
    update->trouble.text[0] = '\0';
    snprintf(text, sizeof text, "dns.update.server %s: takes updates again", update->server_text);
    update->notice(update->user, text);
}

static void has_it(struct dns_update *update) {
    compare(update);
    update->held = false;
    if (update->acknowledged)
        update->index = update->wanted.index;
    went_right(update);
    rest(update);
}

static bool is_newer(const struct dns_mark *mark, const struct dns_view *view) {
    return mark->epoch != view->epoch ? mark->epoch > view->epoch : mark->index > view->index;
}

static void has_read(struct dns_update *update, const struct dns_reply *reply) {
    char why[ERROR_TEXT_MAX], text[DNS_MARK_TEXT];
    if (reply->marked && reply->mark.cluster_id != update->wanted.cluster_id) {
        snprintf(why, sizeof why, "_ttorch.%s says that the records are another cluster's (%s): remove it there",
                 update->place.domain, dns_mark_text(&reply->mark, text));
        went_wrong(update, why);
        return;
    }
    went_right(update);
    update->held = reply->marked && is_newer(&reply->mark, &update->wanted);
    update->mark_known = !update->held;
    update->marked = reply->marked;
    update->mark = reply->mark;
    if (update->held || !update->telling)
        rest(update);
    else
        go(update, STEP_WRITE);
}

static void has_written(struct dns_update *update, const struct dns_reply *reply) {
    update->mark_known = !reply->conflict;
    if (reply->conflict) {
        go(update, STEP_READ);
        return;
    }
    update->marked = true;
    update->mark = (struct dns_mark){update->sent.cluster_id, update->sent.epoch, update->sent.index};
    has_it(update);
}

static void on_reply(struct dns_update *update, const uint8_t *bytes, size_t length) {
    struct dns_reply reply;
    struct error error;
    if (dns_reply_read(&update->place, &update->message, bytes, length, &reply, &error) != OK)
        went_wrong(update, error.text);
    else if (update->step == STEP_READ)
        has_read(update, &reply);
    else if (update->step == STEP_WRITE)
        has_written(update, &reply);
    else if (reply.conflict)
        go(update, STEP_READ);
    else
        has_it(update);
}

static void finish_closing(struct dns_update *update);

static void on_done(void *user, const uint8_t *reply, size_t length, const char *trouble) {
    struct dns_update *update = user;
    struct dns_message message = update->message;
    update->exchange = NULL;
    if (update->closing)
        finish_closing(update);
    else if (reply != NULL)
        on_reply(update, reply, length);
    else
        went_wrong(update, trouble);
    free(message.bytes); /* the next one may already be under way */
    free(message.signature);
}

/* ---- asking ---- */

static status make(struct dns_update *update, enum step step, struct dns_message *message, struct error *error) {
    switch (step) {
    case STEP_READ:
        return dns_message_read(&update->place, message, error);
    case STEP_WRITE:
        return dns_message_write(&update->place, &update->sent, update->marked ? &update->mark : NULL, message, error);
    default:
        return dns_message_check(&update->place, &update->sent, message, error);
    }
}

static void go(struct dns_update *update, enum step step) {
    struct error error;
    struct dns_message message;
    if (!update->telling) {
        rest(update);
        return;
    }
    uv_timer_stop(&update->timer);
    update->sent = update->wanted;
    update->since_ms = 0;
    if (step != STEP_CHECK)
        update->acknowledged = false;
    if (make(update, step, &message, &error) != OK) {
        went_wrong(update, error.text);
        return;
    }
    if (dns_exchange_start(&update->exchange, update->loop, &update->server, message.bytes, message.length,
                           step != STEP_READ, on_done, update, &error) != OK) {
        dns_message_free(&message);
        went_wrong(update, error.text);
        return;
    }
    update->message = message;
    update->step = step;
}

void dns_update_tell(struct dns_update *update, const struct dns_view *view, uint32_t lease_ms, bool coordinator) {
    bool news = !same_records(view, &update->wanted) || (coordinator && !update->coordinator && !update->acknowledged);
    bool telling = view->fresh && view->primary.count > 0;
    if (telling)
        update->wanted.index = view->index; /* not told for its own sake */
    update->lease_ms = lease_ms;
    if (telling == update->telling && !news)
        return;
    update->telling = telling;
    update->coordinator = coordinator;
    if (!telling) {
        uv_timer_stop(&update->timer);
        return;
    }
    if (!same_records(view, &update->wanted))
        take_news(update, view);
    update->failures = 0;
    if (update->step != STEP_IDLE)
        return;
    uv_timer_start(&update->timer, on_timer, due_ms(update), 0);
}

const char *dns_update_trouble(const struct dns_update *update) { return update->trouble.text; }

uint64_t dns_update_index(const struct dns_update *update) { return update->index; }

/* ---- opening and closing ---- */

/* The first line; its mode was looked at with the configuration. */
static status read_secret(struct dns_place *place, const char *path, struct error *error) {
    FILE *file = fopen(path, "re");
    bool read = file != NULL && fgets(place->secret, sizeof place->secret, file) != NULL;
    if (file != NULL)
        fclose(file);
    if (!read)
        return error_set(error, "%s: cannot be read", path);
    place->secret[strcspn(place->secret, "\r\n")] = '\0';
    return OK;
}

static void with_dot(char text[DNS_TEXT_MAX], const char *name) {
    size_t length = strlen(name);
    snprintf(text, DNS_TEXT_MAX, "%s%s", name, length > 0 && name[length - 1] != '.' ? "." : "");
}

static status set_place(struct dns_update *update, const struct dns_update_config *config, struct error *error) {
    struct dns_place *place = &update->place;
    with_dot(place->domain, config->domain);
    with_dot(place->zone, config->zone[0] != '\0' ? config->zone : config->domain);
    with_dot(place->key_name, config->key_name);
    place->algorithm = config->algorithm;
    place->ttl_s = config->ttl_s;
    bool six = strchr(config->server, ':') != NULL;
    snprintf(update->server_text, sizeof update->server_text, six ? "[%s]:%u" : "%s:%u", config->server, config->port);
    if (uv_ip4_addr(config->server, config->port, (struct sockaddr_in *)&update->server) != 0 &&
        uv_ip6_addr(config->server, config->port, (struct sockaddr_in6 *)&update->server) != 0)
        return error_set(error, "%s: not an address", config->server);
    return read_secret(place, config->key_file, error);
}

status dns_update_open(struct dns_update **ret_update, uv_loop_t *loop, const struct dns_update_config *config,
                       void (*notice)(void *user, const char *text), void *user, struct error *error) {
    struct dns_update *update = calloc(1, sizeof *update);
    if (update == NULL)
        return error_set(error, "out of memory");
    update->loop = loop;
    update->notice = notice;
    update->user = user;
    update->number = config->number;
    if (set_place(update, config, error) != OK) {
        free(update);
        return error_prefix(error, "update");
    }
    uv_timer_init(loop, &update->timer);
    update->timer.data = update;
    *ret_update = update;
    return OK;
}

static void on_timer_closed(uv_handle_t *handle) {
    struct dns_update *update = handle->data;
    if (update->closed != NULL)
        update->closed(update->closed_user);
    free(update);
}

static void finish_closing(struct dns_update *update) { uv_close((uv_handle_t *)&update->timer, on_timer_closed); }

void dns_update_close(struct dns_update *update, void (*closed)(void *user), void *user) {
    update->closing = true;
    update->closed = closed;
    update->closed_user = user;
    uv_timer_stop(&update->timer);
    if (update->exchange != NULL)
        dns_exchange_cancel(update->exchange); /* ends in on_done */
    else
        finish_closing(update);
}
