#include "cli/demo_cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/panic.h"

extern char **environ;

/* ---- daemons ---- */

static int spawn_daemon(const struct cluster *cluster, struct cluster_member *member) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    char *argv[] = {(char *)(uintptr_t)cluster->ttorchd, (char *)(uintptr_t) "--config", member->config, NULL};

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, member->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    /* A session of its own: Ctrl-C on the terminal is for the demo alone. */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    int problem = posix_spawn(&member->daemon, cluster->ttorchd, &files, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return problem;
}

status cluster_start(struct cluster *cluster, unsigned index, struct error *error) {
    struct cluster_member *member = &cluster->members[index];
    setenv(DEMO_ENVIRONMENT, cluster->directory, 1);
    int problem = spawn_daemon(cluster, member);
    unsetenv(DEMO_ENVIRONMENT);
    if (problem != 0) {
        member->daemon = 0;
        return error_set(error, "could not start %s: %s", cluster->ttorchd, strerror(problem));
    }
    member->down = false;
    return OK;
}

static int member_of_daemon(const struct cluster *cluster, pid_t pid) {
    for (unsigned i = 0; i < cluster->count; i++)
        if (cluster->members[i].daemon == pid)
            return (int)i;
    return -1;
}

status cluster_reap(struct cluster *cluster, int *ret_ended, struct error *error) {
    *ret_ended = -1;
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
        int member = member_of_daemon(cluster, pid);
        if (member < 0) /* a guard, or what a guard left behind */
            continue;
        cluster->members[member].daemon = 0;
        if (cluster->members[member].down)
            continue;
        if (*ret_ended < 0)
            *ret_ended = member;
        if (cluster_start(cluster, (unsigned)member, error) != OK)
            return FAILED;
    }
    return OK;
}

/* As the reaper of orphans we have everything that the demo started among our descendants. */
void cluster_kill(struct cluster *cluster) {
    struct processes *ours = calloc(1, sizeof *ours);
    require(ours != NULL);
    for (;;) {
        ours->count = 0;
        processes_add_ours(ours);
        processes_signal(ours, SIGKILL);
        if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD)
            break;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    free(ours);
    for (unsigned i = 0; i < cluster->count; i++)
        cluster->members[i].daemon = 0;
}

/* ---- what is inside ---- */

int cluster_find(const struct cluster *cluster, const char *name) {
    for (unsigned i = 0; i < cluster->count; i++)
        if (strcmp(cluster->members[i].name, name) == 0)
            return (int)i;
    return -1;
}

pid_t cluster_postmaster(const struct cluster *cluster, unsigned member) {
    pid_t pid = process_from_file(cluster->members[member].pid_file);
    return pid > 0 && process_parent(pid) > 0 ? pid : 0;
}

void cluster_add_postgres(const struct cluster *cluster, unsigned member, struct processes *set) {
    processes_add(set, cluster_postmaster(cluster, member));
    processes_add_descendants(set);
}

/* ---- the end ---- */

/* A killed PostgreSQL leaves an empty System V segment, which it would find again at its next start by line 7 of its
 * pid file, "key id". */
static void remove_segment(const char *pid_file) {
    char line[128];
    int id;
    struct shmid_ds segment;
    FILE *file = fopen(pid_file, "re");
    if (!file)
        return;
    for (unsigned i = 0; i < 7 && fgets(line, sizeof line, file); i++)
        if (i == 6 && sscanf(line, "%*u %d", &id) == 1 && shmctl(id, IPC_STAT, &segment) == 0 &&
            segment.shm_nattch == 0)
            shmctl(id, IPC_RMID, NULL);
    fclose(file);
}

static int remove_entry(const char *path, const struct stat *stat, int kind, struct FTW *walk) {
    (void)stat;
    (void)walk;
    const char *name = strrchr(path, '/');
    if (kind == FTW_F && name && strcmp(name, "/postmaster.pid") == 0)
        remove_segment(path);
    remove(path);
    return 0;
}

static void remove_tree(const char *directory) {
    if (chdir("/") == 0)
        nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void cluster_remove(struct cluster *cluster) {
    if (cluster->made)
        remove_tree(cluster->directory);
    cluster->made = false;
}

static void kill_and_wait(pid_t pid) {
    int fd = pidfd_open(pid, 0);
    if (fd < 0)
        return;
    pidfd_send_signal(fd, SIGKILL, NULL, 0);
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 5000);
    close(fd);
}

status cluster_stop(const char *given, struct error *error) {
    char directory[PATH_MAX_LENGTH + 1], mark[PATH_MAX_LENGTH + 32];
    if (!realpath(given, directory))
        return error_set(error, "%s: %s", given, strerror(errno));
    snprintf(mark, sizeof mark, "%s/%s", directory, DEMO_MARK);
    if (access(mark, F_OK) != 0)
        return error_set(error, "%s is no directory of a demo", directory);
    if (cluster_become_owner(directory, error) != OK)
        return FAILED;
    struct processes *marked = calloc(1, sizeof *marked);
    require(marked != NULL);
    do {
        marked->count = 0;
        processes_add_marked(marked, DEMO_ENVIRONMENT, directory);
        processes_signal(marked, SIGKILL);
        for (unsigned i = 0; i < marked->count; i++)
            kill_and_wait(marked->list[i]);
    } while (marked->count > 0);
    free(marked);
    remove_tree(directory);
    return OK;
}
