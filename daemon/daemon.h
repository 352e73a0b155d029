/* ttorchd: builds the parts, runs one loop, drains one inbox, and turns each action of the core into one call. */
#pragma once
#include <uv.h>

#include "config/config.h"
#include "daemon/inbox.h"
#include "orchestrator/core.h"
#include "pgctl/pgctl.h"
#include "publish/dns.h"
#include "publish/poolers.h"
#include "publish/publish.h"
#include "raft/record.h"

#define ANSWERS_MAX 16 /* operators' requests that wait for their answer */

/* What follows once a daemon has ended all its parts. */
enum afterwards {
    AFTERWARDS_EXIT,
    AFTERWARDS_STAND_BY, /* the record can't be used: begin again without it, so that somebody can say so */
    AFTERWARDS_REJOIN    /* begin again with an empty record */
};

struct daemon {
    uv_loop_t *loop;
    struct config *config;
    struct core core;
    struct actions actions;
    struct inbox inbox;

    struct record *record;
    struct pgctl *pgctl; /* NULL without a PostgreSQL */
    struct publish *publish;
    struct dns *dns;         /* NULL if there is no zone */
    struct poolers *poolers; /* NULL if there are none */
    uint64_t pause_serial;   /* of the operation that they are asked to do */
    struct record_peer peers[MEMBERS_MAX];
    Snapshot replica; /* the record as libraft has applied it; the core may be a few events behind */

    uv_prepare_t before_poll;
    uv_check_t after_poll;
    uv_timer_t wake;
    uv_timer_t watchdog;
    uv_timer_t found_again;
    uv_signal_t signals[4];

    struct memory {
        uint64_t index; /* of the record, when it last changed */
        nsec busy_at;   /* and when that was seen */
        bool given_back;
    } memory;
    uint64_t cluster_id; /* while the first command is being proposed */
    uint64_t raft_ids[MEMBERS_MAX];
    bool readmitting; /* such a command is being proposed */
    struct {
        uint64_t serial; /* 0 = free */
        face_answer_callback *answer;
        void *context;
    } answers[ANSWERS_MAX];
    uint64_t next_serial;
    nsec upkeep_at;
    unsigned upkeep_members; /* recorded then */
    bool response_known;     /* how long PostgreSQL took to answer last */
    uint64_t response_ms;
    nsec started_at;
    nsec stopping_since;
    bool ending;
    bool rejoin_asked; /* by an operator, who has his answer */
    enum afterwards afterwards;
    struct error refused; /* AFTERWARDS_STAND_BY: why */
    bool keep;            /* leave PostgreSQL to its guard */
    int exit_status;
    unsigned closing; /* parts that have not yet closed */
};

/* ---- daemon.c ---- */
/* Runs until told to end; takes over `config` (malloc'ed). Returns the exit status. */
int daemon_run(struct config *config);
void daemon_end(struct daemon *daemon, bool keep, int exit_status, const char *why);
/* Ends it to begin again in the same process; PostgreSQL goes on. */
void daemon_again(struct daemon *daemon, enum afterwards afterwards, const char *why);
/* ---- driver.c: action -> hand ---- */
void driver_run(struct daemon *daemon, const struct actions *actions);
/* ---- hands.c: what comes back, as events ---- */
extern const struct record_callbacks daemon_record_callbacks;
extern const struct pgctl_callbacks daemon_pgctl_callbacks;
extern const struct publish_callbacks daemon_publish_callbacks;
/* The poolers hold their clients back. */
void hands_paused(void *user);
/* ---- face.c ---- */
void face_fill(void *user, struct face *ret_face);
void face_status_line(const struct daemon *daemon, char *buffer, size_t size);
/* ---- memory.c ---- */
/* Once a second: when nothing has happened for a while, gives memory back. */
void memory_tick(struct daemon *daemon, nsec now);
/* ---- upkeep.c ---- */
void upkeep_refresh(struct daemon *daemon);
