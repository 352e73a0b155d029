/* ttorch-guard's own lines in its log file. A write to a hung disk blocks, and a guard that blocks kills nothing: lines
 * are kept in memory until a moment when waiting does no harm. Nothing here allocates, once tzset() has been called. */
#pragma once

/* Keeps a line with its time; when too many are kept it is lost. */
void guard_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes what is kept to stderr. May block. */
void guard_say_flush(void);
