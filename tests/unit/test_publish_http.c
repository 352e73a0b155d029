#include "tests/unit/publish_world.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "publish/checks.h"
#include "publish/http.h"
#include "publish/metrics.h"

/* ---- checks: our member is m2 ---- */

static void standby(struct world *w) { (void)w; }
static void primary(struct world *w) {
    w->topology.primary.member = 2;
    Observation *seen = observation(w, 2, SERVER_PRIMARY, 0x3000);
    seen->running_epoch = 3;
}
static void primary_not_open(struct world *w) {
    primary(w);
    w->topology.open = false;
}
static void primary_not_promoted(struct world *w) {
    primary(w);
    observation(w, 2, SERVER_STANDBY, 0x3000);
}
static void primary_of_before(struct world *w) {
    primary(w);
    w->seen[1].running_epoch = 2;
}
static void primary_sealed(struct world *w) {
    primary(w);
    w->topology.sealed = true;
}
static void primary_stale(struct world *w) {
    primary(w);
    w->face.fresh = false;
}
static void primary_stale_by_now(struct world *w) {
    primary(w);
    w->face.fresh_until = 1;
}
static void primary_lease_over(struct world *w) {
    primary(w);
    w->face.lease_until = 1;
}
static void standby_stale(struct world *w) { w->face.fresh = false; }
static void standby_async(struct world *w) { w->topology.rules[0].needed = 0; }
static void standby_lags(struct world *w) { w->seen[0].senders[0].flush_lsn = 0x3000 - 0x800; }
static void standby_replays_late(struct world *w) { w->seen[1].position.lsn = 0x3000 - 0x800; }
static void standby_detached(struct world *w) { w->seen[1].streaming = false; }
static void standby_diverged(struct world *w) {
    standby_detached(w);
    w->seen[1].position.timeline = 3;
}
static void standby_down(struct world *w) { observation(w, 2, SERVER_DOWN, 0); }
static void we_are_witness(struct world *w) { w->face.self = 4; }
static void unfounded(struct world *w) {
    w->topology = (Topology){0};
    w->face.self = 0;
}

static const char *const paths[] = {
    "/",      "/primary",     "/read-write", "/leader",       "/standby-leader", "/replica",
    "/sync",  "/synchronous", "/read-only",  "/quorum",       "/read-only-sync", "/read-only-quorum",
    "/async", "/health",      "/liveness",   "/asynchronous", "/readiness",      "/master",
};

/* Which of the paths answer 200; the others must say 503. */
static const struct {
    void (*change)(struct world *w);
    const char *good[16];
} checks[] = {
    {standby,
     {"/replica", "/sync", "/synchronous", "/read-only", "/quorum", "/read-only-sync", "/read-only-quorum", "/health",
      "/liveness", "/readiness"}},
    {primary,
     {"/", "/primary", "/read-write", "/master", "/leader", "/read-only", "/read-only-sync", "/read-only-quorum",
      "/health", "/liveness", "/readiness"}},
    {primary_not_open, {"/leader", "/health", "/liveness"}},
    {primary_not_promoted, {"/leader", "/health", "/liveness"}},
    {primary_of_before, {"/leader", "/health", "/liveness"}},
    {primary_sealed, {"/health", "/liveness"}},
    {primary_stale, {"/health", "/liveness"}},
    {primary_stale_by_now, {"/health", "/liveness"}},
    {primary_lease_over, {"/health", "/liveness"}},
    {standby_stale, {"/health", "/liveness"}},
    {standby_async, {"/replica", "/read-only", "/async", "/asynchronous", "/health", "/liveness", "/readiness"}},
    {standby_detached, {"/replica", "/read-only", "/async", "/asynchronous", "/health", "/liveness"}},
    {standby_diverged, {"/health", "/liveness"}},
    {standby_down, {"/liveness"}},
    {we_are_witness, {"/liveness"}},
    {unfounded, {"/liveness"}},
};

