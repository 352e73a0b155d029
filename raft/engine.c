#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/panic.h"
#include "raft/parts.h"
#include "raft/segments.h"

/* libraft 0.22 answers a failed write by retrying on the wrong timer (and crashes), and ignores a failed write of term
 * or vote. So its storage functions are wrapped: the first failure is fatal, and its own retries never come. */

#define SEGMENT_BYTES      (256 * 1024)
#define SNAPSHOT_THRESHOLD 512
#define SNAPSHOT_TRAILING  1024
#define CONNECT_RETRY_MS   100
#define NEVER_MS           (24u * 3600 * 1000)
#define INSTALL_TIMEOUT_MS 3000
#define BALLOT_LAG_MAX     (1 * NSEC_PER_SEC)
#define TERM_JUMP_MAX      (1u << 24) /* a term further ahead is nonsense, and would be written down */
#define SNAPSHOT_HEADER    8          /* length and CRC-32 */
#define ENTRY_HEADER       8          /* the same; see propose.c */

static struct record *record_of_io(struct raft_io *io) {
    struct engine *engine = (struct engine *)((char *)io - offsetof(struct engine, io));
    return (struct record *)((char *)engine - offsetof(struct record, engine));
}

/* ---- storage, watched ---- */

/* One write under way. */
struct write {
    union {
        struct raft_io_append append;
        struct raft_io_snapshot_put put;
    } request; /* first: the one given to raft_uv */
    union {
        struct raft_io_append *append;
        struct raft_io_snapshot_put *put;
    } original;
    union {
        raft_io_append_cb append;
        raft_io_snapshot_put_cb put;
    } done;
    struct record *record;
    struct write *next;
    nsec started_at;
};

static struct write *write_new(struct record *record) {
    struct write *write = calloc(1, sizeof *write);
    require(write != NULL);
    write->record = record;
    write->started_at = time_now();
    write->next = record->engine.writes;
    record->engine.writes = write;
    return write;
}

static void write_free(struct write *write) {
    struct write **at = &write->record->engine.writes;
    while (*at != write)
        at = &(*at)->next;
    *at = write->next;
    free(write);
}

static void write_judge(struct record *record, const char *what, int result) {
    if (result != 0 && !record->closing)
        record_fatal(record, "%s: could not write the %s: %s", record->directory, what, raft_strerror(result));
}

static void on_appended(struct raft_io_append *request, int result) {
    struct write *write = (struct write *)request;
    struct record *record = write->record;
    struct raft_io_append *original = write->original.append;
    raft_io_append_cb done = write->done.append;
    write_free(write);
    write_judge(record, "log", result);
    if (result == 0 || record->closing)
        done(original, result);
}

/* An error is not handed on: libraft would free the entries twice. */
static int watched_append(struct raft_io *io, struct raft_io_append *request, const struct raft_entry entries[],
                          unsigned n, raft_io_append_cb done) {
    struct record *record = record_of_io(io);
    struct write *write = write_new(record);
    write->original.append = request;
    write->done.append = done;
    int result = record->engine.uv.append(io, &write->request.append, entries, n, on_appended);
    if (result != 0)
        write_free(write);
    write_judge(record, "log", result);
    return 0;
}

static void on_snapshot_put(struct raft_io_snapshot_put *request, int result) {
    struct write *write = (struct write *)request;
    struct record *record = write->record;
    struct raft_io_snapshot_put *original = write->original.put;
    raft_io_snapshot_put_cb done = write->done.put;
    write_free(write);
    record->engine.snapshots_writing--;
    write_judge(record, "snapshot", result);
    if (result == 0 || record->closing)
        done(original, result);
}

static int watched_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *request,
                                const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb done) {
    struct record *record = record_of_io(io);
    const struct ballot *ballot = &record->engine.ballot;
    struct error error;
    /* One that the leader sent takes the place of the whole log, however long that was. */
    if (trailing == 0 &&
        ballot_write(&record->engine.ballot, record->directory, ballot->term, ballot->vote, 0, &error) != OK) {
        record_fatal(record, "%s", error.text);
        return RAFT_IOERR;
    }
    struct write *write = write_new(record);
    write->original.put = request;
    write->done.put = done;
    record->engine.snapshots_writing++;
    int result = record->engine.uv.snapshot_put(io, trailing, &write->request.put, snapshot, on_snapshot_put);
    if (result != 0) {
        write_free(write);
        record->engine.snapshots_writing--;
        write_judge(record, "snapshot", result);
    }
    return result;
}

