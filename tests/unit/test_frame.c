/* Bytes from outside: frames of ours, and libraft's messages as a hostile or broken peer might send them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "raft/frame.h"

/* ---- our frames ---- */

static void test_crc(void **state) {
    (void)state;
    assert_int_equal(crc32_update(0, (const uint8_t *)"123456789", 9), 0xcbf43926);
}

static void test_frame_round_trip(void **state) {
    uint8_t bytes[FRAME_HEADER_BYTES + 5];
    struct frame frame;
    struct error error;
    size_t size;
    (void)state;
    frame_write(bytes, FRAME_MESSAGE, (const uint8_t *)"hello", 5);
    for (size_t have = 0; have < sizeof bytes; have++) {
        assert_int_equal(frame_parse(bytes, have, 100, &frame, &size, &error), OK);
        assert_true(size > have);
    }
    assert_int_equal(frame_parse(bytes, sizeof bytes, 100, &frame, &size, &error), OK);
    assert_int_equal(size, sizeof bytes);
    assert_int_equal(frame.type, FRAME_MESSAGE);
    assert_int_equal(frame.length, 5);
    assert_memory_equal(frame.payload, "hello", 5);
    assert_int_equal(frame_parse(bytes, sizeof bytes, 4, &frame, &size, &error), FAILED);
    for (size_t i = 0; i < sizeof bytes; i++) {
        uint8_t saved = bytes[i];
        bytes[i] ^= 0x20;
        bool good = frame_parse(bytes, sizeof bytes, 100, &frame, &size, &error) == OK && size <= sizeof bytes;
        assert_false(good);
        bytes[i] = saved;
    }
}

static void test_parts(void **state) {
    uint8_t payload[PART_HEADER_BYTES + 3];
    struct frame frame = {FRAME_ENTRY, payload, sizeof payload};
    struct part part;
    struct error error;
    (void)state;
    part_write_header(payload, 7, 0x123456789aull);
    memcpy(payload + PART_HEADER_BYTES, "abc", 3);
    assert_int_equal(part_parse(&frame, &part, &error), OK);
    assert_int_equal(part.session, 7);
    assert_int_equal(part.index, 0x123456789aull);
    assert_int_equal(part.length, 3);
    assert_memory_equal(part.bytes, "abc", 3);
    for (frame.length = 0; frame.length <= PART_HEADER_BYTES; frame.length++)
        assert_int_equal(part_parse(&frame, &part, &error), FAILED);
    part_write_header(payload, 7, 0);
    assert_int_equal(part_parse(&frame, &part, &error), FAILED);
}

/* ---- libraft's messages ---- */

struct wire {
    uint8_t bytes[4096];
    size_t length;
};

static void put(struct wire *wire, uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        wire->bytes[wire->length++] = (uint8_t)(value >> 8 * i);
}

static void put_preamble(struct wire *wire, unsigned type, uint64_t header) {
    wire->length = 0;
    put(wire, type, 8);
    put(wire, header, 8);
}

static void put_configuration(struct wire *wire) {
    put(wire, 1, 1);
    put(wire, 1, 8);
    put(wire, 77, 8);
    memcpy(wire->bytes + wire->length, "m1", 3);
    wire->length += 3;
    put(wire, 1, 1);
    put(wire, 0, 3); /* 24 bytes in all */
}

static void make_append(struct wire *wire, unsigned type, uint32_t size) {
    put_preamble(wire, 1, 32 + 16 + 16);
    for (int i = 0; i < 4; i++)
        put(wire, 1, 8);
    put(wire, 1, 8);
    put(wire, 1, 8);
    put(wire, type, 4);
    put(wire, size, 4);
    put(wire, 0, 8);
}

static void make_snapshot(struct wire *wire, uint64_t configuration, uint64_t data) {
    put_preamble(wire, 5, 32 + 8 + 24 + 16);
    for (int i = 0; i < 4; i++)
        put(wire, 1, 8);
    put(wire, configuration, 8);
    put_configuration(wire);
    put(wire, data, 8);
    put(wire, 0, 8);
}

