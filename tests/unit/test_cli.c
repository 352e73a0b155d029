#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <jansson.h>
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/dsn.h"
#include "cli/history.h"
#include "cli/options.h"
#include "cli/status_table.h"
#include "cli/switchover.h"
#include "cli/text.h"

/* The program is linked from the same library with its demo; these tests have none. */
int demo_main(int argc, char **argv) {
    (void)argv;
    return argc;
}

static json_t *json_of(const char *quoted) {
    char *text = strdup(quoted);
    for (char *at = text; *at != '\0'; at++)
        if (*at == '\'')
            *at = '"';
    json_error_t mistake;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &mistake);
    if (json == NULL)
        fail_msg("%s: %s", mistake.text, text);
    free(text);
    return json;
}

/* ---- tables ---- */

typedef void printer(FILE *out, const json_t *json, bool colours);

static void expect_print(printer *print, const char *quoted, bool colours, const char *expected) {
    json_t *json = json_of(quoted);
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    print(out, json, colours);
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
    json_decref(json);
}

#define CLUSTER(more)                                                                                            \
    "{'cluster':'shop','self':'m2','epoch':3,'primary':'m1','sealed':false,'open':true,'fresh':true,'index':70," \
    "'since_ms':1000,'time_ms':193000,'rules':['ANY 1 (m2, m3)'],'degraded':false,'durability':'quorum',"        \
    "'switchover':null,'waiting':'','members':[" more "]}"
#define MEMBER(name, port, duty, state, timeline, lag, lag_ms, sync, upstream, activity, trouble)              \
    "{'name':'" name "','host':'10.0.0." port "','port':543" port ",'duty':'" duty "','state':'" state         \
    "','timeline':" timeline ",'lag_bytes':" lag ",'lag_ms':" lag_ms ",'sync':'" sync "','upstream':" upstream \
    ",'activity':'" activity "','trouble':'" trouble "','age_ms':12400}"
#define M1 MEMBER("m1", "1", "primary", "running", "4", "null", "null", "-", "null", "", "")
#define M2 MEMBER("m2", "2", "standby", "streaming", "4", "0", "0", "sync", "'m1'", "", "")
#define M3 MEMBER("m3", "3", "standby", "streaming", "4", "1258291", "35", "sync", "'m1'", "", "")
#define W  MEMBER("w", "4", "witness", "running", "null", "null", "null", "-", "null", "", "")

static void test_status_healthy(void **state) {
    (void)state;
    expect_print(status_table_print, CLUSTER(M1 "," M2 "," M3 "," W), false,
                 "shop, epoch 3, primary m1 for 3 min 12 s, durability quorum: ANY 1 (m2, m3)\n"
                 "\n"
                 "Member  Duty     State      Timeline            Lag  Sync  Upstream\n"
                 "m1      primary  running           4              -  -     -\n"
                 "m2      standby  streaming         4            0 B  sync  m1\n"
                 "m3      standby  streaming         4  1.2 MB, 35 ms  sync  m1\n"
                 "w       witness  running           -              -  -     -\n");
}

static void test_status_troubled(void **state) {
    (void)state;
    expect_print(status_table_print,
                 "{'cluster':'shop','self':'m2','epoch':4,'primary':'m2','sealed':false,'open':false,'fresh':false,"
                 "'since_ms':null,'time_ms':1,'rules':['ANY 1 (m2, m3)','none'],'degraded':true,'durability':'quorum',"
                 "'switchover':{'from':'m1','to':null,'number':9},'waiting':'waiting for m3','members':["         //
                 MEMBER("m1", "1", "standby", "unreachable", "4", "null", "null", "-", "null", "", "") ","        //
                 MEMBER("m2", "2", "primary", "promoting", "4", "null", "null", "-", "null", "promoting", "") "," //
                 MEMBER("m3", "3", "standby", "cloning", "null", "null", "null", "-", "null", "cloning from m2: 43 %",
                        "it was\\u001b[2J diverged") "]}",
                 false,
                 "shop, epoch 4, primary m2, durability quorum: ANY 1 (m2, m3) and none\n"
                 "m2: waiting for m3\n"
                 "m2 has no contact with a quorum: this may be old news\n"
                 "degraded: no standby acknowledges commits, so nothing fails over by itself\n"
                 "switchover from m1 to the best standby under way\n"
                 "the epoch is not open yet: clients are not pointed at its primary\n"
                 "\n"
                 "Member  Duty     State        Timeline  Lag  Sync  Upstream  Note\n"
                 "m1      standby  unreachable         4    -  -     -         last heard of 12 s ago\n"
                 "m2      primary  promoting           4    -  -     -         promoting\n"
                 "m3      standby  cloning             -    -  -     -         cloning from m2: 43 %; it was [2J "
                 "diverged\n");
}