/* Up to where the log is on disk for certain. */
static raft_index log_stored(const struct engine *engine) { return engine->raft.last_stored; }

static status ballot_cast(struct record *record, raft_term term, raft_id vote, raft_index last, struct error *error) {
    return ballot_write(&record->engine.ballot, record->directory, term, vote, last, error);
}

/* The first term written makes the log precious: from then on it must not be missing. */
static status log_begin(struct record *record, struct error *error) {
    if (record->identity.log_begun)
        return OK;
    record->identity.log_begun = true;
    return identity_write(&record->identity, record->directory, error);
}

static int watched_set_term(struct raft_io *io, raft_term term) {
    struct record *record = record_of_io(io);
    struct error error;
    if (record->failed)
        return RAFT_IOERR;
    if (ballot_cast(record, term, 0, log_stored(&record->engine), &error) != OK || log_begin(record, &error) != OK) {
        record_fatal(record, "%s", error.text);
        return RAFT_IOERR;
    }
    int result = record->engine.uv.set_term(io, term);
    write_judge(record, "term", result);
    return result;
}

static int watched_set_vote(struct raft_io *io, raft_id id) {
    struct record *record = record_of_io(io);
    struct error error;
    if (record->failed)
        return RAFT_IOERR;
    if (ballot_cast(record, record->engine.ballot.term, id, log_stored(&record->engine), &error) != OK) {
        record_fatal(record, "%s", error.text);
        return RAFT_IOERR;
    }
    int result = record->engine.uv.set_vote(io, id);
    write_judge(record, "vote", result);
    return result;
}

static int watched_truncate(struct raft_io *io, raft_index index) {
    struct record *record = record_of_io(io);
    const struct ballot *ballot = &record->engine.ballot;
    struct error error;
    if (index <= ballot->last_index && ballot_cast(record, ballot->term, ballot->vote, index - 1, &error) != OK) {
        record_fatal(record, "%s", error.text);
        return RAFT_IOERR;
    }
    int result = record->engine.uv.truncate(io, index);
    write_judge(record, "log", result);
    return result;
}

/* libraft's own files may be one step behind: then they are brought up to what we had decided. */
static int ballot_restore(struct record *record, raft_term *term, raft_id *vote) {
    const struct ballot *ballot = &record->engine.ballot;
    struct raft_io *io = &record->engine.io;
    int result = 0;
    if (*term != ballot->term)
        result = record->engine.uv.set_term(io, ballot->term);
    if (result == 0 && (*term != ballot->term || *vote != ballot->vote) && ballot->vote != 0)
        result = record->engine.uv.set_vote(io, ballot->vote);
    *term = ballot->term;
    *vote = ballot->vote;
    return result;
}

static int load_judge(struct record *record, raft_term *term, raft_id *vote, raft_index last) {
    struct engine *engine = &record->engine;
    if (!record->identity.log_begun)
        return 0;
    if (engine->damage.text[0] != '\0')
        return RAFT_CORRUPT;
    if (engine->ballot.serial == 0)
        error_set(&engine->damage, "%s/ballot is missing", record->directory);
    else if (!ballot_agrees(&engine->ballot, *term, *vote))
        error_set(&engine->damage, "%s: log/metadata1, log/metadata2 and ballot contradict each other",
                  record->directory);
    else if (last < engine->ballot.last_index)
        error_set(&engine->damage, "%s/log ends at entry %llu, but had reached %llu", record->directory, last,
                  (unsigned long long)engine->ballot.last_index);
    else
        return ballot_restore(record, term, vote);
    return RAFT_CORRUPT;
}

static void loaded_free(struct raft_snapshot *snapshot, struct raft_entry *entries, size_t count) {
    void *batch = NULL; /* holds several entries */
    for (size_t i = 0; i < count; i++)
        if (entries[i].batch != batch) {
            batch = entries[i].batch;
            raft_free(batch);
        }
    raft_free(entries);
    if (snapshot == NULL)
        return;
    raft_configuration_close(&snapshot->configuration);
    raft_free(snapshot->bufs[0].base);
    raft_free(snapshot->bufs);
    raft_free(snapshot);
}

