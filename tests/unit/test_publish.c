#include "tests/unit/publish_world.h"

#include <curl/curl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "publish/file.h"
#include "publish/http.h"
#include "publish/publish.h"

/* ---- the JSON texts ---- */

static void no_change(struct world *w) { (void)w; }
static void not_fresh(struct world *w) { w->face.fresh = false; }
static void not_open(struct world *w) { w->topology.open = false; }
static void sealed(struct world *w) {
    w->topology.sealed = true;
    w->topology.open = false;
}
static void before_founding(struct world *w) {
    w->topology = (Topology){0};
    w->face.waiting = "for m1 and m3";
}
static void before_first(struct world *w) {
    w->topology.epoch = 0;
    w->topology.open = false;
    w->topology.primary = (Copy){0};
    w->topology.rules_count = w->topology.epochs_count = 0;
}
static void m3_silent(struct world *w) { w->face.members[2].age_ms = 2500; }
static void m3_unheard(struct world *w) { w->face.members[2].heard = false; }
static void m3_down(struct world *w) { observation(w, 3, SERVER_DOWN, 0x2000); }
static void m3_hung(struct world *w) { observation(w, 3, SERVER_HUNG, 0x2000); }
static void m3_cloning(struct world *w) {
    Observation *seen = observation(w, 3, SERVER_DOWN, 0);
    seen->data = DATA_BROKEN;
    strcpy(seen->activity, "cloning from m1: 43 %");
}
static void m3_refused(struct world *w) { observation(w, 3, SERVER_DOWN, 0)->data = DATA_REFUSED; }
static void m3_detached(struct world *w) { observation(w, 3, SERVER_STANDBY, 0x2000)->streaming = false; }
static void m3_diverged(struct world *w) {
    Observation *seen = observation(w, 3, SERVER_STANDBY, 0x9000);
    seen->streaming = false;
    seen->position.timeline = 3;
    w->seen[0].senders_count = 1;
}
static void m3_catches_up(struct world *w) { strcpy(w->seen[0].senders[1].state, "catchup"); }
static void m3_new_copy(struct world *w) { w->seen[2].copy = 2; }
static void m3_strange_bytes(struct world *w) { strcpy(w->seen[2].trouble, "caf\xe9\x01"); }
static void m1_silent(struct world *w) { w->face.members[0].age_ms = 2500; }
static void m2_promoting(struct world *w) {
    w->topology.epoch = 4;
    w->topology.primary.member = 2;
    w->topology.open = false;
}
static void degraded(struct world *w) {
    w->topology.rules[0].needed = 0;
    w->topology.rules[0].standbys_count = 0;
}
static void async(struct world *w) {
    degraded(w);
    w->topology.settings.durability = DURABILITY_ASYNC;
}
static void joint(struct world *w) {
    w->topology.rules[1] = w->topology.rules[0];
    w->topology.rules[1].standbys_count = 1;
    w->topology.rules_count = 2;
}
static void switching(struct world *w) {
    w->topology.intent = (Intent){.kind = INTENT_SWITCHOVER, .from = 1, .to = 2, .epoch = 3, .number = 69};
}

/* We and m3 have no vote, so we do not hear it. */
static void observers(struct world *w) {
    degraded(w);
    w->topology.members[1].observer = w->topology.members[2].observer = true;
    w->face.members[2].heard = false;
}
static void observers_catching_up(struct world *w) {
    observers(w);
    m3_catches_up(w);
}
static void observers_seldom_heard(struct world *w) {
    observers(w);
    w->face.members[0].age_ms = 3500;
}
static void observer_unheard_by_voter(struct world *w) {
    observers(w);
    w->face.self = 1;
}

static json_t *parsed(char *text) {
    assert_non_null(text);
    json_error_t mistake;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &mistake);
    if (json == NULL)
        fail_msg("%s: %s", mistake.text, text);
    free(text);
    return json;
}

#define M1_PRIMARY "'primary':{'member':'m1','host':'10.0.0.1','port':5431}"
#define STANDBYS(m2, m3)                                           \
    "'standbys':[{'member':'m2','host':'10.0.0.2','port':5432," m2 \
    "},{'member':'m3','host':'10.0.0.3','port':5433," m3 "}]"
