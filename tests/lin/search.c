#include "lin/search.h"

#include "base/buf.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* The events of a piece in the order of time: a call points at its return. */
struct event {
    struct event *prev;
    struct event *next;
    struct event *match; /* of a call: its return, NULL when the outcome is unknown */
    uint32_t bit;        /* the operation, in the piece's own numbering */
    bool is_call;
    uint64_t time;
};

struct choice {
    struct event *e;
    struct lin_state state;
};

/* Configurations that were visited: `words` words of done operations, then the state. */
struct cache {
    size_t words;
    struct buf items;
    uint32_t *slots; /* number of an item + 1; 0: empty */
    size_t n_slots;  /* a power of two */
    size_t n;
};

struct piece {
    struct lin_search *s;
    size_t *op_of_bit;
    size_t n_ops;
    size_t n_must; /* operations that must have happened at the end */
    struct event *events;
    size_t n_events;
    struct event head; /* of the list */
    uint64_t *done;
    struct cache cache;
    struct choice *stack;
    size_t depth;
};

/* ---- cache ---- */

static size_t item_bytes(const struct cache *c)
{
    return c->words * sizeof(uint64_t) + sizeof(struct lin_state);
}

static uint64_t item_hash(const uint8_t *item, size_t bytes)
{
    uint64_t h = bytes;
    uint64_t w;

    for (size_t i = 0; i < bytes; i += sizeof(w)) {
        memcpy(&w, item + i, sizeof(w));
        h = map_hash_u64(h ^ w) + UINT64_C(0x9e3779b97f4a7c15);
    }
    return h;
}

static size_t slot_find(const struct cache *c, const uint8_t *item, size_t bytes)
{
    size_t i = item_hash(item, bytes) & (c->n_slots - 1);

    while (c->slots[i] != 0 &&
           memcmp(c->items.data + (c->slots[i] - 1) * bytes, item, bytes) != 0) {
        i = (i + 1) & (c->n_slots - 1);
    }
    return i;
}

static void cache_grow(struct cache *c)
{
    size_t bytes = item_bytes(c);

    free(c->slots);
    c->n_slots = c->n_slots ? 2 * c->n_slots : 64;
    c->slots = mem_zalloc(c->n_slots, sizeof(*c->slots));
    for (size_t i = 0; i < c->n; i++) {
        c->slots[slot_find(c, c->items.data + i * bytes, bytes)] = (uint32_t) i + 1;
    }
}

/* False when it was there already. */
static bool cache_add(struct cache *c, const uint64_t *done, const struct lin_state *state)
{
    size_t bytes = item_bytes(c);
    uint8_t *item;
    size_t slot;

    if (2 * (c->n + 1) > c->n_slots) {
        cache_grow(c);
    }
    item = buf_reserve(&c->items, bytes);
    memcpy(item, done, c->words * sizeof(uint64_t));
    memcpy(item + c->words * sizeof(uint64_t), state, sizeof(*state));
    slot = slot_find(c, item, bytes);
    if (c->slots[slot] != 0) {
        return false;
    }
    c->items.end += bytes;
    c->slots[slot] = (uint32_t) ++c->n;
    return true;
}

/* ---- the list of events ---- */

static int event_compare(const void *a, const void *b)
{
    const struct event *x = a;
    const struct event *y = b;

    if (x->time != y->time) {
        return x->time < y->time ? -1 : 1;
    }
    if (x->is_call != y->is_call) { /* at one time calls come first: they may overlap */
        return x->is_call ? -1 : 1;
    }
    return x->bit < y->bit ? -1 : x->bit > y->bit;
}

static void event_unlink(struct event *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
}

static void event_relink(struct event *e)
{
    e->prev->next = e;
    e->next->prev = e;
}

static void call_unlink(struct event *e)
{
    event_unlink(e);
    if (e->match) {
        event_unlink(e->match);
    }
}

static void call_relink(struct event *e)
{
    if (e->match) {
        event_relink(e->match);
    }
    event_relink(e);
}

