/* A simulated disk: files made of sectors, a page cache above them, and a folder. */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <stdlib.h>

static struct file *file_find(const struct disk *d, uint32_t number)
{
    for (size_t i = d->n; i-- > 0;) {
        if (d->files[i]->number == number) {
            return d->files[i];
        }
    }
    return NULL;
}

void disk_create(struct disk *d, uint32_t number, uint32_t shard, const uint8_t *p, size_t bytes)
{
    struct file *f = mem_zalloc(1, sizeof(*f));
    size_t i;

    kumo_assert(!file_find(d, number));
    f->number = number;
    f->shard = shard;
    f->exists = true;
    buf_append(&f->cache, p, bytes);
    mem_grow(&d->files, &d->cap, d->n + 1, sizeof(struct file *));
    for (i = d->n++; i > 0 && d->files[i - 1]->number > number; i--) {
        d->files[i] = d->files[i - 1];
    }
    d->files[i] = f;
}

void disk_write(struct disk *d, struct position at, const uint8_t *p, size_t bytes)
{
    struct file *f = file_find(d, at.segment);

    kumo_assert(f && f->exists);
    kumo_assert(at.offset == buf_len(&f->cache)); /* logs only append */
    buf_append(&f->cache, p, bytes);
}

const uint8_t *disk_read(const struct disk *d, struct position at, size_t bytes)
{
    struct file *f = file_find(d, at.segment);

    if (!f || !f->exists || at.offset + bytes > buf_len(&f->cache)) {
        return NULL;
    }
    return buf_head(&f->cache) + at.offset;
}

const uint8_t *disk_read_durable(const struct disk *d, struct position at, size_t bytes)
{
    struct file *f = file_find(d, at.segment);

    if (!f || !f->entry_durable || at.offset + bytes > buf_len(&f->durable)) {
        return NULL;
    }
    return buf_head(&f->durable) + at.offset;
}

void disk_cut(struct disk *d, uint32_t number, size_t bytes)
{
    struct file *f = file_find(d, number);

    kumo_assert(f && bytes <= buf_len(&f->cache));
    f->cache.end = f->cache.start + bytes;
}

void disk_remove(struct disk *d, uint32_t number)
{
    struct file *f = file_find(d, number);

    kumo_assert(f && f->exists);
    f->exists = false;
}

static void file_free(struct file *f)
{
    buf_free(&f->cache);
    buf_free(&f->durable);
    free(f);
}

void disk_sync_begin(struct disk *d, uint32_t shard)
{
    for (size_t i = 0; i < d->n; i++) {
        struct file *f = d->files[i];
        f->syncing = f->syncing || f->shard == shard;
        if (f->shard == shard) {
            f->sync_bytes = buf_len(&f->cache);
        }
    }
}

/* Files only grow between starts: what is new is behind what is durable. */
static void file_sync(struct file *f, size_t bytes)
{
    size_t have = buf_len(&f->durable);

    if (bytes > have) {
        buf_append(&f->durable, buf_head(&f->cache) + have, bytes - have);
    }
}

void disk_sync_end(struct disk *d, uint32_t shard, bool folder)
{
    for (size_t i = 0; i < d->n; i++) {
        struct file *f = d->files[i];
        if (f->syncing && f->shard == shard) {
            file_sync(f, f->sync_bytes);
            f->entry_durable = f->entry_durable || folder;
            f->syncing = false;
        }
    }
}

/* Forgets files that are gone in every view. */
static void disk_compact(struct disk *d)
{
    size_t kept = 0;

    for (size_t i = 0; i < d->n; i++) {
        if (d->files[i]->exists) {
            d->files[kept++] = d->files[i];
        } else {
            file_free(d->files[i]);
        }
    }
    d->n = kept;
}

void disk_sync_all(struct disk *d)
{
    for (size_t i = 0; i < d->n; i++) {
        struct file *f = d->files[i];
        f->syncing = false;
        f->entry_durable = f->exists;
        f->durable.end = MIN_OF(f->durable.end, f->durable.start + buf_len(&f->cache));
        file_sync(f, buf_len(&f->cache));
    }
    disk_compact(d);
}

void disk_sync_folder(struct disk *d)
{
    for (size_t i = 0; i < d->n; i++) {
        d->files[i]->entry_durable = d->files[i]->exists;
        d->files[i]->old_number = 0;
    }
    disk_compact(d);
}

