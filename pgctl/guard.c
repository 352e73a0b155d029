#include "pgctl/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/panic.h"

#define ANSWER_MS    50 /* the guard answers at once; longer than this it is frozen, or we are */
#define RETRY_MIN_MS 10
#define RETRY_MAX_MS 1000

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == GUARD_SOCKET_PATH_MAX + 1, "sun_path");

/* One connection. It lives until its close callback, when the guard may long have another. */
struct link {
    uv_poll_t poll;
    struct guard *guard;
    int fd;
    bool heard; /* a report came */
};

struct guard {
    uv_loop_t *loop;
    char program[PATH_MAX_LENGTH + 1];
    char socket_path[GUARD_SOCKET_PATH_MAX + 1];
    char data_directory[PATH_MAX_LENGTH + 1];
    char log_file[PATH_MAX_LENGTH + 1];
    char watchdog[16];
    char watchdog_device[PATH_MAX_LENGTH + 1];
    char watchdog_s[16];
    guard_changed *changed;
    void *user;

    struct guard_state state;
    uint64_t serial;      /* of the last request */
    struct link *link;    /* NULL while there is none */
    uv_process_t starter; /* ttorch-guard until it has detached itself */
    bool starting;        /* `starter` is in use */
    bool start_failed;
    uv_timer_t retry;
    unsigned retry_ms;
    uv_timer_t notify; /* calls `changed` from the loop */

    bool closing, end;
    void (*closed)(void *user);
    void *closed_user;
    unsigned handles; /* whose close callbacks are awaited */
};

static void attempt(struct guard *guard);

/* ---- what we know ---- */

static void notify_now(uv_timer_t *timer) {
    struct guard *guard = timer->data;
    guard->changed(guard->user, &guard->state);
}

static void mark_changed(struct guard *guard) {
    if (!guard->closing)
        uv_timer_start(&guard->notify, notify_now, 0, 0);
}

static void state_set(struct guard *guard, const struct guard_state *state) {
    if (memcmp(&guard->state, state, sizeof *state) == 0)
        return;
    memcpy(&guard->state, state, sizeof *state);
    mark_changed(guard);
}

static void disconnected_because(struct guard *guard, const char *reason) {
    struct guard_state state;
    memcpy(&state, &guard->state, sizeof state); /* not by assignment: it is compared with its padding */
    state.connected = false;
    memset(state.failure, 0, sizeof state.failure);
    snprintf(state.failure, sizeof state.failure, "%.*s", GUARD_TEXT_MAX, reason);
    state_set(guard, &state);
}

static void report_take(struct guard *guard, const struct guard_report *report, bool awaited) {
    const struct guard_told *told = &report->told;
    struct guard_state state;
    memset(&state, 0, sizeof state);
    state.connected = true;
    state.server = (enum guard_server)told->server;
    state.guard_pid = told->guard_pid;
    state.postmaster_pid = told->postmaster_pid;
    state.exit_status = told->exit_status;
    state.exits = told->exits;
    state.killed_by_deadline = told->killed_by_deadline;
    state.epoch = told->epoch;
    state.deadline = told->deadline;
    bool refused = report->refusal[0] != '\0' && !awaited;
    memcpy(state.failure, refused ? report->refusal : told->failure, sizeof state.failure);
    state.failure[GUARD_TEXT_MAX] = '\0';
    state_set(guard, &state);
}

/* ---- the connection ---- */

enum heard { HEARD_REPORT, HEARD_NOTHING, HEARD_END };

