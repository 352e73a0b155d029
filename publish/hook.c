#include "publish/hook.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/template.h"

extern char **environ;

/* IDLE -> RUNNING -> IDLE     delivered, nothing newer
 *         RUNNING -> RUNNING  something newer came meanwhile
 *         RUNNING -> WAITING  it failed; after a while, or when something newer comes: RUNNING */
enum hook_state { HOOK_IDLE, HOOK_RUNNING, HOOK_WAITING };

struct news {
    uint64_t index;
    char *json;
    char **environment;
};

/* One run of the program. */
struct run {
    struct hook *hook;
    struct news news;
    uv_process_t process;
    uv_pipe_t input, output;
    uv_timer_t deadline;
    uv_write_t write;
    unsigned handles;
    uint64_t began_at;
    bool timed_out, failed;
    char tail[200]; /* the end of its stderr */
    size_t tail_length;
    char chunk[1024];
};

struct hook {
    struct hook_config config;
    void (*notice)(void *user, const char *text);
    void *user;
    enum hook_state state;
    struct news next; /* json NULL = nothing */
    struct run *run;
    uv_timer_t again;
    uint64_t again_ms;
    bool delivered;
    uint64_t delivered_index;
    struct error trouble;
    bool closing;
    void (*closed)(void *user);
    void *closed_user;
};

static void news_free(struct news *news) {
    free(news->json);
    template_environment_free(news->environment);
    *news = (struct news){0};
}

/* ---- the end of a run ---- */

static void begin(struct hook *hook);

static void on_again(uv_timer_t *timer) { begin(timer->data); }

static void on_closed(uv_handle_t *handle) {
    struct hook *hook = handle->data;
    news_free(&hook->next);
    hook->closed(hook->closed_user);
    free(hook);
}

/* What failed is told again, unless something newer is there. */
static void go_on(struct hook *hook, struct run *run) {
    if (hook->next.json != NULL) {
        hook->state = HOOK_IDLE;
        begin(hook);
    } else if (!run->failed) {
        hook->state = HOOK_IDLE;
    } else {
        hook->next = run->news;
        run->news = (struct news){0};
        hook->state = HOOK_WAITING;
        uv_timer_start(&hook->again, on_again, hook->again_ms, 0);
        hook->again_ms = hook->again_ms * 2 < HOOK_AGAIN_MAX_MS ? hook->again_ms * 2 : HOOK_AGAIN_MAX_MS;
    }
}

static void on_run_closed(uv_handle_t *handle) {
    struct run *run = handle->data;
    struct hook *hook = run->hook;
    if (--run->handles > 0)
        return;
    hook->run = NULL;
    if (hook->closing)
        uv_close((uv_handle_t *)&hook->again, on_closed);
    else
        go_on(hook, run);
    news_free(&run->news);
    free(run);
}

static void close_run(struct run *run) {
    uv_handle_t *handles[] = {(uv_handle_t *)&run->process, (uv_handle_t *)&run->input, (uv_handle_t *)&run->output,
                              (uv_handle_t *)&run->deadline};
    for (unsigned i = 0; i < sizeof handles / sizeof *handles; i++)
        if (!uv_is_closing(handles[i]))
            uv_close(handles[i], on_run_closed);
}

static void tell(struct hook *hook, const char *text) {
    if (!hook->closing)
        hook->notice(hook->user, text);
}

static void succeeded(struct hook *hook, const struct run *run) {
    char text[ERROR_TEXT_MAX];
    hook->delivered = true;
    hook->delivered_index = run->news.index;
    hook->trouble.text[0] = '\0';
    hook->again_ms = HOOK_AGAIN_MIN_MS;
    snprintf(text, sizeof text, "hook %s: exit status 0 for index %llu, after %llu ms", hook->config.program,
             (unsigned long long)run->news.index, (unsigned long long)(uv_now(hook->again.loop) - run->began_at));
    tell(hook, text);
}

static void failed(struct hook *hook, struct run *run, const char *how) {
    run->failed = true;
    error_set(&hook->trouble, "hook %s: %s%s%s", hook->config.program, how, run->tail[0] != '\0' ? ": " : "",
              run->tail);
    tell(hook, hook->trouble.text);
}

/* The last line that is not empty. */
static void keep_last_line(struct run *run) {
    size_t length = run->tail_length;
    while (length > 0 && run->tail[length - 1] == '\n')
        length--;
    run->tail[length] = '\0';
    char *newline = strrchr(run->tail, '\n');
    if (newline != NULL)
        memmove(run->tail, newline + 1, strlen(newline + 1) + 1);
}

static void on_ended(uv_process_t *process, int64_t exit_status, int term_signal) {
    struct run *run = process->data;
    char how[80];
    keep_last_line(run);
    if (run->timed_out)
        snprintf(how, sizeof how, "killed, as it took more than %llu ms",
                 (unsigned long long)run->hook->config.timeout_ms);
    else if (term_signal != 0)
        snprintf(how, sizeof how, "ended by signal %d", term_signal);
    else
        snprintf(how, sizeof how, "exit status %d", (int)exit_status);
    if (exit_status == 0 && term_signal == 0)
        succeeded(run->hook, run);
    else
        failed(run->hook, run, how);
    close_run(run);
}

static void on_deadline(uv_timer_t *timer) {
    struct run *run = timer->data;
    run->timed_out = true;
    kill(-run->process.pid, SIGKILL);
}

/* ---- a run ---- */

