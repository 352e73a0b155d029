#include "pgctl/guard_watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pgctl/guard_say.h"

#define FEEDS_PER_TIMEOUT 4
#define TIMEOUT_MIN_S     2 /* a shorter one, if that is all that the device has, is no use: we may be late */

static int control(int fd, unsigned long request, int *value) { return ioctl(fd, request, value); }

bool watchdog_init(struct watchdog *watchdog, const char *mode, const char *device, int timeout_s) {
    static const char *const words[] = {
        [WATCHDOG_OFF] = "off", [WATCHDOG_AUTOMATIC] = "automatic", [WATCHDOG_REQUIRED] = "required"};
    for (unsigned i = WATCHDOG_OFF; i <= WATCHDOG_REQUIRED; i++) {
        if (strcmp(mode, words[i]) != 0)
            continue;
        *watchdog = (struct watchdog){
            .mode = (enum watchdog_mode)i, .device = device, .timeout_s = timeout_s, .control = control, .fd = -1};
        return true;
    }
    return false;
}

static void feed(struct watchdog *watchdog, nsec now) {
    watchdog->next_feed = now + watchdog->interval;
    if (write(watchdog->fd, "\1", 1) != 1 && watchdog->control(watchdog->fd, WDIOC_KEEPALIVE, &(int){0}) != 0)
        guard_say("%s: could not be fed: %s", watchdog->device, strerrordesc_np(errno));
}

/* "V" disarms it; a device that was built never to be disarmed resets the machine, which is its owner's will. */
static void close_in_peace(struct watchdog *watchdog) {
    if (write(watchdog->fd, "V", 1) != 1)
        guard_say("%s: could not be disarmed: %s", watchdog->device, strerrordesc_np(errno));
    close(watchdog->fd);
    watchdog->fd = -1;
}

/* Some have one fixed timeout and refuse to be told; what they say they have is what counts. */
static status set_timeout(struct watchdog *watchdog, struct error *error) {
    int seconds = watchdog->timeout_s;
    (void)watchdog->control(watchdog->fd, WDIOC_SETTIMEOUT, &seconds);
    if (watchdog->control(watchdog->fd, WDIOC_GETTIMEOUT, &seconds) != 0)
        return error_set(error, "does not tell its timeout: %s", strerrordesc_np(errno));
    if (seconds < TIMEOUT_MIN_S)
        return error_set(error, "has a timeout of %d s, at least %d s is needed", seconds, TIMEOUT_MIN_S);
    watchdog->interval = (nsec)seconds * NSEC_PER_SEC / FEEDS_PER_TIMEOUT;
    guard_say("%s: resets this machine if it is not fed for %d s", watchdog->device, seconds);
    return OK;
}

static status try_to_begin(struct watchdog *watchdog, struct error *error) {
    watchdog->fd = open(watchdog->device, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (watchdog->fd < 0)
        return error_set(error, "%s", strerrordesc_np(errno));
    if (set_timeout(watchdog, error) != OK) {
        close_in_peace(watchdog);
        return FAILED;
    }
    feed(watchdog, time_now());
    return OK;
}

status watchdog_begin(struct watchdog *watchdog, struct error *error) {
    struct error why;
    if (watchdog->mode == WATCHDOG_OFF || watchdog->fd >= 0 || watchdog->complained ||
        try_to_begin(watchdog, &why) == OK)
        return OK;
    if (watchdog->mode == WATCHDOG_REQUIRED)
        return error_set(error, GUARD_NO_WATCHDOG "%s: %s", watchdog->device, why.text);
    watchdog->complained = true;
    guard_say("goes on without a watchdog: %s: %s", watchdog->device, why.text);
    return OK;
}

void watchdog_tend(struct watchdog *watchdog, nsec deadline, nsec now) {
    if (watchdog->fd < 0)
        return;
    if (deadline == NSEC_NEVER)
        close_in_peace(watchdog);
    else if (now < deadline && now >= watchdog->next_feed)
        feed(watchdog, now);
}

nsec watchdog_next(const struct watchdog *watchdog) { return watchdog->fd >= 0 ? watchdog->next_feed : NSEC_NEVER; }
