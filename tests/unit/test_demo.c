/* What the demo measures and shows, of which nothing needs a cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/demo_processes.h"
#include "cli/demo_report.h"
#include "cli/demo_screen.h"
#include "cli/demo_watch.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- measuring ---- */

/* In milliseconds: number, sent, acknowledged. An outage from 110 to 400. */
static const struct ledger_ack times[] = {
    {1, 90, 91}, {2, 100, 101}, {3, 105, 110}, {5, 399, 400}, {6, 405, 406},
};
static struct ledger_ack acks[COUNT(times)];

static int fill_acks(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(times); i++)
        acks[i] = (struct ledger_ack){times[i].number, msec(times[i].sent_at), msec(times[i].acknowledged_at)};
    return 0;
}

static void test_gap_is_between_acknowledgements(void **state) {
    (void)state;
    static const struct {
        unsigned from, until, began, ended;
    } rows[] = {
        {120, 410, 110, 400}, /* struck in the gap: it began with the last acknowledgement before */
        {95, 410, 110, 400},  /* struck before: an answer was still under way */
        {400, 407, 400, 406}, /* the gap is over at that moment */
        {406, 500, 406, 500}, /* none since: still growing */
        {120, 900, 406, 900}, /* a second, longer one, still open */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gap gap = acks_longest_gap(acks, COUNT(acks), msec(rows[i].from), msec(rows[i].until));
        assert_int_equal(gap.began, msec(rows[i].began));
        assert_int_equal(gap.ended, msec(rows[i].ended));
    }
    struct gap all = acks_longest_gap(acks, 0, msec(5), msec(7));
    assert_true(all.began == msec(5) && all.ended == msec(7));
}

static void test_median_and_worst(void **state) {
    (void)state;
    static const struct demo_round rounds[] = {
        {.outage_ms = 300}, {.outage_ms = 100}, {.outage_ms = 200}, {.outage_ms = 900}};
    assert_int_equal(rounds_outage_median(rounds, 3), 200);
    assert_int_equal(rounds_outage_median(rounds, 4), 300);
    assert_int_equal(rounds_outage_median(rounds, 0), 0);
    assert_int_equal(rounds_outage_worst(rounds, 4), 900);
}

/* ---- showing ---- */

static void assert_histogram(const struct ledger_ack *given, size_t count, const char *expected) {
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    report_histogram(out, given, count);
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
}

static void test_histogram(void **state) {
    (void)state;
    struct ledger_ack many[40];
    for (size_t i = 0; i < COUNT(many); i++) /* 36 of 1.5 ms, 3 of 3 ms, one of 20 ms */
        many[i] = (struct ledger_ack){i, 0, i < 36 ? msec(3) / 2 : i < 39 ? msec(3) : msec(20)};
    assert_histogram(many, COUNT(many),
                     "  under    2 ms      36 ##################\n"
                     "  under    4 ms       3 ##\n"
                     "  under    8 ms       0\n"
                     "  under   16 ms       0\n"
                     "  under   32 ms       1 #\n");
    assert_histogram(many, 0, "");
    many[0].acknowledged_at = 1;
    assert_histogram(many, 1, "  under 0.25 ms       1 ##################\n");
    many[0].acknowledged_at = msec(1024); /* a bucket ends before its bound */
    assert_histogram(many, 1, "  under 2.05 s        1 ##################\n");
    many[0].acknowledged_at = 3600 * NSEC_PER_SEC;
    assert_histogram(many, 1, "  above 65.5 s        1 ##################\n");
}

static void test_json(void **state) {
    (void)state;
    struct demo_report *report = calloc(1, sizeof *report);
    *report =
        (struct demo_report){.members = 3, .rounds_count = 1, .acks = acks, .acks_count = COUNT(acks), .problem = ""};
    report->rounds[0] = (struct demo_round){"kill", "m1", "m2", 180, 185, 2100, 0};
    json_t *all = report_json(report);
    char *text = json_dumps(all, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(3));
    assert_string_equal(text,
                        "{\"rounds\": [{\"fault\": \"kill\", \"outage_ms\": 180, \"lost\": 0, \"redundant_ms\": 2100, "
                        "\"next_write_ms\": 185, \"from\": \"m1\", \"to\": \"m2\"}], \"members\": 3, "
                        "\"acknowledged\": 5, \"lost\": 0, \"outage_median_ms\": 180, \"outage_worst_ms\": 180, "
                        "\"latency_ms\": {\"median\": 1.0, \"p99\": 5.0, \"worst\": 5.0}}");
    free(text);
    json_decref(all);
    report->problem = "no primary";
    all = report_json(report);
    assert_string_equal(json_string_value(json_object_get(all, "problem")), "no primary");
    json_decref(all);
    free(report);
}

static void test_screen_redraws_in_place(void **state) {
    (void)state;
    char *text;
    size_t size;
    struct screen screen;
    FILE *out = open_memstream(&text, &size);
    screen_open(&screen, out, true);
    screen_draw(&screen, "one\ntwo\n");
    screen_say(&screen, "said %d", 1);
    screen_draw(&screen, "three\n");
    screen_draw(&screen, "four\n");
    screen_close(&screen);
    fclose(out);
    assert_string_equal(text, "\033[?25l"
                              "\033[?7lone\033[K\ntwo\033[K\n\033[J\033[?7h"
                              "\r\033[2A\033[Jsaid 1\n"
                              "\033[?7lthree\033[K\n\033[J\033[?7h"
                              "\r\033[1A\033[?7lfour\033[K\n\033[J\033[?7h"
                              "\033[?25h");
    free(text);
}

