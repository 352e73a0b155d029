/* Facts: one cheap query in one session, five times a second, and more often while something is in flux; on a primary,
 * the durable write that shows that its disk takes commits; and now and then a knock, as sessions that are there tell
 * nothing about new ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgctl/internal.h"

#define IDLE_MS     190 /* what is seen is told every 200 ms: see due_about */
#define FLUX_MS     20
#define HASTE_MS    10
#define STARTING_MS 100          /* each try before it answers is a line in its log */
#define SLOW_MS     100          /* an answer that takes longer is told of */
#define ANSWER_MS   1000         /* a server that takes longer is hung */
#define KNOCK_MS    6000         /* a fork costs 2.6 ms on a small machine: 0.05 % of a core */
#define DURABLE_MS  86400000     /* it waits for as long as the disk does; how long is the fact */
#define HASTE_NS    NSEC_PER_SEC /* after an operation, or when someone came or went */

/* One row a WAL sender, or one without; the first columns are the same in each. */
enum column {
    IN_RECOVERY,
    LSN,
    TIMELINE, /* primary only */
    RECEIVE_LSN,
    CONNINFO,
    RECEIVER,
    STREAMING,
    RECEIVED_TIMELINE,
    SENDER_NAME,
    SENDER_STATE,
    SENDER_SENT,
    SENDER_FLUSH,
    SENDER_REPLAY,
    SENDER_LAG,
    SENDER_SYNC
};

static const char observe_sql[] =
    "SELECT c.*, "
    "EXISTS (SELECT FROM pg_stat_get_activity(NULL) WHERE backend_type = 'walreceiver'), "
    "coalesce(w.status = 'streaming', false), w.received_tli, "
    "a.application_name, s.state, s.sent_lsn - '0/0', s.flush_lsn - '0/0', s.replay_lsn - '0/0', "
    "(extract(epoch FROM s.replay_lag) * 1000)::bigint, s.sync_state "
    "FROM (SELECT pg_is_in_recovery() AS recovery, "
    "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0', "
    "CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8) END, "
    "pg_last_wal_receive_lsn() - '0/0', current_setting('primary_conninfo')) c "
    "LEFT JOIN pg_stat_get_wal_receiver() w ON c.recovery "
    "LEFT JOIN (pg_stat_get_wal_senders() s JOIN pg_stat_get_activity(NULL) a USING (pid)) ON s.state <> 'backup'";

static void look(struct pgctl *pgctl);
static void durable_begin(struct pgctl *pgctl);
static void knock(struct pgctl *pgctl);

/* ---- telling ---- */

static void tell_damage(struct pgctl *pgctl) {
    const char *damage = pgctl->data.label_damaged ? pgctl->data.refused : pgctl->pledge_damage;
    char text[sizeof pgctl->facts.damaged] = "";
    if (damage[0] != '\0')
        snprintf(text, sizeof text, "%.140s: ttorch rejoin replaces it", damage);
    if (text[0] != '\0' && strcmp(text, pgctl->facts.damaged) != 0)
        pgctl_notice(pgctl, "%s", text);
    memcpy(pgctl->facts.damaged, text, sizeof text);
}

static void tell(struct pgctl *pgctl) {
    struct facts *facts = &pgctl->facts;
    bool inside = facts->server == SERVER_STANDBY || facts->server == SERVER_PRIMARY;
    facts->seen_at = inside ? pgctl->observer.inside_asked_at : time_now();
    facts->data = pgctl->data.state;
    facts->copy = pgctl->data.copy;
    facts->system_identifier = pgctl->data.system_identifier;
    facts->standby_signal = pgctl->data.standby_signal;
    facts->server_version = pgctl->server_version;
    facts->pledged_epoch = pgctl->pledged;
    memcpy(facts->refused, pgctl->data.refused, sizeof facts->refused);
    tell_damage(pgctl);
    facts->guard = pgctl->guard_state.connected;
    facts->guard_epoch = pgctl->guard_state.epoch;
    facts->guard_deadline = pgctl->guard_state.deadline;
    if (!pgctl->closing)
        pgctl->callbacks.facts(pgctl->user, facts);
}

/* What is known only while it answers SQL. */
static void forget_inside(struct facts *facts) {
    facts->position = (Position){0};
    facts->receive_lsn = 0;
    facts->receiver = facts->streaming = facts->durable_seen = false;
    facts->upstream_name[0] = '\0';
    facts->durable_lsn = facts->oldest_lsn = 0;
    facts->durable_pending = facts->answer_pending = facts->admission_pending = 0;
    facts->senders_count = 0;
}

void observer_look_at_data(struct pgctl *pgctl) {
    datadir_look(&pgctl->data, pgctl->config.data_directory, pgctl->label_path, pgctl->version);
}

