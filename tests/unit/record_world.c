#include "tests/unit/record_world.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

uv_loop_t loop;
static uv_timer_t waker;
struct node nodes[MEMBERS];
struct record_peer peers[MEMBERS];
static char base[64];
struct record_shared_line lines[2] = {{"cluster", "test", "/etc/ttorch/ttorch.yaml", 1},
                                      {"durability", "quorum", "/etc/ttorch/ttorch.yaml", 5}};

/* ---- the caller's side ---- */

static void hash_add(struct node *node, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        node->hash = (node->hash ^ bytes[i]) * 1099511628211ull;
}

static void on_apply(void *user, uint64_t index, const uint8_t *command, size_t length) {
    struct node *node = user;
    assert_true(index > node->last_index);
    node->last_index = index;
    node->count++;
    node->applied_at = time_now();
    if (length == 2 && command[0] == '#')
        node->applied[command[1]]++;
    hash_add(node, command, length);
}

static size_t on_snapshot(void *user, uint8_t *buffer, size_t size) {
    struct node *node = user;
    assert_true(size >= 24);
    memcpy(buffer, &node->count, 8);
    memcpy(buffer + 8, &node->hash, 8);
    memcpy(buffer + 16, &node->last_index, 8);
    return 24;
}

static status on_restore(void *user, const uint8_t *snapshot, size_t length, struct error *error) {
    struct node *node = user;
    node->restored++;
    if (length != 24)
        return error_set(error, "length %zu", length);
    memcpy(&node->count, snapshot, 8);
    memcpy(&node->hash, snapshot + 8, 8);
    memcpy(&node->last_index, snapshot + 16, 8);
    return OK;
}

static void on_role(void *user, enum record_role role, uint64_t term, const char *leader) {
    struct node *node = user;
    (void)term;
    node->role = role;
    snprintf(node->leader, sizeof node->leader, "%s", leader != NULL ? leader : "");
}

void on_found_done(void *user, enum record_outcome outcome, uint64_t index, const char *why) {
    (void)user, (void)outcome, (void)index, (void)why;
}

static void on_found(void *user, uint64_t cluster_id, const uint64_t *raft_ids) {
    struct node *node = user;
    node->founded_id = cluster_id;
    node->found_calls++;
    memcpy(node->found_ids, raft_ids, node->config.peers_count * sizeof *raft_ids);
    if (node->propose_on_found)
        record_propose(node->record, (const uint8_t *)"found", 5, 2000, on_found_done, node);
}

static bool on_readmit(void *user, const char *name, uint64_t raft_id) {
    struct node *node = user;
    node->admitted[name[1] - '1'] = raft_id;
    return true;
}

static void on_message(void *user, const char *from, const uint8_t *bytes, size_t length) {
    struct node *node = user;
    assert_memory_equal(bytes, "hello", 5);
    node->messages_seen++;
    node->message_length = length;
    snprintf(node->message_from, sizeof node->message_from, "%s", from);
}

static void on_peer(void *user, const char *name, bool up, const char *why) {
    struct node *node = user;
    unsigned i = (unsigned)(name[1] - '1');
    node->up[i] = up;
    snprintf(node->why[i], sizeof node->why[i], "%s", why != NULL ? why : "");
}

static void on_notice(void *user, const char *text) {
    struct node *node = user;
    node->notices++;
    snprintf(node->notice, sizeof node->notice, "%s", text);
}

static void on_fatal(void *user, const char *why) {
    struct node *node = user;
    snprintf(node->fatal, sizeof node->fatal, "%s", why);
}

const struct record_callbacks callbacks = {.apply = on_apply,
                                           .snapshot = on_snapshot,
                                           .restore = on_restore,
                                           .role = on_role,
                                           .found = on_found,
                                           .readmit = on_readmit,
                                           .message = on_message,
                                           .peer = on_peer,
                                           .notice = on_notice,
                                           .fatal = on_fatal};

void on_done(void *user, enum record_outcome outcome, uint64_t index, const char *why) {
    struct outcome *result = user;
    (void)why;
    assert_false(result->done);
    *result = (struct outcome){true, outcome, index};
}

static void on_closed(void *user) { ((struct node *)user)->closed = true; }

/* ---- running ---- */

/* For the reader of a failed test. */
static void nodes_print(void) {
    for (unsigned i = 0; i < members; i++) {
        struct record_status s;
        if (nodes[i].record == NULL)
            continue;
        record_status(nodes[i].record, &s);
        print_message("# %s: role %d term %u leader \"%s\" voters %u applied %u commands %u found %u, %s; fatal \"%s\" "
                      "notice \"%s\"\n",
                      peers[i].name, s.role, (unsigned)s.term, s.leader, s.voters, (unsigned)s.last_applied,
                      (unsigned)nodes[i].count, nodes[i].found_calls, s.waiting, nodes[i].fatal, nodes[i].notice);
        for (unsigned j = 0; j < members; j++)
            print_message("#     %s: %d %s\n", peers[j].name, nodes[i].up[j], nodes[i].why[j]);
    }
}

static void on_wake(uv_timer_t *timer) { (void)timer; }

bool run_until_deadline(bool (*condition)(void *), void *user, nsec limit) {
    nsec end = time_now() + limit;
    while (!condition(user)) {
        if (time_now() > end) {
            nodes_print();
            return false;
        }
        uv_run(&loop, UV_RUN_ONCE);
    }
    return true;
}

unsigned members = NODES, heartbeat_ms = HEARTBEAT_MS;

