/* PostgreSQL's programs as child processes on the loop: each leads its own process group, has a deadline past which
 * the group is killed, dies with us, and its stdout and stderr are captured (the tail) and offered line by line. */
#pragma once
#include <uv.h>

#include "base/error.h"

#define CHILD_OUTPUT_MAX 4096

struct child;

struct child_result {
    int exit_status; /* -1 if a signal ended it */
    int term_signal;
    bool timed_out;
    bool cancelled;
    const char *output; /* the last CHILD_OUTPUT_MAX - 1 bytes of stdout and stderr */
};

struct child_config {
    const char *const *argv;                    /* argv[0] is the path; ends with NULL */
    unsigned deadline_ms;                       /* 0 = none */
    void (*line)(void *user, const char *line); /* may be NULL; a line ends with \n or \r */
    /* Always called, exactly once, after the process has been reaped; the child is freed on return. */
    void (*ended)(void *user, const struct child_result *result);
    void *user;
};

status child_spawn(struct child **ret_child, uv_loop_t *loop, const struct child_config *config,
                   struct error *error) must_check;
/* Kills the group; `ended` still comes, with `cancelled`. */
void child_cancel(struct child *child);
/* OK if it ended with 0; else FAILED with its last line that says something, or what ended it. */
status child_succeeded(const struct child_result *result, struct error *error) must_check;
