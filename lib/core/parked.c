/* Operations whose record is not in memory, or that need leases which are not there: kept, with
 * what they were asked with, until its bytes were read, or the leases came (R10), and then begun
 * anew. To their clients they are only slower: nothing of them was evaluated before. One that was
 * asked again meanwhile, here or in another view, is forgotten (R12): the other copy may have found
 * nothing to do, and that was the answer. */
#include "base/mem.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct parked {
    struct map_node node;  /* in shard->parked, by number */
    struct map_node by_op; /* in shard->parked_ops, if it writes */
    struct list leased;    /* in replica->leased_ops */
    uint64_t asked_usec;   /* when it arrived */
    uint64_t number;
    struct position at;
    uint16_t partition;
    uint32_t view;
    bool peek;
    struct asker asker;
    struct op op;
    size_t n_bytes;
    uint8_t bytes[]; /* key, value */
};

/* Does its op id make copies of it the same write? */
static bool is_numbered(const struct parked *p)
{
    return !p->peek && p->op.code != OP_GET && p->op.op.session != 0;
}

static void parked_add(struct shard *s, struct parked *p)
{
    p->number = ++s->parked_number;
    p->asked_usec = s->asked_usec;
    s->parked_bytes += p->n_bytes;
    map_insert(&s->parked, &p->node, map_hash_u64(p->number));
    if (is_numbered(p)) {
        map_insert(&s->parked_ops, &p->by_op, propose_op_hash(p->partition, &p->op.op));
    }
}

static void parked_ask(struct shard *s, struct parked *p, const struct index_record *rec)
{
    struct action *a = actions_add(s->out, ACTION_READ);

    parked_add(s, p);
    p->at = rec->at;
    a->read.number = p->number;
    a->read.at = rec->at;
    a->read.bytes = rec->bytes;
}

static struct parked *parked_new(const struct replica *r, struct asker asker, const struct op *op)
{
    struct parked *p = mem_zalloc(1, sizeof(*p) + op->key_len + op->value_len);

    list_init(&p->leased);
    p->partition = r->partition;
    p->view = r->view;
    p->asker = asker;
    p->op = *op;
    p->n_bytes = op->key_len + op->value_len;
    memcpy(p->bytes, op->key, op->key_len);
    if (op->value_len > 0) {
        memcpy(p->bytes + op->key_len, op->value, op->value_len);
    }
    p->op.key = p->bytes;
    p->op.value = p->bytes + op->key_len;
    return p;
}

bool parked_op(struct shard *s, const struct replica *r, struct asker asker, const struct op *op,
               const struct index_record *rec)
{
    if (s->parked.count >= PARKED_OPS_MAX || s->parked_bytes >= PARKED_BYTES_MAX) {
        return false;
    }
    parked_ask(s, parked_new(r, asker, op), rec);
    return true;
}

bool parked_lease(struct shard *s, struct replica *r, struct asker asker, const struct op *op)
{
    struct parked *p;

    if (s->parked.count >= PARKED_OPS_MAX || s->parked_bytes >= PARKED_BYTES_MAX) {
        return false;
    }
    p = parked_new(r, asker, op);
    parked_add(s, p);
    list_push_back(&r->leased_ops, &p->leased);
    lease_want(s, r);
    return true;
}

bool parked_peek(struct shard *s, const struct replica *r, struct asker asker, const uint8_t *key,
                 size_t key_len, const struct index_record *rec)
{
    struct op op = { .code = OP_GET, .key = key, .key_len = (uint8_t) key_len };
    struct parked *p;

    if (s->parked.count >= PARKED_OPS_MAX || s->parked_bytes >= PARKED_BYTES_MAX) {
        return false;
    }
    p = parked_new(r, asker, &op);
    p->peek = true;
    parked_ask(s, p, rec);
    return true;
}

static struct parked *parked_take(struct shard *s, struct parked *p)
{
    map_remove(&s->parked, &p->node);
    list_remove(&p->leased);
    if (is_numbered(p)) {
        map_remove(&s->parked_ops, &p->by_op);
    }
    s->parked_bytes -= p->n_bytes;
    return p;
}

void parked_forget(struct shard *s, const struct replica *r, const struct op *op)
{
    struct map_node *next;

    for (struct map_node *i = map_first(&s->parked_ops, propose_op_hash(r->partition, &op->op)); i;
         i = next) {
        struct parked *p = MAP_ENTRY(i, struct parked, by_op);
        next = map_next(i);
        if (p->partition == r->partition && p->op.op.session == op->op.session &&
            p->op.op.number == op->op.number) {
            free(parked_take(s, p));
        }
    }
}

void parked_read(struct shard *s, const struct shard_read *read)
{
    struct map_node *i = map_first(&s->parked, map_hash_u64(read->number));
    struct parked *p = i ? parked_take(s, MAP_ENTRY(i, struct parked, node)) : NULL;
    struct replica *r = p ? shard_replica(s, p->partition) : NULL;

    if (!p) {
        return; /* forgotten */
    }
    s->warm = (struct warm_record){ p->at, read->data, read->bytes, read->error };
    s->asked_usec = p->asked_usec;
    if (!p->peek && p->view != r->view) {
        propose_not_primary(s, r, p->asker);
    } else if (p->peek) {
        propose_peek(s, r, p->asker, p->op.key, p->op.key_len);
    } else {
        propose_op(s, r, p->asker, &p->op);
    }
    s->warm = (struct warm_record){ 0 };
    free(p);
}

void parked_leased(struct shard *s, struct replica *r)
{
    struct list ops;

    if (list_empty(&r->leased_ops)) {
        return;
    }
    list_init(&ops);
    list_splice(&ops, &r->leased_ops); /* what has to wait again goes to the end */
    while (!list_empty(&ops)) {        /* what is done may forget others of them */
        struct parked *p = LIST_ENTRY(ops.next, struct parked, leased);
        s->asked_usec = p->asked_usec;
        if (lease_holds(s, r)) {
            (void) parked_take(s, p);
            propose_op(s, r, p->asker, &p->op);
            free(p);
        } else {
            list_remove(&p->leased);
            list_push_back(&r->leased_ops, &p->leased);
        }
    }
}

void parked_refuse(struct shard *s, struct replica *r)
{
    LIST_FOR_EACH_SAFE(i, &r->leased_ops)
    {
        struct parked *p = parked_take(s, LIST_ENTRY(i, struct parked, leased));
        propose_not_primary(s, r, p->asker);
        free(p);
    }
}

void parked_free(struct shard *s)
{
    struct map_node *i;

    while ((i = map_any(&s->parked))) {
        map_remove(&s->parked, i);
        free(MAP_ENTRY(i, struct parked, node));
    }
    map_free(&s->parked);
    map_free(&s->parked_ops);
}