static void test_status_sealed(void **state) {
    (void)state;
    expect_print(status_table_print,
                 "{'cluster':'shop','self':'m2','epoch':4,'primary':null,'sealed':true,'open':false,'fresh':true,"
                 "'rules':[],'degraded':false,'durability':'async','switchover':null,'waiting':'','members':[]}",
                 false,
                 "shop, epoch 4, no primary, durability async\n"
                 "the epoch is sealed: the next primary is being chosen\n");
}

static void test_status_before_founding(void **state) {
    (void)state;
    expect_print(
        status_table_print,
        "{'cluster':'','self':'m2','epoch':0,'primary':null,'sealed':false,'open':false,'fresh':false,"
        "'rules':[],'degraded':false,'durability':'quorum','switchover':null,'waiting':'waiting for the cluster to be "
        "founded','members':[]}",
        false,
        "the cluster is not founded yet\n"
        "m2: waiting for the cluster to be founded\n");
}

static void test_status_colours(void **state) {
    (void)state;
    expect_print(status_table_print, CLUSTER(M1), true,
                 "\033[1mshop\033[0m, epoch 3, primary \033[1mm1\033[0m for 3 min 12 s, durability quorum: ANY 1 (m2, "
                 "m3)\n"
                 "\n"
                 "\033[1mMember\033[0m  \033[1mDuty\033[0m     \033[1mState\033[0m    \033[1mTimeline\033[0m  "
                 "\033[1mLag\033[0m  \033[1mSync\033[0m  \033[1mUpstream\033[0m\n"
                 "\033[1mm1\033[0m      \033[1mprimary\033[0m  \033[32mrunning\033[0m         4    -  -     -\n");
}

static void test_status_in_utf8(void **state) {
    (void)state;
    assert_non_null(setlocale(LC_ALL, "C.UTF-8"));
    expect_print(status_table_print, CLUSTER(""), false,
                 "shop \u00b7 epoch 3 \u00b7 primary m1 for 3 min 12 s \u00b7 durability quorum: ANY 1 (m2, m3)\n");
    setlocale(LC_ALL, "C");
}

/* A newer or a strange daemon must not crash it. */
static void test_status_of_strange_json(void **state) {
    (void)state;
    static const char *const strange[] = {"{}", "{'members':{}}", "{'members':[1,null,{}],'rules':[1]}",
                                          "{'epoch':'x','since_ms':-5,'time_ms':'y','switchover':3}"};
    for (unsigned i = 0; i < sizeof strange / sizeof *strange; i++) {
        json_t *json = json_of(strange[i]);
        FILE *out = fopen("/dev/null", "w");
        status_table_print(out, json, true);
        history_table_print(out, json, true);
        fclose(out);
        json_decref(json);
    }
}

