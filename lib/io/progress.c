#include "io/progress.h"

#include "base/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#define THREADS_MAX 16
#define GB          1e9

void progress_begin(struct progress *p, const char *what, const char *unit, uint64_t items,
                    uint64_t bytes)
{
    if (p) {
        atomic_store(&p->what, NULL);
        atomic_store(&p->unit, unit);
        atomic_store(&p->items, items);
        atomic_store(&p->items_done, 0);
        atomic_store(&p->bytes, bytes);
        atomic_store(&p->bytes_done, 0);
        atomic_fetch_add(&p->moves, 1);
        atomic_store(&p->what, what);
    }
}

int progress_add(struct progress *p, uint64_t bytes)
{
    if (!p) {
        return 0;
    }
    atomic_fetch_add_explicit(&p->bytes_done, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->moves, 1, memory_order_relaxed);
    return atomic_load_explicit(&p->stopped, memory_order_relaxed) ? -ECANCELED : 0;
}

void progress_end(struct progress *p)
{
    if (p) {
        atomic_store(&p->what, NULL);
    }
}

void progress_stop(struct progress *p)
{
    atomic_store(&p->stopped, true);
}

bool progress_text(const struct progress *p, char out[PROGRESS_TEXT_BYTES])
{
    const char *what = atomic_load(&p->what);
    const char *unit = atomic_load(&p->unit);
    uint64_t bytes = atomic_load(&p->bytes);
    uint64_t done = MIN_OF(atomic_load(&p->bytes_done), bytes);

    if (!what) {
        return false;
    }
    if (unit) {
        (void) snprintf(out, PROGRESS_TEXT_BYTES,
                        "%s: %" PRIu64 " of %" PRIu64 " %s, %.1f GB of %.1f GB", what,
                        atomic_load(&p->items_done), atomic_load(&p->items), unit,
                        (double) done / GB, (double) bytes / GB);
    } else {
        (void) snprintf(out, PROGRESS_TEXT_BYTES, "%s: %u %%", what,
                        bytes > 0 ? (unsigned) (done * 100 / bytes) : 100);
    }
    return true;
}

struct spread {
    struct progress *progress;
    size_t items;
    progress_fn fn;
    void *ctx;
    _Atomic size_t next;
    _Atomic int error;
};

static void *spread_main(void *arg)
{
    struct spread *s = arg;
    size_t i;

    while ((i = atomic_fetch_add(&s->next, 1)) < s->items) {
        int r = progress_add(s->progress, 0);
        r = r < 0 ? r : s->fn(s->ctx, i);
        if (r < 0) {
            atomic_store(&s->error, r);
            atomic_store(&s->next, s->items);
            return NULL;
        }
        if (s->progress) {
            atomic_fetch_add(&s->progress->items_done, 1);
        }
    }
    return NULL;
}

int progress_spread(struct progress *p, size_t items, progress_fn fn, void *ctx)
{
    struct spread s = { .progress = p, .items = items, .fn = fn, .ctx = ctx };
    size_t want = MIN_OF(MIN_OF(p ? p->threads : 1, THREADS_MAX), items);
    pthread_t threads[THREADS_MAX];
    size_t n = 0;

    /* This thread is one of them: without others it does all. */
    while (n + 1 < want && pthread_create(&threads[n], NULL, spread_main, &s) == 0) {
        n++;
    }
    (void) spread_main(&s);
    while (n > 0) {
        pthread_join(threads[--n], NULL);
    }
    return s.error;
}
