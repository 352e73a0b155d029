#include "pgctl/guard_say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_LENGTH 700
#define KEPT_BYTES      8192

static char kept[KEPT_BYTES];
static size_t kept_length;

void guard_say(const char *format, ...) {
    if (sizeof kept - kept_length <= LINE_MAX_LENGTH)
        return;
    char *line = kept + kept_length;
    time_t now = time(NULL);
    struct tm utc;
    size_t length = strftime(line, LINE_MAX_LENGTH, "%Y-%m-%d %H:%M:%S UTC ", gmtime_r(&now, &utc));
    length += (size_t)snprintf(line + length, LINE_MAX_LENGTH - length, "ttorch-guard[%d]: ", (int)getpid());
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + length, LINE_MAX_LENGTH - length, format, arguments);
    va_end(arguments);
    length = strlen(line);
    line[length] = '\n';
    kept_length += length + 1;
}

void guard_say_flush(void) {
    if (kept_length == 0)
        return;
    ssize_t written = write(STDERR_FILENO, kept, kept_length);
    (void)written; /* a full disk must not stop us */
    kept_length = 0;
}
