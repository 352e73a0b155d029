/* PostgreSQL, its guard, and the hands that hold it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "tests/sim/world.h"

#define COMMIT_BIT     0x80000000u
#define FACTS_EVERY    msec(200)
#define PROBE_EVERY    msec(1000)
#define ANSWER         msec(1000) /* a server that takes longer to answer is hung */
#define STUBBORN       msec(1000) /* a sender that has not reloaded by then is ended */
#define RECEIVER_RETRY msec(300)
#define RECEIVER_DEAF  msec(2000)
#define GUARD_DELAY    msec(40) /* wake-up and kill, at most */

Position position_of(const struct modelled_postgres *postgres) {
    uint32_t timeline = postgres->length > 0 ? postgres->wal[postgres->length - 1].timeline : 1;
    return (Position){.timeline = timeline, .lsn = LSN_OF(postgres->length)};
}

bool postgres_serves(const struct modelled_postgres *postgres) {
    return (postgres->server == SERVER_PRIMARY || postgres->server == SERVER_STANDBY) && postgres->frozen == 0;
}

static struct modelled_postgres *postgres_of(struct world *world, unsigned member) {
    return &world->members[member].postgres;
}

void facts_changed(struct world *world, unsigned member) {
    if (world->members[member].up)
        timer_at_latest(world, member, TIMER_FACTS, world->now + 500000 + draw_time(world, msec(8)));
}

/* ---- settings ---- */

static const struct setting *setting(const struct modelled_postgres *postgres, uint32_t version) {
    return &postgres->settings[version % SETTINGS_KEPT];
}

static bool names_listed(const struct setting *listed, struct receiver_name name) {
    for (unsigned i = 0; i < listed->names_count; i++)
        if (listed->names[i].member == name.member && listed->names[i].copy == name.copy &&
            (listed->names[i].epoch == name.epoch || planted(NAMES)))
            return true;
    return false;
}

static struct receiver_name parse_name(const char *text) {
    char member[NAME_MAX_LENGTH + 1];
    struct receiver_name name = {0};
    if (application_name_parse(text, member, &name.copy, &name.epoch))
        name.member = (uint32_t)atoi(member + 1);
    return name;
}

static nsec reload_delay(struct world *world, unsigned member) {
    return world->members[member].slow_reload > 0 ? draw(world, msec(3000)) : draw_time(world, msec(20));
}

/* Writes a setting and signals; who takes it when is their affair. */
static void setting_write(struct world *world, unsigned member, const struct rule_setting *rule) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    struct setting new = {.needed = 1}; /* a name that nobody has */
    if (rule != NULL) {
        new.needed = rule->needed;
        new.names_count = rule->needed > 0 ? rule->names_count : 0;
        for (unsigned i = 0; i < new.names_count; i++)
            new.names[i] = parse_name(rule->names[i]);
    }
    postgres->settings[++postgres->setting_newest % SETTINGS_KEPT] = new;
    for (unsigned i = 0; i < world->members_count; i++)
        if (postgres->senders[i].live)
            occasion_add(world, (struct occasion){.at = world->now + reload_delay(world, member),
                                                  .kind = OCCASION_RELOAD,
                                                  .from = (uint8_t)member,
                                                  .to = (uint8_t)i,
                                                  .a = postgres->senders[i].session,
                                                  .b = postgres->setting_newest});
    if (postgres->commits_wait != (new.needed > 0))
        timer_at_latest(world, member, TIMER_CHECKPOINTER, world->now + reload_delay(world, member));
}

/* ---- acknowledging ---- */

static void acknowledge(struct world *world, unsigned member, unsigned length) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (length > postgres->flushed)
        length = postgres->flushed;
    for (; postgres->acknowledged < length; postgres->acknowledged++) {
        uint32_t content = postgres->wal[postgres->acknowledged].content;
        if (postgres->acknowledged >= postgres->waiting_from && (content & COMMIT_BIT) != 0)
            check_acknowledged(world, member, content);
    }
    if (postgres->durable_at == 0 || postgres->acknowledged < postgres->durable_at)
        return;
    postgres->durable_at = 0;
    postgres->durable_since = 0;
    postgres->durable_seen = true;
    postgres->durable_lsn = LSN_OF(postgres->length);
    world->timers[member][TIMER_DURABLE] = world->now + PROBE_EVERY;
    facts_changed(world, member);
}

