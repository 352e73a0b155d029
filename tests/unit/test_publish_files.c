#include "tests/unit/publish_world.h"

#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "publish/forms.h"
#include "publish/http.h"
#include "publish/template.h"

/* ---- the texts ---- */

static void no_change(struct world *w) { (void)w; }
static void not_fresh(struct world *w) { w->face.fresh = false; }
static void sealed(struct world *w) {
    w->topology.sealed = true;
    w->topology.open = false;
}
static void no_standby(struct world *w) {
    w->face.members[1].heard = false;
    w->seen[2].streaming = false;
}
static void m2_primary(struct world *w) {
    w->topology.epoch = 4;
    w->topology.index = 75;
    w->topology.primary.member = 2;
    w->seen[1].server = SERVER_PRIMARY;
}
static void strange(struct world *w) {
    w->config.user = "o'brien@x";
    w->config.database = "a b";
    w->config.options = "sslmode=require  application_name=a/b:c";
    strcpy(w->topology.members[0].postgres_host, "fd00::1");
}
static void new_clients(struct world *w) { w->config.libpq = 16; }
static void old_clients(struct world *w) { w->config.libpq = 13; }
static void other_names(struct world *w) {
    w->config.env_primary = "DATABASE_URL";
    w->config.env_replica = "R#";
    w->config.env_pool = "READ";
}
static void odd_name(struct world *w) { w->config.database = "o'b c"; }
static void one_port(struct world *w) {
    for (unsigned i = 0; i < 3; i++)
        w->topology.members[i].postgres_port = 5432;
}

#define HEAD(comment)  comment " Written by ttorch: cluster shop, epoch 3, index 70. Changes here are lost.\n"
#define STALE          "# Not fresh: this member is not in touch with a majority.\n"
#define LOST           "# There is no primary at this moment.\n"
#define ENV(primary)   "TTORCH_EPOCH=\"3\"\nTTORCH_INDEX=\"70\"\nTTORCH_PRIMARY=\"" primary "\"\n"
#define ALL            "10.0.0.1:5431,10.0.0.2:5432,10.0.0.3:5433/app"
#define READERS        "10.0.0.2:5432,10.0.0.3:5433,10.0.0.1:5431/app"
#define WRITE          "?target_session_attrs=read-write&connect_timeout=3\"\n"
#define JDBC_OPTIONS   "&connectTimeout=3\"\n"
#define JDBC_WRITE(at) "TTORCH_JDBC_WRITE_URL=\"jdbc:postgresql://" at "?targetServerType=primary" JDBC_OPTIONS
#define JDBC_READ(at)                              \
    "TTORCH_JDBC_READ_URL=\"jdbc:postgresql://" at \
    "?targetServerType=preferSecondary&loadBalanceHosts=true" JDBC_OPTIONS
#define READ "?target_session_attrs=prefer-standby&connect_timeout=3\"\n"

