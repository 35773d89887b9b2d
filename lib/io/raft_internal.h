/* The node's insides, shared by raft_node.c (its life), raft_loop.c (its turns) and raft_glue.c
 * (what C-Raft calls). Nobody else may look. */
#pragma once

#include "base/list.h"
#include "io/raft_node.h"
#include "io/raft_store.h"

#include <raft.h>
#include <raft/uv.h>

enum node_state {
    NODE_RUNNING,
    NODE_CLOSING, /* close was asked for; raft_close follows from the loop */
    NODE_CLOSED,  /* raft_close was called */
    NODE_FAILED,  /* the library is not run any more */
};

#define RAFT_WHY_BYTES 512

struct raft_node {
    struct consensus consensus; /* first */

    struct raft raft;
    struct raft_io io;
    struct raft_fsm raft_fsm;
    struct raft_uv_transport transport;
    uv_loop_t loop;

    struct raft_node_options options;
    char *dir;
    struct raft_store store;

    struct event *readable; /* the uv loop has something to do */
    struct event *timer;    /* its next timeout, or at once when something was asked of it */
    bool in_turn;
    bool again; /* something was asked of it in this turn */

    enum node_state state;
    bool in_fsm;       /* inside apply, snapshot or restore */
    bool io_failed;    /* something could not be written, or the state not be restored */
    const char *fatal; /* why it must not go on, not the disk's fault; NULL: it may */
    bool uv_closed;    /* raft_close has ended */
    bool close_queued; /* raft_node_close was called */
    void (*closed)(void *ctx);
    void *closed_ctx;

    struct list pending; /* proposals in order */
    size_t n_pending;
    size_t pending_bytes;

    /* Leadership: a barrier is sent when raft becomes leader, and leadership announced once it
     * passed. */
    struct raft_barrier barrier;
    bool barrier_sent;
    raft_term barrier_term; /* of the barrier on its way */
    raft_term leader_term;  /* of the barrier that passed; 0: none */
    bool announced;
    bool full_told; /* the log was told that the disk is full */
    struct raft_transfer transfer;
    bool handing_over; /* the lead, to another one */

    /* Disk watch: time without progress while something is to be stored, or while closing. */
    raft_index stored;
    uint64_t watch_msec; /* clock of the last look */
    uint64_t stall_msec;

    /* Of the snapshot that was read last, to be sent: C-Raft may take another one's term. */
    raft_index got_index;
    raft_term got_term;

    /* C-Raft's, for messages. */
    raft_io_recv_cb recv;

    /* raft_uv's own, behind the watching ones. */
    int (*uv_start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv);
    int (*uv_set_term)(struct raft_io *io, raft_term term);
    int (*uv_set_vote)(struct raft_io *io, raft_id id);
    int (*uv_append)(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb);
    int (*uv_truncate)(struct raft_io *io, raft_index index);
    int (*uv_snapshot_put)(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb);
    int (*uv_snapshot_get)(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb);
};

struct proposal {
    struct list node;
    struct raft_apply req;
    struct raft_node *owner;
    size_t bytes;
    consensus_done_fn done;
    void *ctx;
};

/* Passes a text for the operator on. */
void raft_glue_log(const struct raft_node_options *o, int level, const char *text);

/* Fills what raft_uv_init and raft_init are handed: state machine and transport. */
void raft_glue_prepare(struct raft_node *n);

/* Puts the watching functions before raft_uv's; to be called between raft_uv_init and raft_init. */
void raft_glue_watch_io(struct raft_node *n);

/* Something was asked of the library between two turns, or in this one: its loop must turn before
 * ours sleeps. */
void raft_loop_wake(struct raft_node *n);

/* One turn, as libevent's callback: whatever woke us, everything is looked at. */
void raft_loop_turn(evutil_socket_t fd, short what, void *ctx);

/* raft_close's callback. */
void raft_loop_closed(struct raft *raft);

/* Frees a node whose libuv loop has nothing left; its events alone. */
void raft_node_free(struct raft_node *n);
void raft_node_free_events(struct raft_node *n);
