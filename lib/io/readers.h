/* Threads that read records which are not in memory, so that no loop waits for the disk. One pool
 * per process; each loop asks through a reader of its own. */
#pragma once

#include "wire/frame.h"

#include <stddef.h>
#include <stdint.h>

#define READERS_THREADS_DEFAULT 4
#define READERS_THREADS_MAX     64
#define READERS_ASKED_MAX       4096                  /* reads under way, of all loops */
#define READERS_BYTES_MAX       (UINT64_C(256) << 20) /* and what they ask for, unless it is one */

struct loop;
struct readers;
struct reader;

/* Starts `threads` threads (1 to READERS_THREADS_MAX). 0 or -errno. */
int readers_new(unsigned threads, struct readers **ret);
/* Stops them. No reader may be left. NULL is fine; returns NULL. */
struct readers *readers_free(struct readers *pool);

struct reader_options {
    struct readers *pool;
    struct loop *loop;
    int dir_fd; /* DIR/log; stays the caller's, open as long as the reader */
    /* On the loop, once for each read: 0 and the bytes, valid within the call; -ENOENT: there is no
     * such segment (any more); -EIO: it is shorter; or another -errno. */
    void (*on_read)(void *ctx, uint64_t number, int error, const uint8_t *data, size_t bytes);
    void *ctx;
};

/* A reader and all calls of it belong to its loop's thread. */
struct reader *reader_new(const struct reader_options *o);
/* What was not read yet never is; on_read is not called any more. Waits for the reads that the
 * threads have begun. Not within on_read; before the loop is freed. NULL is fine; returns NULL. */
struct reader *reader_free(struct reader *r);

/* Asks for `bytes` (> 0) at `at` of a segment file. -ENOBUFS: too many reads are under way, nothing
 * was asked. */
int reader_ask(struct reader *r, uint64_t number, struct position at, size_t bytes);
