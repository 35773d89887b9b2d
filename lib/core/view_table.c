/* The view table of a copy: which view each seq was given in, as far back as is remembered. It is
 * made from the entries themselves, and says whether two copies share a history up to a name
 * (R17). */
#include "base/mem.h"
#include "core/replica.h"

#include <stdlib.h>
#include <string.h>

void view_runs_add(struct replica *r, struct name name)
{
    if (r->n_runs > 0 && r->runs[r->n_runs - 1].view == name.view) {
        return;
    }
    if (r->n_runs == VIEW_RUNS_MAX) { /* the older half is forgotten */
        r->n_runs = VIEW_RUNS_MAX / 2;
        memmove(r->runs, r->runs + VIEW_RUNS_MAX / 2, r->n_runs * sizeof(*r->runs));
    }
    mem_grow(&r->runs, &r->cap_runs, r->n_runs + 1, sizeof(*r->runs));
    r->runs[r->n_runs++] = (struct view_run){ name.view, name.seq };
}

void view_runs_cut(struct replica *r, uint64_t seq)
{
    while (r->n_runs > 0 && r->runs[r->n_runs - 1].first > seq) {
        r->n_runs--;
    }
}

void view_runs_set(struct replica *r, const struct view_run *runs, uint32_t n)
{
    mem_grow(&r->runs, &r->cap_runs, n, sizeof(*r->runs));
    if (n > 0) {
        memcpy(r->runs, runs, n * sizeof(*runs));
    }
    r->n_runs = n;
}

bool view_runs_agree(const struct replica *r, struct name name)
{
    size_t i = r->n_runs;

    while (i > 0 && r->runs[i - 1].first > name.seq) {
        i--;
    }
    return name.seq == 0 ||
           (i > 0 && name.seq <= r->commit.seq && r->runs[i - 1].view == name.view);
}

void view_runs_put(struct buf *b, const struct replica *r)
{
    mp_put_array(b, (uint32_t) r->n_runs * 2);
    for (size_t i = 0; i < r->n_runs; i++) {
        mp_put_uint(b, r->runs[i].view);
        mp_put_uint(b, r->runs[i].first);
    }
}

uint32_t view_runs_get(struct mp_reader *in, struct view_run runs[VIEW_RUNS_MAX])
{
    uint32_t n = mp_get_array(in);

    if (n % 2 != 0 || n / 2 > VIEW_RUNS_MAX) {
        in->failed = true;
        return 0;
    }
    for (uint32_t i = 0; i < n / 2 && !in->failed; i++) {
        runs[i].view = (uint32_t) mp_get_uint_max(in, UINT32_MAX);
        runs[i].first = mp_get_uint(in);
        in->failed =
            in->failed || runs[i].first == 0 ||
            (i > 0 && (runs[i].view <= runs[i - 1].view || runs[i].first <= runs[i - 1].first));
    }
    return n / 2;
}
