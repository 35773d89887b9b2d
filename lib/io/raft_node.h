/* The replicated log of the managers: `struct consensus` by C-Raft, with its own disk format
 * (raft_uv) and a libuv loop that runs inside the daemon's libevent loop. It knows no sockets: its
 * owner carries messages to the other managers and hands over theirs (io/raft_group.h).
 *
 * What it must never do: report a proposal that is not on the disks of most, go on after a disk
 * error (a failed write is never retried), or open a log that it can't read as a whole.
 *
 * One thread: every call and every callback happens on the loop of `base`. */
#pragma once

#include "core/consensus.h"
#include "wire/mp.h"

#include <event2/event.h>

/* One entry at most; proposals under way at most, and their bytes. */
#define RAFT_NODE_ENTRY_BYTES_MAX   ((size_t) 4 << 20)
#define RAFT_NODE_PENDING_MAX       4096
#define RAFT_NODE_PENDING_BYTES_MAX ((size_t) 8 << 20)

/* A snapshot is taken after so many entries; so many entries before it are kept. */
#define RAFT_NODE_SNAPSHOT_THRESHOLD 1024
#define RAFT_NODE_SNAPSHOT_TRAILING  256

/* Entries in one message to another manager, but for one that is larger itself. */
#define RAFT_NODE_MESSAGE_BYTES_MAX ((size_t) 1 << 20)

struct raft_node;

/* One manager of the group, as the log has it. */
struct raft_node_server {
    uint64_t id;
    const char *address;
};

struct raft_node_options {
    /* Must outlive the node. */
    struct event_base *base;
    /* Directory of this log alone; must exist. Locked while the node lives. Copied. */
    const char *dir;
    /* Of this manager, never 0, always the same for one directory. The address is copied; it is
     * only remembered, not connected to. */
    uint64_t id;
    const char *address;
    /* Begin a log, if `dir` holds nothing yet: of a group of these servers, of which this one is
     * one; with none given, of this one alone. Every server of a new group must begin with the same
     * ones. Without it an empty log waits to be taken up. Used during the start only. */
    bool bootstrap;
    const struct raft_node_server *servers;
    size_t n_servers;
    /* Carries one MessagePack item to server `to`, or loses it, and must not call the node. NULL:
     * all are lost. */
    void (*send)(void *ctx, uint64_t to, const struct buf *message);
    void *send_ctx;
    struct consensus_fsm fsm;
    /* What the operator should read: why the start failed (LOG_ERR), or what is odd (LOG_WARNING);
     * the levels are syslog's. May be NULL. */
    void (*log)(void *ctx, int level, const char *text);
    void *log_ctx;
};

/* Opens or begins the log. Before it returns, `restore` and `apply` may already be called for what
 * the disk holds; `leadership` and all else come from the loop. A cluster of one is leader after
 * the first turns of the loop.
 *
 * Errors were told to `log` in words: -EINVAL (options; or the log belongs to another id), -ENOENT,
 * -ENOTDIR, -EACCES, -EROFS, -EBUSY (another process has it, and kept it for 1 s), -EBADMSG
 * (damaged, or not readable by this version), -ENOSPC, -EIO, -ENOMEM. The caller still owns the
 * options. */
int raft_node_start(const struct raft_node_options *o, struct raft_node **ret_node);

/* Whether a log was begun in this directory. Errors as of raft_node_start, told in the same way. */
int raft_node_look(const struct raft_node_options *o, bool *ret_begun);

/* The servers that the log names. Returns how many there are; writes at most `max`, whose addresses
 * are valid until the loop turns. */
size_t raft_node_servers(const struct raft_node *n, struct raft_node_server *ret, size_t max);

/* What server `from` sent. -EBADMSG: it can't have been meant so; nothing happened. Not to be
 * called from a callback of the node. */
int raft_node_receive(struct raft_node *n, uint64_t from, struct mp_reader *message);

struct raft_node_state {
    bool leads;      /* as consensus_is_leader */
    uint64_t leader; /* 0: none is known */
    uint64_t term;
};
void raft_node_state(struct raft_node *n, struct raft_node_state *ret);

/* The log's interface; valid until raft_node_close is called. Its rules, beyond core/consensus.h:
 * `propose` is -EAGAIN as well while closing, -EIO after `failed`, -EMSGSIZE above
 * RAFT_NODE_ENTRY_BYTES_MAX, and -ENOSPC when the disk has no room for another segment (it did not
 * happen; room is looked for every 5 s, and then it works again). It must not be called from
 * `apply`, `snapshot` or `restore`; it may be from `done` and `leadership`. `snapshot` may be
 * called from within `propose`. */
struct consensus *raft_node_consensus(struct raft_node *n);

/* Stops and frees the node. Returns at once; proposals under way end with -EREMOTEIO, what was
 * written is kept, then `closed` is called (may be NULL), once. No callback comes after it, and but
 * for `done` none after the turn of the loop in which this was called. May be called from any
 * callback but `apply`, `snapshot` and `restore`.
 *
 * After `failed`, or when the disk doesn't let go within 10 s, `closed` is called without waiting,
 * and memory and lock stay until the process exits. */
void raft_node_close(struct raft_node *n, void (*closed)(void *ctx), void *ctx);
