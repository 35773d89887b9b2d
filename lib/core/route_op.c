/* Operations without an answer: memory, ids, and their order per connection and key. See route.h.
 */
#include "core/route_internal.h"

#include "base/assert.h"
#include "base/mem.h"

#include <stdlib.h>

/* ---- memory ---- */

static struct route_op *op_alloc(struct route *r, size_t bytes)
{
    void *block = r->small;

    if (bytes > ROUTE_SMALL_BYTES) {
        return mem_alloc(bytes);
    }
    if (!block) {
        return mem_alloc(ROUTE_SMALL_BYTES);
    }
    memcpy(&r->small, block, sizeof(void *));
    r->n_small--;
    return block;
}

static void op_free(struct route *r, struct route_op *o)
{
    size_t bytes = sizeof(*o) + o->op.key_len + o->op.value_len;

    if (bytes > ROUTE_SMALL_BYTES || r->n_small == ROUTE_SMALL_KEPT) {
        free(o);
        return;
    }
    memcpy(o, &r->small, sizeof(void *));
    r->small = o;
    r->n_small++;
}

void route_reap(struct route *r)
{
    LIST_FOR_EACH_SAFE(node, &r->dead)
    {
        op_free(r, LIST_ENTRY(node, struct route_op, queue));
    }
    list_init(&r->dead);
}

void route_op_free_all(struct route *r)
{
    route_reap(r);
    for (uint32_t i = 0; i < r->n_slots; i++) {
        free(r->slots[i].op);
    }
    free(r->slots);
    free(r->free_slots);
    while (r->small) {
        void *block = r->small;
        memcpy(&r->small, block, sizeof(void *));
        free(block);
    }
}

/* ---- ids: never used twice, so that a late answer meets nothing ---- */

static void slots_grow(struct route *r)
{
    uint32_t n = r->n_slots ? r->n_slots * 2 : 64;

    kumo_assert(n <= 1u << ROUTE_SLOT_BITS);
    r->slots = mem_realloc(r->slots, n * sizeof(*r->slots));
    r->free_slots = mem_realloc(r->free_slots, n * sizeof(*r->free_slots));
    for (uint32_t i = n; i-- > r->n_slots;) {
        r->slots[i] = (struct route_slot){ .generation = 1 };
        r->free_slots[r->n_free++] = i;
    }
    r->n_slots = n;
}

static uint64_t slot_take(struct route *r, struct route_op *o)
{
    uint32_t slot;

    if (r->n_free == 0) {
        slots_grow(r);
    }
    slot = r->free_slots[--r->n_free];
    kumo_assert(!r->slots[slot].op);
    r->slots[slot].op = o;
    return r->slots[slot].generation << ROUTE_SLOT_BITS | slot;
}

static void slot_give(struct route *r, uint64_t id)
{
    uint32_t slot = (uint32_t) (id & ((1u << ROUTE_SLOT_BITS) - 1));

    r->slots[slot].op = NULL;
    r->slots[slot].generation++;
    r->free_slots[r->n_free++] = slot;
}

struct route_op *route_op_find(const struct route *r, uint64_t id)
{
    uint32_t slot = (uint32_t) (id & ((1u << ROUTE_SLOT_BITS) - 1));

    if (slot >= r->n_slots || r->slots[slot].generation != id >> ROUTE_SLOT_BITS) {
        return NULL;
    }
    return r->slots[slot].op;
}

/* ---- from begin to end ---- */

static void op_fill(struct route_op *o, const struct op *op)
{
    o->op = *op;
    o->op.op = (struct op_id){ 0 };
    o->op.key = o->data;
    o->op.value = o->data + op->key_len;
    if (op->key_len > 0) {
        memcpy(o->data, op->key, op->key_len);
    }
    if (op->value_len > 0) {
        memcpy(o->data + op->key_len, op->value, op->value_len);
    }
}

struct route_op *route_op_new(struct route *r, struct route_client *client, void *token,
                              const struct op *op, uint64_t hash)
{
    size_t bytes = sizeof(struct route_op) + op->key_len + op->value_len;
    struct route_op *o = op_alloc(r, bytes);

    *o = (struct route_op){
        .client = client,
        .client_id = client->id,
        .token = token,
        .hash = hash,
        .bytes = (uint32_t) bytes,
        .state = ROUTE_OP_BEHIND,
    };
    op_fill(o, op);
    o->op.id = slot_take(r, o);
    list_init(&o->followers);
    list_init(&o->queue);
    list_push_back(&client->ops, &o->by_client);
    list_init(&o->by_deadline);
    r->n_ops++;
    return o;
}

void route_op_charge(struct route *r, struct route_op *o, uint32_t server)
{
    kumo_assert(server < r->n_servers);
    kumo_assert(r->servers[o->charged]->bytes >= o->bytes);
    r->servers[o->charged]->bytes -= o->bytes;
    r->servers[server]->bytes += o->bytes;
    o->charged = server;
}

/* A flush has no key: it is in nobody's way here. */
static bool op_is_keyed(const struct route_op *o)
{
    return o->op.code != OP_FLUSH;
}

static uint64_t key_hash(uint64_t client_id, uint64_t hash)
{
    return map_hash_u64(client_id) ^ hash;
}

struct route_op *route_op_first(const struct route *r, uint64_t client_id, uint64_t hash)
{
    struct map_node *i = map_first(&r->by_key, key_hash(client_id, hash));

    for (; i; i = map_next(i)) {
        struct route_op *o = MAP_ENTRY(i, struct route_op, by_key);
        if (o->client_id == client_id && o->hash == hash) {
            return o;
        }
    }
    return NULL;
}

void route_op_begin(struct route *r, struct route_op *o)
{
    kumo_assert(o->state == ROUTE_OP_BEHIND);
    kumo_assert(list_empty(&o->queue));
    /* Its time begins now: what stood before it in its client's pipeline doesn't count. */
    o->deadline_usec = r->now_usec + r->limits.timeout_usec;
    list_push_back(&r->deadlines, &o->by_deadline);
    if (op_is_keyed(o)) {
        map_insert(&r->by_key, &o->by_key, key_hash(o->client_id, o->hash));
    }
    route_enqueue(r, o);
}

/* The next one of its connection and key takes its place. */
static void op_succeed(struct route *r, struct route_op *o)
{
    struct route_op *next;

    map_remove(&r->by_key, &o->by_key);
    if (list_empty(&o->followers)) {
        return;
    }
    next = LIST_ENTRY(o->followers.next, struct route_op, queue);
    list_remove(&next->queue);
    list_splice(&next->followers, &o->followers);
    route_op_begin(r, next);
}

void route_op_end(struct route *r, struct route_op *o)
{
    bool first = o->state != ROUTE_OP_BEHIND;

    kumo_assert(o->state != ROUTE_OP_DEAD);
    route_dequeue(r, o);
    if (o->op.op.number > 0) {
        route_answered(o->partition, &o->op.op);
    }
    r->servers[o->charged]->bytes -= o->bytes;
    slot_give(r, o->op.id);
    list_remove(&o->by_client);
    list_remove(&o->by_deadline);
    o->state = ROUTE_OP_DEAD;
    list_push_back(&r->dead, &o->queue);
    r->n_ops--;
    if (first && op_is_keyed(o)) {
        op_succeed(r, o);
    }
}