static enum heard link_receive(struct link *link, struct guard_report *ret_report) {
    struct guard_report report;
    ssize_t size = recv(link->fd, &report, sizeof report, MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return HEARD_NOTHING;
    if (size != sizeof report || report.protocol != GUARD_PROTOCOL || report.told.server > GUARD_KILLING)
        return HEARD_END; /* gone, or a guard of another version */
    link->heard = true;
    *ret_report = report;
    return HEARD_REPORT;
}

static void link_closed(uv_handle_t *handle) { free(handle->data); }

static void link_close(struct guard *guard) {
    struct link *link = guard->link;
    if (link == NULL)
        return;
    guard->link = NULL;
    uv_poll_stop(&link->poll);
    close(link->fd);
    uv_close((uv_handle_t *)&link->poll, link_closed);
}

static void retry_now(uv_timer_t *timer) { attempt(timer->data); }

static void retry_later(struct guard *guard) {
    uv_timer_start(&guard->retry, retry_now, guard->retry_ms, 0);
    guard->retry_ms = guard->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : guard->retry_ms * 2;
}

/* A guard that we had heard is replaced at once; with one that never spoke there is something wrong. */
static void link_lost(struct guard *guard) {
    bool heard = guard->link->heard;
    link_close(guard);
    disconnected_because(guard, heard ? "the guard ended" : "the guard ended without a report, see its log");
    if (heard)
        attempt(guard);
    else
        retry_later(guard);
}

static void link_readable(uv_poll_t *poll, int uv_status, int events) {
    struct link *link = poll->data;
    struct guard *guard = link->guard;
    struct guard_report report;
    enum heard heard;
    (void)uv_status; /* recv says what it is */
    (void)events;
    while ((heard = link_receive(link, &report)) == HEARD_REPORT) {
        guard->retry_ms = RETRY_MIN_MS;
        report_take(guard, &report, false);
    }
    if (heard == HEARD_END)
        link_lost(guard);
}

static status request_send(struct guard *guard, struct guard_request *request, size_t size, struct error *error) {
    if (guard->link == NULL)
        return error_set(error, "no guard answers");
    request->protocol = GUARD_PROTOCOL;
    request->serial = ++guard->serial;
    if (send(guard->link->fd, request, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
        return error_set(error, "could not reach the guard: %s", strerror(errno));
    return OK;
}

static status socket_connect(int *ret_fd, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return FAILED;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        int reason = errno;
        close(fd);
        errno = reason;
        return FAILED;
    }
    *ret_fd = fd;
    return OK;
}

static status link_open(struct guard *guard) {
    struct error error;
    int fd;
    if (socket_connect(&fd, guard->socket_path) != OK)
        return FAILED;
    struct link *link = calloc(1, sizeof *link);
    require(link != NULL);
    link->guard = guard;
    link->fd = fd;
    link->poll.data = link;
    require(uv_poll_init(guard->loop, &link->poll, fd) == 0);
    require(uv_poll_start(&link->poll, UV_READABLE | UV_DISCONNECT, link_readable) == 0);
    guard->link = link;
    struct guard_request attach = {.command = GUARD_COMMAND_ATTACH};
    if (request_send(guard, &attach, sizeof attach, &error) != OK)
        disconnected_because(guard, error.text); /* it has just ended, which the loop will see */
    return OK;
}

/* ---- starting a guard ---- */

static void close_now(struct guard *guard);

static void starter_closed(uv_handle_t *handle) {
    struct guard *guard = handle->data;
    guard->starting = false;
    if (guard->closing)
        close_now(guard);
    else if (guard->start_failed)
        retry_later(guard);
    else
        attempt(guard);
}

static void starter_exited(uv_process_t *starter, int64_t exit_status, int signal) {
    struct guard *guard = starter->data;
    guard->start_failed = exit_status != 0 || signal != 0;
    if (guard->start_failed)
        disconnected_because(guard, "ttorch-guard could not start, see its log");
    uv_close((uv_handle_t *)starter, starter_closed);
}

static status guard_spawn(struct guard *guard, struct error *error) {
    int log = open(guard->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return error_set(error, "%s: %s", guard->log_file, strerror(errno));
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE}, /* that is /dev/null */
        {.flags = UV_INHERIT_FD, .data.fd = log},
        {.flags = UV_INHERIT_FD, .data.fd = log},
    };
    char *arguments[] = {guard->program,
                         guard->socket_path,
                         guard->data_directory,
                         guard->watchdog,
                         guard->watchdog_device,
                         guard->watchdog_s,
                         NULL};
    uv_process_options_t options = {
        .exit_cb = starter_exited, .file = guard->program, .args = arguments, .stdio = stdio, .stdio_count = 3};
    guard->starting = true;
    guard->starter.data = guard;
    int result = uv_spawn(guard->loop, &guard->starter, &options);
    close(log);
    if (result == 0)
        return OK;
    guard->start_failed = true;
    uv_close((uv_handle_t *)&guard->starter, starter_closed); /* needed after a failure too */
    return error_set(error, "%s: %s", guard->program, uv_strerror(result));
}

/* Connects, and starts a guard if there is none. */
static void attempt(struct guard *guard) {
    struct error error;
    if (guard->closing || guard->starting || guard->link != NULL || link_open(guard) == OK)
        return;
    if (errno != ENOENT && errno != ECONNREFUSED) {
        disconnected_because(guard, strerror(errno));
        retry_later(guard);
    } else if (guard_spawn(guard, &error) != OK) {
        disconnected_because(guard, error.text);
        if (!guard->starting)
            retry_later(guard);
    }
}

/* ---- the interface ---- */

static status copy(char *ret_text, size_t size, const char *what, const char *text, struct error *error) {
    if (strlen(text) >= size)
        return error_set(error, "%s is longer than %zu bytes: %s", what, size - 1, text);
    memcpy(ret_text, text, strlen(text) + 1);
    return OK;
}

static status config_take(struct guard *guard, const struct guard_config *config, struct error *error) {
    if (copy(guard->program, sizeof guard->program, "program", config->program, error) != OK ||
        copy(guard->socket_path, sizeof guard->socket_path, "guard socket", config->socket_path, error) != OK ||
        copy(guard->data_directory, sizeof guard->data_directory, "data directory", config->data_directory, error) !=
            OK ||
        copy(guard->watchdog, sizeof guard->watchdog, "watchdog", config->watchdog != NULL ? config->watchdog : "off",
             error) != OK ||
        copy(guard->watchdog_device, sizeof guard->watchdog_device, "watchdog device",
             config->watchdog != NULL ? config->watchdog_device : "", error) != OK ||
        copy(guard->log_file, sizeof guard->log_file, "guard log", config->log_file, error) != OK)
        return FAILED;
    if (config->socket_path[0] != '/')
        return error_set(error, "guard socket must be an absolute path: %s", config->socket_path);
    if (access(config->program, X_OK) != 0)
        return error_set(error, "%s: %s", config->program, strerror(errno));
    return OK;
}

status guard_open(struct guard **ret_guard, uv_loop_t *loop, const struct guard_config *config, guard_changed *changed,
                  void *user, struct error *error) {
    struct guard *guard = calloc(1, sizeof *guard);
    require(guard != NULL);
    if (config_take(guard, config, error) != OK) {
        free(guard);
        return FAILED;
    }
    snprintf(guard->watchdog_s, sizeof guard->watchdog_s, "%u", config->watchdog_s);
    guard->loop = loop;
    guard->changed = changed;
    guard->user = user;
    guard->state.deadline = NSEC_NEVER;
    guard->retry_ms = RETRY_MIN_MS;
    require(uv_timer_init(loop, &guard->retry) == 0 && uv_timer_init(loop, &guard->notify) == 0);
    guard->retry.data = guard->notify.data = guard;
    attempt(guard);
    *ret_guard = guard;
    return OK;
}

const struct guard_state *guard_state(const struct guard *guard) { return &guard->state; }

static status command_send(struct guard *guard, struct guard_request *request, size_t size, struct error *error) {
    if (!guard->state.connected)
        return error_set(error, "no guard answers%s%s", guard->state.failure[0] != '\0' ? ": " : "",
                         guard->state.failure);
    return request_send(guard, request, size, error);
}

status guard_start(struct guard *guard, const char *const argv[], struct error *error) {
    struct guard_start_request message = {.request.command = GUARD_COMMAND_START};
    size_t at = 0;
    if (guard->state.server != GUARD_DOWN)
        return error_set(error, "postmaster %d has not ended", (int)guard->state.postmaster_pid);
    for (; argv[message.argument_count] != NULL; message.argument_count++) {
        size_t size = strlen(argv[message.argument_count]) + 1;
        if (message.argument_count == GUARD_ARGUMENTS_MAX || size > sizeof message.arguments - at)
            return error_set(error, "more arguments than a guard takes: %d, %d bytes", GUARD_ARGUMENTS_MAX,
                             GUARD_ARGUMENT_BYTES);
        memcpy(message.arguments + at, argv[message.argument_count], size);
        at += size;
    }
    return command_send(guard, &message.request, sizeof message, error);
}

status guard_signal(struct guard *guard, int signal, struct error *error) {
    struct guard_request request = {.command = GUARD_COMMAND_SIGNAL, .signal = signal};
    return command_send(guard, &request, sizeof request, error);
}

status guard_kill(struct guard *guard, struct error *error) {
    struct guard_request request = {.command = GUARD_COMMAND_KILL};
    return command_send(guard, &request, sizeof request, error);
}

/* What is pushed meanwhile is taken too; its news are told from the loop. */
static status answer_await(struct guard *guard, uint64_t serial, struct error *error) {
    nsec until = time_now() + msec(ANSWER_MS);
    for (;;) {
        struct guard_report report;
        enum heard heard = link_receive(guard->link, &report);
        if (heard == HEARD_END)
            return error_set(error, "the guard ended"); /* the loop sees it as well */
        if (heard == HEARD_REPORT) {
            report_take(guard, &report, report.serial == serial);
            if (report.serial == serial)
                return report.refusal[0] == '\0' ? OK : error_set(error, "the guard refused: %s", report.refusal);
            continue;
        }
        int left = (int)msec_between(time_now(), until);
        if (left == 0)
            break;
        poll(&(struct pollfd){.fd = guard->link->fd, .events = POLLIN}, 1, left);
    }
    disconnected_because(guard, "the guard does not answer"); /* until it does */
    return error_set(error, "the guard did not answer within %d ms", ANSWER_MS);
}

status guard_arm(struct guard *guard, uint32_t epoch, nsec deadline, struct error *error) {
    struct guard_request request = {.command = GUARD_COMMAND_ARM, .epoch = epoch, .deadline = deadline};
    if (command_send(guard, &request, sizeof request, error) != OK)
        return FAILED;
    return answer_await(guard, request.serial, error);
}

/* ---- the end ---- */

static void handle_closed(uv_handle_t *handle) {
    struct guard *guard = handle->data;
    if (--guard->handles > 0)
        return;
    void (*closed)(void *user) = guard->closed;
    void *user = guard->closed_user;
    free(guard);
    closed(user);
}

static void close_now(struct guard *guard) {
    struct guard_request end = {.command = GUARD_COMMAND_END};
    struct error none;
    if (guard->end && guard->link == NULL && link_open(guard) != OK)
        guard->end = false; /* no guard, nothing that runs */
    if (guard->end && request_send(guard, &end, sizeof end, &none) != OK)
        guard->end = false; /* it ended before us */
    link_close(guard);
    guard->handles = 2;
    uv_close((uv_handle_t *)&guard->retry, handle_closed);
    uv_close((uv_handle_t *)&guard->notify, handle_closed);
}

void guard_close(struct guard *guard, bool keep, void (*closed)(void *user), void *user) {
    require(!guard->closing);
    guard->closing = true;
    guard->end = !keep;
    guard->closed = closed;
    guard->closed_user = user;
    if (!guard->starting)
        close_now(guard); /* else as soon as the guard under way can be told */
}