static void test_history(void **state) {
    (void)state;
    expect_print(history_table_print,
                 "{'history':[{'time_ms':1795465598123,'epoch':1,'kind':'assigned','member':'m1','lost_bytes':0,"
                 "'reason':'founding'},"
                 "{'time_ms':1795465600000,'epoch':2,'kind':'sealed','member':null,'lost_bytes':0,'reason':'m1 is "
                 "dead'}]}",
                 false,
                 "Time                 Epoch  Event     Member  Reason\n"
                 "2026-11-23 20:26:38      1  assigned  m1      founding\n"
                 "2026-11-23 20:26:40      2  sealed    -       m1 is dead\n");
    expect_print(history_table_print,
                 "{'history':[{'time_ms':0,'epoch':12,'kind':'assigned','member':'m2','lost_bytes':2048,'reason':''}]}",
                 false,
                 "Time  Epoch  Event     Member    Lost\n"
                 "-        12  assigned  m2      2.0 kB\n");
    expect_print(history_table_print, "{'history':[]}", false, "nothing is recorded yet\n");
}

/* One that was not traced, and a failover at its second try. */
#define TWO_CHANGES                                                                                                    \
    "{'history':[{'time_ms':1795465590000,'epoch':1,'kind':'assigned','member':'m1','reason':'founding'},"             \
    "{'time_ms':1795465591005,'epoch':1,'kind':'opened','member':'m1','reason':'m1 is writable in epoch 1'},"          \
    "{'time_ms':1795465592000,'epoch':1,'kind':'rule','member':null,'reason':'m3 joins'},"                             \
    "{'time_ms':1795465600000,'epoch':1,'kind':'sealed','member':null,'reason':'epoch 1 ends: m1 is dead'},"           \
    "{'time_ms':1795465600045,'epoch':2,'kind':'assigned','member':'m2','reason':'m2 becomes primary: it is best'},"   \
    "{'time_ms':1795465600131,'epoch':2,'kind':'opened','member':'m2','reason':'m2 is writable in epoch 2: sealed +8 " \
    "ms, m2 +39 ms, m3 +90 ms, assigned +46 ms, writes +101 ms, acknowledged +131 ms'},"                               \
    "{'time_ms':1795465700000,'epoch':2,'kind':'rule','member':null,'reason':'m1 joins'}]}"

static void test_history_trace(void **state) {
    (void)state;
    static const char *const expected =
        "epoch 1 of m1 was opened at 2026-11-23 20:26:31.005\n"
        "  not traced: nothing came before it, or another member became the coordinator meanwhile\n"
        "\n"
        "epoch 2 of m2 was opened at 2026-11-23 20:26:40.131\n"
        "Time           After  Took  Step          Why\n"
        "20:26:40.000    0 ms    +0  suspected     epoch 1 ends: m1 is dead\n"
        "20:26:40.008    8 ms    +8  sealed\n"
        "20:26:40.039   39 ms   +31  m2\n"
        "20:26:40.046   46 ms    +7  assigned      m2 becomes primary: it is best\n"
        "20:26:40.090   90 ms   +44  m3\n"
        "20:26:40.101  101 ms   +11  writes\n"
        "20:26:40.131  131 ms   +30  acknowledged\n";
    expect_print(history_trace_print, TWO_CHANGES, false, expected);
    expect_print(history_trace_print, "{'history':[]}", false, "no primary was opened yet\n");
    static const char *const odd[] = {"",        "x: ",          "x: sealed +",
                                      "x: + ms", "x: , , +1 ms", "x: sealed +99999999999999999999 ms"};
    for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++) {
        char *text = NULL;
        size_t length;
        json_t *json =
            json_pack("{s:[{s:s, s:s, s:s}]}", "history", "kind", "opened", "member", "m1", "reason", odd[i]);
        FILE *out = open_memstream(&text, &length);
        history_trace_print(out, json, true);
        fclose(out);
        assert_non_null(strstr(text, "was opened at"));
        free(text);
        json_decref(json);
    }
}

static void test_history_last(void **state) {
    (void)state;
    json_t *json = json_of(TWO_CHANGES);
    history_keep_last(json);
    const json_t *entries = json_object_get(json, "history");
    assert_int_equal(json_array_size(entries), 3);
    assert_string_equal(text_of(json_array_get(entries, 0), "kind"), "sealed");
    assert_string_equal(text_of(json_array_get(entries, 2), "kind"), "opened");
    json_decref(json);
    json = json_of("{'history':[{'kind':'sealed'}]}");
    history_keep_last(json);
    assert_int_equal(json_array_size(json_object_get(json, "history")), 1);
    json_decref(json);
}

