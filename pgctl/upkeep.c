/* What is kept true without being asked: a physical slot for every peer on every data member, advanced as far as the
 * peers need no more; pg_hba.conf for their hosts; a log of bounded size; and on a primary the replication login. A
 * round reads the slots, writes down the statements that are wanting, and runs them one after the other; a failed one
 * is tried again in the next round. */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgctl/file.h"
#include "pgctl/internal.h"

#define ROUND_MS      10000
#define RETRY_MS      1000 /* after a round in which something failed */
#define STATEMENT_MS  10000
#define CHECKPOINT_MS 3600000
#define LOG_BYTES_MAX (16 << 20)

static void round_begin(struct pgctl *pgctl);
static void statement_next(struct pgctl *pgctl);

static bool is_primary(const struct pgctl *pgctl) { return pgctl->facts.server == SERVER_PRIMARY; }

/* ---- the list of a round ---- */

static void forget_statements(struct upkeeper *upkeeper) {
    for (unsigned i = 0; i < upkeeper->statements_count; i++) {
        explicit_bzero(upkeeper->statements[i], strlen(upkeeper->statements[i]));
        free(upkeeper->statements[i]);
    }
    upkeeper->statements_count = upkeeper->statement = 0;
}

static void add(struct upkeeper *upkeeper, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct upkeeper *upkeeper, const char *format, ...) {
    va_list arguments;
    if (upkeeper->statements_count == UPKEEP_STATEMENTS_MAX)
        return;
    va_start(arguments, format);
    if (vasprintf(&upkeeper->statements[upkeeper->statements_count], format, arguments) >= 0)
        upkeeper->statements_count++;
    va_end(arguments);
}

/* ---- slots ---- */

enum slot_column { SLOT_NAME, SLOT_ACTIVE, SLOT_RESTART_LSN, SLOT_LOST };
static const char slots_sql[] = "SELECT slot_name, active, restart_lsn - '0/0', wal_status = 'lost' "
                                "FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary "
                                "AND starts_with(slot_name, 'ttorch_')";

static int slot_row(const PGresult *slots, const char *name) {
    for (int row = 0; row < PQntuples(slots); row++)
        if (strcmp(PQgetvalue(slots, row, SLOT_NAME), name) == 0)
            return row;
    return -1;
}

static void want_slot(struct upkeeper *upkeeper, const PGresult *slots, const struct upkeep_peer *peer) {
    char name[SLOT_NAME_MAX], lsn[LSN_TEXT_MAX];
    slot_name(name, peer->name);
    int row = slot_row(slots, name);
    bool lost = row >= 0 && PQgetvalue(slots, row, SLOT_LOST)[0] == 't';
    if (lost)
        add(upkeeper, "SELECT pg_drop_replication_slot('%s')", name);
    if (row < 0 || lost) {
        add(upkeeper, "SELECT pg_create_physical_replication_slot('%s', true)", name);
        return;
    }
    bool active = PQgetvalue(slots, row, SLOT_ACTIVE)[0] == 't';
    uint64_t restart_lsn = strtoull(PQgetvalue(slots, row, SLOT_RESTART_LSN), NULL, 10);
    if (!active && restart_lsn < peer->slot_lsn)
        add(upkeeper, "SELECT pg_replication_slot_advance('%s', '%s')", name, lsn_text(peer->slot_lsn, lsn));
}

static bool is_peers(const struct upkeep *upkeep, const char *slot) {
    char name[SLOT_NAME_MAX];
    for (unsigned i = 0; i < upkeep->peers_count; i++) {
        slot_name(name, upkeep->peers[i].name);
        if (strcmp(name, slot) == 0)
            return true;
    }
    return false;
}

static void want_slots(struct upkeeper *upkeeper, const PGresult *slots) {
    for (int row = 0; row < PQntuples(slots); row++)
        if (!is_peers(&upkeeper->upkeep, PQgetvalue(slots, row, SLOT_NAME)) &&
            PQgetvalue(slots, row, SLOT_ACTIVE)[0] != 't')
            add(upkeeper, "SELECT pg_drop_replication_slot('%s')", PQgetvalue(slots, row, SLOT_NAME));
    for (unsigned i = 0; i < upkeeper->upkeep.peers_count; i++)
        want_slot(upkeeper, slots, &upkeeper->upkeep.peers[i]);
}

