/* What C-Raft calls: the state machine behind `struct consensus_fsm`, the disk of raft_uv with an
 * eye on every step that can fail, messages to the owner's `send`, and a transport that leads
 * nowhere. */
#include "io/raft_internal.h"
#include "io/raft_wire.h"

#include "base/assert.h"
#include "base/mem.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

void raft_glue_log(const struct raft_node_options *o, int level, const char *text)
{
    if (o->log) {
        o->log(o->log_ctx, level, text);
    }
}

/* The state machine, called by raft. */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct raft_node *n = fsm->data;
    const uint8_t *data;
    size_t bytes;

    *result = NULL;
    if (raft_store_entry_decode(buf, &data, &bytes) < 0) {
        raft_glue_log(&n->options, LOG_WARNING,
                      "raft log: an entry with an impossible length is ignored");
        return 0;
    }
    n->in_fsm = true;
    /* Raft counts the entry only after this call. */
    n->options.fsm.apply(n->options.fsm.ctx, raft_last_applied(&n->raft) + 1, data, bytes);
    n->in_fsm = false;
    return 0;
}

/* Raft owns and frees what it gets here. */
static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *ret_bufs[], unsigned *ret_n_bufs)
{
    struct raft_node *n = fsm->data;
    struct buf b = { 0 };
    struct raft_buffer *bufs = raft_malloc(sizeof(*bufs));

    if (!bufs) {
        return RAFT_NOMEM;
    }
    raft_store_snapshot_begin(&b);
    n->in_fsm = true;
    n->options.fsm.snapshot(n->options.fsm.ctx, &b);
    n->in_fsm = false;
    raft_store_snapshot_end(&b);

    kumo_assert(b.start == 0); /* raft frees the block: it must begin where malloc said */
    bufs[0] = (struct raft_buffer){ .base = b.data, .len = b.end };
    *ret_bufs = bufs;
    *ret_n_bufs = 1;
    return 0;
}

/* Takes the buffer when it succeeds, and only then. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct raft_node *n = fsm->data;
    const uint8_t *data;
    size_t bytes;
    int r = raft_store_snapshot_decode(buf, &data, &bytes);

    if (r == 0) {
        n->in_fsm = true;
        r = n->options.fsm.restore(n->options.fsm.ctx, data, bytes);
        n->in_fsm = false;
    }
    if (r < 0) {
        snprintf(n->io.errmsg, sizeof(n->io.errmsg),
                 "a snapshot is damaged, or written by a newer version");
        n->io_failed = true;
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    return 0;
}

/* raft_uv, watched. */

static struct raft_node *node_of_io(struct raft_io *io)
{
    return (struct raft_node *) (void *) ((char *) io - offsetof(struct raft_node, io));
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct raft_node *n = node_of_io(io);
    int rv = n->uv_set_term(io, term);

    n->io_failed |= rv != 0;
    return rv;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    struct raft_node *n = node_of_io(io);
    int rv = n->uv_set_vote(io, id);

    n->io_failed |= rv != 0;
    return rv;
}

/* A failed append is hidden from raft, which would free what raft_uv still refers to: its entries
 * stay unstored, and the node ends. */
static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n_entries, raft_io_append_cb cb)
{
    struct raft_node *n = node_of_io(io);

    for (unsigned i = 0; i < n_entries; i++) {
        if (entries[i].type == RAFT_BARRIER) {
            /* Raft leaves it as malloc gave it: other memory's content, and it goes to the disk. */
            memset(entries[i].buf.base, 0, entries[i].buf.len);
        }
    }
    if (n->uv_append(io, req, entries, n_entries, cb) != 0) {
        n->io_failed = true;
    }
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct raft_node *n = node_of_io(io);

    n->io_failed |= n->uv_truncate(io, index) != 0;
    return 0; /* else raft would drop the rest of its step; the node ends */
}

/* ---- snapshots: C-Raft's requests with ours around them ---- */

struct snapshot_put {
    struct raft_io_snapshot_put own; /* first */
    struct raft_node *node;
    struct raft_io_snapshot_put *req;
    raft_io_snapshot_put_cb cb;
    bool installs; /* another manager's */
};

/* A snapshot of its own that could not be stored is made again later. One that another manager sent
 * would be waited for for ever. */
