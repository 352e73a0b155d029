#include "cli/demo_processes.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENVIRONMENT_MAX 131072

static bool processes_have(const struct processes *set, pid_t pid) {
    for (unsigned i = 0; i < set->count; i++)
        if (set->list[i] == pid)
            return true;
    return false;
}

void processes_add(struct processes *set, pid_t pid) {
    if (pid > 0 && set->count < PROCESSES_MAX && !processes_have(set, pid))
        set->list[set->count++] = pid;
}

pid_t process_parent(pid_t pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    const char *after_name = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    fclose(file);
    return after_name && strlen(after_name) > 4 ? (pid_t)strtol(after_name + 4, NULL, 10) : 0; /* ") S 123 ..." */
}

pid_t process_from_file(const char *path) {
    char line[32] = "";
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (!fgets(line, sizeof line, file))
        line[0] = '\0';
    fclose(file);
    return (pid_t)strtol(line, NULL, 10);
}

/* Calls `visit` for every process of this machine. */
static void each_process(void (*visit)(void *user, pid_t pid), void *user) {
    DIR *proc = opendir("/proc");
    if (!proc)
        return;
    for (struct dirent *entry; (entry = readdir(proc));)
        if (isdigit((unsigned char)entry->d_name[0]))
            visit(user, (pid_t)strtol(entry->d_name, NULL, 10));
    closedir(proc);
}

static void add_child(void *user, pid_t pid) {
    struct processes *set = user;
    if (processes_have(set, process_parent(pid)))
        processes_add(set, pid);
}

/* Once a generation: /proc is ordered by pid, which need not be the order of descent. */
void processes_add_descendants(struct processes *set) {
    for (unsigned before = 0; before != set->count;) {
        before = set->count;
        each_process(add_child, set);
    }
}

void processes_add_ours(struct processes *set) {
    struct processes *family = calloc(1, sizeof *family);
    if (!family)
        return;
    processes_add(family, getpid());
    processes_add_descendants(family);
    for (unsigned i = 1; i < family->count; i++)
        processes_add(set, family->list[i]);
    free(family);
}

struct mark {
    struct processes *set;
    const char *directory;
    char line[PATH_MAX + 64]; /* NAME=value */
    char *environment;        /* ENVIRONMENT_MAX */
};

static bool runs_postgres_inside(pid_t pid, const char *directory) {
    char path[64], program[PATH_MAX], where[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    ssize_t program_length = readlink(path, program, sizeof program - 1);
    snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    ssize_t where_length = readlink(path, where, sizeof where - 1);
    if (program_length <= 0 || where_length <= 0)
        return false;
    program[program_length] = where[where_length] = '\0';
    const char *name = strrchr(program, '/');
    size_t length = strlen(directory);
    return name && strcmp(name, "/postgres") == 0 && strncmp(where, directory, length) == 0 && where[length] == '/';
}

static bool carries(const struct mark *mark, pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t length = fread(mark->environment, 1, ENVIRONMENT_MAX - 1, file);
    mark->environment[length] = '\0';
    fclose(file);
    for (const char *at = mark->environment; at < mark->environment + length; at += strlen(at) + 1)
        if (strcmp(at, mark->line) == 0)
            return true;
    return false;
}

static void add_marked(void *user, pid_t pid) {
    const struct mark *mark = user;
    if (pid != getpid() && (carries(mark, pid) || runs_postgres_inside(pid, mark->directory)))
        processes_add(mark->set, pid);
}

void processes_add_marked(struct processes *set, const char *name, const char *value) {
    struct mark mark = {set, value, .environment = malloc(ENVIRONMENT_MAX)};
    if (!mark.environment)
        return;
    snprintf(mark.line, sizeof mark.line, "%s=%s", name, value);
    each_process(add_marked, &mark);
    free(mark.environment);
    processes_add_descendants(set);
}

void processes_signal(const struct processes *set, int signal) {
    for (unsigned i = 0; i < set->count; i++)
        kill(set->list[i], signal);
}