static bool listed(const char *const *list, unsigned max, const char *path) {
    for (unsigned i = 0; i < max && list[i] != NULL; i++)
        if (strcmp(list[i], path) == 0)
            return true;
    return false;
}

static void test_checks(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof checks / sizeof *checks; i++) {
        world_reset(w);
        checks[i].change(w);
        for (unsigned p = 0; p < sizeof paths / sizeof *paths; p++) {
            bool good = listed(checks[i].good, 16, paths[p]);
            struct check_query query = {.now = time_now(), .lag_bytes_max = UINT64_MAX};
            assert_non_null(check_find(paths[p]));
            if (check_find(paths[p])->passes(&w->face, &query) != good)
                fail_msg("row %u: %s", i, paths[p]);
        }
    }
}

static const struct {
    const char *method, *path;
    void (*change)(struct world *w);
    long http_status;
    const char *says;
} requests[] = {
    {"GET", "/", primary, 200, "\"role\": \"primary\""},
    {"GET", "/primary", primary, 200, "\"location\": 12288"},
    {"HEAD", "/primary", primary, 200, ""},
    {"OPTIONS", "/primary", primary, 200, ""},
    {"OPTIONS", "/", standby, 503, ""},
    {"HEAD", "/primary", standby, 503, ""},
    {"GET", "/primary", standby, 503, "\"role\": \"replica\""},
    {"GET", "/replica", standby, 200, "\"replication_state\": \"streaming\""},
    {"GET", "/replica?lag=0", standby, 200, ""},
    {"GET", "/replica?lag=2047", standby_replays_late, 503, ""},
    {"GET", "/replica?lag=2048", standby_replays_late, 200, ""},
    {"GET", "/replica?lag=1kB", standby_replays_late, 503, ""},
    {"GET", "/replica?lag=2kB", standby_replays_late, 200, ""},
    {"GET", "/replica?lag=16MB", standby_lags, 200, ""},
    {"GET", "/replica?lag=1kB", standby_lags, 200, ""}, /* what readers see counts, as Patroni has it */
    {"GET", "/async?lag=16MB", standby_async, 200, ""},
    {"GET", "/readiness?lag=1kB", standby_replays_late, 503, ""},
    {"GET", "/readiness?lag=1kB&mode=apply", standby_replays_late, 503, ""},
    {"GET", "/readiness?lag=1kB&mode=write", standby_replays_late, 200, ""},
    {"GET", "/readiness?lag=1kB&mode=write", standby_lags, 503, ""},
    {"GET", "/readiness?lag=1kB", primary, 200, ""},
    {"GET", "/replica?tag_zone=a", standby, 503, ""}, /* we have no tags */
    {"OPTIONS", "/replica?lag=16MB&tag_zone=a", standby, 503, ""},
    {"GET", "/read-only?tag_zone", standby, 503, ""},
    {"GET", "/sync?tag_zone=a", standby, 503, ""},
    {"GET", "/primary?tag_zone=a", primary, 200, ""}, /* where Patroni ignores them, too */
    {"GET", "/leader?tag_zone=a", primary, 200, ""},
    {"GET", "/readiness?tag_zone=a", primary, 200, ""},
    {"GET", "/replica?tags=a", standby, 200, ""},
    {"GET", "/replica?lag=16MB", standby_diverged, 503, ""},
    {"GET", "/replica?lag=x", standby, 400, "lag: expected"},
    {"GET", "/replica?lag=99999999999TB", standby, 400, "lag: expected"},
    {"GET", "/replica?lag", standby, 400, "lag: expected"},
    {"GET", "/replica?replication_state=streaming", standby, 200, ""},
    {"GET", "/replica?replication_state=streaming", standby_detached, 503, ""},
    {"GET", "/patroni", standby, 200, "\"scope\": \"shop\""},
    {"GET", "/patroni", unfounded, 200, "\"state\": \"unknown\""},
    {"GET", "/patroni", we_are_witness, 200, "\"state\": \"stopped\""},
    {"GET", "/cluster", standby, 200, "\"role\": \"leader\""},
    {"GET", "/cluster", standby, 200, "\"lag\": 4096"},
    {"GET", "/history", standby, 200, "[]"},
    {"GET", "/metrics", primary, 200, "ttorch_primary{scope=\"shop\",name=\"m2\"} 1\n"},
    {"GET", "/metrics", standby, 200, "ttorch_member_lag_bytes{scope=\"shop\",name=\"m2\",member=\"m3\"} 4096\n"},
    {"GET", "/metrics", unfounded, 200, "ttorch_primary{scope=\"\",name=\"m2\"} 0\n"},
    {"GET", "/v1/health", standby, 200, "\"severity\": \"ok\""},
};

