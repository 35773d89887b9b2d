/* Inside of kumo-server's main thread: server.c (start, stop, connections), identity.c (data
 * directory), manager_link.c (registration, views). */
#pragma once

#include "core/hashspace.h"
#include "io/checkpoints.h"
#include "io/listener.h"
#include "io/loop.h"
#include "io/progress.h"
#include "io/rpc.h"
#include "io/segments.h"
#include "io/superblock.h"
#include "server.h"
#include "shard_thread.h"

/* The generation of checkpoints that is being written, and the last one. checkpointer.c */
struct generation {
    uint64_t number; /* of the one under way or the last one */
    uint64_t good;   /* the last one that was found or published; 0: none */
    int status;      /* of the one under way: first failure of a shard */
    bool running;
    bool last;                /* the server stops when it is done */
    struct manifest manifest; /* being filled */
    uint32_t shards_done;
    uint64_t log_bytes;  /* written when it began */
    uint64_t bytes;      /* of the files of the last good one */
    uint64_t began_usec; /* the one under way or the last one */
    uint64_t retry_usec; /* after one that failed: not before */
};

/* Victims of compaction, one after the other. compactor.c */
struct compactor {
    uint32_t *victims; /* fewest live bytes first */
    size_t n;
    size_t next;
    bool running;
    uint32_t shards_done;
    int status;      /* of the victim under way */
    uint32_t victim; /* its number, for the writer's thread too */
    uint64_t copied;
    uint64_t dropped;
    struct compaction_live live;   /* of the generation that was taken last */
    struct wal_floor floor;        /* of the last good generation */
    struct wal_floor floor_before; /* of the one before it; empty: there is none */
};

/* Room on the data directory's disk. room.c */
struct room {
    enum shard_space level;
    bool ballast;        /* the file is there */
    uint64_t told_bytes; /* to the shards: below it is low */
};

/* Which partitions this server is a member of. rows.c */
struct held {
    uint8_t replicas[PARTITIONS_MAX]; /* members of its row; 0: it is none of them */
    uint32_t members;                 /* partitions */
    uint32_t shared;                  /* of them, with other members */
};

/* A stop hands over first. drain.c */
struct drain {
    bool running;
    uint32_t began_with; /* partitions with other members */
    uint32_t left;       /* of them, the last time that it was looked */
    uint64_t began_usec;
    uint64_t moved_usec;   /* when `left` changed last */
    uint64_t manager_usec; /* when a manager was connected last */
};

/* Catch-ups of partitions here, and of other servers'. learning.c */
struct learning {
    bool running;        /* partitions are caught up here */
    uint64_t began_usec; /* or when it was seen last that none is */
    uint64_t bytes;      /* that had come before */
    uint64_t taught_seen;
    uint64_t taught_told;
};

struct server {
    const struct settings *settings;
    struct daemon *daemon;
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_timer *pulse;
    char name[NAME_BYTES_MAX];
    char address[ADDRESS_BYTES_MAX];

    int lock_fd;
    struct superblock superblock;
    struct segment_set segments;
    struct checkpoint_set checkpoints; /* what was found at the start */
    struct checkpoint_writer *checkpoint_writer;
    struct readers *readers;
    struct generation generation;
    struct compactor compactor;
    struct room room;

    struct progress progress; /* of the start */
    uint64_t moves_seen;      /* of it, when the service manager was told last */

    struct shard_thread **shards;
    uint32_t n_shards;
    uint32_t n_replayed;
    uint64_t *turns_seen; /* by shard, for the watchdog */

    struct listener *listener;
    struct rpc_lobby *lobby; /* connections whose hello is not done */
    struct rpc_link *manager;
    char manager_why[160];  /* why there is none, as the log was told; empty: there is one */
    struct hashspace space; /* as the manager told */
    struct held held;
    struct drain drain;
    struct learning learning;
    bool registered; /* this process was accepted once */
    bool serving;    /* the listener accepts */
    bool failed;
    bool finished; /* the last generation is written */
};

/* ---- identity.c ---- */
/* Takes the data directory and looks whose it is. */
int identity_open(struct server *s, struct io_error *error);
/* Checks every byte of checkpoints and log that a start needs, cuts torn tails, and begins a start
 * in the superblock. Turns the loop meanwhile; -ECANCELED when that was stopped: then no start was
 * begun. */
