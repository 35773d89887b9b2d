/* A group of managers in one process, over real loopback connections: the rig of
 * test_io_raft_group.
 */
#pragma once

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "io/clock.h"
#include "io/listener.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/raft_group_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_USEC 60000000

/* A state machine that remembers how many entries it saw, and a checksum over them in order. */
struct counter {
    uint64_t count;
    uint32_t crc;
};

struct node {
    struct rig *rig;
    char dir[96];
    char address[32];
    struct listener *listener;
    struct raft_group *group;
    struct counter state;
    unsigned n_restored;
    bool leader;
    bool cut; /* nobody reaches it, and it reaches nobody */
    bool failed;
    bool closed;
    char why[1024];  /* of `failed` */
    char text[1024]; /* the last error for the operator */
};

struct rig {
    char dir[64];
    struct loop *loop;
    struct loop_timer *look; /* every wait looks at the clock */
    struct node nodes[MANAGERS_MAX];
    size_t n;
    unsigned n_done;
    unsigned n_ok;
    unsigned n_lost;
};

/* ---- the state machine ---- */

static inline void on_apply(void *ctx, uint64_t index, const uint8_t *data, size_t bytes)
{
    struct node *x = ctx;

    (void) index;
    x->state.count++;
    x->state.crc = crc32c(x->state.crc, data, bytes);
}

static inline void on_snapshot(void *ctx, struct buf *out)
{
    struct node *x = ctx;
    uint8_t b[12];

    bytes_put_u64(b, x->state.count);
    bytes_put_u32(b + 8, x->state.crc);
    buf_append(out, b, sizeof(b));
}

static inline int on_restore(void *ctx, const uint8_t *data, size_t bytes)
{
    struct node *x = ctx;

    if (bytes != 12) {
        return -EBADMSG;
    }
    x->state = (struct counter){ bytes_get_u64(data), bytes_get_u32(data + 8) };
    x->n_restored++;
    return 0;
}

static inline void on_leadership(void *ctx, bool leader)
{
    struct node *x = ctx;

    x->leader = leader;
}

static inline void on_failed(void *ctx, const char *why)
{
    struct node *x = ctx;

    x->failed = true;
    snprintf(x->why, sizeof(x->why), "%s", why);
}

static inline void on_log(void *ctx, int level, const char *text)
{
    struct node *x = ctx;

    if (level <= LOG_ERR) {
        snprintf(x->text, sizeof(x->text), "%s", text);
    }
}

static inline void on_cluster_id(void *ctx, uint8_t ret_id[UUID_BYTES])
{
    (void) ctx;
    memset(ret_id, 0, UUID_BYTES);
}

static inline void on_released(void *ctx)
{
    struct node *x = ctx;

    listener_release(x->listener);
}

/* ---- the door of each ---- */

static inline enum rpc_verdict on_hello(struct rpc *rpc, void *ctx, struct mp_reader *params,
                                        struct buf *answer)
{
    struct node *x = ctx;
    struct msg_hello theirs;
    struct msg_hello ours = { .protocol_min = 1, .protocol_max = 1, .role = ROLE_MANAGER };

    msg_get_hello(params, &theirs);
    assert_false(params->failed);
    assert_int_equal(theirs.role, ROLE_MANAGER);
    assert_in_range(theirs.server, 1, x->rig->n);
    if (!x->group || x->cut || x->rig->nodes[theirs.server - 1].cut) {
        buf_append(answer, "cut", 3);
        return RPC_HELLO_REFUSE;
    }
    msg_put_hello(answer, &ours);
    raft_group_adopt(x->group, rpc);
    return RPC_HELLO_ACCEPT;
}

static inline void on_rpc_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct node *x = ctx;

    (void) rpc;
    (void) error;
    (void) why;
    listener_release(x->listener);
}

static const struct rpc_ops door_ops = { .on_hello = on_hello, .on_closed = on_rpc_closed };

static inline void on_accept(void *ctx, int fd)
{
    struct node *x = ctx;
    struct rpc_config config = { .ops = &door_ops,
                                 .ctx = x,
                                 .message_bytes_max = MSG_BYTES_MAX,
                                 .out_bytes_max = MSG_BYTES_MAX };

    rpc_accept(x->rig->loop, fd, &config);
}

/* ---- the rig ---- */

static inline int node_start_as(struct node *x, const char *const *addresses, size_t n, size_t self)
{
    struct raft_group_options o = {
        .loop = x->rig->loop,
        .dir = x->dir,
        .addresses = addresses,
        .n = n,
        .self = self,
        .fsm = { .ctx = x,
                 .apply = on_apply,
                 .snapshot = on_snapshot,
                 .restore = on_restore,
                 .leadership = on_leadership,
                 .failed = on_failed },
        .cluster_id = on_cluster_id,
        .released = on_released,
        .log = on_log,
    };

    x->state = (struct counter){ 0 };
    x->n_restored = 0;
    x->leader = x->failed = x->closed = false;
    x->why[0] = x->text[0] = '\0';
    x->group = NULL;
    return raft_group_start(&o, &x->group);
}

static inline int node_start(struct node *x)
{
    const char *addresses[MANAGERS_MAX];

    for (size_t i = 0; i < x->rig->n; i++) {
        addresses[i] = x->rig->nodes[i].address;
    }
    return node_start_as(x, addresses, x->rig->n, (size_t) (x - x->rig->nodes));
}

#define WAIT_FOR(g, condition)                                                                     \
    do {                                                                                           \
        uint64_t until_ = clock_boot_usec() + WAIT_USEC;                                           \
        while (!(condition)) {                                                                     \
            assert_true(clock_boot_usec() < until_);                                               \
            loop_turn((g)->loop, true);                                                            \
        }                                                                                          \
    } while (0)

