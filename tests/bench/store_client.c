/* In the place of the server's connections: operations are made where they would be read, at the
 * end of a turn of the shard's loop, and answers are counted where they would be sent. */
#include "bench/store_node.h"

#include "base/mem.h"
#include "core/hashspace.h"
#include "io/clock.h"

#include <pthread.h>
#include <stdlib.h>

#define EXPIRES_SEC 86400

static struct client_load *loads[SHARDS_MAX];

struct client_load *client_load(struct shard_thread *t)
{
    uint32_t shard = t->o.shard.log.shard;

    if (!loads[shard]) {
        loads[shard] = mem_zalloc(1, sizeof(*loads[shard]));
        loads[shard]->thread = t;
        loads[shard]->rng.state = shard + 1;
        loads[shard]->session = clock_real_usec();
        loads[shard]->numbers =
            mem_zalloc(t->o.shard.log.partitions, sizeof(*loads[shard]->numbers));
    }
    return loads[shard];
}

static uint16_t key_partition(const struct client_load *l, const uint8_t *key, size_t key_len)
{
    return hashspace_partition_of_hash(hashspace_hash(key, key_len),
                                       l->thread->o.shard.log.partitions);
}

bool client_owns(const struct client_load *l, uint64_t key)
{
    const struct wal_options *log = &l->thread->o.shard.log;
    uint8_t bytes[KEY_BYTES_MAX];
    size_t n = key_make(key, l->order->short_keys, bytes);

    return log->shards == 1 || key_partition(l, bytes, n) % log->shards == log->shard;
}

/* ---- operations ---- */

static void done(struct client_load *l)
{
    l->turn = NULL;
    node_load_done();
}

static void turn_end(struct client_load *l)
{
    shard_thread_step(l->thread, &(struct shard_event){ .kind = SHARD_TURN_END });
}

void client_set(struct client_load *l, uint64_t key, uint64_t id)
{
    uint8_t bytes[KEY_BYTES_MAX];
    size_t key_len = key_make(key, l->order->short_keys, bytes);
    uint16_t partition = key_partition(l, bytes, key_len);
    struct numbers *n = &l->numbers[partition];
    struct shard_event e = {
        .kind = SHARD_OP,
        .op = { .asker = { .id = id << 16 | partition },
                .op = { .code = OP_SET,
                        .key = bytes,
                        .key_len = (uint8_t) key_len,
                        .value = value_bytes() + key % 64,
                        .value_len = l->order->value_bytes,
                        .exptime = l->order->expires ? EXPIRES_SEC : 0,
                        .op = { l->session, ++n->next, n->answered + 1 } } },
    };

    l->pending++;
    l->ops++;
    l->user_bytes += key_len + l->order->value_bytes;
    shard_thread_step(l->thread, &e);
}

void client_get(struct client_load *l, uint64_t key, uint64_t id)
{
    uint8_t bytes[KEY_BYTES_MAX];
    size_t key_len = key_make(key, l->order->short_keys, bytes);
    struct shard_event e = {
        .kind = SHARD_OP,
        .op = { .asker = { .id = id << 16 },
                .op = { .code = OP_GET, .key = bytes, .key_len = (uint8_t) key_len } },
    };

    l->pending++;
    l->ops++;
    shard_thread_step(l->thread, &e);
}

void clients_result(struct shard_thread *t, const struct action *a)
{
    struct client_load *l = client_load(t);
    const struct result *res = &a->answer.result;

    l->pending--;
    switch (res->code) {
    case RESULT_STORED:
        l->numbers[PAYLOAD_OF(a->answer.asker.id)].answered++;
        break;
    case RESULT_VALUE:
        break;
    case RESULT_NOT_FOUND:
        l->misses++;
        break;
    default:
        bench_fail("an operation was refused with code %u", res->code);
    }
    latency_answered(l, a->answer.asker.id >> 16);
}

/* ---- work ---- */

/* A group as soon as the one before it is answered. */
static void group_turn(struct client_load *l)
{
    const struct order *o = l->order;

    if (l->pending > 0) {
        return;
    }
    if (l->left == 0) {
        done(l);
        return;
    }
    for (unsigned i = 0; i < GROUP_OPS && l->left > 0; l->left--) {
        uint64_t key = o->work == WORK_FILL ? l->next++ : rng_below(&l->rng, o->keys);
        if (client_owns(l, key)) {
            client_set(l, key, 0);
            i++;
        }
    }
    turn_end(l);
}

/* All at once, but for what is not in memory. */
static void get_turn(struct client_load *l)
{
    while (l->left > 0 && l->pending == 0) {
        for (unsigned i = 0; i < GROUP_OPS && l->left > 0; l->left--) {
            uint64_t key = rng_below(&l->rng, l->order->keys);
            if (client_owns(l, key)) {
                client_get(l, key, 0);
                i++;
            }
        }
        turn_end(l);
    }
    if (l->pending == 0) {
        done(l);
    }
}

/* The shard's tick brings the next turn. */
static void rest_turn(struct client_load *l)
{
    if (node_upkeep() == UPKEEP_NONE) {
        done(l);
    }
}

void client_begin(struct client_load *l, const struct order *o)
{
    l->order = o;
    l->ops = l->user_bytes = l->misses = 0;
    l->next = 0;
    l->left = o->work == WORK_FILL ? o->keys : o->ops;
    memset(l->get, 0, sizeof(l->get));
    memset(l->set, 0, sizeof(l->set));
    switch (o->work) {
    case WORK_FILL:
    case WORK_SET:
        l->turn = group_turn;
        break;
    case WORK_GET:
        l->turn = get_turn;
        break;
    case WORK_MIX:
    case WORK_GROW:
        latency_begin(l);
        break;
    case WORK_READOUT:
        l->turn = readout_turn;
        break;
    default:
        l->turn = rest_turn;
    }
}

/* ---- views ---- */

static void lead_turn(struct client_load *l)
{
    struct shard_counts c;

    shard_count(l->thread->shard, &c);
    if (c.primary == c.members) {
        done(l);
    }
}

void client_lead(struct client_load *l)
{
    const struct wal_options *log = &l->thread->o.shard.log;
    struct shard_event e = { .kind = SHARD_SESSIONS };
    struct replica_info info;

    e.sessions = (struct msg_sessions){
        .index = l->session, .whole = true, .n_opened = 1, .ids = &l->session
    };
    shard_thread_step(l->thread, &e);
    e = (struct shard_event){ .kind = SHARD_VIEW };
    for (uint32_t p = log->shard; p < log->partitions; p += log->shards) {
        (void) shard_replica_info(l->thread->shard, (uint16_t) p, &info);
        e.row = (struct view_row){
            .partition = (uint16_t) p, .n_members = 1, .view = info.view + 1, .members = { 1 }
        };
        shard_thread_step(l->thread, &e);
    }
    l->turn = lead_turn;
}

/* ---- what else the server's clients.c defines ---- */

void clients_flush(struct shard_thread *t)
{
    struct client_load *l = client_load(t);

    if (l->turn) {
        l->turn(l);
    }
}

void clients_adopt(struct shard_thread *t, struct rpc_parcel *parcel)
{
    (void) t;
    rpc_parcel_free(parcel); /* nobody connects */
}

void clients_peek(struct shard_thread *t, const struct action *a)
{
    (void) t;
    (void) a;
}

void clients_close(struct shard_thread *t)
{
    struct client_load *l = client_load(t);

    l->turn = NULL;
}