/* clang-format off */
static const struct {
    form_printer *print;
    void (*change)(struct world *w);
    const char *text;
} texts[] = {
    {form_env, no_change,
     HEAD("#") ENV("m1") "PRODUCTION_DATABASE_URL=\"postgresql://" ALL WRITE
     "READ_REPLICA_1_URL=\"postgresql://10.0.0.2:5432/app?connect_timeout=3\"\n"
     "READ_REPLICA_2_URL=\"postgresql://10.0.0.3:5433/app?connect_timeout=3\"\n"
     "READ_REPLICA_POOL_URL=\"postgresql://" READERS READ JDBC_WRITE(ALL) JDBC_READ(READERS)},
    {form_env, not_fresh,
     HEAD("#") STALE ENV("") "PRODUCTION_DATABASE_URL=\"postgresql://" ALL WRITE
     "READ_REPLICA_POOL_URL=\"postgresql://" ALL READ JDBC_WRITE(ALL) JDBC_READ(ALL)},
    {form_env, sealed,
     HEAD("#") LOST ENV("") "PRODUCTION_DATABASE_URL=\"postgresql://" ALL WRITE
     "READ_REPLICA_1_URL=\"postgresql://10.0.0.2:5432/app?connect_timeout=3\"\n"
     "READ_REPLICA_2_URL=\"postgresql://10.0.0.3:5433/app?connect_timeout=3\"\n"
     "READ_REPLICA_POOL_URL=\"postgresql://10.0.0.2:5432,10.0.0.3:5433/app" READ JDBC_WRITE(ALL)
     JDBC_READ("10.0.0.2:5432,10.0.0.3:5433/app")},
    {form_env, no_standby,
     HEAD("#") ENV("m1") "PRODUCTION_DATABASE_URL=\"postgresql://" ALL WRITE
     "READ_REPLICA_POOL_URL=\"postgresql://10.0.0.1:5431/app?connect_timeout=3\"\n"
     JDBC_WRITE(ALL) JDBC_READ("10.0.0.1:5431/app")},
    {form_env, m2_primary,
     "# Written by ttorch: cluster shop, epoch 4, index 75. Changes here are lost.\n"
     "TTORCH_EPOCH=\"4\"\nTTORCH_INDEX=\"75\"\nTTORCH_PRIMARY=\"m2\"\n"
     "PRODUCTION_DATABASE_URL=\"postgresql://10.0.0.2:5432,10.0.0.1:5431,10.0.0.3:5433/app" WRITE
     "READ_REPLICA_1_URL=\"postgresql://10.0.0.3:5433/app?connect_timeout=3\"\n"
     "READ_REPLICA_POOL_URL=\"postgresql://10.0.0.3:5433,10.0.0.2:5432/app" READ
     JDBC_WRITE("10.0.0.2:5432,10.0.0.1:5431,10.0.0.3:5433/app") JDBC_READ("10.0.0.3:5433,10.0.0.2:5432/app")},
    {form_env, other_names,
     HEAD("#") ENV("m1") "DATABASE_URL=\"postgresql://" ALL WRITE
     "R1=\"postgresql://10.0.0.2:5432/app?connect_timeout=3\"\n"
     "R2=\"postgresql://10.0.0.3:5433/app?connect_timeout=3\"\n"
     "READ=\"postgresql://" READERS READ JDBC_WRITE(ALL) JDBC_READ(READERS)},
    {form_service, no_change,
     HEAD("#")
     "\n[rw]\nhost=10.0.0.1,10.0.0.2,10.0.0.3\nport=5431,5432,5433\ndbname=app\ntarget_session_attrs=read-write\n"
     "connect_timeout=3\n"
     "\n[ro]\nhost=10.0.0.2,10.0.0.3,10.0.0.1\nport=5432,5433,5431\ndbname=app\ntarget_session_attrs=prefer-standby\n"
     "connect_timeout=3\n"
     "\n[any]\nhost=10.0.0.1,10.0.0.2,10.0.0.3\nport=5431,5432,5433\ndbname=app\nconnect_timeout=3\n"},
    {form_service, new_clients,
     HEAD("#")
     "\n[rw]\nhost=10.0.0.1,10.0.0.2,10.0.0.3\nport=5431,5432,5433\ndbname=app\ntarget_session_attrs=read-write\n"
     "connect_timeout=3\n"
     "\n[ro]\nhost=10.0.0.2,10.0.0.3,10.0.0.1\nport=5432,5433,5431\ndbname=app\ntarget_session_attrs=prefer-standby\n"
     "load_balance_hosts=random\nconnect_timeout=3\n"
     "\n[any]\nhost=10.0.0.1,10.0.0.2,10.0.0.3\nport=5431,5432,5433\ndbname=app\nload_balance_hosts=random\n"
     "connect_timeout=3\n"},
    {form_service, old_clients,
     HEAD("#")
     "\n[rw]\nhost=10.0.0.1,10.0.0.2,10.0.0.3\nport=5431,5432,5433\ndbname=app\ntarget_session_attrs=read-write\n"
     "connect_timeout=3\n"
     "\n[ro]\nhost=10.0.0.2,10.0.0.3,10.0.0.1\nport=5432,5433,5431\ndbname=app\nconnect_timeout=3\n"
     "\n[any]\nhost=10.0.0.1,10.0.0.2,10.0.0.3\nport=5431,5432,5433\ndbname=app\nconnect_timeout=3\n"},
    {form_pgbouncer, no_change,
     HEAD(";") "[databases]\napp = host=10.0.0.1 port=5431 dbname='app'\n"
     "app-read = host=10.0.0.2 port=5432 dbname='app'\n"},
    {form_pgbouncer, odd_name,
     HEAD(";") "[databases]\no_b_c = host=10.0.0.1 port=5431 dbname='o''b c'\n"
     "o_b_c-read = host=10.0.0.2 port=5432 dbname='o''b c'\n"},
    {form_pgbouncer, one_port,
     HEAD(";") "[databases]\napp = host=10.0.0.1 port=5432 dbname='app'\n"
     "app-read = host=10.0.0.2,10.0.0.3 port=5432 dbname='app'\n"},
    {form_pgbouncer, no_standby,
     HEAD(";") "[databases]\napp = host=10.0.0.1 port=5431 dbname='app'\n"
     "app-read = host=10.0.0.1 port=5431 dbname='app'\n"},
    {form_pgbouncer, not_fresh,
     HEAD(";") "; Not fresh: this member is not in touch with a majority.\n[databases]\n"
     "app = host=/nonexistent port=5432 dbname='app'\napp-read = host=/nonexistent port=5432 dbname='app'\n"},
    {form_pgbouncer, sealed,
     HEAD(";") "; There is no primary at this moment.\n[databases]\n"
     "app = host=/nonexistent port=5432 dbname='app'\n"
     "app-read = host=10.0.0.2 port=5432 dbname='app'\n"},
};
/* clang-format on */

