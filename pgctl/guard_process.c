#include "pgctl/guard_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_LENGTH_MAX 32    /* "/proc/4194304/stat" */
#define DESCENDANTS_MAX 16384 /* of one look; what does not fit becomes our own child, and is seen by the next look */
#define HELD_MAX        512   /* pidfds at a time; more are killed in portions */
#define VANISH_POLL_MS  20
#define REAP_MS         300 /* most parents reap at once */
#define REAP_POLL_MS    5   /* of which nothing tells */

/* ---- one process ---- */

struct process {
    char state; /* 'Z' = dead, not reaped by its parent */
    pid_t parent;
};

static status process_look(struct process *ret_process, pid_t pid) {
    char path[PATH_LENGTH_MAX], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return FAILED;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return FAILED;
    text[length] = '\0';
    /* "pid (name) state parent ...", where the name may hold anything, parentheses too */
    const char *after_name = strrchr(text, ')');
    struct process found;
    if (after_name == NULL || sscanf(after_name, ") %c %d", &found.state, &found.parent) != 2)
        return FAILED;
    *ret_process = found;
    return OK;
}

/* The parent of a living process; 0 if there is none, or it is dead. */
static pid_t process_parent(pid_t pid) {
    struct process process;
    return process_look(&process, pid) == OK && process.state != 'Z' && process.state != 'X' ? process.parent : 0;
}

static bool is_zombie(pid_t pid) {
    struct process process;
    return pid > 0 && process_look(&process, pid) == OK && process.state == 'Z';
}

/* ---- all processes ---- */

