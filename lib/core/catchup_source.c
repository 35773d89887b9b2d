/* The source's end of a catch-up (R17). */
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/catchup.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A key that the walk met: to be sent, or only named. */
struct item {
    struct position at; /* then; it may have moved since */
    uint32_t key;       /* offset of length and key in `keys` */
    bool send;
};

struct catchup_source {
    struct shard *shard;
    struct replica *r;
    struct name n;
    struct name m;
    bool names_all;
    struct item *items; /* by position: the log is read forwards */
    size_t n_items;
    size_t cap_items;
    size_t next;
    struct buf keys;
};

static void meet(void *ctx, const uint8_t *key, size_t key_len, const struct index_record *rec)
{
    struct catchup_source *c = ctx;
    bool send = rec->seq > c->n.seq;
    uint8_t len = (uint8_t) key_len;

    if (!send && (!c->names_all || rec->kind != ENTRY_SET)) {
        return;
    }
    mem_grow(&c->items, &c->cap_items, c->n_items + 1, sizeof(*c->items));
    c->items[c->n_items++] = (struct item){ rec->at, (uint32_t) buf_len(&c->keys), send };
    buf_append(&c->keys, &len, 1);
    buf_append(&c->keys, key, key_len);
}

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a;
    const struct item *y = b;

    return position_compare(x->at, y->at);
}

static void start_put(struct buf *b, const struct catchup_source *c)
{
    const struct replica *r = c->r;

    mp_put_array(b, BASE_START_ITEMS);
    mp_put_uint(b, BASE_START);
    mp_put_uint(b, c->n.view);
    mp_put_uint(b, c->n.seq);
    mp_put_uint(b, c->m.view);
    mp_put_uint(b, c->m.seq);
    mp_put_bool(b, c->names_all);
    view_runs_put(b, r);
    mp_put_uint(b, r->flush.seq);
    mp_put_uint(b, r->flush.past_usec);
    mp_put_uint(b, r->flush.at_usec);
    mp_put_uint(b, r->horizon_seq);
    mp_put_uint(b, r->time_usec);
    session_table_put(b, &r->sessions);
}

int catchup_source_begin(struct shard *s, uint16_t partition, const struct catchup_ask *ask,
                         struct buf *start, struct catchup_source **ret)
{
    struct replica *r = shard_replica(s, partition);
    struct catchup_source *c;

    if (!r) {
        return -ENOENT;
    }
    if (r->incomplete) {
        return -EAGAIN;
    }
    c = mem_zalloc(1, sizeof(*c));
    c->shard = s;
    c->r = r;
    c->m = r->commit;
    c->n = view_runs_agree(r, ask->base) && view_runs_agree(r, ask->applied) ? ask->base
                                                                             : (struct name){ 0 };
    /* Deletes above n were forgotten here; an empty sink has nothing to forget. */
    c->names_all = c->n.seq > 0 && r->horizon_seq > c->n.seq;
    r->n_sources++;
    r->index->ops->walk(r->index, meet, c);
    if (c->n_items > 0) {
        qsort(c->items, c->n_items, sizeof(*c->items), compare_items);
    }
    start_put(start, c);
    *ret = c;
    return 0;
}

/* The record's bytes now. -ENOENT: it changed since, and the stream tells. */
static int record_now(const struct catchup_source *c, const struct item *it,
                      const struct shard_read *read, const struct position *read_at,
                      struct index_record *ret_rec, const uint8_t **ret)
{
    const uint8_t *key = c->keys.data + c->keys.start + it->key;
    const struct shard_options *o = &c->shard->o;

    if (c->r->index->ops->get(c->r->index, key + 1, key[0], ret_rec) < 0 ||
        ret_rec->seq > c->m.seq) {
        return -ENOENT;
    }
    if (read && position_compare(*read_at, ret_rec->at) == 0) {
        *ret = read->data;
        return read->error == -EBUSY                              ? -EAGAIN
               : read->error < 0 || read->bytes != ret_rec->bytes ? -EBADMSG
                                                                  : 0;
    }
    return o->read(o->read_ctx, ret_rec->at, ret_rec->bytes, ret);
}

static int item_put(const struct catchup_source *c, const struct item *it,
                    const struct shard_read *read, struct buf *out, struct position *ret_at,
                    size_t *ret_bytes)
{
    const uint8_t *key = c->keys.data + c->keys.start + it->key;
    struct index_record rec;
    const uint8_t *bytes;
    struct entry e;
    int err;

    if (!it->send) {
        mp_put_uint(out, CATCHUP_KEY);
        mp_put_bin(out, key + 1, key[0]);
        return 0;
    }
    err = record_now(c, it, read, ret_at, &rec, &bytes);
    if (err == -ENOENT) {
        return 0;
    }
    *ret_at = rec.at;
    *ret_bytes = rec.bytes;
    if (err < 0) {
        return err == -EAGAIN ? err : -EBADMSG;
    }
    if (entry_decode(bytes, rec.bytes, &e) < 0 || e.name.seq != rec.seq) {
        return -EBADMSG; /* R15: rot is never passed on */
    }
    mp_put_uint(out, CATCHUP_RECORD);
    mp_put_bin(out, bytes, rec.bytes);
    return 0;
}

int catchup_source_next(struct catchup_source *c, const struct shard_read *read, size_t bytes_max,
                        struct buf *out, struct position *ret_at, size_t *ret_bytes)
{
    while (c->next < c->n_items && buf_len(out) < bytes_max) {
        int err = item_put(c, &c->items[c->next], read, out, ret_at, ret_bytes);
        if (err < 0) {
            return err;
        }
        read = NULL;
        c->next++;
    }
    return c->next < c->n_items;
}

struct catchup_source *catchup_source_free(struct catchup_source *c)
{
    if (c) {
        c->r->n_sources--;
        free(c->items);
        buf_free(&c->keys);
        free(c);
    }
    return NULL;
}
