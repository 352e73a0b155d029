/* Bytes from outside, judged before anybody uses them: our own frames, and libraft's messages, whose decoder checks
 * nothing (a short one can crash it). Pure: no socket, no allocation.
 *
 * A frame of ours: magic (2), version (1), type (1), payload length (4), CRC-32 of type and payload (4), payload; all
 * little endian. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/checksum.h"
#include "base/error.h"

#define FRAME_HEADER_BYTES 12

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_REFUSED,
    FRAME_PING,
    FRAME_MESSAGE, /* the caller's bytes, see record_send */
    FRAME_LINE,
    FRAME_LINES_END,
    FRAME_FOUNDED,
    FRAME_PROPOSE,
    FRAME_OUTCOME,
    FRAME_HEARTBEAT,
    FRAME_HEARD,
    FRAME_FEED,     /* an observer asks */
    FRAME_FED,      /* and is told who leads, and how long ago a quorum was heard */
    FRAME_SNAPSHOT, /* the whole record, a `part` */
    FRAME_ENTRY     /* one command of it, a `part` */
};
#define FRAME_LAST FRAME_ENTRY

struct frame {
    enum frame_type type;
    const uint8_t *payload; /* within the bytes given */
    size_t length;
};

/* The whole frame is FRAME_HEADER_BYTES + length bytes, written to `buffer`. */
void frame_write(uint8_t *buffer, enum frame_type type, const uint8_t *payload, size_t length);

/* Whether a frame begins with this byte; none of libraft's messages does. */
bool frame_begins(uint8_t byte);

/* Of the record, for an observer: session (4), index (8), then a command or a snapshot. */
#define PART_HEADER_BYTES 12
struct part {
    uint32_t session; /* of the feed, as the observer numbered it */
    uint64_t index;   /* up to which the record is known with it */
    const uint8_t *bytes;
    size_t length;
};
/* The first PART_HEADER_BYTES of a payload. */
void part_write_header(uint8_t *buffer, uint32_t session, uint64_t index);
status part_parse(const struct frame *frame, struct part *ret_part, struct error *error) must_check;

/* Looks at the start of a stream. OK: `ret_size` is the size of the first frame; if `available` reaches it, `ret_frame`
 * is set too. FAILED: this is not one of our streams, or a payload is longer than `max_payload`. `available` = 0 is
 * OK with ret_size = FRAME_HEADER_BYTES. */
status frame_parse(const uint8_t *bytes, size_t available, size_t max_payload, struct frame *ret_frame,
                   size_t *ret_size, struct error *error) must_check;

/* The same for a libraft 0.22 message: OK once the first `ret_size` bytes are known to be wanted, and, when they are
 * all available, known to be safe to decode. At most WIRE_HEADER_MAX + FRAME_BYTES_MAX bytes are ever wanted. */
#define WIRE_PREAMBLE_BYTES 16
#define WIRE_HEADER_MAX     16384
status wire_check(const uint8_t *bytes, size_t available, size_t *ret_size, struct error *error) must_check;

static inline uint32_t get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t get_u64(const uint8_t *p) { return get_u32(p) | (uint64_t)get_u32(p + 4) << 32; }
static inline void put_u32(uint8_t *p, uint32_t value) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}
