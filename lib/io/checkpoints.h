/* Checkpoint files of a server: DIR/checkpoint/GGGGGGGGGG-SS.ckp, one per generation and shard, and
 * GGGGGGGGGG.manifest, which names them and is renamed into place last. Two generations are kept.
 */
#pragma once

#include "core/checkpoint.h"
#include "io/io_error.h"

struct loop;
struct progress;

/* ---- what a start finds ---- */

struct checkpoint_set {
    char dir[4096];
    uint64_t highest; /* generation of anything that lies there, 0: none */
    bool found;       /* a good generation: */
    struct manifest manifest;
    struct checkpoint_file {
        const uint8_t *data;
        size_t bytes;
    } files[SHARDS_MAX];
};

/* Finds the newest generation of so many partitions that is good in every byte, in the threads of
 * `progress` (may be NULL); what is damaged is told in the log and passed over. -errno with a
 * sentence when the folder can't be read; -ECANCELED. */
int checkpoint_set_open(struct checkpoint_set *set, const char *data_dir, uint32_t partitions,
                        struct progress *progress, struct io_error *error);
/* Of all partitions. */
uint64_t checkpoint_set_bytes(const struct checkpoint_set *set);
/* The bytes of one partition's checkpoint; valid until close. NULL: there is none. */
const uint8_t *checkpoint_set_get(const struct checkpoint_set *set, uint16_t partition,
                                  size_t *ret_bytes);
void checkpoint_set_close(struct checkpoint_set *set);

/* ---- writing ---- */

/* A thread that appends to files and syncs them, so that no loop does. One per server. */
struct checkpoint_writer;

/* On the loop that asked: status 0 or -errno. */
typedef void (*checkpoint_done_fn)(void *ctx, int status);

int checkpoint_writer_new(const char *data_dir, struct checkpoint_writer **ret);
/* Finishes what was asked for; the callbacks are posted. NULL is fine; returns NULL. */
struct checkpoint_writer *checkpoint_writer_free(struct checkpoint_writer *w);

/* Appends the bytes (taken over, malloc'ed) to a shard's file of a generation. From any thread. */
void checkpoint_writer_append(struct checkpoint_writer *w, uint64_t generation, uint32_t shard,
                              uint8_t *bytes, size_t n, struct loop *loop, checkpoint_done_fn done,
                              void *ctx);
/* Makes that file durable. */
void checkpoint_writer_sync(struct checkpoint_writer *w, uint64_t generation, uint32_t shard,
                            struct loop *loop, checkpoint_done_fn done, void *ctx);
/* Writes the manifest (bytes taken over) of a generation whose files are durable, and then removes
 * all generations but this one and `keep`, the good one before it. */
void checkpoint_writer_publish(struct checkpoint_writer *w, uint64_t generation, uint64_t keep,
                               uint8_t *bytes, size_t n, struct loop *loop, checkpoint_done_fn done,
                               void *ctx);
/* Calls fn(arg) on the thread: what else must not keep a loop waiting for the disk. done gets what
 * it returns. */
void checkpoint_writer_call(struct checkpoint_writer *w, int (*fn)(void *arg), void *arg,
                            struct loop *loop, checkpoint_done_fn done, void *ctx);
/* Removes what was written of a generation that failed; done gets 0. */
void checkpoint_writer_discard(struct checkpoint_writer *w, uint64_t generation, struct loop *loop,
                               checkpoint_done_fn done, void *ctx);
