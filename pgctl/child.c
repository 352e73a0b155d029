#include "pgctl/child.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct child {
    uv_process_t process;
    uv_pipe_t pipe;
    uv_timer_t deadline;
    unsigned handles; /* not yet closed */
    struct child_config config;
    struct child_result result;
    char output[CHILD_OUTPUT_MAX];
    size_t output_length;
    char line[512];
    size_t line_length;
    char chunk[4096];
};

extern char **environ;

/* ---- output ---- */

static void keep_tail(struct child *child, const char *bytes, size_t length) {
    size_t room = sizeof child->output - 1;
    if (length > room) {
        bytes += length - room;
        length = room;
    }
    if (child->output_length + length > room) {
        size_t dropped = child->output_length + length - room;
        memmove(child->output, child->output + dropped, child->output_length - dropped);
        child->output_length -= dropped;
    }
    memcpy(child->output + child->output_length, bytes, length);
    child->output_length += length;
    child->output[child->output_length] = '\0';
}

static void offer_lines(struct child *child, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bool end = bytes[i] == '\n' || bytes[i] == '\r';
        if (!end && child->line_length < sizeof child->line - 1)
            child->line[child->line_length++] = bytes[i];
        if (!end || child->line_length == 0)
            continue;
        child->line[child->line_length] = '\0';
        child->line_length = 0;
        child->config.line(child->config.user, child->line);
    }
}

static void take(struct child *child, const char *bytes, size_t length) {
    keep_tail(child, bytes, length);
    if (child->config.line != NULL && !child->result.cancelled) /* else who asked for it has gone on */
        offer_lines(child, bytes, length);
}

static void chunk_wanted(uv_handle_t *handle, size_t size, uv_buf_t *buffer) {
    (void)size;
    struct child *child = handle->data;
    *buffer = uv_buf_init(child->chunk, sizeof child->chunk);
}

static void chunk_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    if (length > 0)
        take(stream->data, buffer->base, (size_t)length);
    else if (length < 0)
        uv_read_stop(stream);
}

/* A grandchild may hold the pipe open for ever: what is there when the child has ended is all that we take. */
static void drain(struct child *child) {
    uv_os_fd_t fd;
    ssize_t length;
    uv_read_stop((uv_stream_t *)&child->pipe);
    if (uv_fileno((uv_handle_t *)&child->pipe, &fd) != 0)
        return;
    while ((length = read(fd, child->chunk, sizeof child->chunk)) > 0)
        take(child, child->chunk, (size_t)length);
}

/* ---- end ---- */

static void handle_closed(uv_handle_t *handle) {
    struct child *child = handle->data;
    if (--child->handles > 0)
        return;
    if (child->config.ended != NULL)
        child->config.ended(child->config.user, &child->result);
    free(child);
}

static void close_all(struct child *child) {
    uv_close((uv_handle_t *)&child->process, handle_closed);
    uv_close((uv_handle_t *)&child->pipe, handle_closed);
    uv_close((uv_handle_t *)&child->deadline, handle_closed);
}

static void exited(uv_process_t *process, int64_t exit_status, int term_signal) {
    struct child *child = process->data;
    drain(child);
    child->result.exit_status = term_signal != 0 ? -1 : (int)exit_status;
    child->result.term_signal = term_signal;
    child->result.output = child->output;
    close_all(child);
}

static void kill_group(struct child *child) {
    if (child->process.pid > 0 && uv_is_active((uv_handle_t *)&child->process))
        kill(-child->process.pid, SIGKILL);
}

static void deadline_passed(uv_timer_t *timer) {
    struct child *child = timer->data;
    child->result.timed_out = true;
    kill_group(child);
}

void child_cancel(struct child *child) {
    child->result.cancelled = true;
    kill_group(child);
}

