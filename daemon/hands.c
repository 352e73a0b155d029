/* What comes back from the record, the hands and the faces, as events in the inbox. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/panic.h"
#include "daemon/daemon.h"

/* ---- the record ---- */

static void on_apply(void *user, uint64_t index, const uint8_t *bytes, size_t length) {
    struct daemon *daemon = user;
    struct inbox_item *item = inbox_add(&daemon->inbox, EVENT_APPLIED);
    struct error error;
    if (command_decode(&item->command, bytes, length, &error) != OK) {
        /* Every member of this version stops here, and one that understands it goes on. */
        log_error("record %llu: %s", (unsigned long long)index, error.text);
        daemon_end(daemon, true, 1, "it cannot read the record");
        item->command = (Command)Command_init_zero;
    }
    item->event.applied.index = index;
    item->event.applied.command = &item->command;
    struct error why;
    (void)record_apply(&daemon->replica.topology, &daemon->replica.history, index, &item->command, &why);
}

static size_t on_snapshot(void *user, uint8_t *buffer, size_t size) {
    struct daemon *daemon = user;
    daemon->replica.version = SNAPSHOT_VERSION;
    return snapshot_encode(&daemon->replica, buffer, size);
}

static status on_restore(void *user, const uint8_t *bytes, size_t length, struct error *error) {
    struct daemon *daemon = user;
    struct inbox_item *item = inbox_add(&daemon->inbox, EVENT_RESTORED);
    if (snapshot_decode(&item->snapshot, bytes, length, error) != OK) {
        item->event.kind = EVENT_TICK;
        return FAILED;
    }
    daemon->replica = item->snapshot;
    item->event.restored.snapshot = &item->snapshot;
    return OK;
}

static void on_role(void *user, enum record_role role, uint64_t term, const char *leader) {
    struct daemon *daemon = user;
    struct inbox_item *item = inbox_add(&daemon->inbox, EVENT_ROLE);
    item->event.role.leader = role == RECORD_LEADER;
    item->event.role.term = term;
    if (role == RECORD_LEADER)
        log_info("leads the record in term %llu", (unsigned long long)term);
    else if (leader != NULL)
        log_info("follows %s in term %llu", leader, (unsigned long long)term);
}

static void found_proposed(void *user, enum record_outcome outcome, uint64_t index, const char *why);

static void propose_founding(struct daemon *daemon) {
    Command *command = &(Command){.version = COMMAND_VERSION, .wall_ms = time_wall_ms()};
    const struct config *config = daemon->config;
    command->which_body = Command_found_tag;
    Found *found = &command->body.found;
    found->cluster_id = daemon->cluster_id;
    snprintf(found->cluster_name, sizeof found->cluster_name, "%s", config->cluster);
    found->settings = (Settings){.durability = (Durability)config->durability,
                                 .lease_ms = config->lease_ms,
                                 .max_loss_bytes = config->max_loss_bytes};
    found->members_count = (pb_size_t)config->members_count;
    for (unsigned i = 0; i < config->members_count; i++) {
        const struct config_member *from = &config->members[i];
        Member *member = &found->members[i];
        member->id = i + 1;
        snprintf(member->name, sizeof member->name, "%s", from->name);
        member->raft_id = daemon->raft_ids[i];
        snprintf(member->postgres_host, sizeof member->postgres_host, "%s", from->postgres_host);
        member->postgres_port = from->postgres_port;
        member->witness = !config_member_has_data(from);
        member->observer = from->observer;
        member->priority = from->observer ? 0 : from->priority;
    }
    snprintf(command->reason, sizeof command->reason, "cluster %s was founded with %u members", config->cluster,
             config->members_count);
    uint8_t bytes[COMMAND_BYTES_MAX];
    size_t length = command_encode(command, bytes, sizeof bytes);
    record_propose(daemon->record, bytes, length, 5000, found_proposed, daemon);
}

static void found_again(uv_timer_t *timer) { propose_founding(timer->data); }

static void found_proposed(void *user, enum record_outcome outcome, uint64_t index, const char *why) {
    struct daemon *daemon = user;
    (void)index;
    if (outcome == RECORD_COMMITTED || daemon->replica.topology.cluster_id != 0)
        return;
    log_warning("the founding command was not committed yet: %s", why != NULL ? why : "unknown");
    uv_timer_start(&daemon->found_again, found_again, 200, 0);
}

static void on_found(void *user, uint64_t cluster_id, const uint64_t *raft_ids) {
    struct daemon *daemon = user;
    daemon->cluster_id = cluster_id;
    memcpy(daemon->raft_ids, raft_ids, sizeof *raft_ids * daemon->config->members_count);
    propose_founding(daemon);
}

static void on_readmitted(void *user, enum record_outcome outcome, uint64_t index, const char *why) {
    struct daemon *daemon = user;
    (void)outcome, (void)index, (void)why; /* the record tells; if it was not committed we are asked again */
    daemon->readmitting = false;
}