/* ---- when to look next ---- */

static bool senders_settled(const struct facts *facts) {
    for (unsigned i = 0; i < facts->senders_count; i++)
        if (strcmp(facts->senders[i].state, "streaming") != 0)
            return false;
    return true;
}

static bool in_flux(const struct pgctl *pgctl) {
    const struct facts *facts = &pgctl->facts;
    if (facts->durable_pending != 0)
        return true;
    if (facts->server == SERVER_STANDBY)
        return facts->upstream_name[0] != '\0' && facts->receiver && !facts->streaming;
    return facts->server == SERVER_PRIMARY && !senders_settled(facts);
}

static unsigned pause_ms(const struct pgctl *pgctl) {
    if (!pgctl_server_running(pgctl))
        return IDLE_MS;
    if (!pgctl->observer.answered)
        return STARTING_MS;
    if (time_now() < pgctl->observer.hasty_until)
        return HASTE_MS;
    return in_flux(pgctl) ? FLUX_MS : IDLE_MS;
}

static void tick(uv_timer_t *timer) { look(timer->data); }

static void look_later(struct pgctl *pgctl) {
    bool again = pgctl->observer.again;
    pgctl->observer.again = false;
    uv_timer_start(&pgctl->observer.tick, tick, again ? 0 : pause_ms(pgctl), 0);
}

static bool looking(const struct observer *observer) {
    return session_asking(observer->session) || session_asking(observer->identify);
}

void observer_poke(struct pgctl *pgctl) {
    if (pgctl->closing)
        return;
    pgctl->observer.hasty_until = time_now() + HASTE_NS;
    if (looking(&pgctl->observer))
        pgctl->observer.again = true;
    else
        uv_timer_start(&pgctl->observer.tick, tick, 0, 0);
}

/* ---- the answer ---- */

static uint64_t number(const PGresult *result, int row, int column) {
    return strtoull(PQgetvalue(result, row, column), NULL, 10);
}

static void text(char *ret_text, size_t size, const PGresult *result, int row, int column) {
    snprintf(ret_text, size, "%s", PQgetvalue(result, row, column));
}

static void take_upstream_name(struct facts *facts, const char *conninfo) {
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    facts->upstream_name[0] = '\0';
    for (const PQconninfoOption *option = options; option != NULL && option->keyword != NULL; option++)
        if (strcmp(option->keyword, "application_name") == 0 && option->val != NULL)
            snprintf(facts->upstream_name, sizeof facts->upstream_name, "%s", option->val);
    PQconninfoFree(options);
}

static void take_senders(struct facts *facts, const PGresult *result) {
    facts->senders_count = 0;
    for (int row = 0; row < PQntuples(result) && facts->senders_count < SENDERS_MAX; row++) {
        if (PQgetisnull(result, row, SENDER_NAME))
            continue;
        Sender *sender = &facts->senders[facts->senders_count++];
        *sender = (Sender){0};
        text(sender->name, sizeof sender->name, result, row, SENDER_NAME);
        text(sender->state, sizeof sender->state, result, row, SENDER_STATE);
        text(sender->sync_state, sizeof sender->sync_state, result, row, SENDER_SYNC);
        sender->sent_lsn = number(result, row, SENDER_SENT);
        sender->flush_lsn = number(result, row, SENDER_FLUSH);
        sender->replay_lsn = number(result, row, SENDER_REPLAY);
        sender->replay_lag_ms = (uint32_t)number(result, row, SENDER_LAG);
    }
}

static void take_primary(struct pgctl *pgctl, const PGresult *result) {
    struct facts *facts = &pgctl->facts;
    facts->server = SERVER_PRIMARY;
    facts->position.timeline = (uint32_t)strtoul(PQgetvalue(result, 0, TIMELINE), NULL, 16);
    facts->position.lsn = pgctl->observer.lsn;
    if (pgctl->observer.was_primary)
        return;
    pgctl->observer.was_primary = true;
    observer_look_at_data(pgctl); /* standby.signal is back */
    durable_begin(pgctl);
    upkeep_poke(pgctl);
}

