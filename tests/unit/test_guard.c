/* ttorch-guard and its client, with shell scripts as postmasters and with a real PostgreSQL if one is installed.
 * PostgreSQL refuses root: as root the test becomes `postgres` first. */
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/watchdog.h>

#include <cmocka.h>
#include <libpq-fe.h>
#include <uv.h>

#include "pgctl/guard.h"
#include "pgctl/guard_watchdog.h"

#define AWAIT_MS    20000
#define TICK_MS     3
#define PATH_SIZE   256
#define PROCESS_MAX 1024
#define SESSIONS    50
/* An orphan, whose parent has ended before the others begin; two children in sessions of their own, as PostgreSQL's
 * are; one of them has two more. */
#define FAMILY                      \
    "sh -c 'setsid sleep 300 &' ; " \
    "setsid sleep 300 & setsid sh -c 'setsid sleep 300 & setsid sleep 300 & wait' & "
#define FAMILY_SIZE 6 /* with the postmaster */

static char directory[PATH_SIZE], program[PATH_SIZE], postgres_program[PATH_SIZE], data_directory[PATH_SIZE];
static char postgres_port[16];

/* ---- processes ---- */

static pid_t parent_of(pid_t pid) {
    char path[64], text[512] = "", state;
    int parent;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    const char *end = length > 0 ? strrchr(text, ')') : NULL;
    return end != NULL && sscanf(end, ") %c %d", &state, &parent) == 2 && state != 'Z' ? parent : 0;
}

static bool alive(pid_t pid) { return parent_of(pid) != 0; }

struct family {
    unsigned count;
    pid_t pids[PROCESS_MAX];
};

static void family_add_children(struct family *family, pid_t parent) {
    DIR *proc = opendir("/proc");
    assert_non_null(proc);
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid > 0 && parent_of(pid) == parent && family->count < PROCESS_MAX)
            family->pids[family->count++] = pid;
    }
    closedir(proc);
}

/* Every descendant of `root`. */
static struct family family_of(pid_t root) {
    struct family family = {0};
    family_add_children(&family, root);
    for (unsigned i = 0; i < family.count; i++)
        family_add_children(&family, family.pids[i]);
    return family;
}

static unsigned survivors(const struct family *family) {
    unsigned count = 0;
    for (unsigned i = 0; i < family->count; i++)
        count += alive(family->pids[i]);
    return count;
}

/* ---- a client ---- */

static const char *watchdog_mode; /* of guards that are started */

struct client {
    uv_loop_t loop;
    uv_timer_t tick, limit;
    bool late, closed;
    struct guard *guard;
    struct guard_state state; /* as `changed` said last */
    unsigned changes;
    char socket_path[PATH_SIZE], log_file[PATH_SIZE];
    const char *data;
};

static void on_changed(void *user, const struct guard_state *state) {
    struct client *client = user;
    client->state = *state;
    client->changes++;
}

static void on_tick(uv_timer_t *timer) { (void)timer; /* wakes the loop to look again */ }

static void on_limit(uv_timer_t *timer) { ((struct client *)timer->data)->late = true; }

#define await(client, condition)                                                                          \
    do {                                                                                                  \
        bool met;                                                                                         \
        await_begin(client);                                                                              \
        while (!(met = (condition)) && !(client)->late)                                                   \
            uv_run(&(client)->loop, UV_RUN_ONCE);                                                         \
        await_end(client);                                                                                \
        if (!met)                                                                                         \
            fail_msg("%s: not within %d ms; failure: %s", #condition, AWAIT_MS, (client)->state.failure); \
    } while (0)

static void await_begin(struct client *client) {
    client->late = false;
    uv_update_time(&client->loop);
    uv_timer_start(&client->tick, on_tick, TICK_MS, TICK_MS);
    uv_timer_start(&client->limit, on_limit, AWAIT_MS, 0);
}

static void await_end(struct client *client) {
    uv_timer_stop(&client->tick);
    uv_timer_stop(&client->limit);
}

static void connect_guard(struct client *client) {
    struct error error;
    struct guard_config config = {.program = program,
                                  .socket_path = client->socket_path,
                                  .data_directory = client->data,
                                  .log_file = client->log_file,
                                  .watchdog = watchdog_mode,
                                  .watchdog_device = "/nowhere/watchdog",
                                  .watchdog_s = 3};
    client->changes = 0;
    memset(&client->state, 0, sizeof client->state);
    assert_int_equal(guard_open(&client->guard, &client->loop, &config, on_changed, client, &error), OK);
    assert_int_equal(client->changes, 0); /* never from inside a call */
}

static void client_open(struct client *client, const char *name) {
    *client = (struct client){.data = data_directory};
    snprintf(client->socket_path, PATH_SIZE, "%.200s/%s.guard", directory, name);
    snprintf(client->log_file, PATH_SIZE, "%.200s/log", directory);
    assert_int_equal(uv_loop_init(&client->loop), 0);
    uv_timer_init(&client->loop, &client->tick);
    uv_timer_init(&client->loop, &client->limit);
    client->limit.data = client;
    connect_guard(client);
    await(client, client->state.connected);
}

static void on_closed(void *user) { ((struct client *)user)->closed = true; }

static void disconnect(struct client *client, bool keep) {
    client->closed = false;
    guard_close(client->guard, keep, on_closed, client);
    assert_false(client->closed);
    await(client, client->closed);
}

static void loop_close(struct client *client) {
    uv_close((uv_handle_t *)&client->tick, NULL);
    uv_close((uv_handle_t *)&client->limit, NULL);
    uv_run(&client->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&client->loop), 0);
}

