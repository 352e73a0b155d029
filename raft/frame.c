#include "raft/frame.h"

#include <raft.h>
#include <string.h>

#include "base/limits.h"

#define MAGIC_0       0x74
#define MAGIC_1       0xd7
#define FRAME_VERSION 1

/* ---- our frames ---- */

void frame_write(uint8_t *buffer, enum frame_type type, const uint8_t *payload, size_t length) {
    buffer[0] = MAGIC_0;
    buffer[1] = MAGIC_1;
    buffer[2] = FRAME_VERSION;
    buffer[3] = (uint8_t)type;
    put_u32(buffer + 4, (uint32_t)length);
    if (length > 0)
        memcpy(buffer + FRAME_HEADER_BYTES, payload, length);
    put_u32(buffer + 8, crc32_update(crc32_update(0, buffer + 3, 5), buffer + FRAME_HEADER_BYTES, length));
}

bool frame_begins(uint8_t byte) { return byte == MAGIC_0; }

status frame_parse(const uint8_t *bytes, size_t available, size_t max_payload, struct frame *ret_frame,
                   size_t *ret_size, struct error *error) {
    static const uint8_t start[3] = {MAGIC_0, MAGIC_1, FRAME_VERSION};
    size_t known = available < sizeof start ? available : sizeof start;
    if (known > 0 && memcmp(bytes, start, known) != 0)
        return error_set(error, "not a ttorch frame");
    *ret_size = FRAME_HEADER_BYTES;
    if (available < FRAME_HEADER_BYTES)
        return OK;
    size_t length = get_u32(bytes + 4);
    if (bytes[3] < FRAME_HELLO || bytes[3] > FRAME_LAST)
        return error_set(error, "frame of unknown type %u", bytes[3]);
    if (length > max_payload)
        return error_set(error, "frame of %zu bytes, more than %zu", length, max_payload);
    *ret_size = FRAME_HEADER_BYTES + length;
    if (available < *ret_size)
        return OK;
    if (get_u32(bytes + 8) != crc32_update(crc32_update(0, bytes + 3, 5), bytes + FRAME_HEADER_BYTES, length))
        return error_set(error, "frame with a wrong checksum");
    *ret_frame = (struct frame){(enum frame_type)bytes[3], bytes + FRAME_HEADER_BYTES, length};
    return OK;
}

void part_write_header(uint8_t *buffer, uint32_t session, uint64_t index) {
    put_u32(buffer, session);
    put_u32(buffer + 4, (uint32_t)index);
    put_u32(buffer + 8, (uint32_t)(index >> 32));
}

status part_parse(const struct frame *frame, struct part *ret_part, struct error *error) {
    if (frame->length <= PART_HEADER_BYTES)
        return error_set(error, "part of the record without content");
    *ret_part = (struct part){.session = get_u32(frame->payload),
                              .index = get_u64(frame->payload + 4),
                              .bytes = frame->payload + PART_HEADER_BYTES,
                              .length = frame->length - PART_HEADER_BYTES};
    if (ret_part->index == 0)
        return error_set(error, "part of the record without an index");
    return OK;
}

/* ---- libraft's messages ---- */

/* Sizes of the fixed parts in libraft 0.22's encoding. */
enum {
    APPEND_FIXED = 32, /* term, previous index and term, commit index */
    ENTRY_HEADER = 16,
    SNAPSHOT_FIXED = 32, /* term, last index and term, index of the configuration */
};

/* An encoded configuration: format 1, count, then id, terminated address and role of each server. */
static bool configuration_sound(const uint8_t *bytes, size_t length) {
    if (length < 9 || bytes[0] != 1)
        return false;
    uint64_t count = get_u64(bytes + 1);
    size_t at = 9;
    if (count > VOTERS_MAX)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        if (length - at < 8)
            return false;
        at += 8;
        size_t text = strnlen((const char *)bytes + at, length - at);
        if (text == length - at || length - at - text < 2)
            return false;
        at += text + 2;
    }
    return true;
}

