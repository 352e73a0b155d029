/* pgctl against real PostgreSQL: two instances on loopback, each with its own guard, driven through the operations of
 * a life: made, started, promoted, cloned, followed, killed, failed over, rewound. Run as root it becomes `postgres`,
 * as PostgreSQL does not run as root. */
#include <arpa/inet.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "base/time.h"
#include "pgctl/child.h"
#include "pgctl/datadir.h"
#include "pgctl/file.h"
#include "pgctl/pgctl.h"
#include "pgctl/settings.h"
#include "pgctl/tablespaces.h"
#include "pgctl/transactions.h"
#include "pgctl/version.h"

#define PASSWORD    "s3cret:\\word"
#define PATIENCE_MS 30000

struct host {
    char name[8];
    char data[64], state[64], socket[64];
    uint16_t port;
    uint64_t serial;
    struct pgctl *pgctl;
    struct facts facts;
    struct operation_result results[4];
    unsigned results_count;
    char notices[4096];
    char progress[256];
    bool closed;
    bool told; /* facts, since the last result */
    bool kill_when_down;
    uint32_t first_primary_timeline; /* told since it was set to 0 */
};

static char top[] = "/tmp/ttorch-pgctl.XXXXXX";
static char guard_program[64];
static char bin_directory[64]; /* of the newest PostgreSQL that is installed */
static unsigned major;
static uv_loop_t loop;
static struct host a, b;

/* ---- the harness ---- */

static void took_facts(void *user, const struct facts *facts) {
    struct host *host = user;
    struct operation end = {.kind = OPERATE_KILL, .serial = 2001};
    host->facts = *facts;
    host->told = true;
    if (facts->server == SERVER_PRIMARY && host->first_primary_timeline == 0)
        host->first_primary_timeline = facts->position.timeline;
    if (host->kill_when_down && facts->server == SERVER_DOWN) {
        host->kill_when_down = false;
        pgctl_operate(host->pgctl, &end);
    }
}

static void took_result(void *user, const struct operation_result *result) {
    struct host *host = user;
    host->results[host->results_count++] = *result;
    host->told = false;
}

static void took_progress(void *user, uint64_t serial, const char *text) {
    struct host *host = user;
    (void)serial;
    snprintf(host->progress, sizeof host->progress, "%s", text);
}

static void took_notice(void *user, const char *text) {
    struct host *host = user;
    size_t length = strlen(host->notices);
    snprintf(host->notices + length, sizeof host->notices - length, "%s\n", text);
}

static void took_close(void *user) { ((struct host *)user)->closed = true; }

static void timed_out(uv_timer_t *timer) { *(bool *)timer->data = true; }

/* Runs the loop until `holds`, or fails with `what`. */
static void until(bool (*holds)(const struct host *host), const struct host *host, const char *what) {
    bool late = false;
    uv_timer_t *timer = malloc(sizeof *timer);
    uv_timer_init(&loop, timer);
    timer->data = &late;
    uv_timer_start(timer, timed_out, PATIENCE_MS, 0);
    while (!holds(host) && !late)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)timer, (uv_close_cb)free);
    if (late)
        fail_msg("%s: %s (notices: %s)", host->name, what, host->notices);
}

static struct pgctl_config config_of(const struct host *host) {
    static char password_file[64];
    static const struct pgctl_parameter all[] = {
        {"shared_buffers", "16MB"}, {"work_mem", "5MB"}, {"restart_after_crash", "on"}, {"max_connections", "30"}};
    static const struct pgctl_parameter primary[] = {{"maintenance_work_mem", "17MB"}};
    static const struct pgctl_parameter standby[] = {{"maintenance_work_mem", "18MB"}};
    snprintf(password_file, sizeof password_file, "%s/password", top);
    return (struct pgctl_config){.member = host->name,
                                 .bin_directory = bin_directory,
                                 .data_directory = host->data,
                                 .state_directory = host->state,
                                 .guard_program = guard_program,
                                 .listen_addresses = "127.0.0.1",
                                 .port = host->port,
                                 .socket_directory = host->socket,
                                 .superuser = "admin",
                                 .replication_user = "ttorch",
                                 .password_file = password_file,
                                 .parameters_all = all,
                                 .parameters_all_count = 4,
                                 .parameters_primary = primary,
                                 .parameters_primary_count = 1,
                                 .parameters_standby = standby,
                                 .parameters_standby_count = 1,
                                 .slot_keep_bytes = 256 << 20,
                                 .diverged_keep_bytes = 64 << 20,
                                 .probe_interval_ms = 200};
}

static bool knows_guard(const struct host *host) { return host->facts.guard; }

static void host_open(struct host *host) {
    static const struct pgctl_callbacks callbacks = {took_facts, took_result, took_progress, took_notice};
    struct pgctl_config config = config_of(host);
    struct error error;
    memset(&host->facts, 0, sizeof host->facts);
    host->closed = false;
    if (pgctl_open(&host->pgctl, &loop, &config, &callbacks, host, &error) == FAILED)
        fail_msg("open: %s", error.text);
    until(knows_guard, host, "no guard");
}

static bool is_closed(const struct host *host) { return host->closed; }

static void host_close(struct host *host, bool keep) {
    pgctl_close(host->pgctl, keep, took_close, host);
    until(is_closed, host, "does not close");
    host->pgctl = NULL;
}

static void upkeep_of(struct host *host, const struct host *peer) {
    struct upkeep upkeep = {.peers_count = 1};
    snprintf(upkeep.peers[0].name, sizeof upkeep.peers[0].name, "%s", peer->name);
    snprintf(upkeep.peers[0].host, sizeof upkeep.peers[0].host, "127.0.0.1");
    pgctl_upkeep(host->pgctl, &upkeep);
}

static bool has_result(const struct host *host) { return host->results_count > 0; }
static bool is_told(const struct host *host) { return host->told; }

/* Runs an operation to its end and until facts tell what it did; prints how long it took. */
static struct operation_result run(struct host *host, struct operation operation) {
    nsec begun = time_now();
    operation.serial = ++host->serial;
    host->results_count = 0;
    pgctl_operate(host->pgctl, &operation);
    assert_int_equal(host->results_count, 0); /* never from inside the call */
    until(has_result, host, operation_kind_name(operation.kind));
    print_message("# %s: %s %.1f ms%s%s\n", host->name, operation_kind_name(operation.kind),
                  (double)(time_now() - begun) / 1e6, host->results[0].error.text[0] != '\0' ? ": " : "",
                  host->results[0].error.text);
    until(is_told, host, "tells nothing after it");
    assert_int_equal(host->results[0].serial, operation.serial);
    assert_int_equal(host->results[0].kind, operation.kind);
    return host->results[0];
}

static struct operation_result must(struct host *host, struct operation operation) {
    struct operation_result result = run(host, operation);
    if (result.outcome != OUTCOME_DONE)
        fail_msg("%s: %s (outcome %d)", host->name, result.error.text, result.outcome);
    return result;
}

