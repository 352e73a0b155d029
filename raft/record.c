#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "raft/parts.h"

/* ---- told to the caller ---- */

bool record_silent(const struct record *record) { return record->failed || record->closing; }

void record_fatal(struct record *record, const char *format, ...) {
    char text[WHY_MAX];
    va_list arguments;
    if (record_silent(record))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    record->failed = true;
    record->callbacks.fatal(record->user, text);
}

void record_notice(struct record *record, const char *format, ...) {
    char text[WHY_MAX];
    va_list arguments;
    nsec now = time_now();
    if (record_silent(record))
        return;
    if (record->noticed_at != 0 && now < record->noticed_at + NSEC_PER_SEC) {
        record->notices_dropped++;
        return;
    }
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (record->notices_dropped > 0 && length > 0 && (size_t)length < sizeof text)
        snprintf(text + length, sizeof text - (size_t)length, " (and %u more notices)", record->notices_dropped);
    record->noticed_at = now;
    record->notices_dropped = 0;
    record->callbacks.notice(record->user, text);
}

bool record_observes(const struct record *record) { return record->peers[record->self].config.observer; }

/* ---- the end ---- */

static void record_free(struct record *record) {
    void (*closed)(void *) = record->closed;
    void *user = record->closed_user;
    for (struct self_message *message = record->to_self, *next; message != NULL; message = next) {
        next = message->next;
        free(message);
    }
    for (unsigned i = 0; i < record->peers_count; i++) {
        resolver_close(&record->peers[i].resolver);
        free(record->peers[i].lines_seen);
    }
    identity_close(&record->identity);
    free(record->shared);
    free(record);
    if (closed != NULL)
        closed(user);
}

void record_handle_closed(uv_handle_t *handle) {
    struct record *record = handle->data;
    if (--record->handles == 0)
        record_free(record);
}

/* Our own handles go last: threads of the pool may still signal `async` until libraft is closed. */
void record_closed_part(struct record *record) {
    if (!record->closing || !record->closed_engine || record->connections != NULL ||
        uv_is_closing((uv_handle_t *)&record->async))
        return;
    uv_close((uv_handle_t *)&record->async, record_handle_closed);
    uv_close((uv_handle_t *)&record->timer, record_handle_closed);
    uv_close((uv_handle_t *)&record->idle, record_handle_closed);
    uv_close((uv_handle_t *)&record->check, record_handle_closed);
    uv_close((uv_handle_t *)&record->prepare, record_handle_closed);
}

static void record_close_begin(struct record *record) {
    uv_idle_stop(&record->idle);
    uv_timer_stop(&record->timer);
    uv_close((uv_handle_t *)&record->listener, record_handle_closed);
    proposals_close(record);
    connections_close(record);
    engine_close(record);
    record_closed_part(record);
}

void record_close(struct record *record, void (*closed)(void *user), void *user) {
    require(!record->closing);
    record->closing = true;
    record->closed = closed;
    record->closed_user = user;
    record_defer(record);
}

/* ---- turns and ticks ---- */

static void to_self_deliver(struct record *record) {
    const char *name = record->peers[record->self].config.name;
    struct self_message *message = record->to_self;
    record->to_self = NULL;
    record->to_self_end = &record->to_self;
    while (message != NULL) {
        struct self_message *next = message->next;
        if (!record_silent(record))
            record->callbacks.message(record->user, name, message->bytes, message->length);
        free(message);
        message = next;
    }
}

static void on_turn(uv_idle_t *idle) {
    struct record *record = idle->data;
    uv_idle_stop(idle); /* what follows may want another */
    if (record->closing) {
        record_close_begin(record);
        return;
    }
    if (record->failed)
        return;
    engine_poll(record);
    to_self_deliver(record);
    if (record->aside_wanted) {
        record->aside_wanted = false;
        engine_step_aside(record, record->aside);
    }
    proposals_turn(record, time_now());
}

void record_defer(struct record *record) { uv_idle_start(&record->idle, on_turn); }

static void on_timer(uv_timer_t *timer);

/* Observers come and go: nobody waits for them. */
static bool all_up(const struct record *record) {
    for (unsigned i = 0; i < record->peers_count; i++)
        if (i != record->self && !record->peers[i].config.observer && !record->peers[i].up)
            return false;
    return true;
}

