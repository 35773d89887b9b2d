/* What C-Raft calls: the state machine behind `struct consensus_fsm`, the disk of raft_uv with an
 * eye on every step that can fail, and a transport that leads nowhere. */
#include "io/raft_internal.h"

#include "base/assert.h"

#include <stddef.h>
#include <stdio.h>
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

/* There is no way to another manager: the message is lost, as on a network. An error returned from
 * here would make raft drop the rest of its step. */
static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                   raft_io_send_cb cb)
{
    (void) io;
    (void) message;
    cb(req, RAFT_NOCONNECTION);
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
    n->uv_set_term = n->io.set_term;
    n->uv_set_vote = n->io.set_vote;
    n->uv_append = n->io.append;
    n->io.set_term = io_set_term;
    n->io.set_vote = io_set_vote;
    n->io.append = io_append;
    n->io.send = io_send;
}