static int watched_load(struct raft_io *io, raft_term *term, raft_id *vote, struct raft_snapshot **snapshot,
                        raft_index *start_index, struct raft_entry *entries[], size_t *entries_count) {
    struct record *record = record_of_io(io);
    int result = record->engine.uv.load(io, term, vote, snapshot, start_index, entries, entries_count);
    if (result != 0)
        return result;
    raft_index last = *start_index + *entries_count - 1;
    if (*snapshot != NULL && (*snapshot)->index > last)
        last = (*snapshot)->index;
    result = load_judge(record, term, vote, last);
    if (result != 0)
        loaded_free(*snapshot, *entries, *entries_count);
    return result;
}

/* A message that can't be sent is a lost one. As an error it would end the step half done, and an entry already
 * appended would be reported as refused. */
static int watched_send(struct raft_io *io, struct raft_io_send *request, const struct raft_message *message,
                        raft_io_send_cb done) {
    struct record *record = record_of_io(io);
    if (!record->failed && heartbeat_send(record, message)) {
        done(request, 0);
        return 0;
    }
    int result = record->failed ? RAFT_NOCONNECTION : record->engine.uv.send(io, request, message, done);
    if (result != 0)
        done(request, result);
    return 0;
}

/* libraft takes an older snapshot, and the log since then, in the place of one that it can't read: sound, but whose
 * disk changes what was written has to say so. */
static void snapshot_skipped(struct record *record, const char *message) {
    static const char skipped[] = "skip invalid snapshot ";
    if (record->engine.starting && strncmp(message, skipped, sizeof skipped - 1) == 0)
        error_set(&record->engine.damage, "%s/log/%s is damaged", record->directory, message + sizeof skipped - 1);
}

/* Errors that libraft only traces, some of them on a thread of the pool. */
static void on_trace(struct raft_tracer *tracer, int type, const void *data) {
    static const char *const bad[] = {"retry failed write", "truncate segment ", "unlink segment ",
                                      "sync data directory"};
    const struct raft_tracer_info *info = data;
    struct record *record = tracer->impl;
    if (type != RAFT_TRACER_DIAGNOSTIC)
        return;
    snapshot_skipped(record, info->diagnostic.message);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (strncmp(info->diagnostic.message, bad[i], strlen(bad[i])) == 0 &&
            !atomic_exchange(&record->disk_failed, true)) {
            snprintf(record->disk_error, sizeof record->disk_error, "%s", info->diagnostic.message);
            uv_async_send(&record->async);
        }
}

/* ---- messages, filtered ---- */

static raft_term message_term(const struct raft_message *message) {
    switch (message->type) {
    case RAFT_APPEND_ENTRIES:
        return message->append_entries.term;
    case RAFT_APPEND_ENTRIES_RESULT:
        return message->append_entries_result.term;
    case RAFT_REQUEST_VOTE:
        return message->request_vote.term;
    case RAFT_REQUEST_VOTE_RESULT:
        return message->request_vote_result.term;
    case RAFT_INSTALL_SNAPSHOT:
        return message->install_snapshot.term;
    case RAFT_TIMEOUT_NOW:
        return message->timeout_now.term;
    }
    return 0;
}

static void message_discard(struct raft_message *message) {
    if (message->type == RAFT_APPEND_ENTRIES && message->append_entries.n_entries > 0) {
        raft_free(message->append_entries.entries[0].batch);
        raft_free(message->append_entries.entries);
    } else if (message->type == RAFT_INSTALL_SNAPSHOT) {
        raft_free(message->install_snapshot.data.base);
        raft_configuration_close(&message->install_snapshot.conf);
    }
}

static bool from_leader(const struct raft_message *message) {
    return message->type == RAFT_APPEND_ENTRIES || message->type == RAFT_INSTALL_SNAPSHOT;
}

/* What libraft would take badly: it asserts that no other leads in its own term, and loses its way when a snapshot
 * arrives while it writes one. */
static const char *message_fault(const struct record *record, const struct raft_message *message) {
    const struct raft *raft = &record->engine.raft;
    raft_term term = message_term(message);
    if (record_silent(record))
        return "";
    if (term > raft->current_term && term - raft->current_term > TERM_JUMP_MAX)
        return "absurd term";
    if (from_leader(message) && raft->state == RAFT_LEADER && term == raft->current_term)
        return "a second leader in the same term";
    if (message->type == RAFT_INSTALL_SNAPSHOT && record->engine.snapshots_writing > 0)
        return "";
    return NULL;
}