static status append_header_check(const uint8_t *header, size_t length, size_t *ret_payload, struct error *error) {
    uint64_t count = length < APPEND_FIXED + 16 ? UINT64_MAX : get_u64(header + APPEND_FIXED);
    if (count > WIRE_HEADER_MAX / ENTRY_HEADER || length != APPEND_FIXED + 16 + count * ENTRY_HEADER)
        return error_set(error, "AppendEntries whose header of %zu bytes does not fit its entries", length);
    size_t payload = 0;
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *entry = header + APPEND_FIXED + 8 + i * ENTRY_HEADER;
        size_t size = get_u32(entry + 12);
        if (entry[8] < RAFT_COMMAND || entry[8] > RAFT_CHANGE || size == 0 || size % 8 != 0)
            return error_set(error, "AppendEntries with a malformed entry");
        payload += size; /* no overflow: few entries of 32 bits */
    }
    *ret_payload = payload;
    return OK;
}

static status append_payload_check(const uint8_t *header, const uint8_t *payload, struct error *error) {
    uint64_t count = get_u64(header + APPEND_FIXED);
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *entry = header + APPEND_FIXED + 8 + i * ENTRY_HEADER;
        size_t size = get_u32(entry + 12);
        if (entry[8] == RAFT_CHANGE && !configuration_sound(payload, size))
            return error_set(error, "AppendEntries with a malformed configuration");
        payload += size;
    }
    return OK;
}

static status snapshot_header_check(const uint8_t *header, size_t length, size_t *ret_payload, struct error *error) {
    uint64_t configuration = length < SNAPSHOT_FIXED + 24 ? UINT64_MAX : get_u64(header + SNAPSHOT_FIXED);
    if (configuration > WIRE_HEADER_MAX || length != SNAPSHOT_FIXED + 24 + configuration ||
        !configuration_sound(header + SNAPSHOT_FIXED + 8, configuration))
        return error_set(error, "InstallSnapshot with a malformed configuration");
    uint64_t payload = get_u64(header + SNAPSHOT_FIXED + 8 + configuration);
    if (payload == 0 || payload > FRAME_BYTES_MAX)
        return error_set(error, "InstallSnapshot of %llu bytes", (unsigned long long)payload);
    *ret_payload = payload;
    return OK;
}

static status header_check(uint8_t type, const uint8_t *header, size_t length, size_t *ret_payload,
                           struct error *error) {
    static const size_t fixed[] = {[RAFT_APPEND_ENTRIES_RESULT] = 32,
                                   [RAFT_REQUEST_VOTE] = 40,
                                   [RAFT_REQUEST_VOTE_RESULT] = 24,
                                   [RAFT_TIMEOUT_NOW] = 24};
    *ret_payload = 0;
    if (type == RAFT_APPEND_ENTRIES)
        return append_header_check(header, length, ret_payload, error);
    if (type == RAFT_INSTALL_SNAPSHOT)
        return snapshot_header_check(header, length, ret_payload, error);
    return length == fixed[type] ? OK : error_set(error, "message of type %u with a header of %zu bytes", type, length);
}

status wire_check(const uint8_t *bytes, size_t available, size_t *ret_size, struct error *error) {
    *ret_size = WIRE_PREAMBLE_BYTES;
    if (available < WIRE_PREAMBLE_BYTES)
        return OK;
    uint64_t length = get_u64(bytes + 8);
    if (bytes[0] < RAFT_APPEND_ENTRIES || bytes[0] > RAFT_TIMEOUT_NOW)
        return error_set(error, "message of unknown type %u", bytes[0]);
    if (length == 0 || length > WIRE_HEADER_MAX)
        return error_set(error, "message with a header of %llu bytes", (unsigned long long)length);
    *ret_size = WIRE_PREAMBLE_BYTES + length;
    if (available < *ret_size)
        return OK;
    const uint8_t *header = bytes + WIRE_PREAMBLE_BYTES;
    size_t payload;
    if (header_check(bytes[0], header, length, &payload, error) != OK)
        return FAILED;
    if (payload > FRAME_BYTES_MAX)
        return error_set(error, "message with %zu bytes of payload", payload);
    *ret_size += payload;
    if (available < *ret_size || bytes[0] != RAFT_APPEND_ENTRIES)
        return OK;
    return append_payload_check(header, header + length, error);
}
