/* Our own copy of what the daemon configured. */
#include <stdlib.h>
#include <string.h>

#include "pgctl/internal.h"

static const char *copy_text(const char *text, bool *failed) {
    char *copy = strdup(text != NULL ? text : "");
    *failed |= copy == NULL;
    return copy;
}

static const struct pgctl_parameter *copy_parameters(const struct pgctl_parameter *parameters, unsigned *count,
                                                     bool *failed) {
    struct pgctl_parameter *copy = calloc(*count + 1, sizeof *copy);
    *failed |= copy == NULL;
    if (copy == NULL)
        *count = 0;
    for (unsigned i = 0; i < *count; i++)
        copy[i] =
            (struct pgctl_parameter){copy_text(parameters[i].name, failed), copy_text(parameters[i].value, failed)};
    return copy;
}

static const char *const *copy_lines(const char *const *lines, unsigned *count, bool *failed) {
    const char **copy = calloc(*count + 1, sizeof *copy);
    *failed |= copy == NULL;
    if (copy == NULL)
        *count = 0;
    for (unsigned i = 0; i < *count; i++)
        copy[i] = copy_text(lines[i], failed);
    return copy;
}

#define TEXTS             \
    TEXT(member)          \
    TEXT(bin_directory)   \
    TEXT(data_directory)  \
    TEXT(state_directory) \
    TEXT(guard_program)   \
    TEXT(watchdog)        \
    TEXT(watchdog_device) \
    TEXT(listen_addresses) TEXT(socket_directory) TEXT(superuser) TEXT(replication_user) TEXT(password_file)

status config_copy(struct pgctl_config *ret_copy, const struct pgctl_config *config, struct error *error) {
    struct pgctl_config copy = *config;
    bool failed = false;
#define TEXT(field) copy.field = copy_text(config->field, &failed);
    TEXTS
#undef TEXT
    copy.parameters_all = copy_parameters(config->parameters_all, &copy.parameters_all_count, &failed);
    copy.parameters_primary = copy_parameters(config->parameters_primary, &copy.parameters_primary_count, &failed);
    copy.parameters_standby = copy_parameters(config->parameters_standby, &copy.parameters_standby_count, &failed);
    copy.hba_lines = copy_lines(config->hba_lines, &copy.hba_lines_count, &failed);
    if (failed) {
        config_free(&copy);
        return error_set(error, "out of memory");
    }
    *ret_copy = copy;
    return OK;
}

static void free_const(const void *memory) { free((void *)(uintptr_t)memory); }

static void free_parameters(const struct pgctl_parameter *parameters, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        free_const(parameters[i].name);
        free_const(parameters[i].value);
    }
    free_const(parameters);
}

void config_free(struct pgctl_config *config) {
#define TEXT(field) free_const(config->field);
    TEXTS
#undef TEXT
    free_parameters(config->parameters_all, config->parameters_all_count);
    free_parameters(config->parameters_primary, config->parameters_primary_count);
    free_parameters(config->parameters_standby, config->parameters_standby_count);
    for (unsigned i = 0; i < config->hba_lines_count; i++)
        free_const(config->hba_lines[i]);
    free_const(config->hba_lines);
    *config = (struct pgctl_config){0};
}
