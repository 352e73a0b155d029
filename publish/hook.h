/* The operator's program, run after each change of the topology: JSON on its stdin, the template's variables in its
 * environment as TTORCH_... Never two at once; while one runs or waits to be run again, the newest change replaces what
 * it would have been told, so that the newest is always delivered in the end. */
#pragma once
#include <uv.h>

#include "publish/face.h"

#define HOOK_AGAIN_MIN_MS 1000 /* after a failure; doubled each time */
#define HOOK_AGAIN_MAX_MS 60000

struct hook;

struct hook_config {
    const char *program; /* must stay valid */
    uint64_t timeout_ms; /* then its process group is killed */
};

status hook_open(struct hook **ret_hook, uv_loop_t *loop, const struct hook_config *config,
                 void (*notice)(void *user, const char *text), void *user, struct error *error) must_check;
/* Takes over `json` and `environment` (see template_environment). */
void hook_tell(struct hook *hook, uint64_t index, char *json, char **environment);
struct face_output hook_row(const struct hook *hook);
/* The newest change was delivered. */
bool hook_settled(const struct hook *hook);
/* Kills what runs. */
void hook_close(struct hook *hook, void (*closed)(void *user), void *user);