struct directory_entry { /* of getdents64: readdir would allocate */
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* Calls `visit` for each process, smallest number first. */
static void processes_visit(void (*visit)(void *user, pid_t pid), void *user) {
    static _Alignas(struct directory_entry) char buffer[32768];
    int directory = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return;
    long length;
    while ((length = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < length;) {
            const struct directory_entry *entry = (const void *)(buffer + at);
            if (entry->name[0] >= '1' && entry->name[0] <= '9')
                visit(user, (pid_t)strtol(entry->name, NULL, 10));
            at += entry->length;
        }
    }
    close(directory);
}

/* ---- descendants ---- */

struct descendants {
    pid_t self;
    pid_t postmaster; /* or 0 */
    size_t count;
    pid_t *pids; /* ascending */
    size_t held_count;
    int held[HELD_MAX]; /* pidfds of those that are not signalled yet */
};

static int pid_compare(const void *a, const void *b) {
    pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
    return (x > y) - (x < y);
}

static bool descends(const struct descendants *found, pid_t pid) {
    pid_t parent = process_parent(pid);
    if (parent == 0)
        return false;
    return parent == found->self || parent == found->postmaster ||
           bsearch(&parent, found->pids, found->count, sizeof parent, pid_compare) != NULL;
}

static void held_kill(struct descendants *found) {
    if (found->postmaster != 0)
        kill(found->postmaster, SIGKILL);
    for (size_t i = 0; i < found->held_count; i++)
        pidfd_send_signal(found->held[i], SIGKILL, NULL, 0);
    while (found->held_count > 0)
        close(found->held[--found->held_count]);
}

/* A pidfd is opened before the look: if the number is given to a stranger later, the signal does not reach it. */
static int process_hold(struct descendants *found, pid_t pid) {
    if (found->held_count == HELD_MAX)
        held_kill(found);
    int fd = pidfd_open(pid, 0);
    if (fd < 0 && errno == EMFILE) {
        held_kill(found);
        fd = pidfd_open(pid, 0);
    }
    return fd;
}

/* Numbers mostly grow from parent to child, so one pass finds grandchildren too. Where they wrapped around it finds at
 * least the children of the postmaster; theirs are ours when those are dead. */
static void descendant_visit(void *user, pid_t pid) {
    struct descendants *found = user;
    int fd = process_hold(found, pid);
    if (fd < 0)
        return;
    if (!descends(found, pid)) {
        close(fd);
        return;
    }
    found->held[found->held_count++] = fd;
    if (found->count < DESCENDANTS_MAX)
        found->pids[found->count++] = pid;
}

static void child_visit(struct descendants *found, pid_t parent, pid_t pid) {
    int fd = process_hold(found, pid);
    if (fd < 0)
        return;
    if (process_parent(pid) != parent) {
        close(fd);
        return;
    }
    found->held[found->held_count++] = fd;
    if (found->count < DESCENDANTS_MAX)
        found->pids[found->count++] = pid;
}

/* By the kernel's list of the children of its one thread; false if there is no list. */
static bool children_visit(struct descendants *found, pid_t parent) {
    static char list[8 * DESCENDANTS_MAX];
    char path[2 * PATH_LENGTH_MAX];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t length = 0;
    ssize_t more;
    while (length < sizeof list - 1 && (more = read(fd, list + length, sizeof list - 1 - length)) > 0)
        length += (size_t)more;
    close(fd);
    list[length] = '\0';
    long pid;
    for (char *at = list; (pid = strtol(at, &at, 10)) > 0;)
        child_visit(found, parent, (pid_t)pid);
    return true;
}

/* First found, then killed all at once: the death of the postmaster wakes every session, and they would compete with
 * our search. A kernel without lists of children has all processes looked at, those of others too. */
void instance_processes_kill(pid_t postmaster) {
    static pid_t pids[DESCENDANTS_MAX];
    struct descendants found = {.self = getpid(), .postmaster = postmaster, .pids = pids};
    if (!children_visit(&found, found.self))
        processes_visit(descendant_visit, &found);
    else
        for (size_t i = 0; i < found.count; i++)
            children_visit(&found, found.pids[i]);
    held_kill(&found);
}

/* ---- lock files ---- */

struct lock_file {
    pid_t pid; /* 0 if there is none */
    int port;
    char socket_directory[1024]; /* empty if it listens on no unix socket */
};

/* postmaster.pid: pid, data directory, start time, port, first socket directory; that of a socket begins with the pid.
 */
static struct lock_file lock_file_read(const char *path) {
    struct lock_file lock = {0};
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lock;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    int found = sscanf(text, "%d\n%*[^\n]\n%*d\n%d\n%1023[^\n]", &lock.pid, &lock.port, lock.socket_directory);
    if (found < 3)
        lock.socket_directory[0] = '\0';
    return lock;
}

static void lock_file_remove(const char *path, pid_t pid) {
    if (lock_file_read(path).pid == pid)
        unlink(path);
}

/* PostgreSQL does not start while the process that a lock file names exists, and for it a dead one that nobody has
 * reaped does. Some reap late (our own PID 1 in a container, never). */
static void lock_files_clear(const char *data_directory) {
    char path[4096], socket_path[4096];
    snprintf(path, sizeof path, "%s/postmaster.pid", data_directory);
    struct lock_file lock = lock_file_read(path);
    nsec until = time_now() + msec(REAP_MS);
    while (is_zombie(lock.pid) && time_now() < until)
        poll(NULL, 0, REAP_POLL_MS);
    if (!is_zombie(lock.pid))
        return;
    snprintf(socket_path, sizeof socket_path, "%s/.s.PGSQL.%d.lock", lock.socket_directory, lock.port);
    if (lock.socket_directory[0] != '\0')
        lock_file_remove(socket_path, lock.pid);
    lock_file_remove(path, lock.pid);
}

/* ---- left-overs ---- */

struct leftovers {
    struct stat data_directory;
    unsigned count;
    int last; /* pidfd, or -1 */
};

static bool runs_postgres(pid_t pid) {
    char path[PATH_LENGTH_MAX], program[4096];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    ssize_t length = readlink(path, program, sizeof program - 1);
    if (length <= 0)
        return false;
    program[length] = '\0';
    const char *name = strrchr(program, '/');
    /* the second: its package was upgraded while it ran */
    return name != NULL && (strcmp(name, "/postgres") == 0 || strcmp(name, "/postgres (deleted)") == 0);
}

static bool is_leftover(const struct leftovers *left, pid_t pid) {
    char path[PATH_LENGTH_MAX];
    struct stat process, directory;
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    if (stat(path, &process) != 0 || process.st_uid != geteuid())
        return false;
    snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    return stat(path, &directory) == 0 && directory.st_dev == left->data_directory.st_dev &&
           directory.st_ino == left->data_directory.st_ino && runs_postgres(pid);
}

static void leftover_visit(void *user, pid_t pid) {
    struct leftovers *left = user;
    if (!is_leftover(left, pid))
        return;
    int fd = pidfd_open(pid, 0);
    if (fd < 0)
        return;
    if (!is_leftover(left, pid) || pidfd_send_signal(fd, SIGKILL, NULL, 0) != 0) {
        close(fd);
        return;
    }
    left->count++;
    if (left->last >= 0)
        close(left->last);
    left->last = fd;
}

status leftovers_kill(const char *data_directory, nsec deadline, struct error *error) {
    struct leftovers left = {.last = -1};
    if (stat(data_directory, &left.data_directory) != 0)
        return OK; /* not made yet */
    do {
        left.count = 0;
        processes_visit(leftover_visit, &left);
        if (left.last >= 0) {
            poll(&(struct pollfd){.fd = left.last, .events = POLLIN}, 1, VANISH_POLL_MS);
            close(left.last);
            left.last = -1;
        }
    } while (left.count > 0 && time_now() < deadline);
    if (left.count > 0)
        return error_set(error, "%u processes of an earlier PostgreSQL in %s do not go away, though killed", left.count,
                         data_directory);
    lock_files_clear(data_directory);
    return OK;
}