/* Ends the guard too, and sees that nothing is left. */
static void client_end(struct client *client) {
    pid_t guard_pid = client->state.guard_pid;
    struct family family = family_of(guard_pid);
    disconnect(client, false);
    await(client, !alive(guard_pid) && survivors(&family) == 0);
    loop_close(client);
}

static void start(struct client *client, const char *const argv[]) {
    struct error error;
    assert_int_equal(guard_start(client->guard, argv, &error), OK);
    await(client, client->state.server == GUARD_RUNNING);
    assert_int_equal(parent_of(client->state.postmaster_pid), client->state.guard_pid);
}

/* A shell as postmaster, and everything that it starts. */
static struct family start_script(struct client *client, const char *script, unsigned size) {
    start(client, (const char *const[]){"/bin/sh", "-c", script, NULL});
    await(client, family_of(client->state.guard_pid).count >= size);
    return family_of(client->state.guard_pid);
}

static void arm(struct client *client, uint32_t epoch, nsec deadline) {
    struct error error = {""};
    if (guard_arm(client->guard, epoch, deadline, &error) != OK)
        fail_msg("%s", error.text);
}

/* ---- the postmaster's life ---- */

static void test_exit_is_reported(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "exit");
    assert_int_equal(client.state.server, GUARD_DOWN);
    assert_true(client.state.deadline == NSEC_NEVER);
    struct family family = start_script(&client, "trap 'exit 3' INT; setsid sleep 300 & wait", 2);
    assert_int_equal(guard_start(client.guard, (const char *const[]){"/bin/true", NULL}, &error), FAILED);
    assert_non_null(strstr(error.text, "has not ended"));
    assert_int_equal(guard_signal(client.guard, SIGINT, &error), OK);
    await(&client, client.state.server == GUARD_DOWN);
    assert_int_equal(WEXITSTATUS(client.state.exit_status), 3);
    assert_int_equal(client.state.exits, 1);
    assert_int_equal(client.state.postmaster_pid, 0);
    assert_false(client.state.killed_by_deadline);
    assert_int_equal(survivors(&family), 0);
    client_end(&client);
}

static void test_restarts(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "restarts");
    for (unsigned i = 1; i <= 20; i++) {
        assert_int_equal(guard_start(client.guard, (const char *const[]){"/bin/true", NULL}, &error), OK);
        await(&client, client.state.exits == i && client.state.server == GUARD_DOWN);
        assert_int_equal(client.state.exit_status, 0);
    }
    client_end(&client);
}

static void test_exec_failure_is_told(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "exec");
    assert_int_equal(guard_start(client.guard, (const char *const[]){"/nowhere/postgres", NULL}, &error), OK);
    await(&client, client.state.exits == 1);
    assert_int_equal(WEXITSTATUS(client.state.exit_status), 127);
    assert_non_null(strstr(client.state.failure, "No such file"));
    start_script(&client, "exec sleep 300", 1);
    assert_string_equal(client.state.failure, "");
    client_end(&client);
}

static void test_refused_command_is_told(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "refused");
    assert_int_equal(guard_signal(client.guard, SIGHUP, &error), OK);
    await(&client, strstr(client.state.failure, "no postmaster") != NULL);
    assert_int_equal(guard_kill(client.guard, &error), OK); /* nothing runs: nothing to do */
    await(&client, client.state.failure[0] == '\0');
    client_end(&client);
}

static bool status_read(pid_t pid, const char *name, char *ret_text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    ret_text[fread(ret_text, 1, size - 1, file)] = '\0';
    fclose(file);
    return strstr(ret_text, name) != NULL;
}

static void test_postmaster_is_ordinary(void **unused) {
    struct client client;
    struct family family;
    char text[4096];
    (void)unused;
    signal(SIGHUP, SIG_IGN); /* as under nohup: must not reach PostgreSQL */
    client_open(&client, "ordinary");
    family = start_script(&client, "exec sleep 300", 1);
    assert_int_equal(sched_getscheduler(family.pids[0]), SCHED_OTHER);
    await(&client, status_read(family.pids[0], "Name:\tsleep", text, sizeof text)); /* a shell blocks signals before */
    assert_non_null(strstr(text, "VmLck:\t       0 kB"));
    assert_non_null(strstr(text, "SigBlk:\t0000000000000000"));
    assert_non_null(strstr(text, "SigIgn:\t0000000000000000"));
    client_end(&client);
}

/* ---- killing ---- */

static void test_kill_reaches_everyone(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "kill");
    struct family family = start_script(&client, FAMILY "wait", FAMILY_SIZE);
    assert_int_equal(guard_kill(client.guard, &error), OK);
    await(&client, client.state.server == GUARD_DOWN);
    assert_int_equal(survivors(&family), 0);
    assert_int_equal(WTERMSIG(client.state.exit_status), SIGKILL);
    assert_false(client.state.killed_by_deadline);
    client_end(&client);
}