/* What this sender, by the setting that it uses, thinks that enough standbys have flushed. */
static void release(struct world *world, unsigned member, const struct sender *sender) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    const struct setting *used = setting(postgres, sender->uses);
    if (postgres->server != SERVER_PRIMARY || used->needed == 0 || !names_listed(used, sender->name))
        return;
    unsigned best = 0;
    for (unsigned i = 0; i < world->members_count; i++) {
        const struct sender *one = &postgres->senders[i];
        unsigned at_least = 0;
        if (!one->live || !names_listed(used, one->name))
            continue;
        for (unsigned j = 0; j < world->members_count; j++)
            at_least += postgres->senders[j].live && names_listed(used, postgres->senders[j].name) &&
                        postgres->senders[j].flushed >= one->flushed;
        if (at_least >= used->needed && one->flushed > best)
            best = one->flushed;
    }
    if (best > postgres->acknowledged)
        acknowledge(world, member, best);
}

static void reply(struct world *world, unsigned member) {
    const struct modelled_postgres *postgres = postgres_of(world, member);
    nsec delay = 50000 + draw(world, msec(1));
    if (world->slow_network > 0 && chance(world, 200))
        delay += draw(world, msec(300));
    occasion_add(world, (struct occasion){.at = world->now + delay,
                                          .kind = OCCASION_ACKNOWLEDGE,
                                          .from = (uint8_t)member,
                                          .to = (uint8_t)postgres->source,
                                          .a = postgres->session,
                                          .b = planted(UNFLUSHED) ? postgres->length : postgres->flushed});
}

/* What was flushed may be sent on, acknowledged, and told upstream. */
static void flushed(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    postgres->flushed = postgres->length;
    if (postgres->server == SERVER_PRIMARY && !postgres->commits_wait)
        acknowledge(world, member, postgres->flushed);
    for (unsigned i = 0; i < world->members_count; i++)
        if (postgres->senders[i].live)
            timer_at_latest(world, i, TIMER_RECEIVER, world->now + 50000 + draw(world, 500000));
    if (postgres->attached && postgres->streaming)
        reply(world, member);
}

/* Most is flushed at once, some a little later. */
static void flush_soon(struct world *world, unsigned member) {
    if (postgres_of(world, member)->disk_hangs == 0 && !chance(world, 150))
        flushed(world, member);
    else
        timer_at_latest(world, member, TIMER_FLUSH, world->now + draw_time(world, msec(10)));
}

void postgres_flush(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->server == SERVER_DOWN || postgres->disk_hangs > 0)
        return; /* it is looked after when the disk answers */
    if (postgres->frozen > 0)
        world->timers[member][TIMER_FLUSH] = world->now + msec(10);
    else
        flushed(world, member);
}

static void append(struct world *world, unsigned member, uint32_t timeline, bool commit) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    require(postgres->length < WORLD_WAL && world->next_content + 1 < WORLD_CONTENTS);
    uint32_t content = ++world->next_content | (commit ? COMMIT_BIT : 0);
    postgres->wal[postgres->length++] = (struct wal_record){timeline, content};
    flush_soon(world, member);
}

static bool has_room(const struct world *world, const struct modelled_postgres *postgres) {
    return postgres->length < WORLD_WAL - 100 && world->next_content < WORLD_CONTENTS - 500;
}

void postgres_client(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->server != SERVER_PRIMARY)
        return;
    if (postgres->frozen == 0 && has_room(world, postgres))
        append(world, member, postgres->wal[postgres->length - 1].timeline, true);
    nsec pause = msec(4 * world->plan.write_ms) / (world->busy > 0 ? 20 : 1);
    world->timers[member][TIMER_CLIENT] = world->now + draw_time(world, pause);
}

void postgres_durable(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->server != SERVER_PRIMARY || postgres->durable_at != 0)
        return;
    if (postgres->frozen > 0) {
        postgres->durable_since = world->now;
        world->timers[member][TIMER_DURABLE] = world->now + msec(10);
        return;
    }
    if (postgres->length >= WORLD_WAL - 20 || world->next_content >= WORLD_CONTENTS - 100)
        return;
    if (postgres->durable_since == 0)
        postgres->durable_since = world->now;
    postgres->durable_at = postgres->length + 1;
    append(world, member, postgres->wal[postgres->length - 1].timeline, true);
}

/* ---- senders ---- */

void postgres_acknowledged(struct world *world, unsigned member, unsigned from, uint32_t session, unsigned length) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    struct sender *sender = &postgres->senders[from];
    if (!sender->live || sender->session != session)
        return;
    if (postgres->frozen > 0 || !linked(world, from, member)) {
        occasion_add(world, (struct occasion){.at = world->now + msec(20),
                                              .kind = OCCASION_ACKNOWLEDGE,
                                              .from = (uint8_t)from,
                                              .to = (uint8_t)member,
                                              .a = session,
                                              .b = length});
        return;
    }
    sender->flushed = length; /* a new receiver may report less than the last */
    release(world, member, sender);
    if (!world->topology.open || world->topology.rules_count > 1)
        facts_changed(world, member);
}

