/* Any bytes as a configuration: settings or complaints, each one line with its place, and never both or neither. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "config/loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_line(void *user, const char *line) {
    require(strncmp(line, "F:", 2) == 0 && isdigit((unsigned char)line[2]));
    for (const char *c = line; *c != '\0'; c++)
        require(!iscntrl((unsigned char)*c));
    ++*(unsigned *)user;
}

static void no_change(void *user, const char *key, const char *before, const char *after, bool at_run_time) {
    (void)user, (void)key, (void)before, (void)after, (void)at_run_time;
    panic("a configuration equals itself", __FILE__, __LINE__);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct config *config = calloc(1, sizeof *config);
    unsigned complaints = 0;
    require(config != NULL);
    status parsed = config_parse(config, "F", (const char *)bytes, length, false, check_line, &complaints);
    require((parsed == OK) == (complaints == 0));
    if (parsed == OK) {
        require(config->members_count > 0 && config->members_count <= MEMBERS_MAX && config->shared_count > 0);
        config_compare(config, config, no_change, NULL);
    }
    free(config);
    return 0;
}