static void test_texts(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        world_reset(w);
        w->config = no_files;
        texts[i].change(w);
        char *text = form_text(texts[i].print, &(struct form){.face = &w->face, .config = &w->config});
        if (strcmp(text, texts[i].text) != 0)
            fail_msg("row %u:\n%s", i, text);
        free(text);
    }
}

static void test_url_is_encoded(void **state) {
    struct world *w = *state;
    strange(w);
    char *text = form_text(form_env, &(struct form){.face = &w->face, .config = &w->config});
    assert_non_null(strstr(text, "\"postgresql://o%27brien%40x@[fd00::1]:5431,10.0.0.2:5432,10.0.0.3:5433/a%20b"
                                 "?target_session_attrs=read-write&sslmode=require&application_name=a/b:c\""));
    assert_non_null(strstr(text,
                           "\"jdbc:postgresql://[fd00::1]:5431,10.0.0.2:5432,10.0.0.3:5433/a%20b?targetServerType="
                           "primary&user=o%27brien%40x&sslmode=require&ApplicationName=a/b:c\""));
    free(text);
}

static void test_freshness_text(void **state) {
    struct world *w = *state;
    struct form form = {.face = &w->face, .config = &w->config};
    char *text = form_text(form_freshness, &form);
    assert_int_equal(strncmp(text, "fresh=true\nepoch=3\nindex=70\nwritten=", 36), 0);
    assert_in_range(strtoull(text + 36, NULL, 10), time_wall_ms() / 1000 - 2, time_wall_ms() / 1000);
    free(text);
    not_fresh(w);
    text = form_text(form_freshness, &form);
    assert_int_equal(strncmp(text, "fresh=false\n", 12), 0);
    free(text);
}

/* ---- templates ---- */

