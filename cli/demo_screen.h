/* Where the demo tells what happens: lines that stay, and below them, on a terminal, a block that is drawn anew in
 * its place. */
#pragma once
#include <stdbool.h>
#include <stdio.h>

struct screen {
    FILE *out;      /* NULL = silent */
    bool live;      /* a terminal */
    unsigned lines; /* of the block that stands there */
};

void screen_open(struct screen *screen, FILE *out, bool live);
/* A line that stays. */
void screen_say(struct screen *screen, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Replaces the block; `text` is lines that end in \n. Nothing unless live. */
void screen_draw(struct screen *screen, const char *text);
/* Lets the block stand, and gives the cursor back. */
void screen_close(struct screen *screen);
