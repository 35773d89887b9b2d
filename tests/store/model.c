#include "model.h"

#include "base/assert.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* One step of a key; answered at `position`, UINT64_MAX: not yet. */
struct step {
    struct state state;
    uint64_t position;
};

struct history {
    struct step *v;
    size_t n;
    size_t cap;
    size_t first; /* since the last crash: a key may be in this one or a later one */
};

struct model {
    size_t n;
    struct history keys[];
};

bool state_equal(const struct state *a, const struct state *b)
{
    return a->exists == b->exists &&
           (!a->exists || (a->flags == b->flags && a->bytes == b->bytes && a->hash == b->hash));
}

uint64_t state_hash(const uint8_t *value, size_t bytes)
{
    return XXH3_64bits(value, bytes);
}

static void push(struct history *h, const struct state *state, uint64_t position)
{
    mem_grow(&h->v, &h->cap, h->n + 1, sizeof(*h->v));
    h->v[h->n++] = (struct step){ *state, position };
}

struct model *model_new(size_t n)
{
    struct model *m = mem_zalloc(1, sizeof(*m) + n * sizeof(struct history));

    m->n = n;
    for (size_t i = 0; i < n; i++) {
        push(&m->keys[i], &(struct state){ 0 }, 0);
    }
    return m;
}

struct model *model_copy(const struct model *m)
{
    struct model *copy = mem_zalloc(1, sizeof(*m) + m->n * sizeof(struct history));

    copy->n = m->n;
    for (size_t i = 0; i < m->n; i++) {
        for (size_t k = 0; k < m->keys[i].n; k++) {
            push(&copy->keys[i], &m->keys[i].v[k].state, m->keys[i].v[k].position);
        }
        copy->keys[i].first = m->keys[i].first;
    }
    return copy;
}

struct model *model_free(struct model *m)
{
    for (size_t i = 0; m && i < m->n; i++) {
        free(m->keys[i].v);
    }
    free(m);
    return NULL;
}

size_t model_keys(const struct model *m)
{
    return m->n;
}

static void answer(struct history *h, bool done, uint64_t position)
{
    struct step *last = &h->v[h->n - 1];

    kumo_assert(h->n > 1);
    kumo_assert(last->position == UINT64_MAX);
    if (done) {
        last->position = position;
    } else {
        h->n--;
    }
}

void model_apply(struct model *m, const struct record *r, uint64_t position)
{
    struct state state;

    switch ((enum record_kind) r->kind) {
    case RECORD_SUBMIT:
        memcpy(&state, r->payload, sizeof(state));
        push(&m->keys[r->at], &state, UINT64_MAX);
        return;
    case RECORD_ANSWER:
        answer(&m->keys[r->at], !r->flag, position);
        return;
    case RECORD_OBSERVED:
        memcpy(&state, r->payload, sizeof(state));
        m->keys[r->at].n = m->keys[r->at].first = 0;
        push(&m->keys[r->at], &state, 0);
        return;
    default:
        return;
    }
}

void model_crash(struct model *m, uint64_t durable)
{
    for (size_t i = 0; i < m->n; i++) {
        struct history *h = &m->keys[i];
        for (size_t k = h->first; k < h->n; k++) {
            if (h->v[k].position < durable) {
                h->first = k;
            }
            h->v[k].position = UINT64_MAX;
        }
        h->v[h->first].position = 0;
    }
}

struct state model_certain(const struct model *m, size_t key)
{
    return m->keys[key].v[m->keys[key].first].state;
}

enum verdict model_judge(const struct model *m, size_t key, const struct state *found)
{
    const struct history *h = &m->keys[key];

    for (size_t k = h->n; k-- > 0;) {
        if (state_equal(&h->v[k].state, found)) {
            return k >= h->first ? VERDICT_RIGHT : VERDICT_LOST;
        }
    }
    return found->exists ? VERDICT_CORRUPT : VERDICT_LOST;
}
