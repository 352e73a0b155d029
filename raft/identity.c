#include "raft/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raft/frame.h"

/* The last line is a checksum of those before. */
#define FORMAT                                                                                   \
    "ttorch identity 2\ncluster_id %016" PRIx64 "\nraft_id %016" PRIx64 "\nstart_count %" PRIu32 \
    "\nfounding %d\nlog_begun %d\nrejoining %d\n"
#define CHECK "check %08" PRIx32 "\n"

status identity_random(uint64_t *ret_number, struct error *error) {
    uint64_t number = 0;
    while (number == 0) {
        if (getrandom(&number, sizeof number, 0) != sizeof number)
            return error_set(error, "could not get random bytes: %s", strerror(errno));
        number >>= 1;
    }
    *ret_number = number;
    return OK;
}

static status directory_prepare(const char *directory, struct error *error) {
    struct stat facts;
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return error_set(error, "could not create directory %s: %s", directory, strerror(errno));
    if (stat(directory, &facts) != 0)
        return error_set(error, "could not look at %s: %s", directory, strerror(errno));
    if (!S_ISDIR(facts.st_mode))
        return error_set(error, "%s is not a directory", directory);
    if (facts.st_uid != geteuid())
        return error_set(error, "directory %s belongs to user %u, not to us (%u)", directory, facts.st_uid, geteuid());
    return OK;
}

static status directory_sync(const char *directory, struct error *error) {
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    int reason = errno;
    if (fd >= 0)
        close(fd);
    return synced ? OK : error_set(error, "could not sync directory %s: %s", directory, strerror(reason));
}

static bool file_write(const char *path, const char *text, size_t length) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool written = write(fd, text, length) == (ssize_t)length && fsync(fd) == 0;
    int reason = errno;
    bool closed = close(fd) == 0;
    if (!written)
        errno = reason;
    return written && closed;
}

static int identity_text(const struct identity *identity, char *text, size_t size) {
    int length = snprintf(text, size, FORMAT, identity->cluster_id, identity->raft_id, identity->start_count,
                          identity->founding, identity->log_begun, identity->rejoining);
    uint32_t check = crc32_update(0, (const uint8_t *)text, (size_t)length);
    return length + snprintf(text + length, size - (size_t)length, CHECK, check);
}

status identity_write(const struct identity *identity, const char *directory, struct error *error) {
    char path[PATH_MAX_LENGTH + 16], temporary[PATH_MAX_LENGTH + 20], text[256];
    snprintf(path, sizeof path, "%s/identity", directory);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    int length = identity_text(identity, text, sizeof text);
    if (!file_write(temporary, text, (size_t)length) || rename(temporary, path) != 0)
        return error_set(error, "could not write %s: %s", path, strerror(errno));
    return directory_sync(directory, error);
}

static status identity_parse(struct identity *ret_identity, const char *text, const char *path, struct error *damage) {
    struct identity read = {0};
    char expected[256];
    int founding, begun, rejoining;
    int fields = sscanf(text,
                        "ttorch identity 2\ncluster_id %16" SCNx64 "\nraft_id %16" SCNx64 "\nstart_count %" SCNu32
                        "\nfounding %1d\nlog_begun %1d\nrejoining %1d\n",
                        &read.cluster_id, &read.raft_id, &read.start_count, &founding, &begun, &rejoining);
    if (fields != 6 || read.raft_id == 0)
        return error_set(damage, "%s is malformed", path);
    read.founding = founding != 0;
    read.log_begun = begun != 0;
    read.rejoining = rejoining != 0;
    identity_text(&read, expected, sizeof expected);
    if (strcmp(text, expected) != 0)
        return error_set(damage, "%s has a wrong checksum", path);
    *ret_identity = read;
    return OK;
}

static status identity_fresh(struct identity *ret_identity, const char *directory, struct error *damage) {
    char log[PATH_MAX_LENGTH + 16];
    snprintf(log, sizeof log, "%s/log", directory);
    if (access(log, F_OK) == 0)
        return error_set(damage, "%s has a log but no identity file", directory);
    *ret_identity = (struct identity){0};
    return identity_random(&ret_identity->raft_id, damage);
}

static status directory_lock(int *ret_fd, const char *directory, struct error *error) {
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *ret_fd = fd;
        return OK;
    }
    error_set(error, "could not lock %s: %s", directory, errno == EWOULDBLOCK ? "in use" : strerror(errno));
    if (fd >= 0)
        close(fd);
    return FAILED;
}

void identity_close(struct identity *identity) {
    if (identity->lock >= 0)
        close(identity->lock);
    identity->lock = -1;
}

/* FAILED: what is there can't be trusted, for the reason in `damage`. */
static status identity_load(struct identity *ret_identity, const char *directory, struct error *damage) {
    char path[PATH_MAX_LENGTH + 16], text[512];
    snprintf(path, sizeof path, "%s/identity", directory);
    FILE *file = fopen(path, "re");
    if (file == NULL && errno == ENOENT)
        return identity_fresh(ret_identity, directory, damage);
    if (file == NULL)
        return error_set(damage, "could not open %s: %s", path, strerror(errno));
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fclose(file);
    return identity_parse(ret_identity, text, path, damage);
}

status identity_open(struct identity *ret_identity, const char *directory, struct error *ret_damage,
                     struct error *error) {
    struct identity identity;
    int lock;
    ret_damage->text[0] = '\0';
    if (directory_prepare(directory, error) != OK || directory_lock(&lock, directory, error) != OK)
        return FAILED;
    if (identity_load(&identity, directory, ret_damage) != OK) {
        *ret_identity = (struct identity){.lock = lock};
        return OK;
    }
    identity.start_count++;
    if (identity_write(&identity, directory, error) != OK) {
        close(lock);
        return FAILED;
    }
    *ret_identity = identity;
    ret_identity->lock = lock;
    return OK;
}

/* ---- beginning anew ---- */

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *at) {
    (void)facts, (void)kind, (void)at;
    return remove(path);
}

/* The directory itself stays: it may be the root of a file system. */
static status set_aside(const char *directory, struct error *error) {
    static const char *const names[] = {"identity", "ballot", "log"};
    char from[PATH_MAX_LENGTH + 16], to[PATH_MAX_LENGTH + 32];
    snprintf(to, sizeof to, "%s/damaged", directory);
    if (nftw(to, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return error_set(error, "could not remove %s: %s", to, strerror(errno));
    if (mkdir(to, 0700) != 0)
        return error_set(error, "could not create %s: %s", to, strerror(errno));
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(from, sizeof from, "%s/%s", directory, names[i]);
        snprintf(to, sizeof to, "%s/damaged/%s", directory, names[i]);
        if (rename(from, to) != 0 && errno != ENOENT)
            return error_set(error, "could not rename %s to %s: %s", from, to, strerror(errno));
    }
    return OK;
}

status identity_reset(const char *directory, struct error *error) {
    struct identity identity = {.rejoining = true};
    int lock;
    if (identity_random(&identity.raft_id, error) != OK || directory_prepare(directory, error) != OK ||
        directory_lock(&lock, directory, error) != OK)
        return FAILED;
    status result = set_aside(directory, error);
    if (result == OK)
        result = identity_write(&identity, directory, error);
    close(lock);
    return result;
}
