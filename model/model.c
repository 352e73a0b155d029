#include "model/model.h"

#include <pb_decode.h>
#include <pb_encode.h>
#include <stdio.h>
#include <string.h>

#include "model/operation.h"

/* The generated bounds and ours must be one and the same. */
_Static_assert(sizeof(((Topology *)0)->members) / sizeof(Member) == MEMBERS_MAX, "members");
_Static_assert(sizeof(((Topology *)0)->rules) / sizeof(Rule) == RULES_MAX, "rules");
_Static_assert(sizeof(((Rule *)0)->standbys) / sizeof(Copy) == VOTERS_MAX, "standbys");
_Static_assert(DATA_MEMBERS_MAX <= SENDERS_MAX, "senders of all standbys");
_Static_assert(sizeof(((Topology *)0)->epochs) / sizeof(Epoch) == EPOCHS_MAX, "epochs");
_Static_assert(sizeof(((History *)0)->entries) / sizeof(HistoryEntry) == HISTORY_MAX, "history");
_Static_assert(sizeof(((Observation *)0)->senders) / sizeof(Sender) == SENDERS_MAX, "senders");
_Static_assert(sizeof(((Member *)0)->name) == NAME_MAX_LENGTH + 1, "name");
_Static_assert(sizeof(((Member *)0)->postgres_host) == HOST_MAX_LENGTH + 1, "host");
_Static_assert(sizeof(((Command *)0)->reason) == REASON_MAX_LENGTH + 1, "reason");
_Static_assert(Snapshot_size <= SNAPSHOT_BYTES_MAX, "snapshot");
_Static_assert(Command_size <= COMMAND_BYTES_MAX, "command");
_Static_assert(Message_size <= FRAME_BYTES_MAX, "message");

/* ---- positions ---- */

int position_compare(Position a, Position b) {
    if (a.timeline != b.timeline)
        return a.timeline < b.timeline ? -1 : 1;
    return a.lsn < b.lsn ? -1 : a.lsn > b.lsn;
}

const char *lsn_text(uint64_t lsn, char *buffer) {
    snprintf(buffer, LSN_TEXT_MAX, "%X/%08X", (unsigned)(lsn >> 32), (unsigned)lsn);
    return buffer;
}

const char *size_text(uint64_t bytes, char *buffer) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    unsigned unit = 0;
    double amount = (double)bytes;
    for (; amount >= 1000 && unit < 4; unit++)
        amount /= 1024;
    snprintf(buffer, SIZE_TEXT_MAX, amount < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", amount, units[unit]);
    return buffer;
}

/* ---- names ---- */

void application_name(char *buffer, const char *member, uint32_t copy, uint32_t epoch) {
    snprintf(buffer, APPLICATION_NAME_MAX, "%s_%u_%u", member, copy, epoch);
}

/* What follows the number; NULL if there is none, or it is too large. */
static const char *number_parse(const char *text, uint32_t *ret_number) {
    const char *at = text;
    uint64_t number = 0;
    for (; *at >= '0' && *at <= '9' && number <= UINT32_MAX; at++)
        number = number * 10 + (uint64_t)(*at - '0');
    if (at == text || number > UINT32_MAX)
        return NULL;
    *ret_number = (uint32_t)number;
    return at;
}

bool application_name_parse(const char *text, char *member, uint32_t *copy, uint32_t *epoch) {
    uint32_t parsed_copy, parsed_epoch;
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
    if (length == 0 || length > NAME_MAX_LENGTH || text[length] != '_')
        return false;
    const char *at = number_parse(text + length + 1, &parsed_copy);
    if (at == NULL || *at != '_')
        return false;
    at = number_parse(at + 1, &parsed_epoch);
    if (at == NULL || *at != '\0')
        return false;
    memcpy(member, text, length);
    member[length] = '\0';
    *copy = parsed_copy;
    *epoch = parsed_epoch;
    return true;
}

/* ---- lookup ---- */

const Member *topology_member(const Topology *topology, uint32_t id) {
    bool there = id >= 1 && id <= topology->members_count;
    return there && topology->members[id - 1].id == id ? &topology->members[id - 1] : NULL;
}

const Member *topology_member_named(const Topology *topology, const char *name) {
    for (unsigned i = 0; i < topology->members_count; i++)
        if (strcmp(topology->members[i].name, name) == 0)
            return &topology->members[i];
    return NULL;
}

const Epoch *topology_epoch(const Topology *topology, uint32_t epoch) {
    for (unsigned i = topology->epochs_count; i-- > 0;)
        if (topology->epochs[i].epoch == epoch)
            return &topology->epochs[i];
    return NULL;
}

const Epoch *topology_epoch_of_timeline(const Topology *topology, uint32_t timeline) {
    for (unsigned i = topology->epochs_count; i-- > 0;)
        if (topology->epochs[i].timeline == timeline)
            return &topology->epochs[i];
    return NULL;
}

unsigned topology_data_members(const Topology *topology) {
    unsigned count = 0;
    for (unsigned i = 0; i < topology->members_count; i++)
        count += !topology->members[i].witness && !topology->members[i].observer;
    return count;
}

