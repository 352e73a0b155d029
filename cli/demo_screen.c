#include "cli/demo_screen.h"

#include <stdarg.h>
#include <string.h>

#define CURSOR_HIDE "\033[?25l"
#define CURSOR_SHOW "\033[?25h"
#define WRAP_OFF    "\033[?7l" /* a long line is cut, not wrapped: the block keeps its number of lines */
#define WRAP_ON     "\033[?7h"
#define LINE_END    "\033[K\n" /* erases what an older, longer line left */
#define ERASE_BELOW "\033[J"

void screen_open(struct screen *screen, FILE *out, bool live) {
    *screen = (struct screen){.out = out, .live = out && live};
    if (screen->live)
        fputs(CURSOR_HIDE, out);
}

static void screen_rewind(struct screen *screen) {
    if (screen->lines > 0)
        fprintf(screen->out, "\r\033[%uA", screen->lines);
    screen->lines = 0;
}

void screen_say(struct screen *screen, const char *format, ...) {
    va_list arguments;
    if (!screen->out)
        return;
    screen_rewind(screen);
    if (screen->live)
        fputs(ERASE_BELOW, screen->out);
    va_start(arguments, format);
    vfprintf(screen->out, format, arguments);
    va_end(arguments);
    fputc('\n', screen->out);
    fflush(screen->out);
}

void screen_draw(struct screen *screen, const char *text) {
    if (!screen->live)
        return;
    screen_rewind(screen);
    fputs(WRAP_OFF, screen->out);
    for (size_t length; *text; text += length + (text[length] == '\n')) {
        length = strcspn(text, "\n");
        fprintf(screen->out, "%.*s" LINE_END, (int)length, text);
        screen->lines++;
    }
    fputs(ERASE_BELOW WRAP_ON, screen->out);
    fflush(screen->out);
}

void screen_close(struct screen *screen) {
    if (screen->live)
        fputs(CURSOR_SHOW, screen->out);
    if (screen->out)
        fflush(screen->out);
    screen->lines = 0;
    screen->live = false;
}
