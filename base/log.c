#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* systemd takes a "<N>" prefix as the priority of a line on stderr; a person at a terminal needs none. */
void log_line(enum log_level level, const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "ttorchd: %s\n", line);
    else
        fprintf(stderr, "<%d>%s\n", (int)level, line);
}