static void test_requests(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof requests / sizeof *requests; i++) {
        world_reset(w);
        requests[i].change(w);
        changed(w);
        struct client_job job = {.method = requests[i].method, .path = requests[i].path, .tcp = true};
        ask(w, &job);
        if (job.code != CURLE_OK || job.http_status != requests[i].http_status ||
            strstr(job.answer, requests[i].says) == NULL)
            fail_msg("%s %s: %d, %ld %s", job.method, job.path, (int)job.code, job.http_status, job.answer);
        if (strcmp(job.method, "GET") != 0)
            assert_int_equal(job.length, 0);
    }
}

/* Without any event, and although the face was filled only just now. */
static void test_primary_ends_with_its_lease(void **state) {
    struct world *w = *state;
    primary(w);
    for (uint64_t lease_ms = 300;; lease_ms *= 2) { /* a busy machine may take longer to ask */
        w->face.lease_until = time_now() + msec(lease_ms);
        changed(w);
        struct client_job job = {.method = "GET", .path = "/primary", .tcp = true};
        ask(w, &job);
        if (job.http_status == 200)
            break;
        assert_true(time_now() >= w->face.lease_until);
    }
    while (time_now() < w->face.lease_until)
        poll(NULL, 0, 1);
    struct client_job later = {.method = "GET", .path = "/primary", .tcp = true};
    ask(w, &later);
    assert_int_equal(later.http_status, 503);
}

static void test_history_as_patroni(void **state) {
    struct world *w = *state;
    w->topology.epochs[1] = w->topology.epochs[0];
    w->topology.epochs[1].base = (Position){.timeline = 4, .lsn = 0x4000};
    w->topology.epochs_count = 2;
    char *text = patroni_history_json(&w->face);
    json_t *json = json_loads(text, 0, NULL), *row = json_array_get(json, 0);
    assert_int_equal(json_array_size(json), 1);
    assert_int_equal(json_integer_value(json_array_get(row, 0)), 4);
    assert_int_equal(json_integer_value(json_array_get(row, 1)), 0x4000);
    assert_string_equal(json_string_value(json_array_get(row, 2)), "m2 failed");
    assert_string_equal(json_string_value(json_array_get(row, 3)), "1970-01-01T00:00:01+00:00");
    assert_string_equal(json_string_value(json_array_get(row, 4)), "m1");
    json_decref(json);
    free(text);
}

/* Each name is declared once before its samples, and each value is a number. */
static void test_metrics_lines(void **state) {
    struct world *w = *state;
    char *text = metrics_text(&w->face, time_now()), *rest = text, *line, name[80] = "", *end;
    unsigned samples = 0;
    while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') {
        if (sscanf(line, "# TYPE %79s", name) == 1 || strncmp(line, "# HELP ", 7) == 0)
            continue;
        assert_int_equal(strncmp(line, name, strlen(name)), 0);
        assert_int_equal(line[strlen(name)], '{');
        char *space = strrchr(line, ' ');
        assert_non_null(space);
        (void)strtod(space + 1, &end);
        assert_true(end > space + 1 && *end == '\0');
        samples++;
    }
    assert_in_range(samples, 30, 100);
    free(text);
}