static void take(struct pgctl *pgctl, const PGresult *result) {
    struct facts *facts = &pgctl->facts;
    struct observer *observer = &pgctl->observer;
    unsigned senders = facts->senders_count;
    bool first = !observer->answered, streaming = facts->streaming;
    observer->answered = true;
    observer->answered_at = time_now();
    observer->unanswered_since = facts->answer_pending = 0;
    observer->inside_asked_at = observer->asking_since;
    pgctl->facts.response_ms = (uint32_t)msec_between(observer->asking_since, time_now());
    observer->lsn = number(result, 0, LSN);
    facts->receive_lsn = number(result, 0, RECEIVE_LSN);
    facts->receiver = result_bool(result, RECEIVER);
    facts->streaming = result_bool(result, STREAMING);
    observer->received_timeline = (uint32_t)number(result, 0, RECEIVED_TIMELINE);
    take_upstream_name(facts, PQgetvalue(result, 0, CONNINFO));
    take_senders(facts, result);
    if (result_bool(result, IN_RECOVERY))
        facts->server = SERVER_STANDBY;
    else
        take_primary(pgctl, result);
    if (first || facts->senders_count != senders || facts->streaming != streaming)
        observer->hasty_until = time_now() + HASTE_NS;
    if (first) {
        upkeep_poke(pgctl);
        knock(pgctl);
    }
}

/* ---- the position of a standby ----
 * Only IDENTIFY_SYSTEM tells the timeline of the last record replayed. It is asked again when it may have changed:
 * there is more WAL, and it is not certain that it was received on the timeline that we know. A position is told only
 * when what was asked before and after its LSN is the same timeline. */

static bool timeline_known(const struct pgctl *pgctl) {
    const struct observer *observer = &pgctl->observer;
    if (observer->replay_timeline == 0)
        return false;
    if (pgctl->facts.streaming && observer->received_timeline == observer->replay_timeline)
        return true;
    return observer->lsn == observer->replay_timeline_lsn;
}

static void tell_standby(struct pgctl *pgctl) {
    struct observer *observer = &pgctl->observer;
    observer->replay_timeline_lsn = observer->lsn;
    pgctl->facts.position = (Position){.timeline = observer->replay_timeline, .lsn = observer->lsn};
    tell(pgctl);
    look_later(pgctl);
}

static void identified(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    uint32_t before = pgctl->observer.replay_timeline;
    (void)error;
    session_drop(pgctl->observer.identify); /* it would hold one of the WAL senders */
    if (result == NULL) {                   /* the position told before stays */
        tell(pgctl);
        look_later(pgctl);
        return;
    }
    pgctl->observer.replay_timeline = (uint32_t)result_number(result, 1);
    if (pgctl->observer.replay_timeline == before)
        tell_standby(pgctl);
    else
        look(pgctl);
}

static void observed(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    struct observer *observer = &pgctl->observer;
    (void)error;
    if (result != NULL)
        take(pgctl, result);
    else if (observer->answered && msec_between(observer->answered_at, time_now()) >= ANSWER_MS)
        pgctl->facts.server = SERVER_HUNG;
    if (result != NULL && pgctl->facts.server == SERVER_STANDBY) {
        if (timeline_known(pgctl))
            tell_standby(pgctl);
        else
            session_ask(observer->identify, "IDENTIFY_SYSTEM", ANSWER_MS, identified, pgctl);
        return;
    }
    tell(pgctl);
    look_later(pgctl);
}

/* ---- looking ---- */

/* An operator was asked to move it away, or did. What comes to be there bit by bit is not looked at before it has to be
 * used. */
static void notice_gone(struct pgctl *pgctl) {
    if (!operate_busy(pgctl) && pgctl->data.state != DATA_EMPTY && datadir_is_gone(pgctl->config.data_directory))
        observer_look_at_data(pgctl);
}

/* It is silent since its last answer; but not for longer than we have been asking. */
static void no_answer_yet(uv_timer_t *timer) {
    struct pgctl *pgctl = timer->data;
    struct observer *observer = &pgctl->observer;
    nsec earliest = observer->unanswered_since - msec(IDLE_MS);
    pgctl->facts.answer_pending = observer->answered_at > earliest ? observer->answered_at : earliest;
    tell(pgctl);
}

static void look(struct pgctl *pgctl) {
    struct observer *observer = &pgctl->observer;
    uv_timer_stop(&observer->tick);
    if (looking(observer))
        return;
    if (!pgctl_server_running(pgctl)) {
        notice_gone(pgctl);
        tell(pgctl);
        look_later(pgctl);
        return;
    }
    observer->asking_since = time_now();
    if (observer->unanswered_since == 0)
        observer->unanswered_since = observer->asking_since;
    if (observer->answered)
        uv_timer_start(&observer->tick, no_answer_yet, SLOW_MS, 0);
    session_ask(observer->session, observe_sql, ANSWER_MS, observed, pgctl);
}

static ServerState state_by_guard(const struct pgctl *pgctl) {
    const struct guard_state *guard = &pgctl->guard_state;
    if (!guard->connected)
        return SERVER_UNKNOWN;
    if (guard->server == GUARD_DOWN)
        return SERVER_DOWN;
    return guard->server == GUARD_KILLING ? SERVER_STOPPING : SERVER_STARTING;
}

