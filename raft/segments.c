#include "raft/segments.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raft/frame.h"

/* A segment is a format (8), then batches of entries: CRC-32 of the header (4), of the data (4); the header: count (8)
 * and for each entry term (8), type and padding (4), size (4); the data. Not yet written, it is all zeros.
 *
 * What a power cut tears is the last write, and by whole sectors: a sector of it holds what was there before, and that
 * is zeros at least from where the write began. So a batch that is damaged, but has no such hole, was whole once. */
#define FORMAT_BYTES 8
#define BATCH_FIXED  16
#define ENTRY_BYTES  16
#define SECTOR       512

uint32_t segment_checksum(const uint8_t *bytes, size_t length) {
    uint32_t crc = 0;
    for (size_t i = 0; i < length; i++) {
        crc ^= (uint32_t)bytes[i] << 24;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc << 1 ^ (crc >> 31 != 0 ? 0x04c11db7u : 0);
    }
    return crc;
}

static bool zeros(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/* True if one of the sectors that a write from `start` to `end` touched has nothing from there on. */
static bool has_hole(const uint8_t *bytes, size_t length, size_t start, size_t end) {
    while (start < end) {
        size_t next = (start / SECTOR + 1) * SECTOR;
        next = next < length ? next : length;
        if (zeros(bytes + start, next - start))
            return true;
        start = next;
    }
    return false;
}

/* How far the batch at the beginning of `bytes` reaches, as far as that can be told: its header can be believed only if
 * its checksum is right. */
static size_t batch_extent(const uint8_t *bytes, size_t length, bool *ret_sound) {
    *ret_sound = false;
    if (length < BATCH_FIXED)
        return length;
    uint64_t count = get_u64(bytes + 8), data = 0;
    if (count == 0 || count > (length - BATCH_FIXED) / ENTRY_BYTES)
        return BATCH_FIXED;
    size_t header = 8 + (size_t)count * ENTRY_BYTES;
    if (segment_checksum(bytes + 8, header) != get_u32(bytes))
        return 8 + header;
    for (uint64_t i = 0; i < count; i++)
        data += (get_u32(bytes + BATCH_FIXED + i * ENTRY_BYTES + 12) + 7u) / 8 * 8;
    if (data > length - 8 - header)
        return length;
    *ret_sound = segment_checksum(bytes + 8 + header, data) == get_u32(bytes + 4);
    return 8 + header + (size_t)data;
}

status segment_check(const uint8_t *bytes, size_t length, bool *ret_torn, struct error *error) {
    size_t at = FORMAT_BYTES, end = length, extent = FORMAT_BYTES;
    bool sound = true;
    while (end > 0 && bytes[end - 1] == 0)
        end--;
    *ret_torn = false;
    if (end == 0)
        return OK;
    if (length < FORMAT_BYTES || (get_u64(bytes) != 1 && !zeros(bytes, FORMAT_BYTES)))
        return error_set(error, "damaged at its beginning");
    while (sound && at < end) {
        extent = batch_extent(bytes + at, length - at, &sound);
        at += sound ? extent : 0;
    }
    if (sound)
        return OK;
    if (!has_hole(bytes, length, at, at + extent))
        return error_set(error, "damaged at byte %zu", at);
    *ret_torn = true;
    return OK;
}

/* ---- files ---- */

/* A snapshot gets its name once it is complete; libraft passes over an empty one. */
static status snapshot_check(const char *path, struct error *error) {
    struct stat facts;
    if (stat(path, &facts) == 0 && facts.st_size == 0)
        return error_set(error, "%s: cut off at byte 0", path);
    return OK;
}

static status file_check(const char *path, size_t size, struct error *error) {
    struct stat facts;
    bool torn;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts) != 0 || facts.st_size > (off_t)(16 * size)) {
        error_set(error, "%s: %s", path, fd < 0 ? strerror(errno) : "of an impossible size");
        if (fd >= 0)
            close(fd);
        return FAILED;
    }
    size_t length = (size_t)facts.st_size;
    uint8_t *bytes = calloc(1, length + 1);
    status result = bytes != NULL && read(fd, bytes, length) == (ssize_t)length
                        ? segment_check(bytes, length, &torn, error)
                        : error_set(error, "could not be read: %s", strerror(errno));
    /* It gets its size before anything else. */
    if (result == OK && length < size && !zeros(bytes, length))
        result = error_set(error, "cut off at byte %zu", length);
    free(bytes);
    close(fd);
    return result == OK ? OK : error_prefix(error, "%s", path);
}

status segments_check(const char *log_directory, size_t size, struct error *error) {
    char path[PATH_MAX_LENGTH + 300];
    DIR *directory = opendir(log_directory);
    status result = OK;
    if (directory == NULL)
        return error_set(error, "could not open %s: %s", log_directory, strerror(errno));
    for (struct dirent *entry; result == OK && (entry = readdir(directory)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", log_directory, entry->d_name);
        if (strncmp(entry->d_name, "open-", 5) == 0)
            result = file_check(path, size, error);
        else if (strncmp(entry->d_name, "snapshot-", 9) == 0)
            result = snapshot_check(path, error);
    }
    closedir(directory);
    return result;
}
