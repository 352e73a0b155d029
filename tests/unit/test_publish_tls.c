#include "tests/unit/publish_world.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "publish/http.h"

static char directory[] = "/tmp/test-tls.XXXXXX";

static int make_certificates(void **state) {
    char command[256];
    (void)state;
    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(command, sizeof command, CERTIFICATES " %s", directory);
    return system(command);
}

static int remove_certificates(void **state) {
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

/* Of a file there; "" of "". Some stay valid. */
static const char *path(const char *name) {
    static char paths[16][64];
    static unsigned next;
    char *text = paths[next++ % 16];
    snprintf(text, sizeof paths[0], "%s/%s", directory, name);
    return name[0] != '\0' ? text : "";
}

static void copy(const char *from, const char *to) {
    char command[256];
    snprintf(command, sizeof command, "cp -p %s %s", path(from), path(to));
    assert_int_equal(system(command), 0);
}

/* ---- files ---- */

static const struct {
    const char *certificate, *key, *client_ca;
    enum tls_part part;
    const char *says; /* NULL = good */
} files[] = {
    {"server.pem", "server.key", "", 0, NULL},
    {"server.pem", "server.key", "other-ca.pem", 0, NULL},
    {"expired.pem", "expired.key", "", 0, NULL}, /* shown, but no reason not to start */
    {"none.pem", "server.key", "", TLS_CERTIFICATE, "cannot be read (No such file"},
    {"", "server.key", "", TLS_CERTIFICATE, "cannot be read (No such file"},
    {".", "server.key", "", TLS_CERTIFICATE, "is no regular file"},
    {"server.key", "server.key", "", TLS_CERTIFICATE, "holds no certificate in PEM format"},
    {"upside-down.pem", "server.key", "", TLS_CERTIFICATE, "the server's goes first"},
    {"long.pem", "server.key", "", TLS_CERTIFICATE, "holds more than 16 certificates"},
    {"server.pem", "none.key", "", TLS_KEY, "cannot be read (No such file"},
    {"server.pem", "server.pem", "", TLS_KEY, "holds no private key"},
    {"server.pem", "locked.key", "", TLS_KEY, "is protected by a password"},
    {"server.pem", "renewed.key", "", TLS_KEY, "does not belong to the certificate"},
    {"server.pem", "server.key", "server.key", TLS_CLIENT_CA, "holds no certificate in PEM format"},
    {"server.pem", "server.key", "none.pem", TLS_CLIENT_CA, "cannot be read (No such file"},
};

static void test_files(void **state) {
    (void)state;
    char command[512];
    snprintf(command, sizeof command,
             "cd %s && cat ca.pem server.pem >upside-down.pem && for i in 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7; do "
             "cat ca.pem; done >long.pem",
             directory);
    assert_int_equal(system(command), 0);
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        struct tls_files names = {{path(files[i].certificate), path(files[i].key), path(files[i].client_ca)}};
        struct tls *tls = NULL;
        enum tls_part part;
        struct error error = {""};
        status result = tls_load(&tls, &names, &part, &error);
        if (result == OK)
            tls_leave(tls);
        if (files[i].says == NULL ? result != OK : result == OK || strstr(error.text, files[i].says) == NULL)
            fail_msg("row %u: %s", i, error.text);
        if (result != OK)
            assert_int_equal(part, files[i].part);
    }
}

/* ---- served ---- */

static void serve_with(struct world *w, const char *client_ca) {
    world_close(w);
    copy("server.pem", "now.pem");
    copy("server.key", "now.key");
    w->config.http_certificate_file = path("now.pem");
    w->config.http_key_file = path("now.key");
    w->config.http_client_ca_file = path(client_ca);
    struct error error;
    assert_int_equal(world_open(w, &error), OK);
}

static struct client_job asked(struct world *w, const char *ca, const char *who) {
    static char cert[64], key[64];
    snprintf(cert, sizeof cert, "%s/%s.pem", directory, who);
    snprintf(key, sizeof key, "%s/%s.key", directory, who);
    struct client_job job = {
        .method = "GET", .path = "/v1/topology", .tcp = true, .ca = ca[0] != '\0' ? path(ca) : NULL};
    if (who[0] != '\0') {
        job.cert = cert;
        job.key = key;
    }
    ask(w, &job);
    return job;
}

static void test_who_is_believed(void **state) {
    struct world *w = *state;
    serve_with(w, "");
    assert_int_equal(asked(w, "ca.pem", "").http_status, 200);
    assert_int_equal(asked(w, "other-ca.pem", "").code, CURLE_PEER_FAILED_VERIFICATION);
    assert_int_not_equal(asked(w, "", "").code, CURLE_OK); /* plain */
    assert_int_equal(asked(w, "ca.pem", "").http_status, 200);
    struct client_job local = {.method = "GET", .path = "/v1/topology"};
    ask(w, &local); /* plain, as ever */
    assert_int_equal(local.http_status, 200);
}

