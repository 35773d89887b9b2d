/* What every writer of files needs: -errno, and nothing left open. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* For _cleanup_: closes a descriptor that is one. */
void files_close(int *fd);
/* All of the bytes. */
int files_write_all(int fd, const uint8_t *p, size_t bytes);
/* Makes a file's content durable, or a folder's entries. */
int files_sync(const char *path);
