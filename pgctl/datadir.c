#include "pgctl/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgctl/file.h"

/* ---- control file ---- */

status control_read(struct control *ret_control, const char *data_directory, struct error *error) {
    struct { /* the beginning of ControlFileData, the same in every version that we know */
        uint64_t system_identifier;
        uint32_t version, catalog_version, state;
        int64_t time;
        uint64_t checkpoint, redo;
        uint32_t timeline;
    } raw;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/global/pg_control", data_directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, "%s: %s", path, strerror(errno));
    ssize_t length = read(fd, &raw, sizeof raw);
    close(fd);
    if (length != (ssize_t)sizeof raw)
        return error_set(error, "%s: too short", path);
    *ret_control = (struct control){raw.system_identifier, raw.version, raw.state, raw.timeline};
    return OK;
}

bool datadir_in_use(const char *path) {
    char file[PATH_MAX];
    snprintf(file, sizeof file, "%s/postmaster.pid", path);
    char *text = file_read(file);
    long pid = text != NULL ? strtol(text, NULL, 10) : 0;
    free(text);
    return pid > 1 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

/* ---- label ---- */

static const char *const label_states[] = {[LABEL_COMPLETE] = "complete", [LABEL_REWINDING] = "rewinding"};

status label_write(const char *label_path, const char *path, uint32_t copy, enum label_state state,
                   struct error *error) {
    char text[256];
    struct stat at;
    struct control control;
    if (stat(path, &at) != 0)
        return error_set(error, "%s: %s", path, strerror(errno));
    if (control_read(&control, path, error) == FAILED)
        return FAILED;
    snprintf(text, sizeof text, "copy %u\nsystem %" PRIu64 "\ndevice %ju\ninode %ju\nstate %s\n", copy,
             control.system_identifier, (uintmax_t)at.st_dev, (uintmax_t)at.st_ino, label_states[state]);
    return file_write_checked(label_path, 0600, text, error);
}

/* FAILED: damaged. Without a label `device` and `inode` are those of no directory. */
static status label_read(struct label *ret_label, const char *label_path, struct error *error) {
    struct label label = {0};
    char state[16];
    char *text;
    if (file_read_checked(&text, label_path, error) == FAILED)
        return FAILED;
    int fields =
        text == NULL
            ? 0
            : sscanf(text, "copy %" SCNu32 " system %" SCNu64 " device %" SCNu64 " inode %" SCNu64 " state %15s",
                     &label.copy, &label.system_identifier, &label.device, &label.inode, state);
    if (text != NULL && fields != 5) {
        free(text);
        return error_set(error, "%s is malformed", label_path);
    }
    if (text != NULL)
        label.state = strcmp(state, label_states[LABEL_COMPLETE]) == 0 ? LABEL_COMPLETE : LABEL_REWINDING;
    free(text);
    *ret_label = label;
    return OK;
}

static bool label_is_for(const struct label *label, const char *path) {
    struct stat at;
    return stat(path, &at) == 0 && label->device == at.st_dev && label->inode == at.st_ino;
}

/* ---- state ---- */

static bool is_empty(const char *path) {
    DIR *directory = opendir(path);
    bool empty = true;
    const struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        empty &= strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (directory != NULL)
        closedir(directory);
    return directory != NULL && empty;
}

bool datadir_is_gone(const char *path) { return (access(path, F_OK) != 0 && errno == ENOENT) || is_empty(path); }

static void refuse(struct datadir *datadir, const char *path, const char *why) {
    datadir->state = DATA_REFUSED;
    snprintf(datadir->refused, sizeof datadir->refused, "%.80s %s", path, why);
}

/* "" if all is well, else why this is no data directory that the programs could serve. */
static void check_version(struct datadir *datadir, const char *path, const struct version *version) {
    char file[PATH_MAX], why[96];
    snprintf(file, sizeof file, "%s/PG_VERSION", path);
    char *text = file_read(file);
    unsigned long major = text != NULL ? strtoul(text, NULL, 10) : 0;
    free(text);
    if (major == 0)
        refuse(datadir, path, "is not empty and no data directory of PostgreSQL");
    else if (major != version->major) {
        snprintf(why, sizeof why, "is of PostgreSQL %lu, the programs are of PostgreSQL %u", major, version->major);
        refuse(datadir, path, why);
    }
}

static void check_control(struct datadir *datadir, const char *path, const struct version *version) {
    struct control control;
    if (control_read(&control, path, NULL) == FAILED)
        refuse(datadir, path, "has no readable global/pg_control");
    else if (control.version != version->control_version)
        refuse(datadir, path, "has a global/pg_control of another version");
    else
        datadir->system_identifier = control.system_identifier;
}

static void check_label(struct datadir *datadir, const char *path, const char *label_path) {
    struct label label;
    struct error damage;
    if (label_read(&label, label_path, &damage) == FAILED) {
        if (datadir->state == DATA_COMPLETE) {
            datadir->label_damaged = true;
            datadir->state = DATA_REFUSED;
            snprintf(datadir->refused, sizeof datadir->refused, "%.140s", damage.text);
        }
        return;
    }
    if (!label_is_for(&label, path))
        return;
    if (datadir->state == DATA_COMPLETE && label.system_identifier != datadir->system_identifier)
        return;
    datadir->copy = label.copy;
    if (label.state == LABEL_REWINDING)
        datadir->state = DATA_BROKEN;
}

void datadir_look(struct datadir *ret_datadir, const char *path, const char *label_path,
                  const struct version *version) {
    struct datadir look = {.state = DATA_COMPLETE};
    struct stat at;
    char file[PATH_MAX];
    if (stat(path, &at) != 0) {
        if (errno == ENOENT)
            look.state = DATA_EMPTY;
        else
            refuse(&look, path, strerror(errno));
    } else if (!S_ISDIR(at.st_mode))
        refuse(&look, path, "is not a directory");
    else if (at.st_uid != geteuid())
        refuse(&look, path, "belongs to another user");
    else if (is_empty(path))
        look.state = DATA_EMPTY;
    else
        check_version(&look, path, version);
    if (look.state == DATA_COMPLETE)
        check_control(&look, path, version);
    if (look.state != DATA_EMPTY)
        check_label(&look, path, label_path);
    snprintf(file, sizeof file, "%s/standby.signal", path);
    look.standby_signal = file_exists(file);
    *ret_datadir = look;
}

status datadir_swap(const char *path, const char *fresh, struct error *error) {
    int code = file_exists(path) ? renameat2(AT_FDCWD, fresh, AT_FDCWD, path, RENAME_EXCHANGE) : rename(fresh, path);
    if (code != 0)
        return error_set(error, "rename %s to %s: %s", fresh, path, strerror(errno));
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(parent, sizeof parent, "%.*s", slash != NULL ? (int)(slash - path + 1) : 1, slash != NULL ? path : ".");
    return directory_sync(parent, error);
}

status datadir_finish_swap(const char *path, const char *fresh, const char *label_path, struct error *error) {
    struct label label;
    struct error damage; /* which does not hide: whoever looks at the directory says so */
    if (label_read(&label, label_path, &damage) == FAILED || label.state != LABEL_COMPLETE ||
        !label_is_for(&label, fresh))
        return OK;
    return datadir_swap(path, fresh, error);
}

/* ---- pledge ---- */

status pledge_read(uint32_t *ret_epoch, const char *path, struct error *error) {
    char *text;
    uint32_t epoch = 0;
    if (file_read_checked(&text, path, error) == FAILED)
        return FAILED;
    bool sound = text == NULL || sscanf(text, "epoch %" SCNu32, &epoch) == 1;
    free(text);
    if (!sound)
        return error_set(error, "%s is malformed", path);
    *ret_epoch = epoch;
    return OK;
}

status pledge_write(const char *path, uint32_t epoch, struct error *error) {
    char text[32];
    snprintf(text, sizeof text, "epoch %u\n", epoch);
    return file_write_checked(path, 0600, text, error);
}

/* ---- timelines ---- */

static void wal_directory(char *path, const char *data_directory) {
    snprintf(path, PATH_MAX, "%s/pg_wal", data_directory);
}

static void history_path(char *path, const char *data_directory, uint32_t timeline) {
    snprintf(path, PATH_MAX, "%s/pg_wal/%08" PRIX32 ".history", data_directory, timeline);
}

static bool is_history(const char *name, uint32_t *timeline) {
    int length = 0;
    return sscanf(name, "%8" SCNx32 ".history%n", timeline, &length) == 1 && length == 16 && name[length] == '\0';
}

/* Calls `each` for the history files with ids above `above`. */
static status histories(const char *data_directory, uint32_t above,
                        status (*each)(void *user, const char *path, uint32_t timeline, bool real, struct error *error),
                        void *user, struct error *error) {
    char wal[PATH_MAX], path[PATH_MAX];
    const struct dirent *entry;
    uint32_t timeline;
    struct stat at;
    status result = OK;
    wal_directory(wal, data_directory);
    DIR *directory = opendir(wal);
    if (directory == NULL)
        return error_set(error, "%s: %s", wal, strerror(errno));
    while (result == OK && (entry = readdir(directory)) != NULL) {
        if (!is_history(entry->d_name, &timeline) || timeline <= above)
            continue;
        history_path(path, data_directory, timeline);
        if (stat(path, &at) == 0)
            result = each(user, path, timeline, at.st_size > 0, error);
    }
    closedir(directory);
    return result;
}

static status note_highest(void *user, const char *path, uint32_t timeline, bool real, struct error *error) {
    (void)path, (void)error;
    uint32_t *highest = user;
    if (real && timeline > *highest)
        *highest = timeline;
    return OK;
}

static status remove_one(void *user, const char *path, uint32_t timeline, bool real, struct error *error) {
    (void)user, (void)timeline, (void)real;
    return unlink(path) == 0 ? OK : error_set(error, "%s: %s", path, strerror(errno));
}

static status set_aside_one(void *user, const char *path, uint32_t timeline, bool real, struct error *error) {
    char aside[PATH_MAX];
    unsigned *count = user;
    (void)timeline;
    if (!real)
        return OK;
    snprintf(aside, sizeof aside, "%s.void", path);
    ++*count;
    return rename(path, aside) == 0 ? OK : error_set(error, "%s: %s", path, strerror(errno));
}

static status wal_sync(const char *data_directory, struct error *error) {
    char wal[PATH_MAX];
    wal_directory(wal, data_directory);
    return directory_sync(wal, error);
}

status placeholders_remove_trailing(const char *data_directory, struct error *error) {
    uint32_t highest = 0;
    if (histories(data_directory, 0, note_highest, &highest, error) == FAILED ||
        histories(data_directory, highest, remove_one, NULL, error) == FAILED)
        return FAILED;
    return wal_sync(data_directory, error);
}

status placeholders_write(const char *data_directory, uint32_t above, uint32_t below, struct error *error) {
    for (uint32_t timeline = above + 1; timeline < below; timeline++) {
        char path[PATH_MAX];
        history_path(path, data_directory, timeline);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return error_set(error, "%s: %s", path, strerror(errno));
        close(fd);
    }
    return wal_sync(data_directory, error);
}

status histories_set_aside(const char *data_directory, uint32_t above, unsigned *ret_count, struct error *error) {
    unsigned count = 0;
    if (histories(data_directory, above, set_aside_one, &count, error) == FAILED ||
        (count > 0 && wal_sync(data_directory, error) == FAILED))
        return FAILED;
    *ret_count = count;
    return OK;
}