#define M2_OK     "'state':'streaming','lag_bytes':0,'lag_ms':0,'sync':true"
#define M3_OK     "'state':'streaming','lag_bytes':4096,'lag_ms':12,'sync':true"
#define M3(state) "'state':'" state "','lag_bytes':4096,'lag_ms':12,'sync':false"
#define HEAD(epoch, fresh, open) \
    "{'cluster':'shop','cluster_id':'0000000000000abc','epoch':" epoch ",'index':70,'fresh':" fresh ",'open':" open ","

static const struct {
    const char *name;
    void (*change)(struct world *w);
    const char *json; /* with ' for " */
} topologies[] = {
    {"healthy", no_change, HEAD("3", "true", "true") M1_PRIMARY "," STANDBYS(M2_OK, M3_OK) "}"},
    {"not fresh", not_fresh, HEAD("3", "false", "true") "'primary':null," STANDBYS(M2_OK, M3_OK) "}"},
    {"not open", not_open, HEAD("3", "true", "false") "'primary':null," STANDBYS(M2_OK, M3_OK) "}"},
    {"silent", m3_silent,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS(M2_OK, "'state':'unreachable','lag_bytes':null,'lag_ms':12,'sync':false") "}"},
    {"detached", m3_detached, HEAD("3", "true", "true") M1_PRIMARY "," STANDBYS(M2_OK, M3("not streaming")) "}"},
    {"diverged", m3_diverged,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS(M2_OK, "'state':'not streaming','lag_bytes':null,'lag_ms':null,'sync':false") "}"},
    {"catching up", m3_catches_up,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS(M2_OK, "'state':'catching up','lag_bytes':4096,'lag_ms':12,'sync':true") "}"},
    {"new copy", m3_new_copy, HEAD("3", "true", "true") M1_PRIMARY "," STANDBYS(M2_OK, M3("streaming")) "}"},
    {"primary silent", m1_silent,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS("'state':'streaming','lag_bytes':null,'lag_ms':null,'sync':true",
                  "'state':'streaming','lag_bytes':null,'lag_ms':null,'sync':true") "}"},
    {"observers", observers,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS("'state':'streaming','lag_bytes':0,'lag_ms':0,'sync':false", M3("streaming")) "}"},
    {"an observer catches up", observers_catching_up,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS("'state':'streaming','lag_bytes':0,'lag_ms':0,'sync':false", M3("catching up")) "}"},
    {"observers, primary seldom heard", observers_seldom_heard,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS("'state':'streaming','lag_bytes':0,'lag_ms':0,'sync':false", M3("streaming")) "}"},
    {"observer that a voter does not hear", observer_unheard_by_voter,
     HEAD("3", "true", "true") M1_PRIMARY
     "," STANDBYS("'state':'streaming','lag_bytes':0,'lag_ms':0,'sync':false",
                  "'state':'unknown','lag_bytes':null,'lag_ms':12,'sync':false") "}"},
    {"before founding", before_founding,
     "{'cluster':'','cluster_id':'0000000000000000','epoch':0,'index':0,'fresh':true,'open':false,'primary':null,"
     "'standbys':[]}"},
};

static json_t *expected_json(const char *quoted) {
    char *text = strdup(quoted);
    for (char *at = text; *at != '\0'; at++)
        if (*at == '\'')
            *at = '"';
    return parsed(text);
}

static void test_topology_json(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof topologies / sizeof *topologies; i++) {
        world_reset(w);
        topologies[i].change(w);
        json_t *is = parsed(face_topology_json(&w->face)), *should = expected_json(topologies[i].json);
        if (!json_equal(is, should))
            fail_msg("%s: %s", topologies[i].name, json_dumps(is, 0));
        json_decref(is);
        json_decref(should);
    }
}

static void test_topology_after_seal(void **state) {
    struct world *w = *state;
    sealed(w);
    json_t *json = parsed(face_topology_json(&w->face));
    assert_true(json_is_null(json_object_get(json, "primary")));
    json_t *standbys = json_object_get(json, "standbys");
    assert_int_equal(json_array_size(standbys), 3); /* the former primary is one of those to come */
    assert_string_equal(json_string_value(json_object_get(json_array_get(standbys, 0), "state")), "former primary");
    json_decref(json);
}

/* "members.1.state" */
static const json_t *at_path(const json_t *json, const char *path) {
    char copy[64], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *key; json != NULL && (key = strsep(&rest, ".")) != NULL;)
        json = json_is_array(json) ? json_array_get(json, (size_t)atoi(key)) : json_object_get(json, key);
    return json;
}

