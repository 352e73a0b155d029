#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "publish/http.h"

#define BACKLOG 1024 /* many watchers come back at once */

/* ---- unix ---- */

static status unix_address(struct sockaddr_un *ret_address, const char *path, struct error *error) {
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof ret_address->sun_path)
        return error_set(error, "%s: longer than the %zu bytes of a unix socket's path", path,
                         sizeof ret_address->sun_path - 1);
    strcpy(ret_address->sun_path, path);
    return OK;
}

/* Only a socket that nobody answers at may be replaced. */
static status unix_check_stale(int fd, const struct sockaddr_un *address, struct error *error) {
    struct stat file;
    if (lstat(address->sun_path, &file) != 0)
        return errno == ENOENT ? OK : error_set(error, "%s: %s", address->sun_path, strerror(errno));
    if (!S_ISSOCK(file.st_mode))
        return error_set(error, "%s: there is a file that is not a socket: move it away", address->sun_path);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN)
        return error_set(error, "%s: another ttorchd answers here", address->sun_path);
    return OK;
}

static status unix_replace(int fd, const char *path, struct error *error) {
    struct sockaddr_un fresh;
    char fresh_path[PATH_MAX_LENGTH + 8];
    snprintf(fresh_path, sizeof fresh_path, "%s.new", path);
    if (unix_address(&fresh, fresh_path, error) != OK)
        return FAILED;
    unlink(fresh_path);
    /* Listens only once its mode is right, and has its name only once it listens. */
    if (bind(fd, (struct sockaddr *)&fresh, sizeof fresh) == 0 && chmod(fresh_path, 0660) == 0 &&
        listen(fd, BACKLOG) == 0 && rename(fresh_path, path) == 0)
        return OK;
    error_set(error, "%s: %s", path, strerror(errno));
    unlink(fresh_path);
    return FAILED;
}

static int unix_socket(void) { return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

status http_listen_unix(int *ret_fd, const char *path, struct error *error) {
    struct sockaddr_un address;
    if (unix_address(&address, path, error) != OK)
        return FAILED;
    int probe = unix_socket();
    int fd = unix_socket();
    status result = probe < 0 || fd < 0 ? error_set(error, "socket: %s", strerror(errno)) : OK;
    if (result == OK)
        result = unix_check_stale(probe, &address, error);
    if (result == OK)
        result = unix_replace(fd, path, error);
    if (probe >= 0)
        close(probe);
    if (result == OK)
        *ret_fd = fd;
    else if (fd >= 0)
        close(fd);
    return result;
}

/* ---- TCP ---- */

static int tcp_listen_at(const struct addrinfo *at) {
    int fd = socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0)
        return -1;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

status http_listen_tcp(int *ret_fd, const char *address, uint16_t port, struct error *error) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int failure = getaddrinfo(strcmp(address, "*") == 0 ? NULL : address, service, &hints, &found);
    if (failure != 0)
        return error_set(error, "%s: %s", address, gai_strerror(failure));
    int fd = -1;
    for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
        fd = tcp_listen_at(at);
    int why = errno;
    freeaddrinfo(found);
    if (fd < 0)
        return error_set(error, "%s port %u: %s", address, port, strerror(why));
    *ret_fd = fd;
    return OK;
}