void postgres_sender_reloads(struct world *world, unsigned member, unsigned to, uint32_t session, uint32_t version) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    struct sender *sender = &postgres->senders[to];
    if (!sender->live || sender->session != session)
        return;
    if (postgres->frozen > 0) {
        occasion_add(world, (struct occasion){.at = world->now + msec(20),
                                              .kind = OCCASION_RELOAD,
                                              .from = (uint8_t)member,
                                              .to = (uint8_t)to,
                                              .a = session,
                                              .b = version});
        return;
    }
    if (version > sender->uses)
        sender->uses = version;
    release(world, member, sender);
}

void postgres_checkpointer(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (!postgres_serves(postgres)) {
        if (postgres->frozen > 0)
            world->timers[member][TIMER_CHECKPOINTER] = world->now + msec(20);
        return;
    }
    postgres->commits_wait = setting(postgres, postgres->setting_newest)->needed > 0;
    if (!postgres->commits_wait && postgres->server == SERVER_PRIMARY)
        acknowledge(world, member, postgres->length);
}

void postgres_sender_ends(struct world *world, unsigned member, unsigned to, uint32_t session) {
    struct sender *sender = &postgres_of(world, member)->senders[to];
    if (!sender->live || sender->session != session)
        return;
    sender->live = false;
    facts_changed(world, member);
}

/* ---- receivers ---- */

static void detach(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (!postgres->attached)
        return;
    unsigned source = (unsigned)postgres->source;
    postgres->attached = postgres->streaming = false;
    nsec notices = connected(world, member, source) ? msec(10) : RECEIVER_DEAF;
    occasion_add(world, (struct occasion){.at = world->now + draw(world, notices),
                                          .kind = OCCASION_SENDER_ENDS,
                                          .from = (uint8_t)member,
                                          .to = (uint8_t)source,
                                          .a = postgres->session});
    facts_changed(world, member);
}

/* The first reply reports what it has as flushed, whatever its timeline. */
static void attach(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    struct modelled_postgres *source = postgres_of(world, (unsigned)postgres->source);
    postgres->attached = true;
    postgres->session = ++world->next_session;
    source->senders[member] = (struct sender){
        .live = true, .session = postgres->session, .name = postgres->name, .uses = source->setting_newest};
    reply(world, member);
    world->timers[member][TIMER_RECEIVER] = world->now + draw_time(world, msec(4));
}

/* What PostgreSQL can see of "all that I have is in your history". */
static bool is_prefix(const struct modelled_postgres *a, const struct modelled_postgres *b) {
    return a->length <= b->length &&
           (a->length == 0 || a->wal[a->length - 1].timeline == b->wal[a->length - 1].timeline);
}

/* Records that are gone. */
static unsigned oldest(const struct world *world, const struct modelled_postgres *postgres) {
    unsigned keeps = world->plan.keeps;
    return keeps == 0 || postgres->length < keeps ? 0 : postgres->length - keeps;
}

static void stream(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    struct modelled_postgres *source = postgres_of(world, (unsigned)postgres->source);
    bool gone = postgres->length < oldest(world, source);
    if (!is_prefix(postgres, source) || gone) {
        tell(world, (int)member,
             gone ? "PostgreSQL: m%d has removed the WAL that comes next"
                  : "PostgreSQL: the history of m%d forked off before the own position",
             postgres->source + 1);
        detach(world, member);
        world->timers[member][TIMER_RECEIVER] = world->now + RECEIVER_RETRY + draw(world, msec(2000));
        return;
    }
    check_received(world, member, (unsigned)postgres->source);
    if (!postgres->streaming) {
        postgres->streaming = source->senders[member].streaming = true;
        facts_changed(world, member);
        facts_changed(world, (unsigned)postgres->source);
    }
    if (postgres->length >= source->flushed)
        return;
    unsigned until = source->flushed;
    if (until - postgres->length > 1 && chance(world, 200))
        until = postgres->length + 1;
    for (; postgres->length < until; postgres->length++)
        postgres->wal[postgres->length] = source->wal[postgres->length];
    flush_soon(world, member);
    if (planted(UNFLUSHED))
        reply(world, member);
    if (postgres->length < source->flushed)
        world->timers[member][TIMER_RECEIVER] = world->now + 50000 + draw(world, 500000);
}