static const struct {
    void (*change)(struct world *w);
    const char *path, *value; /* as JSON, with ' for " */
} statuses[] = {
    {no_change, "cluster", "'shop'"},
    {no_change, "cluster_id", "'0000000000000abc'"},
    {no_change, "self", "'m2'"},
    {no_change, "version", "'9.9'"},
    {no_change, "leader", "'m3'"},
    {no_change, "term", "5"},
    {no_change, "epoch", "3"},
    {no_change, "index", "70"},
    {no_change, "timeline", "4"},
    {no_change, "primary", "'m1'"},
    {no_change, "open", "true"},
    {no_change, "sealed", "false"},
    {no_change, "fresh", "true"},
    {not_fresh, "fresh", "false"},
    {not_fresh, "primary", "'m1'"},
    {no_change, "since_ms", "2000"},
    {m2_promoting, "since_ms", "null"},
    {no_change, "rules", "['ANY 1 (m2, m3)']"},
    {joint, "rules", "['ANY 1 (m2, m3)','ANY 1 (m2)']"},
    {degraded, "rules", "['none']"},
    {before_first, "rules", "[]"},
    {no_change, "degraded", "false"},
    {degraded, "degraded", "true"},
    {async, "degraded", "false"},
    {async, "durability", "'async'"},
    {no_change, "durability", "'quorum'"},
    {no_change, "lease_ms", "2000"},
    {no_change, "superuser", "'postgres'"},
    {no_change, "waiting", "''"},
    {before_founding, "waiting", "'for m1 and m3'"},
    {before_founding, "members", "[]"},
    {no_change, "switchover", "null"},
    {switching, "switchover", "{'from':'m1','to':'m2','epoch':3,'number':69}"},
    {sealed, "sealed", "true"},
    {sealed, "open", "false"},
    {sealed, "primary", "null"},
    {sealed, "members.0.duty", "'standby'"},
    {sealed, "members.0.state", "'former primary'"},
    {sealed, "members.1.lag_bytes", "null"},
    {no_change, "members.0.name", "'m1'"},
    {no_change, "members.0.host", "'10.0.0.1'"},
    {no_change, "members.0.port", "5431"},
    {no_change, "members.0.duty", "'primary'"},
    {no_change, "members.0.state", "'running'"},
    {no_change, "members.0.timeline", "4"},
    {no_change, "members.0.lsn", "'0/00003000'"},
    {no_change, "members.0.lag_bytes", "null"},
    {no_change, "members.0.sync", "'-'"},
    {no_change, "members.0.upstream", "null"},
    {no_change, "members.0.raft", "'follower'"},
    {no_change, "members.0.age_ms", "100"},
    {no_change, "members.1.duty", "'standby'"},
    {no_change, "members.1.state", "'streaming'"},
    {no_change, "members.1.lag_bytes", "0"},
    {no_change, "members.1.sync", "'sync'"},
    {no_change, "members.1.upstream", "'m1'"},
    {no_change, "members.2.lag_bytes", "4096"},
    {no_change, "members.2.lag_ms", "12"},
    {no_change, "members.2.raft", "'leader'"},
    {no_change, "members.3.duty", "'witness'"},
    {no_change, "members.3.state", "'running'"},
    {no_change, "members.3.lsn", "null"},
    {before_first, "members.0.duty", "'-'"},
    {before_first, "members.3.duty", "'witness'"},
    {before_first, "timeline", "null"},
    {m3_silent, "members.2.state", "'unreachable'"},
    {m3_silent, "members.2.age_ms", "2500"},
    {m3_unheard, "members.2.state", "'unknown'"},
    {m3_unheard, "members.2.age_ms", "null"},
    {m3_unheard, "members.2.timeline", "null"},
    {m3_down, "members.2.state", "'down'"},
    {m3_down, "members.2.sync", "'-'"},
    {m3_hung, "members.2.state", "'hung'"},
    {m3_cloning, "members.2.state", "'cloning'"},
    {m3_cloning, "members.2.activity", "'cloning from m1: 43 %'"},
    {m3_refused, "members.2.state", "'refused'"},
    {m3_new_copy, "members.2.sync", "'async'"},
    {m3_strange_bytes, "members.2.trouble", "'caf?\\u0001'"},
    {m2_promoting, "members.1.state", "'promoting'"},
    {m2_promoting, "members.1.duty", "'primary'"},
    {m2_promoting, "members.0.state", "'former primary'"},
};