static void on_snapshot_put(struct raft_io_snapshot_put *own, int status)
{
    struct snapshot_put *p = (struct snapshot_put *) (void *) own;
    struct snapshot_put put = *p;

    free(p);
    if (status != 0 && put.installs && put.node->state == NODE_RUNNING) {
        put.node->io_failed = true;
        return;
    }
    put.cb(put.req, status);
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct raft_node *n = node_of_io(io);
    struct snapshot_put *p = mem_zalloc(1, sizeof(*p));
    int rv;

    *p = (struct snapshot_put){ .node = n, .req = req, .cb = cb, .installs = trailing == 0 };
    rv = n->uv_snapshot_put(io, trailing, &p->own, snapshot, on_snapshot_put);
    if (rv != 0) {
        n->io_failed |= p->installs;
        free(p);
    }
    return rv;
}

struct snapshot_get {
    struct raft_io_snapshot_get own; /* first */
    struct raft_node *node;
    struct raft_io_snapshot_get *req;
    raft_io_snapshot_get_cb cb;
};

/* C-Raft names the snapshot that was the newest when it asked, and its term also when it gets a
 * newer one: the term is mended when it is sent. After an error it would free what it never had. */
static void on_snapshot_got(struct raft_io_snapshot_get *own, struct raft_snapshot *snapshot,
                            int status)
{
    struct snapshot_get *g = (struct snapshot_get *) (void *) own;
    struct snapshot_get get = *g;

    free(g);
    if (status != 0) {
        get.node->io_failed = true;
        return;
    }
    get.node->got_index = snapshot->index;
    get.node->got_term = snapshot->term;
    get.cb(get.req, snapshot, status);
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb)
{
    struct raft_node *n = node_of_io(io);
    struct snapshot_get *g = mem_zalloc(1, sizeof(*g));
    int rv;

    *g = (struct snapshot_get){ .node = n, .req = req, .cb = cb };
    rv = n->uv_snapshot_get(io, &g->own, on_snapshot_got);
    if (rv != 0) {
        n->io_failed = true;
        free(g);
    }
    return rv;
}

/* ---- messages ---- */

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct raft_node *n = node_of_io(io);

    n->recv = recv;
    return n->uv_start(io, msecs, tick, recv);
}

/* Sent or lost, as on a network: an error returned from here would make raft drop the rest of its
 * step. What the disk failed to keep is not told to anybody. */
static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                   raft_io_send_cb cb)
{
    struct raft_node *n = node_of_io(io);
    struct raft_message m = *message;
    struct buf b = { 0 };

    if (n->options.send && n->state == NODE_RUNNING && !n->io_failed) {
        if (m.type == RAFT_INSTALL_SNAPSHOT && m.install_snapshot.last_index == n->got_index) {
            m.install_snapshot.last_term = n->got_term;
        }
        raft_wire_put(&b, &m, RAFT_NODE_MESSAGE_BYTES_MAX);
        n->options.send(n->options.send_ctx, m.server_id, &b);
        buf_free(&b);
    }
    cb(req, 0);
    return 0;
}

static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void) t;
    (void) id;
    (void) address;
    return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void) t;
    (void) cb;
    return 0;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
                             const char *address, raft_uv_connect_cb cb)
{
    (void) t;
    (void) req;
    (void) id;
    (void) address;
    (void) cb;
    return RAFT_NOCONNECTION;
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

/* Set-up. */

void raft_glue_prepare(struct raft_node *n)
{
    n->raft_fsm = (struct raft_fsm){
        .version = 1,
        .data = n,
        .apply = fsm_apply,
        .snapshot = fsm_snapshot,
        .restore = fsm_restore,
    };
    n->transport = (struct raft_uv_transport){
        .version = 1,
        .init = transport_init,
        .listen = transport_listen,
        .connect = transport_connect,
        .close = transport_close,
    };
}

void raft_glue_watch_io(struct raft_node *n)
{
    /* No tracer: the default one formats every message to throw it away, from several threads at
     * once. */
    raft_uv_set_tracer(&n->io, NULL);
    /* It silently forgets entries after a flipped bit. */
    raft_uv_set_auto_recovery(&n->io, false);
    n->uv_start = n->io.start;
    n->uv_set_term = n->io.set_term;
    n->uv_set_vote = n->io.set_vote;
    n->uv_append = n->io.append;
    n->uv_truncate = n->io.truncate;
    n->uv_snapshot_put = n->io.snapshot_put;
    n->uv_snapshot_get = n->io.snapshot_get;
    n->io.start = io_start;
    n->io.set_term = io_set_term;
    n->io.set_vote = io_set_vote;
    n->io.append = io_append;
    n->io.truncate = io_truncate;
    n->io.snapshot_put = io_snapshot_put;
    n->io.snapshot_get = io_snapshot_get;
    n->io.send = io_send;
}