static void test_clients_need_a_certificate(void **state) {
    struct world *w = *state;
    serve_with(w, "ca.pem");
    assert_int_equal(asked(w, "ca.pem", "client").http_status, 200);
    static const char *const others[] = {"", "stranger", "server"}; /* none, of another CA, not for clients */
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
        struct client_job job = asked(w, "ca.pem", others[i]);
        assert_int_not_equal(job.code, CURLE_OK);
        assert_int_equal(job.http_status, 0);
    }
    assert_int_equal(asked(w, "ca.pem", "client").http_status, 200);
}

/* Who watches stays; who comes meets the new one. */
static void test_renewed(void **state) {
    struct world *w = *state;
    serve_with(w, "");
    struct client_job watcher = {
        .method = "GET", .path = "/v1/topology?index=70&wait=30s", .tcp = true, .ca = path("ca.pem")};
    struct client_job alive = {.method = "GET", .path = "/liveness", .tcp = true, .ca = path("ca.pem")};
    begin(w, &watcher);
    ask(w, &alive);
    copy("expired.pem", "now.pem");
    publish_reload(w->publish);
    assert_non_null(strstr(trouble_of(w, "http.certificate_file"), "now.key: does not belong to the certificate"));
    assert_int_equal(asked(w, "ca.pem", "").http_status, 200); /* with the one before */
    copy("expired.key", "now.key");
    publish_reload(w->publish);
    assert_non_null(strstr(trouble_of(w, "http.certificate_file"), "http.certificate_file: expired at 20"));
    assert_int_equal(asked(w, "ca.pem", "").code, CURLE_PEER_FAILED_VERIFICATION);
    copy("renewed.pem", "now.pem");
    copy("renewed.key", "now.key");
    publish_reload(w->publish);
    assert_string_equal(trouble_of(w, "http.certificate_file"), "");
    assert_int_equal(asked(w, "ca.pem", "").http_status, 200);
    w->topology.index = 71;
    publish_changed(w->publish);
    finish(w, &watcher);
    assert_int_equal(watcher.http_status, 200);
    assert_non_null(strstr(watcher.answer, "\"index\": 71"));
}

/* Nobody waits for a file that may come back. */
static void test_certificate_that_comes_later(void **state) {
    struct world *w = *state;
    serve_with(w, "");
    world_close(w);
    unlink(path("now.key"));
    struct error error;
    assert_int_equal(world_open(w, &error), OK);
    assert_non_null(strstr(trouble_of(w, "http.certificate_file"), "http.key_file: "));
    assert_non_null(strstr(trouble_of(w, "http.listen"), "waits for a certificate"));
    copy("server.key", "now.key");
    while (trouble_of(w, "http.listen")[0] != '\0') /* tried again by itself */
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_int_equal(asked(w, "ca.pem", "").http_status, 200);
}

static int connect_tcp(const struct world *w) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(w->port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Who says nothing holds no place. Who begins a handshake holds one for a while; and the loop goes on. */
static void test_handshakes_that_do_not_end(void **state) {
    struct world *w = *state;
    int silent[50], begun[HTTP_HANDSHAKES_MAX + 1];
    serve_with(w, "");
    for (unsigned i = 0; i < sizeof silent / sizeof *silent; i++)
        silent[i] = connect_tcp(w);
    assert_int_equal(asked(w, "ca.pem", "").http_status, 200);
    for (unsigned i = 0; i < sizeof begun / sizeof *begun; i++) {
        begun[i] = connect_tcp(w);
        assert_int_equal(send(begun[i], "\x16\x03\x01\x02", 4, MSG_NOSIGNAL), 4);
    }
    uint64_t began = uv_hrtime();
    struct client_job local = {.method = "GET", .path = "/liveness"};
    ask(w, &local);
    assert_int_equal(local.http_status, 200);
    assert_int_equal(asked(w, "ca.pem", "").http_status, 200);
    assert_true(uv_hrtime() - began > (HTTP_HANDSHAKE_MAX_SECONDS - 1) * NSEC_PER_SEC);
    for (unsigned i = 0; i < sizeof silent / sizeof *silent; i++)
        close(silent[i]);
    for (unsigned i = 0; i < sizeof begun / sizeof *begun; i++)
        close(begun[i]);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        TEST(test_who_is_believed),
        TEST(test_clients_need_a_certificate),
        TEST(test_renewed),
        TEST(test_certificate_that_comes_later),
        TEST(test_handshakes_that_do_not_end),
    };
    int failed = cmocka_run_group_tests(tests, make_certificates, remove_certificates);
    curl_global_cleanup();
    return failed;
}