static void test_crash_takes_everyone(void **unused) {
    struct client client;
    (void)unused;
    client_open(&client, "crash");
    struct family family = start_script(&client, FAMILY "wait", FAMILY_SIZE);
    kill(client.state.postmaster_pid, SIGSEGV);
    await(&client, client.state.server == GUARD_DOWN);
    assert_int_equal(survivors(&family), 0);
    assert_int_equal(WTERMSIG(client.state.exit_status), SIGSEGV);
    client_end(&client);
}

static void test_fork_storm_ends(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "storm");
    start_script(
        &client,
        "storm() { for i in 1 2 3; do setsid sh -c 'while :; do setsid sleep 0.01; done' & done; }; storm; wait", 7);
    assert_int_equal(guard_kill(client.guard, &error), OK);
    await(&client, client.state.server == GUARD_DOWN);
    assert_int_equal(family_of(client.state.guard_pid).count, 0);
    client_end(&client);
}

static void test_guard_ends_politely(void **unused) {
    struct client client;
    (void)unused;
    client_open(&client, "term");
    char marker[PATH_SIZE], script[2 * PATH_SIZE];
    snprintf(marker, sizeof marker, "%.200s/fast-stop", directory);
    snprintf(script, sizeof script, "trap 'touch %s; exit 0' INT; sleep 300 & wait", marker);
    struct family family = start_script(&client, script, 2);
    pid_t first = client.state.guard_pid;
    kill(first, SIGINT); /* both mean nothing to it */
    kill(first, SIGHUP);
    arm(&client, 1, NSEC_NEVER);
    assert_int_equal(client.state.server, GUARD_RUNNING);
    kill(first, SIGTERM);
    await(&client, client.state.connected && client.state.guard_pid != first);
    assert_int_equal(access(marker, F_OK), 0);
    assert_int_equal(survivors(&family), 0);

    family = start_script(&client, "trap '' INT; sleep 300 & wait", 2);
    pid_t second = client.state.guard_pid;
    kill(second, SIGTERM);
    arm(&client, 1, NSEC_NEVER); /* answered after the signal was taken */
    assert_int_equal(guard_state(client.guard)->server, GUARD_RUNNING);
    kill(second, SIGTERM);
    await(&client, client.state.connected && client.state.guard_pid != second);
    assert_int_equal(survivors(&family), 0);
    client_end(&client);
}

/* ---- the lease ---- */

static void test_deadline_kills(void **unused) {
    struct client client;
    (void)unused;
    client_open(&client, "deadline");
    struct family family = start_script(&client, FAMILY "wait", FAMILY_SIZE);
    nsec deadline = time_now() + msec(200);
    arm(&client, 7, deadline);
    await(&client, client.state.server == GUARD_DOWN);
    assert_true(time_now() >= deadline);
    assert_true(client.state.killed_by_deadline);
    assert_int_equal(client.state.epoch, 7);
    assert_int_equal(survivors(&family), 0);
    start_script(&client, "exec sleep 300", 1); /* a start begins without a deadline */
    assert_true(client.state.deadline == NSEC_NEVER);
    assert_false(client.state.killed_by_deadline);
    assert_int_equal(client.state.epoch, 7);
    client_end(&client);
}

static void test_renewals_keep_it_alive(void **unused) {
    struct client client;
    (void)unused;
    client_open(&client, "renew");
    struct family family = start_script(&client, "exec sleep 300", 1);
    nsec until = time_now() + msec(600), next = 0;
    while (time_now() < until) {
        arm(&client, 1, time_now() + msec(200));
        next = time_now() + msec(40);
        await(&client, time_now() >= next);
    }
    assert_int_equal(survivors(&family), 1);
    await(&client, client.state.killed_by_deadline && client.state.server == GUARD_DOWN);
    client_end(&client);
}

static void test_deadline_moves_forward_only(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "forward");
    start_script(&client, "exec sleep 300", 1);
    nsec far = time_now() + msec(100000);
    arm(&client, 5, far);
    arm(&client, 5, far - msec(5000)); /* known already, and better */
    arm(&client, 5, 1);
    assert_true(guard_state(client.guard)->deadline == far);
    assert_int_equal(guard_arm(client.guard, 4, far + 1, &error), FAILED);
    assert_non_null(strstr(error.text, "epoch 4 is over"));
    assert_true(guard_state(client.guard)->deadline == far);
    arm(&client, 5, NSEC_NEVER);
    assert_true(guard_state(client.guard)->deadline == NSEC_NEVER);
    arm(&client, 5, far - msec(5000));
    assert_true(guard_state(client.guard)->deadline == far - msec(5000));
    assert_int_equal(guard_state(client.guard)->server, GUARD_RUNNING);
    arm(&client, 6, time_now() - 1); /* past: at once */
    assert_int_equal(guard_state(client.guard)->server, GUARD_KILLING);
    await(&client, client.state.server == GUARD_DOWN);
    assert_true(client.state.killed_by_deadline);
    client_end(&client);
}