static void piece_add(struct piece *p, size_t op, uint64_t call)
{
    const struct lin_op *o = &p->s->ops[op];
    uint32_t bit = (uint32_t) p->n_ops++;

    p->op_of_bit[bit] = op;
    p->events[p->n_events++] = (struct event){ .bit = bit, .is_call = true, .time = call };
    if (o->ret != LIN_NEVER) {
        p->events[p->n_events++] = (struct event){ .bit = bit, .time = o->ret };
        p->n_must++;
    }
}

/* Operations of unknown outcome come first: bit i is carried[i]. */
static void piece_init(struct piece *p, struct lin_search *s, size_t begin, size_t end)
{
    size_t room = s->n_carried + (end - begin);
    struct event **call_of = mem_zalloc(room, sizeof(struct event *));
    struct event *last;

    *p = (struct piece){ .s = s };
    p->op_of_bit = mem_zalloc(room, sizeof(*p->op_of_bit));
    p->events = mem_zalloc(2 * room + 1, sizeof(*p->events));
    p->done = mem_zalloc(room / 64 + 1, sizeof(*p->done));
    p->stack = mem_zalloc(room + 1, sizeof(*p->stack));
    p->cache.words = room / 64 + 1;
    for (size_t i = 0; i < s->n_carried; i++) {
        piece_add(p, s->carried[i], s->ops[s->carried[i]].call);
    }
    for (size_t i = begin; i < end; i++) {
        if (s->ops[i].ret != LIN_NEVER) {
            piece_add(p, i, s->ops[i].call);
        }
    }
    qsort(p->events, p->n_events, sizeof(*p->events), event_compare);
    last = &p->head;
    for (size_t i = 0; i < p->n_events; i++) {
        struct event *e = &p->events[i];
        if (e->is_call) {
            call_of[e->bit] = e;
        } else {
            call_of[e->bit]->match = e;
        }
        last->next = e;
        e->prev = last;
        last = e;
    }
    last->next = &p->head;
    p->head.prev = last;
    free(call_of);
}

static void piece_free(struct piece *p)
{
    free(p->op_of_bit);
    free(p->events);
    free(p->done);
    free(p->stack);
    free(p->cache.slots);
    buf_free(&p->cache.items);
}

/* ---- the search ---- */

static void done_flip(struct piece *p, uint32_t bit)
{
    p->done[bit / 64] ^= UINT64_C(1) << (bit % 64);
}

static void search_push(struct piece *p, struct event *e, struct lin_state *state,
                        const struct lin_state *next)
{
    p->stack[p->depth++] = (struct choice){ e, *state };
    *state = *next;
    call_unlink(e);
}

static struct event *search_pop(struct piece *p, struct lin_state *state)
{
    struct choice *c = &p->stack[--p->depth];

    *state = c->state;
    done_flip(p, c->e->bit);
    call_relink(c->e);
    return c->e;
}

/* Which operations of unknown outcome are done. */
static uint64_t used_of(const struct piece *p)
{
    size_t n = p->s->n_carried;

    return p->done[0] & (n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX);
}

/* Is it idle to take `o`, which leads from `state` to `next`, right after an operation of unknown
 * outcome? So it is when that one made no difference, or could as well come behind `o`: the search
 * finds those ways by itself. Without this each unknown outcome would double the work. */
static bool search_is_idle(struct piece *p, const struct event *e, const struct lin_state *state,
                           const struct lin_state *next)
{
    const struct choice *last = p->depth > 0 ? &p->stack[p->depth - 1] : NULL;
    size_t op = p->op_of_bit[e->bit];
    struct lin_state without;

    if (!e->match && memcmp(next, state, sizeof(*next)) == 0) {
        return true;
    }
    if (!last || last->e->match ||
        !lin_step(p->s->values, &last->state, &p->s->ops[op], p->s->value_ids[op], &without)) {
        return false;
    }
    return memcmp(&without, next, sizeof(without)) == 0 ||
           (memcmp(&without, &last->state, sizeof(without)) == 0 &&
            memcmp(next, state, sizeof(*next)) == 0);
}