static void must_refuse(struct host *host, struct operation operation, const char *why) {
    struct operation_result result = run(host, operation);
    assert_int_equal(result.outcome, OUTCOME_REFUSED);
    if (strstr(result.error.text, why) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", result.error.text, why);
}

static struct operation simple(enum operation_kind kind) { return (struct operation){.kind = kind}; }

static struct operation from(enum operation_kind kind, const struct host *upstream, uint32_t copy) {
    struct operation operation = {.kind = kind, .copy = copy};
    snprintf(operation.upstream.name, sizeof operation.upstream.name, "%s", upstream->name);
    snprintf(operation.upstream.host, sizeof operation.upstream.host, "127.0.0.1");
    operation.upstream.port = upstream->port;
    return operation;
}

static struct operation follow(const struct host *upstream, const char *name, uint32_t epoch) {
    struct operation operation = from(OPERATE_FOLLOW, upstream, 0);
    operation.epoch = epoch;
    snprintf(operation.application_name, sizeof operation.application_name, "%s", name);
    return operation;
}

static struct operation rule(enum operation_kind kind, unsigned needed, const char *name) {
    struct operation operation = {.kind = kind};
    operation.rule.needed = needed;
    operation.rule.names_count = name != NULL;
    if (name != NULL)
        snprintf(operation.rule.names[0], sizeof operation.rule.names[0], "%s", name);
    return operation;
}

static struct operation promote(Position base, uint32_t timeline, uint32_t epoch, unsigned needed, const char *name) {
    struct operation operation = rule(OPERATE_PROMOTE, needed, name);
    operation.base = base;
    operation.timeline = timeline;
    operation.epoch = epoch;
    return operation;
}

static struct operation cut(uint32_t epoch) { return (struct operation){.kind = OPERATE_CUT, .epoch = epoch}; }

/* One question, asked as a client would; the test may block. */
static char *sql(const struct host *host, const char *question) {
    static char answer[1024];
    char conninfo[256];
    snprintf(conninfo, sizeof conninfo, "host=%s port=%u user=admin dbname=postgres", host->socket, host->port);
    PGconn *connection = PQconnectdb(conninfo);
    PGresult *result = PQexec(connection, question);
    if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
        fail_msg("%s: %s%s", question, PQerrorMessage(connection), PQresultErrorMessage(result));
    snprintf(answer, sizeof answer, "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    PQfinish(connection);
    return answer;
}

static bool is_standby(const struct host *host) {
    return host->facts.server == SERVER_STANDBY && host->facts.position.timeline != 0;
}
static bool is_streaming(const struct host *host) { return is_standby(host) && host->facts.streaming; }
static bool is_durable(const struct host *host) {
    return host->facts.server == SERVER_PRIMARY && host->facts.durable_seen;
}
static bool is_down(const struct host *host) { return host->facts.server == SERVER_DOWN; }
static bool is_hung(const struct host *host) { return host->facts.server == SERVER_HUNG; }
static bool is_primary(const struct host *host) { return host->facts.server == SERVER_PRIMARY; }
static bool sends(const struct host *host) {
    return host->facts.senders_count == 1 && strcmp(host->facts.senders[0].state, "streaming") == 0;
}

static bool keeps_slot_of(const struct host *host, const struct host *peer) {
    char question[200];
    snprintf(question, sizeof question, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ttorch_%s'",
             peer->name);
    return strcmp(sql(host, question), "1") == 0;
}

static bool keeps_slot(const struct host *host) {
    uv_run(&loop, UV_RUN_NOWAIT);
    return keeps_slot_of(host, host == &a ? &b : &a);
}
static bool has_login(const struct host *host) {
    return strcmp(sql(host, "SELECT count(*) FROM pg_authid WHERE rolname = 'ttorch' AND rolreplication "
                            "AND rolpassword LIKE 'SCRAM-SHA-256$%'"),
                  "1") == 0;
}

/* ---- without a server ---- */

/* As pg_waldump 15 prints them. */
static void transactions_are_listed(void **state) {
    (void)state;
    static const char *const lines[] = {
        "rmgr: Heap        len (rec/tot):     59/    59, tx:        726, lsn: 0/01528778, prev 0/01528750, desc: "
        "INSERT off 4 flags 0x00, blkref #0: rel 1663/5/16384 blk 0",
        "rmgr: Standby     len (rec/tot):     50/    50, tx:          0, lsn: 0/01528780, prev 0/01528778, desc: "
        "RUNNING_XACTS nextXid 727 latestCompletedXid 725 oldestRunningXid 726",
        "rmgr: Heap        len (rec/tot):     59/    59, tx:        727, lsn: 0/015287B8, prev 0/01528778, desc: "
        "INSERT off 5 flags 0x00, blkref #0: rel 1663/5/16384 blk 0",
        "rmgr: Heap        len (rec/tot):     59/    59, tx:        727, lsn: 0/015287C0, prev 0/01528778, desc: "
        "INSERT off 5 flags 0x00, blkref #0: rel 1663/5/1247 blk 0",
        "rmgr: LogicalMessage len (rec/tot):     57/    57, tx:        725, lsn: 0/015287D0, prev 0/01528578, desc: "
        "MESSAGE transactional, prefix \"ttorch\"; payload (0 bytes): ",
        "rmgr: Transaction len (rec/tot):     34/    34, tx:        725, lsn: 0/015287E0, prev 0/01528710, desc: "
        "COMMIT 2026-11-23 21:48:13.494287 UTC",
        "rmgr: Transaction len (rec/tot):     46/    46, tx:        726, lsn: 0/015287F8, prev 0/015287B8, desc: "
        "COMMIT 2026-11-23 21:48:13.507524 UTC; subxacts: 727",
        "rmgr: Transaction len (rec/tot):     46/    46, tx:        726, lsn: 0/015287F8, prev 0/015287B8, desc: "
        "COMMIT 2026-11-23 21:48:13.507524 UTC; subxacts: 727", /* again, of a later timeline's first segment */
        "rmgr: Transaction len (rec/tot):     46/    46, tx:        730, lsn: 0/01528830, prev 0/015287B8, desc: "
        "COMMIT_PREPARED 729: 2026-11-23 21:48:14.5 UTC",
        "rmgr: Heap        len (rec/tot):     59/    59, tx:        731, lsn: 0/01528900, prev 0/01528830, desc: "
        "DELETE off 4 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/16384 blk 0",
        "rmgr: Transaction len (rec/tot):     34/    34, tx:        731, lsn: 0/01528940, prev 0/01528900, desc: "
        "ABORT 2026-11-23 21:48:15 UTC",
        "pg_waldump: error: error in WAL record at 0/1528940: invalid record length at 0/1528968: wanted 24, got 0",
    };
    struct transactions *transactions = transactions_new();
    struct transactions_sum sum;
    for (unsigned i = 0; i < sizeof lines / sizeof *lines; i++)
        transactions_take(transactions, lines[i]);
    transactions_sum(transactions, &sum);
    assert_string_equal(transactions_text(transactions),
                        "726  2026-11-23 21:48:13.507524 UTC  0/15287F8  3 records, 177 bytes: 1663/5/16384 (2) system "
                        "catalogs (1)\n"
                        "729  2026-11-23 21:48:14.5 UTC  0/1528830  0 records, 0 bytes:\n");
    assert_int_equal(sum.commits, 2);
    assert_int_equal(sum.probes, 1);
    assert_int_equal(sum.unfinished, 1);
    assert_int_equal(sum.records, 10);
    assert_int_equal(sum.end, 0x1528968);
    transactions_free(transactions);
}

static void versions_are_known_by_name(void **state) {
    (void)state;
    unsigned number;
    struct error error;
    assert_int_equal(version_parse(&number, "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", &error), OK);
    assert_int_equal(number, 150020);
    assert_int_equal(version_parse(&number, "postgres (PostgreSQL) 18beta1\n", &error), OK);
    assert_int_equal(number, 180000);
    assert_int_equal(version_parse(&number, "postgres (PostgreSQL) 13.9\n", &error), FAILED);
    assert_non_null(strstr(error.text, "13.9 is not supported"));
    assert_int_equal(version_parse(&number, "postgres (PostgreSQL) 19devel\n", &error), FAILED);
    assert_int_equal(version_parse(&number, "mysqld  Ver 8\n", &error), FAILED);
}

static void a_rule_is_quoted(void **state) {
    (void)state;
    char names[256];
    struct rule_setting setting = {.needed = 1, .names_count = 2, .names = {"m1_1_2", "m-2_3_2"}};
    settings_rule(names, sizeof names, &setting);
    assert_string_equal(names, "ANY 1 (\"m1_1_2\", \"m-2_3_2\")");
    setting.needed = 0;
    settings_rule(names, sizeof names, &setting);
    assert_string_equal(names, "");
}

static void settings_are_read_back(void **state) {
    (void)state;
    char path[128];
    struct settings written, read;
    struct error error;
    struct pgctl_config config = config_of(&a);
    struct upstream upstream = {.name = "x", .host = "it's\\here", .port = 5432};
    snprintf(path, sizeof path, "%s/settings", top);
    assert_false(settings_read(&read, path));
    assert_string_equal(read.synchronous_standby_names, NOBODY);
    settings_follow(&written, &config, "/pass file", &upstream, "a_1_2");
    written.primary = true;
    assert_int_equal(settings_write(&written, &(struct minimums){{0}}, path, &config, &error), OK);
    assert_true(settings_read(&read, path));
    assert_true(read.primary);
    assert_string_equal(read.primary_conninfo, written.primary_conninfo);
    assert_string_equal(read.primary_slot_name, "ttorch_a");
    assert_string_equal(read.synchronous_standby_names, NOBODY);
    char *text = file_read(path);
    assert_null(strstr(text, PASSWORD));
    assert_null(strstr(text, "restart_after_crash = 'on'")); /* the user's; ours wins */
    assert_non_null(strstr(text, "work_mem = '5MB'"));
    free(text);
    unlink(path);
}

static void marked_text_goes_the_rest_stays(void **state) {
    (void)state;
    char *kept = text_without("one\n# b\ntwo\n# e\nthree # mark\nfour", "# b", "# e", "# mark");
    assert_string_equal(kept, "one\nfour");
    free(kept);
}

static void settings_that_override_ours_leave_auto_conf(void **state) {
    (void)state;
    char path[128];
    struct error error;
    snprintf(path, sizeof path, "%s/postgresql.auto.conf", top);
    assert_int_equal(file_write(path, 0600,
                                "# Do not edit\nwork_mem = '1MB'\nprimary_conninfo = 'host=x'\n"
                                "recovery_target_lsn = '0/1'\nsynchronous_standby_names=''\n",
                                &error),
                     OK);
    assert_int_equal(settings_clean_auto(top, &error), OK);
    char *text = file_read(path);
    assert_string_equal(text, "# Do not edit\nwork_mem = '1MB'\n");
    free(text);
    unlink(path);
}

static void trailing_placeholders_go(void **state) {
    (void)state;
    char path[128];
    struct error error;
    unsigned count;
    snprintf(path, sizeof path, "%s/pg_wal", top);
    mkdir(path, 0700);
    assert_int_equal(placeholders_write(top, 1, 4, &error), OK); /* 2, 3 */
    snprintf(path, sizeof path, "%s/pg_wal/00000004.history", top);
    assert_int_equal(file_write(path, 0600, "1\t0/3000000\tno recovery target specified\n", &error), OK);
    assert_int_equal(placeholders_write(top, 4, 7, &error), OK); /* 5, 6 */
    assert_int_equal(placeholders_remove_trailing(top, &error), OK);
    assert_true(file_exists(path));
    snprintf(path, sizeof path, "%s/pg_wal/00000003.history", top);
    assert_true(file_exists(path));
    snprintf(path, sizeof path, "%s/pg_wal/00000005.history", top);
    assert_false(file_exists(path));
    assert_int_equal(histories_set_aside(top, 3, &count, &error), OK);
    assert_int_equal(count, 1);
    assert_int_equal(histories_set_aside(top, 3, &count, &error), OK);
    assert_int_equal(count, 0);
}

static void a_log_keeps_its_newest_half(void **state) {
    (void)state;
    enum { LINE = 64, MOST = 256 * 1024 };
    char path[128], line[LINE + 1];
    struct stat before, after;
    snprintf(path, sizeof path, "%s/postgresql.log", top);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), number = 0;
    assert_true(log >= 0);
    for (; number < MOST / LINE; number++) {
        snprintf(line, sizeof line, "%*d\n", LINE - 1, number);
        assert_int_equal(write(log, line, LINE), LINE);
    }
    log_shorten(path, 2 * MOST); /* it is short enough */
    assert_int_equal(fstat(log, &before), 0);
    assert_int_equal(before.st_size, MOST);
    log_shorten(path, MOST / 2);
    assert_int_equal(fstat(log, &after), 0);
    assert_true(after.st_blocks < before.st_blocks);
    assert_int_equal(write(log, "the newest\n", 11), 11); /* by somebody who has it open */
    close(log);
    char *text = file_read(path);
    assert_non_null(text);
    size_t length = (size_t)after.st_size + 11;
    assert_memory_equal(text + length - 11, "the newest\n", 11);
    assert_int_equal(atoi(text + length - 11 - LINE), number - 1);
    free(text);
}

static void strangers_are_refused(void **state) {
    (void)state;
    char path[128];
    struct error error;
    struct datadir look;
    const struct version *version = version_find(15);
    snprintf(path, sizeof path, "%s/stranger", top);
    datadir_look(&look, path, "/nonexistent", version);
    assert_int_equal(look.state, DATA_EMPTY);
    mkdir(path, 0700);
    datadir_look(&look, path, "/nonexistent", version);
    assert_int_equal(look.state, DATA_EMPTY);
    snprintf(path, sizeof path, "%s/stranger/PG_VERSION", top);
    assert_int_equal(file_write(path, 0600, "13\n", &error), OK);
    snprintf(path, sizeof path, "%s/stranger", top);
    datadir_look(&look, path, "/nonexistent", version);
    assert_int_equal(look.state, DATA_REFUSED);
    assert_non_null(strstr(look.refused, "PostgreSQL 13"));
}

/* ---- our own files ---- */

static void flip(const char *path, long at) {
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    fseek(file, at, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, at, SEEK_SET);
    fputc(byte ^ 1, file);
    fclose(file);
}

/* Any bit of it, and any cut: a pledge that cannot be trusted is not believed. */
static void a_damaged_pledge_is_noticed(void **state) {
    (void)state;
    char path[128];
    struct error error;
    uint32_t epoch = 9;
    snprintf(path, sizeof path, "%s/pledge", top);
    assert_int_equal(pledge_read(&epoch, path, &error), OK);
    assert_int_equal(epoch, 0);
    assert_int_equal(pledge_write(path, 41, &error), OK);
    assert_int_equal(pledge_read(&epoch, path, &error), OK);
    assert_int_equal(epoch, 41);
    struct stat at;
    assert_int_equal(stat(path, &at), 0);
    for (long byte = 0; byte < at.st_size; byte++) {
        flip(path, byte);
        assert_int_equal(pledge_read(&epoch, path, &error), FAILED);
        assert_non_null(strstr(error.text, path));
        flip(path, byte);
    }
    for (off_t length = at.st_size - 1; length >= 0; length--) {
        assert_int_equal(truncate(path, length), 0);
        assert_int_equal(pledge_read(&epoch, path, &error), FAILED);
    }
    assert_int_equal(epoch, 41);
    unlink(path);
}

/* A directory of PostgreSQL 15 as far as datadir.c looks. */
static void make_directory_of_15(const char *directory) {
    char path[192];
    struct error error;
    uint32_t control[16] = {[0] = 7, [2] = version_find(15)->control_version, [4] = CONTROL_SHUT_DOWN_IN_RECOVERY};
    mkdir(directory, 0700);
    snprintf(path, sizeof path, "%s/PG_VERSION", directory);
    assert_int_equal(file_write(path, 0600, "15\n", &error), OK);
    snprintf(path, sizeof path, "%s/global", directory);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/global/pg_control", directory);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(control, sizeof control, 1, file), 1);
    fclose(file);
}

/* Neither its number is believed, nor that no rewind was under way; an empty directory has nothing to be mistaken. */
static void a_damaged_label_is_noticed(void **state) {
    (void)state;
    char path[128], label[128], away[128];
    struct error error;
    struct datadir look;
    const struct version *version = version_find(15);
    snprintf(path, sizeof path, "%s/labelled", top);
    snprintf(label, sizeof label, "%s/label", top);
    snprintf(away, sizeof away, "%s/away", top);
    make_directory_of_15(path);
    assert_int_equal(label_write(label, path, 12, LABEL_REWINDING, &error), OK);
    datadir_look(&look, path, label, version);
    assert_int_equal(look.state, DATA_BROKEN);
    assert_int_equal(look.copy, 12);
    struct stat at;
    assert_int_equal(stat(label, &at), 0);
    for (long byte = 0; byte < at.st_size; byte++) {
        flip(label, byte);
        datadir_look(&look, path, label, version);
        assert_int_equal(look.state, DATA_REFUSED);
        assert_true(look.label_damaged);
        assert_int_equal(look.copy, 0);
        assert_non_null(strstr(look.refused, label));
        flip(label, byte);
    }
    assert_int_equal(truncate(label, 0), 0);
    assert_int_equal(datadir_finish_swap(path, away, label, &error), OK);
    datadir_look(&look, path, label, version);
    assert_true(look.label_damaged);
    assert_int_equal(rename(path, away), 0);
    mkdir(path, 0700);
    datadir_look(&look, path, label, version);
    assert_int_equal(look.state, DATA_EMPTY);
    assert_false(look.label_damaged);
    unlink(label);
}

/* ---- tablespaces ---- */

static void tablespaces_of_a_clone_are_mapped(void **state) {
    (void)state;
    static const struct {
        const char *listing, *options[3];
    } rows[] = {
        {"locations\n", {NULL}},
        {"locations\n/srv/ts\n", {"--tablespace-mapping=/srv/ts=/srv/ts/ttorch-m2-7"}},
        {"locations\n/a\n/b/ttorch-m1-3\n",
         {"--tablespace-mapping=/a=/a/ttorch-m2-7", "--tablespace-mapping=/b/ttorch-m1-3=/b/ttorch-m2-7"}},
        {"locations\n/a=b\n", {"--tablespace-mapping=/a\\=b=/a\\=b/ttorch-m2-7"}},
        {"locations\n/ttorch-m1\n", {"--tablespace-mapping=/ttorch-m1=/ttorch-m1/ttorch-m2-7"}},
    };
    struct paths options;
    struct error error;
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(tablespaces_map(&options, rows[i].listing, "m2", 7, &error), OK);
        for (unsigned k = 0; k < options.count; k++)
            assert_string_equal(options.list[k], rows[i].options[k]);
        assert_null(rows[i].options[options.count]);
        paths_free(&options);
    }
    assert_int_equal(tablespaces_map(&options, "/cut/off\n", "m2", 7, &error), FAILED);
    assert_int_equal(tablespaces_map(&options, "locations\nrelative\n", "m2", 7, &error), FAILED);
}