/* ---- health and why ---- */

static void lag_4s(struct world *w) { w->seen[0].senders[1].replay_lag_ms = 4000; }
static void lag_6s(struct world *w) { w->seen[0].senders[1].replay_lag_ms = 6000; }
static void lag_31s(struct world *w) { w->seen[0].senders[1].replay_lag_ms = 31000; }
static void m3_silent(struct world *w) { w->face.members[2].age_ms = 2500; }
static void m3_down(struct world *w) { observation(w, 3, SERVER_DOWN, 0); }
static void m3_detached(struct world *w) { w->seen[2].streaming = false; }
static void m2_slow(struct world *w) {
    w->face.response_known = true;
    w->face.response_ms = 101;
}
static void m2_very_slow(struct world *w) {
    m2_slow(w);
    w->face.response_ms = 501;
}
static void m3_troubled(struct world *w) { strcpy(w->seen[2].trouble, "rewind: no"); }
static void not_open(struct world *w) { w->topology.open = false; }
static void nothing_changed(struct world *w) { (void)w; }

static void observer_silent(struct world *w) {
    w->topology.members[2].observer = true;
    w->face.members[2].age_ms = 4500;
}
static void observer_seldom_heard(struct world *w) {
    w->topology.members[2].observer = true;
    w->face.members[2].age_ms = 3500;
}
static void observers_unheard(struct world *w) {
    observer_silent(w);
    w->topology.members[1].observer = true; /* we */
}

static const struct {
    void (*change)(struct world *w);
    const char *severity, *reason;
} healths[] = {
    {nothing_changed, "ok", ""},
    {lag_4s, "ok", ""},
    {lag_6s, "warning", "it lags"},
    {lag_31s, "critical", "it lags"},
    {m3_silent, "critical", "it is not heard"},
    {observer_silent, "warning", "it is not heard"},
    {observer_seldom_heard, "ok", ""},
    {observers_unheard, "ok", ""},
    {m3_down, "critical", "its PostgreSQL does not run"},
    {m3_detached, "warning", "it does not stream"},
    {m2_slow, "warning", "its PostgreSQL answers late"},
    {m2_very_slow, "critical", "its PostgreSQL answers late"},
    {m3_troubled, "warning", "rewind: no"},
    {standby_stale, "critical", "this member is not in touch with a majority"},
    {not_open, "critical", "there is no open primary"},
};

static void test_health(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof healths / sizeof *healths; i++) {
        world_reset(w);
        healths[i].change(w);
        char *text = face_health_json(&w->face, &w->config.health);
        json_t *json = json_loads(text, 0, NULL);
        assert_non_null(json);
        if (strcmp(json_string_value(json_object_get(json, "severity")), healths[i].severity) != 0 ||
            strcmp(json_string_value(json_object_get(json, "reason")), healths[i].reason) != 0)
            fail_msg("row %u: %s", i, text);
        assert_int_equal(json_array_size(json_object_get(json, "members")), 4);
        json_decref(json);
        free(text);
    }
}

static const char *why(struct world *w) {
    static char sentence[200];
    char *text = face_why_json(&w->face);
    json_t *json = json_loads(text, 0, NULL);
    snprintf(sentence, sizeof sentence, "%s", json_string_value(json_object_get(json, "why")));
    json_decref(json);
    free(text);
    return sentence;
}

static void test_why(void **state) {
    struct world *w = *state;
    strcpy(w->seen[2].activity, "waits for m1");
    assert_string_equal(why(w), "waits for m1"); /* as the coordinator, m3, tells us */
    w->face.leader = "m2";
    w->face.why = "waits for m3";
    assert_string_equal(why(w), "waits for m3");
    w->face.leader = "";
    assert_string_equal(why(w), "");
}

/* ---- waiting for a change ---- */

