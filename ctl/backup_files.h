/* The files of a backup: linked where that is possible, copied where not. */
#pragma once

#include "io/io_error.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Makes `to` a file with the content of `from`, durable. A file that doesn't change any more
 * (`settled`) is linked, to `from` or else to `previous` (NULL: none), which has the same content;
 * any other is copied as far as it reaches now. -ENOENT: `from` is gone. */
int backup_file(const char *from, const char *previous, const char *to, bool settled);

/* The files of a folder; `bytes_linked`: of those that lie somewhere else too. */
struct backup_sum {
    uint64_t files;
    uint64_t bytes;
    uint64_t bytes_linked;
};
int backup_measure(const char *folder, struct backup_sum *ret);

/* Have both files the same first bytes (at most `bytes`) and the same size? */
bool backup_files_equal(const char *a, const char *b, size_t bytes);

/* rm -r. */
void backup_remove(const char *dir);

/* ---- segments of a data directory ---- */

struct backup_segment {
    uint32_t number;
    bool open; /* may still be written: the last one of a shard in this start */
};

/* Those that lie there now, sorted by number; *ret is the caller's. `start`: of the superblock. */
int backup_segments(const char *data_dir, uint64_t start, struct backup_segment **ret,
                    size_t *ret_n);