static void make_directories(const char *const *names) {
    char path[256];
    for (; *names != NULL; names++) {
        snprintf(path, sizeof path, "%s/%s", top, *names);
        assert_int_equal(mkdir(path, 0700), 0);
    }
}

static void link_tablespace(const char *data_directory, const char *target) {
    char link[256], path[256];
    snprintf(link, sizeof link, "%s/%s/pg_tblspc/16400", top, data_directory);
    snprintf(path, sizeof path, "%s/%s", top, target);
    unlink(link);
    assert_int_equal(symlink(path, link), 0);
}

/* What a data directory and the one after it link to, and what of it goes. */
static void tablespaces_go_with_their_data_directory(void **state) {
    (void)state;
    static const char *const directories[] = {"old",
                                              "old/pg_tblspc",
                                              "new",
                                              "new/pg_tblspc",
                                              "ts",
                                              "ts/PG_15_2022",
                                              "ts/PG_16_2023",
                                              "ts/ttorch-m2-6",
                                              "ts/ttorch-m2-7",
                                              "ts/ttorch-m22-5",
                                              "ts/ttorch-m2-x",
                                              "ts/others",
                                              NULL};
    static const struct {
        const char *old, *new, *gone[4];
    } rows[] = {
        {"ts", "ts/ttorch-m2-7", {"ts/PG_15_2022", "ts/ttorch-m2-6"}},
        {"ts/ttorch-m2-6", "ts/ttorch-m2-7", {"ts/ttorch-m2-6"}},
        {"ts/ttorch-m2-7", "ts/ttorch-m2-7", {NULL}}, /* not while somebody uses it */
        {"ts", "ts", {NULL}},
        {"ts/ttorch-m22-5", "ts/ttorch-m2-7", {"ts/ttorch-m2-6"}}, /* another member's */
    };
    char old[256], new[256], path[256];
    make_directories(directories);
    snprintf(old, sizeof old, "%s/old", top);
    snprintf(new, sizeof new, "%s/new", top);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct paths gone = {0};
        unsigned wanted = 0;
        link_tablespace("old", rows[i].old);
        link_tablespace("new", rows[i].new);
        tablespaces_of_leftover(&gone, old, new, "m2", 15);
        for (; rows[i].gone[wanted] != NULL; wanted++) {
            bool found = false;
            snprintf(path, sizeof path, "%s/%s", top, rows[i].gone[wanted]);
            for (unsigned k = 0; k < gone.count; k++)
                found |= strcmp(gone.list[k], path) == 0;
            assert_true(found);
        }
        assert_int_equal(gone.count, wanted);
        paths_free(&gone);
    }
    link_tablespace("new", "ts");
    assert_true(tablespaces_overlap(new, path));
    link_tablespace("new", "ts/ttorch-m2-7");
    assert_true(tablespaces_overlap(new, path)); /* below the one of somebody else */
    link_tablespace("new", "ts/others");
    assert_false(tablespaces_overlap(new, path));
}