status child_succeeded(const struct child_result *result, struct error *error) {
    if (result->exit_status == 0 && !result->timed_out && !result->cancelled)
        return OK;
    if (result->timed_out)
        return error_set(error, "took too long and was ended");
    const char *end = result->output + strlen(result->output);
    while (end > result->output && (end[-1] == '\n' || end[-1] == '\r'))
        end--;
    const char *line = end;
    while (line > result->output && line[-1] != '\n' && line[-1] != '\r')
        line--;
    if (end > line)
        return error_set(error, "%.*s", (int)(end - line > 400 ? 400 : end - line), line);
    if (result->term_signal != 0)
        return error_set(error, "ended by signal %d", result->term_signal);
    return error_set(error, "ended with status %d", result->exit_status);
}

/* ---- start ---- */

/* Ours without PG*, which would redirect PostgreSQL's programs, and with messages that we can read. */
static char **environment(void) {
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char **copy = calloc(count + 2, sizeof *copy);
    size_t kept = 0;
    for (size_t i = 0; copy != NULL && i < count; i++)
        if (strncmp(environ[i], "PG", 2) != 0 && strncmp(environ[i], "LC_ALL=", 7) != 0)
            copy[kept++] = environ[i];
    if (copy != NULL)
        copy[kept] = (char *)(uintptr_t) "LC_ALL=C";
    return copy;
}

/* If we die, so does it: an orphan would go on writing where our next life works. */
static const char **with_death_signal(const char *const argv[]) {
    static const char *const prefix[] = {"/usr/bin/setpriv", "--pdeathsig", "KILL", "--"};
    size_t prefix_count = sizeof prefix / sizeof *prefix, count = 0;
    while (argv[count] != NULL)
        count++;
    const char **all = calloc(prefix_count + count + 1, sizeof *all);
    if (all == NULL)
        return NULL;
    memcpy(all, prefix, sizeof prefix);
    memcpy(all + prefix_count, argv, count * sizeof *argv);
    return all;
}

static int spawn(struct child *child, uv_loop_t *loop, int output_fd) {
    const char **argv = with_death_signal(child->config.argv);
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = output_fd},
        {.flags = UV_INHERIT_FD, .data.fd = output_fd},
    };
    uv_process_options_t options = {
        .file = argv != NULL ? argv[0] : NULL,
        .args = (char **)(uintptr_t)argv,
        .env = environment(),
        .cwd = "/",
        .exit_cb = exited,
        .flags = UV_PROCESS_DETACHED, /* its own session, hence its own group to kill */
        .stdio = stdio,
        .stdio_count = 3,
    };
    int code = options.env != NULL && argv != NULL ? uv_spawn(loop, &child->process, &options) : UV_ENOMEM;
    free(options.env);
    free(argv);
    return code;
}

static void never_ended(struct child *child) {
    child->config.ended = NULL;
    close_all(child);
}

status child_spawn(struct child **ret_child, uv_loop_t *loop, const struct child_config *config, struct error *error) {
    uv_file ends[2];
    struct child *child = calloc(1, sizeof *child);
    if (child == NULL)
        return error_set(error, "out of memory");
    if (uv_pipe(ends, UV_NONBLOCK_PIPE, 0) != 0) {
        free(child);
        return error_set(error, "no pipe: %s", strerror(errno));
    }
    child->config = *config;
    child->handles = 3;
    uv_pipe_init(loop, &child->pipe, 0);
    uv_pipe_open(&child->pipe, ends[0]);
    uv_timer_init(loop, &child->deadline);
    child->process.data = child->pipe.data = child->deadline.data = child;
    int code = spawn(child, loop, ends[1]);
    child->process.data = child;
    close(ends[1]);
    child->config.argv = NULL; /* the caller's, for as long as this call */
    if (code != 0) {
        never_ended(child);
        return error_set(error, "%s: %s", config->argv[0], uv_strerror(code));
    }
    uv_read_start((uv_stream_t *)&child->pipe, chunk_wanted, chunk_read);
    if (config->deadline_ms > 0)
        uv_timer_start(&child->deadline, deadline_passed, config->deadline_ms, 0);
    *ret_child = child;
    return OK;
}