status node_open_as(unsigned i, unsigned self, struct error *error) {
    struct node *node = &nodes[i];
    struct record_peer list[MEMBERS];
    memcpy(list, peers, sizeof list);
    list[self].port = peers[i].port;
    *node = (struct node){.propose_on_found = true};
    snprintf(node->directory, sizeof node->directory, "%s/m%u", base, i + 1);
    node->config = (struct record_config){.directory = node->directory,
                                          .cluster_name = "test",
                                          .self = self,
                                          .peers = list,
                                          .peers_count = members,
                                          .shared = lines,
                                          .shared_count = 2,
                                          .heartbeat_ms = heartbeat_ms,
                                          .election_ms = 3 * heartbeat_ms,
                                          .freshness_ms = 200};
    status result = record_open(&node->record, &loop, &node->config, &callbacks, node, error);
    node->config.peers = peers; /* it was copied */
    return result;
}

status node_open(unsigned i, struct error *error) { return node_open_as(i, i, error); }

void node_start(unsigned i) {
    struct error error = {""};
    if (node_open(i, &error) != OK)
        fail_msg("open: %s", error.text);
}

static bool is_closed(void *user) { return ((struct node *)user)->closed; }

void node_stop(unsigned i) {
    struct node *node = &nodes[i];
    if (node->record == NULL)
        return;
    record_close(node->record, on_closed, node);
    node->record = NULL;
    run_until(is_closed, node);
}

struct record_status status_of(unsigned i) {
    struct record_status s;
    record_status(nodes[i].record, &s);
    return s;
}

int leader_of(void) {
    for (unsigned i = 0; i < NODES; i++)
        if (nodes[i].record != NULL && nodes[i].role == RECORD_LEADER)
            return (int)i;
    return -1;
}

bool is_led(void *user) {
    unsigned voters = *(unsigned *)user;
    int leader = leader_of();
    if (leader < 0)
        return false;
    for (unsigned i = 0; i < NODES; i++)
        if (nodes[i].record != NULL &&
            (strcmp(nodes[i].leader, peers[leader].name) != 0 || status_of(i).voters != voters || !status_of(i).voter))
            return false;
    return true;
}

bool is_all_applied(void *user) {
    uint64_t count = *(uint64_t *)user;
    for (unsigned i = 0; i < members; i++)
        if (nodes[i].record != NULL && nodes[i].count < count)
            return false;
    return true;
}

void states_equal(void) {
    const struct node *first = NULL;
    for (unsigned i = 0; i < members; i++) {
        if (nodes[i].record == NULL)
            continue;
        if (first == NULL)
            first = &nodes[i];
        assert_int_equal(nodes[i].count, first->count);
        assert_int_equal(nodes[i].hash, first->hash);
        assert_string_equal(nodes[i].fatal, "");
    }
}

bool is_done(void *user) { return ((struct outcome *)user)->done; }

struct outcome propose(unsigned i, const char *command, unsigned deadline_ms) {
    struct outcome result = {0};
    record_propose(nodes[i].record, (const uint8_t *)command, strlen(command), deadline_ms, on_done, &result);
    assert_false(result.done); /* never from inside the call */
    run_until(is_done, &result);
    return result;
}

static bool is_settled(void *user) {
    unsigned voters = NODES;
    return is_led(&voters) && is_all_applied(user);
}

unsigned settle(uint64_t count) {
    run_until(is_settled, &count);
    return (unsigned)leader_of();
}

unsigned cluster_start(void) {
    for (unsigned i = 0; i < NODES; i++)
        node_start(i);
    return settle(1);
}

struct outcome commit(unsigned i, const char *command) {
    struct outcome result;
    nsec end = time_now() + DEADLINE;
    do
        result = propose(i, command, 2000);
    while (result.outcome != RECORD_COMMITTED && time_now() < end);
    assert_int_equal(result.outcome, RECORD_COMMITTED);
    return result;
}

/* ---- set-up ---- */

void remove_tree(const char *path) {
    char command[320];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

int set_up(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    heartbeat_ms = HEARTBEAT_MS;
    snprintf(base, sizeof base, "/tmp/ttorch-record.XXXXXX");
    assert_non_null(mkdtemp(base));
    members = NODES;
    for (unsigned i = 0; i < MEMBERS; i++) {
        memset(&nodes[i], 0, sizeof nodes[i]);
        peers[i].observer = i >= NODES;
        snprintf(peers[i].name, sizeof peers[i].name, "m%u", i + 1);
        snprintf(peers[i].host, sizeof peers[i].host, "127.0.0.1");
        peers[i].port = free_port();
    }
    uv_loop_init(&loop);
    uv_timer_init(&loop, &waker);
    uv_timer_start(&waker, on_wake, 10, 10);
    return 0;
}

int tear_down(void **state) {
    (void)state;
    for (unsigned i = 0; i < MEMBERS; i++)
        node_stop(i);
    uv_close((uv_handle_t *)&waker, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0); /* nothing was left open */
    remove_tree(base);
    return 0;
}

bool is_role_elsewhere(void *user) {
    int leader = leader_of();
    return leader >= 0 && leader != *(int *)user;
}

void many(unsigned i, unsigned proposals) {
    enum { BATCH = 50 };
    static struct outcome results[BATCH];
    for (unsigned at = 0; at < proposals; at += BATCH) {
        memset(results, 0, sizeof results);
        for (unsigned j = 0; j < BATCH; j++) {
            char command[64];
            snprintf(command, sizeof command, "command %u", at + j);
            record_propose(nodes[i].record, (uint8_t *)command, strlen(command), 5000, on_done, &results[j]);
        }
        for (unsigned j = 0; j < BATCH; j++) {
            run_until(is_done, &results[j]);
            assert_int_equal(results[j].outcome, RECORD_COMMITTED);
        }
    }
}

void run_for(nsec duration) {
    nsec end = time_now() + duration;
    while (time_now() < end)
        uv_run(&loop, UV_RUN_ONCE);
}
