#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

status error_set(struct error *error, const char *format, ...) {
    if (error == NULL)
        return FAILED;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return FAILED;
}

status error_prefix(struct error *error, const char *format, ...) {
    if (error == NULL)
        return FAILED;
    struct error before = *error;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof error->text)
        snprintf(error->text + length, sizeof error->text - (size_t)length, ": %.*s",
                 (int)sizeof before.text - length - 3, before.text);
    return FAILED;
}