void postgres_receive(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->server != SERVER_STANDBY || postgres->source < 0 || postgres->source == (int)member)
        return;
    const struct modelled_postgres *source = postgres_of(world, (unsigned)postgres->source);
    const struct sender *sender = &source->senders[member];
    nsec again = world->now + RECEIVER_RETRY / 2 + draw(world, RECEIVER_RETRY);
    if (postgres->frozen > 0) {
        world->timers[member][TIMER_RECEIVER] = again;
        return;
    }
    if (postgres->attached && (!sender->live || sender->session != postgres->session))
        detach(world, member);
    bool reached = connected(world, member, (unsigned)postgres->source);
    if (!postgres->attached) {
        if (reached && postgres_serves(source))
            attach(world, member);
        else
            world->timers[member][TIMER_RECEIVER] = again;
        return;
    }
    if (reached && postgres_serves(source)) {
        stream(world, member);
        return;
    }
    if (chance(world, 150))
        detach(world, member);
    world->timers[member][TIMER_RECEIVER] = again;
}

/* ---- processes ---- */

static void end_senders(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    for (unsigned i = 0; i < world->members_count; i++) {
        if (postgres->senders[i].live)
            timer_at_latest(world, i, TIMER_RECEIVER, world->now + draw_time(world, msec(100)));
        postgres->senders[i].live = false;
    }
}

void postgres_stop(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->attached)
        detach(world, member);
    end_senders(world, member);
    postgres->server = SERVER_DOWN;
    postgres->frozen = 0;
    postgres->dying = false;
    postgres->durable_at = 0;
    postgres->durable_since = 0;
    postgres->durable_seen = false;
    postgres->guard_deadline = NSEC_NEVER;
    for (enum timer timer = TIMER_CLIENT; timer < TIMER_RESTART; timer++)
        world->timers[member][timer] = NSEC_NEVER;
    world->timers[member][TIMER_GUARD] = NSEC_NEVER;
    facts_changed(world, member);
}

static void start_standby(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    postgres->server = SERVER_STANDBY;
    postgres->flushed = postgres->length; /* it begins by syncing its directory */
    postgres->guard_deadline = NSEC_NEVER;
    postgres->attached = postgres->streaming = false;
    postgres->commits_wait = setting(postgres, postgres->setting_newest)->needed > 0;
    memset(postgres->senders, 0, sizeof postgres->senders);
    world->timers[member][TIMER_RECEIVER] = world->now + draw_time(world, msec(50));
    facts_changed(world, member);
}

static void start_primary(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    postgres->server = SERVER_PRIMARY;
    postgres->source = -1;
    postgres->name_text[0] = '\0';
    postgres->waiting_from = postgres->acknowledged = postgres->length;
    postgres->durable_at = 0;
    postgres->durable_since = 0;
    postgres->durable_seen = false;
    world->timers[member][TIMER_CLIENT] = world->now + draw_time(world, msec(20));
    world->timers[member][TIMER_DURABLE] = world->now + draw_time(world, msec(5));
    facts_changed(world, member);
}

/* Somebody else started it. Whatever it was, standby.signal is there. */
void postgres_restarts(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    struct modelled_postgres *postgres = &self->postgres;
    if (postgres->server != SERVER_DOWN || postgres->data != DATA_COMPLETE || self->operating ||
        postgres->disk_hangs > 0)
        return;
    bool as_primary = self->restart_as_primary && (planted(STANDBYRST) || planted(DEADREP));
    tell(world, (int)member, "PostgreSQL is started by somebody else%s", as_primary ? ", as a primary" : "");
    if (as_primary) {
        nsec deadline = postgres->guard_deadline;
        memset(postgres->senders, 0, sizeof postgres->senders);
        postgres->commits_wait = setting(postgres, postgres->setting_newest)->needed > 0;
        start_primary(world, member);
        postgres->guard_deadline = deadline;
    } else if (postgres->standby_signal)
        start_standby(world, member);
}

void postgres_freeze(struct world *world, unsigned member, bool frozen) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (!frozen && postgres->frozen <= postgres->dying)
        return; /* killed meanwhile */
    postgres->frozen += frozen ? 1u : -1u;
    postgres->frozen_since = world->now;
    facts_changed(world, member);
    for (unsigned i = 0; i < world->members_count; i++)
        if (postgres->senders[i].live)
            timer_at_latest(world, i, TIMER_RECEIVER, world->now + msec(1));
    timer_at_latest(world, member, TIMER_RECEIVER, world->now + msec(1));
}

