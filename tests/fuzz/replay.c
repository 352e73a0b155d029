/* Runs a fuzz target over files, with any compiler: replay FILE... or DIRECTORY... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static unsigned replayed;

static void replay_file(const char *path) {
    char *bytes = NULL;
    size_t length = 0;
    FILE *in = fopen(path, "rb"), *out = open_memstream(&bytes, &length);
    require(in != NULL && out != NULL);
    for (int c; (c = fgetc(in)) != EOF;)
        fputc(c, out);
    fclose(in);
    fclose(out);
    LLVMFuzzerTestOneInput((const uint8_t *)bytes, length);
    free(bytes);
    replayed++;
}

static void replay_directory(const char *directory) {
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);
    if (count < 0) {
        replay_file(directory);
        return;
    }
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            replay_file(path);
        free(entries[i]);
    }
    free(entries);
}

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++)
        replay_directory(arguments[i]);
    printf("%u inputs\n", replayed);
    return replayed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
