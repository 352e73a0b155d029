#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/settings.h"

/* The major version in PG_VERSION, "" if there is none. */
static void read_version(const char *data_directory, char version[16]) {
    char path[PATH_MAX_LENGTH + 16];
    snprintf(path, sizeof path, "%s/PG_VERSION", data_directory);
    FILE *file = data_directory[0] == '/' ? fopen(path, "re") : NULL;
    if (file == NULL || fgets(version, 16, file) == NULL)
        version[0] = '\0';
    version[strspn(version, "0123456789")] = '\0';
    if (file != NULL)
        fclose(file);
}

static bool is_of_version(const char *program, const char *version) {
    char part[32];
    snprintf(part, sizeof part, "/%s/bin/", version);
    return version[0] != '\0' && strstr(program, part) != NULL;
}

bool programs_find(const char *pattern, const char *data_directory, char *ret_directory, size_t size) {
    char version[16];
    glob_t found;
    const char *best = NULL;
    read_version(data_directory, version);
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *program = found.gl_pathv[i];
        if (access(program, X_OK) != 0)
            continue;
        bool of_version = is_of_version(program, version), best_is = best != NULL && is_of_version(best, version);
        if (best == NULL || of_version > best_is || (of_version == best_is && strverscmp(program, best) > 0))
            best = program;
    }
    if (best != NULL)
        snprintf(ret_directory, size, "%.*s", (int)(strrchr(best, '/') - best), best);
    globfree(&found);
    return best != NULL;
}
