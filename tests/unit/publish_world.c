#include "tests/unit/publish_world.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void member(struct world *w, uint32_t id, const char *name, bool witness) {
    Member *m = &w->topology.members[w->topology.members_count++];
    *m = (Member){.id = id, .postgres_port = 5430 + id, .witness = witness, .priority = 100, .copy = 1};
    snprintf(m->name, sizeof m->name, "%s", name);
    snprintf(m->postgres_host, sizeof m->postgres_host, "10.0.0.%u", id);
}

Observation *observation(struct world *w, uint32_t id, ServerState server, uint64_t lsn) {
    Observation *seen = &w->seen[id - 1];
    w->face.members[id - 1] = (struct face_member){.heard = true, .age_ms = 100};
    *seen = (Observation){.member = id, .data = DATA_COMPLETE, .copy = 1, .server = server};
    seen->position = (Position){.timeline = 4, .lsn = lsn};
    seen->streaming = server == SERVER_STANDBY;
    if (server == SERVER_STANDBY)
        application_name(seen->upstream, w->topology.members[id - 1].name, 1, 3);
    return seen;
}

void sender(Observation *primary, const char *name, const char *state, uint64_t flush, uint32_t lag_ms) {
    Sender *s = &primary->senders[primary->senders_count++];
    *s = (Sender){.flush_lsn = flush, .replay_lag_ms = lag_ms};
    snprintf(s->name, sizeof s->name, "%s", name);
    snprintf(s->state, sizeof s->state, "%s", state);
}

/* m1 the primary of epoch 3, m2 and m3 streaming, w a witness. */
void world_reset(struct world *w) {
    memset(&w->topology, 0, sizeof w->topology);
    memset(&w->history, 0, sizeof w->history);
    memset(&w->face, 0, sizeof w->face);
    memset(w->seen, 0, sizeof w->seen);
    w->face.seen = w->seen;
    Topology *t = &w->topology;
    *t = (Topology){.cluster_id = 0xabc, .index = 70, .epoch = 3, .open = true, .system_identifier = 7};
    strcpy(t->cluster_name, "shop");
    t->settings = (Settings){.durability = DURABILITY_QUORUM, .lease_ms = 2000};
    t->primary = (Copy){.member = 1, .copy = 1};
    member(w, 1, "m1", false);
    member(w, 2, "m2", false);
    member(w, 3, "m3", false);
    member(w, 4, "w", true);
    t->rules_count = 1;
    t->rules[0] = (Rule){.generation = 1, .epoch = 3, .primary = t->primary, .needed = 1, .standbys_count = 2};
    t->rules[0].standbys[0] = (Copy){.member = 2, .copy = 1};
    t->rules[0].standbys[1] = (Copy){.member = 3, .copy = 1};
    t->epochs_count = 1;
    t->epochs[0] = (Epoch){.epoch = 3, .primary = t->primary, .timeline = 4, .base = {.timeline = 3, .lsn = 0x100}};
    Observation *primary = observation(w, 1, SERVER_PRIMARY, 0x3000);
    sender(primary, "m2_1_3", "streaming", 0x3000, 0);
    sender(primary, "m3_1_3", "streaming", 0x2000, 12);
    observation(w, 2, SERVER_STANDBY, 0x3000);
    observation(w, 3, SERVER_STANDBY, 0x2000);
    observation(w, 4, SERVER_UNKNOWN, 0);
    w->history.entries_count = 2;
    w->history.entries[0] =
        (HistoryEntry){.index = 60, .wall_ms = 1000, .kind = HISTORY_ASSIGNED, .epoch = 3, .member = 1};
    strcpy(w->history.entries[0].reason, "m2 failed");
    w->history.entries[1] =
        (HistoryEntry){.index = 61, .wall_ms = 2000, .kind = HISTORY_OPENED, .epoch = 3, .lost_bytes = 5};
    w->face.topology = t;
    w->face.history = &w->history;
    w->face.self = 2;
    w->face.name = "m2";
    w->face.version = "9.9";
    w->face.fresh = true;
    w->face.leader = "m3";
    w->face.term = 5;
    w->face.why = w->face.waiting = "";
    w->face.fresh_until = w->face.lease_until = NSEC_NEVER;
    w->face.superuser = "postgres";
}

static void on_face(void *user, struct face *ret_face) {
    *ret_face = ((struct world *)user)->face;
    ret_face->now = time_now();
    ret_face->fresh &= ret_face->now < ret_face->fresh_until;
}

static void on_notice(void *user, const char *text) {
    assert_string_not_equal(text, "");
    ((struct world *)user)->notices++;
}

static void on_request(void *user, const struct face_request *request, face_answer_callback *answer, void *context) {
    struct world *w = user;
    w->request = *request;
    if (!w->later) {
        answer(context, &w->answer);
        return;
    }
    w->pending = answer;
    w->pending_context = context;
}

void on_closed(void *user) { ((struct world *)user)->closed = true; }

uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

