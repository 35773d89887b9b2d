/* Inside of a shard's thread: shard_thread.c (the loop), shard_mail.c (the main thread), clients.c,
 * peers.c, shard_checkpoint.c and shard_compact.c. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "io/loop.h"
#include "io/residency.h"
#include "shard_thread.h"

#include <pthread.h>

/* Items of one message, gathered during a turn. */
struct gather {
    struct buf items;
    uint32_t n;
    uint64_t sent_usec; /* of leases */
};

/* What goes before the items of a message. */
enum gather_head {
    HEAD_NONE,
    HEAD_CLOCK,  /* this server's clock, and how much room its disk has */
    HEAD_LEASES, /* the same, and when leases were asked for */
};

/* Messages to another server, in the order in which a turn's end sends them. */
enum peer_gather {
    GATHER_PREPARES,
    GATHER_ACKS,
    GATHER_RESENDS,
    GATHER_COMMITS,
    GATHER_CATCHUP_ASKS,
    GATHER_CATCHUP_ACKS,
    GATHER_LEARNED,
    GATHER_LEASES,
    GATHER_LEASES_BACK,
    _GATHER_MAX,
};

/* An outgoing connection to the shard of another server that has the same partitions: one for each
 * lane. */
struct peer_link {
    struct shard_thread *thread;
    uint32_t server;
    uint32_t shard;
    enum msg_lane lane;
    uint64_t incarnation; /* of the process that answered the hello */
    struct rpc_link *link;
    bool gathered; /* something waits for the turn's end in: */
    struct gather gathers[_GATHER_MAX];
};

/* An accepted connection: a gateway, another server, or kumoctl. */
struct client {
    struct map_node node; /* by id, in thread->clients */
    struct list dirty;    /* in thread->dirty_clients: results are gathered */
    struct shard_thread *thread;
    struct rpc *rpc;
    uint64_t id;
    uint32_t role;
    enum msg_lane lane; /* of a server… */
    uint32_t from_shard;
    uint32_t server;      /* …its number… */
    uint64_t incarnation; /* …and process */
    uint64_t session;     /* of a gateway's thread, 0: not known yet */
    bool paused;          /* does not read its results */
    struct gather results;
};

#define CHECKPOINT_BYTES_PER_SEC (64u << 20)
#define CHECKPOINT_SHARE         10 /* of the loop's time: one part in so many */

/* This shard's part of a generation of checkpoints. */
struct checkpoint_run {
    bool running;
    bool hurry; /* the server stops: no pauses */
    uint64_t generation;
    uint64_t took_usec; /* the last partition */
    struct manifest_item *items;
    size_t n;        /* taken so far */
    uint64_t offset; /* in the file */
    struct compaction_live live;
    struct loop_timer *timer;
};

struct shard_thread {
    struct shard_thread_options o;
    struct shard_thread_counts counts;
    struct loop *loop;
    struct loop_timer *timer;
    pthread_t thread;
    struct shard *shard;
    struct segment_writer *writer;
    struct residency *residency;
    struct reader *reader;
    int log_fd; /* the folder, for the reader */
    struct actions actions;
    bool stopping;
    bool failed;
    enum shard_space space;      /* of this server's disk, as the core knows it */
    enum shard_space space_told; /* by the main thread */
    uint64_t low_bytes;          /* with less room than this it is low */
    uint64_t look_bytes;         /* look again when so much was written */
    bool disk_full;              /* says the writer */

    struct map clients;
    struct list dirty_clients;
    uint64_t next_client;
    struct client *granting;  /* it asked for leases in this step: grants go back to it */
    struct msg_lease *leases; /* read from a message */
    size_t cap_leases;

    struct peer_table *peers;
    struct peer_link **links;
    size_t n_links;
    size_t cap_links;
    uint64_t counts_usec; /* when they were told last */

    struct checkpoint_run checkpoint;
    struct action compacted; /* the victim's end, until the log is on the disk */

    struct list late_reports;  /* the main thread's mailbox was full */
    struct msg_sealed *sealed; /* gathered for the main thread */
    size_t n_sealed;
    size_t cap_sealed;
    struct msg_reconfig *reconfigs;
    size_t n_reconfigs;
    size_t cap_reconfigs;
};

/* One step of the machine, and what it wants done. */
void shard_thread_step(struct shard_thread *t, const struct shard_event *e);
/* Sends [head…, [items]] as a notify and empties the gather. */
void gather_send(const struct shard_thread *t, struct gather *g, struct rpc *rpc, uint32_t method,
                 enum gather_head head);
/* This server's hello. */
void shard_thread_hello(const struct shard_thread *t, uint32_t shard, enum msg_lane lane,
                        struct buf *out);
/* Reads [clock, space, sent, [leases]], which MSG_LEASES and MSG_GRANTS are, and steps the machine.
 * False: malformed. */
bool shard_thread_leases(struct shard_thread *t, enum shard_event_kind kind, uint32_t from,
                         uint64_t incarnation, struct mp_reader *r);
/* What a message says of another server's clock and disk. */
void shard_thread_clock(struct shard_thread *t, uint32_t from, uint64_t clock_usec, uint8_t space);

/* ---- shard_mail.c ---- */
/* Tells the main thread why the process has to stop, and does nothing any more. */
void shard_thread_fail(struct shard_thread *t, const char *why);
/* The same, when the disk or what lies on it is to blame (R15). */
void shard_thread_damaged(struct shard_thread *t, const char *why);
/* Tells the main thread; the arrays are taken over. */
void shard_thread_report_checkpoint(struct shard_thread *t, const struct shard_generation *g);
void shard_thread_report_compacted(struct shard_thread *t, const struct action *a);
void shard_thread_report_replayed(struct shard_thread *t);
/* Tells the seals and accusations that were gathered in this turn. */
void shard_mail_flush(struct shard_thread *t);
void shard_mail_free(struct shard_thread *t);

/* ---- shard_checkpoint.c ---- */
void shard_checkpoint_begin(struct shard_thread *t, uint64_t generation, bool hurry);
int shard_checkpoint_load(struct shard_thread *t);
void shard_checkpoint_end(struct shard_thread *t);

/* ---- shard_compact.c ---- */
void shard_compact_begin(struct shard_thread *t, uint32_t segment);
void shard_compact_done(struct shard_thread *t, const struct action *a);

/* ---- clients.c ---- */
void clients_adopt(struct shard_thread *t, struct rpc_parcel *parcel);
void clients_result(struct shard_thread *t, const struct action *a);
void clients_peek(struct shard_thread *t, const struct action *a);
void clients_grants(struct shard_thread *t, const struct action *a);
void clients_flush(struct shard_thread *t);
void clients_close(struct shard_thread *t);

/* ---- peers.c ---- */
void peers_set(struct shard_thread *t, struct peer_table *table);
void peers_act(struct shard_thread *t, const struct action *a);
void peers_flush(struct shard_thread *t);
void peers_close(struct shard_thread *t);
