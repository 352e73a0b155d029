/* One PgBouncer, by its console. Level-triggered: it is told what shall be, looks what is, and does the next thing. */
#pragma once
#include "publish/poolers.h"

#define POOLER_DATABASES_MAX 16
#define POOLER_NAME_MAX      63 /* PgBouncer's limit for names */

struct pooler_address {
    char host[HOST_MAX_LENGTH + 1];
    uint32_t port;
};

/* What all of them share, kept by their owner. */
struct pooler_view {
    bool open; /* there is an open primary, and no switchover under way */
    uint64_t index;
    struct pooler_address primary, others[DATA_MEMBERS_MAX];
    unsigned others_count;
};

struct pooler_config {
    char databases[POOLER_DATABASES_MAX][POOLER_NAME_MAX + 1];
    unsigned databases_count;
    char user[POOLER_NAME_MAX + 1];
    char *password; /* NULL: none */
    unsigned pause_ms, hold_ms;
};

struct pooler_callbacks {
    void (*notice)(void *user, const char *text);
    void (*paused)(void *user); /* its clients wait, or it was given up */
    void (*closed)(void *user);
};

struct pooler;

/* `config`, `view` and `callbacks` must stay valid. NULL when out of memory. */
struct pooler *pooler_new(uv_loop_t *loop, const struct pooler_place *place, const struct pooler_config *config,
                          const struct pooler_view *view, const struct pooler_callbacks *callbacks, void *user);
/* Clients shall wait. */
void pooler_pause(struct pooler *pooler);
bool pooler_pausing(const struct pooler *pooler);
/* Somebody may be about to pause it: from now on at most `hold_ms`. */
void pooler_held(struct pooler *pooler);
/* It may still lead to another primary than the view, or be paused. */
void pooler_lead(struct pooler *pooler);
void pooler_reload(struct pooler *pooler);
/* The view has changed. */
void pooler_told(struct pooler *pooler);
struct face_output pooler_row(const struct pooler *pooler);
void pooler_close(struct pooler *pooler, bool wait);
