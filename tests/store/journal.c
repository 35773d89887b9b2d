#include "journal.h"

#include "base/assert.h"
#include "io/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct journal {
    pthread_mutex_t lock;
    size_t cap;
    uint64_t end;
    _Alignas(16) uint8_t bytes[];
};

static size_t record_bytes(size_t payload)
{
    return (sizeof(struct record) + payload + 15) & ~(size_t) 15;
}

struct journal *journal_new(size_t bytes)
{
    struct journal *j = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    kumo_assert(j != MAP_FAILED);
    j->cap = bytes - sizeof(*j);
    journal_adopt(j);
    return j;
}

void journal_free(struct journal *j)
{
    munmap(j, j->cap + sizeof(*j));
}

void journal_clear(struct journal *j)
{
    j->end = 0;
}

void journal_adopt(struct journal *j)
{
    pthread_mutexattr_t a;

    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&j->lock, &a);
    pthread_mutexattr_destroy(&a);
}

void journal_lock(struct journal *j)
{
    pthread_mutex_lock(&j->lock);
}

void journal_unlock(struct journal *j)
{
    pthread_mutex_unlock(&j->lock);
}

void journal_add(struct journal *j, const struct record *head, const void *payload, size_t bytes)
{
    struct record *r = (struct record *) (void *) (j->bytes + j->end);

    if (record_bytes(bytes) > j->cap - j->end) {
        fprintf(stderr, "the journal is full: %llu bytes\n", (unsigned long long) j->end);
        abort();
    }
    *r = *head;
    r->usec = clock_boot_usec();
    r->bytes = (uint32_t) bytes;
    if (bytes > 0) {
        memcpy(r->payload, payload, bytes);
    }
    j->end += record_bytes(bytes);
}

void journal_note(struct journal *j, const struct record *head, const void *payload, size_t bytes)
{
    journal_lock(j);
    journal_add(j, head, payload, bytes);
    journal_unlock(j);
}

const struct record *journal_at(const struct journal *j, uint64_t position)
{
    return position < j->end ? (const struct record *) (const void *) (j->bytes + position) : NULL;
}

uint64_t journal_next(const struct journal *j, uint64_t position)
{
    return position + record_bytes(journal_at(j, position)->bytes);
}

uint64_t journal_end(const struct journal *j)
{
    return j->end;
}

uint64_t journal_any(const struct journal *j, struct rng *rng, uint64_t from, uint64_t to)
{
    uint64_t n = 0;

    for (uint64_t at = from; at < to; at = journal_next(j, at)) {
        n++;
    }
    for (uint64_t k = rng_below(rng, n); k > 0; k--) {
        from = journal_next(j, from);
    }
    return from;
}