static bool on_readmit(void *user, const char *name, uint64_t raft_id) {
    struct daemon *daemon = user;
    const Member *member = topology_member_named(&daemon->replica.topology, name);
    if (member == NULL || member->raft_id == raft_id || daemon->readmitting)
        return member != NULL && member->raft_id == raft_id;
    Command *command = &(Command){.version = COMMAND_VERSION,
                                  .wall_ms = time_wall_ms(),
                                  .epoch = daemon->replica.topology.epoch,
                                  .which_body = Command_readmit_tag};
    command->body.readmit = (Readmit){.member = member->id, .old_raft_id = member->raft_id, .raft_id = raft_id};
    snprintf(command->reason, sizeof command->reason,
             member->raft_id == 0 ? "%s comes as an observer"
                                  : "%s comes back with an empty record, its former one being lost",
             name);
    uint8_t bytes[COMMAND_BYTES_MAX];
    size_t length = command_encode(command, bytes, sizeof bytes);
    daemon->readmitting = true;
    record_propose(daemon->record, bytes, length, 2000, on_readmitted, daemon);
    return false;
}

static void on_message(void *user, const char *from, const uint8_t *bytes, size_t length) {
    struct daemon *daemon = user;
    struct inbox_item *item = inbox_add(&daemon->inbox, EVENT_MESSAGE);
    struct error error;
    snprintf(item->name, sizeof item->name, "%s", from);
    item->event.message.from = item->name;
    item->event.message.message = &item->message;
    if (message_decode(&item->message, bytes, length, &error) != OK) {
        log_warning("from %s: %s", from, error.text);
        item->event.kind = EVENT_TICK;
    }
}

static void on_peer(void *user, const char *name, bool up, const char *why) {
    (void)user;
    if (up)
        log_info("connected to %s", name);
    else
        log_warning("not connected to %s: %s", name, why != NULL ? why : "connection lost");
}

static void on_notice(void *user, const char *text) {
    (void)user;
    log_notice("%s", text);
}

/* The record must not be touched any more, and nothing may be told: the guard and the lease do the rest. */
static void on_fatal(void *user, const char *why) {
    (void)user;
    log_error("ends at once: %s", why);
    _exit(1);
}

const struct record_callbacks daemon_record_callbacks = {
    .apply = on_apply,
    .snapshot = on_snapshot,
    .restore = on_restore,
    .role = on_role,
    .found = on_found,
    .readmit = on_readmit,
    .message = on_message,
    .peer = on_peer,
    .notice = on_notice,
    .fatal = on_fatal,
};

/* ---- PostgreSQL ---- */

static void on_facts(void *user, const struct facts *facts) {
    struct daemon *daemon = user;
    struct inbox_item *item = inbox_add(&daemon->inbox, EVENT_FACTS);
    if (facts->server == SERVER_STANDBY || facts->server == SERVER_PRIMARY) {
        daemon->response_known = true;
        daemon->response_ms = facts->response_ms;
    }
    item->facts = *facts;
    item->event.facts = &item->facts;
}

static void on_done(void *user, const struct operation_result *result) {
    struct inbox_item *item = inbox_add(&((struct daemon *)user)->inbox, EVENT_RESULT);
    item->result = *result;
    item->event.result = &item->result;
}

static void on_progress(void *user, uint64_t serial, const char *text) {
    core_progress(&((struct daemon *)user)->core, serial, text);
}

const struct pgctl_callbacks daemon_pgctl_callbacks = {
    .facts = on_facts, .done = on_done, .progress = on_progress, .notice = on_notice};

/* ---- poolers ---- */

void hands_paused(void *user) {
    struct daemon *daemon = user;
    struct inbox_item *item = inbox_add(&daemon->inbox, EVENT_RESULT);
    item->result = (struct operation_result){.serial = daemon->pause_serial, .kind = OPERATE_PAUSE};
    item->event.result = &item->result;
}

static void on_written(void *user, const char *name) {
    struct daemon *daemon = user;
    if (daemon->poolers != NULL && strcmp(name, "publish.pgbouncer_file") == 0)
        poolers_reload(daemon->poolers);
}

/* ---- operators ---- */

/* The core answers, now or later. */
static void pass_on(struct daemon *daemon, enum request_kind kind, const char *to, face_answer_callback *answer,
                    void *context) {
    for (unsigned i = 0; i < ANSWERS_MAX; i++) {
        if (daemon->answers[i].serial != 0)
            continue;
        daemon->answers[i].serial = ++daemon->next_serial;
        daemon->answers[i].answer = answer;
        daemon->answers[i].context = context;
        struct inbox_item *item = inbox_add(&daemon->inbox, EVENT_REQUEST);
        item->event.request.kind = kind;
        item->event.request.serial = daemon->next_serial;
        snprintf(item->event.request.to, sizeof item->event.request.to, "%s", to);
        return;
    }
    answer(context, &(struct face_answer){.http_status = 503, .text = "too many requests wait already"});
}

/* A good record may be the one that the others need: it is never thrown away. */
static void on_rejoin(struct daemon *daemon, face_answer_callback *answer, void *context) {
    struct record_status record;
    record_status(daemon->record, &record);
    daemon->rejoin_asked |= record.lost;
    if (record.lost)
        answer(context, &(struct face_answer){.http_status = 202});
    else if (daemon->core.facts.damaged[0] != '\0')
        pass_on(daemon, REQUEST_KIND_MEND, "", answer, context);
    else
        answer(context, &(struct face_answer){.http_status = 409,
                                              .text = "the record of this member is not lost: nothing was done"});
}

static void on_request(void *user, const struct face_request *request, face_answer_callback *answer, void *context) {
    if (request->kind == REQUEST_REJOIN)
        on_rejoin(user, answer, context);
    else
        pass_on(user, REQUEST_KIND_SWITCHOVER, request->to, answer, context);
}

const struct publish_callbacks daemon_publish_callbacks = {
    .face = face_fill, .request = on_request, .notice = on_notice, .written = on_written};