static void test_status_json(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        world_reset(w);
        statuses[i].change(w);
        char wrapped[128];
        snprintf(wrapped, sizeof wrapped, "[%s]", statuses[i].value);
        json_t *json = parsed(face_status_json(&w->face)), *should = expected_json(wrapped);
        const json_t *is = at_path(json, statuses[i].path);
        if (is == NULL || !json_equal(is, json_array_get(should, 0)))
            fail_msg("row %u, %s: %s", i, statuses[i].path, is != NULL ? json_dumps(is, JSON_ENCODE_ANY) : "missing");
        json_decref(json);
        json_decref(should);
    }
}

static void test_history_json(void **state) {
    struct world *w = *state;
    json_t *is = parsed(face_history_json(&w->face));
    json_t *should = expected_json(
        "{'cluster':'shop','fresh':true,'history':["
        "{'index':60,'time_ms':1000,'epoch':3,'kind':'assigned','member':'m1','timeline':0,'lsn':'0/00000000',"
        "'lost_bytes':0,'reason':'m2 failed'},"
        "{'index':61,'time_ms':2000,'epoch':3,'kind':'opened','member':null,'timeline':0,'lsn':'0/00000000',"
        "'lost_bytes':5,'reason':''}]}");
    assert_true(json_equal(is, should));
    json_decref(is);
    json_decref(should);
}

/* ---- the routes ---- */

static const struct {
    bool tcp;
    const char *method, *path, *body;
    void (*change)(struct world *w);
    struct face_answer answer;
    long http_status;
    const char *says;
} requests[] = {
    {false, "GET", "/v1/topology", NULL, no_change, {0}, 200, "\"member\": \"m1\""},
    {true, "GET", "/v1/topology", NULL, no_change, {0}, 200, "\"member\": \"m1\""},
    {true, "GET", "/v1/topology", NULL, not_fresh, {0}, 503, "\"fresh\": false"},
    {true, "GET", "/v1/topology?x=1", NULL, no_change, {0}, 200, "\"member\": \"m1\""},
    {true, "HEAD", "/v1/topology", NULL, no_change, {0}, 200, ""},
    {true, "HEAD", "/v1/topology", NULL, not_fresh, {0}, 503, ""},
    {false, "GET", "/v1/status", NULL, not_fresh, {0}, 200, "\"members\""},
    {true, "GET", "/v1/history", NULL, no_change, {0}, 200, "m2 failed"},
    {false, "GET", "/v1/health", NULL, no_change, {0}, 200, "\"fresh\": true"},
    {false, "GET", "/v1/health", NULL, not_fresh, {0}, 503, "\"fresh\": false"},
    {false, "GET", "/nope", NULL, no_change, {0}, 404, "there is nothing at /nope, but at /v1/topology, "},
    {false, "GET", "/v1", NULL, no_change, {0}, 404, "\"error\""},
    {true, "GET", "/v1/topology?index=69", NULL, no_change, {0}, 200, "\"member\": \"m1\""},
    {true, "GET", "/v1/topology?index=70&wait=0", NULL, no_change, {0}, 200, "\"member\": \"m1\""},
    {true, "GET", "/v1/topology?index=70&wait=20ms", NULL, no_change, {0}, 200, "\"member\": \"m1\""},
    {true, "GET", "/v1/topology?index=70&fresh=true", NULL, not_fresh, {0}, 503, "\"fresh\": false"},
    {true, "GET", "/v1/topology?index=x", NULL, no_change, {0}, 400, "index: expected"},
    {true, "GET", "/v1/topology?index=-1", NULL, no_change, {0}, 400, "index: expected"},
    {true, "GET", "/v1/topology?wait=1h", NULL, no_change, {0}, 400, "wait: expected"},
    {true, "HEAD", "/v1/topology/stream", NULL, no_change, {0}, 200, ""},
    {true, "GET", "/v1/members", NULL, no_change, {0}, 200, "\"upstream\": \"m1\""},
    {true, "GET", "/v1/why", NULL, no_change, {0}, 200, "\"coordinator\": \"m3\""},
    {true, "OPTIONS", "/v1/why", NULL, no_change, {0}, 200, ""},
    {true, "OPTIONS", "/v1/switchover", NULL, no_change, {0}, 200, ""},
    {true, "POST", "/primary", "{}", no_change, {0}, 403, "unix socket"},
    {false, "POST", "/primary", "{}", no_change, {0}, 405, "/primary takes GET, not POST"},
    {false, "POST", "/v1/status", "{}", no_change, {0}, 405, "/v1/status takes GET, not POST"},
    {false, "GET", "/v1/switchover", NULL, no_change, {0}, 405, "/v1/switchover takes POST, not GET"},
    {false, "BREW", "/v1/status", NULL, no_change, {0}, 405, "not BREW"},
    {true, "POST", "/v1/switchover", "{}", no_change, {.http_status = 202}, 403, "unix socket"},
    {true, "DELETE", "/v1/status", NULL, no_change, {0}, 403, "unix socket"},
    {false,
     "POST",
     "/v1/switchover",
     "{\"to\": \"m2\"}",
     no_change,
     {.http_status = 202, .number = 71},
     202,
     "\"number\": 71"},
    {false, "POST", "/v1/switchover", "{}", no_change, {.http_status = 202, .number = 72}, 202, "\"number\": 72"},
    {false, "POST", "/v1/switchover", "", no_change, {.http_status = 202, .number = 73}, 202, "\"number\": 73"},
    {false,
     "POST",
     "/v1/switchover",
     "{}",
     no_change,
     {.http_status = 409, .text = "m2 \"lags\""},
     409,
     "m2 \\\"lags\\\""},
    {false, "POST", "/v1/switchover", "{", no_change, {0}, 400, "not JSON"},
    {false, "POST", "/v1/switchover", "[]", no_change, {0}, 400, "the body must be"},
    {false, "POST", "/v1/switchover", "{\"too\": \"m2\"}", no_change, {0}, 400, "too"},
    {false, "POST", "/v1/switchover", "{\"to\": 2}", no_change, {0}, 400, "the body must be"},
    {false, "POST", "/v1/switchover", "{\"to\": \"m\\u0000\"}", no_change, {0}, 400, "not JSON"},
    {false,
     "POST",
     "/v1/switchover",
     "{\"to\": \"a-name-that-is-much-too-long-for-any-member\"}",
     no_change,
     {0},
     400,
     "at most 31 characters"},
};