static unsigned tick_after(const struct record *record, nsec now) {
    bool quiet = all_up(record) && record->proposals == NULL;
    if (record_observes(record))
        return quiet ? feed_tick_after(record, now) : OBSERVER_TICK_MS;
    return quiet ? engine_tick_after(record, now) : record->tick_ms;
}

static void on_timer(uv_timer_t *timer) {
    struct record *record = timer->data;
    nsec now = time_now();
    record->ticked_at = now;
    uv_timer_start(timer, on_timer, tick_after(record, now), 0);
    if (record_silent(record))
        return;
    connections_tick(record, now);
    peers_tick(record, now);
    feed_tick(record, now);
    founding_tick(record);
    rejoin_tick(record, now);
    engine_tick(record, now);
    proposals_turn(record, now);
}

void record_tick_soon(struct record *record) {
    if (!record_silent(record))
        uv_timer_start(&record->timer, on_timer, record->tick_ms, 0);
}

void record_heard_leader(struct record *record, nsec now) {
    if (now > record->ticked_at + msec(record->election_ms / 2) && !record->closing)
        uv_timer_start(&record->timer, on_timer, 0, 0);
}

static void on_check(uv_check_t *check) { engine_poll(check->data); }
static void on_prepare(uv_prepare_t *prepare) { engine_poll(prepare->data); }

static void on_disk_failed(uv_async_t *async) {
    struct record *record = async->data;
    record_fatal(record, "%s: %s", record->directory, record->disk_error);
}

/* ---- opening ---- */

/* The first voter. */
static unsigned founder_of(const struct record_config *config) {
    unsigned i = 0;
    while (i < config->peers_count && config->peers[i].observer)
        i++;
    return i;
}

static status config_check(const struct record_config *config, struct error *error) {
    if (config->peers_count == 0 || config->peers_count > MEMBERS_MAX || config->self >= config->peers_count)
        return error_set(error, "%u members, and we are number %u", config->peers_count, config->self);
    if (founder_of(config) == config->peers_count)
        return error_set(error, "%u members, and none of them votes", config->peers_count);
    if (strlen(config->directory) > PATH_MAX_LENGTH - 32)
        return error_set(error, "directory name %s is too long", config->directory);
    if (strlen(config->cluster_name) > CLUSTER_NAME_MAX)
        return error_set(error, "cluster name %s is longer than %d", config->cluster_name, CLUSTER_NAME_MAX);
    if (config->heartbeat_ms == 0 || config->election_ms < 3 * config->heartbeat_ms)
        return error_set(error, "an election timeout of %u ms does not go with a heartbeat of %u ms",
                         config->election_ms, config->heartbeat_ms);
    return OK;
}

static void handles_init(struct record *record) {
    uv_loop_t *loop = record->loop;
    uv_tcp_init(loop, &record->listener);
    uv_timer_init(loop, &record->timer);
    uv_idle_init(loop, &record->idle);
    uv_check_init(loop, &record->check);
    uv_prepare_init(loop, &record->prepare);
    uv_async_init(loop, &record->async, on_disk_failed);
    record->listener.data = record->timer.data = record->idle.data = record;
    record->check.data = record->prepare.data = record->async.data = record;
    record->handles = 6;
}

static void handles_start(struct record *record) {
    uv_check_start(&record->check, on_check);
    uv_prepare_start(&record->prepare, on_prepare);
    uv_timer_start(&record->timer, on_timer, 0, 0);
}

static struct record *record_new(uv_loop_t *loop, const struct record_config *config,
                                 const struct record_callbacks *callbacks, void *user) {
    struct record *record = calloc(1, sizeof *record);
    require(record != NULL);
    record->loop = loop;
    record->callbacks = *callbacks;
    record->user = user;
    snprintf(record->directory, sizeof record->directory, "%s", config->directory);
    snprintf(record->cluster_name, sizeof record->cluster_name, "%s", config->cluster_name);
    record->self = config->self;
    record->peers_count = config->peers_count;
    record->shared_count = config->shared_count;
    record->shared = calloc(config->shared_count + 1, sizeof *record->shared);
    require(record->shared != NULL);
    if (config->shared_count > 0)
        memcpy(record->shared, config->shared, config->shared_count * sizeof *record->shared);
    for (unsigned i = 0; i < config->peers_count; i++) {
        record->peers[i].config = config->peers[i];
        record->peers[i].index = i;
        record->observers += config->peers[i].observer;
        record->peers[i].lines_seen = calloc(config->shared_count + 1, sizeof(bool));
        require(record->peers[i].lines_seen != NULL);
    }
    record->heartbeat_ms = config->heartbeat_ms;
    record->election_ms = config->election_ms;
    record->tick_ms = config->election_ms / TICKS_PER_ELECTION;
    record->freshness_ms = config->freshness_ms > 100 ? config->freshness_ms : 100;
    record->founder = founder_of(config);
    record->to_self_end = &record->to_self;
    record->proposals_end = &record->proposals;
    return record;
}

