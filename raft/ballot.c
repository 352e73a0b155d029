#include "raft/ballot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "raft/frame.h"

/* The six numbers (8 each), CRC-32 of them (4); each slot in a sector of its own. */
#define FIELDS      6
#define SLOT_BYTES  (8 * FIELDS + 4)
#define SLOT_STRIDE 512

static void slot_pack(const struct ballot *ballot, uint8_t *slot) {
    const uint64_t fields[FIELDS] = {ballot->serial,        ballot->term,          ballot->vote,
                                     ballot->previous_term, ballot->previous_vote, ballot->last_index};
    for (unsigned i = 0; i < FIELDS; i++) {
        put_u32(slot + 8 * i, (uint32_t)fields[i]);
        put_u32(slot + 8 * i + 4, (uint32_t)(fields[i] >> 32));
    }
    put_u32(slot + 8 * FIELDS, crc32_update(0, slot, 8 * FIELDS));
}

static bool slot_unpack(struct ballot *ret_ballot, const uint8_t *slot) {
    struct ballot ballot = {get_u64(slot),      get_u64(slot + 8),  get_u64(slot + 16),
                            get_u64(slot + 24), get_u64(slot + 32), get_u64(slot + 40)};
    if (ballot.serial == 0 || get_u32(slot + 8 * FIELDS) != crc32_update(0, slot, 8 * FIELDS))
        return false;
    *ret_ballot = ballot;
    return true;
}

static void ballot_path(const char *directory, char *ret_path, size_t size) {
    snprintf(ret_path, size, "%s/ballot", directory);
}

status ballot_read(struct ballot *ret_ballot, const char *directory, struct error *error) {
    char path[PATH_MAX_LENGTH + 16];
    uint8_t slots[2 * SLOT_STRIDE] = {0};
    struct ballot newest = {0}, ballot;
    ballot_path(directory, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        *ret_ballot = newest;
        return OK;
    }
    ssize_t length = fd < 0 ? -1 : read(fd, slots, sizeof slots);
    int reason = errno;
    if (fd >= 0)
        close(fd);
    if (length < 0)
        return error_set(error, "could not read %s: %s", path, strerror(reason));
    for (unsigned i = 0; i < 2; i++)
        if (slot_unpack(&ballot, slots + i * SLOT_STRIDE) && ballot.serial > newest.serial)
            newest = ballot;
    if (newest.serial == 0)
        return error_set(error, "%s is damaged", path);
    *ret_ballot = newest;
    return OK;
}

static bool slot_write(const char *path, const struct ballot *ballot) {
    uint8_t slot[SLOT_BYTES];
    slot_pack(ballot, slot);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool written = pwrite(fd, slot, sizeof slot, (off_t)(ballot->serial % 2 * SLOT_STRIDE)) == (ssize_t)sizeof slot &&
                   fdatasync(fd) == 0;
    int reason = errno;
    close(fd);
    errno = reason;
    return written;
}

status ballot_write(struct ballot *ballot, const char *directory, uint64_t term, uint64_t vote, uint64_t last_index,
                    struct error *error) {
    char path[PATH_MAX_LENGTH + 16];
    struct ballot next = {.serial = ballot->serial + 1,
                          .term = term,
                          .vote = vote,
                          .previous_term = ballot->term,
                          .previous_vote = ballot->vote,
                          .last_index = last_index};
    ballot_path(directory, path, sizeof path);
    if (!slot_write(path, &next))
        return error_set(error, "could not write %s: %s", path, strerror(errno));
    *ballot = next;
    return OK;
}

bool ballot_agrees(const struct ballot *ballot, uint64_t term, uint64_t vote) {
    return (term == ballot->term && vote == ballot->vote) ||
           (term == ballot->previous_term && vote == ballot->previous_vote);
}