static void test_amounts(void **state) {
    (void)state;
    static const struct {
        uint64_t amount;
        const char *bytes, *duration;
    } rows[] = {
        {0, "0 B", "0.00 s"},
        {310, "310 B", "0.31 s"},
        {999, "999 B", "1.00 s"},
        {1000, "1.0 kB", "1.00 s"},
        {59999, "59 kB", "59 s"},
        {192000, "188 kB", "3 min 12 s"},
        {7320000, "7.0 MB", "2 h 2 min"},
        {90000000000, "84 GB", "1041 d 16 h"},
        {UINT64_MAX, "16384 PB", "213503982334 d 14 h"},
    };
    char buffer[TEXT_MAX];
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_string_equal(text_bytes(rows[i].amount, buffer), rows[i].bytes);
        assert_string_equal(text_duration(rows[i].amount, buffer), rows[i].duration);
    }
}

/* ---- the connection string ---- */

static void test_dsn(void **state) {
    (void)state;
    static const struct {
        struct dsn dsn;
        const char *text;
    } rows[] = {
        {{.session = "read-write"}, "target_session_attrs=read-write connect_timeout=3"},
        {{.session = "any", .database = "shop", .user = "app"},
         "dbname=shop user=app target_session_attrs=any connect_timeout=3"},
        {{.session = "any", .database = "my shop", .user = "o'b\\x"},
         "dbname='my shop' user='o\\'b\\\\x' target_session_attrs=any connect_timeout=3"},
    };
    json_t *json = json_of(CLUSTER(M1 "," M2 "," W "," M3));
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text, expected[256];
        struct error error;
        assert_int_equal(dsn_text(json, &rows[i].dsn, &text, &error), OK);
        snprintf(expected, sizeof expected, "host=10.0.0.1,10.0.0.2,10.0.0.3 port=5431,5432,5433 %s", rows[i].text);
        assert_string_equal(text, expected);
        free(text);
    }
    json_decref(json);
}

static void test_dsn_of_nobody(void **state) {
    (void)state;
    json_t *json = json_of(CLUSTER(W));
    char *text = NULL;
    struct error error;
    assert_int_equal(dsn_text(json, &(struct dsn){.session = "any"}, &text, &error), FAILED);
    assert_string_equal(error.text, "the cluster has no data members yet");
    assert_null(text);
    json_decref(json);
}

/* ---- switchover ---- */

#define M2_DOWN   MEMBER("m2", "2", "standby", "down", "4", "2048", "null", "-", "null", "", "")
#define M2_BEHIND MEMBER("m2", "2", "standby", "streaming", "4", "99000000", "9000", "sync", "'m1'", "", "")
#define M2_ABSENT MEMBER("m2", "2", "standby", "unreachable", "4", "null", "null", "-", "null", "", "")

