/* Which processes belong to a demo, and signals to exactly those: found in /proc by descent and by directory, never
 * by name alone. Knows nothing of what they are. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#define PROCESSES_MAX 4096

/* A set of processes, each once. */
struct processes {
    unsigned count;
    pid_t list[PROCESSES_MAX];
};

/* Adds one; 0 is no process. */
void processes_add(struct processes *set, pid_t pid);
/* Adds all descendants of those in the set. */
void processes_add_descendants(struct processes *set);
/* Adds our descendants: with orphans, as the demo is their reaper. */
void processes_add_ours(struct processes *set);
/* Adds those started with `name`=`value` in their environment, with their descendants, and the PostgreSQL processes
 * that run inside the directory `value`: PostgreSQL writes its title over its environment. */
void processes_add_marked(struct processes *set, const char *name, const char *value);
void processes_signal(const struct processes *set, int signal);

pid_t process_parent(pid_t pid); /* 0 if there is no such process */
/* From the first line of a pid file, 0 if there is none. */
pid_t process_from_file(const char *path);