void disk_rename(struct disk *d, uint32_t number, uint32_t to)
{
    struct file *f = file_find(d, number);

    kumo_assert(f && f->exists && f->old_number == 0 && !file_find(d, to));
    f->old_number = number;
    f->number = to;
}

const uint8_t *disk_file(const struct disk *d, uint32_t number, size_t *ret_bytes)
{
    struct file *f = file_find(d, number);

    if (!f || !f->exists) {
        return NULL;
    }
    *ret_bytes = buf_len(&f->cache);
    return buf_head(&f->cache);
}

void disk_flip(struct disk *d, uint32_t number, struct rng *rng)
{
    struct file *f = file_find(d, number);
    size_t at;
    uint8_t bit;

    kumo_assert(f && buf_len(&f->cache) > 0);
    at = rng_below(rng, buf_len(&f->cache));
    bit = (uint8_t) (1u << rng_below(rng, 8));
    buf_head(&f->cache)[at] ^= bit;
    if (at < buf_len(&f->durable)) {
        buf_head(&f->durable)[at] ^= bit;
    }
}

void disk_lose(struct disk *d, uint32_t number)
{
    struct file *f = file_find(d, number);

    kumo_assert(f);
    f->exists = f->entry_durable = false;
}

/* ---- power loss ---- */

enum loss { LOSS_ALL, LOSS_NOTHING, LOSS_SECTORS, LOSS_END, _LOSS_MAX };

/* What one sector holds afterwards: what was synced, what was not, or zeros where neither was. */
static void sector_lose(const struct file *f, struct buf *out, size_t at, size_t bytes, bool keep)
{
    const struct buf *a = keep ? &f->cache : &f->durable;
    size_t have = a->end - a->start;
    uint8_t *p = buf_reserve(out, bytes);

    memset(p, 0, bytes);
    if (at < have) {
        memcpy(p, a->data + a->start + at, MIN_OF(bytes, have - at));
    }
    out->end += bytes;
}

/* The size and the sectors go to the disk in any order. */
static void file_lose(struct file *f, struct rng *rng, enum loss loss)
{
    size_t new_bytes = buf_len(&f->cache);
    size_t old_bytes = buf_len(&f->durable);
    size_t bytes = new_bytes;
    struct buf out = { 0 };

    if (loss == LOSS_ALL || (loss == LOSS_SECTORS && rng_chance(rng, 1, 4))) {
        bytes = old_bytes;
    } else if (loss == LOSS_END) {
        bytes = rng_between(rng, MIN_OF(old_bytes, new_bytes), MAX_OF(old_bytes, new_bytes));
    }
    for (size_t at = 0; at < bytes; at += SECTOR_BYTES) {
        bool keep = loss == LOSS_NOTHING || loss == LOSS_END ||
                    (loss == LOSS_SECTORS && rng_chance(rng, 1, 2));
        /* a cut file may show again what it had before */
        keep = keep && !(at >= new_bytes && at < old_bytes);
        sector_lose(f, &out, at, MIN_OF((size_t) SECTOR_BYTES, bytes - at), keep);
    }
    buf_free(&f->cache);
    buf_free(&f->durable);
    f->cache = out;
    buf_append(&f->durable, buf_head(&f->cache), buf_len(&f->cache));
}

static void rename_lose(struct file *f, struct rng *rng, enum loss loss)
{
    if (f->old_number == 0) {
        return;
    }
    if (loss == LOSS_ALL || (loss != LOSS_NOTHING && rng_chance(rng, 1, 2))) {
        f->number = f->old_number;
    }
    f->old_number = 0;
}

bool disk_power_loss(struct disk *d, struct rng *rng)
{
    enum loss loss = (enum loss) rng_below(rng, _LOSS_MAX);
    bool any = false;

    for (size_t i = 0; i < d->n; i++) {
        struct file *f = d->files[i];
        f->syncing = false;
        any = any || f->old_number != 0 || f->exists != f->entry_durable ||
              buf_len(&f->cache) != buf_len(&f->durable);
        if (f->exists != f->entry_durable) {
            f->exists = loss == LOSS_NOTHING ? f->exists
                        : loss == LOSS_ALL   ? f->entry_durable
                                             : rng_chance(rng, 1, 2);
        }
        f->entry_durable = f->exists;
        rename_lose(f, rng, loss);
        file_lose(f, rng, loss);
    }
    disk_compact(d);
    return any;
}

void disk_free(struct disk *d)
{
    for (size_t i = 0; i < d->n; i++) {
        file_free(d->files[i]);
    }
    free(d->files);
    *d = (struct disk){ 0 };
}
