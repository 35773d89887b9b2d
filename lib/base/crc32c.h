/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), for everything that lies on a disk. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* CRC of the bytes, continuing from `crc` (0 to begin). */
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);
/* The same without the processor's help: for the test that both agree. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t bytes);
