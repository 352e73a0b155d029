/* A modelled cluster around the real core: members with their core, a modelled PostgreSQL and guard each, one committed
 * log, a network that can be cut, and one clock. Everything that happens comes from the seed. PostgreSQL is modelled as
 * records of WAL (timeline, content): it compares timelines and positions, never contents, as the real one does. */
#pragma once
#include "orchestrator/core.h"

#define WORLD_MEMBERS 5
#define WORLD_WAL     4096
#define WORLD_LOG     1024

struct wal_record {
    uint32_t timeline;
    uint32_t content; /* unique in the run */
};

struct modelled_postgres {
    DataState data;
    uint32_t copy;
    uint32_t pledged;
    ServerState server;
    unsigned length; /* records of WAL on this disk */
    struct wal_record wal[WORLD_WAL];
    char upstream[64]; /* application_name of the receiver */
    int source;        /* index of the member that it receives from; -1 = nobody */
    struct rule_setting rule;
    unsigned waiting_from; /* as primary: records from here on were written in this epoch */
    unsigned acknowledged; /* as primary: records before this were acknowledged to clients */
    unsigned written_durably;
    uint32_t guard_epoch;
    nsec guard_deadline;
    bool frozen;
};

struct modelled_member {
    struct core core;
    struct core_config config;
    bool up; /* its daemon runs */
    uint32_t starts;
    unsigned applied; /* log entries given to the core */
    struct {
        bool waits;
        unsigned index; /* of the log entry; 0 = rejected */
        nsec until;
    } proposals[2];
    bool operating;
    struct operation operation;
    nsec operation_ends;
    nsec facts_at;
    struct modelled_postgres postgres;
    bool cut_off; /* from everyone else */
    bool exited;
};

struct world_message {
    nsec at;
    unsigned from, to;
    Message message;
};

struct world {
    nsec now;
    uint64_t random;
    unsigned members_count;
    struct modelled_member members[WORLD_MEMBERS];
    unsigned log_length;
    Command log[WORLD_LOG];
    nsec log_at[WORLD_LOG];
    int leader; /* index; -1 = none */
    nsec leader_at;
    uint64_t term;
    unsigned messages_count;
    struct world_message messages[1024];
    uint32_t next_content;
    unsigned acknowledged_count;
    uint32_t acknowledged[WORLD_WAL * 4]; /* contents that a client was told are durable */
    char violation[256];                  /* the first broken invariant; empty = none */
    bool quiet;                           /* clients stop writing */
    bool trace;
};

void world_init(struct world *world, unsigned members, uint64_t seed, Durability durability);
/* Runs until `until` holds or `limit` passes; false if it does not come to hold, or an invariant broke. */
bool world_run(struct world *world, bool (*until)(const struct world *), nsec limit);
void world_advance(struct world *world, nsec time);

void world_kill_postgres(struct world *world, unsigned member);
void world_kill_daemon(struct world *world, unsigned member);
void world_start_daemon(struct world *world, unsigned member);
void world_kill_host(struct world *world, unsigned member); /* daemon, guard and PostgreSQL */
void world_request_switchover(struct world *world, unsigned at, const char *to);

/* The member that the record calls primary, open and really writable; -1 = none. */
int world_primary(const struct world *world);
/* One open primary, and every other member with a running daemon streams from it and counts in its one rule. */
bool world_is_redundant(const struct world *world);