/* Up to where its log is ours. */
static void log_note(struct peer *peer, const struct raft_append_entries_result *result) {
    if (peer->has_log_of != result->term)
        peer->has_log = 0;
    peer->has_log_of = result->term;
    if (result->rejected == 0 && result->last_log_index > peer->has_log)
        peer->has_log = result->last_log_index;
}

static void contact_note(struct record *record, const struct raft_message *message) {
    struct engine *engine = &record->engine;
    struct peer *peer = peer_named(record, message->server_address);
    if (message_term(message) != engine->raft.current_term)
        return;
    if (message->type == RAFT_APPEND_ENTRIES_RESULT && engine->raft.state == RAFT_LEADER && peer != NULL) {
        peer->answered_at = time_now();
        log_note(peer, &message->append_entries_result);
    } else if (from_leader(message) && engine->raft.state == RAFT_FOLLOWER) {
        engine->quorum_heard_at = time_now();
        record_heard_leader(record, engine->quorum_heard_at);
    }
}

void engine_receive(struct record *record, struct raft_message *message) {
    const char *fault = message_fault(record, message);
    if (fault == NULL) {
        record->engine.receive(&record->engine.io, message);
        contact_note(record, message);
        return;
    }
    if (fault[0] != '\0')
        record_notice(record, "raft message from %s dropped: %s", message->server_address, fault);
    message_discard(message);
}

static void on_receive(struct raft_io *io, struct raft_message *message) { engine_receive(record_of_io(io), message); }

static void on_tick(struct raft_io *io) { (void)io; }

/* It ticks with us: see engine_tick. */
static int watched_start(struct raft_io *io, unsigned ms, raft_io_tick_cb tick, raft_io_recv_cb receive) {
    struct engine *engine = &record_of_io(io)->engine;
    engine->tick = tick;
    engine->receive = receive;
    (void)ms;
    return engine->uv.start(io, NEVER_MS, on_tick, on_receive);
}

static void storage_watch(struct engine *engine) {
    engine->uv = engine->io;
    engine->io.append = watched_append;
    engine->io.truncate = watched_truncate;
    engine->io.snapshot_put = watched_snapshot_put;
    engine->io.set_term = watched_set_term;
    engine->io.set_vote = watched_set_vote;
    engine->io.load = watched_load;
    engine->io.send = watched_send;
    engine->io.start = watched_start;
}

/* ---- the applied commands ---- */

/* A length, its checksum and that many bytes, within a buffer that may be longer. */
static bool packed_get(const struct raft_buffer *buffer, const uint8_t **ret_bytes, size_t *ret_length) {
    const uint8_t *bytes = buffer->base;
    if (buffer->len < ENTRY_HEADER || get_u32(bytes) > buffer->len - ENTRY_HEADER)
        return false;
    *ret_length = get_u32(bytes);
    *ret_bytes = bytes + ENTRY_HEADER;
    return crc32_update(0, *ret_bytes, *ret_length) == get_u32(bytes + 4);
}

static void snapshot_restore(struct record *record, const struct raft_buffer *buffer) {
    struct error error = {"damaged"};
    const uint8_t *bytes;
    size_t length;
    record->engine.commands_applied = 1;
    record->feed.restored = true;
    if (record_silent(record))
        return;
    if (!packed_get(buffer, &bytes, &length) || record->callbacks.restore(record->user, bytes, length, &error) != OK)
        record_fatal(record, "%s: unusable snapshot: %s", record->directory, error.text);
}

/* A snapshot met while opening: the caller is told on the loop. */
static void restored_deliver(struct record *record) {
    struct engine *engine = &record->engine;
    struct raft_buffer buffer = {engine->restored, engine->restored_length};
    if (engine->restored == NULL)
        return;
    engine->restored = NULL;
    snapshot_restore(record, &buffer);
    raft_free(buffer.base);
}

