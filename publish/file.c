#include "publish/file.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANYBODY ((uid_t)-1)

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

/* The owner first: giving a file away may take bits of its mode. */
static bool dress(int fd, const struct file_manner *manner) {
    bool given = manner->uid != ANYBODY || manner->gid != (gid_t)-1;
    return (!given || fchown(fd, manner->uid, manner->gid) == 0) && fchmod(fd, manner->mode) == 0;
}

static void fresh_path(const char *path, char fresh[PATH_MAX_LENGTH + 8]) {
    snprintf(fresh, PATH_MAX_LENGTH + 8, "%s.new", path);
}

static status give_up(const char *path, int fd, struct error *error) {
    char fresh[PATH_MAX_LENGTH + 8];
    int why = errno;
    if (fd >= 0)
        close(fd);
    fresh_path(path, fresh);
    unlink(fresh);
    return error_set(error, "%s: %s", path, strerror(why));
}

status file_begin(struct file_change *ret_change, const char *path, const char *text, const struct file_manner *manner,
                  struct error *error) {
    char fresh[PATH_MAX_LENGTH + 8];
    fresh_path(path, fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write_all(fd, text) != OK || !dress(fd, manner))
        return give_up(path, fd, error);
    if (!manner->quick)
        (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* not every filesystem can; fsync says what fails */
    *ret_change = (struct file_change){.path = path, .fd = fd, .quick = manner->quick};
    return OK;
}

status file_finish(struct file_change *change, struct error *error) {
    char fresh[PATH_MAX_LENGTH + 8];
    fresh_path(change->path, fresh);
    if ((!change->quick && fsync(change->fd) != 0) || rename(fresh, change->path) != 0)
        return give_up(change->path, change->fd, error);
    close(change->fd);
    return OK;
}

static const char *directory_of(const char *path, char copy[PATH_MAX_LENGTH + 1]) {
    snprintf(copy, PATH_MAX_LENGTH + 1, "%s", path);
    return dirname(copy);
}

bool file_same_directory(const char *a, const char *b) {
    char copy_a[PATH_MAX_LENGTH + 1], copy_b[PATH_MAX_LENGTH + 1];
    return strcmp(directory_of(a, copy_a), directory_of(b, copy_b)) == 0;
}

status file_sync_directory(const char *path, struct error *error) {
    char copy[PATH_MAX_LENGTH + 1];
    int fd = open(directory_of(path, copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    int why = errno;
    if (fd >= 0)
        close(fd);
    return synced ? OK : error_set(error, "%s: its directory: %s", path, strerror(why));
}

status file_owner(const char *owner, uid_t *ret_uid, gid_t *ret_gid, struct error *error) {
    char user[128];
    snprintf(user, sizeof user, "%s", owner);
    char *group = strchr(user, ':');
    if (group != NULL)
        *group++ = '\0';
    const struct passwd *of_user = user[0] != '\0' ? getpwnam(user) : NULL;
    if (user[0] != '\0' && of_user == NULL)
        return error_set(error, "there is no user \"%s\"", user);
    uid_t uid = of_user != NULL ? of_user->pw_uid : ANYBODY;
    const struct group *of_group = group != NULL ? getgrnam(group) : NULL;
    if (group != NULL && of_group == NULL)
        return error_set(error, "there is no group \"%s\"", group);
    *ret_gid = of_group != NULL ? of_group->gr_gid : (gid_t)-1;
    *ret_uid = uid;
    return OK;
}

status file_load(const char *path, size_t most, char **ret_text, struct error *error) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    char *text = malloc(most + 2);
    ssize_t length = fd >= 0 && text != NULL ? read(fd, text, most + 1) : -1;
    int why = errno;
    if (fd >= 0)
        close(fd);
    status result = length < 0                ? error_set(error, "%s: %s", path, strerror(why))
                    : (size_t)length > most   ? error_set(error, "%s: has more than %zu bytes", path, most)
                    : memchr(text, 0, length) ? error_set(error, "%s: holds a zero byte", path)
                                              : OK;
    if (result != OK) {
        free(text);
        return FAILED;
    }
    text[length] = '\0';
    *ret_text = text;
    return OK;
}
