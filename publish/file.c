#include "publish/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static status write_all(int fd, const char *text) {
    for (size_t left = strlen(text); left > 0;) {
        ssize_t done = write(fd, text, left);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return FAILED;
        text += done;
        left -= (size_t)done;
    }
    return OK;
}

static status write_durably(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return FAILED;
    /* The umask must not decide who may read it. */
    status result = write_all(fd, text) == OK && fchmod(fd, 0644) == 0 && fsync(fd) == 0 ? OK : FAILED;
    int why = errno;
    close(fd);
    errno = why;
    return result;
}

static status fsync_directory_of(const char *path) {
    char copy[PATH_MAX_LENGTH + 1];
    snprintf(copy, sizeof copy, "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return FAILED;
    status result = fsync(fd) == 0 ? OK : FAILED;
    int why = errno;
    close(fd);
    errno = why;
    return result;
}

status file_replace(const char *path, const char *text, struct error *error) {
    char fresh[PATH_MAX_LENGTH + 8];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    if (write_durably(fresh, text) == OK && rename(fresh, path) == 0 && fsync_directory_of(path) == OK)
        return OK;
    error_set(error, "%s: %s", path, strerror(errno));
    unlink(fresh);
    return FAILED;
}
