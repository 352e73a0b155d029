#include "pgctl/guard_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pgctl/guard_instance.h"
#include "pgctl/guard_say.h"
#include "pgctl/guard_watchdog.h"

#define CLIENTS_MAX 4 /* a daemon, the one before it that is frozen, somebody who looks, and one to spare */

struct client {
    int fd;
    bool obeyed;
    bool greeted;
    struct guard_told sent;
};

struct server {
    int listener, signals;
    struct instance instance;
    struct watchdog watchdog;
    struct client clients[CLIENTS_MAX]; /* oldest first */
    unsigned count;
    bool ending;
};

/* ---- connections ---- */

static void client_drop(struct server *server, unsigned at) {
    close(server->clients[at].fd);
    memmove(&server->clients[at], &server->clients[at + 1], (--server->count - at) * sizeof *server->clients);
}

static bool is_ours(int fd) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

/* A new daemon must always get in: the oldest connection that is not obeyed gives way. */
static void client_accept(struct server *server) {
    int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (!is_ours(fd)) {
        guard_say("refused a connection of another user");
        close(fd);
        return;
    }
    if (server->count == CLIENTS_MAX)
        client_drop(server, server->clients[0].obeyed ? 1 : 0);
    server->clients[server->count++] = (struct client){.fd = fd};
}

/* False if the client does not read what it gets: it may connect again and will get the newest. A client that is gone
 * is not noticed here, as what it sent last must still be read. */