/* ---- a life; each builds on the one before ---- */

static Position base;
static bool unfinished; /* a part of the life failed: what follows could tell nothing */

struct part {
    void (*run)(void);
};

static void run_part(void **state) {
    const struct part *part = *state;
    assert_false(unfinished);
    unfinished = true;
    part->run();
    unfinished = false;
}

#define LIFE(function)                                               \
    {                                                                \
#function, run_part, NULL, NULL, &(struct part) { function } \
    }

static void ignore_tick(uv_timer_t *timer) { (void)timer; }

static bool is_being_made(const struct host *host) {
    char made[128], fresh[128];
    snprintf(made, sizeof made, "%s/base", host->data);
    snprintf(fresh, sizeof fresh, "%s.new/base", host->data);
    return file_exists(made) || file_exists(fresh) || host->results_count > 0;
}

/* The daemon dies while initdb runs: what that leaves is never taken for a data directory. */
static void half_made_is_not_made(void) {
    uv_timer_t tick;
    struct operation initdb = {.kind = OPERATE_INITDB, .serial = 3000, .copy = 1};
    host_open(&a);
    a.results_count = 0;
    pgctl_operate(a.pgctl, &initdb);
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, ignore_tick, 1, 1); /* a file's appearance is no event */
    until(is_being_made, &a, "does not begin");
    uv_close((uv_handle_t *)&tick, NULL);
    assert_int_equal(a.results_count, 0);
    host_close(&a, true);
    host_open(&a);
    assert_int_equal(a.facts.data, DATA_EMPTY);
    host_close(&a, false);
}