/* Kills every process; those that wait for the disk are not gone before it answers. */
static bool kill_all(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->disk_hangs == 0 || postgres->server == SERVER_DOWN) {
        postgres_stop(world, member);
        return true;
    }
    if (!postgres->dying)
        postgres_freeze(world, member, true);
    postgres->dying = true;
    return false;
}

void postgres_disk(struct world *world, unsigned member, bool hangs) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    postgres->disk_hangs += hangs ? 1u : -1u;
    log_disturbed(world);
    if (postgres->disk_hangs > 0)
        return;
    if (postgres->dying)
        postgres_stop(world, member);
    timer_at_latest(world, member, TIMER_FLUSH, world->now);
}

/* ---- the guard ---- */

void postgres_arm(struct world *world, unsigned member, uint32_t epoch, nsec deadline) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    postgres->guard_epoch = epoch;
    postgres->guard_deadline = deadline;
    nsec at = true_time(world, member, deadline);
    world->timers[member][TIMER_GUARD] = at == NSEC_NEVER ? at : at + draw(world, GUARD_DELAY);
    facts_changed(world, member);
}

void postgres_guard(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->server == SERVER_DOWN || postgres->guard_deadline == NSEC_NEVER)
        return;
    if (postgres->guard_frozen > 0 || local_time(world, member) < postgres->guard_deadline) {
        nsec at = true_time(world, member, postgres->guard_deadline);
        world->timers[member][TIMER_GUARD] = (at > world->now ? at : world->now + msec(5)) + draw(world, GUARD_DELAY);
        return;
    }
    tell(world, (int)member, "the guard kills PostgreSQL: its lease has run out");
    (void)kill_all(world, member);
}

/* ---- facts ---- */

static void fill_senders(struct world *world, unsigned member, struct facts *facts) {
    const struct modelled_postgres *postgres = postgres_of(world, member);
    facts->senders_count = 0;
    for (unsigned i = 0; i < world->members_count; i++) {
        if (!postgres->senders[i].live)
            continue;
        Sender *sender = &facts->senders[facts->senders_count++];
        memset(sender, 0, sizeof *sender);
        const struct receiver_name *name = &postgres->senders[i].name;
        application_name(sender->name, world->members[i].config.name, name->copy, name->epoch);
        strcpy(sender->state, postgres->senders[i].streaming ? "streaming" : "startup");
        sender->flush_lsn = LSN_OF(postgres->senders[i].flushed);
    }
}

static void fill_inside(struct world *world, unsigned member, struct facts *facts) {
    const struct modelled_postgres *postgres = postgres_of(world, member);
    bool cut_pretended = planted(CUT) && world->members[member].core.cut.valid;
    facts->seen_at = local_time(world, member);
    facts->server = postgres->server;
    facts->position = position_of(postgres);
    facts->receiver = postgres->attached && !cut_pretended;
    facts->streaming = postgres->attached && postgres->streaming && !cut_pretended;
    memcpy(facts->upstream_name, postgres->name_text, sizeof facts->upstream_name);
    if (cut_pretended)
        facts->upstream_name[0] = '\0';
    facts->durable_seen = postgres->durable_seen;
    facts->durable_lsn = postgres->durable_lsn;
    facts->oldest_lsn = postgres->durable_seen ? LSN_OF(oldest(world, postgres)) : 0;
    fill_senders(world, member, facts);
}

static void fill_outside(struct world *world, unsigned member, struct facts *facts) {
    const struct modelled_postgres *postgres = postgres_of(world, member);
    facts->seen_at = local_time(world, member);
    facts->server = postgres->server;
    facts->position = (Position){0};
    facts->receiver = facts->streaming = facts->durable_seen = false;
    facts->upstream_name[0] = '\0';
    facts->durable_lsn = 0;
    facts->senders_count = 0;
}

void hands_tell(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    const struct modelled_postgres *postgres = &self->postgres;
    if (!self->up || is_witness_member(world, member))
        return;
    struct facts *facts = &self->facts;
    facts->data = postgres->data;
    facts->copy = postgres->copy;
    facts->system_identifier = postgres->data == DATA_COMPLETE ? 77 : 0;
    facts->standby_signal = postgres->standby_signal;
    facts->pledged_epoch = planted(PLEDGE) ? 0 : postgres->pledged;
    facts->guard = postgres->guard_frozen == 0;
    facts->guard_epoch = postgres->guard_epoch;
    facts->guard_deadline = postgres->guard_deadline;
    if (postgres->server == SERVER_DOWN || postgres->dying) {
        fill_outside(world, member, facts);
        facts->server = postgres->dying ? SERVER_STOPPING : SERVER_DOWN;
    } else if (postgres->frozen == 0)
        fill_inside(world, member, facts);
    else if (world->now >= postgres->frozen_since + ANSWER) {
        facts->server = SERVER_HUNG;
        facts->seen_at = local_time(world, member);
    }
    facts->durable_pending =
        postgres->durable_since == 0 ? 0 : local_time(world, member) - (world->now - postgres->durable_since);
    timer_at_latest(world, member, TIMER_FACTS, world->now + FACTS_EVERY);
    give(world, member, &(struct event){.kind = EVENT_FACTS, .facts = facts});
}

