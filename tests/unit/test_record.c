/* Three records on one loop with real sockets and directories: founding, proposals, crashes, snapshots, garbage. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/record_world.h"

/* ---- tests ---- */

static void test_founding_in_every_order(void **state) {
    static const unsigned orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (unsigned o = 0; o < 6; o++) {
        unsigned voters = NODES;
        uint64_t count = 1;
        for (unsigned i = 0; i < NODES; i++) {
            node_start(orders[o][i]);
            nsec seen = time_now() + msec(60);
            while (i < 2 && time_now() < seen)
                uv_run(&loop, UV_RUN_ONCE);
            if (i < 2)
                assert_string_not_equal(status_of(orders[o][i]).waiting, "");
        }
        run_until(is_led, &voters);
        run_until(is_all_applied, &count);
        assert_int_equal(nodes[0].found_calls, 1);
        for (unsigned i = 0; i < NODES; i++) {
            assert_int_equal(status_of(i).cluster_id, nodes[0].founded_id);
            assert_int_equal(status_of(i).raft_id, nodes[0].found_ids[i]);
            assert_int_equal(status_of(i).start_count, 1);
            assert_string_equal(status_of(i).waiting, "");
        }
        states_equal();
        tear_down(state);
        set_up(state);
    }
}

static bool is_difference_told(void *user) {
    (void)user;
    return strstr(nodes[0].why[1], "durability") != NULL && strstr(nodes[1].why[0], "durability") != NULL;
}

static void test_different_line(void **state) {
    (void)state;
    struct error error;
    node_start(0);
    node_start(2);
    struct record_shared_line saved = lines[1];
    lines[1] = (struct record_shared_line){"durability", "async", "/etc/other.yaml", 9};
    assert_int_equal(node_open(1, &error), OK);
    lines[1] = saved;
    run_until(is_difference_told, NULL);
    assert_string_equal(nodes[0].why[1], "durability is async at m2 (/etc/other.yaml:9), quorum here "
                                         "(/etc/ttorch/ttorch.yaml:5)");
    assert_string_equal(nodes[1].why[0], "durability is quorum at m1 (/etc/ttorch/ttorch.yaml:5), async here "
                                         "(/etc/other.yaml:9)");
    assert_non_null(strstr(status_of(0).waiting, "durability is async at m2"));
    assert_int_equal(nodes[0].found_calls, 0);
    /* Mended, it founds. */
    unsigned voters = NODES;
    node_stop(1);
    node_start(1);
    run_until(is_led, &voters);
}

static void test_propose(void **state) {
    (void)state;
    unsigned leader = cluster_start(), follower = (leader + 1) % NODES;
    struct outcome here = commit(leader, "from the leader");
    struct outcome there = commit(follower, "from a follower");
    assert_true(there.index > here.index);
    assert_int_equal(nodes[follower].last_index, there.index); /* applied there too */
    uint64_t count = 3;
    run_until(is_all_applied, &count);
    states_equal();
    assert_int_equal(propose(leader, "", 1000).outcome, RECORD_REJECTED);
    assert_true(status_of(leader).quorum_heard_at + msec(300) > time_now());
    assert_true(status_of(follower).quorum_heard_at + msec(300) > time_now());
}

static void test_lose_one_then_all(void **state) {
    (void)state;
    unsigned voters = NODES;
    uint64_t count;
    int leader = (int)cluster_start();
    uint64_t raft_id = status_of(0).raft_id;
    node_stop((unsigned)leader);
    run_until(is_role_elsewhere, &leader);
    commit((unsigned)leader_of(), "with two");
    node_start((unsigned)leader);
    count = 2;
    run_until(is_all_applied, &count);
    states_equal();
    run_until(is_led, &voters);
    uint64_t hash = nodes[0].hash;
    for (unsigned i = 0; i < NODES; i++)
        node_stop(i);
    for (unsigned i = 0; i < NODES; i++)
        node_start(i);
    run_until(is_led, &voters);
    run_until(is_all_applied, &count);
    states_equal();
    assert_int_equal(nodes[0].hash, hash);
    assert_int_equal(status_of(0).raft_id, raft_id);
    assert_int_equal(status_of(0).start_count, leader == 0 ? 3 : 2);
    assert_int_equal(nodes[0].found_calls, 0);
}

