#include "pgctl/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/panic.h"

static status failed(struct error *error, const char *path) {
    return error_set(error, "%s: %s", path, strerror(errno));
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

char *file_read(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct stat at;
    char *text = NULL;
    if (fstat(fd, &at) != 0)
        goto done;
    errno = EFBIG;
    if (at.st_size > FILE_TEXT_MAX)
        goto done;
    size_t size = (size_t)at.st_size, length = 0;
    text = malloc(size + 1);
    ssize_t got = 1;
    while (text != NULL && length < size && (got = read(fd, text + length, size - length)) > 0)
        length += (size_t)got;
    if (text != NULL)
        text[length] = '\0';
done:
    close(fd);
    return text;
}

static status written(int fd, const char *path, const char *text, struct error *error) {
    for (size_t left = strlen(text); left > 0;) {
        ssize_t put = write(fd, text, left);
        if (put < 0)
            return failed(error, path);
        text += put;
        left -= (size_t)put;
    }
    return fsync(fd) == 0 ? OK : failed(error, path);
}

static status parent_sync(const char *path, struct error *error) {
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(parent, sizeof parent, "%.*s", slash != NULL ? (int)(slash - path) : 1, slash != NULL ? path : ".");
    return directory_sync(parent, error);
}

status directory_sync(const char *path, struct error *error) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed(error, path);
    status synced = fsync(fd) == 0 ? OK : failed(error, path);
    close(fd);
    return synced;
}

status file_write(const char *path, mode_t mode, const char *text, struct error *error) {
    char temporary[PATH_MAX];
    snprintf(temporary, sizeof temporary, "%s.ttorch-new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return failed(error, temporary);
    status result = fchmod(fd, mode) == 0 ? written(fd, temporary, text, error) : failed(error, temporary);
    close(fd);
    if (result == OK && rename(temporary, path) != 0)
        result = failed(error, path);
    return result == OK ? parent_sync(path, error) : FAILED;
}

#define CHECK "check %08" PRIx32 "\n"

static int checked_text(char *buffer, size_t size, const char *text, size_t length) {
    return snprintf(buffer, size, "%.*s" CHECK, (int)length, text, crc32_update(0, (const uint8_t *)text, length));
}

status file_write_checked(const char *path, mode_t mode, const char *text, struct error *error) {
    char checked[FILE_CHECKED_MAX + 32];
    size_t length = strlen(text);
    require(length <= FILE_CHECKED_MAX);
    checked_text(checked, sizeof checked, text, length);
    return file_write(path, mode, checked, error);
}

status file_read_checked(char **ret_text, const char *path, struct error *error) {
    char expected[FILE_CHECKED_MAX + 32] = "";
    char *text = file_read(path);
    if (text == NULL && errno == ENOENT) {
        *ret_text = NULL;
        return OK;
    }
    if (text == NULL)
        return failed(error, path);
    char *check = strstr(text, "check ");
    size_t length = check != NULL ? (size_t)(check - text) : 0;
    if (length > 0 && length <= FILE_CHECKED_MAX)
        checked_text(expected, sizeof expected, text, length);
    if (length == 0 || strcmp(text, expected) != 0) {
        free(text);
        return error_set(error, "%s has a wrong checksum", path);
    }
    *check = '\0';
    *ret_text = text;
    return OK;
}

status file_touch(const char *path, struct error *error) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return failed(error, path);
    status result = fsync(fd) == 0 ? OK : failed(error, path);
    close(fd);
    return result == OK ? parent_sync(path, error) : FAILED;
}

void log_shorten(const char *path, off_t most) {
    struct stat log;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &log) == 0 && log.st_blocks * 512 > most && log.st_size > most) {
        off_t old = (log.st_size - most / 2) / log.st_blksize * log.st_blksize;
        if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, old) != 0)
            (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, old);
    }
    close(fd);
}

static bool ends_with(const char *line, size_t length, const char *mark) {
    size_t tail = strlen(mark);
    while (length > 0 && line[length - 1] == '\n')
        length--;
    return length >= tail && memcmp(line + length - tail, mark, tail) == 0;
}

char *text_without(const char *text, const char *begin, const char *end, const char *mark) {
    char *kept = malloc(strlen(text) + 1);
    size_t length = 0;
    bool inside = false;
    if (kept == NULL)
        return NULL;
    for (const char *line = text; *line != '\0';) {
        size_t line_length = strcspn(line, "\n") + (strchr(line, '\n') != NULL);
        if (begin != NULL && strncmp(line, begin, strlen(begin)) == 0)
            inside = true;
        if (!inside && (mark == NULL || !ends_with(line, line_length, mark))) {
            memcpy(kept + length, line, line_length);
            length += line_length;
        }
        if (inside && strncmp(line, end, strlen(end)) == 0)
            inside = false;
        line += line_length;
    }
    kept[length] = '\0';
    return kept;
}