static void test_switchover_plan(void **state) {
    (void)state;
    static const struct {
        const char *status, *to;
        const char *says; /* NULL: it is possible */
        int64_t lag;
    } rows[] = {
        {CLUSTER(M1 "," M2 "," M3), "m2", NULL, 0},
        {CLUSTER(M1 "," M2 "," M3), "m3", NULL, 1258291},
        {CLUSTER(M1 "," M3 "," M2), "", NULL, 0},
        {CLUSTER(M1 "," M2_DOWN "," M3), "", NULL, 1258291},
        {CLUSTER(M1 "," M2 "," M3), "m1", "m1 is the primary already", 0},
        {CLUSTER(M1 "," M2 "," W), "w", "w is a witness: it holds no data", 0},
        {CLUSTER(M1 "," M2), "mm2", "there is no member \"mm2\": did you mean m2?", 0},
        {CLUSTER(M1 "," M2), "elsewhere", "there is no member \"elsewhere\"", 0},
        {CLUSTER(M1 "," M2_DOWN), "m2", "m2 is down, not streaming, and 2.0 kB behind", 0},
        {CLUSTER(M1 "," M2_ABSENT), "m2", "m2 is unreachable, not streaming", 0},
        {CLUSTER(M1 "," M2_BEHIND), "m2", "m2 is 94 MB behind: wait until it has caught up", 0},
        {CLUSTER(M1 "," M2_ABSENT "," W), "", "no standby can take over; m2 is unreachable, not streaming", 0},
        {CLUSTER(M1), "", "no standby can take over", 0},
        {"{'self':'m2','fresh':false}", "", "m2 has no contact with a quorum: nothing can be decided", 0},
        {"{'fresh':true,'primary':'m1','open':false}", "",
         "there is no primary that is open to clients: wait until there is", 0},
        {"{'fresh':true,'primary':'m1','open':true,'switchover':{'from':'m1','to':null}}", "",
         "a switchover from m1 to the best standby is under way", 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *json = json_of(rows[i].status);
        struct switchover_plan plan;
        struct error error;
        status result = switchover_plan(json, rows[i].to, &plan, &error);
        assert_int_equal(result, rows[i].says == NULL ? OK : FAILED);
        if (result == OK) {
            assert_string_equal(plan.from, "m1");
            assert_string_equal(plan.to, rows[i].to);
            assert_int_equal(plan.epoch, 3);
            assert_int_equal(plan.lag_bytes, rows[i].lag);
        } else {
            assert_string_equal(error.text, rows[i].says);
        }
        json_decref(json);
    }
}

static void test_switchover_outcome(void **state) {
    (void)state;
    static const struct {
        const char *to, *status;
        enum switchover_outcome outcome;
    } rows[] = {
        /* not applied here yet */
        {"m2", "{'index':70,'epoch':3,'open':true,'primary':'m1','switchover':null}", SWITCHOVER_UNDER_WAY},
        {"m2", "{'index':71,'epoch':3,'open':true,'primary':'m1','switchover':{'number':71}}", SWITCHOVER_UNDER_WAY},
        {"m2", "{'index':72,'epoch':3,'open':false,'primary':null,'switchover':{'number':71}}", SWITCHOVER_UNDER_WAY},
        {"m2", "{'index':73,'epoch':4,'open':false,'primary':'m2','switchover':null}", SWITCHOVER_UNDER_WAY},
        {"m2", "{'index':74,'epoch':4,'open':true,'primary':'m2','switchover':null}", SWITCHOVER_DONE},
        {"", "{'index':74,'epoch':4,'open':true,'primary':'m3','switchover':null}", SWITCHOVER_DONE},
        {"m2", "{'index':74,'epoch':4,'open':true,'primary':'m1','switchover':null}", SWITCHOVER_FAILED},
        {"", "{'index':74,'epoch':4,'open':true,'primary':'m1','switchover':null}", SWITCHOVER_FAILED},
        {"m2", "{'index':72,'epoch':3,'open':true,'primary':'m1','switchover':null}", SWITCHOVER_FAILED},
        {"m2", "{'index':90,'epoch':3,'open':true,'primary':'m1','switchover':{'number':89}}", SWITCHOVER_FAILED},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct switchover_plan plan = {.from = "m1", .epoch = 3};
        strcpy(plan.to, rows[i].to);
        json_t *json = json_of(rows[i].status);
        assert_int_equal(switchover_outcome(&plan, 71, json), rows[i].outcome);
        json_decref(json);
    }
}

/* ---- the command line ---- */

static void test_nearest_name(void **state) {
    (void)state;
    static const char *const names[] = {"status", "switchover", "history", "dsn", "demo", "help", "version", NULL};
    static const struct {
        const char *word, *nearest;
    } rows[] = {{"statsu", "status"},
                {"stat", "status"},
                {"switch", "switchover"},
                {"swithover", "switchover"},
                {"hist", "history"},
                {"dns", "dsn"},
                {"hepl", "help"},
                {"failover", NULL},
                {"x", NULL},
                {"restart-the", NULL},
                {"", NULL}};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *nearest = nearest_name(rows[i].word, names);
        assert_string_equal(nearest != NULL ? nearest : "none", rows[i].nearest != NULL ? rows[i].nearest : "none");
    }
}