static void test_requests(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof requests / sizeof *requests; i++) {
        world_reset(w);
        requests[i].change(w);
        changed(w);
        w->answer = requests[i].answer;
        w->request = (struct face_request){.to = "untouched"};
        struct client_job job = {
            .method = requests[i].method, .path = requests[i].path, .body = requests[i].body, .tcp = requests[i].tcp};
        ask(w, &job);
        if (job.code != CURLE_OK || job.http_status != requests[i].http_status ||
            strstr(job.answer, requests[i].says) == NULL)
            fail_msg("%s %s: %d, %ld %s", job.method, job.path, (int)job.code, job.http_status, job.answer);
        if (strcmp(job.method, "HEAD") == 0 || strcmp(job.method, "OPTIONS") == 0)
            assert_int_equal(job.length, 0);
        else
            json_decref(parsed(strdup(job.answer)));
        if (requests[i].answer.http_status == 0 || requests[i].http_status == 403)
            assert_string_equal(w->request.to, "untouched");
    }
}

static void test_switchover_names_the_target(void **state) {
    struct world *w = *state;
    w->answer = (struct face_answer){.http_status = 202, .number = 1};
    struct client_job job = {.method = "POST", .path = "/v1/switchover", .body = "{\"to\": \"m3\"}"};
    ask(w, &job);
    assert_int_equal(w->request.kind, REQUEST_SWITCHOVER);
    assert_string_equal(w->request.to, "m3");
}

/* ---- answers that come later ---- */

static void begin_switchover(struct world *w, struct client_job *job) {
    w->later = true;
    w->answer = (struct face_answer){.http_status = 202, .number = 77};
    begin(w, job);
    while (w->pending == NULL)
        uv_run(&w->loop, UV_RUN_ONCE);
}

static void test_answer_comes_later(void **state) {
    struct world *w = *state;
    struct client_job job = {.method = "POST", .path = "/v1/switchover", .body = "{}"};
    begin_switchover(w, &job);
    struct client_job other = {.method = "GET", .path = "/v1/health"};
    ask(w, &other); /* is not held up */
    assert_int_equal(other.http_status, 200);
    assert_false(job.done);
    w->pending(w->pending_context, &w->answer);
    finish(w, &job);
    assert_int_equal(job.http_status, 202);
}