/* Another postmaster, or none: what was known of the inside is void. */
static void start_over(struct pgctl *pgctl) {
    struct observer *observer = &pgctl->observer;
    session_drop(observer->session);
    session_drop(observer->identify);
    session_drop(observer->durable);
    door_drop(observer->door);
    uv_timer_stop(&observer->durable_tick);
    uv_timer_stop(&observer->door_tick);
    observer->answered = observer->was_primary = observer->again = false;
    observer->unanswered_since = 0;
    observer->replay_timeline = 0;
    forget_inside(&pgctl->facts);
    pgctl->facts.server = state_by_guard(pgctl);
    observer_look_at_data(pgctl);
}

void observer_guard_changed(struct pgctl *pgctl, const struct guard_state *before) {
    const struct guard_state *now = &pgctl->guard_state;
    bool same = before->connected == now->connected && before->server == now->server &&
                before->postmaster_pid == now->postmaster_pid && before->exits == now->exits;
    if (!same)
        start_over(pgctl);
    tell(pgctl);
    if (!same)
        observer_poke(pgctl);
}

/* ---- the durable write ---- */

static void durable_next(uv_timer_t *timer) { durable_begin(timer->data); }

/* Start of the segment whose name, without the timeline, is "0000000A000000FF". */
uint64_t result_oldest_lsn(const PGresult *result, int column) {
    unsigned high, low;
    if (PQgetisnull(result, 0, column) || sscanf(PQgetvalue(result, 0, column), "%8X%8X", &high, &low) != 2)
        return 0;
    return ((uint64_t)high << 32) + low * result_number(result, column + 1);
}

static void durable_ended(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    (void)error; /* it is pending no more, and none was seen: what the cause is the other facts tell */
    pgctl->facts.durable_pending = 0;
    if (result != NULL) {
        pgctl->facts.durable_seen = true;
        pgctl->facts.durable_lsn = result_number(result, 0);
        pgctl->facts.oldest_lsn = result_oldest_lsn(result, 1);
    }
    tell(pgctl);
    uv_timer_start(&pgctl->observer.durable_tick, durable_next, pgctl->config.probe_interval_ms, 0);
}

static void durable_begin(struct pgctl *pgctl) {
    if (pgctl->facts.server != SERVER_PRIMARY || session_asking(pgctl->observer.durable))
        return;
    pgctl->facts.durable_pending = time_now();
    session_ask(pgctl->observer.durable,
                "BEGIN; SELECT pg_logical_emit_message(true, 'ttorch', ''); COMMIT; "
                "SELECT pg_current_wal_flush_lsn() - '0/0', " SQL_OLDEST_WAL,
                DURABLE_MS, durable_ended, pgctl);
}

/* ---- the door ---- */

static void knock_again(uv_timer_t *timer) { knock(timer->data); }

static void let_in(void *user) {
    struct pgctl *pgctl = user;
    pgctl->facts.admission_pending = 0;
    uv_timer_start(&pgctl->observer.door_tick, knock_again, KNOCK_MS, 0);
}

static void knock(struct pgctl *pgctl) {
    if (door_knocking(pgctl->observer.door))
        return;
    pgctl->facts.admission_pending = time_now();
    door_knock(pgctl->observer.door, let_in, pgctl);
}

/* ---- opening ---- */

status observer_open(struct pgctl *pgctl, struct error *error) {
    struct observer *observer = &pgctl->observer;
    uv_timer_init(pgctl->loop, &observer->tick);
    uv_timer_init(pgctl->loop, &observer->durable_tick);
    uv_timer_init(pgctl->loop, &observer->door_tick);
    observer->tick.data = observer->durable_tick.data = observer->door_tick.data = pgctl;
    observer->session = pgctl_session(pgctl, false);
    observer->identify = pgctl_session(pgctl, true);
    observer->durable = pgctl_session(pgctl, false);
    observer->door = door_new(pgctl->loop, pgctl->config.socket_directory, pgctl->config.port);
    if (observer->session == NULL || observer->identify == NULL || observer->durable == NULL || observer->door == NULL)
        return error_set(error, "out of memory");
    return OK;
}

void observer_close(struct pgctl *pgctl) {
    struct observer *observer = &pgctl->observer;
    session_free(observer->session);
    session_free(observer->identify);
    session_free(observer->durable);
    door_free(observer->door);
    uv_close((uv_handle_t *)&observer->tick, NULL);
    uv_close((uv_handle_t *)&observer->durable_tick, NULL);
    uv_close((uv_handle_t *)&observer->door_tick, NULL);
}