const struct publish_config no_files = {.socket_path = "",
                                        .http_listen = "",
                                        .http_certificate_file = "",
                                        .http_key_file = "",
                                        .http_client_ca_file = "",
                                        .topology_file = "",
                                        .freshness_file = "",
                                        .env_file = "",
                                        .env_primary = "PRODUCTION_DATABASE_URL",
                                        .env_replica = "READ_REPLICA_#_URL",
                                        .env_pool = "READ_REPLICA_POOL_URL",
                                        .service_file = "",
                                        .pgbouncer_file = "",
                                        .file_mode = 0644,
                                        .file_owner = "",
                                        .database = "app",
                                        .user = "",
                                        .options = "connect_timeout=3",
                                        .hook = "",
                                        .hook_timeout_ms = 10000,
                                        .libpq = 14,
                                        .health = {5000, 30000, 100, 500}};

status world_open(struct world *w, struct error *error) {
    w->config.socket_path = w->socket_path;
    w->config.http_listen = "127.0.0.1";
    w->config.http_port = w->port;
    w->config.topology_file = w->file_path;
    static const struct publish_callbacks callbacks = {.face = on_face, .request = on_request, .notice = on_notice};
    return publish_open(&w->publish, &w->loop, &w->config, &callbacks, w, error);
}

int setup(void **state) {
    struct world *w = calloc(1, sizeof *w);
    strcpy(w->directory, "/tmp/test-publish.XXXXXX");
    assert_non_null(mkdtemp(w->directory));
    snprintf(w->socket_path, sizeof w->socket_path, "%s/ttorchd.sock", w->directory);
    snprintf(w->file_path, sizeof w->file_path, "%s/topology.json", w->directory);
    w->port = free_port();
    world_reset(w);
    w->config = no_files;
    uv_loop_init(&w->loop);
    struct error error;
    assert_int_equal(world_open(w, &error), OK);
    *state = w;
    return 0;
}

void world_close(struct world *w) {
    publish_close(w->publish, on_closed, w);
    uv_run(&w->loop, UV_RUN_DEFAULT); /* ends only when no handle is left */
    assert_true(w->closed);
    w->publish = NULL;
}

int teardown(void **state) {
    struct world *w = *state;
    if (w->publish != NULL)
        world_close(w);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    unlink(w->file_path);
    assert_int_equal(rmdir(w->directory), 0); /* nothing else was left in it, no socket either */
    free(w);
    return 0;
}

void settle(struct world *w) {
    while (!publish_settled(w->publish))
        uv_run(&w->loop, UV_RUN_ONCE);
}

void changed(struct world *w) {
    publish_changed(w->publish);
    settle(w);
}

/* ---- a client, in a thread of its own, while the loop runs here ---- */

static size_t on_bytes(char *bytes, size_t one, size_t length, void *user) {
    struct client_job *job = user;
    (void)one;
    assert_true(job->length + length < sizeof job->answer);
    memcpy(job->answer + job->length, bytes, length);
    job->length += length;
    job->answer[job->length] = '\0';
    return length;
}

CURL *easy(struct client_job *job) {
    char url[128];
    CURL *curl = curl_easy_init();
    snprintf(url, sizeof url, "%s://127.0.0.1:%u%s", job->ca != NULL ? "https" : "http", job->world->port, job->path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, job->wait_ms > 0 ? job->wait_ms : 20000L);
    if (!job->tcp)
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, job->world->socket_path);
    if (job->ca != NULL)
        curl_easy_setopt(curl, CURLOPT_CAINFO, job->ca);
    curl_easy_setopt(curl, CURLOPT_SSLCERT, job->cert);
    curl_easy_setopt(curl, CURLOPT_SSLKEY, job->key);
    if (job->body != NULL)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, job->body);
    if (strcmp(job->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, job->method);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, job);
    return curl;
}

void run_http(struct client_job *job) {
    CURL *curl = easy(job);
    struct curl_slist *headers = job->chunked ? curl_slist_append(NULL, "Transfer-Encoding: chunked") : NULL;
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    job->code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &job->http_status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
}

static void on_work(uv_work_t *work) {
    struct client_job *job = work->data;
    job->run(job);
}

static void on_done(uv_work_t *work, int cancelled) {
    (void)cancelled;
    ((struct client_job *)work->data)->done = true;
}

void begin(struct world *w, struct client_job *job) {
    job->world = w;
    job->work.data = job;
    if (job->run == NULL)
        job->run = run_http;
    assert_int_equal(uv_queue_work(&w->loop, &job->work, on_work, on_done), 0);
}

void finish(struct world *w, struct client_job *job) {
    while (!job->done)
        uv_run(&w->loop, UV_RUN_ONCE);
}

void ask(struct world *w, struct client_job *job) {
    begin(w, job);
    finish(w, job);
}

const char *trouble_of(struct world *w, const char *output) {
    static char text[ERROR_TEXT_MAX];
    struct client_job job = {.method = "GET", .path = "/v1/status"};
    ask(w, &job);
    json_t *answer = json_loads(job.answer, 0, NULL), *row;
    size_t i;
    assert_non_null(answer);
    snprintf(text, sizeof text, "there is no row of %s", output);
    json_array_foreach(json_object_get(answer, "publishing"), i,
                       row) if (strcmp(json_string_value(json_object_get(row, "output")), output) == 0)
        snprintf(text, sizeof text, "%s",
                 json_is_null(json_object_get(row, "error")) ? "" : json_string_value(json_object_get(row, "error")));
    json_decref(answer);
    return text;
}
