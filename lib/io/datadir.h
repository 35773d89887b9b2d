/* A server's data directory, opened while no server runs on it: for the offline tools. Reading
 * never changes it; what changes it says so. */
#pragma once

#include "core/shard.h"
#include "io/checkpoints.h"
#include "io/segments.h"
#include "io/superblock.h"

struct datadir;

enum datadir_flags {
    /* Replays the whole log from its first segment, as if there were no checkpoints. -EBADMSG when
     * segments were compacted away: the log alone is not everything then. */
    DATADIR_LOG_ONLY = 1 << 0,
    /* Doesn't take the directory's lock: for a backup, which no server uses, or because the caller
     * holds it. */
    DATADIR_NO_LOCK = 1 << 1,
};

/* Opens the directory and replays it into one shard that holds every partition: from the newest
 * good generation of checkpoints, without one from the log's beginning. -EBUSY: a server runs on
 * it; -ENOENT: no data directory; -ENODATA: of a server that never joined a cluster; -EMFILE;
 * -EBADMSG: damaged; each with a sentence. */
int datadir_open(const char *dir, unsigned flags, struct datadir **ret, struct io_error *error);
/* NULL is fine; returns NULL. */
struct datadir *datadir_free(struct datadir *d);

const char *datadir_path(const struct datadir *d);
const struct superblock *datadir_superblock(const struct datadir *d);
/* After a replay with good_bytes of each segment: what lies behind is a torn tail. */
const struct segment_set *datadir_segments(const struct datadir *d);
/* The generation that was loaded, or NULL: the log was replayed from its beginning. */
const struct manifest *datadir_manifest(const struct datadir *d);
/* All partitions, replayed; nobody steps it. Its log would begin above everything that is there. */
struct shard *datadir_shard(struct datadir *d);

/* Calls fn for each committed live record (no tombstones, none flushed; expired ones are given: the
 * caller looks at expiry_sec), in any order within a partition, partitions in order. A negative
 * return of fn ends the walk and is returned. -EBADMSG with a sentence: a record can't be read. */
typedef int (*datadir_record_fn)(void *ctx, const struct entry *e);
int datadir_walk(struct datadir *d, datadir_record_fn fn, void *ctx, struct io_error *error);

/* ---- in steps, for who looks at damage ---- */

/* As datadir_open, without looking into segments and checkpoints: nothing is replayed. */
int datadir_look(const char *dir, unsigned flags, struct datadir **ret, struct io_error *error);
/* Pages of segments that the disk can't give become zeros, in memory only, so that reading them
 * doesn't end the process. fn is told of each run of them. After bus_prepare; reads all of the log.
 */
typedef void (*datadir_unreadable_fn)(void *ctx, uint32_t segment, uint64_t offset, uint64_t bytes);
int datadir_mask(struct datadir *d, datadir_unreadable_fn fn, void *ctx, struct io_error *error);
/* Checks the log in memory, and replays it behind that generation (0: from its beginning) into a
 * new shard; the one before is given up. -EBADMSG with a sentence. */
int datadir_replay(struct datadir *d, uint64_t generation, struct io_error *error);
/* A generation is published when the log is durable through its end: does the log that was replayed
 * last, from whatever generation, go so far? A torn tail can't begin before. -EBADMSG with a
 * sentence: no. */
int datadir_reached(const struct datadir *d, const struct manifest *m, struct io_error *error);
/* Makes an empty shard instead, for who fills it with whatever can be read: the segments count as
 * good to their last byte, and nothing is checked. */
int datadir_begin(struct datadir *d, struct io_error *error);

/* Calls fn for each record of a partition's index, tombstones included, in any order. A negative
 * return of fn ends the walk and is returned. */
typedef int (*datadir_index_fn)(void *ctx, const uint8_t *key, size_t key_len,
                                const struct index_record *rec);
int datadir_index_walk(struct datadir *d, uint16_t partition, datadir_index_fn fn, void *ctx);
/* The entry that a record points at, read with its checksum; valid as long as `d`. -EBADMSG with a
 * sentence: it isn't there, or not the record's. */
int datadir_read(const struct datadir *d, uint16_t partition, const uint8_t *key, size_t key_len,
                 const struct index_record *rec, struct entry *ret, struct io_error *error);

/* ---- generations of checkpoints (datadir_generation.c) ---- */

/* Those that have a manifest, newest first; *ret is the caller's. *ret_highest: of anything that
 * lies there, 0: none. */
int datadir_generations(const char *dir, uint64_t **ret, size_t *ret_n, uint64_t *ret_highest,
                        struct io_error *error);
/* Reads the manifest of one and maps its files, those that are there; `partitions`: of the
 * superblock. checkpoint_set_close ends it. -EBADMSG, -ENOENT… with a sentence. */
int datadir_generation_open(const char *dir, uint64_t generation, uint32_t partitions,
                            struct checkpoint_set *ret, struct io_error *error);
/* Is the checkpoint of this partition there with every byte? -EBADMSG with a sentence. */
int datadir_generation_check(const struct checkpoint_set *set, uint16_t partition,
                             struct io_error *error);
/* Writes a generation from a shard that holds all partitions, durable when it returns 0. The log
 * must be durable through the shard's end of it. Older generations stay. */
int datadir_generation_write(const char *dir, const struct shard *s, uint64_t generation,
                             struct io_error *error);