static void test_client_gone_before_the_answer(void **state) {
    struct world *w = *state;
    struct client_job job = {.method = "POST", .path = "/v1/switchover", .body = "{}", .wait_ms = 300};
    begin_switchover(w, &job);
    finish(w, &job);
    assert_int_equal(job.code, CURLE_OPERATION_TIMEDOUT);
    w->pending(w->pending_context, &w->answer);
    struct client_job other = {.method = "GET", .path = "/v1/health"};
    ask(w, &other);
    assert_int_equal(other.http_status, 200);
}

static void test_closed_before_the_answer(void **state) {
    struct world *w = *state;
    struct client_job job = {.method = "POST", .path = "/v1/switchover", .body = "{}"};
    begin_switchover(w, &job);
    publish_close(w->publish, on_closed, w);
    finish(w, &job);
    assert_int_equal(job.http_status, 503);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_true(w->closed);
    w->publish = NULL;
    w->pending(w->pending_context, &w->answer); /* touches nothing that is gone */
}

/* ---- bounds ---- */

static void run_raw(struct client_job *job) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(job->world->port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        job->code = CURLE_COULDNT_CONNECT;
        close(fd);
        return;
    }
    /* The server may hang up while we write: what counts is that it ends the connection. */
    for (size_t sent = 0; sent < job->bytes_length;) {
        ssize_t done = send(fd, job->bytes + sent, job->bytes_length - sent, MSG_NOSIGNAL);
        if (done <= 0)
            break;
        sent += (size_t)done;
    }
    if (job->hang_up)
        shutdown(fd, SHUT_WR);
    for (ssize_t got; job->length < sizeof job->answer - 1 &&
                      (got = recv(fd, job->answer + job->length, sizeof job->answer - 1 - job->length, 0)) > 0;)
        job->length += (size_t)got;
    close(fd);
}

static void expect_alive(struct world *w) {
    struct client_job job = {.method = "GET", .path = "/v1/health", .tcp = true};
    ask(w, &job);
    assert_int_equal(job.http_status, 200);
}