int identity_check(struct server *s, struct io_error *error);
void identity_close(struct server *s);
/* This process is about to tell a manager its incarnation: durable first. */
int identity_sending(struct server *s, struct io_error *error);
/* A segment is about to be removed for the first time: durable first. */
int identity_compacted(struct server *s);
/* Writes another superblock, and takes it over; tells why not. */
int identity_write(struct server *s, const struct superblock *b);
/* This process ended in order, and all that it wrote is on the disk. */
void identity_ended(struct server *s);
/* A manager accepted this process: durable before anything else is sent. */
int identity_accepted(struct server *s, const struct msg_registered *m, struct io_error *error);

/* ---- distrust.c ---- */
/* The start found that its data can't be read: -errno, with a sentence in `error`. When others have
 * all of it, it is set aside, and 0 is returned: the server begins with nothing (R15). Else the
 * same is returned. */
int distrust_start(struct server *s, int found, struct io_error *error);
/* Damage was found while serving, or a write or sync failed: the next start sets the data aside, if
 * others have it. */
void distrust_next_start(struct server *s);
/* Believes again what is here, when the shards have noted that they began with nothing (R15), or
 * that nothing is missing (R7); called now and then. */
void distrust_tick(struct server *s);

/* ---- room.c ---- */
/* Looks how much room there is, and tells the shards; called often. */
void room_tick(struct server *s);
/* The disk is full, and something must be written: room is made. False: there was none to make. */
bool room_give_up_ballast(struct server *s);
/* "" or "disk full: " and the like, for the status. */
const char *room_word(enum shard_space level);

/* ---- manager_link.c ---- */
int manager_link_start(struct server *s, struct io_error *error);
void manager_link_sealed(void *ctx, const struct msg_sealed *sealed, size_t n);
void manager_link_reconfig(void *ctx, const struct msg_reconfig *asked, size_t n);

/* ---- rows.c ---- */
enum rows_kind {
    ROWS_FIRST,   /* at this process's registration: all that it holds, formed with earlier ones */
    ROWS_WHOLE,   /* at a later one: all that it holds */
    ROWS_CHANGED, /* what changed */
};
void rows_take(struct server *s, const struct view_row *rows, size_t n, enum rows_kind kind);
/* Reads an array of rows; NULL when malformed. *ret_n may be 0. The caller's. */
struct view_row *rows_read(struct mp_reader *r, size_t *ret_n);

/* ---- learning.c ---- */
/* Of all shards; a tick old. */
void counts_sum(const struct server *s, struct shard_counts *ret);
void learning_tick(struct server *s, const struct shard_counts *c);

/* ---- drain.c ---- */
/* Hands over what is led here, then calls server_finish. */
void drain_begin(struct server *s);
/* Goes on with it; called often. */
void drain_tick(struct server *s);

/* ---- checkpointer.c ---- */
/* Takes over what the start found. */
void checkpointer_start(struct server *s);
/* Begins a generation when enough log was written; called now and then. */
void checkpointer_tick(struct server *s);
/* Is the next generation late, so that compaction should let it go first? */
bool checkpointer_is_overdue(const struct server *s);
/* Writes one more generation, then ends the loop. */
void checkpointer_stop(struct server *s);
void checkpointer_shard_done(void *ctx, const struct shard_generation *g);

/* ---- compactor.c ---- */
/* A generation was published: chooses victims by its live bytes and begins. */
void compactor_begin(struct server *s, const struct manifest *manifest);
/* What a generation counted in one shard. */
void compactor_count(struct server *s, const struct compaction_live *live);
void compactor_shard_done(void *ctx, uint32_t segment, int status, uint64_t copied,
                          uint64_t dropped);
void compactor_end(struct server *s);

/* ---- server.c ---- */
/* Logs, and ends the process with a failure. */
void server_fail(struct server *s, const char *why);
/* Accepts nothing more, writes a last generation of checkpoints, then ends the loop. */
void server_finish(struct server *s);
/* Starts the shards' threads, once the cluster's partitions are known. */
int server_start_shards(struct server *s, struct io_error *error);
/* Accepts connections when everything is ready for them. */
void server_serve_if_ready(struct server *s);
