#include "pgctl/tablespaces.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_LINE "locations\n"
#define OURS       "ttorch-"

/* ---- lists ---- */

void paths_free(struct paths *paths) {
    for (unsigned i = 0; i < paths->count; i++)
        free(paths->list[i]);
    paths->count = 0;
}

static void paths_add(struct paths *paths, const char *path) {
    char *copy = paths->count < sizeof paths->list / sizeof *paths->list ? strdup(path) : NULL;
    if (copy != NULL)
        paths->list[paths->count++] = copy;
}

static bool paths_have(const struct paths *paths, const char *path) {
    for (unsigned i = 0; i < paths->count; i++)
        if (strcmp(paths->list[i], path) == 0)
            return true;
    return false;
}

/* ---- names ---- */

static const char *last_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* "ttorch-m2-7"; of any member if `member` is NULL. */
static bool is_ours(const char *name, const char *member) {
    size_t length = strlen(OURS);
    if (strncmp(name, OURS, length) != 0)
        return false;
    const char *number = strrchr(name, '-') + 1;
    bool numbered = number > name + length && *number != '\0' && strspn(number, "0123456789") == strlen(number);
    size_t between = (size_t)(number - name) - length;
    return numbered &&
           (member == NULL || (between == strlen(member) + 1 && strncmp(name + length, member, between - 1) == 0));
}

/* The location that users know: without a directory of ours at its end. */
static int location_length(const char *path) {
    const char *name = last_name(path);
    return is_ours(name, NULL) && name > path + 1 ? (int)(name - path - 1) : (int)strlen(path);
}

/* ---- of a clone ---- */

static char *mapping(const char *from, const char *member, uint32_t copy) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    fputs("--tablespace-mapping=", out);
    for (int side = 0; side < 2; side++) {
        int length = side == 0 ? (int)strlen(from) : location_length(from);
        for (int i = 0; i < length; i++)
            fprintf(out, "%s%c", from[i] == '=' ? "\\" : "", from[i]);
        if (side == 0)
            fputc('=', out);
    }
    fprintf(out, "/" OURS "%s-%" PRIu32, member, copy);
    fclose(out);
    return text;
}

status tablespaces_map(struct paths *ret_options, const char *listing, const char *member, uint32_t copy,
                       struct error *error) {
    struct paths options = {0};
    if (strncmp(listing, FIRST_LINE, strlen(FIRST_LINE)) != 0)
        return error_set(error, "the tablespaces of the upstream could not be listed");
    for (const char *line = listing + strlen(FIRST_LINE); *line != '\0';) {
        char path[PATH_MAX];
        size_t length = strcspn(line, "\n");
        if (length == 0 || length >= sizeof path || line[0] != '/' || options.count == TABLESPACES_MAX) {
            paths_free(&options);
            return error_set(error, "tablespace %.80s: more than %d, or a path that cannot be cloned", line,
                             TABLESPACES_MAX);
        }
        snprintf(path, sizeof path, "%.*s", (int)length, line);
        options.list[options.count] = mapping(path, member, copy);
        options.count += options.list[options.count] != NULL;
        line += length + (line[length] == '\n');
    }
    *ret_options = options;
    return OK;
}

/* ---- of a data directory ---- */

static void links_of(struct paths *links, const char *data_directory) {
    char path[PATH_MAX], link[PATH_MAX], target[PATH_MAX];
    snprintf(path, sizeof path, "%s/pg_tblspc", data_directory);
    DIR *directory = opendir(path);
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        if (snprintf(link, sizeof link, "%s/%s", path, entry->d_name) >= (int)sizeof link)
            continue;
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length <= 0 || target[0] != '/')
            continue; /* in place, and so a part of the data directory */
        target[length] = '\0';
        paths_add(links, target);
    }
    if (directory != NULL)
        closedir(directory);
}

/* Adds what is in `path`, begins with `prefix`, and, if `member` is given, is a directory of ours for it. */
static void entries_of(struct paths *paths, const char *path, const char *prefix, const char *member) {
    char file[PATH_MAX];
    DIR *directory = opendir(path);
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && (member == NULL || is_ours(entry->d_name, member)) &&
            snprintf(file, sizeof file, "%s/%s", path, entry->d_name) < (int)sizeof file)
            paths_add(paths, file);
    if (directory != NULL)
        closedir(directory);
}

/* Of a directory of ours, that one, and others of this member beside it; else the server's own in the location. */
static void content_of(struct paths *paths, const char *target, const char *member, unsigned major) {
    char location[PATH_MAX], prefix[24];
    snprintf(location, sizeof location, "%.*s", location_length(target), target);
    snprintf(prefix, sizeof prefix, "PG_%u_", major);
    if (strcmp(location, target) == 0)
        entries_of(paths, location, prefix, NULL);
    entries_of(paths, location, OURS, member);
}

void tablespaces_of_leftover(struct paths *paths, const char *leftover, const char *current, const char *member,
                             unsigned major) {
    struct paths links = {0}, used = {0}, found = {0};
    links_of(&links, leftover);
    links_of(&used, current);
    for (unsigned i = 0; i < links.count; i++)
        if (!paths_have(&used, links.list[i]))
            content_of(&found, links.list[i], member, major);
    for (unsigned i = 0; i < found.count; i++)
        if (!paths_have(&used, found.list[i]) && !paths_have(paths, found.list[i]))
            paths_add(paths, found.list[i]);
    paths_free(&links);
    paths_free(&used);
    paths_free(&found);
}

bool tablespaces_overlap(const char *data_directory, char *ret_path) {
    struct paths links = {0}, others = {0};
    char location[PATH_MAX];
    links_of(&links, data_directory);
    for (unsigned i = 0; i < links.count; i++) {
        snprintf(location, sizeof location, "%.*s", location_length(links.list[i]), links.list[i]);
        entries_of(&others, location, strcmp(location, links.list[i]) == 0 ? OURS : "PG_", NULL);
    }
    bool overlap = others.count > 0;
    if (overlap)
        snprintf(ret_path, PATH_MAX, "%s", others.list[0]);
    paths_free(&links);
    paths_free(&others);
    return overlap;
}
