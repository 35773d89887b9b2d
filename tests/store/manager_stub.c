/* Stands for daemons/server/manager_link.c: a cluster of this server alone. It accepts the server,
 * forms a new view of each partition at each start, as a manager does when its only member has
 * sealed, and opens one session for the start; the one before is over. */
#include "../daemons/server/server_private.h"
#include "rig.h"

#include "base/assert.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define SERVER    1
#define TICK_USEC 20000 /* so often a new generation of checkpoints may begin */

static void on_tick(void *ctx)
{
    struct server *s = ctx;

    if (!s->generation.last && s->n_shards > 0) { /* not while it stops */
        checkpointer_tick(s);
    }
}

static void views_push(struct server *s)
{
    for (uint32_t p = 0; p < s->superblock.partitions; p++) {
        struct view_row row = { .partition = (uint16_t) p,
                                .n_members = 1,
                                .view = (uint32_t) s->superblock.start,
                                .members = { SERVER } };
        kumo_assert(shard_thread_rows(s->shards[p % s->n_shards], &row, 1, false) == 0);
    }
}

/* Returns the one that is open. */
static uint64_t sessions_push(struct server *s)
{
    uint64_t session = s->superblock.start;
    struct msg_sessions m = { .index = session, .whole = true, .n_opened = 1, .ids = &session };

    for (uint32_t i = 0; i < s->n_shards; i++) {
        kumo_assert(shard_thread_sessions(s->shards[i], &m) == 0);
    }
    return session;
}

int manager_link_start(struct server *s, struct io_error *error)
{
    struct msg_registered m = { .server = SERVER, .partitions = RIG_PARTITIONS };
    struct addr addr;
    int r = identity_sending(s, error);

    memset(m.cluster_id, 7, UUID_BYTES);
    if (r == 0) {
        r = identity_accepted(s, &m, error);
    }
    if (r == 0 && s->n_shards == 0) {
        r = server_start_shards(s, error);
    }
    if (r < 0) {
        return r;
    }
    s->registered = true;
    views_push(s);
    loop_timer_every(loop_timer_new(s->loop, on_tick, s), TICK_USEC);
    kumo_assert(listener_addr(s->listener, 0, &addr) == 0);
    rig_on_listening(addr_port(&addr), sessions_push(s));
    return 0;
}

/* Never wanted: nobody asks for seals, and every start gets its views at once. */
void manager_link_sealed(void *ctx, const struct msg_sealed *sealed, size_t n)
{
    (void) ctx;
    (void) sealed;
    (void) n;
}

void manager_link_reconfig(void *ctx, const struct msg_reconfig *asked, size_t n)
{
    (void) ctx;
    (void) asked;
    (void) n;
}
