#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *level_name(enum log_level level) {
    return level <= LOG_LEVEL_ERROR ? "ERROR" : level == LOG_LEVEL_WARNING ? "WARNING" : "LOG";
}

/* The journal takes a "<N>" prefix as the priority and knows the time; elsewhere a line says both, as PostgreSQL's. */
void log_line(enum log_level level, const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (getenv("JOURNAL_STREAM") != NULL) {
        fprintf(stderr, "<%d>%s\n", (int)level, line);
        return;
    }
    struct timespec now;
    struct tm local;
    char when[32];
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&now.tv_sec, &local));
    fprintf(stderr, "%s.%03ld %s: %s\n", when, now.tv_nsec / 1000000, level_name(level), line);
}
