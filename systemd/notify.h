/* What systemd is told: readiness, one line of status, the watchdog. Does nothing when not started by systemd. */
#pragma once
#include "base/time.h"

void notify_ready(void);
void notify_status(const char *line);
void notify_reloading(void);
void notify_stopping(void);
void notify_watchdog(void);
/* How often the watchdog must be fed (half of WatchdogSec), 0 if it is off. */
nsec notify_watchdog_interval(void);