/* ---- operations ---- */

static int member_named(const struct world *world, const char *name) {
    for (unsigned i = 0; i < world->members_count; i++)
        if (strcmp(world->members[i].config.name, name) == 0)
            return (int)i;
    return -1;
}

static nsec usual_time(struct world *world, enum operation_kind kind) {
    static const unsigned most[] = {
        [OPERATE_INITDB] = 500, [OPERATE_ADOPT] = 10,   [OPERATE_CLONE] = 2000, [OPERATE_REWIND] = 800,
        [OPERATE_START] = 300,  [OPERATE_STOP] = 200,   [OPERATE_KILL] = 10,    [OPERATE_CUT] = 30,
        [OPERATE_FOLLOW] = 10,  [OPERATE_PROMOTE] = 80, [OPERATE_RULE] = 5,     [OPERATE_CHECKPOINT] = 50,
        [OPERATE_PAUSE] = 100,  [OPERATE_FETCH] = 10};
    bool copies = (kind == OPERATE_CLONE || kind == OPERATE_REWIND) && world->plan.copying_ms > 0;
    return msec(1) + draw_time(world, msec(most[kind]) / world->plan.hurry) +
           (copies ? draw(world, msec(world->plan.copying_ms)) : 0);
}

static unsigned common_length(const struct modelled_postgres *a, const struct modelled_postgres *b) {
    unsigned length = a->length < b->length ? a->length : b->length;
    while (length > 0 && a->wal[length - 1].content != b->wal[length - 1].content)
        length--;
    return length;
}

static struct modelled_postgres *source_of(struct world *world, unsigned member, const struct operation *operation) {
    int source = member_named(world, operation->upstream.name);
    if (source < 0 || !connected(world, member, (unsigned)source) ||
        postgres_of(world, (unsigned)source)->server != SERVER_PRIMARY ||
        !postgres_serves(postgres_of(world, (unsigned)source)))
        return NULL;
    return postgres_of(world, (unsigned)source);
}

/* pg_rewind and pg_basebackup both leave what the source has. */
static bool copy_from(struct world *world, unsigned member, const struct operation *operation) {
    struct modelled_postgres *to = postgres_of(world, member), *from = source_of(world, member, operation);
    if (from == NULL || to->server != SERVER_DOWN)
        return false;
    memcpy(to->wal, from->wal, sizeof to->wal[0] * from->length);
    to->length = to->flushed = from->length; /* both flush what they made before they end */
    to->data = DATA_COMPLETE;
    to->standby_signal = true;
    return true;
}

static void begin_rewind(struct world *world, unsigned member, const struct operation *operation) {
    struct modelled_postgres *to = postgres_of(world, member), *from = source_of(world, member, operation);
    if (from == NULL || to->data != DATA_COMPLETE || to->server != SERVER_DOWN || world->plan.no_rewinds)
        return;
    to->length = to->flushed = planted(NOBROKEN) ? 1 : common_length(to, from);
    to->data = planted(NOBROKEN) ? DATA_COMPLETE : DATA_BROKEN;
}

void hands_begin(struct world *world, unsigned member, const struct operation *operation) {
    struct modelled_member *self = &world->members[member];
    self->operating = true;
    self->carried_out = false;
    self->operation = *operation;
    self->operation_began = world->now;
    world->timers[member][TIMER_OPERATION] = world->now + usual_time(world, operation->kind);
    if (operation->kind == OPERATE_REWIND)
        begin_rewind(world, member, operation);
    plan_cue(world, CUE_OPERATION, operation->kind, member);
}