static int on_restore(struct raft_fsm *fsm, struct raft_buffer *buffer) {
    struct record *record = fsm->data;
    struct engine *engine = &record->engine;
    const uint8_t *bytes;
    size_t length;
    if (engine->starting && !packed_get(buffer, &bytes, &length)) {
        error_set(&engine->damage, "%s: the snapshot in log has a wrong checksum", record->directory);
        return RAFT_CORRUPT;
    }
    raft_free(engine->restored);
    engine->restored = buffer->base;
    engine->restored_length = buffer->len;
    if (engine->starting)
        record_defer(record);
    else
        restored_deliver(record);
    return 0;
}

static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buffer, void **result) {
    struct record *record = fsm->data;
    const uint8_t *command;
    size_t length;
    *result = NULL;
    restored_deliver(record);
    record->engine.commands_applied++;
    if (record_silent(record))
        return 0;
    raft_index index = raft_last_applied(&record->engine.raft) + 1;
    feed_settle(record);
    if (!packed_get(buffer, &command, &length)) {
        record_fatal(record, "%s: entry %llu of the log is damaged", record->directory, index);
        return 0;
    }
    record->callbacks.apply(record->user, index, command, length);
    feed_applied(record, index, command, length);
    record_defer(record);
    return 0;
}

static int on_snapshot(struct raft_fsm *fsm, struct raft_buffer **ret_buffers, unsigned *ret_count) {
    struct record *record = fsm->data;
    struct raft_buffer *buffer = raft_malloc(sizeof *buffer);
    uint8_t *bytes = raft_calloc(1, SNAPSHOT_HEADER + SNAPSHOT_BYTES_MAX);
    if (buffer == NULL || bytes == NULL || record_silent(record)) {
        raft_free(buffer);
        raft_free(bytes);
        return RAFT_NOMEM;
    }
    restored_deliver(record);
    size_t length = record->callbacks.snapshot(record->user, bytes + SNAPSHOT_HEADER, SNAPSHOT_BYTES_MAX);
    require(length <= SNAPSHOT_BYTES_MAX);
    put_u32(bytes, (uint32_t)length);
    put_u32(bytes + 4, crc32_update(0, bytes + SNAPSHOT_HEADER, length));
    *buffer = (struct raft_buffer){bytes, (SNAPSHOT_HEADER + length + 7) / 8 * 8};
    *ret_buffers = buffer;
    *ret_count = 1;
    return 0;
}

/* ---- opening ---- */

/* Removes what a bootstrap that did not end has left: nothing in it counts before log_begun is written. */
static status log_clear(const char *path, struct error *error) {
    char name[PATH_MAX_LENGTH + 300];
    DIR *directory = opendir(path);
    if (directory == NULL)
        return error_set(error, "could not open %s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(name);
    }
    closedir(directory);
    return OK;
}

static status log_prepare(struct record *record, const char *path, struct error *error) {
    char first[PATH_MAX_LENGTH + 32], second[PATH_MAX_LENGTH + 32];
    snprintf(first, sizeof first, "%s/metadata1", path);
    snprintf(second, sizeof second, "%s/metadata2", path);
    if (record->identity.log_begun && access(first, F_OK) != 0 && access(second, F_OK) != 0)
        return error_set(&record->engine.damage, "the log in %s is missing, and with it our votes", path);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return error_set(error, "could not create %s: %s", path, strerror(errno));
    if (!record->identity.log_begun)
        return log_clear(path, error);
    if (ballot_read(&record->engine.ballot, record->directory, &record->engine.damage) != OK)
        return FAILED;
    return segments_check(path, SEGMENT_BYTES, &record->engine.damage);
}

static status engine_bootstrap(struct record *record, struct error *error) {
    struct raft_configuration configuration;
    const char *name = record->peers[record->self].config.name;
    raft_configuration_init(&configuration);
    int result = raft_configuration_add(&configuration, record->identity.raft_id, name, RAFT_VOTER);
    if (result == 0)
        result = raft_bootstrap(&record->engine.raft, &configuration);
    raft_configuration_close(&configuration);
    if (result != 0)
        return error_set(error, "could not begin a log in %s/log: %s", record->directory, raft_strerror(result));
    if (ballot_cast(record, 1, 0, 1, error) != OK) /* as raft_bootstrap left it */
        return FAILED;
    return log_begin(record, error);
}

