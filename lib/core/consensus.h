/* What the manager needs of a replicated log, and nothing of who provides it: libraft in the daemon
 * (io/raft_node.h), an ideal log with delays and lost outcomes in the simulator. The hash space has
 * one owner, a Raft log of 1, 3 or 5 managers (rule R9). All calls and callbacks happen on one
 * loop. */
#pragma once

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The state machine that the log drives. Given by the owner of the consensus; `ctx` is handed back.
 */
struct consensus_fsm {
    void *ctx;
    /* Entry `index` is committed: change the state. The same on every node, so: no clock, no
     * randomness. A malformed entry must be ignored in the same way everywhere. */
    void (*apply)(void *ctx, uint64_t index, const uint8_t *data, size_t bytes);
    /* Appends the whole state to `out`. */
    void (*snapshot)(void *ctx, struct buf *out);
    /* Replaces the whole state by a snapshot's. Returns -EBADMSG when it can't be read. */
    int (*restore)(void *ctx, const uint8_t *data, size_t bytes);
    /* This node became leader (after its barrier was applied: it has seen everything committed
     * before), or is leader no more. */
    void (*leadership)(void *ctx, bool leader);
    /* The log can't go on (disk error, RAFT_UNAVAILABLE). The owner must stop the process: `why` is
     * a sentence for the operator. */
    void (*failed)(void *ctx, const char *why);
};

/* Outcome of a proposal. 0: committed and applied at `index`. -EAGAIN: not leader, it did not
 * happen. -EREMOTEIO: leadership was lost on the way, the outcome is unknown: read the state again.
 * -EIO: failed. */
typedef void (*consensus_done_fn)(void *ctx, int status, uint64_t index);

struct consensus;

struct consensus_ops {
    /* Proposes one entry; the bytes are copied. `done` (may be NULL) is called exactly once, after
     * apply, unless the call itself returns < 0 and nothing happened: -EAGAIN (not leader),
     * -ENOBUFS (too many under way), -ENOSPC (disk full), -EMSGSIZE, -ENOMEM, -EIO (failed for
     * good). Not to be called from within apply, snapshot or restore. */
    int (*propose)(struct consensus *c, const uint8_t *data, size_t bytes, consensus_done_fn done,
                   void *ctx);
    bool (*is_leader)(const struct consensus *c);
    /* Index of the last applied entry. */
    uint64_t (*applied)(const struct consensus *c);
};

/* First member of whatever implements it. */
struct consensus {
    const struct consensus_ops *ops;
};

static inline int consensus_propose(struct consensus *c, const uint8_t *data, size_t bytes,
                                    consensus_done_fn done, void *ctx)
{
    return c->ops->propose(c, data, bytes, done, ctx);
}

static inline bool consensus_is_leader(const struct consensus *c)
{
    return c->ops->is_leader(c);
}

static inline uint64_t consensus_applied(const struct consensus *c)
{
    return c->ops->applied(c);
}
