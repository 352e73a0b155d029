/* What is on the record's disk, and whether it is trusted: segments of libraft's log, ballot, identity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raft/ballot.h"
#include "raft/identity.h"
#include "raft/segments.h"

/* ---- segments ---- */

/* Two batches: one entry of 8 bytes in term 1, then one of 1024 bytes. */
#define SMALL_BYTES  40
#define SEGMENT_SIZE 4096

static size_t batch_put(uint8_t *at, uint32_t size) {
    const uint64_t count = 1, term = 1;
    memcpy(at + 8, &count, 8);
    memcpy(at + 16, &term, 8);
    at[24] = 1;
    memcpy(at + 28, &size, 4);
    memset(at + 32, 0x55, size);
    uint32_t header = segment_checksum(at + 8, 24), data = segment_checksum(at + 32, size);
    memcpy(at, &header, 4);
    memcpy(at + 4, &data, 4);
    return 32 + size;
}

static void segment_make(uint8_t *segment) {
    memset(segment, 0, SEGMENT_SIZE);
    segment[0] = 1;
    size_t at = 8;
    at += batch_put(segment + at, 8);
    assert_int_equal(at, 8 + SMALL_BYTES);
    batch_put(segment + at, 1024);
}

enum verdict { SOUND, TORN, DAMAGED };

static enum verdict judge(const uint8_t *segment) {
    struct error error;
    bool torn;
    if (segment_check(segment, SEGMENT_SIZE, &torn, &error) != OK)
        return DAMAGED;
    return torn ? TORN : SOUND;
}

/* The beginning of a segment as libraft 0.22.1 wrote it. */
static const uint8_t as_written[] = {
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x58, 0xc2, 0x69, 0x47, 0xb9, 0xbe, 0x87, 0x97,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x02, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0xf4, 0xff, 0xab, 0xf4, 0x0e, 0x56, 0x00, 0x00,
};

static void test_segments(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t at, length; /* these bytes ... */
        int change;        /* ... become zeros (0), or the first one is XORed */
        enum verdict verdict;
    } rows[] = {
        {"whole", 0, 0, 0, SOUND},
        {"a bit of the format", 0, 1, 2, DAMAGED},
        {"a bit of a checksum", 8, 1, 4, DAMAGED},
        {"a bit of a count", 16, 1, 8, DAMAGED},
        {"a bit of a size", 36, 1, 16, DAMAGED},
        {"a bit of the data of the first batch", 42, 1, 1, DAMAGED},
        {"a bit of the last byte", 8 + SMALL_BYTES + 1055, 1, 1, DAMAGED},
        {"the first batch gone, the second there", 8, SMALL_BYTES, 0, DAMAGED},
        {"the last write never happened", 8 + SMALL_BYTES, 1056, 0, SOUND},
        {"its first sector did not make it", 8 + SMALL_BYTES, 512 - 8 - SMALL_BYTES, 0, TORN},
        {"its second sector", 512, 512, 0, TORN},
        {"its last one", 1024, SEGMENT_SIZE - 1024, 0, TORN},
        {"less than a sector of it", 600, 100, 0, DAMAGED},
    };
    uint8_t segment[SEGMENT_SIZE];
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        segment_make(segment);
        if (rows[i].change != 0)
            segment[rows[i].at] ^= (uint8_t)rows[i].change;
        else
            memset(segment + rows[i].at, 0, rows[i].length);
        if (judge(segment) != rows[i].verdict)
            fail_msg("%s: %d", rows[i].name, judge(segment));
    }
    memset(segment, 0, sizeof segment);
    assert_int_equal(judge(segment), SOUND);
    memcpy(segment, as_written, sizeof as_written);
    assert_int_equal(judge(segment), SOUND);
    segment[sizeof as_written - 1] ^= 1;
    assert_int_equal(judge(segment), DAMAGED);
}

/* ---- ballot and identity ---- */

static char directory[64];

static int set_up(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/ttorch-disk.XXXXXX");
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    char command[96];
    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", directory);
    return system(command);
}

static void bit_flip(const char *name, off_t at) {
    char path[128];
    uint8_t byte;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_ballot(void **state) {
    (void)state;
    struct ballot ballot = {0}, read;
    struct error error;
    assert_int_equal(ballot_read(&read, directory, &error), OK);
    assert_int_equal(read.serial, 0);
    assert_int_equal(ballot_write(&ballot, directory, 4, 0, 10, &error), OK);
    assert_int_equal(ballot_write(&ballot, directory, 4, 77, 11, &error), OK);
    assert_int_equal(ballot_read(&read, directory, &error), OK);
    assert_memory_equal(&read, &ballot, sizeof read);
    assert_true(ballot_agrees(&read, 4, 77) && ballot_agrees(&read, 4, 0));
    assert_false(ballot_agrees(&read, 5, 77) || ballot_agrees(&read, 4, 78));
    bit_flip("ballot", 9); /* of the newest slot: the older one is sound, and does not agree with what followed */
    assert_int_equal(ballot_read(&read, directory, &error), OK);
    assert_int_equal(read.vote, 0);
    assert_false(ballot_agrees(&read, 4, 77));
    bit_flip("ballot", 512 + 9);
    assert_int_equal(ballot_read(&read, directory, &error), FAILED);
    assert_non_null(strstr(error.text, "damaged"));
}

static void test_identity(void **state) {
    (void)state;
    struct identity first, second;
    struct error damage, error;
    assert_int_equal(identity_open(&first, directory, &damage, &error), OK);
    assert_string_equal(damage.text, "");
    assert_int_equal(first.start_count, 1);
    assert_int_equal(identity_reset(directory, &error), FAILED); /* in use */
    identity_close(&first);
    for (off_t at = 0; at < 120; at++) {
        bit_flip("identity", at);
        assert_int_equal(identity_open(&second, directory, &damage, &error), OK);
        assert_true(damage.text[0] != '\0' && second.raft_id == 0);
        identity_close(&second);
        bit_flip("identity", at);
    }
    assert_int_equal(identity_reset(directory, &error), OK);
    assert_int_equal(identity_reset(directory, &error), OK); /* what was set aside first is gone */
    assert_int_equal(identity_open(&second, directory, &damage, &error), OK);
    assert_string_equal(damage.text, "");
    assert_true(second.rejoining && second.raft_id != first.raft_id && second.cluster_id == 0);
    assert_int_equal(second.start_count, 1);
    identity_close(&second);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_segments),
                                       cmocka_unit_test_setup_teardown(test_ballot, set_up, tear_down),
                                       cmocka_unit_test_setup_teardown(test_identity, set_up, tear_down)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