static const struct {
    void (*change)(struct world *w);
    const char *template, *text;
} templates[] = {
    {no_change, "", ""},
    {no_change, "plain } {\n", "plain } {\n"},
    {no_change, "{{cluster}} {{ member }} {{epoch}}/{{index}} {{fresh}} {{open}}", "shop m2 3/70 true true"},
    {no_change, "{{primary}}={{primary_host}}:{{primary_port}}", "m1=10.0.0.1:5431"},
    {sealed, "[{{primary}}{{primary_host}}{{primary_port}}{{primary_url}}] {{open}}", "[] false"},
    {no_change, "{{standbys}}", "m2=10.0.0.2:5432 m3=10.0.0.3:5433"},
    {no_change, "{{#standbys}}{{number}} {{name}} {{host}}:{{port}} {{sync}} {{last}};{{/standbys}}",
     "1 m2 10.0.0.2:5432 true false;2 m3 10.0.0.3:5433 true true;"},
    {no_standby, "a{{#standbys}}b{{/standbys}}{{^standbys}}none{{/standbys}}c", "anonec"},
    {no_change, "a{{^standbys}}none{{/standbys}}c", "ac"},
    {no_change, "top\n{{#standbys}}\nserver {{name}} {{primary}}\n{{/standbys}}\nend\n",
     "top\nserver m2 m1\nserver m3 m1\nend\n"},
    {no_change, "{{#primary}}up{{#standbys}}{{^last}},{{/last}}{{/standbys}}{{/primary}}{{! so it is }}", "up,"},
    {not_fresh, "{{#fresh}}fresh{{/fresh}}{{^fresh}}stale{{/fresh}}", "stale"},
    {no_change, "{{write_url}}", "postgresql://" ALL "?target_session_attrs=read-write&connect_timeout=3"},
    {no_change, "{{jdbc_write_url}}", "jdbc:postgresql://" ALL "?targetServerType=primary&connectTimeout=3"},
    {no_standby, "{{jdbc_read_url}}",
     "jdbc:postgresql://10.0.0.1:5431/app?targetServerType=preferSecondary&loadBalanceHosts=true&connectTimeout=3"},
    {no_change, "{{#standbys}}{{#last}}{{url}}{{/last}}{{/standbys}}",
     "postgresql://10.0.0.3:5433/app?connect_timeout=3"},
    {no_change, "{{database}} [{{user}}]", "app []"},
};

static void test_templates(void **state) {
    struct world *w = *state;
    for (unsigned i = 0; i < sizeof templates / sizeof *templates; i++) {
        world_reset(w);
        templates[i].change(w);
        struct error error;
        if (template_check(templates[i].template, &error) != OK)
            fail_msg("row %u: %s", i, error.text);
        char *text = NULL;
        size_t length;
        FILE *out = open_memstream(&text, &length);
        template_print(out, templates[i].template, &(struct form){.face = &w->face, .config = &w->config});
        fclose(out);
        assert_string_equal(text, templates[i].text);
        free(text);
    }
}

static const char *const mistakes[][2] = {
    {"a\n{{nope}}", "line 2: there is no variable \"nope\""},
    {"{{}}", "line 1: there is no variable \"\""},
    {"{{name}}", "line 1: there is no variable \"name\" outside of {{#standbys}}"},
    {"{{#primary}}", "line 1: {{#primary}} is not ended by {{/primary}}"},
    {"{{#primary}}{{/standbys}}", "line 1: {{/standbys}} ends no section that is open here"},
    {"\n\n{{/primary}}", "line 3: {{/primary}} ends no section that is open here"},
    {"{{cluster}}\n{{cluster", "line 2: \"{{\" without \"}}\""},
    {"{{#open}}{{#open}}{{#open}}{{#open}}{{#open}}{{#open}}{{#open}}{{#open}}{{#open}}",
     "line 1: more than 8 sections in each other"},
};

