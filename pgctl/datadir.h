/* The data directory as a thing on disk: what state it is in, whose copy it is (our label beside it), what its
 * control file says, and the placeholder files in the history of its timelines. Nothing here needs a running server. */
#pragma once
#include <sys/stat.h>

#include "model/facts.h"
#include "pgctl/version.h"

enum label_state { LABEL_COMPLETE, LABEL_REWINDING };

/* Kept in the state directory, so that no backup, clone or rewind can copy it along. */
struct label {
    uint32_t copy;
    uint64_t system_identifier;
    uint64_t device; /* of PGDATA: a label is not for a directory that was put in its place */
    uint64_t inode;
    enum label_state state;
};

/* global/pg_control. */
enum control_state { CONTROL_SHUT_DOWN = 1, CONTROL_SHUT_DOWN_IN_RECOVERY = 2 };
struct control {
    uint64_t system_identifier;
    uint32_t version;
    uint32_t state;
    uint32_t timeline;
};

struct datadir {
    DataState state;
    uint32_t copy; /* 0 = unlabelled */
    uint64_t system_identifier;
    bool standby_signal;
    bool label_damaged; /* so nobody knows its number, or whether a rewind was under way: it is refused */
    char refused[REASON_MAX_LENGTH + 1];
};

void datadir_look(struct datadir *ret_datadir, const char *path, const char *label_path, const struct version *version);
/* There is none, or an empty one. */
bool datadir_is_gone(const char *path);
status control_read(struct control *ret_control, const char *data_directory, struct error *error) must_check;
/* A live process has it, by postmaster.pid. */
bool datadir_in_use(const char *path);

/* Labels the directory at `path` as it is now. On disk when it returns. */
status label_write(const char *label_path, const char *path, uint32_t copy, enum label_state state,
                   struct error *error) must_check;
/* A swap that a crash cut short: the label names `fresh`, a complete clone: it takes the place of `path`. */
status datadir_finish_swap(const char *path, const char *fresh, const char *label_path, struct error *error) must_check;
/* `fresh` takes the place of `path`; the old one, if there was any, is then at `fresh`. */
status datadir_swap(const char *path, const char *fresh, struct error *error) must_check;

/* The epoch below or at which we never attach again; 0 if there is none. FAILED: damaged, so not known. */
status pledge_read(uint32_t *ret_epoch, const char *path, struct error *error) must_check;
status pledge_write(const char *path, uint32_t epoch, struct error *error) must_check;

/* ---- timelines ----
 * PostgreSQL takes the first unused timeline id. To make it take the one that the epoch asks for, the ids in between
 * get empty history files. They stay for ever, as followers fetch all of them; only a standby about to start must not
 * have any above its highest real one, which it would take for its target. */
status placeholders_remove_trailing(const char *data_directory, struct error *error) must_check;
status placeholders_write(const char *data_directory, uint32_t above, uint32_t below, struct error *error) must_check;
/* Renames real history files of timelines above `above` away (of epochs that never came to be); how many. */
status histories_set_aside(const char *data_directory, uint32_t above, unsigned *ret_count,
                           struct error *error) must_check;