static void damage_note(struct record *record, const char *why) {
    snprintf(record->damage, sizeof record->damage, "%s", why);
}

/* FAILED: libraft can't be started now. */
static status record_start(struct record *record, struct error *error) {
    if (record->damage[0] != '\0' || record->identity.cluster_id == 0)
        return OK;
    if (record_observes(record) && record->identity.log_begun)
        damage_note(record, "this member was a voter, and its file says that it is an observer");
    if (record_observes(record) || engine_open(record, error) == OK)
        return OK;
    damage_note(record, record->engine.damage.text);
    return record->damage[0] != '\0' ? OK : FAILED;
}

status record_open(struct record **ret_record, uv_loop_t *loop, const struct record_config *config,
                   const struct record_callbacks *callbacks, void *user, struct error *error) {
    struct identity identity;
    struct error damage;
    if (config_check(config, error) != OK || identity_open(&identity, config->directory, &damage, error) != OK)
        return FAILED;
    struct record *record = record_new(loop, config, callbacks, user);
    record->identity = identity;
    damage_note(record, damage.text[0] == '\0' && config->refused != NULL ? config->refused : damage.text);
    handles_init(record);
    if (connections_listen(record, error) != OK || record_start(record, error) != OK) {
        record->closing = true;
        record_close_begin(record);
        return FAILED;
    }
    handles_start(record);
    *ret_record = record;
    return OK;
}

status record_reset(const char *directory, struct error *error) { return identity_reset(directory, error); }

/* ---- the rest of the contract ---- */

void record_step_aside(struct record *record, const char *name) {
    if (record_silent(record))
        return;
    snprintf(record->aside, sizeof record->aside, "%s", name != NULL ? name : "");
    record->aside_wanted = true;
    record_defer(record);
}

/* When we, leading, last had heard a majority of the voters, us included; 0 if never. */
static nsec majority_heard_at(const struct record *record) {
    nsec heard[MEMBERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < record->peers_count; i++) {
        if (record->peers[i].config.observer)
            continue;
        const struct raft_server *server = engine_server(record, record->peers[i].config.name);
        nsec at = i == record->self ? time_now() : record->peers[i].answered_at;
        if (server == NULL || server->role != RAFT_VOTER)
            continue;
        unsigned place = count++;
        for (; place > 0 && heard[place - 1] < at; place--)
            heard[place] = heard[place - 1];
        heard[place] = at;
    }
    return count == 0 ? 0 : heard[count / 2];
}

void record_status(const struct record *record, struct record_status *ret_status) {
    const struct engine *engine = &record->engine;
    const char *self = record->peers[record->self].config.name;
    const struct raft_server *server = engine_server(record, self);
    const struct peer *leader = engine->leader;
    *ret_status = (struct record_status){.role = engine->started                               ? engine->role
                                                 : record_observes(record) && engine->term > 0 ? RECORD_FOLLOWER
                                                                                               : RECORD_FOUNDING,
                                         .term = engine->term,
                                         .cluster_id = record->identity.cluster_id,
                                         .raft_id = record->identity.raft_id,
                                         .start_count = record->identity.start_count,
                                         .last_applied = engine_applied(record),
                                         .voters = engine_voters(record),
                                         .voter = server != NULL && server->role == RAFT_VOTER};
    ret_status->lost = rejoin_needed(record) != NULL;
    nsec answered_at = majority_heard_at(record);
    ret_status->quorum_heard_at = answered_at > engine->quorum_heard_at ? answered_at : engine->quorum_heard_at;
    if (leader != NULL)
        snprintf(ret_status->leader, sizeof ret_status->leader, "%s", leader->config.name);
    founding_waiting(record, ret_status->waiting, sizeof ret_status->waiting);
}
