/* Small files, read and written whole. Nothing written here can be half there after a crash. These calls block for as
 * long as one fsync takes: they are used only where the next step may not begin before the file is on disk. */
#pragma once
#include <sys/types.h>

#include "base/error.h"

/* The text of a file, to be freed; NULL with errno if there is none. Files over FILE_TEXT_MAX bytes are EFBIG. */
#define FILE_TEXT_MAX (4 << 20)
char *file_read(const char *path);
/* A temporary file beside it, fsync, rename, fsync of the directory. */
status file_write(const char *path, mode_t mode, const char *text, struct error *error) must_check;
/* The same with a last line that is a checksum of those before; `text` has at most FILE_CHECKED_MAX bytes. */
#define FILE_CHECKED_MAX 256
status file_write_checked(const char *path, mode_t mode, const char *text, struct error *error) must_check;
/* OK: `ret_text` has the text without that line, to be freed, or is NULL if there is no such file. FAILED: it is not
 * what was written, or cannot be read. */
status file_read_checked(char **ret_text, const char *path, struct error *error) must_check;
/* An empty file, on disk. One that exists is left as it is. */
status file_touch(const char *path, struct error *error) must_check;
bool file_exists(const char *path);
status directory_sync(const char *path, struct error *error) must_check;

/* Drops the oldest part of a log that takes more than `most` bytes on disk, so that half of them is left, while others
 * append to it. Where the filesystem cannot (ext4 and XFS can) zeros that take no space are left in its place. */
void log_shorten(const char *path, off_t most);

/* `text` without the lines from `begin` to `end` (whole lines, inclusive), and without lines that end in `mark`; each
 * may be NULL. To be freed. */
char *text_without(const char *text, const char *begin, const char *end, const char *mark);