static void test_lease_outlives_the_daemon(void **unused) {
    struct client client;
    (void)unused;
    client_open(&client, "takeover");
    struct family family = start_script(&client, FAMILY "wait", FAMILY_SIZE);
    nsec deadline = time_now() + msec(500);
    pid_t guard_pid = client.state.guard_pid;
    arm(&client, 9, deadline);
    disconnect(&client, true);
    connect_guard(&client);
    await(&client, client.state.connected);
    assert_int_equal(client.state.guard_pid, guard_pid);
    assert_int_equal(client.state.epoch, 9);
    assert_true(client.state.deadline == deadline);
    assert_int_equal(client.state.server, GUARD_RUNNING);
    arm(&client, 9, deadline + msec(300));
    await(&client, time_now() > deadline + msec(100));
    assert_int_equal(survivors(&family), FAMILY_SIZE);
    disconnect(&client, true); /* and nobody renews */
    await(&client, survivors(&family) == 0);
    assert_true(time_now() >= deadline + msec(300));
    connect_guard(&client);
    await(&client, client.state.connected);
    assert_true(client.state.killed_by_deadline);
    assert_int_equal(client.state.exits, 1);
    client_end(&client);
}

/* Another process as the daemon: starts, arms, then freezes. */
static int frozen_daemon(const char *name) {
    struct client client;
    client_open(&client, name);
    start_script(&client, FAMILY "wait", FAMILY_SIZE);
    arm(&client, 3, time_now() + msec(300));
    raise(SIGSTOP);
    return 0;
}

static pid_t frozen_daemon_start(const char *name) {
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "test_guard", "--frozen", name, directory, NULL);
        _exit(127);
    }
    int wait_status;
    assert_int_equal(waitpid(pid, &wait_status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(wait_status));
    return pid;
}

static void test_deadline_needs_no_daemon(void **argument) {
    bool dead = *argument != NULL;
    const char *name = dead ? "dead" : "frozen";
    struct client client;
    pid_t daemon = frozen_daemon_start(name);
    if (dead)
        kill(daemon, SIGKILL);
    client_open(&client, name); /* takes over, and renews nothing */
    assert_int_equal(client.state.epoch, 3);
    struct family family = family_of(client.state.guard_pid);
    await(&client, client.state.server == GUARD_DOWN);
    assert_int_equal(survivors(&family), 0);
    assert_true(client.state.killed_by_deadline);
    assert_int_equal(client.state.exits, 1);
    kill(daemon, SIGKILL);
    assert_int_equal(waitpid(daemon, NULL, 0), daemon);
    client_end(&client);
}

/* ---- the guard's own life ---- */

static void test_guard_death_is_the_postmasters(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "death");
    start_script(&client, "exec sleep 300", 1);
    pid_t guard_pid = client.state.guard_pid, postmaster = client.state.postmaster_pid;
    kill(guard_pid, SIGKILL);
    await(&client, !client.state.connected || client.state.guard_pid != guard_pid);
    await(&client, client.state.connected && client.state.guard_pid != guard_pid);
    assert_int_equal(client.state.server, GUARD_DOWN);
    await(&client, !alive(postmaster));
    assert_int_equal(guard_arm(client.guard, 1, NSEC_NEVER, &error), OK);
    client_end(&client);
}

static void test_silent_guard_takes_nothing(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    client_open(&client, "silent");
    start_script(&client, "exec sleep 300", 1);
    kill(client.state.guard_pid, SIGSTOP);
    nsec began = time_now();
    assert_int_equal(guard_arm(client.guard, 1, NSEC_NEVER, &error), FAILED);
    assert_true(time_now() - began < msec(1000));
    assert_non_null(strstr(error.text, "did not answer"));
    await(&client, !client.state.connected);
    assert_int_equal(guard_arm(client.guard, 1, NSEC_NEVER, &error), FAILED); /* without waiting again */
    kill(client.state.guard_pid, SIGCONT);
    await(&client, client.state.connected);
    assert_int_equal(client.state.epoch, 1); /* it came through in the end */
    client_end(&client);
}

static int run_guard(const char *socket_path) {
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        execl(program, program, socket_path, data_directory, NULL);
        _exit(127);
    }
    int wait_status;
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_true(WIFEXITED(wait_status));
    return WEXITSTATUS(wait_status);
}

static void test_second_guard_is_refused(void **unused) {
    struct client client;
    (void)unused;
    client_open(&client, "second");
    assert_int_equal(run_guard(client.socket_path), 1);
    assert_int_equal(run_guard("relative/path"), 2);
    arm(&client, 1, NSEC_NEVER); /* the first one still answers */
    client_end(&client);
}

static void test_stale_socket_is_replaced(void **unused) {
    struct client client;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)unused;
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/stale.guard", directory);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    client_open(&client, "stale");
    client_end(&client);
}