static struct {
    FILE *file;
    int saved;
} captured[3];

static void capture(int fd) {
    fflush(NULL);
    captured[fd].saved = dup(fd);
    captured[fd].file = tmpfile();
    dup2(fileno(captured[fd].file), fd);
}

static void captured_text(int fd, char *text, size_t size) {
    fflush(NULL);
    dup2(captured[fd].saved, fd);
    close(captured[fd].saved);
    rewind(captured[fd].file);
    text[fread(text, 1, size - 1, captured[fd].file)] = '\0';
    fclose(captured[fd].file);
}

/* Runs `ttorch WORDS...`, words separated by spaces. */
static int run_line(const char *line, char *out, char *err, size_t size) {
    char copy[256] = "ttorch ", *argv[16], *rest = copy;
    int argc = 0;
    snprintf(copy + 7, sizeof copy - 7, "%s", line);
    for (char *word; argc < 15 && (word = strsep(&rest, " ")) != NULL;)
        if (*word != '\0')
            argv[argc++] = word;
    argv[argc] = NULL;
    capture(1);
    capture(2);
    int code = cli_main(argc, argv);
    captured_text(2, err, size);
    captured_text(1, out, size);
    return code;
}

static void test_command_lines(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int code;
        const char *out, *err; /* parts of what is printed; "" = nothing at all */
    } rows[] = {
        {"", EXIT_USAGE, "Verbs", ""},
        {"help", EXIT_DONE, "switchover       make another member the primary", ""},
        {"--help", EXIT_DONE, "Exit codes: 0 done, 1 it could not be done, 2", ""},
        {"help status", EXIT_DONE, "--watch [SECONDS]", ""},
        {"status --help", EXIT_DONE, "ttorch status [--json] [--watch [SECONDS]]", ""},
        {"help help", EXIT_DONE, "Verbs", ""},
        {"switchover -h", EXIT_DONE, "--to MEMBER", ""},
        {"version", EXIT_DONE, "ttorch " TTORCH_VERSION, ""},
        {"demo a b", 3, "", ""},
        {"statsu", EXIT_USAGE, "", "unknown verb \"statsu\": did you mean \"status\"?"},
        {"help dns", EXIT_USAGE, "", "did you mean \"dsn\"?"},
        {"frobnicate", EXIT_USAGE, "", "unknown verb \"frobnicate\": see ttorch help"},
        {"status --jsn", EXIT_USAGE, "", "unknown option --jsn: did you mean --json?"},
        {"--sokcet x status", EXIT_USAGE, "", "did you mean --socket?"},
        {"status --zzzzzzzzzz", EXIT_USAGE, "", "unknown option --zzzzzzzzzz: see --help"},
        {"status m1", EXIT_USAGE, "", "unexpected argument \"m1\""},
        {"status --json=yes", EXIT_USAGE, "", "--json takes no value"},
        {"status --json --watch", EXIT_USAGE, "", "--json and --watch do not go together"},
        {"status --watch=0", EXIT_USAGE, "", "--watch needs SECONDS: a number above 0, at most 86400"},
        {"switchover --timeout never", EXIT_USAGE, "", "--timeout needs SECONDS"},
        {"switchover --timeout nan", EXIT_USAGE, "", "--timeout needs SECONDS"},
        {"switchover --to", EXIT_USAGE, "", "--to needs MEMBER"},
        {"dsn --read --any", EXIT_USAGE, "", "--read and --any do not go together"},
        {"--socket /nowhere/x.sock status", EXIT_FAILED, "", "could not reach ttorchd at /nowhere/x.sock: is the"},
        {"status --socket=/nowhere/x.sock", EXIT_FAILED, "", "systemctl status 'ttorchd@*'"},
        {"haproxy-config --port", EXIT_USAGE, "", "--port needs PORT"},
        {"pgbouncer-config --socket /nowhere/x.sock", EXIT_FAILED, "", "could not reach ttorchd"},
        {"history --socket /nowhere/x.sock", EXIT_FAILED, "", "could not reach ttorchd"},
        {"dsn --url http://127.0.0.1:1", EXIT_FAILED, "", "could not reach ttorchd at http://127.0.0.1:1"},
        {"status --config /nowhere/t.yaml", EXIT_FAILED, "", "/nowhere/t.yaml"},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[8192], err[8192];
        int code = run_line(rows[i].line, out, err, sizeof out);
        bool out_right = *rows[i].out == '\0' ? *out == '\0' : strstr(out, rows[i].out) != NULL;
        bool err_right = *rows[i].err == '\0' ? *err == '\0' : strstr(err, rows[i].err) != NULL;
        if (code != rows[i].code || !out_right || !err_right)
            fail_msg("ttorch %s: %d\n%s%s", rows[i].line, code, out, err);
    }
}

