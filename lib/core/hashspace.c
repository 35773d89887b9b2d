#include "core/hashspace.h"

#include "base/assert.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

uint64_t hashspace_hash(const uint8_t *key, size_t key_len)
{
    return XXH3_64bits(key, key_len);
}

static int slot_of(const uint32_t *servers, unsigned n, uint32_t server)
{
    for (unsigned i = 0; i < n; i++) {
        if (servers[i] == server) {
            return (int) i;
        }
    }
    return -1;
}

int hashspace_member_slot(const struct view_row *row, uint32_t server)
{
    return slot_of(row->members, row->n_members, server);
}

int hashspace_learner_slot(const struct view_row *row, uint32_t server)
{
    return slot_of(row->learners, row->n_learners, server);
}

void hashspace_set_partitions(struct hashspace *h, uint32_t n_partitions)
{
    kumo_assert(h->n_partitions == 0);
    kumo_assert(n_partitions <= PARTITIONS_MAX);
    h->rows = mem_zalloc(n_partitions, sizeof(*h->rows));
    for (uint32_t p = 0; p < n_partitions; p++) {
        h->rows[p].partition = (uint16_t) p;
    }
    h->n_partitions = n_partitions;
}

void hashspace_set_server(struct hashspace *h, const struct hashspace_server *s)
{
    kumo_assert(s->server > 0);
    kumo_assert(s->server <= h->n_servers + 1);
    if (s->server > h->n_servers) {
        h->servers = mem_realloc(h->servers, s->server * sizeof(*h->servers));
        h->n_servers = s->server;
    }
    h->servers[s->server - 1] = *s;
}

static void put_server(struct buf *b, const struct hashspace_server *s)
{
    mp_put_array(b, 6);
    mp_put_uint(b, s->server);
    mp_put_uint(b, s->shards);
    mp_put_uint(b, s->state);
    mp_put_uint(b, s->incarnation);
    mp_put_str(b, s->name);
    mp_put_str(b, s->address);
}

static void get_server(struct mp_reader *r, struct hashspace_server *ret)
{
    uint32_t n = mp_get_array(r);

    ret->server = (uint32_t) mp_get_uint_max(r, SERVERS_MAX);
    ret->shards = (uint32_t) mp_get_uint_max(r, SHARDS_MAX);
    ret->state = (uint8_t) mp_get_uint_max(r, _SERVER_STATE_MAX - 1);
    ret->incarnation = mp_get_uint(r);
    mp_get_str(r, ret->name, sizeof(ret->name));
    mp_get_str(r, ret->address, sizeof(ret->address));
    if (n < 6 || ret->shards == 0) {
        r->failed = true;
        return;
    }
    mp_skip_n(r, n - 6);
}

static void put_rows(struct buf *b, const struct hashspace *h, const uint16_t *changed,
                     size_t n_changed)
{
    size_t place = mp_open_array(b);
    uint32_t n = 0;
    size_t rows = changed ? n_changed : h->n_partitions;

    for (size_t i = 0; i < rows; i++) {
        const struct view_row *row = &h->rows[changed ? changed[i] : i];
        if (row->view > 0) {
            msg_put_view_row(b, row);
            n++;
        }
    }
    mp_close_array(b, place, n);
}

void hashspace_put(struct buf *b, const struct hashspace *h, const uint16_t *changed,
                   size_t n_changed)
{
    mp_put_array(b, 5);
    mp_put_uint(b, h->epoch);
    mp_put_bin(b, h->cluster_id, UUID_BYTES);
    mp_put_uint(b, h->n_partitions);
    mp_put_array(b, h->n_servers);
    for (uint32_t i = 0; i < h->n_servers; i++) {
        put_server(b, &h->servers[i]);
    }
    put_rows(b, h, changed, n_changed);
}

static int merge_servers(struct hashspace *h, struct mp_reader *r)
{
    struct hashspace_server s;
    uint32_t n = mp_get_array(r);

    for (uint32_t i = 0; i < n && !r->failed; i++) {
        get_server(r, &s);
        if (r->failed || s.server != i + 1) {
            return -EBADMSG;
        }
        hashspace_set_server(h, &s);
    }
    return r->failed ? -EBADMSG : 0;
}

static int merge_rows(struct hashspace *h, struct mp_reader *r)
{
    struct view_row row;
    uint32_t n = mp_get_array(r);

    for (uint32_t i = 0; i < n && !r->failed; i++) {
        msg_get_view_row(r, &row);
        if (r->failed || row.partition >= h->n_partitions) {
            return -EBADMSG;
        }
        if (row.view > h->rows[row.partition].view) {
            h->rows[row.partition] = row;
        }
    }
    return r->failed ? -EBADMSG : 0;
}

int hashspace_merge(struct hashspace *h, struct mp_reader *r)
{
    uint32_t items = mp_get_array(r);
    uint64_t epoch = mp_get_uint(r);
    uint32_t n_partitions;
    uint8_t cluster_id[UUID_BYTES];

    mp_get_bin_exact(r, cluster_id, UUID_BYTES);
    n_partitions = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    if (items < 5 || r->failed || (n_partitions & (n_partitions - 1)) != 0) {
        return -EBADMSG;
    }
    if (h->n_partitions > 0 && n_partitions != h->n_partitions) {
        return -EBADMSG;
    }
    if (epoch < h->epoch) {
        mp_skip_n(r, items - 3);
        return r->failed ? -EBADMSG : 0;
    }
    if (h->n_partitions == 0 && n_partitions > 0) {
        hashspace_set_partitions(h, n_partitions);
    }
    memcpy(h->cluster_id, cluster_id, UUID_BYTES);
    h->epoch = epoch;
    if (merge_servers(h, r) < 0 || merge_rows(h, r) < 0) {
        return -EBADMSG;
    }
    mp_skip_n(r, items - 5);
    return r->failed ? -EBADMSG : 0;
}

void hashspace_free(struct hashspace *h)
{
    free(h->servers);
    free(h->rows);
    *h = (struct hashspace){ 0 };
}