static void test_open_directory_is_refused(void **unused) {
    struct client client;
    (void)unused;
    char socket_path[PATH_SIZE];
    snprintf(socket_path, sizeof socket_path, "%.200s/open", directory);
    assert_int_equal(mkdir(socket_path, 0755), 0);
    assert_int_equal(chmod(socket_path, 0755), 0);
    strcat(socket_path, "/guard");
    assert_int_equal(run_guard(socket_path), 1);

    client_open(&client, "mode"); /* for its loop */
    struct guard *mine = client.guard;
    pid_t mine_pid = client.state.guard_pid;
    snprintf(client.socket_path, sizeof client.socket_path, "%s", socket_path);
    connect_guard(&client);
    await(&client, strstr(client.state.failure, "could not start") != NULL);
    assert_false(client.state.connected);
    disconnect(&client, false);
    client.guard = mine;
    client.state.guard_pid = mine_pid;
    client_end(&client);
}

static void test_close_while_starting(void **unused) {
    struct client client;
    (void)unused;
    client_open(&client, "early");
    client_end(&client);
    client = (struct client){.data = data_directory};
    snprintf(client.socket_path, PATH_SIZE, "%.200s/early.guard", directory);
    snprintf(client.log_file, PATH_SIZE, "%.200s/log", directory);
    uv_loop_init(&client.loop);
    uv_timer_init(&client.loop, &client.tick);
    uv_timer_init(&client.loop, &client.limit);
    client.limit.data = &client;
    connect_guard(&client);
    disconnect(&client, false);
    await(&client, access(client.socket_path, F_OK) != 0); /* the guard that was under way has ended */
    loop_close(&client);
}

static void test_bad_configuration(void **unused) {
    struct guard *guard = NULL;
    struct error error;
    char longer[PATH_SIZE];
    (void)unused;
    memset(longer, 'x', 150);
    longer[0] = '/';
    longer[150] = '\0';
    struct guard_config config = {
        .program = program, .socket_path = longer, .data_directory = data_directory, .log_file = "/dev/null"};
    assert_int_equal(guard_open(&guard, uv_default_loop(), &config, on_changed, NULL, &error), FAILED);
    assert_non_null(strstr(error.text, "longer than 107"));
    config = (struct guard_config){.program = "/nowhere/ttorch-guard",
                                   .socket_path = "/tmp/x",
                                   .data_directory = data_directory,
                                   .log_file = "/dev/null"};
    assert_int_equal(guard_open(&guard, uv_default_loop(), &config, on_changed, NULL, &error), FAILED);
    assert_non_null(strstr(error.text, "No such file"));
    assert_null(guard);
}

/* ---- the protocol ---- */

static int stranger_connect(const char *socket_path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", socket_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* The next message's size; 0 at the end of the connection. */
static ssize_t stranger_read(int fd, struct guard_report *report) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, AWAIT_MS), 1);
    return recv(fd, report, sizeof *report, MSG_TRUNC);
}

static void test_garbage_ends_the_connection(void **unused) {
    static char large[3 * sizeof(struct guard_start_request)];
    struct guard_request odd = {.protocol = GUARD_PROTOCOL + 1, .command = GUARD_COMMAND_ARM, .serial = 1};
    struct guard_request start_too_short = {.protocol = GUARD_PROTOCOL, .command = GUARD_COMMAND_START, .serial = 1};
    struct guard_request no_serial = {.protocol = GUARD_PROTOCOL, .command = GUARD_COMMAND_ATTACH};
    const struct {
        const void *bytes;
        size_t size;
    } rows[] = {
        {"abc", 3},
        {large, sizeof large},
        {&odd, sizeof odd},
        {&start_too_short, sizeof start_too_short},
        {&no_serial, sizeof no_serial},
        {&no_serial, sizeof no_serial - 1},
    };
    struct client client;
    struct guard_report report;
    (void)unused;
    client_open(&client, "garbage");
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = stranger_connect(client.socket_path);
        assert_int_equal(stranger_read(fd, &report), sizeof report); /* whoever connects is told */
        assert_int_equal(report.serial, 0);
        assert_int_equal(report.told.guard_pid, client.state.guard_pid);
        assert_int_equal(send(fd, rows[i].bytes, rows[i].size, MSG_NOSIGNAL), rows[i].size);
        assert_int_equal(stranger_read(fd, &report), 0);
        close(fd);
    }
    arm(&client, 1, NSEC_NEVER);
    client_end(&client);
}

static void test_only_the_newest_daemon_is_obeyed(void **unused) {
    struct client client;
    struct error error;
    struct guard_report report;
    struct guard_request kill_all = {.protocol = GUARD_PROTOCOL, .command = GUARD_COMMAND_KILL, .serial = 41};
    struct guard_request attach = {.protocol = GUARD_PROTOCOL, .command = GUARD_COMMAND_ATTACH, .serial = 42};
    struct guard_request unknown = {.protocol = GUARD_PROTOCOL, .command = 99, .serial = 43};
    (void)unused;
    client_open(&client, "newest");
    start_script(&client, "exec sleep 300", 1);
    int fd = stranger_connect(client.socket_path);
    assert_int_equal(stranger_read(fd, &report), sizeof report);
    assert_int_equal(report.told.server, GUARD_RUNNING);
    send(fd, &kill_all, sizeof kill_all, MSG_NOSIGNAL);
    assert_int_equal(stranger_read(fd, &report), sizeof report);
    assert_int_equal(report.serial, 41);
    assert_string_equal(report.refusal, "another daemon is obeyed");
    send(fd, &attach, sizeof attach, MSG_NOSIGNAL);
    assert_int_equal(stranger_read(fd, &report), sizeof report);
    assert_int_equal(report.serial, 42);
    assert_string_equal(report.refusal, "");
    assert_int_equal(guard_arm(client.guard, 1, NSEC_NEVER, &error), FAILED);
    assert_non_null(strstr(error.text, "another daemon"));
    send(fd, &unknown, sizeof unknown, MSG_NOSIGNAL);
    assert_int_equal(stranger_read(fd, &report), sizeof report);
    assert_string_equal(report.refusal, "unknown command 99");
    close(fd);
    disconnect(&client, true);
    connect_guard(&client);
    await(&client, client.state.connected);
    client_end(&client);
}

