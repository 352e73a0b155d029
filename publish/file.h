/* Files that other programs read: replaced as a whole or not at all. */
#pragma once
#include <sys/types.h>

#include "base/error.h"

struct file_manner {
    mode_t mode;
    uid_t uid; /* (uid_t)-1 and (gid_t)-1: as the process */
    gid_t gid;
    bool quick; /* no fsync: for what is written all the time and worth nothing after a crash */
};

/* One that is being replaced. Between the two steps the disk is at work: begin all, then finish each. */
struct file_change {
    const char *path;
    int fd;
    bool quick;
};

/* Writes beside `path`, which must stay valid. What failed need not be finished. */
status file_begin(struct file_change *ret_change, const char *path, const char *text, const struct file_manner *manner,
                  struct error *error) must_check;
/* Waits for the disk, then gives it its name. */
status file_finish(struct file_change *change, struct error *error) must_check;
bool file_same_directory(const char *a, const char *b);
/* Makes new names in the directory of `path` last through a crash, too. */
status file_sync_directory(const char *path, struct error *error) must_check;

/* "user" or "user:group" as numbers, "" as -1. May ask the system's user database. */
status file_owner(const char *owner, uid_t *ret_uid, gid_t *ret_gid, struct error *error) must_check;
/* The whole of a small text file, malloc'ed. */
status file_load(const char *path, size_t most, char **ret_text, struct error *error) must_check;
