/* Inside of --salvage: offline_salvage.c (the verb), offline_salvage_collect.c (what can be read),
 * offline_salvage_write.c (the records in a new log), offline_salvage_out.c (the directory). */
#pragma once

#include "offline_private.h"

#include "core/replica.h"

/* ---- offline_salvage_out.c: the directory that is made ---- */

struct salvage_out {
    char dir[4096];
    struct wal *log; /* its frames go to files of the directory */
    int log_fd;      /* the folder */
    int segment_fd;  /* the segment that grows, -1: none yet */
};
/* Makes the directory, which must not be there, and its folder for the log; as root for the owner
 * of `like`, and becomes that user. */
int salvage_out_begin(struct salvage_out *o, const char *dir, const char *like, struct wal *log,
                      struct io_error *error);
/* Writes what was appended to the log; durable when it returns 0. */
int salvage_out_flush(struct salvage_out *o, struct io_error *error);
/* Gives the finished directory its name. */
int salvage_out_publish(const struct salvage_out *o, const char *name, struct io_error *error);
void salvage_out_end(struct salvage_out *o);

/* ---- all of it ---- */

/* Where a view's entries begin: those of lower views from there on were cut (R1). */
struct view_begin {
    uint32_t view;
    uint64_t seq;
};

struct part {
    bool based;           /* on a checkpoint */
    struct name highest;  /* view and seq, each for itself, of whatever was seen */
    uint64_t commit_seq;  /* known to be committed up to here */
    struct view_begin *v; /* by view, in no order */
    size_t n;
    size_t cap;
};

struct salvage {
    struct datadir *d;
    struct part *parts;
    struct salvage_out out;
    bool applying;  /* second reading */
    bool no_memory; /* an index could not take a record */

    uint64_t ranges;
    uint64_t ranges_bytes;
    uint64_t records;
    uint64_t bytes;
    uint64_t in_doubt;
    uint64_t lost;
};

static inline struct replica *salvage_replica(const struct salvage *s, uint32_t partition)
{
    return shard_replica(datadir_shard(s->d), partition);
}

/* Fills the shard of s->d with the newest readable entry of each key. */
int salvage_collect(struct salvage *s, struct io_error *error);
/* Writes the directory of that name from the shard. */
int salvage_write(struct salvage *s, const char *name, struct io_error *error);