static void test_crowd_does_not_disturb(void **unused) {
    struct client client;
    struct guard_report report;
    int fds[12];
    (void)unused;
    client_open(&client, "crowd");
    for (unsigned i = 0; i < 12; i++) {
        fds[i] = stranger_connect(client.socket_path);
        assert_int_equal(stranger_read(fds[i], &report), sizeof report);
    }
    arm(&client, 2, NSEC_NEVER);
    assert_int_equal(stranger_read(fds[11], &report), sizeof report); /* the last ones are told of it */
    assert_int_equal(report.told.epoch, 2);
    assert_int_equal(stranger_read(fds[0], &report), 0); /* the first ones gave way */
    for (unsigned i = 0; i < 12; i++)
        close(fds[i]);
    client_end(&client);
}

/* ---- PostgreSQL ---- */

static void command(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (system(line) != 0)
        fail_msg("failed: %s", line);
}

static void postgres_needed(void) {
    if (postgres_program[0] == '\0')
        fail_msg("PostgreSQL is not installed: run ./dev setup");
    if (access(data_directory, F_OK) == 0)
        return;
    char initdb[PATH_SIZE];
    snprintf(initdb, sizeof initdb, "%s", postgres_program);
    strcpy(strrchr(initdb, '/'), "/initdb");
    command("LC_ALL=C %s -N -A trust -U postgres -D %s >%s/initdb.log 2>&1", initdb, data_directory, directory);
}

static const char *const *postgres_argv(void) {
    static char sockets[PATH_SIZE + 32], port[32];
    static const char *argv[] = {postgres_program,
                                 "-D",
                                 data_directory,
                                 "-c",
                                 sockets,
                                 "-c",
                                 port,
                                 "-c",
                                 "listen_addresses=",
                                 "-c",
                                 "fsync=off",
                                 "-c",
                                 "max_connections=80",
                                 "-c",
                                 "logging_collector=on",
                                 NULL};
    snprintf(sockets, sizeof sockets, "unix_socket_directories=%s", directory);
    snprintf(port, sizeof port, "port=%s", postgres_port);
    return argv;
}

static PGconn *session_open(void) {
    return PQconnectdbParams((const char *const[]){"host", "port", "user", "dbname", NULL},
                             (const char *const[]){directory, postgres_port, "postgres", "postgres", NULL}, 0);
}

static bool postgres_answers(void) {
    PGconn *session = session_open();
    bool answers = PQstatus(session) == CONNECTION_OK;
    PQfinish(session);
    return answers;
}

struct sessions {
    PGconn *open[SESSIONS];
};

/* Idle ones, open transactions, and some that are too busy to notice the death of their postmaster. */
static void sessions_open(struct sessions *sessions) {
    static const char *const kinds[] = {"select 1", "begin; select txid_current()", "select pg_sleep(300)",
                                        "do $$ begin loop perform 1; end loop; end $$"};
    for (unsigned i = 0; i < SESSIONS; i++) {
        sessions->open[i] = session_open();
        assert_int_equal(PQstatus(sessions->open[i]), CONNECTION_OK);
        assert_int_equal(PQsendQuery(sessions->open[i], kinds[i % 16 == 3 ? 3 : i % 3]), 1);
    }
}

static void sessions_close(struct sessions *sessions) {
    for (unsigned i = 0; i < SESSIONS; i++)
        PQfinish(sessions->open[i]);
}

static void test_postgres_stops_fast(void **unused) {
    struct client client;
    struct error error;
    (void)unused;
    postgres_needed();
    client_open(&client, "stop");
    start(&client, postgres_argv());
    await(&client, postgres_answers());
    struct family family = family_of(client.state.guard_pid);
    assert_int_equal(guard_signal(client.guard, SIGINT, &error), OK);
    await(&client, client.state.server == GUARD_DOWN);
    assert_int_equal(client.state.exit_status, 0);
    assert_int_equal(survivors(&family), 0);
    client_end(&client);
}

static void test_postgres_dies_at_the_deadline(void **unused) {
    struct client client;
    struct sessions sessions;
    (void)unused;
    postgres_needed();
    client_open(&client, "sessions");
    start(&client, postgres_argv());
    await(&client, postgres_answers());
    sessions_open(&sessions);
    struct family family = family_of(client.state.guard_pid);
    assert_true(family.count > SESSIONS);
    nsec deadline = time_now() + msec(200);
    arm(&client, 1, deadline);
    await(&client, client.state.server == GUARD_DOWN);
    print_message("# %u processes, %d sessions: all gone %.1f ms after the deadline\n", family.count, SESSIONS,
                  (double)(time_now() - deadline) / 1e6);
    assert_int_equal(survivors(&family), 0);
    assert_true(client.state.killed_by_deadline);
    sessions_close(&sessions);
    client_end(&client);
}