static void promote(struct world *world, unsigned member, struct operation_result *result) {
    struct modelled_member *self = &world->members[member];
    struct modelled_postgres *postgres = &self->postgres;
    const struct operation *operation = &self->operation;
    bool at_base = position_compare(position_of(postgres), operation->base) == 0 || planted(BASECHK);
    bool pledged = operation->epoch <= postgres->pledged && !planted(PLEDGE);
    if (postgres->server != SERVER_STANDBY || (postgres->source >= 0 && !planted(CUT)) || !at_base || pledged ||
        operation->timeline <= position_of(postgres).timeline) {
        result->outcome = OUTCOME_REFUSED;
        return;
    }
    bool fails = self->promotions_fail > 0 && chance(world, 700);
    if (fails && chance(world, 300)) {
        result->outcome = OUTCOME_FAILED; /* before anything happened */
        return;
    }
    setting_write(world, member, &operation->rule);
    if (!planted(DEFINED)) /* as a standby it listed a name that nobody has */
        postgres->commits_wait = operation->rule.needed > 0;
    else
        postgres->commits_wait = false;
    world->timers[member][TIMER_CHECKPOINTER] =
        planted(DEFINED) ? world->now + reload_delay(world, member) : NSEC_NEVER;
    detach(world, member);
    end_senders(world, member);
    start_primary(world, member);
    check_promoted(world, member, operation->epoch, operation->timeline);
    append(world, member, operation->timeline, false); /* the end-of-recovery record */
    flushed(world, member);
    result->lsn = LSN_OF(postgres->length);
    tell(world, (int)member, "PostgreSQL is primary on timeline %u", operation->timeline);
    if (!fails)
        return;
    result->outcome = OUTCOME_FAILED;
    if (chance(world, 600)) {
        postgres_stop(world, member); /* and leaves its timeline behind */
        postgres->standby_signal = chance(world, 500);
    }
}

/* In force: every sender uses it, and commits wait if they should. */
static bool rule_in_force(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    bool stubborn = world->now > world->members[member].operation_began + STUBBORN;
    for (unsigned i = 0; i < world->members_count && !planted(SENDERS); i++) {
        if (!postgres->senders[i].live || postgres->senders[i].uses >= postgres->setting_newest)
            continue;
        if (!stubborn)
            return false;
        postgres->senders[i].live = false;
        timer_at_latest(world, i, TIMER_RECEIVER, world->now + msec(1));
    }
    bool waits = setting(postgres, postgres->setting_newest)->needed > 0;
    return !waits || postgres->commits_wait || planted(DEFINED);
}

static void shut_down(struct world *world, unsigned member) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    if (postgres->server == SERVER_PRIMARY && postgres->frozen == 0) {
        postgres->waiting_from = postgres->length; /* those who still wait are told so */
        append(world, member, postgres->wal[postgres->length - 1].timeline, false);
        flushed(world, member);
        for (unsigned i = 0; i < world->members_count; i++)
            if (postgres->senders[i].live && connected(world, member, i) && postgres_serves(postgres_of(world, i)) &&
                postgres_of(world, i)->attached && postgres_of(world, i)->session == postgres->senders[i].session &&
                (world->plan.faults_count == 0 || chance(world, 950)))
                while (postgres_of(world, i)->attached && is_prefix(postgres_of(world, i), postgres) &&
                       postgres_of(world, i)->length < postgres->length)
                    stream(world, i);
    }
    postgres_stop(world, member);
}

/* A standby of `source`, or of nobody. */
static void start_of(struct world *world, unsigned member, int source, const char *name) {
    struct modelled_postgres *postgres = postgres_of(world, member);
    postgres->source = source;
    postgres->name = parse_name(name);
    snprintf(postgres->name_text, sizeof postgres->name_text, "%s", name);
    postgres->standby_signal = true;
    setting_write(world, member, NULL);
    start_standby(world, member);
}

