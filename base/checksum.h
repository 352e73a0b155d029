/* CRC-32 (IEEE), for what is kept on disk or sent and must be told from what was damaged. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Of what came before (0 to begin with) and `bytes`. */
uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t length);
