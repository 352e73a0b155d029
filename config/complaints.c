#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/loader.h"

struct place place_of_mark(yaml_mark_t mark) {
    return (struct place){(int)mark.line + 1, (int)mark.column + 1};
}

void complain(struct loader *loader, struct place place, const char *format, ...) {
    if (loader->complaints_count == COMPLAINTS_MAX) {
        loader->complaints_left_out = true;
        return;
    }
    struct complaint *complaint = &loader->complaints[loader->complaints_count++];
    complaint->place = place.line > 0 ? place : (struct place){1, 1};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(complaint->text, sizeof complaint->text, format, arguments);
    va_end(arguments);
}

static int compare_places(const void *left, const void *right) {
    const struct complaint *a = left, *b = right;
    if (a->place.line != b->place.line)
        return a->place.line < b->place.line ? -1 : 1;
    if (a->place.column != b->place.column)
        return a->place.column < b->place.column ? -1 : 1;
    return strcmp(a->text, b->text);
}

status complaints_tell(struct loader *loader, config_complaint *tell, void *user) {
    char line[COMPLAINT_MAX];
    qsort(loader->complaints, loader->complaints_count, sizeof loader->complaints[0], compare_places);
    for (unsigned i = 0; i < loader->complaints_count; i++) {
        const struct complaint *complaint = &loader->complaints[i];
        snprintf(line, sizeof line, "%s:%d:%d: %s", loader->file, complaint->place.line, complaint->place.column,
                 complaint->text);
        tell(user, line);
    }
    if (loader->complaints_left_out) {
        snprintf(line, sizeof line, "%s:1:1: there are more mistakes: mend these %d first", loader->file,
                 COMPLAINTS_MAX);
        tell(user, line);
    }
    return loader->complaints_count == 0 ? OK : FAILED;
}