static void test_garbage(void **state) {
    struct world *w = *state;
    static char noise[200000], long_header[100000];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)((seed = seed * 1664525 + 1013904223) >> 24);
    memset(long_header, 'x', sizeof long_header);
    memcpy(long_header, "GET /v1/health HTTP/1.1\r\nX: ", 28);
    const struct {
        const char *bytes;
        size_t length;
    } cases[] = {{noise, sizeof noise},
                 {long_header, sizeof long_header},
                 {"POST /v1/switchover HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 0},
                 {"GET /v1/health HTTP/9.9\r\n\r\n", 0},
                 {"GET /v1/%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client_job job = {.run = run_raw, .bytes = cases[i].bytes, .hang_up = true};
        job.bytes_length = cases[i].length > 0 ? cases[i].length : strlen(cases[i].bytes);
        ask(w, &job);
        assert_int_not_equal(job.code, CURLE_COULDNT_CONNECT);
        assert_null(strstr(job.answer, " 200 "));
        expect_alive(w);
    }
}

static void test_too_large(void **state) {
    struct world *w = *state;
    static char body[HTTP_BODY_MAX + 2];
    memset(body, ' ', sizeof body - 1);
    struct client_job job = {.method = "POST", .path = "/v1/switchover", .body = body};
    ask(w, &job);
    assert_int_equal(job.http_status, 413);
    assert_non_null(strstr(job.answer, "\"error\""));
    struct client_job chunked = {.method = "POST", .path = "/v1/switchover", .body = body, .chunked = true};
    ask(w, &chunked);
    assert_int_not_equal(chunked.code, CURLE_OK); /* hung up on */
    assert_int_equal(chunked.http_status, 0);
    expect_alive(w);
}

static void test_silence_is_bounded(void **state) {
    struct world *w = *state;
    struct client_job job = {.run = run_raw, .bytes = "GET /v1/hea", .bytes_length = 11};
    uint64_t began = uv_hrtime();
    ask(w, &job); /* ends only when the server hangs up */
    uint64_t seconds = (uv_hrtime() - began) / NSEC_PER_SEC;
    assert_in_range(seconds, HTTP_SILENCE_MAX_SECONDS - 1, HTTP_SILENCE_MAX_SECONDS + 60);
}

static void run_parallel(struct client_job *job) {
    CURLM *multi = curl_multi_init();
    static struct client_job parts[100];
    CURL *handles[100];
    for (unsigned i = 0; i < 100; i++) {
        parts[i] = (struct client_job){.world = job->world, .method = "GET", .path = "/v1/status", .tcp = i % 2 == 0};
        handles[i] = easy(&parts[i]);
        curl_easy_setopt(handles[i], CURLOPT_FORBID_REUSE, 1L);
        curl_multi_add_handle(multi, handles[i]);
    }
    for (int running = 1; running > 0;) {
        curl_multi_perform(multi, &running);
        curl_multi_poll(multi, NULL, 0, 100, NULL);
    }
    for (unsigned i = 0; i < 100; i++) {
        long http_status = 0;
        curl_easy_getinfo(handles[i], CURLINFO_RESPONSE_CODE, &http_status);
        job->count += http_status == 200 && strstr(parts[i].answer, "\"members\"") != NULL;
        curl_multi_remove_handle(multi, handles[i]);
        curl_easy_cleanup(handles[i]);
    }
    curl_multi_cleanup(multi);
}

static void test_hundred_at_once(void **state) {
    struct world *w = *state;
    struct client_job job = {.run = run_parallel};
    ask(w, &job);
    assert_int_equal(job.count, 100);
}

/* ---- the unix socket ---- */

static void test_socket_mode(void **state) {
    struct world *w = *state;
    struct stat file;
    assert_int_equal(stat(w->socket_path, &file), 0);
    assert_true(S_ISSOCK(file.st_mode));
    assert_int_equal(file.st_mode & 0777, 0660);
}

static void test_socket_in_use(void **state) {
    struct world *w = *state;
    struct error error;
    int fd = -1;
    assert_int_equal(http_listen_unix(&fd, w->socket_path, &error), FAILED);
    assert_non_null(strstr(error.text, "another ttorchd answers here"));
    assert_int_equal(fd, -1);
    struct publish *first = w->publish;
    assert_int_equal(world_open(w, &error), FAILED); /* and leaves the first one its socket */
    uv_run(&w->loop, UV_RUN_NOWAIT);
    w->publish = first;
    expect_alive(w);
    struct client_job job = {.method = "GET", .path = "/v1/health"};
    ask(w, &job);
    assert_int_equal(job.http_status, 200);
}

static void test_socket_stale(void **state) {
    struct world *w = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = address.sun_path;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/stale.sock", w->directory);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd); /* its file stays */
    struct error error;
    assert_int_equal(http_listen_unix(&fd, path, &error), OK);
    close(fd);
    unlink(path);
}

static void test_socket_refusals(void **state) {
    struct world *w = *state;
    char path[300];
    struct error error;
    int fd;
    snprintf(path, sizeof path, "%s/plain", w->directory);
    struct file_change change;
    assert_int_equal(
        file_begin(&change, path, "precious", &(struct file_manner){.mode = 0600, .uid = -1, .gid = -1}, &error), OK);
    assert_int_equal(file_finish(&change, &error), OK);
    assert_int_equal(http_listen_unix(&fd, path, &error), FAILED);
    assert_non_null(strstr(error.text, "not a socket"));
    assert_int_equal(unlink(path), 0);
    memset(path, 'x', 200);
    path[200] = '\0';
    assert_int_equal(http_listen_unix(&fd, path, &error), FAILED);
    assert_non_null(strstr(error.text, "longer than"));
    assert_int_equal(http_listen_tcp(&fd, "no such host", 1, &error), FAILED);
    assert_int_equal(http_listen_tcp(&fd, "127.0.0.1", w->port, &error), FAILED);
    assert_non_null(strstr(error.text, "in use"));
}

/* ---- the file ---- */

static ino_t inode_of(const char *path) {
    struct stat file;
    return stat(path, &file) == 0 ? file.st_ino : 0;
}

static json_t *file_json(const struct world *w) {
    json_t *json = json_load_file(w->file_path, 0, NULL);
    assert_non_null(json);
    return json;
}

static bool file_says(const struct world *w, const char *path, const char *value) {
    json_t *json = file_json(w);
    char *text = json_dumps(at_path(json, path), JSON_ENCODE_ANY);
    bool says = text != NULL && strcmp(text, value) == 0;
    free(text);
    json_decref(json);
    return says;
}

/* A hard link keeps the inode from being given out anew. */
static void keep_inode(const struct world *w, ino_t *ret_inode) {
    char kept[128];
    snprintf(kept, sizeof kept, "%s/kept", w->directory);
    unlink(kept);
    assert_int_equal(link(w->file_path, kept), 0);
    *ret_inode = inode_of(w->file_path);
}

static void forget_inode(const struct world *w) {
    char kept[128];
    snprintf(kept, sizeof kept, "%s/kept", w->directory);
    unlink(kept);
}

static void test_file_only_on_change(void **state) {
    struct world *w = *state;
    ino_t before;
    struct stat file;
    assert_int_equal(inode_of(w->file_path), 0);
    umask(077);
    changed(w);
    umask(022);
    assert_int_equal(stat(w->file_path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0644);
    assert_true(file_says(w, "fresh", "true"));
    keep_inode(w, &before);
    w->face.members[1].age_ms++; /* is not in the file */
    changed(w);
    assert_int_equal(inode_of(w->file_path), before);
    w->face.fresh = false; /* is, and at once */
    changed(w);
    assert_int_not_equal(inode_of(w->file_path), before);
    assert_true(file_says(w, "fresh", "false"));
    assert_true(file_says(w, "primary", "null"));
    forget_inode(w);
}

static void test_file_lag_at_most_once_a_second(void **state) {
    struct world *w = *state;
    Observation *primary = &w->seen[0];
    ino_t before;
    changed(w);
    uint64_t began = uv_hrtime();
    keep_inode(w, &before);
    for (unsigned i = 0; i < 50; i++) {
        primary->position.lsn += 0x10;
        changed(w);
    }
    assert_int_equal(inode_of(w->file_path), before);
    /* Then it comes by itself, with the newest lag. */
    while (inode_of(w->file_path) == before)
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_in_range((uv_hrtime() - began) / NSEC_PER_MSEC, 900, 60000);
    assert_true(file_says(w, "standbys.0.lag_bytes", "800"));
    /* More than lag is written at once. */
    keep_inode(w, &before);
    primary->position.lsn += 0x10;
    w->topology.index++;
    changed(w);
    assert_int_not_equal(inode_of(w->file_path), before);
    forget_inode(w);
}

/* Reads the file over and over: it must be whole each time. */
static void run_reader(struct client_job *job) {
    for (unsigned i = 0; i < 2000; i++) {
        json_t *json = json_load_file(job->world->file_path, 0, NULL);
        job->count += json != NULL;
        json_decref(json);
    }
}

static void test_file_is_always_whole(void **state) {
    struct world *w = *state;
    changed(w);
    struct client_job job = {.run = run_reader};
    begin(w, &job);
    while (!job.done) {
        w->topology.index++;
        publish_changed(w->publish);
        uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(job.count, 2000);
}

static void test_file_failure_is_told_once(void **state) {
    struct world *w = *state;
    char moved[128];
    snprintf(moved, sizeof moved, "%s.moved", w->directory);
    assert_int_equal(rename(w->directory, moved), 0);
    for (unsigned i = 0; i < 3; i++) {
        w->topology.index++;
        changed(w);
    }
    assert_int_equal(w->notices, 1);
    assert_int_equal(rename(moved, w->directory), 0);
    while (inode_of(w->file_path) == 0) /* tried again without being asked */
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_true(file_says(w, "index", "73"));
}

static void test_file_after_the_end(void **state) {
    struct world *w = *state;
    changed(w);
    assert_true(file_says(w, "primary.member", "\"m1\""));
    world_close(w);
    assert_true(file_says(w, "fresh", "false"));
    assert_true(file_says(w, "primary", "null"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const struct CMUnitTest tests[] = {
        TEST(test_topology_json),
        TEST(test_topology_after_seal),
        TEST(test_status_json),
        TEST(test_history_json),
        TEST(test_requests),
        TEST(test_switchover_names_the_target),
        TEST(test_answer_comes_later),
        TEST(test_client_gone_before_the_answer),
        TEST(test_closed_before_the_answer),
        TEST(test_garbage),
        TEST(test_too_large),
        TEST(test_silence_is_bounded),
        TEST(test_hundred_at_once),
        TEST(test_socket_mode),
        TEST(test_socket_in_use),
        TEST(test_socket_stale),
        TEST(test_socket_refusals),
        TEST(test_file_only_on_change),
        TEST(test_file_lag_at_most_once_a_second),
        TEST(test_file_is_always_whole),
        TEST(test_file_failure_is_told_once),
        TEST(test_file_after_the_end),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
