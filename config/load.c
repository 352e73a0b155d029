#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/panic.h"
#include "config/loader.h"

static void share(struct loader *loader, const struct setting *setting, unsigned member) {
    struct config *config = loader->config;
    require(config->shared_count < sizeof config->shared / sizeof config->shared[0]);
    struct config_shared_line *line = &config->shared[config->shared_count++];
    setting_key(setting, config->members[member].name, line->key, sizeof line->key);
    setting->type->render(setting, setting_base(setting, config, member), line->value, sizeof line->value);
    snprintf(line->file, sizeof line->file, "%s", loader->file);
    line->line = given(loader, setting, member)->value.line;
}

/* Member by member, then the rest in the order of the table. */
static void share_all(struct loader *loader) {
    for (unsigned member = 0; member < loader->config->members_count; member++)
        for (unsigned i = 0; i < settings_count; i++)
            if (settings[i].shared && setting_of_members(&settings[i]))
                share(loader, &settings[i], member);
    for (unsigned i = 0; i < settings_count; i++)
        if (settings[i].shared && !setting_of_members(&settings[i]))
            share(loader, &settings[i], 0);
}

static void finish(struct loader *loader) {
    struct config *config = loader->config;
    snprintf(config->file, sizeof config->file, "%s", loader->file);
    config->postgresql.port = config->members[config->self].postgres_port;
    share_all(loader);
}

static struct loader *loader_new(const char *file, bool outside) {
    struct loader *loader = calloc(1, sizeof *loader);
    struct config *config = calloc(1, sizeof *config);
    require(loader != NULL && config != NULL);
    require(settings_count <= SETTINGS_MAX);
    loader->file = file;
    loader->outside = outside;
    loader->config = config;
    return loader;
}

/* Tells the complaints; hands the settings over if there are none. */
static status loader_end(struct loader *loader, struct config *ret_config, config_complaint *tell, void *user) {
    status result = complaints_tell(loader, tell, user);
    if (result == OK) {
        finish(loader);
        *ret_config = *loader->config;
    }
    free(loader->config);
    free(loader);
    return result;
}

static void parse(struct loader *loader, const char *bytes, size_t length) {
    if (!read_document(loader, bytes, length))
        return;
    complete(loader);
    check(loader);
}

status config_parse(struct config *ret_config, const char *file, const char *bytes, size_t length, bool outside,
                    config_complaint *tell, void *user) {
    struct loader *loader = loader_new(file, outside);
    parse(loader, bytes, length);
    return loader_end(loader, ret_config, tell, user);
}

/* Up to FILE_BYTES_MAX + 1 bytes. A pipe or a device is none of our files, and could block. */
static status read_file(const char *file, char *bytes, size_t *ret_length, struct error *error) {
    struct stat info;
    size_t length = 0;
    ssize_t got = 0;
    int input = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (input < 0)
        return error_set(error, "%s", strerror(errno));
    if (fstat(input, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(input);
        return error_set(error, "it is no regular file");
    }
    while (length <= FILE_BYTES_MAX && (got = read(input, bytes + length, FILE_BYTES_MAX + 1 - length)) > 0)
        length += (size_t)got;
    status result = got < 0 ? error_set(error, "%s", strerror(errno)) : OK;
    close(input);
    *ret_length = length;
    return result;
}

static status load(struct config *ret_config, const char *file, bool outside, config_complaint *tell, void *user) {
    struct loader *loader = loader_new(file, outside);
    char *bytes = malloc(FILE_BYTES_MAX + 1);
    size_t length = 0;
    struct error error;
    require(bytes != NULL);
    if (strlen(file) > PATH_MAX_LENGTH)
        complain(loader, (struct place){1, 1}, "the file's name is too long");
    else if (read_file(file, bytes, &length, &error) != OK)
        complain(
            loader, (struct place){1, 1},
            "cannot read the configuration: %s: make the file readable for this user, or name another with --config",
            error.text);
    else if (length > FILE_BYTES_MAX)
        complain(loader, (struct place){1, 1}, "the file has more than %d bytes: this is no configuration",
                 FILE_BYTES_MAX);
    else
        parse(loader, bytes, length);
    free(bytes);
    return loader_end(loader, ret_config, tell, user);
}

status config_load(struct config *ret_config, const char *file, config_complaint *tell, void *user) {
    return load(ret_config, file, true, tell, user);
}

status config_load_for_client(struct config *ret_config, const char *file, config_complaint *tell, void *user) {
    return load(ret_config, file, false, tell, user);
}

void config_socket_path(const struct config *config, char *buffer, size_t size) {
    snprintf(buffer, size, "%s/ttorchd.sock", config->runtime_directory);
}