static bool client_report(struct client *client, const struct guard_told *told, uint64_t serial, const char *refusal) {
    struct guard_report report = {.protocol = GUARD_PROTOCOL, .serial = serial, .told = *told};
    snprintf(report.refusal, sizeof report.refusal, "%.*s", GUARD_TEXT_MAX, refusal);
    client->sent = *told;
    client->greeted = true;
    return send(client->fd, &report, sizeof report, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

static void publish(struct server *server) {
    const struct guard_told *told = &server->instance.told;
    for (unsigned i = server->count; i-- > 0;) {
        struct client *client = &server->clients[i];
        bool knows = client->greeted && memcmp(&client->sent, told, sizeof *told) == 0;
        if (!knows && !client_report(client, told, 0, ""))
            client_drop(server, i);
    }
}

/* ---- requests ---- */

static status start(struct server *server, struct guard_start_request *message, struct error *error) {
    char *argv[GUARD_ARGUMENTS_MAX + 1] = {NULL};
    size_t at = 0;
    if (server->ending)
        return error_set(error, "the guard is ending");
    if (message->argument_count == 0 || message->argument_count > GUARD_ARGUMENTS_MAX)
        return error_set(error, "%u arguments, 1 to %d are possible", message->argument_count, GUARD_ARGUMENTS_MAX);
    for (unsigned i = 0; i < message->argument_count; i++) {
        argv[i] = message->arguments + at;
        at += strnlen(argv[i], sizeof message->arguments - at) + 1;
        if (at > sizeof message->arguments)
            return error_set(error, "malformed arguments");
    }
    return instance_start(&server->instance, argv, error);
}

static void attach(struct server *server, struct client *client) {
    for (unsigned i = 0; i < server->count; i++)
        server->clients[i].obeyed = false;
    client->obeyed = true;
}

static nsec deadline_in_force(const struct instance *instance) {
    return instance->phase == INSTANCE_DOWN ? NSEC_NEVER : instance->told.deadline;
}

/* No lease without the watchdog where it is required. */
static status arm(struct server *server, const struct guard_request *request, struct error *error) {
    bool begins = request->deadline != NSEC_NEVER && server->instance.phase == INSTANCE_RUNNING;
    if (begins && watchdog_begin(&server->watchdog, error) != OK)
        return FAILED;
    return instance_arm(&server->instance, request->epoch, request->deadline, error);
}

static status obey(struct server *server, struct client *client, struct guard_start_request *message,
                   struct error *error) {
    const struct guard_request *request = &message->request;
    struct instance *instance = &server->instance;
    if (request->command != GUARD_COMMAND_ATTACH && !client->obeyed)
        return error_set(error, "another daemon is obeyed");
    switch ((enum guard_command)request->command) {
    case GUARD_COMMAND_ATTACH:
        attach(server, client);
        return OK;
    case GUARD_COMMAND_START:
        return start(server, message, error);
    case GUARD_COMMAND_SIGNAL:
        return instance_signal(instance, request->signal, error);
    case GUARD_COMMAND_KILL:
        instance_kill(instance);
        return OK;
    case GUARD_COMMAND_ARM:
        return arm(server, request, error);
    case GUARD_COMMAND_END:
        server->ending = true;
        instance_kill(instance);
        return OK;
    }
    return error_set(error, "unknown command %u", request->command);
}

static bool well_formed(const struct guard_request *request, ssize_t size) {
    size_t expected =
        request->command == GUARD_COMMAND_START ? sizeof(struct guard_start_request) : sizeof(struct guard_request);
    return (size_t)size >= sizeof *request && request->protocol == GUARD_PROTOCOL && request->serial != 0 &&
           (size_t)size == expected;
}

/* False when the connection is over. */
static bool client_serve(struct server *server, struct client *client) {
    static struct guard_start_request message; /* large, and START alone needs all of it */
    memset(&message, 0, sizeof message.request);
    ssize_t size = recv(client->fd, &message, sizeof message, MSG_DONTWAIT | MSG_TRUNC);
    /* A peer that closed without reading all that we sent: said once, before what it had sent itself. */
    if (size < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNRESET;
    if (size == 0)
        return false;
    if (!well_formed(&message.request, size)) {
        guard_say("closed a connection: message of %zd bytes, protocol %#x, command %u", size, message.request.protocol,
                  message.request.command);
        return false;
    }
    struct error refusal = {""};
    instance_tick(&server->instance); /* what is late stays late, whatever waits in the socket */
    if (obey(server, client, &message, &refusal) == OK)
        refusal.text[0] = '\0';
    return client_report(client, &server->instance.told, message.request.serial, refusal.text);
}

/* ---- signals ---- */

/* The first SIGTERM is the polite end of both, the second is not. */
static void terminate(struct server *server) {
    struct error none;
    if (server->ending)
        instance_kill(&server->instance);
    else if (server->instance.postmaster != 0 && instance_signal(&server->instance, SIGINT, &none) == OK)
        guard_say("SIGTERM: fast stop of PostgreSQL, then end");
    server->ending = true;
}

static void signals_take(struct server *server) {
    struct signalfd_siginfo info;
    while (read(server->signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo == SIGTERM)
            terminate(server);
    instance_reap(&server->instance); /* several SIGCHLD may have come as one */
}

/* ---- the loop ---- */

enum { POLL_SIGNALS, POLL_TIMER, POLL_LISTENER, POLL_CLIENTS };

static void timer_take(struct server *server) {
    uint64_t expirations;
    while (read(server->instance.timer, &expirations, sizeof expirations) == sizeof expirations)
        continue; /* only its wake-up counts: the clock itself is asked */
}

/* Waits for something to do. The deadline is in the timerfd: poll's own clock stands still while suspended. */
static void wait_for_event(const struct server *server, struct pollfd *fds) {
    fds[POLL_SIGNALS] = (struct pollfd){.fd = server->signals, .events = POLLIN};
    fds[POLL_TIMER] = (struct pollfd){.fd = server->instance.timer, .events = POLLIN};
    fds[POLL_LISTENER] = (struct pollfd){.fd = server->listener, .events = POLLIN};
    for (unsigned i = 0; i < server->count; i++)
        fds[POLL_CLIENTS + i] = (struct pollfd){.fd = server->clients[i].fd, .events = POLLIN};
    nsec next = instance_next(&server->instance), feed = watchdog_next(&server->watchdog);
    if (feed < next && time_now() < server->instance.told.deadline) /* past it only the killing matters */
        next = feed;
    int timeout = next == NSEC_NEVER ? -1 : (int)msec_between(time_now(), next) + 1;
    if (poll(fds, POLL_CLIENTS + server->count, timeout) < 0)
        for (unsigned i = 0; i < POLL_CLIENTS + server->count; i++)
            fds[i].revents = 0;
}

static void serve_once(struct server *server) {
    struct pollfd fds[POLL_CLIENTS + CLIENTS_MAX];
    wait_for_event(server, fds);
    instance_tick(&server->instance);
    if (fds[POLL_TIMER].revents != 0)
        timer_take(server);
    if (fds[POLL_SIGNALS].revents != 0)
        signals_take(server);
    for (unsigned i = server->count; i-- > 0;)
        if (fds[POLL_CLIENTS + i].revents != 0 && !client_serve(server, &server->clients[i]))
            client_drop(server, i);
    if (fds[POLL_LISTENER].revents != 0)
        client_accept(server);
    watchdog_tend(&server->watchdog, deadline_in_force(&server->instance), time_now());
    publish(server);
    if (instance_is_patient(&server->instance))
        guard_say_flush();
}

status guard_serve(int listener, int signals, const struct watchdog *watchdog, struct error *error) {
    static struct server server;
    server.listener = listener;
    server.signals = signals;
    server.watchdog = *watchdog;
    if (instance_init(&server.instance, error) != OK)
        return FAILED;
    while (!server.ending || server.instance.phase != INSTANCE_DOWN)
        serve_once(&server);
    return OK;
}