unsigned topology_voters(const Topology *topology) {
    unsigned count = 0;
    for (unsigned i = 0; i < topology->members_count; i++)
        count += !topology->members[i].observer;
    return count;
}

bool topology_votes(const Topology *topology, uint32_t id) {
    const Member *member = topology_member(topology, id);
    return member != NULL && !member->observer;
}

bool copy_equal(Copy a, Copy b) { return a.member == b.member && a.copy == b.copy; }

bool rule_names_copy(const Rule *rule, Copy copy) {
    for (unsigned i = 0; i < rule->standbys_count; i++)
        if (copy_equal(rule->standbys[i], copy))
            return true;
    return false;
}

uint64_t lineage_end(const Topology *topology, uint32_t epoch, uint32_t timeline) {
    const Epoch *at = topology_epoch(topology, epoch);
    uint64_t end = UINT64_MAX; /* on at's timeline */
    while (at != NULL) {
        if (timeline == at->timeline)
            return end;
        end = at->base.lsn;
        if (timeline == at->base.timeline)
            return end;
        at = topology_epoch_of_timeline(topology, at->base.timeline);
    }
    return 0;
}

bool lineage_contains(const Topology *topology, uint32_t epoch, Position position) {
    uint64_t end = lineage_end(topology, epoch, position.timeline);
    return end != 0 && position.lsn <= end;
}

bool position_is_prefix(const Topology *topology, Position position, Position base) {
    if (position.timeline == base.timeline)
        return position.lsn <= base.lsn;
    const Epoch *epoch = topology_epoch_of_timeline(topology, base.timeline);
    return epoch != NULL && lineage_contains(topology, epoch->epoch, position);
}

/* ---- enums for people ---- */

const char *server_state_name(ServerState state) {
    static const char *const names[] = {"unknown", "down", "starting", "standby", "primary", "stopping", "hung"};
    return (unsigned)state < sizeof names / sizeof *names ? names[state] : "unknown";
}

const char *data_state_name(DataState state) {
    static const char *const names[] = {"unknown", "empty", "complete", "broken", "refused"};
    return (unsigned)state < sizeof names / sizeof *names ? names[state] : "unknown";
}

const char *durability_name(Durability durability) {
    static const char *const names[] = {"quorum", "strict", "async"};
    return (unsigned)durability < sizeof names / sizeof *names ? names[durability] : "unknown";
}

const char *history_kind_name(HistoryKind kind) {
    static const char *const names[] = {"note",   "founded", "sealed",     "assigned",
                                        "opened", "rule",    "switchover", "member"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

const char *operation_kind_name(enum operation_kind kind) {
    static const char *const names[] = {"nothing", "initdb", "adopt", "clone",   "rewind", "start",      "stop", "kill",
                                        "cut",     "follow", "fetch", "promote", "rule",   "checkpoint", "pause"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

/* ---- codecs ---- */

static size_t encode(const pb_msgdesc_t *fields, const void *message, uint8_t *buffer, size_t size) {
    pb_ostream_t stream = pb_ostream_from_buffer(buffer, size);
    return pb_encode(&stream, fields, message) ? stream.bytes_written : 0;
}

static status decode(const pb_msgdesc_t *fields, void *ret_message, const char *what, const uint8_t *bytes,
                     size_t length, struct error *error) {
    pb_istream_t stream = pb_istream_from_buffer(bytes, length);
    if (!pb_decode(&stream, fields, ret_message))
        return error_set(error, "malformed %s of %zu bytes: %s", what, length, PB_GET_ERROR(&stream));
    return OK;
}

size_t command_encode(const Command *command, uint8_t *buffer, size_t size) {
    return encode(Command_fields, command, buffer, size);
}

status command_decode(Command *ret_command, const uint8_t *bytes, size_t length, struct error *error) {
    if (decode(Command_fields, ret_command, "command", bytes, length, error) != OK)
        return FAILED;
    if (ret_command->version == 0 || ret_command->version > COMMAND_VERSION)
        return error_set(error, "command of version %u, this ttorchd knows up to %d: upgrade it", ret_command->version,
                         COMMAND_VERSION);
    return OK;
}

size_t snapshot_encode(const Snapshot *snapshot, uint8_t *buffer, size_t size) {
    return encode(Snapshot_fields, snapshot, buffer, size);
}

status snapshot_decode(Snapshot *ret_snapshot, const uint8_t *bytes, size_t length, struct error *error) {
    if (decode(Snapshot_fields, ret_snapshot, "snapshot", bytes, length, error) != OK)
        return FAILED;
    if (ret_snapshot->version == 0 || ret_snapshot->version > SNAPSHOT_VERSION)
        return error_set(error, "snapshot of version %u, this ttorchd knows up to %d: upgrade it",
                         ret_snapshot->version, SNAPSHOT_VERSION);
    return OK;
}

size_t message_encode(const Message *message, uint8_t *buffer, size_t size) {
    return encode(Message_fields, message, buffer, size);
}

status message_decode(Message *ret_message, const uint8_t *bytes, size_t length, struct error *error) {
    return decode(Message_fields, ret_message, "message", bytes, length, error);
}