/* ---- watching ---- */

#define MEMBERS(m3_state, m3_sync)                                                                      \
    "\"members\": [{\"name\": \"m1\", \"duty\": \"primary\", \"state\": \"running\", \"sync\": \"-\"}," \
    "{\"name\": \"m2\", \"duty\": \"standby\", \"state\": \"streaming\", \"sync\": \"sync\"},"          \
    "{\"name\": \"m3\", \"duty\": \"standby\", \"state\": \"" m3_state "\", \"sync\": \"" m3_sync "\"}]"
#define STATUS(open, fresh, rules, m3_state, m3_sync)                                                  \
    "{\"epoch\": 4, \"primary\": \"m1\", \"open\": " open ", \"fresh\": " fresh ", \"rules\": [" rules \
    "], " MEMBERS(m3_state, m3_sync) "}"
#define RULE "\"ANY 1 (m2, m3)\""

static void test_redundant_when_nothing_is_left_to_do(void **state) {
    (void)state;
    static const struct {
        const char *status;
        bool redundant;
    } rows[] = {
        {STATUS("true", "true", RULE, "streaming", "sync"), true},
        {STATUS("false", "true", RULE, "streaming", "sync"), false},
        {STATUS("true", "false", RULE, "streaming", "sync"), false},
        {STATUS("true", "true", RULE ", " RULE, "streaming", "sync"), false},
        {STATUS("true", "true", RULE, "down", "-"), false},
        {STATUS("true", "true", RULE, "streaming", "async"), false},
        {"{\"epoch\": 0, \"primary\": null, \"open\": false, \"fresh\": true, \"rules\": [], \"members\": []}", false},
    };
    assert_false(status_redundant(NULL));
    for (size_t i = 0; i < COUNT(rows); i++) {
        json_t *view = json_loads(rows[i].status, 0, NULL);
        assert_non_null(view);
        assert_int_equal(status_redundant(view), rows[i].redundant);
        json_decref(view);
    }
}

static void test_summary_is_one_line(void **state) {
    (void)state;
    char line[128], small[16];
    json_t *view = json_loads(STATUS("false", "true", RULE, "down", "-"), 0, NULL);
    status_summary(view, line, sizeof line);
    assert_string_equal(line, "epoch 4, primary m1, not yet open; m2 streaming (counts); m3 down");
    status_summary(view, small, sizeof small);
    assert_true(strlen(small) < sizeof small);
    json_decref(view);
    status_summary(NULL, line, sizeof line);
    assert_string_equal(line, "no daemon answers yet");
}

/* ---- processes ---- */

static bool has(const struct processes *set, pid_t pid) {
    for (unsigned i = 0; i < set->count; i++)
        if (set->list[i] == pid)
            return true;
    return false;
}

/* A child with a child, both waiting to be killed; the grandchild's pid comes through `pipe`. */
static pid_t start_family(const int ends[2]) {
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild > 0 && write(ends[1], &grandchild, sizeof grandchild) != sizeof grandchild)
            _exit(1);
        for (;;)
            pause();
    }
    return child;
}

static void test_orphans_are_found(void **state) {
    (void)state;
    int ends[2];
    pid_t grandchild;
    struct processes *set = calloc(1, sizeof *set);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    pid_t child = start_family(ends);
    assert_int_equal(read(ends[0], &grandchild, sizeof grandchild), sizeof grandchild);
    assert_int_equal(process_parent(grandchild), child);

    processes_add_ours(set);
    assert_true(has(set, child) && has(set, grandchild) && !has(set, getpid()));
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    set->count = 0;
    processes_add_ours(set);
    assert_true(has(set, grandchild) && !has(set, child));
    processes_signal(set, SIGKILL);
    assert_int_equal(waitpid(grandchild, NULL, 0), grandchild);
    assert_int_equal(process_parent(grandchild), 0);
    close(ends[0]);
    close(ends[1]);
    free(set);
}

static void test_marked_are_found(void **state) {
    (void)state;
    int said[2], never[2];
    char ready;
    struct processes *set = calloc(1, sizeof *set);
    assert_int_equal(pipe(said), 0);
    assert_int_equal(pipe(never), 0);
    pid_t child = fork();
    if (child == 0) {
        char *argv[] = {"sh", "-c", "echo; read line", NULL}, *environment[] = {"A=b", "TTORCH_TEST=/x/y", NULL};
        dup2(said[1], STDOUT_FILENO);
        dup2(never[0], STDIN_FILENO);
        execve("/bin/sh", argv, environment);
        _exit(1);
    }
    assert_int_equal(read(said[0], &ready, 1), 1);
    processes_add_marked(set, "TTORCH_TEST", "/x");
    assert_false(has(set, child));
    processes_add_marked(set, "TTORCH_TEST", "/x/y");
    assert_true(has(set, child));
    processes_signal(set, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    for (unsigned i = 0; i < 2; i++) {
        close(said[i]);
        close(never[i]);
    }
    free(set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gap_is_between_acknowledgements),
        cmocka_unit_test(test_median_and_worst),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_screen_redraws_in_place),
        cmocka_unit_test(test_redundant_when_nothing_is_left_to_do),
        cmocka_unit_test(test_summary_is_one_line),
        cmocka_unit_test(test_orphans_are_found),
        cmocka_unit_test(test_marked_are_found),
    };
    return cmocka_run_group_tests_name("demo", tests, fill_acks, NULL);
}
