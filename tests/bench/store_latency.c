#include "bench/store_latency.h"

#include "bench/store_node.h"

#include "base/cleanup.h"

#include <time.h>

#define ARRIVALS_PER_TURN 512 /* at most: what was held up comes in pieces, as from a socket */
#define LINEAR_USEC       16  /* below that each microsecond has a step of its own */

/* ---- histograms ---- */

static unsigned step_of(uint64_t usec)
{
    unsigned power;

    if (usec < LINEAR_USEC) {
        return (unsigned) usec;
    }
    power = 63 - (unsigned) __builtin_clzll(usec);
    return (power - 3) * 16 + (unsigned) (usec >> (power - 4) & 15);
}

/* The highest time of a step. */
static uint64_t step_end(unsigned step)
{
    unsigned power = step / 16 + 3;

    if (step < LINEAR_USEC) {
        return step;
    }
    return ((UINT64_C(17) + step % 16) << (power - 4)) - 1;
}

void histogram_add(struct histogram *h, uint64_t usec)
{
    h->counts[MIN_OF(step_of(usec), HISTOGRAM_STEPS - 1)]++;
    h->n++;
    h->max_usec = MAX_OF(h->max_usec, usec);
}

void histogram_merge(struct histogram *h, const struct histogram *other)
{
    for (unsigned i = 0; i < HISTOGRAM_STEPS; i++) {
        h->counts[i] += other->counts[i];
    }
    h->n += other->n;
    h->max_usec = MAX_OF(h->max_usec, other->max_usec);
}

static uint32_t quantile(const struct histogram *h, double q)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_STEPS; i++) {
        seen += h->counts[i];
        if ((double) seen >= q * (double) h->n) {
            return (uint32_t) MIN_OF(step_end(i), h->max_usec);
        }
    }
    return (uint32_t) h->max_usec;
}

struct latency histogram_latency(const struct histogram *h)
{
    return (struct latency){
        .n = h->n,
        .p50_usec = quantile(h, 0.5),
        .p99_usec = quantile(h, 0.99),
        .p999_usec = quantile(h, 0.999),
        .max_usec = (uint32_t) h->max_usec,
    };
}

/* ---- operations that arrive at a rate ---- */

/* The loop turns without rest, so that its thread's CPU time is the time that passes, without what
 * other processes on the machine take from it. */
static uint64_t now_nsec(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

/* id of an operation: microseconds from the beginning to its arrival, plus 1, and its kind. */
static void arrive(struct client_load *l, uint64_t usec)
{
    const struct order *o = l->order;
    bool get = o->work == WORK_MIX && rng_chance(&l->rng, 1, 2);
    uint64_t key = o->work == WORK_GROW ? o->keys + l->next++ : rng_below(&l->rng, o->keys);
    uint64_t id = (usec + 1) << 1 | get;

    if (get) {
        client_get(l, key, id);
    } else {
        client_set(l, key, id);
    }
}

void latency_answered(struct client_load *l, uint64_t id)
{
    uint64_t usec = (id >> 1) - 1;
    enum upkeep k;

    if (id == 0) {
        return; /* of another kind of work */
    }
    k = node_upkeep();
    histogram_add(id & 1 ? &l->get[k] : &l->set[k], (now_nsec() - l->begin_nsec) / 1000 - usec);
}

static void nothing(void *arg)
{
    (void) arg;
}

static void latency_turn(struct client_load *l)
{
    uint64_t now_usec = (now_nsec() - l->begin_nsec) / 1000;
    unsigned n = 0;

    for (; l->left > 0 && n < ARRIVALS_PER_TURN; n++, l->left--) {
        uint64_t usec = l->arrived * 1000000 / l->order->rate;
        if (usec > now_usec) {
            break;
        }
        l->arrived++;
        arrive(l, usec);
    }
    if (n > 0) {
        shard_thread_step(l->thread, &(struct shard_event){ .kind = SHARD_TURN_END });
    }
    if (l->left == 0 && l->pending == 0) {
        l->turn = NULL;
        node_load_done();
        return;
    }
    (void) loop_post(l->thread->loop, nothing, NULL); /* the next turn comes without waiting */
}

void latency_begin(struct client_load *l)
{
    l->begin_nsec = now_nsec();
    l->arrived = 0;
    l->turn = latency_turn;
}