/* ---- verbs against a daemon that answers by a script ---- */

struct script {
    const char *request; /* how it must begin */
    const char *http;    /* "200 OK" */
    const char *body;    /* with ' for " */
};

struct daemon {
    int fd;
    char path[64];
    const struct script *script;
    unsigned wrong; /* requests that were not as the script says */
};

static bool play(const struct script *line, int fd) {
    char request[4096] = "", answer[8192], body[4096];
    ssize_t got = recv(fd, request, sizeof request - 1, 0);
    snprintf(body, sizeof body, "%s", line->body);
    for (char *at = body; *at != '\0'; at++)
        if (*at == '\'')
            *at = '"';
    int length = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                          line->http, strlen(body), body);
    send(fd, answer, (size_t)length, MSG_NOSIGNAL);
    close(fd);
    return got > 0 && strncmp(request, line->request, strlen(line->request)) == 0;
}

static void *run_daemon(void *user) {
    struct daemon *daemon = user;
    for (const struct script *line = daemon->script; line->request != NULL; line++) {
        int fd = accept(daemon->fd, NULL, NULL);
        if (fd < 0)
            break;
        daemon->wrong += !play(line, fd);
    }
    return NULL;
}

#define STATUS  "GET /v1/status "
#define NOW     CLUSTER(M1 "," M2 "," M3)
#define AFTER   "{'index':74,'epoch':4,'open':true,'primary':'m2','switchover':null}"
#define AGAIN   "{'index':74,'epoch':4,'open':true,'primary':'m1','switchover':null}"
#define PENDING "{'index':72,'epoch':3,'open':false,'primary':null,'switchover':{'number':71}}"

