/* Who this data directory is: DIR/superblock, replaced whole (write, fsync, rename, fsync of the
 * folder). Its server id is the server's identity; address and host name may change, a wiped
 * directory is a new server. */
#pragma once

#include "core/incarnation.h"
#include "io/io_error.h"
#include "wire/msg.h"

#include <stdbool.h>

/* Is the log believed? (R15) */
enum superblock_distrust {
    DISTRUST_NONE,
    DISTRUST_ASIDE, /* no: a start sets it aside with the checkpoints, and begins with nothing */
    DISTRUST_EMPTY, /* that was done; that every partition begins emptied is not yet in the log */
    _DISTRUST_MAX,
};

/* As far as the manager said last: do all partitions, of which this server is a member, have other
 * members? */
enum superblock_copies {
    COPIES_UNKNOWN,
    COPIES_ONLY_HERE, /* not all */
    COPIES_ELSEWHERE,
    _COPIES_MAX,
};

struct superblock {
    uint8_t server_id[UUID_BYTES];  /* made at first start */
    uint8_t cluster_id[UUID_BYTES]; /* zeros until a manager accepted it */
    uint32_t server;                /* its number in the cluster; 0 until then */
    uint32_t partitions;            /* of the cluster; 0 until then */
    struct incarnation incarnation; /* of this process */
    uint64_t start;                 /* counts the starts */
    bool compacted;                 /* segments were removed: the log alone is not everything */
    uint32_t first_segment;         /* lowest segment number of this start */
    bool clean;                     /* the last start ended in order: all of it is on the disk */
    bool weak;                      /* the last start's sync mode was weaker than always (R7) */
    bool doubt;                     /* answered writes may have been lost here (R7) */
    enum superblock_distrust distrust;
    enum superblock_copies copies;
};

/* -ENOENT: there is none; -EBADMSG, -EIO… with a sentence. */
int superblock_read(const char *dir, struct superblock *ret, struct io_error *error);
/* Durable when it returns 0. */
int superblock_write(const char *dir, const struct superblock *s, struct io_error *error);