static void made_and_started_as_a_standby(void) {
    host_open(&a);
    assert_int_equal(a.facts.server, SERVER_DOWN);
    assert_int_equal(a.facts.data, DATA_EMPTY);
    assert_non_null(strstr(a.notices, "restart_after_crash"));
    upkeep_of(&a, &b);
    must_refuse(&a, simple(OPERATE_START), "empty");
    struct operation initdb = {.kind = OPERATE_INITDB, .copy = 1};
    must(&a, initdb);
    must_refuse(&a, initdb, "not empty");
    must(&a, simple(OPERATE_START));
    until(is_standby, &a, "is no standby");
    assert_int_equal(a.facts.copy, 1);
    assert_int_equal(a.facts.data, DATA_COMPLETE);
    assert_true(a.facts.standby_signal);
    assert_true(a.facts.system_identifier != 0);
    assert_int_equal(a.facts.server_version / 10000, major);
    assert_string_equal(sql(&a, "SHOW synchronous_standby_names"), NOBODY);
    assert_string_equal(sql(&a, "SHOW maintenance_work_mem"), "18MB");
    base = must(&a, cut(0)).position;
    assert_int_equal(base.timeline, 1);
    assert_int_equal(base.lsn, a.facts.position.lsn);
}

static void renew(uv_timer_t *timer) { (void)pgctl_arm(timer->data, 1, time_now() + msec(PATIENCE_MS)); }

