#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/parts.h"

/* Observers have no part in libraft: each takes the record from one of the voters, over its message connection.
 *
 *   observer                                           voter
 *   feed: session, from, asked_at  --------------->    from behind what it has applied: snapshot
 *        <---------------------------------------      then each command that it applies, at once
 *        <---------------------------------------      fed: who leads, and how long ago it heard a quorum
 *   feed again, every freshness_ms  -------------->    fed
 *
 * Only what a voter has applied is fed, so it is committed. The index in a part says what the observer knows with it; a
 * part of another session than the last one that it began was on its way when it turned elsewhere, and has gaps behind
 * it. A voter that does not answer in time, or hears no quorum itself, is left for the next one in the list.
 *
 * A question carries the time at which it was asked, and the age in the answer counts from there: so what an observer
 * takes for the last word of a quorum is never later than what its voter does. */

#define BACKLOG_MAX     262144 /* an observer that is further behind begins anew, with a snapshot */
#define PATIENCE(after) ((after) + (after) / 2)

/* ---- the voter ---- */

static void part_send(struct connection *connection, enum frame_type type, uint8_t *payload, size_t length,
                      uint64_t index) {
    part_write_header(payload, connection->feeding.session, index);
    connection_send(connection, type, payload, length);
    connection->feeding.index = index;
}

static void snapshot_send(struct connection *connection) {
    struct record *record = connection->record;
    uint8_t *payload = malloc(PART_HEADER_BYTES + SNAPSHOT_BYTES_MAX);
    if (payload == NULL)
        return;
    size_t length = record->callbacks.snapshot(record->user, payload + PART_HEADER_BYTES, SNAPSHOT_BYTES_MAX);
    part_send(connection, FRAME_SNAPSHOT, payload, PART_HEADER_BYTES + length, record->feed.index);
    free(payload);
}

static void fed_send(struct connection *connection, uint64_t asked_at) {
    struct record *record = connection->record;
    struct record_status known;
    PeerFed fed = PeerFed_init_zero;
    record_status(record, &known);
    fed.session = connection->feeding.session;
    fed.asked_at = asked_at;
    fed.quorum = known.quorum_heard_at != 0;
    fed.age_ms = msec_between(known.quorum_heard_at, time_now()) + 1; /* it was rounded down */
    fed.term = known.term;
    snprintf(fed.leader, sizeof fed.leader, "%s", known.leader);
    connection_send_message(connection, FRAME_FED, PeerFed_fields, &fed);
}

static status asked(struct connection *connection, const struct frame *frame, struct error *error) {
    struct record *record = connection->record;
    PeerFeed feed = PeerFeed_init_zero;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerFeed_fields, &feed))
        return error_set(error, "malformed question for the record");
    if (!record->engine.started || record_silent(record) || connection_backlog(connection) > BACKLOG_MAX)
        return OK;
    feed_settle(record);
    if (!connection->feeding.on || connection->feeding.session != feed.session) {
        connection->feeding = (struct feeding){.on = true, .session = feed.session, .index = feed.from};
        if (feed.from < record->feed.index)
            snapshot_send(connection);
    }
    fed_send(connection, feed.asked_at);
    return OK;
}

static bool is_fed(const struct connection *connection) {
    return connection->feeding.on && connection->state == CONNECTION_OPEN && !connection->refusing;
}

/* The index of a snapshot is known only once libraft is done with it. */
void feed_settle(struct record *record) {
    if (!record->feed.restored)
        return;
    record->feed.restored = false;
    record->feed.index = raft_last_applied(&record->engine.raft);
    for (struct connection *c = record->connections; c != NULL; c = c->next)
        if (is_fed(c) && c->feeding.index < record->feed.index)
            snapshot_send(c);
}

void feed_applied(struct record *record, uint64_t index, const uint8_t *command, size_t length) {
    uint8_t *payload = NULL;
    record->feed.index = index;
    for (struct connection *c = record->connections; c != NULL; c = c->next) {
        if (!is_fed(c) || c->feeding.index >= index)
            continue;
        if (connection_backlog(c) > BACKLOG_MAX ||
            (payload == NULL && (payload = malloc(PART_HEADER_BYTES + length)) == NULL)) {
            c->feeding.on = false;
            continue;
        }
        memcpy(payload + PART_HEADER_BYTES, command, length);
        part_send(c, FRAME_ENTRY, payload, PART_HEADER_BYTES + length, index);
    }
    free(payload);
}

void feed_role_changed(struct record *record) {
    for (struct connection *c = record->connections; c != NULL; c = c->next)
        if (is_fed(c))
            fed_send(c, 0);
}

/* ---- the observer ---- */

static void ask(struct record *record, nsec now) {
    struct feed *feed = &record->feed;
    PeerFeed question = {.session = feed->session, .from = feed->index, .asked_at = now};
    feed->asked_at = now;
    connection_send_message(feed->from->messages, FRAME_FEED, PeerFeed_fields, &question);
}

static bool can_feed(const struct record *record, const struct peer *peer) {
    return !peer->config.observer && peer_reachable(peer) && peer->cluster_id != 0 &&
           peer->cluster_id == record->identity.cluster_id;
}