static inline void run_for(struct rig *g, uint64_t usec)
{
    uint64_t until = clock_boot_usec() + usec;

    while (clock_boot_usec() < until) {
        loop_turn(g->loop, true);
    }
}

static inline void on_closed(void *ctx)
{
    struct node *x = ctx;

    x->closed = true;
}

static inline void node_stop(struct node *x)
{
    struct rig *g = x->rig;

    raft_group_close(TAKE_PTR(x->group), on_closed, x);
    WAIT_FOR(g, x->closed);
    x->leader = false;
}

static inline struct node *leader_of(struct rig *g)
{
    struct node *leader = NULL;

    for (size_t i = 0; i < g->n; i++) {
        if (g->nodes[i].group && g->nodes[i].leader && !g->nodes[i].cut) {
            leader = &g->nodes[i];
        }
    }
    return leader;
}

static inline struct node *wait_leader(struct rig *g)
{
    WAIT_FOR(g, leader_of(g) != NULL);
    return leader_of(g);
}

static inline struct node *other_than(struct rig *g, const struct node *x)
{
    return &g->nodes[(size_t) (x - g->nodes + 1) % g->n];
}

static inline void on_done(void *ctx, int status, uint64_t index)
{
    struct rig *g = ctx;

    (void) index;
    g->n_done++;
    g->n_ok += status == 0;
    g->n_lost += status == -EREMOTEIO;
}

/* So many entries of so many bytes are committed, by whoever leads. What got lost with a leader is
 * proposed again. */
static inline void commit_bytes(struct rig *g, unsigned n, size_t bytes)
{
    _cleanup_free_ uint8_t *data = calloc(1, bytes);
    unsigned ok = g->n_ok;
    unsigned target = ok + n;
    uint64_t until = clock_boot_usec() + WAIT_USEC;

    while (g->n_ok < target) {
        struct node *leader = wait_leader(g);
        unsigned done = g->n_done, asked = 0;
        bytes_put_u32(data, g->n_done);
        for (; asked < MIN_OF(target - g->n_ok, 64U); asked++) {
            if (consensus_propose(raft_group_consensus(leader->group), data, bytes, on_done, g) <
                0) {
                break;
            }
        }
        WAIT_FOR(g, g->n_done == done + asked);
        assert_true(clock_boot_usec() < until);
        loop_turn(g->loop, asked == 0);
    }
}

static inline void commit(struct rig *g, unsigned n)
{
    commit_bytes(g, n, 24);
}

static inline bool all_equal(const struct rig *g)
{
    const struct node *first = NULL;

    for (size_t i = 0; i < g->n; i++) {
        const struct node *x = &g->nodes[i];
        if (!x->group || x->failed) {
            continue;
        }
        first = first ? first : x;
        if (x->state.count != first->state.count || x->state.crc != first->state.crc) {
            return false;
        }
    }
    return true;
}

static inline void wait_equal(struct rig *g, uint64_t count)
{
    WAIT_FOR(g, all_equal(g) && wait_leader(g)->state.count >= count);
}

static inline void node_cut(struct node *x)
{
    struct rig *g = x->rig;

    x->cut = true;
    raft_group_disconnect(x->group); /* both ways: what it has accepted too */
    for (size_t i = 0; i < g->n; i++) {
        struct node *y = &g->nodes[i];
        struct member *m = y->group ? &y->group->members[x - g->nodes] : NULL;
        if (m && m->link) {
            rpc_link_next(m->link);
        }
    }
}

static inline void node_heal(struct node *x)
{
    x->cut = false;
    assert_int_equal(raft_group_connect(x->group), 0);
}

static inline void node_init(struct rig *g, size_t i)
{
    struct node *x = &g->nodes[i];
    char text[ADDR_TEXT_BYTES];
    struct addr addr;

    x->rig = g;
    snprintf(x->dir, sizeof(x->dir), "%s/%zu", g->dir, i + 1);
    assert_int_equal(mkdir(x->dir, 0750), 0);
    x->listener = listener_new(g->loop, 0, "listen", on_accept, x);
    assert_int_equal(listener_open(x->listener, "127.0.0.1:0", 0, true, NULL), 0);
    listener_start(x->listener);
    assert_int_equal(listener_addr(x->listener, 0, &addr), 0);
    snprintf(x->address, sizeof(x->address), "%s", addr_format(&addr, text));
}

static inline void dir_remove(const char *dir)
{
    char command[160];

    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static inline void on_look(void *ctx)
{
    (void) ctx;
}

/* A group, not started. */
static inline void rig_make(struct rig *g, size_t n)
{
    *g = (struct rig){ .n = n };
    strcpy(g->dir, "/tmp/kumo-group-XXXXXX");
    assert_non_null(mkdtemp(g->dir));
    assert_int_equal(loop_new(&g->loop), 0);
    g->look = loop_timer_new(g->loop, on_look, g);
    loop_timer_every(g->look, 10000);
    for (size_t i = 0; i < n; i++) {
        node_init(g, i);
    }
}

static inline void rig_start(struct rig *g, size_t n)
{
    rig_make(g, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(node_start(&g->nodes[i]), 0);
    }
}

static inline void rig_free(struct rig *g)
{
    for (size_t i = 0; i < g->n; i++) {
        if (g->nodes[i].group) {
            node_stop(&g->nodes[i]);
        }
    }
    run_for(g, 20000);
    for (size_t i = 0; i < g->n; i++) {
        listener_stop(g->nodes[i].listener);
    }
    loop_turn(g->loop, false);
    for (size_t i = 0; i < g->n; i++) {
        listener_free(g->nodes[i].listener);
    }
    loop_timer_free(g->look);
    loop_free(g->loop);
    dir_remove(g->dir);
}