static status engine_init(struct record *record, const char *path, struct error *error) {
    struct engine *engine = &record->engine;
    engine->fsm = (struct raft_fsm){
        .version = 1, .data = record, .apply = on_apply, .snapshot = on_snapshot, .restore = on_restore};
    engine->tracer = (struct raft_tracer){.impl = record, .version = 2, .emit = on_trace};
    transport_init(record);
    int result = raft_uv_init(&engine->io, record->loop, path, &engine->transport);
    if (result != 0)
        return error_set(error, "%s: %s", path, raft_strerror(result));
    raft_uv_set_tracer(&engine->io, &engine->tracer);
    raft_uv_set_auto_recovery(&engine->io, false);
    raft_uv_set_segment_size(&engine->io, SEGMENT_BYTES);
    raft_uv_set_disk_retry(&engine->io, NEVER_MS);
    raft_uv_set_connect_retry_delay(&engine->io, CONNECT_RETRY_MS);
    storage_watch(engine);
    result = raft_init(&engine->raft, &engine->io, &engine->fsm, record->identity.raft_id,
                       record->peers[record->self].config.name);
    if (result != 0) {
        error_set(error, "%s: %s", path, raft_errmsg(&engine->raft));
        raft_uv_close(&engine->io);
        return FAILED;
    }
    engine->inited = true;
    return OK;
}

static void engine_settings(struct record *record) {
    struct raft *raft = &record->engine.raft;
    raft_set_election_timeout(raft, record->election_ms);
    raft_set_heartbeat_timeout(raft, record->heartbeat_ms);
    raft_set_install_snapshot_timeout(raft, INSTALL_TIMEOUT_MS);
    raft_set_pre_vote(raft, true);
    raft_set_capacity_threshold(raft, 0);
    raft_set_snapshot_threshold(raft, SNAPSHOT_THRESHOLD);
    raft_set_snapshot_trailing(raft, SNAPSHOT_TRAILING);
}

/* Memory and disk space come back; what is on the disk does not. */
static bool read_says_damaged(int result) {
    return result != RAFT_NOMEM && result != RAFT_NOSPACE && result != RAFT_TOOMANY;
}

/* When libraft ticks is ours to say. Told after its start that a heartbeat is due after 0 ms, it sends one with every
 * tick and never holds back new entries because a follower was slow to answer the last one. */
static status engine_start(struct record *record, const char *path, struct error *error) {
    struct engine *engine = &record->engine;
    engine->starting = true;
    int result = raft_start(&engine->raft);
    engine->starting = false;
    if (result != 0 && engine->damage.text[0] == '\0' && read_says_damaged(result))
        error_set(&engine->damage, "could not read the log in %s: %s", path, raft_errmsg(&engine->raft));
    if (result != 0)
        return error_set(error, "could not start with the log in %s: %s", path, raft_errmsg(&engine->raft));
    raft_set_heartbeat_timeout(&engine->raft, 0);
    engine->started = true;
    engine->role = RECORD_FOUNDING;
    return OK;
}

status engine_open(struct record *record, struct error *error) {
    char path[PATH_MAX_LENGTH + 8];
    snprintf(path, sizeof path, "%s/log", record->directory);
    bool bootstrap = record->identity.founding && !record->identity.log_begun;
    if (log_prepare(record, path, error) != OK || engine_init(record, path, error) != OK)
        return FAILED;
    engine_settings(record);
    if (bootstrap && engine_bootstrap(record, error) != OK)
        return FAILED;
    return engine_start(record, path, error);
}

static void on_closed(struct raft *raft) {
    struct engine *engine = (struct engine *)((char *)raft - offsetof(struct engine, raft));
    struct record *record = record_of_io(&engine->io);
    raft_uv_close(&engine->io);
    raft_free(engine->restored);
    record->closed_engine = true;
    record_closed_part(record);
}

void engine_close(struct record *record) {
    record->engine.started = false;
    if (record->engine.inited)
        raft_close(&record->engine.raft, on_closed);
    else
        record->closed_engine = true;
}

/* ---- who leads ---- */

const struct raft_server *engine_server(const struct record *record, const char *name) {
    const struct raft_configuration *configuration = &record->engine.raft.configuration;
    for (unsigned i = 0; record->engine.started && i < configuration->n; i++)
        if (strcmp(configuration->servers[i].address, name) == 0)
            return &configuration->servers[i];
    return NULL;
}

/* An observer knows only the voters of its file. */
static unsigned configured_voters(const struct record *record) {
    unsigned voters = 0;
    for (unsigned i = 0; i < record->peers_count; i++)
        voters += !record->peers[i].config.observer;
    return voters;
}

