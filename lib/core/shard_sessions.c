/* Which sessions are open, as the managers told this shard (R12): who is refused, and when what is
 * remembered of an ended session goes. It goes by an entry, so that every replica forgets at the
 * same place of the partition's history; the entry names the place in the managers' log by which
 * the session was over, and a server that knows less than that serves no session of the partition.
 * So a retry never meets a replica that has forgotten the session and takes it for an open one. */
#include "core/replica.h"

#include "base/cleanup.h"

#define TABLES_PER_TICK 8  /* that are looked through for ended sessions */
#define ENDS_PER_TABLE  16 /* entries proposed for one of them in a tick */

void sessions_told(struct shard *s, const struct msg_sessions *m)
{
    if (live_sessions_told(&s->live, m) && (m->whole || m->n_ended > 0)) {
        s->ended_index = m->index;
    }
}

uint8_t session_refusal(const struct shard *s, const struct replica *r, uint64_t session)
{
    if (session == 0) {
        return 0;
    }
    if (session > s->live.index || r->sessions.known > s->live.index) {
        return RESULT_BUSY; /* the managers have not told yet */
    }
    return live_sessions_has(&s->live, session) ? 0 : RESULT_NO_SESSION;
}

/* Was everything that is over taken out of this table, or proposed to be? */
static bool is_looked_through(const struct shard *s, const struct replica *r)
{
    return r->state != REPLICA_PRIMARY || r->resigned || s->leaving || s->space == SPACE_FULL ||
           (r->ends_index == s->ended_index && r->ends_view == r->view);
}

/* Returns whether all that is over was proposed. */
static bool ends_propose(struct shard *s, struct replica *r)
{
    uint64_t ids[ENDS_PER_TABLE];
    size_t n;

    if (r->n_tail + ENDS_PER_TABLE > TAIL_ENTRIES_MAX || s->tail_bytes >= TAIL_BYTES_MAX) {
        return false;
    }
    n = session_table_over(&r->sessions, &s->live, r->view, ids, ENDS_PER_TABLE);
    for (size_t i = 0; i < n; i++) {
        propose_session_end(s, r, ids[i]);
    }
    return n < ENDS_PER_TABLE;
}

void sessions_tick(struct shard *s)
{
    unsigned tables = TABLES_PER_TICK;

    for (size_t i = 0; i < s->n_replicas && tables > 0; i++) {
        struct replica *r = &s->replicas[s->sessions_next % s->n_replicas];
        s->sessions_next++;
        if (is_looked_through(s, r)) {
            continue;
        }
        tables--;
        if (ends_propose(s, r)) {
            r->ends_index = s->ended_index;
            r->ends_view = r->view;
        }
    }
}