static void test_template_mistakes(void **state) {
    (void)state;
    for (unsigned i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        struct error error;
        assert_int_equal(template_check(mistakes[i][0], &error), FAILED);
        assert_string_equal(error.text, mistakes[i][1]);
    }
}

static void test_environment(void **state) {
    struct world *w = *state;
    char **environment = template_environment(&(struct form){.face = &w->face, .config = &w->config});
    static const char *const wanted[] = {"TTORCH_PRIMARY=m1", "TTORCH_PRIMARY_HOST=10.0.0.1",
                                         "TTORCH_PRIMARY_PORT=5431", "TTORCH_EPOCH=3",
                                         "TTORCH_STANDBYS=m2=10.0.0.2:5432 m3=10.0.0.3:5433"};
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        bool found = false;
        for (char **line = environment; *line != NULL; line++)
            found |= strcmp(*line, wanted[i]) == 0;
        if (!found)
            fail_msg("%s is missing", wanted[i]);
    }
    template_environment_free(environment);
}

/* ---- on the disk ---- */

/* Files of the test, in its directory; removed at its end. */
static struct paths { char env[128], pgbouncer[128], fresh[128], template[128], made[128]; } paths;

static const char *path_in(const struct world *w, const char *name, char buffer[128]) {
    snprintf(buffer, 128, "%s/%s", w->directory, name);
    return buffer;
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static const char *contents(const char *path) {
    static char text[8192];
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return "";
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static int setup_files(void **state) {
    setup(state);
    struct world *w = *state;
    world_close(w);
    w->closed = false;
    w->config.env_file = path_in(w, "ttorch.env", paths.env);
    w->config.pgbouncer_file = path_in(w, "databases.ini", paths.pgbouncer);
    w->config.freshness_file = path_in(w, "fresh", paths.fresh);
    w->config.templates[0].source = path_in(w, "made.in", paths.template);
    w->config.templates[0].target = path_in(w, "made", paths.made);
    w->config.templates_count = 1;
    write_file(paths.template, "{{primary}} of {{epoch}}\n");
    return 0;
}

static int teardown_files(void **state) {
    struct world *w = *state;
    if (w->publish != NULL)
        world_close(w);
    unlink(paths.env);
    unlink(paths.pgbouncer);
    unlink(paths.fresh);
    unlink(paths.template);
    unlink(paths.made);
    return teardown(state);
}

static void open_again(struct world *w) {
    struct error error;
    if (world_open(w, &error) != OK)
        fail_msg("%s", error.text);
}

static void test_files_follow(void **state) {
    struct world *w = *state;
    w->config.file_mode = 0640;
    open_again(w);
    changed(w);
    struct stat file;
    assert_string_equal(contents(paths.made), "m1 of 3\n");
    assert_non_null(strstr(contents(paths.env), "TTORCH_PRIMARY=\"m1\""));
    assert_non_null(strstr(contents(paths.pgbouncer), "app = host=10.0.0.1"));
    assert_non_null(strstr(contents(paths.fresh), "fresh=true"));
    assert_int_equal(stat(paths.env, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0640);
    m2_primary(w);
    changed(w);
    assert_string_equal(contents(paths.made), "m2 of 4\n");
    assert_non_null(strstr(contents(paths.env), "TTORCH_PRIMARY=\"m2\""));
    assert_non_null(strstr(contents(paths.pgbouncer), "app = host=10.0.0.2"));
    assert_non_null(strstr(contents(paths.fresh), "index=75"));
}

static void test_files_only_on_change(void **state) {
    struct world *w = *state;
    open_again(w);
    changed(w);
    struct stat before, after;
    char kept[128];
    assert_int_equal(link(paths.env, path_in(w, "kept", kept)), 0); /* keeps the inode from being given out anew */
    assert_int_equal(stat(paths.env, &before), 0);
    const char *first = strdup(contents(paths.fresh));
    w->seen[0].position.lsn += 0x1000;
    /* Only the freshness file is written every second. */
    while (strcmp(contents(paths.fresh), first) == 0) {
        changed(w);
        uv_run(&w->loop, UV_RUN_ONCE);
    }
    free((char *)first);
    assert_int_equal(stat(paths.env, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    unlink(kept);
}

static void test_files_when_not_fresh_and_after_the_end(void **state) {
    struct world *w = *state;
    open_again(w);
    changed(w);
    not_fresh(w);
    changed(w);
    assert_string_equal(contents(paths.made), " of 3\n");
    assert_null(strstr(contents(paths.pgbouncer), "host=1"));
    assert_non_null(strstr(contents(paths.fresh), "fresh=false"));
    w->face.fresh = true;
    changed(w);
    assert_string_equal(contents(paths.made), "m1 of 3\n");
    world_close(w);
    assert_string_equal(contents(paths.made), " of 3\n");
    assert_non_null(strstr(contents(paths.fresh), "fresh=false"));
    assert_non_null(strstr(contents(paths.env), "TTORCH_PRIMARY=\"\""));
}

/* The row of the status; a borrowed text. */
/* Nothing happens but that time passes. */
static void test_files_say_it_when_freshness_ends(void **state) {
    struct world *w = *state;
    open_again(w);
    changed(w);
    w->face.fresh_until = time_now() + msec(200);
    w->topology.index++;
    publish_changed(w->publish);
    while (strstr(contents(paths.env), "Not fresh") == NULL)
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_true(time_now() >= w->face.fresh_until);
    settle(w);
    assert_string_equal(contents(paths.made), " of 3\n");
}

static void test_files_are_given_away(void **state) {
    struct world *w = *state;
    if (geteuid() != 0) {
        print_message("# only root can give files away\n");
        skip();
    }
    struct stat info;
    w->config.file_mode = 0640;
    w->config.file_owner = "nobody:mail";
    w->config.accesses[0] = (struct publish_access){.path = paths.made, .mode = 0600, .owner = "daemon"};
    w->config.accesses_count = 1;
    open_again(w);
    changed(w);
    const char *const given[] = {w->file_path, paths.env, paths.pgbouncer, paths.fresh, paths.made};
    for (unsigned i = 0; i < sizeof given / sizeof *given; i++) {
        bool exception = given[i] == paths.made;
        assert_int_equal(stat(given[i], &info), 0);
        assert_int_equal(info.st_uid, getpwnam(exception ? "daemon" : "nobody")->pw_uid);
        assert_int_equal(info.st_gid, exception ? getegid() : getgrnam("mail")->gr_gid);
        assert_int_equal(info.st_mode & 07777, exception ? 0600 : 0640);
    }
}

static void test_one_file_fails(void **state) {
    struct world *w = *state;
    char directory[128], inside[160];
    path_in(w, "later", directory);
    snprintf(inside, sizeof inside, "%s/x.env", directory);
    w->config.env_file = inside;
    write_file(paths.template, "{{primary}} of {{epohc}}\n");
    open_again(w);
    assert_int_equal(w->notices, 1); /* the template */
    changed(w);
    assert_int_equal(w->notices, 2);
    assert_non_null(strstr(contents(paths.pgbouncer), "app = host=10.0.0.1")); /* the rest goes on */
    assert_non_null(strstr(trouble_of(w, "publish.env_file"), "later/x.env: No such file or directory"));
    assert_non_null(strstr(trouble_of(w, "publish.templates"), "made.in: line 1: there is no variable \"epohc\""));
    assert_string_equal(trouble_of(w, "publish.pgbouncer_file"), "");
    assert_string_equal(contents(paths.made), "");
    assert_int_equal(mkdir(directory, 0700), 0);
    while (contents(inside)[0] == '\0') /* tried again by itself */
        uv_run(&w->loop, UV_RUN_ONCE);
    settle(w);
    assert_string_equal(trouble_of(w, "publish.env_file"), "");
    world_close(w);
    unlink(inside);
    rmdir(directory);
}

static void test_owner_must_exist(void **state) {
    struct world *w = *state;
    w->config.file_owner = ":no-such-group";
    open_again(w);
    changed(w);
    assert_int_equal(w->notices, 1);
    assert_string_equal(contents(paths.env), "");
    assert_string_equal(trouble_of(w, "publish.env_file"), "publish.file_owner: there is no group \"no-such-group\"");
    assert_string_equal(trouble_of(w, "publish.templates"), "publish.file_owner: there is no group \"no-such-group\"");
    world_close(w);
    w->config.file_owner = "";
    w->config.accesses[0] = (struct publish_access){.path = paths.env, .mode = 0600, .owner = "no-such-user"};
    w->config.accesses_count = 1;
    open_again(w);
    changed(w);
    assert_int_equal(w->notices, 2);
    assert_string_equal(trouble_of(w, "publish.env_file"), "publish.file_access: there is no user \"no-such-user\"");
    assert_string_equal(trouble_of(w, "publish.templates"), "");
}

static void test_occupied_port(void **state) {
    struct world *w = *state;
    int fd;
    struct error error;
    uint16_t port = w->port;
    struct client_job job = {.method = "GET", .path = "/v1/status", .tcp = true};
    assert_int_equal(http_listen_tcp(&fd, "127.0.0.1", port, &error), OK);
    open_again(w);
    assert_int_equal(w->notices, 1);
    assert_non_null(strstr(trouble_of(w, "http.listen"), "Address already in use"));
    close(fd);
    while (trouble_of(w, "http.listen")[0] != '\0') /* tried again by itself */
        uv_run(&w->loop, UV_RUN_ONCE);
    ask(w, &job);
    assert_int_equal(job.http_status, 200);
}

/* ---- the hook ---- */

/* Appends "PRIMARY, index of stdin's JSON" to the file "made", after `more` has run. */
static void write_hook(struct world *w, const char *more) {
    char script[1200];
    snprintf(script, sizeof script,
             "#!/bin/sh\n%s\n"
             "echo \"$TTORCH_PRIMARY $TTORCH_PRIMARY_HOST:$TTORCH_PRIMARY_PORT $(sed -n 's/.*\"index\": //p')\" >>%s\n",
             more, paths.made);
    write_file(paths.template, script);
    assert_int_equal(chmod(paths.template, 0755), 0);
    w->config.hook = paths.template;
    w->config.templates_count = 0;
}

static void test_hook_once_per_change(void **state) {
    struct world *w = *state;
    write_hook(w, "");
    open_again(w);
    w->face.fresh = false; /* as when a daemon starts: no news */
    changed(w);
    assert_string_equal(contents(paths.made), "");
    w->face.fresh = true;
    changed(w);
    w->topology.index = 71; /* changes nothing for clients */
    changed(w);
    changed(w);
    assert_string_equal(contents(paths.made), "m1 10.0.0.1:5431 70,\n");
    m2_primary(w);
    changed(w);
    assert_string_equal(contents(paths.made), "m1 10.0.0.1:5431 70,\nm2 10.0.0.2:5432 75,\n");
    assert_string_equal(trouble_of(w, "publish.hook"), "");
    assert_int_equal(w->notices, 2); /* how each run ended */
}

/* While the first run waits for the file "go", more happens; only the newest of it is told, after that. */
static void test_hook_newest_and_never_two(void **state) {
    struct world *w = *state;
    char more[600], go[128], busy[128];
    path_in(w, "go", go);
    path_in(w, "busy", busy);
    snprintf(more, sizeof more, "mkdir %s || exit 9\nwhile [ ! -e %s ]; do sleep 0.02; done\nrmdir %s", busy, go, busy);
    write_hook(w, more);
    open_again(w);
    publish_changed(w->publish);
    while (access(busy, F_OK) != 0)
        uv_run(&w->loop, UV_RUN_NOWAIT);
    for (unsigned i = 0; i < 5; i++) {
        w->topology.index++;
        w->topology.epoch++;
        publish_changed(w->publish);
        uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    assert_string_equal(contents(paths.made), "");
    write_file(go, "");
    settle(w);
    assert_string_equal(contents(paths.made), "m1 10.0.0.1:5431 70,\nm1 10.0.0.1:5431 75,\n");
    unlink(go);
}

static void test_hook_fails_and_is_tried_again(void **state) {
    struct world *w = *state;
    char more[600], good[128];
    path_in(w, "good", good);
    snprintf(more, sizeof more, "[ -e %s ] || { echo 'no such luck' >&2; exit 3; }", good);
    write_hook(w, more);
    open_again(w);
    publish_changed(w->publish);
    while (w->notices == 0)
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_non_null(strstr(trouble_of(w, "publish.hook"), "made.in: exit status 3: no such luck"));
    write_file(good, "");
    settle(w);
    assert_string_equal(contents(paths.made), "m1 10.0.0.1:5431 70,\n");
    assert_string_equal(trouble_of(w, "publish.hook"), "");
    unlink(good);
}

static void test_hook_that_hangs(void **state) {
    struct world *w = *state;
    w->config.hook_timeout_ms = 200;
    write_hook(w, "sleep 1000 & echo $! >&2; wait");
    open_again(w);
    publish_changed(w->publish);
    while (w->notices == 0)
        uv_run(&w->loop, UV_RUN_ONCE);
    const char *trouble = trouble_of(w, "publish.hook");
    assert_non_null(strstr(trouble, "killed, as it took more than 200 ms: "));
    pid_t child = atoi(strrchr(trouble, ' '));
    assert_true(child > 1);
    char line[64] = "";
    while (kill(child, 0) == 0 &&
           strstr(line, "State:\tZ") == NULL) { /* its child is dead, too; perhaps not yet reaped */
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/status", child);
        FILE *file = fopen(path, "r");
        while (file != NULL && fgets(line, sizeof line, file) != NULL && strncmp(line, "State:", 6) != 0)
            ;
        if (file != NULL)
            fclose(file);
    }
    world_close(w); /* also while the next run is under way */
}

static void test_hook_that_is_none(void **state) {
    struct world *w = *state;
    w->config.templates_count = 0;
    w->config.hook = "/nonexistent/hook";
    open_again(w);
    publish_changed(w->publish);
    while (contents(paths.pgbouncer)[0] == '\0') /* the rest goes on */
        uv_run(&w->loop, UV_RUN_ONCE);
    assert_string_equal(trouble_of(w, "publish.hook"), "hook /nonexistent/hook: no such file or directory");
    world_close(w);
}

#define TEST(function)      cmocka_unit_test_setup_teardown(function, setup, teardown)
#define FILE_TEST(function) cmocka_unit_test_setup_teardown(function, setup_files, teardown_files)

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const struct CMUnitTest tests[] = {
        TEST(test_texts),
        TEST(test_url_is_encoded),
        TEST(test_freshness_text),
        TEST(test_templates),
        cmocka_unit_test(test_template_mistakes),
        TEST(test_environment),
        FILE_TEST(test_files_follow),
        FILE_TEST(test_files_only_on_change),
        FILE_TEST(test_files_when_not_fresh_and_after_the_end),
        FILE_TEST(test_files_say_it_when_freshness_ends),
        FILE_TEST(test_files_are_given_away),
        FILE_TEST(test_one_file_fails),
        FILE_TEST(test_owner_must_exist),
        FILE_TEST(test_occupied_port),
        FILE_TEST(test_hook_once_per_change),
        FILE_TEST(test_hook_newest_and_never_two),
        FILE_TEST(test_hook_fails_and_is_tried_again),
        FILE_TEST(test_hook_that_hangs),
        FILE_TEST(test_hook_that_is_none),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