/* ---- login: made anew in each tenure, as its password file may have changed ---- */

static void want_login(struct pgctl *pgctl) {
    struct upkeeper *upkeeper = &pgctl->upkeeper;
    PGconn *connection = session_connection(upkeeper->session);
    char password[PASSWORD_MAX];
    struct error error;
    if (password_read(password, pgctl->config.password_file, &error) == FAILED) {
        pgctl_notice(pgctl, "the replication login cannot be kept: %s", error.text);
        return;
    }
    const char *user = pgctl->config.replication_user;
    char *verifier = PQencryptPasswordConn(connection, password, user, "scram-sha-256");
    char *name = PQescapeIdentifier(connection, user, strlen(user));
    char *literal = PQescapeLiteral(connection, user, strlen(user));
    explicit_bzero(password, sizeof password);
    if (verifier != NULL && name != NULL && literal != NULL) {
        add(upkeeper,
            "DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) THEN CREATE ROLE %s; "
            "END IF; END$$",
            literal, name);
        add(upkeeper, "ALTER ROLE %s LOGIN REPLICATION PASSWORD '%s'", name, verifier);
        add(upkeeper, /* what pg_rewind needs of its source */
            "GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), "
            "pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO %s",
            name);
    }
    PQfreemem(verifier);
    PQfreemem(name);
    PQfreemem(literal);
    upkeeper->login_made = true;
}

/* ---- a round ---- */

static void tick(uv_timer_t *timer) { round_begin(timer->data); }

static void round_end(struct pgctl *pgctl, bool failed) {
    struct upkeeper *upkeeper = &pgctl->upkeeper;
    forget_statements(upkeeper);
    if (failed)
        upkeeper->login_made = false;
    log_shorten(pgctl->log_path, LOG_BYTES_MAX);
    uv_timer_start(&upkeeper->tick, tick, upkeeper->again ? 0 : failed ? RETRY_MS : ROUND_MS, 0);
    upkeeper->again = false;
}

static void restart_wanted(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    (void)error;
    for (int row = 0; result != NULL && row < PQntuples(result); row++)
        pgctl_notice(pgctl, "parameter %s takes effect at the next start of PostgreSQL", PQgetvalue(result, row, 0));
    if (result != NULL)
        pgctl->upkeeper.check_restart = false;
    round_end(pgctl, pgctl->upkeeper.failed);
}

/* Up to PostgreSQL 15, pg_rewind from us would find nothing to do before this. It follows the login and the slots, so
 * that what has to be quick is not held up. */
static void checkpointed(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    (void)error;
    pgctl->upkeeper.checkpointed = result != NULL;
    round_end(pgctl, result == NULL);
}

static void statements_ended(struct pgctl *pgctl) {
    struct upkeeper *upkeeper = &pgctl->upkeeper;
    if (upkeeper->check_restart)
        session_ask(upkeeper->session, "SELECT name FROM pg_settings WHERE pending_restart", STATEMENT_MS,
                    restart_wanted, pgctl);
    else if (is_primary(pgctl) && !upkeeper->checkpointed && !upkeeper->failed)
        session_ask(upkeeper->session, "CHECKPOINT", CHECKPOINT_MS, checkpointed, pgctl);
    else
        round_end(pgctl, upkeeper->failed);
}

/* The same trouble is there every second: it is told once. */
static void tell_trouble(struct pgctl *pgctl, const struct error *error) {
    struct error *told = &pgctl->upkeeper.trouble;
    pgctl->upkeeper.failed = true;
    if (strcmp(told->text, error->text) == 0)
        return;
    *told = *error;
    pgctl_notice(pgctl, "upkeep: %s", error->text);
}

static void statement_ended(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    if (result == NULL)
        tell_trouble(pgctl, error);
    pgctl->upkeeper.statement++;
    statement_next(pgctl);
}

