/* The PgBouncers that we are told of. During a switchover they hold their clients back, so that these see a pause and
 * no error; after each change of primary they read their files again and drop connections to the old one.
 *
 *   the primary's member   PAUSE, just before it stops PostgreSQL
 *   every member           once its record has an open primary: RELOAD, until the database leads there, then RESUME
 *
 * All of it may be done by several members at once and repeated at will, and none counts on another: whoever paused may
 * be dead. A member that starts resumes what it finds paused; without a primary, clients go on after `hold_ms`. Nothing
 * here decides anything: a pooler that does not answer holds up a switchover for no longer than `pause_ms`. */
#pragma once
#include <uv.h>

#include "publish/publish.h"

#define POOLERS_MAX 16

struct poolers_config {
    struct pooler_place {
        const char *name; /* the operator's name for it */
        const char *host; /* an IP address, or the directory of its socket */
        uint16_t port;
    } list[POOLERS_MAX];
    unsigned count;
    const char *user;
    const char *password_file; /* or ""; read once */
    const char *databases;     /* those that lead to the primary, separated by ", "; or "" */
    const char *database;      /* then this one, by the name that it has in the published file */
    unsigned pause_ms;         /* how long to wait for transactions under way */
    unsigned hold_ms;          /* how long clients are held back at most */
};

struct poolers_callbacks {
    void (*face)(void *user, struct face *ret_face);
    void (*notice)(void *user, const char *text);
};

struct poolers;

/* The strings are copied. */
status poolers_open(struct poolers **ret_poolers, uv_loop_t *loop, const struct poolers_config *config,
                    const struct poolers_callbacks *callbacks, void *user, struct error *error) must_check;
/* Something may have changed. */
void poolers_changed(struct poolers *poolers);
/* The file that they may include was written. */
void poolers_reload(struct poolers *poolers);
/* `done` comes when all clients are held back, or `pause_ms` is over: perhaps at once. A second call replaces the
 * first. */
void poolers_pause(struct poolers *poolers, void (*done)(void *user), void *user);
/* How they do, for the status: at most POOLERS_MAX rows, returns how many. They are valid until the next call. */
unsigned poolers_outputs(const struct poolers *poolers, struct face_output ret_rows[POOLERS_MAX]);
/* `wait`: until another member has resumed what we paused, or `hold_ms` is over and we do. Else whoever starts next
 * does. */
void poolers_close(struct poolers *poolers, bool wait, void (*closed)(void *user), void *user);
