/* Files that other programs read: replaced as a whole or not at all. */
#pragma once
#include "base/error.h"

/* Beside `path`: write, fsync, rename, fsync of the directory. Mode 0644. */
status file_replace(const char *path, const char *text, struct error *error) must_check;