static void test_new_guard_kills_what_is_left(void **unused) {
    struct client client;
    struct sessions sessions;
    (void)unused;
    postgres_needed();
    client_open(&client, "left");
    start(&client, postgres_argv());
    await(&client, postgres_answers());
    sessions_open(&sessions);
    struct family family = family_of(client.state.guard_pid);
    pid_t guard_pid = client.state.guard_pid;

    pid_t stranger = fork(); /* works in the data directory, but is no PostgreSQL */
    if (stranger == 0) {
        if (chdir(data_directory) == 0)
            execl("/bin/sleep", "sleep", "300", NULL);
        _exit(127);
    }
    kill(guard_pid, SIGKILL);
    await(&client, client.state.connected && client.state.guard_pid != guard_pid);
    assert_int_equal(client.state.server, GUARD_DOWN);
    await(&client, survivors(&family) == 0); /* what is left by now gives its memory back, and runs no more */
    assert_true(alive(stranger));
    kill(stranger, SIGKILL);
    waitpid(stranger, NULL, 0);
    sessions_close(&sessions);

    start(&client, postgres_argv()); /* nothing is in the way */
    await(&client, postgres_answers());
    client_end(&client);
}

/* ---- the house ---- */

/* Sanitizers write into the guards' log. */
static void test_guards_were_sound(void **unused) {
    (void)unused;
    command("! grep -e Sanitizer -e 'runtime error' -e 'broken invariant' %s/log", directory);
}

static void become_ordinary(void) {
    const struct passwd *user = getpwnam("postgres");
    if (geteuid() != 0)
        return;
    if (user == NULL)
        user = getpwnam("nobody");
    if (user == NULL || chown(directory, user->pw_uid, user->pw_gid) != 0 || setgroups(0, NULL) != 0 ||
        setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0) {
        perror("could not become an ordinary user");
        exit(EXIT_FAILURE);
    }
}

/* A copy of the guard where everybody can execute it, wherever the build directory is. */
static void place_guard(void) {
    command("cp '%s' %s && chmod 755 %s %s", TTORCH_GUARD, program, program, directory);
    chmod(directory, 0700);
}

static void find_postgres(void) {
    glob_t found;
    if (glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &found) == 0 && (geteuid() != 0 || getpwnam("postgres")))
        snprintf(postgres_program, sizeof postgres_program, "%s", found.gl_pathv[found.gl_pathc - 1]);
    globfree(&found);
}

static void use_directory(const char *path) {
    snprintf(directory, sizeof directory, "%s", path);
    snprintf(program, sizeof program, "%.200s/ttorch-guard", directory);
    snprintf(data_directory, sizeof data_directory, "%.200s/data", directory);
    snprintf(postgres_port, sizeof postgres_port, "%d", 20000 + getpid() % 20000);
}

/* ---- the watchdog ---- */

static struct {
    int timeout; /* that the device takes, whatever it is told; 0 = it refuses all */
    int told;
} device;

static int control_device(int fd, unsigned long request, int *value) {
    (void)fd;
    errno = ENOTTY;
    if (device.timeout == 0)
        return -1;
    if (request == WDIOC_SETTIMEOUT)
        device.told = *value;
    *value = device.timeout;
    return 0;
}

/* What the device was written since. */
static const char *written(int fifo) {
    static char bytes[64];
    ssize_t length = read(fifo, bytes, sizeof bytes - 1);
    bytes[length > 0 ? length : 0] = '\0';
    return bytes;
}

/* A FIFO takes writes as the device does; its ioctls are control_device's. */
static int watchdog_fifo(char path[PATH_SIZE]) {
    snprintf(path, PATH_SIZE, "%.200s/watchdog", directory);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    int fifo = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(fifo >= 0);
    return fifo;
}

static void watchdog_is_fed_until_the_deadline(void **state) {
    (void)state;
    char path[PATH_SIZE];
    struct watchdog watchdog;
    struct error error;
    int fifo = watchdog_fifo(path);
    assert_true(watchdog_init(&watchdog, "required", path, 3));
    watchdog.control = control_device;
    device.timeout = 4;
    assert_int_equal(watchdog_next(&watchdog), NSEC_NEVER);
    assert_int_equal(watchdog_begin(&watchdog, &error), OK);
    assert_int_equal(device.told, 3);
    assert_int_equal(watchdog.interval, msec(1000)); /* of what it has, not of what it was told */
    assert_string_equal(written(fifo), "\1");
    assert_int_equal(watchdog_begin(&watchdog, &error), OK); /* renewed */
    nsec first = watchdog_next(&watchdog), deadline = first + msec(1500);
    watchdog_tend(&watchdog, deadline, first - 1);
    assert_string_equal(written(fifo), "");
    watchdog_tend(&watchdog, deadline, first);
    assert_string_equal(written(fifo), "\1");
    watchdog_tend(&watchdog, deadline, deadline + msec(5000)); /* killing takes long: it may bite */
    assert_string_equal(written(fifo), "");
    watchdog_tend(&watchdog, NSEC_NEVER, deadline + msec(5001));
    assert_string_equal(written(fifo), "V");
    assert_int_equal(watchdog_next(&watchdog), NSEC_NEVER);
    close(fifo);
}