/* Every prefix is asked for more; the whole is accepted at its exact size. */
static void accepted(const struct wire *wire) {
    struct error error = {""};
    size_t size;
    for (size_t have = 0; have < wire->length; have++) {
        uint8_t *exact = malloc(have + 1); /* so that a read beyond is seen */
        memcpy(exact, wire->bytes, have);
        assert_int_equal(wire_check(exact, have, &size, &error), OK);
        assert_in_range(size, have + 1, wire->length);
        free(exact);
    }
    if (wire_check(wire->bytes, wire->length, &size, &error) != OK)
        fail_msg("%s", error.text);
    assert_int_equal(size, wire->length);
}

static void refused(const struct wire *wire) {
    struct error error = {""};
    size_t size;
    assert_int_equal(wire_check(wire->bytes, wire->length, &size, &error), FAILED);
    assert_string_not_equal(error.text, "");
}

static void test_wire_accepted(void **state) {
    static const size_t sizes[][2] = {{2, 32}, {3, 40}, {4, 24}, {6, 24}};
    struct wire wire;
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        put_preamble(&wire, (unsigned)sizes[i][0], sizes[i][1]);
        for (size_t j = 0; j < sizes[i][1] / 8; j++)
            put(&wire, 1, 8);
        accepted(&wire);
    }
    make_append(&wire, 1, 16);
    put(&wire, 1, 8);
    put(&wire, 2, 8);
    accepted(&wire);
    make_append(&wire, 3, 24);
    put_configuration(&wire);
    accepted(&wire);
    make_snapshot(&wire, 24, 8);
    put(&wire, 1, 8);
    accepted(&wire);
}

static void test_wire_refused(void **state) {
    struct wire wire;
    (void)state;
    put_preamble(&wire, 7, 24);
    refused(&wire);
    put_preamble(&wire, 0, 24);
    refused(&wire);
    put_preamble(&wire, 1, 1ull << 32); /* memory would grow as sent */
    refused(&wire);
    put_preamble(&wire, 1, 0);
    refused(&wire);
    put_preamble(&wire, 3, 1); /* a vote request of one byte: read beyond, taken as a term */
    put(&wire, 1, 1);
    refused(&wire);
    make_append(&wire, 1, 16); /* claims 2^20 entries */
    wire.bytes[16 + 32 + 2] = 0x10;
    refused(&wire);
    make_append(&wire, 1, 12); /* no multiple of 8 */
    refused(&wire);
    make_append(&wire, 9, 16);
    refused(&wire);
    make_append(&wire, 1, FRAME_BYTES_MAX + 8);
    refused(&wire);
    make_append(&wire, 3, 24); /* a configuration of 2^56 servers */
    put_configuration(&wire);
    wire.bytes[wire.length - 24 + 8] = 1;
    refused(&wire);
    make_append(&wire, 3, 24); /* whose address never ends */
    put_configuration(&wire);
    memset(wire.bytes + wire.length - 7, 'x', 7);
    refused(&wire);
    make_snapshot(&wire, 1ull << 40, 8);
    refused(&wire);
    make_snapshot(&wire, 24, 1ull << 40);
    refused(&wire);
}

/* Whatever the bytes, the check stays within them and its demands are bounded. */
static void test_wire_random(void **state) {
    struct error error;
    size_t size;
    (void)state;
    srand(1);
    for (unsigned round = 0; round < 200000; round++) {
        struct wire wire;
        if (round % 2 == 0)
            make_append(&wire, 1 + round % 3, 24);
        else
            make_snapshot(&wire, 24, 24);
        put_configuration(&wire);
        for (unsigned i = 0; i < 1 + round % 4; i++)
            wire.bytes[(unsigned)rand() % wire.length] = (uint8_t)rand();
        size_t have = (unsigned)rand() % (wire.length + 1);
        uint8_t *exact = malloc(have + 1);
        memcpy(exact, wire.bytes, have);
        if (wire_check(exact, have, &size, &error) == OK)
            assert_true(size <= WIRE_PREAMBLE_BYTES + WIRE_HEADER_MAX + FRAME_BYTES_MAX);
        free(exact);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_crc),          cmocka_unit_test(test_frame_round_trip),
                                       cmocka_unit_test(test_parts),        cmocka_unit_test(test_wire_accepted),
                                       cmocka_unit_test(test_wire_refused), cmocka_unit_test(test_wire_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
