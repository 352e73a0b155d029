/* ttorch-guard: the parent of the postmaster. It starts PostgreSQL, reports its end, and kills every process of the
 * instance at a deadline that ttorchd extends over a socket. It has no opinion, outlives ttorchd, and does nothing
 * slow: no libpq, no libuv, and nothing is allocated once it serves.
 *
 * Its own end is the end of its PostgreSQL: the kernel kills the postmaster (parent-death signal), and the next guard
 * kills what that left behind. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/time.h"
#include "pgctl/guard_process.h"
#include "pgctl/guard_protocol.h"
#include "pgctl/guard_say.h"
#include "pgctl/guard_server.h"

#define LEFTOVERS_MS   10000
#define STACK_WARM     65536 /* more than we ever use; touched before memory is locked */
#define LISTEN_BACKLOG 8

/* ---- the socket ---- */

/* A message in the socket is obeyed, so only our user may reach it. */
static status directory_check(const char *socket_path, struct error *error) {
    char directory[GUARD_SOCKET_PATH_MAX + 1];
    struct stat found;
    snprintf(directory, sizeof directory, "%s", socket_path);
    char *slash = strrchr(directory, '/');
    slash[slash == directory] = '\0';
    if (stat(directory, &found) != 0)
        return error_set(error, "%s: %s", directory, strerror(errno));
    if (found.st_uid != geteuid() || (found.st_mode & 07777) != GUARD_SOCKET_DIRECTORY)
        return error_set(error, "%s must be ours and have mode 0700", directory);
    return OK;
}

/* Held until we end, however we end: who has the lock may replace the socket. */
static status lock_take(const char *socket_path, struct error *error) {
    char path[GUARD_SOCKET_PATH_MAX + sizeof ".lock"];
    snprintf(path, sizeof path, "%s.lock", socket_path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(error, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return error_set(error, "%s: another guard holds it", path);
    }
    return OK;
}

static status socket_listen(int *ret_listener, const char *path, struct error *error) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path));
    if (unlink(path) != 0 && errno != ENOENT)
        return error_set(error, "%s: %s", path, strerror(errno));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, LISTEN_BACKLOG) != 0)
        return error_set(error, "%s: %s", path, strerror(errno));
    *ret_listener = fd;
    return OK;
}

/* ---- the process ---- */

/* The socket listens before the parent ends, so whoever waits for that can connect at once. */
static void detach(void) {
    pid_t pid = fork();
    if (pid < 0) {
        perror("ttorch-guard: could not fork");
        exit(EXIT_FAILURE);
    }
    if (pid > 0)
        _exit(EXIT_SUCCESS);
    setsid();
}

static status signals_block(int *ret_signals, struct error *error) {
    sigset_t taken, blocked;
    sigemptyset(&taken);
    sigaddset(&taken, SIGCHLD);
    sigaddset(&taken, SIGTERM);
    blocked = taken;
    sigaddset(&blocked, SIGINT); /* these stay pending for ever */
    sigaddset(&blocked, SIGHUP);
    sigaddset(&blocked, SIGPIPE);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    int fd = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return error_set(error, "could not take signals: %s", strerror(errno));
    *ret_signals = fd;
    return OK;
}

#if defined(__SANITIZE_ADDRESS__)
#define SHADOWED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHADOWED 1
#endif
#endif

/* To be on time when memory and processors are short. Where it is not permitted we are as everybody else. */
static void become_punctual(void) {
#ifndef SHADOWED /* whose shadow memory is terabytes */
    volatile char stack[STACK_WARM];
    for (size_t i = 0; i < sizeof stack; i += 1024)
        stack[i] = 0;
    bool locked = mlockall(MCL_CURRENT) == 0;
#else
    bool locked = false;
#endif
    struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_RR)};
    bool realtime = sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &lowest) == 0;
    guard_say("ready; memory %s, %s", locked ? "locked" : "not locked",
              realtime ? "real-time priority" : "ordinary priority");
}

/* What the daemon had for itself and PostgreSQL must not take for its own. */
static void environment_clean(void) {
    static const char *const names[] = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
                                        "LISTEN_PID",    "LISTEN_FDS",   "LISTEN_FDNAMES"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
}

static status prepare(int *ret_listener, int *ret_signals, const char *socket_path, struct error *error) {
    if (directory_check(socket_path, error) != OK || lock_take(socket_path, error) != OK ||
        socket_listen(ret_listener, socket_path, error) != OK || signals_block(ret_signals, error) != OK)
        return FAILED;
    return OK;
}

static status run(const char *data_directory, int listener, int signals, const struct watchdog *watchdog,
                  struct error *error) {
    if (leftovers_kill(data_directory, time_now() + msec(LEFTOVERS_MS), error) != OK)
        return FAILED;
    if (chdir("/") != 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return error_set(error, "could not become the reaper of descendants: %s", strerror(errno));
    become_punctual();
    return guard_serve(listener, signals, watchdog, error);
}

static int fail(const struct error *error) {
    guard_say("%s", error->text);
    guard_say_flush();
    return EXIT_FAILURE;
}

int main(int argc, char *argv[]) {
    struct error error;
    int listener = -1, signals = -1;
    struct watchdog watchdog;
    bool watched = argc == 6;
    if ((argc != 3 && !watched) ||
        !watchdog_init(&watchdog, watched ? argv[3] : "off", watched ? argv[4] : "", watched ? atoi(argv[5]) : 0) ||
        argv[1][0] != '/' || strlen(argv[1]) > GUARD_SOCKET_PATH_MAX) {
        fprintf(stderr,
                "usage: ttorch-guard SOCKET DATA_DIRECTORY [off|automatic|required WATCHDOG SECONDS]\nttorchd starts "
                "it; SOCKET is an absolute path of "
                "at most %d bytes\n",
                GUARD_SOCKET_PATH_MAX);
        return 2;
    }
    umask(077);
    tzset();
    close_range(3, ~0u, 0);
    environment_clean();
    if (prepare(&listener, &signals, argv[1], &error) != OK)
        return fail(&error);
    detach();
    status ended = run(argv[2], listener, signals, &watchdog, &error);
    unlink(argv[1]);
    guard_say_flush();
    return ended == OK ? EXIT_SUCCESS : fail(&error);
}
