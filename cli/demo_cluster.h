/* A throw-away cluster on loopback: a directory, its members' files and daemons. Knows how to make one, where things
 * are in it, and how to end it without a trace; knows nothing of faults or measuring. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/time.h"
#include "cli/demo_processes.h"

#define DEMO_MEMBERS_MAX   7
#define DEMO_DIRECTORY_MAX 60 /* unix sockets, whose paths hold at most 107 bytes, are two levels below */
#define DEMO_PATH_MAX      (DEMO_DIRECTORY_MAX + 64)
#define DEMO_PROGRAM_MAX   (PATH_MAX_LENGTH + 32)
#define DEMO_CONNECT_MAX   (DEMO_DIRECTORY_MAX + 160)
#define DEMO_MARK          "ttorch-demo" /* file that tells such a directory from any other */
#define DEMO_ENVIRONMENT   "TTORCH_DEMO" /* = the directory, in the environment of all that runs in it */

struct cluster_member {
    char name[8];                    /* m1, m2, ... */
    char config[DEMO_PATH_MAX];      /* m1.yaml */
    char log[DEMO_PATH_MAX];         /* m1.log */
    char socket[DEMO_PATH_MAX];      /* of ttorchd */
    char pid_file[DEMO_PATH_MAX];    /* of the postmaster */
    char conninfo[DEMO_CONNECT_MAX]; /* over PostgreSQL's unix socket, in a directory that only we can enter */
    uint16_t peer_port, postgres_port;
    pid_t daemon; /* 0 = does not run */
    bool down;    /* on purpose: not to be started again */
};

struct cluster {
    char directory[DEMO_DIRECTORY_MAX + 1];
    bool made;     /* the directory is there, and ours to remove */
    char user[32]; /* whom we became, being root; else empty */
    char password[33];
    char lease[16];
    char ttorch[PATH_MAX_LENGTH + 1]; /* ourselves */
    char ttorchd[DEMO_PROGRAM_MAX];
    char postgres_bin[DEMO_PROGRAM_MAX];
    unsigned count;
    struct cluster_member members[DEMO_MEMBERS_MAX];
};

/* Finds the programs, makes the directory (`directory`, or a fresh one in $TMPDIR if NULL) and the members' files. As
 * root it becomes an unprivileged user first, for good. On failure, too, cluster_remove takes back what was made. */
status cluster_make(struct cluster *cluster, unsigned members, const char *lease, const char *directory,
                    struct error *error) must_check;

status cluster_start(struct cluster *cluster, unsigned member, struct error *error) must_check;
/* Reaps what has ended, and starts daemons that ended by themselves again, as systemd would; tells of the first one
 * in `ret_ended`, -1 = none. Call at SIGCHLD. */
status cluster_reap(struct cluster *cluster, int *ret_ended, struct error *error) must_check;
/* Kills every process of the demo, and waits until the last is gone. */
void cluster_kill(struct cluster *cluster);
/* Removes the directory, and what dead postmasters left in the kernel. */
void cluster_remove(struct cluster *cluster);

/* The postmaster of a member, 0 if there is none; and with all its descendants. */
pid_t cluster_postmaster(const struct cluster *cluster, unsigned member);
void cluster_add_postgres(const struct cluster *cluster, unsigned member, struct processes *set);

int cluster_find(const struct cluster *cluster, const char *name); /* -1 = no such member */

/* Root becomes the owner of `directory`; anybody else stays as is. */
status cluster_become_owner(const char *directory, struct error *error) must_check;

/* Ends a demo that was left running in `directory`, from another process. */
status cluster_stop(const char *directory, struct error *error) must_check;
