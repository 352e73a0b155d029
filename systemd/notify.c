#include "systemd/notify.h"

#include <systemd/sd-daemon.h>

/* What became of a message does not matter: without systemd there is nobody to tell. */
void notify_ready(void) { (void)sd_notify(0, "READY=1"); }

void notify_status(const char *line) { (void)sd_notifyf(0, "STATUS=%s", line); }

void notify_reloading(void) {
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(time_now() / 1000));
}

void notify_stopping(void) { (void)sd_notify(0, "STOPPING=1"); }

void notify_watchdog(void) { (void)sd_notify(0, "WATCHDOG=1"); }

nsec notify_watchdog_interval(void) {
    uint64_t microseconds;
    return sd_watchdog_enabled(0, &microseconds) > 0 ? microseconds * 1000 / 2 : 0;
}