unsigned engine_voters(const struct record *record) {
    const struct raft_configuration *configuration = &record->engine.raft.configuration;
    unsigned voters = 0;
    if (record_observes(record))
        return configured_voters(record);
    for (unsigned i = 0; record->engine.started && i < configuration->n; i++)
        voters += configuration->servers[i].role == RAFT_VOTER;
    return voters;
}

uint64_t engine_applied(const struct record *record) {
    if (record_observes(record))
        return record->feed.index;
    return record->engine.started ? record->engine.raft.last_applied : 0;
}

bool engine_leads(const struct record *record) {
    const struct engine *engine = &record->engine;
    return engine->started && engine->raft.state == RAFT_LEADER && engine->ready_term == engine->raft.current_term;
}

struct barrier {
    struct raft_barrier request; /* first */
    struct record *record;
    raft_term term;
};

static void on_barrier(struct raft_barrier *request, int result) {
    struct barrier *barrier = (struct barrier *)request;
    if (result == 0)
        barrier->record->engine.ready_term = barrier->term;
    free(barrier);
}

static void barrier_issue(struct record *record) {
    struct engine *engine = &record->engine;
    struct barrier *barrier = calloc(1, sizeof *barrier);
    if (barrier == NULL)
        return;
    barrier->record = record;
    barrier->term = engine->raft.current_term;
    if (raft_barrier(&engine->raft, &barrier->request, on_barrier) == 0)
        engine->barrier_term = barrier->term;
    else
        free(barrier);
}

static enum record_role role_now(const struct record *record) {
    switch (record->engine.raft.state) {
    case RAFT_FOLLOWER:
        return RECORD_FOLLOWER;
    case RAFT_LEADER:
        return engine_leads(record) ? RECORD_LEADER : RECORD_CANDIDATE;
    default:
        return RECORD_CANDIDATE;
    }
}

static void role_observe(struct record *record) {
    struct engine *engine = &record->engine;
    enum record_role role = role_now(record);
    raft_term term = engine->raft.current_term;
    raft_id id = 0;
    const char *name = NULL;
    raft_leader(&engine->raft, &id, &name);
    if (name == NULL || role == RECORD_CANDIDATE)
        id = 0;
    if (role == engine->role && term == engine->term && id == engine->leader_id)
        return;
    engine->role = role;
    engine->term = term;
    engine->leader_id = id;
    engine->leader = id == 0 ? NULL : peer_named(record, name);
    record_defer(record); /* proposals may wait for it */
    record_tick_soon(record);
    record->callbacks.role(record->user, role, term, engine->leader != NULL ? engine->leader->config.name : NULL);
    feed_role_changed(record);
}

/* Followers learn of a commit with the next message; it is sent now rather than with the next tick. */
static void commits_tell(struct engine *engine) {
    if (engine->raft.state != RAFT_LEADER || engine->raft.commit_index <= engine->nudged)
        return;
    engine->nudged = engine->raft.commit_index;
    engine->tick(&engine->io);
}

void engine_poll(struct record *record) {
    struct engine *engine = &record->engine;
    if (!engine->started || record_silent(record))
        return;
    restored_deliver(record);
    feed_settle(record);
    if (engine->raft.state == RAFT_UNAVAILABLE) {
        record_fatal(record, "libraft gave up: %s", raft_errmsg(&engine->raft));
        return;
    }
    if (engine->raft.state == RAFT_LEADER && engine->barrier_term != engine->raft.current_term)
        barrier_issue(record);
    role_observe(record);
    if (!record_silent(record))
        commits_tell(engine);
}

/* ---- watchdog ---- */

static void disk_watch(struct record *record, nsec now) {
    for (const struct write *write = record->engine.writes; write != NULL; write = write->next)
        if (now > write->started_at + DISK_STALL_MAX) {
            record_fatal(record, "%s: a write has not ended within %llu s: disk full or hung", record->directory,
                         DISK_STALL_MAX / NSEC_PER_SEC);
            return;
        }
}