/* Each renewal is news of the guard, and makes that facts are told: what they say fits together at any moment. */
static void promoted_through_placeholders(void) {
    Position wrong = {.timeline = base.timeline, .lsn = base.lsn - 8};
    uv_timer_t renewals = {.data = a.pgctl};
    must_refuse(&a, promote(wrong, 5, 1, 0, NULL), "not at the base");
    uv_timer_init(&loop, &renewals);
    uv_timer_start(&renewals, renew, 0, 1);
    must(&a, promote(base, 5, 1, 0, NULL));
    uv_close((uv_handle_t *)&renewals, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_true(pgctl_arm(a.pgctl, 1, NSEC_NEVER));
    assert_int_equal(a.first_primary_timeline, 5);
    until(is_durable, &a, "no durable write");
    assert_int_equal(a.facts.position.timeline, 5);
    assert_true(a.facts.standby_signal);
    assert_string_equal(sql(&a, "SHOW synchronous_standby_names"), "");
    assert_string_equal(sql(&a, "SHOW maintenance_work_mem"), "17MB");
    until(has_login, &a, "no login");
    until(keeps_slot, &a, "no slot");
    sql(&a, "CREATE TABLE ledger (number int)");
    sql(&a, "INSERT INTO ledger SELECT generate_series(1, 1000)");
}

static void cloned_and_following(void) {
    host_open(&b);
    upkeep_of(&b, &a);
    must(&b, from(OPERATE_CLONE, &a, 7));
    assert_int_equal(b.facts.data, DATA_COMPLETE);
    must(&b, simple(OPERATE_START));
    until(is_standby, &b, "is no standby");
    assert_int_equal(b.facts.copy, 7);
    assert_int_equal(b.facts.system_identifier, a.facts.system_identifier);
    must(&b, follow(&a, "b_7_1", 1));
    nsec begun = time_now();
    until(is_streaming, &b, "does not stream");
    print_message("# b streams %.1f ms after follow\n", (double)(time_now() - begun) / 1e6);
    until(sends, &a, "has no sender");
    assert_string_equal(b.facts.upstream_name, "b_7_1");
    assert_string_equal(a.facts.senders[0].name, "b_7_1");
    assert_int_equal(b.facts.position.timeline, 5);
    until(keeps_slot, &b, "no slot on the standby");
}

static void ruled_from_empty_and_on(void) {
    struct operation_result result = must(&a, rule(OPERATE_RULE, 1, "b_7_1"));
    assert_true(result.lsn > base.lsn);
    assert_string_equal(sql(&a, "SHOW synchronous_standby_names"), "ANY 1 (\"b_7_1\")");
    /* There is new WAL, which the standby answers: else commits that wait already would go on waiting. */
    uint64_t before = strtoull(sql(&a, "SELECT (pg_current_wal_insert_lsn() - '0/0')::text"), NULL, 10);
    assert_true(must(&a, rule(OPERATE_RULE, 1, "b_7_1")).lsn > before);
    must_refuse(&b, rule(OPERATE_RULE, 1, "b_7_1"), "not a primary");
    must_refuse(&a, rule(OPERATE_RULE, 1, NULL), "more acknowledgements");
    sql(&a, "INSERT INTO ledger VALUES (1001)");
    must(&a, simple(OPERATE_CHECKPOINT));
}

static void a_restarted_daemon_disturbs_nothing(void) {
    char pid[32];
    snprintf(pid, sizeof pid, "%s", sql(&a, "SELECT pg_postmaster_start_time()::text"));
    host_close(&a, true);
    host_open(&a);
    upkeep_of(&a, &b);
    until(is_durable, &a, "is no primary any more");
    assert_string_equal(sql(&a, "SELECT pg_postmaster_start_time()::text"), pid);
    until(sends, &a, "has no sender");
    assert_string_equal(sql(&a, "SHOW synchronous_standby_names"), "ANY 1 (\"b_7_1\")");
    assert_string_equal(sql(&a, "SHOW maintenance_work_mem"), "17MB");
}

static void failed_over(void) {
    base = must(&b, cut(1)).position;
    assert_int_equal(base.timeline, 5);
    must(&a, rule(OPERATE_RULE, 0, NULL)); /* it writes on alone: its history diverges */
    sql(&a, "INSERT INTO ledger SELECT generate_series(2000, 3000)");
    must(&a, simple(OPERATE_KILL));
    until(is_down, &a, "is not down");
    must(&b, cut(1));
    assert_string_equal(sql(&b, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'"), "0");
    assert_true(b.results[0].lsn > 0 && b.results[0].lsn <= base.lsn && b.results[0].lsn % (1 << 20) == 0);
    must_refuse(&b, follow(&a, "b_7_1", 1), "pledged");
    must_refuse(&b, promote(base, 8, 1, 1, "a_1_2"), "pledged");
    must(&b, promote(base, 8, 2, 1, "a_1_2"));
    until(is_durable, &b, "no durable write");
    assert_int_equal(b.facts.position.timeline, 8);
    assert_int_equal(b.facts.pledged_epoch, 1);
    assert_string_equal(sql(&b, "SHOW synchronous_standby_names"), "ANY 1 (\"a_1_2\")");
    assert_string_equal(sql(&b, "SELECT count(*) FROM ledger"), "1001");
}

/* What was kept of `host` names the ledger, and lists as many commits as were told. */
static void must_list(const struct host *host, const struct diverged_wal *diverged, const char *timeline) {
    char path[256], file[64];
    unsigned commits = 0;
    assert_non_null(strstr(diverged->path, "/diverged/"));
    snprintf(path, sizeof path, "%s/transactions.txt", diverged->path);
    char *text = file_read(path);
    assert_non_null(text);
    assert_non_null(strstr(text, timeline));
    assert_non_null(strstr(text, "pg_waldump --path=/"));
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        commits += *line != '#';
    assert_int_equal(commits, diverged->commits);
    if (commits > 0) {
        snprintf(file, sizeof file, "/%s (", sql(host, "SELECT pg_relation_filenode('ledger')"));
        assert_non_null(strstr(text, file));
    }
    free(text);
}

#define PG_REWIND_BEGINS_WITH "FUNCTION pg_read_binary_file(text)"

/* It fails before it has touched anything: what is there counts as before. */
static void a_rewind_that_has_not_begun(struct operation rewind) {
    sql(&b, "SET synchronous_commit = local; REVOKE EXECUTE ON " PG_REWIND_BEGINS_WITH " FROM ttorch");
    struct operation_result result = run(&a, rewind);
    assert_int_equal(result.outcome, OUTCOME_FAILED);
    if (strstr(result.error.text, "rewind: pg_rewind: ") == NULL)
        fail_msg("%s", result.error.text);
    assert_int_equal(a.facts.data, DATA_COMPLETE);
    sql(&b, "SET synchronous_commit = local; GRANT EXECUTE ON " PG_REWIND_BEGINS_WITH " TO ttorch");
}

static void the_old_primary_is_rewound(void) {
    char path[128];
    must(&a, simple(OPERATE_START));
    until(is_standby, &a, "is no standby");
    assert_int_equal(a.facts.position.timeline, 5);
    assert_true(a.facts.position.lsn > base.lsn); /* it diverged */
    must_refuse(&a, from(OPERATE_REWIND, &b, 0), "runs");
    must(&a, simple(OPERATE_STOP));
    struct operation rewind = from(OPERATE_REWIND, &b, 0);
    rewind.base = base; /* as the record knows it */
    a_rewind_that_has_not_begun(rewind);
    struct diverged_wal diverged = must(&a, rewind).diverged;
    snprintf(path, sizeof path, "%s/diverged/", a.state);
    assert_int_equal(strncmp(diverged.path, path, strlen(path)), 0);
    assert_true(diverged.bytes > 1000 * 59 && diverged.bytes < 1 << 20);
    assert_in_range(diverged.commits, 1, 3); /* autovacuum may have come by */
    must_list(&b, &diverged, " on timeline 5\n");
    until(is_streaming, &a, "does not stream");
    assert_string_equal(a.facts.upstream_name, "ttorch_rewind");
    must(&a, cut(1));
    must(&a, follow(&b, "a_1_2", 2));
    until(is_streaming, &a, "does not stream");
    assert_int_equal(a.facts.copy, 1);
    until(sends, &b, "has no sender");
    sql(&b, "INSERT INTO ledger VALUES (4000)"); /* acknowledged by `a`, else it would hang */
}

static void a_standby_restarts_with_placeholders(void) {
    struct error error;
    must(&a, simple(OPERATE_STOP));
    assert_int_equal(placeholders_write(a.data, 8, 12, &error), OK);
    must(&a, simple(OPERATE_START));
    until(is_standby, &a, "is no standby");
    assert_int_equal(a.facts.position.timeline, 8);
    must(&a, follow(&b, "a_1_2", 2));
    until(is_streaming, &a, "does not stream");
}

static void old_diverged(const struct host *host, const char *name, long size) {
    char path[256];
    snprintf(path, sizeof path, "%s/diverged", host->state);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/diverged/%s", host->state, name);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/diverged/%s/wal", host->state, name);
    FILE *file = fopen(path, "we");
    assert_int_equal(ftruncate(fileno(file), size), 0);
    fclose(file);
}

static bool has_diverged(const struct host *host, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/diverged/%s", host->state, name);
    return file_exists(path);
}

/* A crashed primary that has not been started since: pg_rewind needs it recovered. */
static void a_crashed_primary_is_rewound(void) {
    must(&b, rule(OPERATE_RULE, 0, NULL));
    base = must(&a, cut(2)).position;
    sql(&b, "INSERT INTO ledger VALUES (5000)");
    must(&b, simple(OPERATE_KILL));
    must(&a, promote(base, 9, 3, 0, NULL));
    until(is_durable, &a, "no durable write");
    old_diverged(&b, "1000000000-A", 63 << 20);
    old_diverged(&b, "1000000001-B", 1);
    struct diverged_wal diverged = must(&b, from(OPERATE_REWIND, &a, 0)).diverged;
    must_list(&a, &diverged, " on timeline 8\n");
    assert_false(has_diverged(&b, "1000000000-A")); /* with the new one more than diverged_keep */
    assert_true(has_diverged(&b, "1000000001-B"));
    assert_int_equal(b.facts.data, DATA_COMPLETE);
    must(&b, follow(&a, "b_7_3", 3));
    until(is_streaming, &b, "does not stream");
    assert_string_equal(sql(&b, "SELECT count(*) FROM ledger WHERE number = 5000"), "0");
    must(&a, rule(OPERATE_RULE, 1, "b_7_3"));
}

/* A real history file of an epoch that never came to be, and settings that others left. */
static void a_void_timeline_is_forgotten(void) {
    char path[128], line[128], text[LSN_TEXT_MAX];
    struct error error;
    sql(&b, "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'");
    sql(&b, "SELECT pg_wal_replay_pause()");
    base = must(&b, cut(3)).position;
    assert_int_equal(base.timeline, 9);
    snprintf(path, sizeof path, "%s/pg_wal/0000000B.history", b.data);
    snprintf(line, sizeof line, "9\t%s\tvoid\n", lsn_text(base.lsn + 0x1000, text));
    assert_int_equal(file_write(path, 0600, line, &error), OK);
    must(&a, simple(OPERATE_STOP));
    must(&b, promote(base, 12, 4, 0, NULL));
    until(is_durable, &b, "no durable write");
    assert_int_equal(b.facts.position.timeline, 12);
    char *history = file_read(path); /* a placeholder now */
    assert_string_equal(history, "");
    free(history);
}

static void kill_cancels(void) {
    struct operation clone = from(OPERATE_CLONE, &b, 2), end = simple(OPERATE_KILL);
    clone.serial = 1000;
    end.serial = 1001;
    a.results_count = 0;
    pgctl_operate(a.pgctl, &clone);
    uv_run(&loop, UV_RUN_ONCE);
    pgctl_operate(a.pgctl, &end);
    while (a.results_count < 2)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(a.results[0].serial, 1000);
    assert_int_equal(a.results[0].outcome, OUTCOME_CANCELLED);
    assert_int_equal(a.results[1].serial, 1001);
    assert_int_equal(a.results[1].outcome, OUTCOME_DONE);
    assert_int_equal(a.facts.data, DATA_COMPLETE);
    clone.base = base;                                       /* where `a`, the primary before, left b's history */
    struct diverged_wal diverged = must(&a, clone).diverged; /* over the old one */
    assert_true(diverged.bytes > 0);
    must_list(&b, &diverged, " on timeline 9\n");
    assert_int_equal(a.facts.copy, 2);
    must(&a, simple(OPERATE_START));
    must(&a, follow(&b, "a_2_4", 4));
    until(is_streaming, &a, "does not stream");
    assert_non_null(strstr(a.progress, "clone: "));
}

static void a_stopped_server_is_hung(void) {
    assert_true(is_primary(&b));
    pid_t session = (pid_t)atoi(sql(&b, "SELECT pid FROM pg_stat_activity WHERE application_name = 'ttorchd' AND "
                                        "query LIKE '%received_tli%' AND pid <> pg_backend_pid()"));
    assert_true(session > 1);
    kill(session, SIGSTOP);
    until(is_hung, &b, "is not hung");
    kill(session, SIGCONT);
    until(is_primary, &b, "stays hung");
}

static bool is_shut(const struct host *host) {
    nsec since = host->facts.admission_pending;
    return since != 0 && time_now() > since + msec(1000) && host->facts.seen_at > since;
}
static bool lets_in(const struct host *host) {
    return host->facts.admission_pending == 0 && host->facts.server == SERVER_PRIMARY;
}

/* What is there goes on, what is new is not let in. */
static void a_stopped_postmaster_is_seen(void) {
    pid_t postmaster = (pid_t)atoi(sql(&b, "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"));
    assert_true(postmaster > 1);
    until(lets_in, &b, "lets nobody in");
    kill(postmaster, SIGSTOP);
    until(is_shut, &b, "seems to let new sessions in");
    assert_true(is_primary(&b));
    kill(postmaster, SIGCONT);
    until(lets_in, &b, "lets nobody in again");
}

static bool left_nothing(const struct host *host) {
    char path[96];
    snprintf(path, sizeof path, "%s.old", host->data);
    return !file_exists(path);
}

static void what_a_clone_replaces_goes(void) { until(left_nothing, &a, "the old data directory stays"); }

static bool keeps_only_slot_of_c(const struct host *host) {
    uv_run(&loop, UV_RUN_NOWAIT);
    return strcmp(sql(host, "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots WHERE NOT active"),
                  "ttorch_c") == 0;
}

static void slots_follow_the_members(void) {
    struct host c = {.name = "c"};
    upkeep_of(&a, &c);
    until(keeps_only_slot_of_c, &a, "slots are not those of the members");
    char path[96];
    snprintf(path, sizeof path, "%s/pg_hba.conf", a.data);
    char *hba = file_read(path);
    assert_non_null(strstr(hba, "host replication \"ttorch\" 127.0.0.1/32 scram-sha-256"));
    assert_non_null(strstr(hba, "host replication all all reject"));
    free(hba);
}

static bool was_told_of_restart(const struct host *host) {
    return strstr(host->notices, "shared_buffers takes effect at the next start") != NULL;
}

static void changed_parameters_are_loaded(void) {
    static const struct pgctl_parameter changed[] = {
        {"shared_buffers", "17MB"}, {"work_mem", "6MB"}, {"max_connections", "30"}};
    struct pgctl_config config = config_of(&b);
    struct error error;
    config.parameters_all = changed;
    config.parameters_all_count = 3;
    assert_int_equal(pgctl_reload(b.pgctl, &config, &error), OK);
    until(was_told_of_restart, &b, "no word of a restart");
    assert_string_equal(sql(&b, "SHOW work_mem"), "6MB");
    assert_string_equal(sql(&b, "SHOW synchronous_standby_names"), "");
    assert_string_equal(sql(&b, "SELECT pg_is_in_recovery()"), "f");
}

/* Two instances in this process, each seen five times a second, and one durable write in each 200 ms. */
static void idle_costs_little(void) {
    struct rusage before, after;
    bool over = false;
    uv_timer_t *timer = malloc(sizeof *timer);
    uv_timer_init(&loop, timer);
    timer->data = &over;
    uv_timer_start(timer, timed_out, 5000, 0);
    getrusage(RUSAGE_SELF, &before);
    while (!over)
        uv_run(&loop, UV_RUN_ONCE);
    getrusage(RUSAGE_SELF, &after);
    uv_close((uv_handle_t *)timer, (uv_close_cb)free);
    double spent =
        (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
        (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec) /
            1e6;
    print_message("# %.2f %% of a core for two\n", spent / 5 * 100);
    assert_true(spent / 5 < 0.03);
}

static bool has_all(const struct host *host) { return host->facts.position.lsn >= base.lsn; }

/* Both are cut, and `b` has more WAL. */
static void fetched_from_a_standby(void) {
    Position behind = must(&a, cut(4)).position;
    sql(&b, "INSERT INTO ledger VALUES (6000)");
    must(&b, simple(OPERATE_KILL));
    must(&b, simple(OPERATE_START));
    until(is_standby, &b, "is no standby");
    base = must(&b, cut(4)).position;
    assert_int_equal(behind.timeline, base.timeline);
    assert_true(behind.lsn < base.lsn);
    struct operation fetch = from(OPERATE_FETCH, &b, 0);
    fetch.epoch = 4;
    snprintf(fetch.application_name, sizeof fetch.application_name, "a_2_0");
    must(&a, fetch);
    until(is_streaming, &a, "does not stream from a standby");
    until(has_all, &a, "does not get everything");
    assert_string_equal(a.facts.upstream_name, "a_2_0");
    Position fetched = must(&a, cut(4)).position;
    assert_int_equal(fetched.timeline, base.timeline);
    assert_true(fetched.lsn == base.lsn);
    assert_string_equal(sql(&a, "SELECT count(*) FROM ledger WHERE number = 6000"), "1");
    must(&b, promote(base, 13, 5, 0, NULL));
    until(is_durable, &b, "no durable write");
}

static void the_guard_fires(void) {
    assert_true(pgctl_arm(b.pgctl, 5, time_now() + msec(100)));
    until(is_down, &b, "outlived its deadline");
    must(&b, simple(OPERATE_START));
    until(is_standby, &b, "is no standby");
}

static bool has_two_results(const struct host *host) { return host->results_count == 2; }

/* Even when the server is down before the KILL has begun. */
static void a_cancelled_operation_is_told_first(void) {
    struct operation stop = {.kind = OPERATE_STOP, .serial = 2000};
    b.results_count = 0;
    b.kill_when_down = true;
    pgctl_operate(b.pgctl, &stop);
    until(has_two_results, &b, "does not tell both");
    assert_int_equal(b.results[0].serial, 2000);
    assert_int_equal(b.results[0].outcome, OUTCOME_CANCELLED);
    assert_int_equal(b.results[1].serial, 2001);
    assert_int_equal(b.results[1].outcome, OUTCOME_DONE);
    must(&b, simple(OPERATE_START));
    until(is_standby, &b, "is no standby");
}

static void adopted(void) {
    char path[128];
    must(&b, simple(OPERATE_STOP));
    snprintf(path, sizeof path, "%s/label", b.state);
    unlink(path);
    host_close(&b, false);
    host_open(&b);
    assert_int_equal(b.facts.copy, 0);
    assert_int_equal(b.facts.data, DATA_COMPLETE);
    struct operation adopt = {.kind = OPERATE_ADOPT, .copy = 9};
    must(&b, adopt);
    assert_int_equal(b.facts.copy, 9);
}

/* However much the server says before. */
static void a_start_that_fails_says_why(void) {
    char path[128], *settings;
    size_t size;
    struct error error;
    snprintf(path, sizeof path, "%s/postgresql.conf", b.data);
    char *before = file_read(path);
    FILE *text = open_memstream(&settings, &size);
    for (unsigned i = 0; i < 300; i++)
        fprintf(text, "no_such_setting_%u = 1\n", i);
    fclose(text);
    assert_int_equal(file_write(path, 0600, settings, &error), OK);
    struct operation_result result = run(&b, simple(OPERATE_START));
    assert_int_equal(result.outcome, OUTCOME_FAILED);
    assert_non_null(strstr(result.error.text, "contains errors"));
    assert_int_equal(file_write(path, 0600, before, &error), OK);
    free(settings);
    free(before);
    until(is_down, &b, "is not down");
    must(&b, simple(OPERATE_START));
}

static bool is_starting(const struct host *host) { return host->facts.server != SERVER_DOWN || has_result(host); }

static pid_t guard_of(const struct host *host) {
    char path[128], parent[64];
    snprintf(path, sizeof path, "%s/postmaster.pid", host->data);
    char *text = file_read(path);
    assert_non_null(text);
    snprintf(path, sizeof path, "/proc/%d/status", atoi(text));
    free(text);
    FILE *proc = fopen(path, "re");
    assert_non_null(proc);
    pid_t pid = 0;
    while (pid == 0 && fgets(parent, sizeof parent, proc) != NULL)
        sscanf(parent, "PPid: %d", &pid);
    fclose(proc);
    assert_true(pid > 1);
    return pid;
}

/* Nobody is left to tell that the server has ended with its guard. */
static void a_start_ends_with_its_guard(void) {
    struct operation_result result = {.outcome = OUTCOME_DONE};
    for (unsigned i = 0; i < 10 && result.outcome == OUTCOME_DONE; i++) { /* until it does not answer before that */
        pid_t guard = guard_of(&b);
        must(&b, simple(OPERATE_STOP));
        struct operation start = {.kind = OPERATE_START, .serial = ++b.serial};
        b.results_count = 0;
        pgctl_operate(b.pgctl, &start);
        until(is_starting, &b, "does not start");
        kill(guard, SIGKILL);
        until(has_result, &b, "starts for ever");
        result = b.results[0];
        if (result.outcome == OUTCOME_DONE) {
            until(is_down, &b, "outlives its guard");
            must(&b, simple(OPERATE_START));
        }
    }
    assert_int_equal(result.outcome, OUTCOME_FAILED);
    assert_non_null(strstr(result.error.text, "its guard was killed"));
    until(is_down, &b, "is not down");
    must(&b, simple(OPERATE_START));
}

static void closed(void) {
    host_close(&a, false);
    host_close(&b, false);
}

/* ---- around it ---- */

static uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, length) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        abort();
    close(fd);
    return ntohs(address.sin_port);
}

static void host_name(struct host *host, const char *name) {
    snprintf(host->name, sizeof host->name, "%s", name);
    snprintf(host->data, sizeof host->data, "%s/%s/data", top, name);
    snprintf(host->state, sizeof host->state, "%s/%s/state", top, name);
    snprintf(host->socket, sizeof host->socket, "%s/%s", top, name);
    mkdir(host->socket, 0700);
    host->port = free_port();
}

static bool become_postgres(void) {
    const struct passwd *user = getpwnam("postgres");
    if (geteuid() != 0)
        return true;
    if (user == NULL || chown(top, user->pw_uid, user->pw_gid) != 0)
        return false;
    return setgroups(0, NULL) == 0 && setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0;
}

static void find_postgres(void) {
    glob_t found = {0};
    (void)glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        unsigned version = (unsigned)atoi(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"));
        major = version_find(version) != NULL && version > major ? version : major;
    }
    globfree(&found);
    snprintf(bin_directory, sizeof bin_directory, "/usr/lib/postgresql/%u/bin", major);
}

static void copy_guard(void) {
    char command[512];
    snprintf(guard_program, sizeof guard_program, "%s/ttorch-guard", top);
    snprintf(command, sizeof command, "cp '%s' '%s' && chmod 755 '%s'", TTORCH_GUARD, guard_program, guard_program);
    if (system(command) != 0)
        abort();
}

static int remove_one(const char *path, const struct stat *at, int kind, struct FTW *where) {
    (void)at, (void)kind, (void)where;
    return remove(path);
}

static int prepare(void **state) {
    char path[64];
    struct error error;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof path, "%s/password", top);
    if (uv_loop_init(&loop) != 0 || file_write(path, 0600, PASSWORD "\n", &error) == FAILED)
        return -1;
    host_name(&a, "a");
    host_name(&b, "b");
    return 0;
}

