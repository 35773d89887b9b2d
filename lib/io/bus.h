/* SIGBUS: a page of a mapped file can't be had, because the disk failed, the file was cut, or no
 * memory is left for a file that lives in memory (the index). */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Installs the handler, for the whole process: from then on a SIGBUS that bus_touch does not expect
 * writes a sentence for the operator to stderr before it ends the process, as it always does. 0 or
 * -errno. */
int bus_prepare(void);

/* Reads a byte of each page of what is mapped at `p`: 0, or -EIO when a page can't be had, instead
 * of the process's end. Waits for the disk where pages are not in memory. After bus_prepare. */
int bus_touch(const uint8_t *p, size_t bytes);
