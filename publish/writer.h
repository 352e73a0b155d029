/* One thread that writes all published files, because fsync may take long and the loop must not wait: the lease and
 * the record live on it. (Not libuv's pool: libraft writes its log there.) Of several texts for one file only the
 * newest is written. */
#pragma once
#include <uv.h>

#include "publish/file.h"

#define WRITER_FILES_MAX 32

struct writer;

/* On the loop: `number` of the text that was written, or why it could not be. */
typedef void writer_done(void *user, unsigned file, uint64_t number, const struct error *failure);

status writer_open(struct writer **ret_writer, uv_loop_t *loop, writer_done *done, void *user,
                   struct error *error) must_check;
/* Takes over `text` (malloc'ed). `path` must stay valid; each `file` is one path. */
void writer_write(struct writer *writer, unsigned file, const char *path, const struct file_manner *manner, char *text,
                  uint64_t number);
/* Writes what waits, then ends. `done` is not called any more. */
void writer_close(struct writer *writer, void (*closed)(void *user), void *user);