static int connect_tcp(const struct world *w) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(w->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void ask_for(int fd, const char *path) {
    char request[200];
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    assert_int_equal(send(fd, request, (size_t)length, MSG_NOSIGNAL), length);
}

/* Lets the loop run until `fd` has something to say, and returns it. */
static const char *hear(struct world *w, int fd) {
    static char text[16384];
    ssize_t got;
    while ((got = recv(fd, text, sizeof text - 1, MSG_DONTWAIT)) < 0)
        uv_run(&w->loop, UV_RUN_NOWAIT);
    text[got] = '\0';
    return text;
}

/* Turns of the loop in which nothing comes. */
static void expect_silence(struct world *w, int fd) {
    char byte;
    for (unsigned i = 0; i < 200; i++) {
        uv_run(&w->loop, UV_RUN_NOWAIT);
        assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    }
}

static void test_watch(void **state) {
    struct world *w = *state;
    changed(w);
    int fd = connect_tcp(w);
    ask_for(fd, "/v1/topology?index=70&wait=30s");
    expect_silence(w, fd);
    w->topology.index = 71;
    publish_changed(w->publish);
    const char *answer = hear(w, fd);
    assert_non_null(strstr(answer, " 200 "));
    assert_non_null(strstr(answer, "\"index\": 71"));
    ask_for(fd, "/v1/topology?index=71&wait=30s&fresh=true");
    expect_silence(w, fd);
    w->face.fresh = false;
    publish_changed(w->publish);
    assert_non_null(strstr(hear(w, fd), " 503 "));
    close(fd);
}

static void test_watch_ends_in_time(void **state) {
    struct world *w = *state;
    uint64_t began = uv_hrtime();
    struct client_job job = {.method = "GET", .path = "/v1/topology?index=70&wait=300ms", .tcp = true};
    ask(w, &job);
    assert_int_equal(job.http_status, 200);
    assert_in_range((uv_hrtime() - began) / NSEC_PER_MSEC, 290, 60000);
}

static void test_watch_ends_with_the_daemon(void **state) {
    struct world *w = *state;
    int fd = connect_tcp(w), local = connect_tcp(w);
    ask_for(fd, "/v1/topology?index=70&wait=30s");
    ask_for(local, "/v1/topology/stream");
    assert_non_null(strstr(hear(w, local), "event: topology"));
    expect_silence(w, fd);
    world_close(w);
    assert_non_null(strstr(hear(w, fd), "\"index\": 70"));
    close(fd);
    close(local);
}

static void test_stream(void **state) {
    struct world *w = *state;
    changed(w);
    int fd = connect_tcp(w), gone = connect_tcp(w);
    ask_for(fd, "/v1/topology/stream");
    ask_for(gone, "/v1/topology/stream");
    const char *text = hear(w, fd);
    assert_non_null(strstr(text, "text/event-stream"));
    assert_non_null(strstr(text, "id: 70\nevent: topology\ndata: {"));
    expect_silence(w, fd);
    close(gone);
    for (uint64_t index = 71; index < 80; index++) {
        char id[32];
        snprintf(id, sizeof id, "id: %d\n", (int)index);
        w->topology.index = index;
        publish_changed(w->publish);
        assert_non_null(strstr(hear(w, fd), id));
    }
    close(fd);
}

/* Who does not read gets the newest when it reads again, however many came in between. */
static void test_stream_that_is_not_read(void **state) {
    struct world *w = *state;
    int small = 131072, fd = connect_tcp(w);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    ask_for(fd, "/v1/topology/stream");
    hear(w, fd);
    uint64_t began = uv_hrtime(); /* the server hangs up on who is silent for longer */
    for (unsigned i = 0; i < 12000 && uv_hrtime() - began < 2 * NSEC_PER_SEC; i++) {
        w->topology.index++;
        publish_changed(w->publish);
        uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    char newest[32], text[4096] = "";
    snprintf(newest, sizeof newest, "id: %d\n", (int)w->topology.index);
    size_t kept = 0;
    while (strstr(text, newest) == NULL) {
        ssize_t got = recv(fd, text + kept, sizeof text - 1 - kept, MSG_DONTWAIT);
        assert_int_not_equal(got, 0);
        if (got < 0)
            uv_run(&w->loop, UV_RUN_NOWAIT);
        else
            kept += (size_t)got;
        text[kept] = '\0';
        if (kept > sizeof text / 2 && strstr(text, newest) == NULL) {
            memmove(text, text + kept - 64, 65); /* the words sought may come in two parts */
            kept = 64;
        }
    }
    close(fd);
}

/* ---- many of them ---- */

#define WATCHERS 1000

static unsigned waiting(struct world *w, const int *fds) {
    char byte;
    unsigned count = 0;
    for (unsigned i = 0; i < WATCHERS; i++)
        count += recv(fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0;
    (void)w;
    return count;
}

static void test_thousand_watchers(void **state) {
    struct world *w = *state;
    static int fds[WATCHERS];
    changed(w);
    for (unsigned i = 0; i < WATCHERS; i++) {
        fds[i] = connect_tcp(w);
        ask_for(fds[i], i % 2 == 0 ? "/v1/topology?index=70&wait=60s" : "/v1/topology?index=70&wait=59s");
        if (i % 50 == 0)
            uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    for (unsigned i = 0; i < 300; i++)
        uv_run(&w->loop, UV_RUN_NOWAIT);
    assert_int_equal(waiting(w, fds), WATCHERS);
    w->topology.index = 71;
    uint64_t began = uv_hrtime();
    clock_t cpu = clock();
    publish_changed(w->publish);
    while (waiting(w, fds) > 0)
        uv_run(&w->loop, UV_RUN_NOWAIT);
    uint64_t took_ms = (uv_hrtime() - began) / NSEC_PER_MSEC;
    uint64_t cpu_ms = (uint64_t)(clock() - cpu) * 1000 / CLOCKS_PER_SEC;
    print_message("# 1000 watchers woken in %d ms, of which %d ms at work\n", (int)took_ms, (int)cpu_ms);
    assert_in_range(cpu_ms, 0, 5000); /* below 50 without sanitizers on an idle machine */
    for (unsigned i = 0; i < WATCHERS; i++)
        close(fds[i]);
}

/* A header a second is no silence: the whole request must come in time. */
static void test_slow_request_is_bounded(void **state) {
    struct world *w = *state;
    int fd = connect_tcp(w);
    assert_int_equal(send(fd, "GET / HTTP/1.1\r\n", 16, MSG_NOSIGNAL), 16);
    uint64_t began = uv_hrtime(), sent = began;
    char byte;
    while (recv(fd, &byte, 1, MSG_DONTWAIT) < 0) {
        uv_run(&w->loop, UV_RUN_NOWAIT);
        poll(NULL, 0, 5);
        if (uv_hrtime() - sent < NSEC_PER_SEC)
            continue;
        sent = uv_hrtime();
        (void)!send(fd, "A: b\r\n", 6, MSG_NOSIGNAL);
    }
    assert_in_range((uv_hrtime() - began) / NSEC_PER_SEC, HTTP_REQUEST_MAX_SECONDS - 1, HTTP_REQUEST_MAX_SECONDS + 60);
    close(fd);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const struct CMUnitTest tests[] = {
        TEST(test_checks),
        TEST(test_requests),
        TEST(test_primary_ends_with_its_lease),
        TEST(test_history_as_patroni),
        TEST(test_metrics_lines),
        TEST(test_health),
        TEST(test_why),
        TEST(test_watch),
        TEST(test_watch_ends_in_time),
        TEST(test_watch_ends_with_the_daemon),
        TEST(test_stream),
        TEST(test_stream_that_is_not_read),
        TEST(test_thousand_watchers),
        TEST(test_slow_request_is_bounded),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
