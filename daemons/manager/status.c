#include "status.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "host.h"
#include "io/clock.h"
#include "wire/status.h"

#include <stdio.h>
#include <string.h>

/* What is counted of one server. */
struct tally {
    uint32_t primaries;
    uint32_t secondaries;
    uint32_t learning;
    bool up;
};

/* Counts the partition's replicas. Does it lack a member, or wait for a view (R6)? */
static bool row_count(const struct cluster *c, const struct view_row *row, struct tally *tallies)
{
    bool lacks = false;

    for (unsigned i = 0; i < row->n_members; i++) {
        struct tally *t = &tallies[row->members[i] - 1];
        t->primaries += i == 0;
        t->secondaries += i > 0;
        lacks = lacks || !t->up || cluster_is_restarted(c, row->members[i], row->partition);
    }
    for (unsigned i = 0; i < row->n_learners; i++) {
        tallies[row->learners[i] - 1].learning++;
    }
    return lacks;
}

/* One walk over the hash space. `tallies` has an element for each server. */
static void status_count(const struct host *h, struct tally *tallies, struct msg_status *ret)
{
    const struct cluster *c = manager_cluster(h->manager);
    const struct hashspace *space = &c->space;
    uint32_t member;
    uint32_t needed;

    for (uint32_t i = 0; i < space->n_servers; i++) {
        tallies[i].up = manager_server_is_up(h->manager, i + 1);
    }
    for (uint32_t p = 0; p < space->n_partitions; p++) {
        ret->unplaced += space->rows[p].view == 0;
        ret->waiting += row_count(c, &space->rows[p], tallies);
        ret->degraded += space->rows[p].view > 0 && space->rows[p].n_members < c->replicas;
    }
    for (uint32_t i = 0; i < space->n_servers; i++) {
        uint32_t held = tallies[i].primaries + tallies[i].secondaries;
        if (held + tallies[i].learning > 0 && !tallies[i].up && ret->n_blockers++ == 0) {
            ret->blocker = i + 1;
            ret->blocked = held;
        }
    }
    needed = manager_waiting(h->manager, &member);
    ret->waiting = MAX_OF(ret->waiting, needed);
}

static void status_fill(const struct host *h, struct msg_status *ret)
{
    const struct cluster *c = manager_cluster(h->manager);

    snprintf(ret->version, sizeof(ret->version), "%s", KUMO_VERSION);
    memcpy(ret->cluster_id, c->space.cluster_id, UUID_BYTES);
    ret->leads = h->leads;
    ret->uptime_usec = clock_boot_usec() - h->started_usec;
    ret->applied = consensus_applied(raft_group_consensus(h->group));
    ret->epoch = c->space.epoch;
    ret->sessions = c->sessions.n;
    ret->replicas = c->replicas;
    ret->partitions = c->space.n_partitions;
    ret->n_servers = c->space.n_servers;
}

void status_put(struct buf *b, const struct host *h)
{
    const struct hashspace *space = &manager_cluster(h->manager)->space;
    _cleanup_free_ struct tally *tallies = mem_zalloc(space->n_servers + 1, sizeof(*tallies));
    struct msg_status s = { 0 };

    status_fill(h, &s);
    status_count(h, tallies, &s);
    msg_put_status(b, &s);
    for (uint32_t i = 0; i < space->n_servers; i++) {
        const struct hashspace_server *known = &space->servers[i];
        struct msg_status_server out = { .server = i + 1,
                                         .shards = known->shards,
                                         .state = known->state,
                                         .up = tallies[i].up,
                                         .incarnation = known->incarnation,
                                         .primaries = tallies[i].primaries,
                                         .secondaries = tallies[i].secondaries,
                                         .learning = tallies[i].learning };
        memcpy(out.name, known->name, sizeof(out.name));
        memcpy(out.address, known->address, sizeof(out.address));
        msg_put_status_server(b, &out);
    }
}

void status_sentence(const struct host *h, char *out, size_t cap)
{
    const struct hashspace *space = &manager_cluster(h->manager)->space;
    _cleanup_free_ struct tally *tallies = mem_zalloc(space->n_servers + 1, sizeof(*tallies));
    struct msg_status s = { 0 };

    status_count(h, tallies, &s);
    if (s.unplaced == space->n_partitions) {
        snprintf(out, cap, "%s; %u server%s, none attached yet (kumoctl attach)",
                 h->leads ? "leading" : "not leading", space->n_servers,
                 space->n_servers == 1 ? "" : "s");
        return;
    }
    snprintf(out, cap, "%s; %u server%s, %u partitions, %u waiting, %u short of copies",
             h->leads ? "leading" : "not leading", space->n_servers,
             space->n_servers == 1 ? "" : "s", space->n_partitions, s.waiting, s.degraded);
}
