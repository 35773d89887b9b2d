/* A server stops in order: it hands over what it leads and leaves its views (R16), for a bounded
 * time, then makes a last generation of checkpoints. Some are told to stop at once. */
#include "sim/sim.h"

#define LEAVE_AGAIN_USEC (100 * USEC_PER_MSEC)

/* Is nothing left that could be handed over? */
static bool has_left(const struct sim *s, const struct server *sv)
{
    for (uint32_t p = 0; p < s->setup.partitions; p++) {
        if (check_is_member(s, sv, (uint16_t) p) && check_members(s, (uint16_t) p) > 1) {
            return false;
        }
    }
    return true;
}

/* e->number: when it gives up. */
static void leaves(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    if (sv->stopping) {
        return;
    }
    if (has_left(s, sv) || s->now_usec >= e->number) {
        s->counts.left += has_left(s, sv);
        checkpoints_stop(s, sv);
        return;
    }
    for (uint32_t i = 0; i < sv->n_shards && !s->failed; i++) {
        shard_run(s, &sv->shards[i], &(struct shard_event){ .kind = SHARD_LEAVE });
    }
    sim_after(s, LEAVE_AGAIN_USEC, &sv->process, leaves, sv, e->number, NULL);
}

void server_stop(struct sim *s, struct server *sv)
{
    if (sv->process.alive && sv->state == LIFE_RUNNING && !sv->leaving && sim_chance(s, 3, 4)) {
        sv->leaving = true;
        sim_after(s, 0, &sv->process, leaves, sv,
                  s->now_usec + sim_between(s, 1, 6000) * USEC_PER_MSEC, NULL);
    } else {
        checkpoints_stop(s, sv);
    }
}