/* Observers share the voters among themselves, wherever in the list they stand. */
static unsigned first_place(const struct record *record) {
    unsigned skip = record->self % engine_voters(record), place = 0;
    while (record->peers[place].config.observer || skip-- > 0)
        place++;
    return place;
}

/* The next voter behind the last one. */
static struct peer *next_voter(struct record *record) {
    unsigned count = record->peers_count;
    unsigned first = record->feed.from != NULL ? record->feed.from->index + 1 : first_place(record);
    for (unsigned i = 0; i < count; i++) {
        struct peer *peer = &record->peers[(first + i) % count];
        if (can_feed(record, peer))
            return peer;
    }
    return NULL;
}

static void turn_to(struct record *record, struct peer *peer, nsec now) {
    struct feed *feed = &record->feed;
    feed->from = peer;
    feed->session++;
    feed->answered_at = now; /* its time runs from now */
    if (peer != NULL)
        ask(record, now);
}

void feed_tick(struct record *record, nsec now) {
    struct feed *feed = &record->feed;
    nsec every = msec(record->freshness_ms);
    if (!record_observes(record) || record->identity.cluster_id == 0)
        return;
    if (feed->from == NULL || !can_feed(record, feed->from) || now > feed->answered_at + PATIENCE(every))
        turn_to(record, next_voter(record), now);
    else if (now >= feed->asked_at + every)
        ask(record, now);
}

unsigned feed_tick_after(const struct record *record, nsec now) {
    nsec at = record->feed.asked_at + msec(record->freshness_ms);
    unsigned after = at > now ? (unsigned)((at - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC) : OBSERVER_TICK_MS;
    return record->feed.from == NULL || after > record->freshness_ms ? OBSERVER_TICK_MS : after;
}

static void leader_learn(struct record *record, const PeerFed *fed) {
    struct engine *engine = &record->engine;
    struct peer *leader = fed->leader[0] != '\0' ? peer_named(record, fed->leader) : NULL;
    if (fed->term < engine->term || (leader == engine->leader && fed->term == engine->term))
        return;
    engine->term = fed->term;
    engine->leader = leader;
    record_defer(record); /* proposals may wait for it */
    record->callbacks.role(record->user, RECORD_FOLLOWER, fed->term, leader != NULL ? leader->config.name : NULL);
}

static void freshness_learn(struct record *record, const PeerFed *fed) {
    struct feed *feed = &record->feed;
    nsec age = fed->age_ms < UINT32_MAX ? msec(fed->age_ms) : NSEC_NEVER;
    if (!fed->quorum || fed->asked_at == 0 || fed->asked_at > feed->asked_at || age >= fed->asked_at)
        return;
    nsec heard_at = fed->asked_at - age;
    if (heard_at > record->engine.quorum_heard_at)
        record->engine.quorum_heard_at = heard_at;
    if (age < PATIENCE(msec(record->freshness_ms)))
        feed->answered_at = time_now();
}

static status fed_received(struct record *record, const struct peer *peer, const struct frame *frame,
                           struct error *error) {
    PeerFed fed = PeerFed_init_zero;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerFed_fields, &fed))
        return error_set(error, "malformed answer about the record");
    if (record_silent(record) || peer != record->feed.from || fed.session != record->feed.session)
        return OK;
    leader_learn(record, &fed);
    freshness_learn(record, &fed);
    return OK;
}

static status part_take(struct record *record, enum frame_type type, const struct part *part, struct error *error) {
    if (part->index <= record->feed.index && record->feed.index != 0)
        return error_set(error, "the record's entry %llu came after entry %llu", (unsigned long long)part->index,
                         (unsigned long long)record->feed.index);
    if (type == FRAME_SNAPSHOT && record->callbacks.restore(record->user, part->bytes, part->length, error) != OK)
        return error_prefix(error, "unusable snapshot");
    if (type == FRAME_ENTRY)
        record->callbacks.apply(record->user, part->index, part->bytes, part->length);
    record->feed.index = part->index;
    record_defer(record); /* a proposal may wait for it */
    return OK;
}

static status part_received(struct record *record, const struct peer *peer, const struct frame *frame,
                            struct error *error) {
    struct part part;
    if (part_parse(frame, &part, error) != OK)
        return FAILED;
    size_t max = frame->type == FRAME_SNAPSHOT ? SNAPSHOT_BYTES_MAX : COMMAND_BYTES_MAX;
    if (part.length > max)
        return error_set(error, "part of the record with %zu bytes, more than %zu", part.length, max);
    if (record_silent(record) || peer != record->feed.from || part.session != record->feed.session)
        return OK;
    return part_take(record, frame->type, &part, error);
}

status feed_frame(struct connection *connection, const struct frame *frame, struct error *error) {
    struct record *record = connection->record;
    bool question = frame->type == FRAME_FEED;
    if (question ? !connection->peer->config.observer : !record_observes(record))
        return error_set(error, "unexpected frame %d", frame->type);
    if (question)
        return asked(connection, frame, error);
    return frame->type == FRAME_FED ? fed_received(record, connection->peer, frame, error)
                                    : part_received(record, connection->peer, frame, error);
}
