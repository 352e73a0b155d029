/* Records on one loop with real sockets and directories, for the tests of raft/. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <uv.h>

#include "raft/record.h"

#define NODES       3 /* voters: the first of the members */
#define MEMBERS     5 /* the rest: observers, where a test wants some */
#define TRACKED_MAX 256
#define DEADLINE    (15 * NSEC_PER_SEC)

/* What one member has seen. Its recorded state is the number of commands and a running hash of them. */
struct node {
    struct record *record;
    struct record_config config;
    char directory[128];
    uint64_t count, hash, last_index;
    uint64_t founded_id, found_ids[MEMBERS];
    uint64_t admitted[MEMBERS]; /* raft ids of observers */
    unsigned found_calls, messages_seen, notices, restored;
    size_t message_length;
    char message_from[32], why[MEMBERS][1536], fatal[512], notice[1536];
    bool up[MEMBERS], closed, propose_on_found;
    enum record_role role;
    char leader[32];
    nsec applied_at;
    unsigned applied[TRACKED_MAX]; /* how often each tracked command was applied */
};

struct outcome {
    bool done;
    enum record_outcome outcome;
    uint64_t index;
};

extern uv_loop_t loop;
extern struct node nodes[MEMBERS];
extern struct record_peer peers[MEMBERS];
extern struct record_shared_line lines[2];
extern const struct record_callbacks callbacks;
#define HEARTBEAT_MS 100               /* as ttorchd's */
extern unsigned members, heartbeat_ms; /* of those that are opened now */

#define run_until(condition, user) assert_true(run_until_deadline(condition, user, DEADLINE))

bool run_until_deadline(bool (*condition)(void *), void *user, nsec limit);
/* The directory is that of member `i`, the name that of member `self`, which listens on the port of `i`. */
status node_open_as(unsigned i, unsigned self, struct error *error);
status node_open(unsigned i, struct error *error);
void node_start(unsigned i);
void node_stop(unsigned i);
struct record_status status_of(unsigned i);
int leader_of(void);
bool is_led(void *user);
bool is_all_applied(void *user);
void states_equal(void);
bool is_done(void *user);
struct outcome propose(unsigned i, const char *command, unsigned deadline_ms);
/* Runs until all three voters follow one leader and all have applied `count` commands; returns the leader, which on a
 * busy machine may be another one after the next turn of the loop. */
unsigned settle(uint64_t count);
unsigned cluster_start(void);
/* Asks again as often as the leader is lost meanwhile. */
struct outcome commit(unsigned i, const char *command);
void remove_tree(const char *path);
int set_up(void **state);
int tear_down(void **state);
void run_for(nsec duration);
bool is_role_elsewhere(void *user);
void many(unsigned i, unsigned proposals);
void on_done(void *user, enum record_outcome outcome, uint64_t index, const char *why);
void on_found_done(void *user, enum record_outcome outcome, uint64_t index, const char *why);