/* Paths of the newest snapshot's two files: what it is of, and what is in it. False if there is none. */
static bool find_snapshot(const char *directory, char ret_paths[2][512]) {
    char path[160], newest[256] = "";
    unsigned long index, highest = 0;
    snprintf(path, sizeof path, "%s/log", directory);
    DIR *log = opendir(path);
    assert_non_null(log);
    for (struct dirent *entry; (entry = readdir(log)) != NULL;)
        if (sscanf(entry->d_name, "snapshot-%*u-%lu", &index) == 1 && strstr(entry->d_name, ".meta") == NULL &&
            index > highest) {
            highest = index;
            snprintf(newest, sizeof newest, "%s", entry->d_name);
        }
    closedir(log);
    snprintf(ret_paths[0], 512, "%s/%s.meta", path, newest);
    snprintf(ret_paths[1], 512, "%s/%s", path, newest);
    return newest[0] != '\0';
}

static bool has_snapshot(const char *directory) {
    char paths[2][512];
    return find_snapshot(directory, paths);
}

/* The follower left behind is sent a snapshot; the others restore theirs when they start again. */
static void test_snapshot(void **state) {
    (void)state;
    unsigned voters = NODES;
    unsigned leader = cluster_start(), behind = (leader + 1) % NODES;
    node_stop(behind);
    many(leader, 3000);
    uint64_t count = 3001;
    run_until(is_all_applied, &count);
    assert_true(has_snapshot(nodes[leader].directory));
    node_start(behind);
    run_until(is_all_applied, &count);
    states_equal();
    assert_true(has_snapshot(nodes[behind].directory));
    for (unsigned i = 0; i < NODES; i++)
        node_stop(i);
    for (unsigned i = 0; i < NODES; i++)
        node_start(i);
    run_until(is_led, &voters);
    run_until(is_all_applied, &count);
    states_equal();
    assert_int_equal(nodes[0].count, 3001);
}