/* Can the call come next? */
static bool search_try(struct piece *p, const struct event *e, const struct lin_state *state,
                       struct lin_state *ret_next)
{
    size_t op = p->op_of_bit[e->bit];

    if (!lin_step(p->s->values, state, &p->s->ops[op], p->s->value_ids[op], ret_next) ||
        search_is_idle(p, e, state, ret_next)) {
        return false;
    }
    done_flip(p, e->bit);
    if (!cache_add(&p->cache, p->done, ret_next)) {
        done_flip(p, e->bit);
        return false;
    }
    return true;
}

/* Unlike a search for one explanation, this one goes on after each: the next piece wants all. */
static void search_run(struct piece *p, struct lin_state state, size_t must,
                       struct lin_configs *out)
{
    struct lin_search *s = p->s;
    struct event *e = p->head.next;
    struct lin_state next;

    for (;;) {
        if (must == 0) {
            lin_configs_add(out, &(struct lin_config){ state, used_of(p) });
            e = &p->head;
        }
        if (e != &p->head && e->is_call) {
            if (search_try(p, e, &state, &next)) {
                search_push(p, e, &state, &next);
                must -= e->match != NULL;
                e = p->head.next;
            } else {
                e = e->next;
            }
        } else {
            if (e != &p->head && p->n_must - must >= s->furthest) {
                s->furthest = p->n_must - must;
                s->stuck = p->op_of_bit[e->bit];
            }
            if (p->depth == 0 || s->visited + p->cache.n > LIN_CACHE_MAX) {
                return;
            }
            e = search_pop(p, &state);
            must += e->match != NULL;
            e = e->next;
        }
    }
}

/* What a configuration used in earlier pieces is not to be used again. */
static bool event_is_used(const struct piece *p, const struct event *e, uint64_t used)
{
    return e->is_call && e->bit < p->s->n_carried && (used >> e->bit & 1);
}

static void search_from(struct piece *p, const struct lin_config *from, struct lin_configs *out)
{
    memset(p->done, 0, p->cache.words * sizeof(uint64_t));
    p->done[0] = from->used;
    for (size_t i = 0; i < p->n_events; i++) {
        if (event_is_used(p, &p->events[i], from->used)) {
            event_unlink(&p->events[i]);
        }
    }
    search_run(p, from->state, p->n_must, out);
    for (size_t i = p->n_events; i-- > 0;) {
        if (event_is_used(p, &p->events[i], from->used)) {
            event_relink(&p->events[i]);
        }
    }
}

bool lin_search_piece(struct lin_search *s, size_t begin, size_t end, const struct lin_configs *in,
                      struct lin_configs *out)
{
    struct piece p;

    for (size_t i = begin; i < end; i++) {
        if (s->ops[i].ret == LIN_NEVER) {
            if (s->n_carried == LIN_UNKNOWN_MAX) {
                return false;
            }
            s->carried[s->n_carried++] = i;
        }
    }
    piece_init(&p, s, begin, end);
    s->furthest = 0;
    s->stuck = begin;
    out->n = 0;
    for (size_t i = 0; i < in->n && s->visited + p.cache.n <= LIN_CACHE_MAX; i++) {
        search_from(&p, &in->v[i], out);
    }
    s->visited += p.cache.n;
    piece_free(&p);
    return s->visited <= LIN_CACHE_MAX;
}

void lin_configs_add(struct lin_configs *c, const struct lin_config *config)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->n; i++) {
        bool same = memcmp(&c->v[i].state, &config->state, sizeof(config->state)) == 0;
        if (same && (c->v[i].used & ~config->used) == 0) {
            return; /* it used no more than this one: everything that follows here follows there */
        }
        if (!same || (config->used & ~c->v[i].used) != 0) {
            c->v[kept++] = c->v[i];
        }
    }
    c->n = kept;
    mem_grow(&c->v, &c->cap, c->n + 1, sizeof(*c->v));
    c->v[c->n++] = *config;
}
