/* Fuzzes the readers of our own messages. What one of them reads, its writer must write, and the
 * reader read again as the same; the hash space must take the same in twice. The first byte of the
 * input chooses the message. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "core/hashspace.h"
#include "wire/msg.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define OP_VALUE_BYTES_MAX 1024

union any {
    struct msg_hello hello;
    struct msg_at at;
    struct view_row row;
    struct msg_sealed sealed;
    struct msg_register registration;
    struct msg_registered registered;
    struct op op;
    struct result result;
    struct msg_prepare prepare;
    struct msg_commit commit;
    struct msg_peek peek;
    struct msg_reconfig reconfig;
    struct msg_catchup_ask ask;
    struct msg_catchup catchup;
    struct msg_learned learned;
    struct msg_lease lease;
    struct msg_sessions sessions;
};

static void get_op(struct mp_reader *r, struct op *ret)
{
    msg_get_op(r, OP_VALUE_BYTES_MAX, ret);
    kumo_assert(ret->value_len <= OP_VALUE_BYTES_MAX);
    kumo_assert(r->failed || (ret->code > 0 && ret->code < _OP_CODE_MAX));
    kumo_assert(r->failed || ret->op.first <= ret->op.number);
}

static void get_row(struct mp_reader *r, struct view_row *ret)
{
    msg_get_view_row(r, ret);
    kumo_assert(ret->n_members <= REPLICAS_MAX);
    kumo_assert(r->failed || ret->partition < PARTITIONS_MAX);
}

static void get_hello(struct mp_reader *r, struct msg_hello *ret)
{
    msg_get_hello(r, ret);
    kumo_assert(r->failed || ret->shards <= SHARDS_MAX);
}

static void get_sessions(struct mp_reader *r, struct msg_sessions *ret)
{
    static uint64_t ids[4096]; /* an input is not longer */

    if (r->end - r->p > (long) ARRAY_LEN(ids)) {
        r->failed = true;
        return;
    }
    msg_get_sessions(r, ids, ret);
}

/* msg_get_hello and msg_get_register leave nothing of what they read on failure to be used; all
 * others begin with zeros, so that what is compared has no holes. */
#define MESSAGES(X)                                                                                \
    X(0, hello, get_hello, msg_put_hello)                                                          \
    X(1, at, msg_get_at, msg_put_at)                                                               \
    X(2, row, get_row, msg_put_view_row)                                                           \
    X(3, sealed, msg_get_sealed, msg_put_sealed)                                                   \
    X(4, registration, msg_get_register, msg_put_register)                                         \
    X(5, registered, msg_get_registered, msg_put_registered)                                       \
    X(6, op, get_op, msg_put_op)                                                                   \
    X(7, result, msg_get_result, msg_put_result)                                                   \
    X(8, prepare, msg_get_prepare, msg_put_prepare)                                                \
    X(9, commit, msg_get_commit, msg_put_commit)                                                   \
    X(10, peek, msg_get_peek, msg_put_peek)                                                        \
    X(11, reconfig, msg_get_reconfig, msg_put_reconfig)                                            \
    X(12, ask, msg_get_catchup_ask, msg_put_catchup_ask)                                           \
    X(13, catchup, msg_get_catchup, msg_put_catchup)                                               \
    X(14, learned, msg_get_learned, msg_put_learned)                                               \
    X(15, lease, msg_get_lease, msg_put_lease)                                                     \
    X(16, sessions, get_sessions, msg_put_sessions)
#define MESSAGES_MAX 17

static void get(uint8_t what, struct mp_reader *r, union any *ret)
{
    memset(ret, 0, sizeof(*ret));
    switch (what) {
#define GET(number, member, getter, putter)                                                        \
    case number:                                                                                   \
        getter(r, &ret->member);                                                                   \
        return;
        MESSAGES(GET)
    default:
        kumo_unreachable();
    }
}

static void put(uint8_t what, struct buf *b, const union any *m)
{
    switch (what) {
#define PUT(number, member, getter, putter)                                                        \
    case number:                                                                                   \
        putter(b, &m->member);                                                                     \
        return;
        MESSAGES(PUT)
    default:
        kumo_unreachable();
    }
}

/* Reads, writes, reads and writes: both writings are the same, and each reading ends where the item
 * does. */
static void try_message(uint8_t what, const uint8_t *data, size_t len)
{
    _cleanup_(buf_free) struct buf once = { 0 };
    _cleanup_(buf_free) struct buf twice = { 0 };
    struct mp_reader r = mp_reader_of(data, len);
    union any m;

    get(what, &r, &m);
    kumo_assert(r.p <= data + len);
    if (r.failed) {
        return;
    }
    put(what, &once, &m);
    r = mp_reader_of(once.data, buf_len(&once));
    mp_skip(&r);
    kumo_assert(!r.failed);
    kumo_assert(r.p == r.end);
    r = mp_reader_of(once.data, buf_len(&once));
    get(what, &r, &m);
    kumo_assert(!r.failed);
    kumo_assert(r.p == r.end);
    put(what, &twice, &m);
    kumo_assert(buf_len(&once) == buf_len(&twice));
    kumo_assert(memcmp(once.data, twice.data, buf_len(&once)) == 0);
    for (size_t cut = 0; cut < buf_len(&once); cut += 1 + cut / 16) { /* no part is a whole one */
        r = mp_reader_of(once.data, cut);
        get(what, &r, &m);
        kumo_assert(r.failed);
    }
}

static void check_space(const struct hashspace *h)
{
    kumo_assert(h->n_partitions <= PARTITIONS_MAX);
    kumo_assert(h->n_servers <= SERVERS_MAX);
    for (uint32_t i = 0; i < h->n_servers; i++) {
        kumo_assert(h->servers[i].server == i + 1);
        kumo_assert(h->servers[i].shards >= 1 && h->servers[i].shards <= SHARDS_MAX);
    }
    for (uint32_t p = 0; p < h->n_partitions; p++) {
        kumo_assert(h->rows[p].partition == p);
        kumo_assert(h->rows[p].n_members <= REPLICAS_MAX);
    }
}

/* Merges item after item into one hash space; what came of it, merged into an empty one, gives it
 * again. */
static void try_space(const uint8_t *data, size_t len)
{
    _cleanup_(buf_free) struct buf all = { 0 };
    _cleanup_(buf_free) struct buf again = { 0 };
    struct hashspace h = { 0 }, copy = { 0 };
    struct mp_reader r = mp_reader_of(data, len);
    bool good = true;

    while (good && r.p < r.end) {
        uint64_t epoch = h.epoch;
        good = hashspace_merge(&h, &r) == 0;
        kumo_assert(h.epoch >= epoch);
        check_space(&h);
    }
    hashspace_put(&all, &h, NULL, 0);
    r = mp_reader_of(all.data, buf_len(&all));
    kumo_assert(hashspace_merge(&copy, &r) == 0);
    kumo_assert(r.p == r.end);
    hashspace_put(&again, &copy, NULL, 0);
    kumo_assert(buf_len(&all) == buf_len(&again));
    kumo_assert(memcmp(all.data, again.data, buf_len(&all)) == 0);
    hashspace_free(&h);
    hashspace_free(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1) {
        return 0;
    }
    if (data[0] % (MESSAGES_MAX + 1) == MESSAGES_MAX) {
        try_space(data + 1, len - 1);
    } else {
        try_message(data[0] % (MESSAGES_MAX + 1), data + 1, len - 1);
    }
    return 0;
}
