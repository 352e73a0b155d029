/* Any bytes on the peer port. The first byte chooses what they are: a stream of our frames, before or after the hello;
 * a stream of libraft's messages; or the payload of a frame of the type that the second byte says, as its checksum
 * would be hard to guess. What is wanted may only grow as more becomes known, within the bounds of frame.h. */
#include <pb_decode.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/panic.h"
#include "peer.pb.h"
#include "raft/frame.h"

#define HELLO_BYTES_MAX 2048 /* raft/parts.h */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static union {
    PeerHello hello;
    PeerRefused refused;
    PeerLine line;
    PeerLinesEnd end;
    PeerFounded founded;
    PeerPropose propose;
    PeerOutcome outcome;
    PeerHeartbeat heartbeat;
    PeerHeard heard;
    PeerFeed feed;
    PeerFed fed;
} decoded;

static bool decode(const struct frame *frame, const pb_msgdesc_t *fields) {
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    memset(&decoded, 0, sizeof decoded);
    return pb_decode(&stream, fields, &decoded);
}

static bool terminated(const char *text, size_t size) { return memchr(text, '\0', size) != NULL; }
#define TERMINATED(text) require(terminated((text), sizeof(text)))

static void part_look(const struct frame *frame) {
    struct part part;
    struct error error;
    if (part_parse(frame, &part, &error) == OK)
        require(part.length > 0 && part.bytes + part.length == frame->payload + frame->length);
}

static void frame_look(const struct frame *frame) {
    switch (frame->type) {
    case FRAME_HELLO:
        if (decode(frame, PeerHello_fields)) {
            TERMINATED(decoded.hello.member);
            TERMINATED(decoded.hello.cluster_name);
        }
        break;
    case FRAME_REFUSED:
        if (decode(frame, PeerRefused_fields))
            TERMINATED(decoded.refused.reason);
        break;
    case FRAME_LINE:
        if (decode(frame, PeerLine_fields)) {
            TERMINATED(decoded.line.key);
            TERMINATED(decoded.line.value);
            TERMINATED(decoded.line.file);
        }
        break;
    case FRAME_LINES_END:
        (void)decode(frame, PeerLinesEnd_fields);
        break;
    case FRAME_FOUNDED:
        (void)decode(frame, PeerFounded_fields);
        break;
    case FRAME_PROPOSE:
        if (decode(frame, PeerPropose_fields))
            require(decoded.propose.command.size <= COMMAND_BYTES_MAX);
        break;
    case FRAME_OUTCOME:
        if (decode(frame, PeerOutcome_fields))
            TERMINATED(decoded.outcome.why);
        break;
    case FRAME_HEARTBEAT:
        (void)decode(frame, PeerHeartbeat_fields);
        break;
    case FRAME_HEARD:
        (void)decode(frame, PeerHeard_fields);
        break;
    case FRAME_FEED:
        (void)decode(frame, PeerFeed_fields);
        break;
    case FRAME_FED:
        if (decode(frame, PeerFed_fields))
            TERMINATED(decoded.fed.leader);
        break;
    case FRAME_SNAPSHOT:
    case FRAME_ENTRY:
        part_look(frame);
        break;
    case FRAME_PING:
    case FRAME_MESSAGE:
        break;
    }
}

static void frames(const uint8_t *bytes, size_t length, size_t max) {
    struct error error;
    while (length > 0) {
        struct frame frame = {0};
        size_t size = 0, wanted = 0;
        for (size_t available = 0; available <= FRAME_HEADER_BYTES && available <= length; available++) {
            if (frame_parse(bytes, available, max, &frame, &size, &error) != OK)
                return;
            require(size >= wanted && size >= FRAME_HEADER_BYTES && size <= FRAME_HEADER_BYTES + max);
            wanted = size;
        }
        if (wanted > length || frame_parse(bytes, length, max, &frame, &size, &error) != OK)
            return;
        require(size == wanted && frame.length == size - FRAME_HEADER_BYTES);
        frame_look(&frame);
        bytes += size;
        length -= size;
    }
}

/* Byte by byte at first, as it may arrive. */
static void messages(const uint8_t *bytes, size_t length) {
    struct error error;
    while (length > 0) {
        size_t size = 0, wanted = 0;
        for (size_t available = 0; available <= length; available = available < 512 ? available + 1 : length + 1) {
            if (wire_check(bytes, available, &size, &error) != OK)
                return;
            require(size >= wanted && size <= WIRE_PREAMBLE_BYTES + WIRE_HEADER_MAX + FRAME_BYTES_MAX);
            wanted = size;
        }
        if (wire_check(bytes, length, &size, &error) != OK || size > length)
            return;
        bytes += size;
        length -= size;
    }
}

static void payload(const uint8_t *bytes, size_t length) {
    struct error error;
    struct frame frame;
    size_t size;
    uint8_t *whole = malloc(FRAME_HEADER_BYTES + length);
    require(whole != NULL);
    enum frame_type type = FRAME_HELLO + bytes[0] % FRAME_LAST;
    frame_write(whole, type, bytes + 1, length - 1);
    require(frame_parse(whole, FRAME_HEADER_BYTES + length - 1, length, &frame, &size, &error) == OK);
    require(size == FRAME_HEADER_BYTES + length - 1 && frame.type == type && frame.length == length - 1);
    frame_look(&frame);
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    if (length < 2)
        return 0;
    switch (bytes[0] % 4) {
    case 0:
        frames(bytes + 1, length - 1, HELLO_BYTES_MAX);
        break;
    case 1:
        frames(bytes + 1, length - 1, FRAME_BYTES_MAX);
        break;
    case 2:
        messages(bytes + 1, length - 1);
        break;
    default:
        payload(bytes + 1, length - 1);
    }
    return 0;
}
