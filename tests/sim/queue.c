/* The queue of events: a binary heap. */
#include "sim/sim.h"

#include "base/mem.h"

#include <stdlib.h>

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_usec != b->at_usec ? a->at_usec < b->at_usec : a->seq < b->seq;
}

void queue_push(struct queue *q, const struct event *e)
{
    struct event numbered = *e;

    numbered.seq = q->next_seq++;
    queue_push_again(q, &numbered);
}

void queue_push_again(struct queue *q, const struct event *e)
{
    size_t i = q->n++;

    mem_grow(&q->heap, &q->cap, q->n, sizeof(*q->heap));
    q->heap[i] = *e;
    while (i > 0 && is_before(&q->heap[i], &q->heap[(i - 1) / 2])) {
        struct event swap = q->heap[i];
        q->heap[i] = q->heap[(i - 1) / 2];
        q->heap[(i - 1) / 2] = swap;
        i = (i - 1) / 2;
    }
}

static void sink(struct queue *q)
{
    size_t i = 0;

    for (;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < q->n; child++) {
            if (is_before(&q->heap[child], &q->heap[least])) {
                least = child;
            }
        }
        if (least == i) {
            return;
        }
        struct event swap = q->heap[i];
        q->heap[i] = q->heap[least];
        q->heap[least] = swap;
        i = least;
    }
}

bool queue_pop(struct queue *q, struct event *ret)
{
    if (q->n == 0) {
        return false;
    }
    *ret = q->heap[0];
    q->heap[0] = q->heap[--q->n];
    sink(q);
    return true;
}

void queue_free(struct queue *q)
{
    for (size_t i = 0; i < q->n; i++) {
        free(q->heap[i].data);
    }
    free(q->heap);
    *q = (struct queue){ 0 };
}
