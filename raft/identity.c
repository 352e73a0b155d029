#include "raft/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT                                                                                   \
    "ttorch identity 1\ncluster_id %016" PRIx64 "\nraft_id %016" PRIx64 "\nstart_count %" PRIu32 \
    "\nfounding %d\nlog_begun %d\n"

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

status identity_write(const struct identity *identity, const char *directory, struct error *error) {
    char path[PATH_MAX_LENGTH + 16], temporary[PATH_MAX_LENGTH + 20], text[256];
    snprintf(path, sizeof path, "%s/identity", directory);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    int length = snprintf(text, sizeof text, FORMAT, identity->cluster_id, identity->raft_id, identity->start_count,
                          identity->founding, identity->log_begun);
    if (!file_write(temporary, text, (size_t)length) || rename(temporary, path) != 0)
        return error_set(error, "could not write %s: %s", path, strerror(errno));
    return directory_sync(directory, error);
}

static status identity_parse(struct identity *ret_identity, const char *text, const char *path, struct error *error) {
    struct identity read = {0};
    int founding, begun, end = 0;
    int fields = sscanf(text,
                        "ttorch identity 1\ncluster_id %16" SCNx64 "\nraft_id %16" SCNx64 "\nstart_count %" SCNu32
                        "\nfounding %1d\nlog_begun %1d\n%n",
                        &read.cluster_id, &read.raft_id, &read.start_count, &founding, &begun, &end);
    if (fields != 5 || text[end] != '\0' || read.raft_id == 0 || read.start_count == 0)
        return error_set(error, "%s is malformed; nothing was changed", path);
    read.founding = founding != 0;
    read.log_begun = begun != 0;
    *ret_identity = read;
    return OK;
}

static status identity_fresh(struct identity *ret_identity, const char *directory, struct error *error) {
    char log[PATH_MAX_LENGTH + 16];
    snprintf(log, sizeof log, "%s/log", directory);
    if (access(log, F_OK) == 0)
        return error_set(error, "%s has a log but no identity file; nothing was changed", directory);
    *ret_identity = (struct identity){0};
    return identity_random(&ret_identity->raft_id, error);
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

static status identity_load(struct identity *ret_identity, const char *directory, struct error *error) {
    char path[PATH_MAX_LENGTH + 16], text[512];
    struct identity identity;
    snprintf(path, sizeof path, "%s/identity", directory);
    FILE *file = fopen(path, "re");
    if (file == NULL && errno != ENOENT)
        return error_set(error, "could not open %s: %s", path, strerror(errno));
    if (file == NULL) {
        if (identity_fresh(&identity, directory, error) != OK)
            return FAILED;
    } else {
        size_t length = fread(text, 1, sizeof text - 1, file);
        text[length] = '\0';
        fclose(file);
        if (identity_parse(&identity, text, path, error) != OK)
            return FAILED;
    }
    identity.start_count++;
    if (identity_write(&identity, directory, error) != OK)
        return FAILED;
    *ret_identity = identity;
    return OK;
}

status identity_open(struct identity *ret_identity, const char *directory, struct error *error) {
    struct identity identity;
    int lock;
    if (directory_prepare(directory, error) != OK || directory_lock(&lock, directory, error) != OK)
        return FAILED;
    if (identity_load(&identity, directory, error) != OK) {
        close(lock);
        return FAILED;
    }
    *ret_identity = identity;
    ret_identity->lock = lock;
    return OK;
}