static void progress_watch(struct record *record, nsec now) {
    struct engine *engine = &record->engine;
    if (engine->raft.state != RAFT_LEADER || engine->progress_index != engine->raft.commit_index ||
        !proposals_submitted(record)) {
        engine->progress_index = engine->raft.commit_index;
        engine->progress_at = now;
        engine->stepped_aside = false;
    } else if (now > engine->progress_at + DISK_STALL_MAX) {
        record_fatal(record, "leading, but nothing has been committed for %llu s", DISK_STALL_MAX / NSEC_PER_SEC);
    } else if (!engine->stepped_aside && now > engine->progress_at + msec(2 * record->election_ms)) {
        engine->stepped_aside = true;
        record_notice(record, "leading, but nothing gets committed: stepping aside");
        record_step_aside(record, NULL);
    }
}

/* Up to where the log reaches is written down once it has been so for a while, and the disk is quick to answer. */
static void ballot_keep_up(struct record *record, nsec now) {
    struct engine *engine = &record->engine;
    const struct ballot *ballot = &engine->ballot;
    struct error error;
    if (log_stored(engine) <= ballot->last_index || !record->identity.log_begun)
        engine->ballot_behind_at = 0;
    else if (engine->ballot_behind_at == 0)
        engine->ballot_behind_at = now;
    else if (now > engine->ballot_behind_at + BALLOT_LAG_MAX && engine->writes == NULL &&
             ballot_cast(record, ballot->term, ballot->vote, log_stored(engine), &error) != OK)
        record_fatal(record, "%s", error.text);
}

void engine_tick(struct record *record, nsec now) {
    if (!record->engine.started || record_silent(record))
        return;
    record->engine.tick(&record->engine.io);
    disk_watch(record, now);
    ballot_keep_up(record, now);
    if (!record_silent(record))
        progress_watch(record, now);
}

/* A leader ticks to send heartbeats. A follower has nothing to do before it begins to miss its leader: that saves half
 * of what an idle member costs. */
unsigned engine_tick_after(const struct record *record, nsec now) {
    const struct engine *engine = &record->engine;
    nsec quiet_until = engine->quorum_heard_at + msec(record->election_ms - record->tick_ms);
    if (engine_leads(record))
        return record->heartbeat_ms;
    if (!engine->started || engine->raft.state != RAFT_FOLLOWER || now >= quiet_until)
        return record->tick_ms;
    unsigned after = (unsigned)((quiet_until - now) / NSEC_PER_MSEC);
    return after > record->tick_ms ? after : record->tick_ms;
}

/* ---- voters and leadership ---- */

static void on_changed(struct raft_change *request, int result) {
    struct engine *engine = (struct engine *)((char *)request - offsetof(struct engine, change));
    struct record *record = record_of_io(&engine->io);
    engine->changing = false;
    if (result != 0)
        record_notice(record, "change of the voters failed: %s", raft_strerror(result));
}

status engine_remove(struct record *record, uint64_t raft_id, struct error *error) {
    struct engine *engine = &record->engine;
    int result = raft_remove(&engine->raft, &engine->change, raft_id, on_changed);
    if (result != 0)
        return error_set(error, "%s", raft_strerror(result));
    engine->changing = true;
    return OK;
}

bool engine_settled(const struct record *record) {
    return record->engine.started && record->engine.raft.configuration_uncommitted_index == 0;
}

status engine_add_voter(struct record *record, struct peer *peer, struct error *error) {
    struct engine *engine = &record->engine;
    int result = engine_server(record, peer->config.name) == NULL
                     ? raft_add(&engine->raft, &engine->change, peer->raft_id, peer->config.name, on_changed)
                     : raft_assign(&engine->raft, &engine->change, peer->raft_id, RAFT_VOTER, on_changed);
    if (result != 0)
        return error_set(error, "%s", raft_strerror(result));
    engine->changing = true;
    return OK;
}

static void on_transferred(struct raft_transfer *request) {
    struct engine *engine = (struct engine *)((char *)request - offsetof(struct engine, transfer));
    engine->transferring = false;
}

void engine_step_aside(struct record *record, const char *name) {
    struct engine *engine = &record->engine;
    const struct raft_server *server = name[0] != '\0' ? engine_server(record, name) : NULL;
    if (!engine->started || engine->raft.state != RAFT_LEADER || engine->transferring ||
        (name[0] != '\0' && server == NULL))
        return;
    engine->transferring =
        raft_transfer(&engine->raft, &engine->transfer, server != NULL ? server->id : 0, on_transferred) == 0;
}