static void show_log(const struct host *host) {
    char command[256];
    snprintf(command, sizeof command, "tail -n 25 '%s/postgresql.log' | sed 's/^/# %s: /'", host->state, host->name);
    if (system(command) != 0)
        print_message("# no log\n");
}

static int clean_up(void **state) {
    (void)state;
    if (unfinished) {
        show_log(&a);
        show_log(&b);
    }
    if (a.pgctl != NULL) /* a test failed */
        host_close(&a, false);
    if (b.pgctl != NULL)
        host_close(&b, false);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0)
        return -1;
    nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transactions_are_listed),
        cmocka_unit_test(versions_are_known_by_name),
        cmocka_unit_test(a_rule_is_quoted),
        cmocka_unit_test(settings_are_read_back),
        cmocka_unit_test(marked_text_goes_the_rest_stays),
        cmocka_unit_test(settings_that_override_ours_leave_auto_conf),
        cmocka_unit_test(trailing_placeholders_go),
        cmocka_unit_test(a_log_keeps_its_newest_half),
        cmocka_unit_test(strangers_are_refused),
        cmocka_unit_test(a_damaged_pledge_is_noticed),
        cmocka_unit_test(a_damaged_label_is_noticed),
        cmocka_unit_test(tablespaces_of_a_clone_are_mapped),
        cmocka_unit_test(tablespaces_go_with_their_data_directory),
        LIFE(half_made_is_not_made),
        LIFE(made_and_started_as_a_standby),
        LIFE(promoted_through_placeholders),
        LIFE(cloned_and_following),
        LIFE(ruled_from_empty_and_on),
        LIFE(a_restarted_daemon_disturbs_nothing),
        LIFE(failed_over),
        LIFE(the_old_primary_is_rewound),
        LIFE(a_standby_restarts_with_placeholders),
        LIFE(a_crashed_primary_is_rewound),
        LIFE(a_void_timeline_is_forgotten),
        LIFE(kill_cancels),
        LIFE(a_stopped_server_is_hung),
        LIFE(a_stopped_postmaster_is_seen),
        LIFE(what_a_clone_replaces_goes),
        LIFE(slots_follow_the_members),
        LIFE(changed_parameters_are_loaded),
        LIFE(idle_costs_little),
        LIFE(fetched_from_a_standby),
        LIFE(the_guard_fires),
        LIFE(a_cancelled_operation_is_told_first),
        LIFE(adopted),
        LIFE(a_start_that_fails_says_why),
        LIFE(a_start_ends_with_its_guard),
        LIFE(closed),
    };
    if (mkdtemp(top) == NULL)
        return 1;
    copy_guard();
    find_postgres();
    if (!become_postgres())
        return 1;
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
