/* Any bytes as what the record and the members' messages are made of. The first byte chooses: a series of commands,
 * each after two bytes of its length, applied to an empty record; a snapshot; or a message. Whatever decodes must
 * encode to what decodes to the same; and whatever was applied must leave a record in which nothing went backwards, and
 * which fits a snapshot. */
#include <string.h>

#include "base/panic.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static uint8_t buffer[SNAPSHOT_BYTES_MAX];

/* ---- there and back ---- */

static void snapshot_returns(const Snapshot *snapshot) {
    static Snapshot again;
    struct error error;
    size_t length = snapshot_encode(snapshot, buffer, sizeof buffer);
    require(length > 0);
    require(snapshot_decode(&again, buffer, length, &error) == OK);
    static uint8_t second[SNAPSHOT_BYTES_MAX];
    require(snapshot_encode(&again, second, sizeof second) == length && memcmp(buffer, second, length) == 0);
}

static void message_returns(const Message *message) {
    static Message again;
    struct error error;
    size_t length = message_encode(message, buffer, sizeof buffer);
    require(length > 0 || message->which_body == 0);
    require(message_decode(&again, buffer, length, &error) == OK);
    static uint8_t second[Message_size];
    require(message_encode(&again, second, sizeof second) == length && memcmp(buffer, second, length) == 0);
}

static bool command_returns(const Command *command) {
    static Command again;
    struct error error;
    size_t length = command_encode(command, buffer, COMMAND_BYTES_MAX);
    return length > 0 && command_decode(&again, buffer, length, &error) == OK &&
           again.which_body == command->which_body;
}

/* ---- the record ---- */

static void members_hold(const Topology *before, const Topology *after) {
    for (unsigned i = 0; i < after->members_count; i++) {
        const Member *member = &after->members[i];
        const Member *old = topology_member(before, member->id);
        require(member->id >= 1 && member->id <= MEMBERS_MAX && topology_member(after, member->id) == member);
        require(old == NULL || old->copy <= member->copy);
        require(old == NULL || old->raft_id != member->raft_id || old->start_count <= member->start_count);
    }
}

static void record_holds(const Topology *before, const Topology *after) {
    require(after->epoch == before->epoch || after->epoch == before->epoch + 1);
    require(after->generation >= before->generation && after->seal_index >= before->seal_index);
    require(before->cluster_id == 0 || after->cluster_id == before->cluster_id);
    require(after->rules_count <= RULES_MAX && after->epochs_count <= EPOCHS_MAX);
    require(after->epoch == 0 || (after->rules_count > 0 && topology_member(after, after->primary.member) != NULL));
    require(!(after->open && after->sealed));
    for (unsigned i = 1; i < after->epochs_count; i++)
        require(after->epochs[i].epoch > after->epochs[i - 1].epoch);
    if (after->epoch > 0)
        require(after->epochs[after->epochs_count - 1].timeline == after->timeline_offset + after->epoch);
    members_hold(before, after);
}

/* A void command changes nothing but the index. */
static void void_changes_nothing(const Topology *before, const Topology *after) {
    static Topology expected;
    expected = *before;
    expected.index = after->index;
    require(memcmp(&expected, after, sizeof expected) == 0);
}

static void apply_all(const uint8_t *bytes, size_t length) {
    static Snapshot record;
    static Topology before;
    static Command command;
    struct error error;
    memset(&record, 0, sizeof record);
    record.version = SNAPSHOT_VERSION;
    for (uint64_t index = 1; length >= 2; index++) {
        size_t size = (size_t)bytes[0] | (size_t)bytes[1] << 8;
        size = size < length - 2 ? size : length - 2;
        if (command_decode(&command, bytes + 2, size, &error) == OK && command_returns(&command)) {
            before = record.topology;
            if (record_apply(&record.topology, &record.history, index, &command, &error) == VOID_COMMAND)
                void_changes_nothing(&before, &record.topology);
            record_holds(&before, &record.topology);
        }
        bytes += 2 + size;
        length -= 2 + size;
    }
    snapshot_returns(&record);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    static Snapshot snapshot;
    static Message message;
    struct error error;
    if (length == 0)
        return 0;
    switch (bytes[0] % 4) {
    case 0:
        if (snapshot_decode(&snapshot, bytes + 1, length - 1, &error) == OK)
            snapshot_returns(&snapshot);
        break;
    case 1:
        if (message_decode(&message, bytes + 1, length - 1, &error) == OK)
            message_returns(&message);
        break;
    default:
        apply_all(bytes + 1, length - 1);
    }
    return 0;
}