static int dial_node(unsigned i) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(peers[i].port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static bool is_hung_up(void *user) {
    char byte;
    ssize_t n = recv(*(int *)user, &byte, 1, 0);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

static void test_garbage(void **state) {
    (void)state;
    static const uint8_t huge[] = {0x74, 0xd7, 1, 1, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0};
    static const uint8_t wrong_sum[] = {0x74, 0xd7, 1, 1, 1, 0, 0, 0, 1, 2, 3, 4, 5};
    static const struct {
        const void *bytes;
        size_t length;
    } cases[] = {{"GET / HTTP/1.1\r\n\r\n", 18},
                 {huge, sizeof huge},
                 {wrong_sum, sizeof wrong_sum},
                 {huge, 4} /* and then silence */};
    cluster_start();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = dial_node(0);
        assert_int_equal(send(fd, cases[i].bytes, cases[i].length, MSG_NOSIGNAL), cases[i].length);
        run_until(is_hung_up, &fd);
        close(fd);
    }
    assert_non_null(strstr(nodes[0].notice, "dropped"));
    int strangers[40];
    for (unsigned i = 0; i < 40; i++)
        strangers[i] = dial_node(0);
    run_until(is_hung_up, &strangers[0]);
    commit(0, "undisturbed");
    for (unsigned i = 0; i < 40; i++)
        close(strangers[i]);
    uint64_t count = 2;
    run_until(is_all_applied, &count);
    states_equal();
}

/* ---- a flood ---- */

static bool is_all_up(void *user) {
    (void)user;
    for (unsigned i = 0; i < NODES; i++)
        for (unsigned j = 0; j < NODES; j++)
            if (i != j && !nodes[i].up[j])
                return false;
    return true;
}

/* What a stranger of the flood does: nothing, noise, a frame that is too long, or a hello that comes byte by byte. */
enum stranger { STRANGER_SILENT, STRANGER_NOISY, STRANGER_BOASTS, STRANGER_SLOW, STRANGERS };

static int dial_later(unsigned i) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(peers[i].port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_true(connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EINPROGRESS);
    return fd;
}

/* Errors are its own business: it may have been hung up on. */
static void stranger_speaks(int fd, unsigned number, unsigned turn) {
    static const uint8_t boast[] = {0x74, 0xd7, 1, 1, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0};
    static const uint8_t hello[] = {0x74, 0xd7, 1, 1, 0xe8, 3, 0, 0, 1, 2, 3, 4}; /* of 1000 bytes */
    uint8_t noise[256];
    memset(noise, (int)number | 1, sizeof noise);
    if (number % STRANGERS == STRANGER_NOISY)
        (void)!send(fd, noise, sizeof noise, MSG_NOSIGNAL);
    else if (number % STRANGERS == STRANGER_BOASTS)
        (void)!send(fd, boast, sizeof boast, MSG_NOSIGNAL);
    else if (number % STRANGERS == STRANGER_SLOW)
        (void)!send(fd, turn < sizeof hello ? hello + turn : noise, 1, MSG_NOSIGNAL);
}

static unsigned descriptors(void) {
    unsigned count = 0;
    DIR *open_now = opendir("/proc/self/fd");
    assert_non_null(open_now);
    while (readdir(open_now) != NULL)
        count++;
    closedir(open_now);
    return count;
}

/* Thousands of strangers, 200 of them at a time: each is dropped soon, few are let in at once, and members go on. */
static void test_flood(void **state) {
    enum { FLOOD = 4000, AT_A_TIME = 200, LET_IN_MAX = 16 + 8 /* and those that are being closed */ };
    static int fds[AT_A_TIME];
    unsigned most = 0, committed = 0;
    (void)state;
    unsigned leader = cluster_start();
    uint64_t term = status_of(leader).term;
    run_until(is_all_up, NULL);
    unsigned before = descriptors(), notices = nodes[leader].notices;
    struct mallinfo2 memory = mallinfo2();
    nsec began = time_now();
    for (unsigned i = 0; i < FLOOD; i++) {
        int *fd = &fds[i % AT_A_TIME];
        if (i >= AT_A_TIME)
            close(*fd);
        *fd = dial_later(leader);
        for (unsigned turn = 0; turn < 4 && turn <= i; turn++) /* those that dialled last */
            stranger_speaks(fds[(i - turn) % AT_A_TIME], i - turn, turn);
        uv_run(&loop, UV_RUN_NOWAIT);
        if (i % 100 == 0) {
            unsigned now = descriptors() - (i < AT_A_TIME ? i + 1 : AT_A_TIME);
            most = now > most ? now : most;
        }
        if (i % 400 == 0)
            committed += propose(leader, "amid the flood", 2000).outcome == RECORD_COMMITTED;
    }
    unsigned seconds = (unsigned)((time_now() - began) / NSEC_PER_SEC);
    size_t grown = mallinfo2().uordblks - memory.uordblks;
    for (unsigned i = 0; i < AT_A_TIME; i++)
        close(fds[i]);
    print_message(
        "# %u strangers in %u s: descriptors %u -> %u, memory +%zu, notices %u, committed %u of 10, term +%u\n",
        (unsigned)FLOOD, seconds, before, most, mallinfo2().uordblks > memory.uordblks ? grown : 0,
        nodes[leader].notices - notices, committed, (unsigned)(status_of(leader).term - term));
    assert_true(most <= before + LET_IN_MAX);
    assert_true(nodes[leader].notices - notices <= seconds + 2); /* one a second, with the number of the others */
    assert_true(mallinfo2().uordblks < memory.uordblks + (1u << 20));
    assert_true(committed > 0);
    commit(leader, "after the flood");
    settle(nodes[leader].count);
    states_equal();
}

static bool is_not_founding_again(void *user) {
    (void)user;
    return strstr(status_of(0).waiting, "lost") != NULL && nodes[1].role != RECORD_FOUNDING &&
           nodes[2].role != RECORD_FOUNDING && (leader_of() == 1 || leader_of() == 2);
}

static void test_founder_lost_its_directory(void **state) {
    (void)state;
    cluster_start();
    uint64_t cluster_id = status_of(1).cluster_id;
    node_stop(0);
    remove_tree(nodes[0].directory);
    node_start(0);
    run_until(is_not_founding_again, NULL);
    assert_int_equal(nodes[0].found_calls, 0);
    assert_int_equal(status_of(0).cluster_id, 0);
    assert_int_equal(status_of(1).cluster_id, cluster_id);
    commit((unsigned)leader_of(), "without it");
    assert_non_null(strstr(nodes[1].why[0], "m1 is in the cluster under another raft id"));
}

struct results {
    struct outcome list[TRACKED_MAX];
    unsigned count; /* proposed so far */
};

static bool is_all_known(void *user) {
    const struct results *results = user;
    for (unsigned i = 0; i < results->count; i++)
        if (!results->list[i].done)
            return false;
    return true;
}

/* Leaders go while proposals are under way: what was said of each must turn out to be true. */
static void test_outcomes_are_true(void **state) {
    enum { ROUNDS = 8, EACH = TRACKED_MAX / ROUNDS };
    static struct results results;
    unsigned counts[3] = {0};
    (void)state;
    memset(&results, 0, sizeof results);
    cluster_start();
    for (unsigned round = 0; round < ROUNDS; round++) {
        int leader = (int)settle(0);
        for (unsigned i = round * EACH; i < (round + 1) * EACH; i++) {
            const uint8_t command[2] = {'#', (uint8_t)i};
            unsigned from = ((unsigned)leader + 1 + i % 2) % NODES;
            record_propose(nodes[from].record, command, 2, 2000, on_done, &results.list[i]);
            results.count = i + 1;
            uv_run(&loop, UV_RUN_NOWAIT);
        }
        if (round % 2 == 0) {
            node_stop((unsigned)leader);
            run_until(is_role_elsewhere, &leader);
            node_start((unsigned)leader);
        } else {
            record_step_aside(nodes[leader].record, NULL);
        }
        settle(0);
        run_until(is_all_known, &results); /* one that is stopped in the next round would never answer its own */
    }
    commit(0, "last");
    settle(nodes[0].count);
    states_equal();
    for (unsigned i = 0; i < TRACKED_MAX; i++) {
        unsigned applied = nodes[0].applied[i];
        counts[results.list[i].outcome]++;
        assert_in_range(applied, results.list[i].outcome == RECORD_COMMITTED,
                        results.list[i].outcome != RECORD_REJECTED);
    }
    print_message("# committed %u, rejected %u, unknown %u\n", counts[0], counts[1], counts[2]);
    assert_true(counts[RECORD_COMMITTED] > 0);
}

static void test_host_names(void **state) {
    (void)state;
    for (unsigned i = 0; i < NODES; i++)
        snprintf(peers[i].host, sizeof peers[i].host, "localhost");
    cluster_start();
    commit(2, "by name");
}

static bool is_cut_off(void *user) { return nodes[*(unsigned *)user].role != RECORD_LEADER; }

static void test_without_quorum(void **state) {
    (void)state;
    unsigned leader = cluster_start();
    for (unsigned i = 0; i < NODES; i++)
        if (i != leader)
            node_stop(i);
    /* In the leader's log, never committed: it can't be known. Unless it leads no more by then, as after a stall. */
    assert_int_not_equal(propose(leader, "too late", 500).outcome, RECORD_COMMITTED);
    run_until(is_cut_off, &leader);
    assert_int_equal(propose(leader, "nobody leads", 300).outcome, RECORD_REJECTED);
}

static bool is_found_called(void *user) { return nodes[0].found_calls >= *(unsigned *)user; }

/* The founder dies after it has founded, before the first command and before anybody was added. */
static void test_founder_crashes(void **state) {
    (void)state;
    unsigned calls = 1, voters = NODES;
    for (unsigned i = 0; i < NODES; i++) {
        node_start(i);
        nodes[i].propose_on_found = false;
    }
    run_until(is_found_called, &calls);
    uint64_t cluster_id = nodes[0].founded_id;
    node_stop(0);
    node_start(0);
    run_until(is_led, &voters);
    assert_int_equal(nodes[0].founded_id, cluster_id);
    assert_int_equal(status_of(2).cluster_id, cluster_id);
}

static bool is_heard(void *user) {
    (void)user;
    return nodes[0].messages_seen == 1 && nodes[1].messages_seen == 1 && nodes[2].messages_seen == 2;
}

static void test_messages(void **state) {
    (void)state;
    cluster_start();
    run_until(is_all_up, NULL);
    record_send(nodes[1].record, NULL, (const uint8_t *)"hello", 5);
    assert_int_equal(nodes[1].messages_seen, 0);
    record_send(nodes[1].record, "m3", (const uint8_t *)"hello", 5);
    run_until(is_heard, NULL);
    assert_string_equal(nodes[0].message_from, "m2");
    assert_int_equal(nodes[0].message_length, 5);
    assert_string_equal(nodes[1].message_from, "m2");
}

static bool is_told(void *user) { return nodes[0].messages_seen == *(unsigned *)user; }

/* More than fits into what a connection holds back, and one that does not fit at all. */
static void test_messages_held(void **state) {
    enum { MANY = 100, LONG = 2000 };
    static const uint8_t bytes[LONG] = "hello";
    unsigned none = 0, all = MANY + 1;
    (void)state;
    cluster_start();
    run_until(is_all_up, NULL);
    record_hold(nodes[1].record);
    record_send(nodes[1].record, "m1", bytes, 5);
    run_for(msec(50));
    assert_true(is_told(&none));
    for (unsigned i = 1; i < MANY; i++)
        record_send(nodes[1].record, "m1", bytes, 5);
    record_send(nodes[1].record, "m1", bytes, LONG);
    record_release(nodes[1].record);
    run_until(is_told, &all);
    assert_int_equal(nodes[0].message_length, LONG); /* the last, still */
}

static void test_step_aside(void **state) {
    (void)state;
    nsec end = time_now() + DEADLINE;
    unsigned heir;
    int leader = (int)cluster_start();
    do { /* on a busy machine it may run out of time, or another one may take over */
        assert_true(time_now() < end);
        leader = (int)settle(0);
        heir = ((unsigned)leader + 1) % NODES;
        record_step_aside(nodes[leader].record, peers[heir].name);
        (void)run_until_deadline(is_role_elsewhere, &leader, 2 * NSEC_PER_SEC);
    } while (leader_of() != (int)heir);
}

static uint64_t last_index(void) {
    uint64_t last = 0;
    for (unsigned i = 0; i < NODES; i++)
        last = status_of(i).last_applied > last ? status_of(i).last_applied : last;
    return last;
}

/* Nothing is proposed, and yet a new leader commits an entry of its own term before it leads for anybody. */
static void test_new_leader_commits(void **state) {
    (void)state;
    int leader = (int)cluster_start();
    uint64_t before = last_index(), term = status_of((unsigned)leader).term, commands = nodes[leader].count;
    nsec end = time_now() + DEADLINE;
    do {
        assert_true(time_now() < end);
        leader = (int)settle(0);
        record_step_aside(nodes[leader].record, NULL);
    } while (!run_until_deadline(is_role_elsewhere, &leader, 2 * NSEC_PER_SEC));
    unsigned now = (unsigned)leader_of();
    assert_true(status_of(now).term > term);
    assert_true(status_of(now).last_applied > before);
    assert_int_equal(nodes[now].count, commands);
}

static void flip_byte(const char *path, off_t at) {
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_unusable_directories(void **state) {
    (void)state;
    char path[256];
    struct error error = {""};
    cluster_start();
    node_stop(0);
    node_start(0);
    struct node *node = &nodes[0];
    struct record *second;
    assert_int_equal(record_open(&second, &loop, &node->config, &callbacks, node, &error), FAILED);
    assert_non_null(strstr(error.text, "in use"));
    node_stop(0);
    snprintf(path, sizeof path, "%s/log/0000000000000001-0000000000000001", nodes[0].directory);
    flip_byte(path, 40);
    node_start(0);
    assert_true(status_of(0).lost);
    assert_non_null(strstr(status_of(0).waiting, nodes[0].directory));
    node_stop(0);
    assert_int_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/log", nodes[1].directory);
    node_stop(1);
    remove_tree(path);
    node_start(1);
    assert_true(status_of(1).lost);
    assert_non_null(strstr(status_of(1).waiting, "missing"));
}

static off_t size_of(const char *path) {
    struct stat at;
    assert_int_equal(stat(path, &at), 0);
    return at.st_size;
}

static bool says_damaged_snapshot(char paths[2][512]) {
    struct record_status found = status_of(0);
    return found.lost && (strstr(found.waiting, paths[1]) != NULL ||
                          strstr(found.waiting, "the snapshot in log has a wrong checksum"));
}

/* In a process of its own: libraft does not free what it has read of a snapshot that it then passes over. */
static bool is_noticed(char paths[2][512], const char *what, unsigned file, off_t at) {
    node_start(0);
    bool noticed = says_damaged_snapshot(paths);
    if (!noticed)
        print_message("# %s, %s at %d: \"%s\"\n", paths[file], what, (int)at, status_of(0).waiting);
    node_stop(0);
    return noticed;
}

static bool flips_are_noticed(char paths[2][512], unsigned file) {
    off_t size = size_of(paths[file]), step = size < 64 ? 1 : size / 64;
    bool noticed = true;
    for (off_t at = 0; at < size; at += step) {
        if (file == 0 && at >= 12 && at < 16)
            continue; /* the upper half of its checksum, which has none */
        flip_byte(paths[file], at);
        noticed = is_noticed(paths, "flipped", file, at) && noticed;
        flip_byte(paths[file], at);
    }
    return noticed;
}

static bool cuts_are_noticed(char paths[2][512]) {
    bool noticed = true;
    for (off_t length = size_of(paths[1]) - 1; length >= 0; length -= length > 8 ? 8 : 1) {
        assert_int_equal(truncate(paths[1], length), 0);
        noticed = is_noticed(paths, "cut", 1, length) && noticed;
    }
    return noticed;
}

/* Wherever its byte is damaged, and wherever it is cut, the snapshot is not believed; others need it not. */
static void test_damaged_snapshot(void **state) {
    (void)state;
    char paths[2][512];
    int result;
    many(cluster_start(), 1500);
    uint64_t count = 1501;
    run_until(is_all_applied, &count);
    for (unsigned i = 0; i < NODES; i++)
        node_stop(i);
    assert_true(find_snapshot(nodes[0].directory, paths));
    pid_t child = fork();
    if (child == 0) {
        uv_loop_fork(&loop);
        _exit(flips_are_noticed(paths, 0) && flips_are_noticed(paths, 1) && cuts_are_noticed(paths) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    node_start(1);
    node_start(2);
    commit(1, "without it");
}

static void test_single_member(void **state) {
    (void)state;
    unsigned voters = 1;
    uint64_t count = 1;
    members = 1;
    node_start(0);
    members = NODES;
    run_until(is_led, &voters);
    run_until(is_all_applied, &count);
    assert_int_equal(propose(0, "alone", 2000).outcome, RECORD_COMMITTED);
    assert_int_equal(nodes[0].count, 2);
}

static bool is_fatal(void *user) {
    (void)user;
    return nodes[0].fatal[0] != '\0' || nodes[1].fatal[0] != '\0' || nodes[2].fatal[0] != '\0';
}

/* Writes past the limit fail. What the records do after that is undefined but for one thing: they say so at once. */
static void fail_writing(void) {
    struct rlimit limit = {8192, 8192};
    char command[4000];
    unsigned leader = cluster_start();
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    memset(command, 'x', sizeof command);
    for (unsigned i = 0; i < 8; i++)
        record_propose(nodes[leader].record, (uint8_t *)command, sizeof command, 9000, on_found_done, NULL);
    _exit(run_until_deadline(is_fatal, NULL, 3 * NSEC_PER_SEC) ? 0 : 1);
}

static void test_failed_write_is_fatal(void **state) {
    int result;
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        uv_loop_fork(&loop);
        fail_writing();
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
}

static int compare_nsec(const void *a, const void *b) {
    nsec x = *(const nsec *)a, y = *(const nsec *)b;
    return x < y ? -1 : x > y;
}

/* Sparse proposals are applied everywhere long before the next heartbeat. */
static void test_sparse_latency(void **state) {
    enum { ROUNDS = 60 };
    static nsec taken[ROUNDS];
    (void)state;
    heartbeat_ms = 150;
    unsigned rounds = 0;
    nsec end = time_now() + 2 * DEADLINE;
    cluster_start();
    while (rounds < ROUNDS) {
        unsigned leader = settle(0);
        run_for(msec(40 + (unsigned)(rounds * 7) % 50));
        assert_true(time_now() < end);
        uint64_t count = nodes[leader].count + 1;
        nsec start = time_now();
        if (propose(leader, "sparse", 2000).outcome != RECORD_COMMITTED)
            continue; /* it leads no more: the machine has stalled */
        run_until(is_all_applied, &count);
        taken[rounds] = 0;
        for (unsigned j = 0; j < NODES; j++)
            if (nodes[j].applied_at - start > taken[rounds])
                taken[rounds] = nodes[j].applied_at - start;
        rounds++;
    }
    qsort(taken, ROUNDS, sizeof taken[0], compare_nsec);
    print_message("# proposed -> applied on all: median %.1f ms, p90 %.1f ms, max %.1f ms\n",
                  (double)taken[ROUNDS / 2] / 1e6, (double)taken[ROUNDS * 9 / 10] / 1e6,
                  (double)taken[ROUNDS - 1] / 1e6);
    assert_true(taken[ROUNDS / 2] < msec(heartbeat_ms) / 2);
}

#define record_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {record_test(test_founding_in_every_order),
                                       record_test(test_different_line),
                                       record_test(test_propose),
                                       record_test(test_messages),
                                       record_test(test_messages_held),
                                       record_test(test_step_aside),
                                       record_test(test_new_leader_commits),
                                       record_test(test_lose_one_then_all),
                                       record_test(test_outcomes_are_true),
                                       record_test(test_host_names),
                                       record_test(test_without_quorum),
                                       record_test(test_founder_crashes),
                                       record_test(test_founder_lost_its_directory),
                                       record_test(test_garbage),
                                       record_test(test_flood),
                                       record_test(test_unusable_directories),
                                       record_test(test_damaged_snapshot),
                                       record_test(test_single_member),
                                       record_test(test_failed_write_is_fatal),
                                       record_test(test_sparse_latency),
                                       record_test(test_snapshot)};
    if (getenv("TESTS") != NULL)
        cmocka_set_test_filter(getenv("TESTS"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