static void statement_next(struct pgctl *pgctl) {
    struct upkeeper *upkeeper = &pgctl->upkeeper;
    if (upkeeper->statement < upkeeper->statements_count)
        session_ask(upkeeper->session, upkeeper->statements[upkeeper->statement], STATEMENT_MS, statement_ended, pgctl);
    else
        statements_ended(pgctl);
}

static void slots_read(void *user, const PGresult *result, const struct error *error) {
    struct pgctl *pgctl = user;
    (void)error; /* the server is not there any more, or not yet */
    if (result == NULL) {
        round_end(pgctl, true);
        return;
    }
    pgctl->upkeeper.failed = false;
    want_slots(&pgctl->upkeeper, result);
    if (is_primary(pgctl) && !pgctl->upkeeper.login_made)
        want_login(pgctl);
    statement_next(pgctl);
}

static void round_begin(struct pgctl *pgctl) {
    struct upkeeper *upkeeper = &pgctl->upkeeper;
    if (session_asking(upkeeper->session)) {
        upkeeper->again = true;
        return;
    }
    if (!is_primary(pgctl))
        upkeeper->login_made = upkeeper->checkpointed = false;
    if (!upkeeper->known || !pgctl->observer.answered || !pgctl_server_running(pgctl))
        return; /* poked when that changes */
    session_ask(upkeeper->session, slots_sql, STATEMENT_MS, slots_read, pgctl);
}

void upkeep_poke(struct pgctl *pgctl) {
    if (!pgctl->closing)
        uv_timer_start(&pgctl->upkeeper.tick, tick, 0, 0);
}

/* The server has gone, or is another one. */
void upkeep_server_changed(struct pgctl *pgctl) {
    session_drop(pgctl->upkeeper.session);
    forget_statements(&pgctl->upkeeper);
    uv_timer_stop(&pgctl->upkeeper.tick);
    pgctl->upkeeper.login_made = pgctl->upkeeper.checkpointed = false;
}

/* ---- hosts ---- */

status upkeep_write_hba(struct pgctl *pgctl, struct error *error) {
    bool changed = false;
    const struct upkeep *upkeep = pgctl->upkeeper.known ? &pgctl->upkeeper.upkeep : NULL;
    if (pgctl->data.state != DATA_COMPLETE || pgctl->data.copy == 0)
        return OK; /* written before the start */
    if (settings_hba(&pgctl->config, upkeep, &changed, error) == FAILED)
        return FAILED;
    return changed && pgctl_server_running(pgctl) ? guard_signal(pgctl->guard, SIGHUP, error) : OK;
}

/* Slots that only advance can wait for the next round. */
static bool same_peers(const struct upkeep *a, const struct upkeep *b) {
    if (a->peers_count != b->peers_count)
        return false;
    for (unsigned i = 0; i < a->peers_count; i++)
        if (strcmp(a->peers[i].name, b->peers[i].name) != 0 || strcmp(a->peers[i].host, b->peers[i].host) != 0)
            return false;
    return true;
}

void pgctl_upkeep(struct pgctl *pgctl, const struct upkeep *upkeep) {
    struct upkeeper *upkeeper = &pgctl->upkeeper;
    struct error error;
    bool same = upkeeper->known && same_peers(&upkeeper->upkeep, upkeep);
    upkeeper->upkeep = *upkeep;
    upkeeper->known = true;
    if (same)
        return;
    if (upkeep_write_hba(pgctl, &error) == FAILED)
        pgctl_notice(pgctl, "pg_hba.conf: %s", error.text);
    upkeep_poke(pgctl);
}

/* ---- opening ---- */

status upkeep_open(struct pgctl *pgctl, struct error *error) {
    uv_timer_init(pgctl->loop, &pgctl->upkeeper.tick);
    pgctl->upkeeper.tick.data = pgctl;
    pgctl->upkeeper.session = pgctl_session(pgctl, false);
    return pgctl->upkeeper.session != NULL ? OK : error_set(error, "out of memory");
}

void upkeep_close(struct pgctl *pgctl) {
    session_free(pgctl->upkeeper.session);
    forget_statements(&pgctl->upkeeper);
    uv_close((uv_handle_t *)&pgctl->upkeeper.tick, NULL);
}
