#include "core/live_sessions.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <string.h>

/* Place of the first id that is not below this one. */
static size_t place_of(const struct live_sessions *l, uint64_t id)
{
    size_t low = 0;
    size_t high = l->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool live_sessions_has(const struct live_sessions *l, uint64_t id)
{
    size_t i = place_of(l, id);

    return i < l->n && l->ids[i] == id;
}

static void add(struct live_sessions *l, uint64_t id)
{
    size_t i = place_of(l, id);

    if (i < l->n && l->ids[i] == id) {
        return;
    }
    mem_grow(&l->ids, &l->cap, l->n + 1, sizeof(*l->ids));
    memmove(&l->ids[i + 1], &l->ids[i], (l->n - i) * sizeof(*l->ids));
    l->ids[i] = id;
    l->n++;
}

static bool drop(struct live_sessions *l, uint64_t id)
{
    size_t i = place_of(l, id);

    if (i == l->n || l->ids[i] != id) {
        return false;
    }
    l->n--;
    memmove(&l->ids[i], &l->ids[i + 1], (l->n - i) * sizeof(*l->ids));
    return true;
}

int live_sessions_open(struct live_sessions *l, uint64_t id)
{
    if (l->n >= SESSIONS_MAX) {
        return -ENOSPC;
    }
    add(l, id);
    l->index = MAX_OF(l->index, id);
    return 0;
}

bool live_sessions_end(struct live_sessions *l, uint64_t id, uint64_t index)
{
    l->index = MAX_OF(l->index, index);
    return drop(l, id);
}

struct msg_sessions live_sessions_whole(const struct live_sessions *l)
{
    return (struct msg_sessions){
        .index = l->index, .whole = true, .n_opened = (uint32_t) l->n, .ids = l->ids
    };
}

bool live_sessions_told(struct live_sessions *l, const struct msg_sessions *m)
{
    kumo_assert(m->n_opened <= SESSIONS_MAX);
    if (m->index <= l->index) {
        return false;
    }
    if (m->whole) {
        l->n = 0;
    }
    for (uint32_t i = 0; i < m->n_opened; i++) {
        add(l, m->ids[i]);
    }
    for (uint32_t i = 0; i < m->n_ended; i++) {
        drop(l, m->ids[m->n_opened + i]);
    }
    l->index = m->index;
    return true;
}

void live_sessions_free(struct live_sessions *l)
{
    free(l->ids);
    *l = (struct live_sessions){ 0 };
}
