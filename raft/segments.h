/* Whether the open segments of libraft's log are what a crash may leave. libraft checks the closed ones itself, and
 * refuses to start; but from an open one it silently cuts off everything after the first entry that is damaged, be it a
 * write that a power cut tore or one that we have long acknowledged. Reads only. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* libraft's CRC-32 is not the usual one: the same polynomial from the other end, and nothing is inverted. */
uint32_t segment_checksum(const uint8_t *bytes, size_t length);
/* FAILED: damaged, with the file and the place. `size` is that of every segment that has been written to. */
status segments_check(const char *log_directory, size_t size, struct error *error) must_check;
/* The same for the bytes of one file; `torn` says whether its last write was cut short. */
status segment_check(const uint8_t *bytes, size_t length, bool *ret_torn, struct error *error) must_check;