static void watchdog_that_cannot_be_used(void **state) {
    (void)state;
    char path[PATH_SIZE];
    struct watchdog watchdog;
    struct error error;
    int fifo = watchdog_fifo(path);
    assert_false(watchdog_init(&watchdog, "maybe", path, 3));
    assert_true(watchdog_init(&watchdog, "required", path, 3)); /* with real ioctls: not a watchdog */
    assert_int_equal(watchdog_begin(&watchdog, &error), FAILED);
    assert_int_equal(strncmp(error.text, GUARD_NO_WATCHDOG, strlen(GUARD_NO_WATCHDOG)), 0);
    assert_string_equal(written(fifo), "V");
    watchdog.control = control_device;
    device.timeout = 1; /* too short to be on time */
    assert_int_equal(watchdog_begin(&watchdog, &error), FAILED);
    assert_non_null(strstr(error.text, "timeout of 1 s"));
    assert_true(watchdog_init(&watchdog, "automatic", "/nowhere", 3));
    assert_int_equal(watchdog_begin(&watchdog, &error), OK);
    assert_int_equal(watchdog_next(&watchdog), NSEC_NEVER);
    assert_true(watchdog_init(&watchdog, "off", "", 0));
    assert_int_equal(watchdog_begin(&watchdog, &error), OK);
    close(fifo);
}

/* The guard itself: no lease where a watchdog is required and there is none. */
static void required_watchdog_is_the_condition(void **state) {
    (void)state;
    struct client client = {.data = data_directory};
    struct error error;
    watchdog_mode = "required";
    client_open(&client, "watchdog");
    watchdog_mode = NULL;
    start(&client, (const char *const[]){"/bin/sleep", "300", NULL});
    await(&client, client.state.server == GUARD_RUNNING);
    assert_int_equal(guard_arm(client.guard, 1, time_now() + msec(5000), &error), FAILED);
    assert_non_null(strstr(error.text, GUARD_NO_WATCHDOG "/nowhere/watchdog: "));
    assert_int_equal(client.state.deadline, NSEC_NEVER);
    assert_int_equal(guard_arm(client.guard, 1, NSEC_NEVER, &error), OK); /* as a standby it may run */
    client_end(&client);
}

int main(int argc, char *argv[]) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watchdog_is_fed_until_the_deadline),
        cmocka_unit_test(watchdog_that_cannot_be_used),
        cmocka_unit_test(required_watchdog_is_the_condition),
        cmocka_unit_test(test_exit_is_reported),
        cmocka_unit_test(test_restarts),
        cmocka_unit_test(test_exec_failure_is_told),
        cmocka_unit_test(test_refused_command_is_told),
        cmocka_unit_test(test_postmaster_is_ordinary),
        cmocka_unit_test(test_kill_reaches_everyone),
        cmocka_unit_test(test_crash_takes_everyone),
        cmocka_unit_test(test_fork_storm_ends),
        cmocka_unit_test(test_guard_ends_politely),
        cmocka_unit_test(test_deadline_kills),
        cmocka_unit_test(test_renewals_keep_it_alive),
        cmocka_unit_test(test_deadline_moves_forward_only),
        cmocka_unit_test(test_lease_outlives_the_daemon),
        cmocka_unit_test(test_deadline_needs_no_daemon),
        {"test_deadline_needs_no_daemon (dead)", test_deadline_needs_no_daemon, NULL, NULL, directory},
        cmocka_unit_test(test_guard_death_is_the_postmasters),
        cmocka_unit_test(test_silent_guard_takes_nothing),
        cmocka_unit_test(test_second_guard_is_refused),
        cmocka_unit_test(test_stale_socket_is_replaced),
        cmocka_unit_test(test_open_directory_is_refused),
        cmocka_unit_test(test_close_while_starting),
        cmocka_unit_test(test_bad_configuration),
        cmocka_unit_test(test_garbage_ends_the_connection),
        cmocka_unit_test(test_only_the_newest_daemon_is_obeyed),
        cmocka_unit_test(test_crowd_does_not_disturb),
        cmocka_unit_test(test_postgres_stops_fast),
        cmocka_unit_test(test_postgres_dies_at_the_deadline),
        cmocka_unit_test(test_new_guard_kills_what_is_left),
        cmocka_unit_test(test_guards_were_sound),
    };
    char made[] = "/tmp/ttorch-guard-test.XXXXXX";
    signal(SIGPIPE, SIG_IGN);
    if (argc == 4 && strcmp(argv[1], "--frozen") == 0) {
        use_directory(argv[3]);
        return frozen_daemon(argv[2]);
    }
    if (mkdtemp(made) == NULL)
        return EXIT_FAILURE;
    use_directory(made);
    find_postgres();
    place_guard();
    become_ordinary();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed == 0)
        command("rm -rf %s", directory);
    else
        fprintf(stderr, "kept: %s\n", directory);
    return failed;
}
