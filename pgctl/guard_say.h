/* ttorch-guard's own lines in its log file. */
#pragma once

void guard_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
