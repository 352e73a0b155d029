/* The published files: which there are, what each shall say, and how that went. Written by a thread (writer.h); of a
 * file that could not be written the newest text is tried again every second. */
#pragma once
#include "publish/forms.h"

struct outputs;

struct outputs_callbacks {
    const struct face *(*face)(void *user); /* what there is to show now */
    void (*notice)(void *user, const char *text);
    void (*written)(void *user, const char *name);
};

/* `config` and the strings in it must stay valid. What is wrong with one file is told by `notice`, and keeps none of
 * the others. */
status outputs_open(struct outputs **ret_outputs, uv_loop_t *loop, const struct publish_config *config,
                    const struct outputs_callbacks *callbacks, void *user, struct error *error) must_check;
/* Something but the lags has changed. */
void outputs_changed(struct outputs *outputs);
/* Only the lags may have: in these files nobody waits for them, so call it not more than once a second. */
void outputs_lags_changed(struct outputs *outputs);
/* How the files do, as rows for the status; returns how many, at most WRITER_FILES_MAX. */
unsigned outputs_rows(const struct outputs *outputs, struct face_output *ret_rows);
/* Nothing waits to be written. */
bool outputs_settled(const struct outputs *outputs);
/* Says in every file that nobody keeps it fresh from now on. */
void outputs_close(struct outputs *outputs, void (*closed)(void *user), void *user);
