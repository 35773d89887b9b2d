#include "core/session.h"

#include "base/cleanup.h"
#include "base/mem.h"

struct session {
    struct map_node node; /* by id */
    uint64_t id;
    uint32_t ending_view; /* its end was proposed in this view */
    uint64_t first;       /* highest first unanswered number that it has told */
    struct session_answer *answers;
    size_t n;
    size_t cap;
};

static struct session *session_find(const struct session_table *t, uint64_t id)
{
    struct map_node *i = map_first(&t->map, map_hash_u64(id));

    for (; i; i = map_next(i)) {
        struct session *s = MAP_ENTRY(i, struct session, node);
        if (s->id == id) {
            return s;
        }
    }
    return NULL;
}

enum session_verdict session_look(const struct session_table *t, const struct op_id *op,
                                  struct session_answer *ret_answer)
{
    const struct session *s = session_find(t, op->session);

    if (!s) {
        return op->number >= op->first + SESSION_WINDOW ? SESSION_AHEAD : SESSION_NEW;
    }
    for (size_t i = 0; i < s->n; i++) {
        if (s->answers[i].number == op->number) {
            *ret_answer = s->answers[i];
            return SESSION_DONE;
        }
    }
    if (op->number < s->first) {
        return SESSION_GONE;
    }
    return op->number >= MAX_OF(s->first, op->first) + SESSION_WINDOW ? SESSION_AHEAD : SESSION_NEW;
}

static void session_trim(struct session *s)
{
    size_t kept = 0;

    for (size_t i = 0; i < s->n; i++) {
        if (s->answers[i].number >= s->first) {
            s->answers[kept++] = s->answers[i];
        }
    }
    s->n = kept;
}

static struct session *session_add(struct session_table *t, uint64_t id)
{
    struct session *s = mem_zalloc(1, sizeof(*s));

    s->id = id;
    map_insert(&t->map, &s->node, map_hash_u64(id));
    return s;
}

static void answer_add(struct session *s, const struct session_answer *answer)
{
    mem_grow(&s->answers, &s->cap, s->n + 1, sizeof(*s->answers));
    s->answers[s->n++] = *answer;
}

void session_record(struct session_table *t, const struct op_id *op,
                    const struct session_answer *answer)
{
    struct session *s = session_find(t, op->session);

    if (!s) {
        s = session_add(t, op->session);
    }
    if (op->first > s->first) {
        s->first = op->first;
        session_trim(s);
    }
    answer_add(s, answer);
}

size_t session_table_over(struct session_table *t, const struct live_sessions *live, uint32_t view,
                          uint64_t *ids, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < t->map.n_buckets; i++) {
        for (struct map_node *node = t->map.buckets[i]; node && n < max; node = node->next) {
            struct session *s = MAP_ENTRY(node, struct session, node);
            if (s->id <= live->index && s->ending_view != view && !live_sessions_has(live, s->id)) {
                s->ending_view = view;
                ids[n++] = s->id;
            }
        }
    }
    return n;
}

static void session_drop(struct session_table *t, struct session *s)
{
    map_remove(&t->map, &s->node);
    free(s->answers);
    free(s);
}

void session_table_end(struct session_table *t, uint64_t session, uint64_t known)
{
    struct session *s = session_find(t, session);

    t->known = MAX_OF(t->known, known);
    if (s) {
        session_drop(t, s);
    }
}

static void answer_put(struct buf *b, const struct session_answer *a)
{
    mp_put_array(b, 6);
    mp_put_uint(b, a->number);
    mp_put_uint(b, a->at.view);
    mp_put_uint(b, a->at.seq);
    mp_put_uint(b, a->code);
    mp_put_uint(b, a->value);
    mp_put_uint(b, a->cas);
}

static struct session_answer answer_get(struct mp_reader *r)
{
    struct session_answer a = { 0 };

    mp_get_array_exact(r, 6);
    a.number = mp_get_uint(r);
    a.at.view = (uint32_t) mp_get_uint_max(r, UINT32_MAX);
    a.at.seq = mp_get_uint(r);
    a.code = (uint8_t) mp_get_uint_max(r, UINT8_MAX);
    a.value = mp_get_uint(r);
    a.cas = mp_get_uint(r);
    return a;
}

void session_table_put(struct buf *b, const struct session_table *t)
{
    mp_put_array(b, 2);
    mp_put_uint(b, t->known);
    mp_put_array(b, (uint32_t) t->map.count);
    for (size_t i = 0; i < t->map.n_buckets; i++) {
        for (const struct map_node *n = t->map.buckets[i]; n; n = n->next) {
            const struct session *s = MAP_ENTRY(n, struct session, node);
            mp_put_array(b, 3);
            mp_put_uint(b, s->id);
            mp_put_uint(b, s->first);
            mp_put_array(b, (uint32_t) s->n);
            for (size_t j = 0; j < s->n; j++) {
                answer_put(b, &s->answers[j]);
            }
        }
    }
}

void session_table_get(struct mp_reader *r, struct session_table *t)
{
    uint32_t n = mp_get_array(r);

    if (n == 2 && mp_peek_type(r) == MP_UINT) {
        t->known = mp_get_uint(r);
        n = mp_get_array(r);
    }
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        struct session *s;
        uint32_t n_answers;
        mp_get_array_exact(r, 3);
        s = session_add(t, mp_get_uint(r));
        s->first = mp_get_uint(r);
        n_answers = mp_get_array(r);
        for (uint32_t j = 0; j < n_answers && !r->failed; j++) {
            struct session_answer a = answer_get(r);
            answer_add(s, &a);
        }
    }
}

void session_table_free(struct session_table *t)
{
    struct map_node *i;

    while ((i = map_any(&t->map))) {
        session_drop(t, MAP_ENTRY(i, struct session, node));
    }
    map_free(&t->map);
    t->known = 0;
}
