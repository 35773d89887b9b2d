/* The rows of the hash space that the manager tells this server: to the shards they go, and here is
 * kept which partitions it holds, and whether others hold them too. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "server_private.h"

#include <stdlib.h>
#include <string.h>

static bool row_is_member(const struct view_row *row, uint32_t server)
{
    for (uint32_t i = 0; i < row->n_members; i++) {
        if (row->members[i] == server) {
            return true;
        }
    }
    return false;
}

static void held_count(struct held *h)
{
    h->members = 0;
    h->shared = 0;
    for (uint32_t p = 0; p < PARTITIONS_MAX; p++) {
        h->members += h->replicas[p] > 0;
        h->shared += h->replicas[p] > 1;
    }
}

/* Before this server acts in a view of itself alone it notes that its copy is the only one (R15:
 * such a copy is never set aside). */
static void copies_note(struct server *s)
{
    struct superblock b = s->superblock;

    b.copies = s->held.shared == s->held.members ? COPIES_ELSEWHERE : COPIES_ONLY_HERE;
    if (b.copies != s->superblock.copies && identity_write(s, &b) < 0) {
        server_fail(s, "the superblock can't be written: what this server holds may be the only "
                       "copy, and the next start must know");
    }
}

/* Rows of each shard in one post. */
static void distribute(struct server *s, const struct view_row *rows, size_t n, bool floor)
{
    _cleanup_free_ struct view_row *mine = mem_alloc(n * sizeof(*mine));

    for (uint32_t shard = 0; shard < s->n_shards; shard++) {
        size_t k = 0;
        for (size_t i = 0; i < n; i++) {
            if (rows[i].partition % s->n_shards == shard) {
                mine[k++] = rows[i];
            }
        }
        if (k > 0 && shard_thread_rows(s->shards[shard], mine, k, floor) < 0) {
            server_fail(s, "a shard's mailbox is full");
        }
    }
}

void rows_take(struct server *s, const struct view_row *rows, size_t n, enum rows_kind kind)
{
    if (kind != ROWS_CHANGED) {
        memset(s->held.replicas, 0, sizeof(s->held.replicas));
    }
    for (size_t i = 0; i < n; i++) {
        s->held.replicas[rows[i].partition] =
            row_is_member(&rows[i], s->superblock.server) ? rows[i].n_members : 0;
    }
    held_count(&s->held);
    copies_note(s);
    distribute(s, rows, n, kind == ROWS_FIRST);
}

struct view_row *rows_read(struct mp_reader *r, size_t *ret_n)
{
    uint32_t n = mp_get_array(r);
    struct view_row *rows;

    if (n > PARTITIONS_MAX || r->failed) {
        return NULL;
    }
    rows = mem_alloc(n * sizeof(*rows));
    for (uint32_t i = 0; i < n; i++) {
        msg_get_view_row(r, &rows[i]);
    }
    if (r->failed) {
        free(rows);
        return NULL;
    }
    *ret_n = n;
    return rows;
}