static void on_chunk_wanted(uv_handle_t *handle, size_t size, uv_buf_t *buffer) {
    struct run *run = handle->data;
    (void)size;
    *buffer = uv_buf_init(run->chunk, sizeof run->chunk);
}

static void on_output(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct run *run = stream->data;
    size_t room = sizeof run->tail - 1;
    for (ssize_t i = 0; i < length; i++) {
        if (run->tail_length == room)
            memmove(run->tail, run->tail + 1, --run->tail_length);
        run->tail[run->tail_length++] = buffer->base[i];
    }
    if (length < 0)
        uv_read_stop(stream);
}

/* A program that does not read its stdin is none the worse for it. */
static void on_told(uv_write_t *write, int failure) {
    struct run *run = write->data;
    (void)failure;
    if (!uv_is_closing((uv_handle_t *)&run->input))
        uv_close((uv_handle_t *)&run->input, on_run_closed);
}

/* Ours without an older TTORCH_..., then the news. Borrowed strings. */
static char **environment_of(const struct news *news) {
    size_t count = 0, more = 0, at = 0;
    while (environ[count] != NULL)
        count++;
    while (news->environment[more] != NULL)
        more++;
    char **list = calloc(count + more + 1, sizeof *list);
    for (size_t i = 0; list != NULL && i < count; i++)
        if (strncmp(environ[i], "TTORCH_", 7) != 0)
            list[at++] = environ[i];
    for (size_t i = 0; list != NULL && i < more; i++)
        list[at++] = news->environment[i];
    return list;
}

static int spawn(struct run *run, char **environment) {
    char *arguments[] = {(char *)run->hook->config.program, NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&run->input},
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&run->output}};
    uv_process_options_t options = {.file = arguments[0],
                                    .args = arguments,
                                    .env = environment,
                                    .cwd = "/",
                                    .exit_cb = on_ended,
                                    .stdio = stdio,
                                    .stdio_count = 3,
                                    .flags = UV_PROCESS_DETACHED}; /* its own group: killed with its children */
    return uv_spawn(run->hook->again.loop, &run->process, &options);
}

static struct run *run_new(struct hook *hook) {
    struct run *run = calloc(1, sizeof *run);
    if (run == NULL)
        return NULL;
    run->hook = hook;
    uv_pipe_init(hook->again.loop, &run->input, 0);
    uv_pipe_init(hook->again.loop, &run->output, 0);
    uv_timer_init(hook->again.loop, &run->deadline);
    run->process.data = run->input.data = run->output.data = run->deadline.data = run->write.data = run;
    run->handles = 4;
    run->began_at = uv_now(hook->again.loop);
    return run;
}

static void begin(struct hook *hook) {
    uv_timer_stop(&hook->again);
    char **environment = environment_of(&hook->next);
    struct run *run = environment != NULL ? run_new(hook) : NULL;
    if (run == NULL) {
        free(environment);
        hook->state = HOOK_WAITING;
        uv_timer_start(&hook->again, on_again, HOOK_AGAIN_MAX_MS, 0);
        return;
    }
    run->news = hook->next;
    hook->next = (struct news){0};
    hook->run = run;
    hook->state = HOOK_RUNNING;
    int failure = spawn(run, environment);
    free(environment);
    if (failure != 0) {
        failed(hook, run, uv_strerror(failure));
        close_run(run);
        return;
    }
    uv_timer_start(&run->deadline, on_deadline, hook->config.timeout_ms, 0);
    uv_read_start((uv_stream_t *)&run->output, on_chunk_wanted, on_output);
    uv_buf_t text = uv_buf_init(run->news.json, (unsigned)strlen(run->news.json));
    if (uv_write(&run->write, (uv_stream_t *)&run->input, &text, 1, on_told) != 0)
        on_told(&run->write, 0);
}

/* ---- the hook ---- */

void hook_tell(struct hook *hook, uint64_t index, char *json, char **environment) {
    news_free(&hook->next);
    hook->next = (struct news){.index = index, .json = json, .environment = environment};
    if (json == NULL || environment == NULL)
        news_free(&hook->next); /* out of memory: the next change tells more */
    else if (hook->state != HOOK_RUNNING)
        begin(hook);
}

struct face_output hook_row(const struct hook *hook) {
    return (struct face_output){.name = "publish.hook",
                                .where = hook->config.program,
                                .shown = hook->delivered,
                                .index = hook->delivered_index,
                                .trouble = hook->trouble.text};
}

bool hook_settled(const struct hook *hook) { return hook->state == HOOK_IDLE; }

status hook_open(struct hook **ret_hook, uv_loop_t *loop, const struct hook_config *config,
                 void (*notice)(void *user, const char *text), void *user, struct error *error) {
    struct hook *hook = calloc(1, sizeof *hook);
    if (hook == NULL)
        return error_set(error, "out of memory");
    hook->config = *config;
    hook->notice = notice;
    hook->user = user;
    hook->again_ms = HOOK_AGAIN_MIN_MS;
    uv_timer_init(loop, &hook->again);
    hook->again.data = hook;
    *ret_hook = hook;
    return OK;
}

void hook_close(struct hook *hook, void (*closed)(void *user), void *user) {
    hook->closing = true;
    hook->closed = closed;
    hook->closed_user = user;
    if (hook->run == NULL)
        uv_close((uv_handle_t *)&hook->again, on_closed);
    else if (uv_is_active((uv_handle_t *)&hook->run->process))
        kill(-hook->run->process.pid, SIGKILL); /* the rest follows when it is reaped */
}
