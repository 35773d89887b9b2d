/* What a disk may hold after the power went. */
#include "disk_private.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "files.h"

#include <stdlib.h>
#include <string.h>

#define SECTOR_BYTES 512u

/* Pages that may or may not be on the disk: dirty ones, and those of a sync under way. */
static void pages_open(const struct disk *d, const struct inode *i, uint8_t *open, size_t n)
{
    for (size_t p = 0; p < n; p++) {
        open[p] = p < i->n_dirty && i->dirty[p];
    }
    for (size_t fd = 0; fd < FDS_MAX; fd++) {
        const struct buf *b = &d->syncs[fd].pages;
        if (d->open[fd] != i || !d->syncs[fd].running) {
            continue;
        }
        for (size_t at = 0; at < buf_len(b);) {
            size_t p;
            memcpy(&p, b->data + b->start + at, sizeof(p));
            at += sizeof(p) + MIN_OF((size_t) PAGE_BYTES, d->syncs[fd].bytes - p * PAGE_BYTES);
            if (p < n) {
                open[p] = 1;
            }
        }
    }
}

static size_t size_after(const struct inode *i, struct rng *rng, enum disk_loss loss)
{
    size_t cached = buf_len(&i->cache);
    size_t durable = i->durable_bytes;

    if (loss == DISK_LOSS_RANDOM && rng_chance(rng, 1, 3)) {
        return rng_between(rng, MIN_OF(cached, durable), MAX_OF(cached, durable));
    }
    if (loss == DISK_LOSS_RANDOM) {
        return rng_chance(rng, 1, 2) ? cached : durable;
    }
    return loss == DISK_LOSS_ALL ? durable : cached;
}

/* Copies what there is of [at, at + bytes) of the source; the rest stays zero. */
static void take(struct buf *out, const struct buf *from, size_t at, size_t bytes)
{
    size_t have = from->end - from->start;

    if (at < have) {
        memcpy(out->data + at, from->data + from->start + at, MIN_OF(bytes, have - at));
    }
}

static void content_after(const struct disk *d, const struct inode *i, struct rng *rng,
                          enum disk_loss loss, struct buf *out)
{
    size_t bytes = size_after(i, rng, loss);
    size_t pages = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    _cleanup_free_ uint8_t *open = mem_zalloc(pages, 1);

    pages_open(d, i, open, pages);
    disk_buf_resize(out, bytes);
    for (size_t p = 0; p < pages; p++) {
        bool keep = loss == DISK_LOSS_NONE || rng_chance(rng, 1, 2);
        bool torn = loss == DISK_LOSS_RANDOM && rng_chance(rng, 1, 4);
        for (size_t at = p * PAGE_BYTES; at < MIN_OF(bytes, (p + 1) * PAGE_BYTES);
             at += SECTOR_BYTES) {
            bool cached = open[p] && loss != DISK_LOSS_ALL && (torn ? rng_chance(rng, 1, 2) : keep);
            take(out, cached ? &i->cache : &i->durable, at,
                 MIN_OF((size_t) SECTOR_BYTES, bytes - at));
        }
    }
}

static void names_after(const struct disk *d, struct rng *rng, enum disk_loss loss,
                        struct names *out)
{
    for (size_t i = 0; i < d->durable.n; i++) {
        disk_names_put(out, d->durable.v[i].path, d->durable.v[i].inode);
    }
    for (size_t i = 0; i < d->n_changes; i++) {
        if (loss == DISK_LOSS_NONE || (loss == DISK_LOSS_RANDOM && rng_chance(rng, 1, 2))) {
            disk_names_change(out, &d->changes[i]);
        }
    }
}

void disk_image(const struct disk *d, struct rng *rng, enum disk_loss loss, const char *dir)
{
    struct names names = { 0 };

    names_after(d, rng, loss, &names);
    files_make_folder(dir, "");
    for (size_t i = 0; i < names.n; i++) {
        if (names.v[i].inode->is_folder) {
            files_make_folder(dir, names.v[i].path);
        }
    }
    for (size_t i = 0; i < names.n; i++) {
        const struct name *n = &names.v[i];
        _cleanup_(buf_free) struct buf bytes = { 0 };
        if (n->inode->is_folder || (strchr(n->path, '/') && !files_has_folder(dir, n->path))) {
            continue; /* with its folder the file is gone */
        }
        content_after(d, n->inode, rng, loss, &bytes);
        files_write(dir, n->path, bytes.data, buf_len(&bytes));
    }
    free(names.v);
}

uint64_t disk_log_durable(const struct disk *d)
{
    uint64_t oldest = UINT64_MAX;

    for (size_t i = 0; i < d->cached.n; i++) {
        if (disk_is_in(d->cached.v[i].path, "log")) {
            oldest = MIN_OF(oldest, d->cached.v[i].inode->oldest);
        }
    }
    for (size_t fd = 0; fd < FDS_MAX; fd++) {
        if (d->syncs[fd].running && d->open[fd] && disk_is_in(d->paths[fd], "log")) {
            oldest = MIN_OF(oldest, d->syncs[fd].oldest);
        }
    }
    for (size_t i = 0; i < d->n_changes; i++) {
        if (d->changes[i].to[0] && disk_is_in(d->changes[i].to, "log")) {
            oldest = MIN_OF(oldest, d->changes[i].position);
        }
    }
    return oldest;
}
