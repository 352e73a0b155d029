/* systemd/: a socket stands for systemd's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "systemd/notify.h"

static int listener = -1;

static int listen_as_systemd(void **state) {
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(sa_family_t); /* the kernel chooses an abstract name */
    char name[sizeof address.sun_path + 1] = "@";
    listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0)
        return -1;
    length = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        return -1;
    memcpy(name + 1, address.sun_path + 1, length - offsetof(struct sockaddr_un, sun_path) - 1);
    return setenv("NOTIFY_SOCKET", name, 1);
}

static int stop_listening(void **state) {
    (void)state;
    return close(listener);
}

/* The message that has come, "" if there is none. A datagram to a local socket is there once it is sent. */
static const char *received(void) {
    static char text[256];
    ssize_t length = recv(listener, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    return text;
}

static void test_messages(void **state) {
    (void)state;
    notify_ready();
    assert_string_equal(received(), "READY=1");
    notify_status("primary of epoch 3, 100% written");
    assert_string_equal(received(), "STATUS=primary of epoch 3, 100% written");
    notify_stopping();
    assert_string_equal(received(), "STOPPING=1");
    notify_watchdog();
    assert_string_equal(received(), "WATCHDOG=1");
    notify_reloading();
    assert_int_equal(strncmp(received(), "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
}

static void test_watchdog_interval(void **state) {
    (void)state;
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    assert_int_equal(notify_watchdog_interval(), 1500 * NSEC_PER_MSEC);
    setenv("WATCHDOG_PID", "1", 1); /* meant for another process */
    assert_int_equal(notify_watchdog_interval(), 0);
    unsetenv("WATCHDOG_PID");
    unsetenv("WATCHDOG_USEC");
    assert_int_equal(notify_watchdog_interval(), 0);
}

static void test_without_systemd(void **state) {
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    notify_ready();
    notify_watchdog();
    assert_string_equal(received(), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_watchdog_interval),
        cmocka_unit_test(test_without_systemd),
    };
    return cmocka_run_group_tests(tests, listen_as_systemd, stop_listening);
}
