#include "core/session.h"

#include "base/cleanup.h"
#include "base/mem.h"

struct session {
    struct map_node node; /* by id */
    uint64_t id;
    uint64_t first; /* highest first unanswered number that it has told */
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

void session_record(struct session_table *t, const struct op_id *op,
                    const struct session_answer *answer)
{
    struct session *s = session_find(t, op->session);

    if (!s) {
        s = mem_zalloc(1, sizeof(*s));
        s->id = op->session;
        map_insert(&t->map, &s->node, map_hash_u64(s->id));
    }
    if (op->first > s->first) {
        s->first = op->first;
        session_trim(s);
    }
    mem_grow(&s->answers, &s->cap, s->n + 1, sizeof(*s->answers));
    s->answers[s->n++] = *answer;
}

void session_table_free(struct session_table *t)
{
    struct map_node *i;

    while ((i = map_any(&t->map))) {
        struct session *s = MAP_ENTRY(i, struct session, node);
        map_remove(&t->map, i);
        free(s->answers);
        free(s);
    }
    map_free(&t->map);
}
