/* Operations whose record is not in memory: kept, with what they were asked with, until its bytes
 * were read, and then begun anew. To their clients they are only slower: nothing of them was
 * evaluated before. */
#include "base/mem.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct parked {
    struct map_node node; /* in shard->parked, by number */
    uint64_t number;
    struct position at;
    uint16_t partition;
    bool peek;
    struct asker asker;
    struct op op;
    size_t n_bytes;
    uint8_t bytes[]; /* key, value */
};

static void parked_add(struct shard *s, struct parked *p, const struct index_record *rec)
{
    struct action *a = actions_add(s->out, ACTION_READ);

    p->number = ++s->parked_number;
    p->at = rec->at;
    s->parked_bytes += p->n_bytes;
    map_insert(&s->parked, &p->node, map_hash_u64(p->number));
    a->read.number = p->number;
    a->read.at = rec->at;
    a->read.bytes = rec->bytes;
}

static struct parked *parked_new(const struct replica *r, struct asker asker, const struct op *op)
{
    struct parked *p = mem_zalloc(1, sizeof(*p) + op->key_len + op->value_len);

    p->partition = r->partition;
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
    parked_add(s, parked_new(r, asker, op), rec);
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
    parked_add(s, p, rec);
    return true;
}

static struct parked *parked_take(struct shard *s, uint64_t number)
{
    struct map_node *i = map_first(&s->parked, map_hash_u64(number));
    struct parked *p;

    if (!i) {
        return NULL;
    }
    p = MAP_ENTRY(i, struct parked, node);
    map_remove(&s->parked, i);
    s->parked_bytes -= p->n_bytes;
    return p;
}

void parked_read(struct shard *s, const struct shard_read *read)
{
    struct parked *p = parked_take(s, read->number);
    struct replica *r = p ? shard_replica(s, p->partition) : NULL;

    if (!p) {
        return;
    }
    s->warm = (struct warm_record){ p->at, read->data, read->bytes, read->error };
    if (p->peek) {
        propose_peek(s, r, p->asker, p->op.key, p->op.key_len);
    } else {
        propose_op(s, r, p->asker, &p->op);
    }
    s->warm = (struct warm_record){ 0 };
    free(p);
}

void parked_free(struct shard *s)
{
    struct map_node *i;

    while ((i = map_any(&s->parked))) {
        map_remove(&s->parked, i);
        free(MAP_ENTRY(i, struct parked, node));
    }
    map_free(&s->parked);
}