/* False: it goes on. */
static bool carry_out(struct world *world, unsigned member, struct operation_result *result) {
    struct modelled_member *self = &world->members[member];
    struct modelled_postgres *postgres = &self->postgres;
    const struct operation *operation = &self->operation;
    bool done = true;
    switch (operation->kind) {
    case OPERATE_INITDB:
        done = postgres->data == DATA_EMPTY;
        if (done) {
            postgres->length = postgres->flushed = 1;
            postgres->wal[0] = (struct wal_record){1, ++world->next_content};
            postgres->data = DATA_COMPLETE;
            postgres->copy = operation->copy;
            postgres->standby_signal = true;
        }
        break;
    case OPERATE_ADOPT:
        done = postgres->data == DATA_COMPLETE && postgres->server == SERVER_DOWN;
        if (done)
            postgres->copy = operation->copy;
        break;
    case OPERATE_CLONE:
        done = copy_from(world, member, operation);
        if (done)
            postgres->copy = operation->copy;
        break;
    case OPERATE_REWIND:
        done = (postgres->data == DATA_BROKEN || planted(NOBROKEN)) && copy_from(world, member, operation);
        if (done)
            start_of(world, member, member_named(world, operation->upstream.name), "ttorch_rewind");
        break;
    case OPERATE_START:
        done = postgres->server == SERVER_DOWN && postgres->data == DATA_COMPLETE;
        if (done)
            start_of(world, member, -1, "");
        break;
    case OPERATE_STOP:
        done = postgres->frozen == 0;
        if (done)
            shut_down(world, member);
        break;
    case OPERATE_KILL:
        done = postgres->guard_frozen == 0 && kill_all(world, member);
        break;
    case OPERATE_CUT:
        done = postgres->server == SERVER_STANDBY && postgres->frozen == 0;
        if (!done)
            break;
        if (operation->epoch > postgres->pledged)
            postgres->pledged = operation->epoch;
        if (!planted(CUT)) {
            detach(world, member);
            postgres->source = -1;
            postgres->name_text[0] = '\0';
        }
        postgres->flushed = postgres->length; /* a receiver flushes once more as it ends */
        result->position = position_of(postgres);
        result->lsn = LSN_OF(oldest(world, postgres));
        break;
    case OPERATE_FOLLOW:
    case OPERATE_FETCH:
        done = postgres->server == SERVER_STANDBY && postgres->frozen == 0 &&
               (operation->epoch > postgres->pledged || operation->kind == OPERATE_FETCH || planted(PLEDGE));
        if (!done)
            break;
        detach(world, member);
        postgres->source = member_named(world, operation->upstream.name);
        postgres->name = parse_name(operation->application_name);
        memcpy(postgres->name_text, operation->application_name, sizeof postgres->name_text);
        world->timers[member][TIMER_RECEIVER] = world->now + draw_time(world, msec(5));
        break;
    case OPERATE_PROMOTE:
        if (postgres->frozen > 0)
            done = false;
        else
            promote(world, member, result);
        break;
    case OPERATE_RULE:
        if (!self->carried_out) {
            done = postgres->server == SERVER_PRIMARY && postgres->frozen == 0;
            if (!done)
                break;
            self->carried_out = true;
            setting_write(world, member, &operation->rule);
        }
        if (postgres->server != SERVER_PRIMARY || world->now > self->operation_began + msec(operation->deadline_ms)) {
            done = false;
            break;
        }
        if (!rule_in_force(world, member)) {
            world->timers[member][TIMER_OPERATION] = world->now + msec(2);
            return false;
        }
        result->lsn = LSN_OF(postgres->length);
        break;
    default:
        break;
    }
    if (!done)
        result->outcome = OUTCOME_FAILED;
    return true;
}

/* A deadline passed. */
static void abandon(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    struct operation_result result = {
        .serial = self->operation.serial, .kind = self->operation.kind, .outcome = OUTCOME_FAILED};
    self->operating = false;
    if (self->up)
        give(world, member, &(struct event){.kind = EVENT_RESULT, .result = &result});
}

void hands_end(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    if (!self->operating)
        return;
    if (self->postgres.disk_hangs > 0 && self->operation.kind != OPERATE_KILL) {
        if (world->now > self->operation_began + msec(self->operation.deadline_ms))
            abandon(world, member);
        else
            world->timers[member][TIMER_OPERATION] = world->now + msec(20);
        return;
    }
    struct operation_result result = {
        .serial = self->operation.serial, .kind = self->operation.kind, .outcome = OUTCOME_DONE};
    bool fails = self->operations_fail > 0 && chance(world, 300) && self->operation.kind != OPERATE_KILL;
    if (fails && chance(world, 500))
        result.outcome = OUTCOME_FAILED; /* without effect */
    else if (!carry_out(world, member, &result))
        return;
    else if (fails)
        result.outcome = OUTCOME_FAILED; /* with effect */
    self->operating = false;
    if (!self->up)
        return;
    give(world, member, &(struct event){.kind = EVENT_RESULT, .result = &result});
    if (self->up)
        timer_at_latest(world, member, TIMER_FACTS, world->now + 200000 + draw_time(world, msec(5)));
}

/* What was under way is left half done, or comes true without anybody waiting for it. */
void hands_die(struct world *world, unsigned member) {
    struct modelled_member *self = &world->members[member];
    enum operation_kind kind = self->operation.kind;
    bool goes_on = kind == OPERATE_CUT || kind == OPERATE_FOLLOW || kind == OPERATE_FETCH || kind == OPERATE_PROMOTE ||
                   kind == OPERATE_STOP;
    if (self->operating && (!goes_on || chance(world, 500)))
        self->operating = false;
}