static const struct {
    const char *line;
    struct script script[8];
    int code;
    const char *out, *err;
} plays[] = {
    {"status", {{STATUS, "200 OK", NOW}}, EXIT_DONE, "m2      standby  streaming", ""},
    {"status --json", {{STATUS, "200 OK", NOW}}, EXIT_DONE, "\"cluster\": \"shop\"", ""},
    {"status", {{STATUS, "500 Oops", "{'error':'out of memory'}"}}, EXIT_FAILED, "", "ttorch: out of memory"},
    {"status", {{STATUS, "502 Oops", "<html>"}}, EXIT_FAILED, "", "ttorchd answered with HTTP status 502"},
    {"status", {{STATUS, "200 OK", "<html>"}}, EXIT_FAILED, "", "the answer is no JSON object: is this ttorchd?"},
    {"history",
     {{"GET /v1/history ", "200 OK", "{'history':[{'time_ms':0,'epoch':1,'kind':'opened','reason':'why'}]}"}},
     EXIT_DONE,
     "opened  -       why",
     ""},
    {"dsn --read --user app",
     {{STATUS, "200 OK", NOW}},
     EXIT_DONE,
     "host=10.0.0.1,10.0.0.2,10.0.0.3 port=5431,5432,5433 user=app target_session_attrs=prefer-standby "
     "connect_timeout=3\n",
     ""},
    {"switchover --to m2 --yes",
     {{STATUS, "200 OK", NOW},
      {"POST /v1/switchover ", "202 Accepted", "{'number':71}"},
      {STATUS, "200 OK", NOW},
      {STATUS, "200 OK", PENDING},
      {STATUS, "200 OK", AFTER}},
     EXIT_DONE,
     "m2 is the primary since epoch 4, after 0.",
     ""},
    {"switchover --yes",
     {{STATUS, "200 OK", NOW},
      {"POST /v1/switchover ", "202 Accepted", "{'number':71}"},
      {STATUS, "200 OK", AGAIN},
      {"GET /v1/history ", "200 OK",
       "{'history':[{'index':60,'kind':'opened','reason':'old'},"
       "{'index':72,'kind':'switchover','reason':'m2 took too long'}]}"}},
     EXIT_FAILED,
     "",
     "m1 is the primary, epoch 4\n  switchover: m2 took too long\n"},
    {"switchover --to m3 --yes",
     {{STATUS, "200 OK", NOW}, {"POST /v1/switchover ", "409 Conflict", "{'error':'not now'}"}},
     EXIT_FAILED,
     "",
     "ttorch: not now"},
    {"switchover --to m1 --yes", {{STATUS, "200 OK", NOW}}, EXIT_FAILED, "", "m1 is the primary already"},
    {"switchover --yes --timeout 0.3",
     {{STATUS, "200 OK", NOW},
      {"POST /v1/switchover ", "202 Accepted", "{'number':71}"},
      {STATUS, "200 OK", PENDING},
      {STATUS, "200 OK", PENDING},
      {STATUS, "200 OK", PENDING}},
     EXIT_FAILED,
     "",
     "no outcome within 0.3 s: it is still under way"},
};

static void daemon_listen(struct daemon *daemon) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(daemon->path, sizeof daemon->path, "/tmp/test-cli.%d.sock", (int)getpid());
    snprintf(address.sun_path, sizeof address.sun_path, "%s", daemon->path);
    daemon->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(daemon->fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(daemon->fd, 8), 0);
}

static void test_verbs_against_a_daemon(void **state) {
    (void)state;
    for (unsigned i = 0; i < sizeof plays / sizeof *plays; i++) {
        struct daemon daemon = {.script = plays[i].script};
        pthread_t thread;
        daemon_listen(&daemon);
        assert_int_equal(pthread_create(&thread, NULL, run_daemon, &daemon), 0);
        char line[256], out[8192], err[8192];
        snprintf(line, sizeof line, "%s --socket %s", plays[i].line, daemon.path);
        int code = run_line(line, out, err, sizeof out);
        shutdown(daemon.fd, SHUT_RDWR); /* ends a script that was not played to its end */
        pthread_join(thread, NULL);
        close(daemon.fd);
        unlink(daemon.path);
        bool out_right = *plays[i].out == '\0' ? *out == '\0' : strstr(out, plays[i].out) != NULL;
        bool err_right = *plays[i].err == '\0' ? *err == '\0' : strstr(err, plays[i].err) != NULL;
        if (code != plays[i].code || !out_right || !err_right || daemon.wrong > 0)
            fail_msg("ttorch %s: %d, %u wrong requests\n%s%s", line, code, daemon.wrong, out, err);
    }
}

#define TEST(function) cmocka_unit_test(function)

int main(void) {
    setenv("TZ", "UTC", 1);
    setenv("LC_ALL", "C", 1);
    tzset();
    const struct CMUnitTest tests[] = {
        TEST(test_status_healthy),         TEST(test_status_troubled), TEST(test_status_sealed),
        TEST(test_status_before_founding), TEST(test_status_colours),  TEST(test_status_in_utf8),
        TEST(test_status_of_strange_json), TEST(test_history),         TEST(test_history_trace),
        TEST(test_history_last),           TEST(test_amounts),         TEST(test_dsn),
        TEST(test_dsn_of_nobody),          TEST(test_switchover_plan), TEST(test_switchover_outcome),
        TEST(test_nearest_name),           TEST(test_command_lines),   TEST(test_verbs_against_a_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
