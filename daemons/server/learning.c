/* For the journal: partitions that are caught up here, and what was sent to others that catch up.
 * One line for all of them. */
#include "io/clock.h"
#include "io/log.h"
#include "server_private.h"

#define MIB (1024.0 * 1024.0)

void counts_sum(const struct server *s, struct shard_counts *ret)
{
    *ret = (struct shard_counts){ 0 };
    for (uint32_t i = 0; i < s->n_shards; i++) {
        const struct shard_thread_counts *c = shard_thread_counts(s->shards[i]);
#define ADD(field) ret->field += atomic_load_explicit(&c->field, memory_order_relaxed)
        ADD(members);
        ADD(primary);
        ADD(waiting);
        ADD(distrusted);
        ADD(untrusted);
        ADD(learning);
        ADD(learnt_bytes);
        ADD(taught_bytes);
        ADD(records);
#undef ADD
    }
}

static void learning_look(struct server *s, const struct shard_counts *c)
{
    struct learning *l = &s->learning;

    if (!l->running && c->learning > 0) {
        l->running = true;
        log_info("%u partitions are to be caught up from other servers", c->learning);
    }
    if (c->learning > 0) {
        return;
    }
    if (l->running || c->learnt_bytes > l->bytes) { /* a short one is over before it is seen */
        log_info("caught up with other servers: %.1f MiB came in %.1f s; a member of %u partitions",
                 (double) (c->learnt_bytes - l->bytes) / MIB,
                 (double) (clock_boot_usec() - l->began_usec) / 1e6, c->members);
    }
    l->running = false;
    l->bytes = c->learnt_bytes;
    l->began_usec = clock_boot_usec();
}

/* Told when nothing more was sent since the last look: one line for all. */
static void teaching_look(struct server *s, const struct shard_counts *c)
{
    struct learning *l = &s->learning;

    if (c->taught_bytes == l->taught_seen && c->taught_bytes > l->taught_told) {
        log_info("%.1f MiB were sent to servers that catch up",
                 (double) (c->taught_bytes - l->taught_told) / MIB);
        l->taught_told = c->taught_bytes;
    }
    l->taught_seen = c->taught_bytes;
}

void learning_tick(struct server *s, const struct shard_counts *c)
{
    teaching_look(s, c);
    if (!s->drain.running && !s->generation.last) { /* one that leaves catches up no more */
        learning_look(s, c);
    }
}
