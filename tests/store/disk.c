#include "disk_private.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static struct inode *names_get(const struct names *s, const char *path)
{
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->v[i].path, path) == 0) {
            return s->v[i].inode;
        }
    }
    return NULL;
}

static void names_remove(struct names *s, const char *path)
{
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->v[i].path, path) == 0) {
            s->v[i] = s->v[--s->n];
            return;
        }
    }
}

void disk_names_put(struct names *s, const char *path, struct inode *inode)
{
    struct name *n;

    names_remove(s, path);
    mem_grow(&s->v, &s->cap, s->n + 1, sizeof(*s->v));
    n = &s->v[s->n++];
    snprintf(n->path, sizeof(n->path), "%s", path);
    n->inode = inode;
}

void disk_names_change(struct names *s, const struct change *c)
{
    if (c->from[0]) {
        names_remove(s, c->from);
    }
    if (c->to[0]) {
        disk_names_put(s, c->to, c->inode);
    }
    if (c->swapped) {
        disk_names_put(s, c->from, c->swapped);
    }
}

bool disk_is_in(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    return n == 0 ? !strchr(path, '/') : strncmp(path, folder, n) == 0 && path[n] == '/';
}

static const char *change_path(const struct change *c)
{
    return c->to[0] ? c->to : c->from;
}

static void change(struct disk *d, const struct change *what)
{
    mem_grow(&d->changes, &d->cap_changes, d->n_changes + 1, sizeof(*d->changes));
    d->changes[d->n_changes] = *what;
    d->changes[d->n_changes].age = d->age;
    disk_names_change(&d->cached, &d->changes[d->n_changes++]);
}

static void name_comes(struct disk *d, uint64_t position, const char *path, struct inode *inode)
{
    struct change c = { .position = position, .inode = inode };

    snprintf(c.to, sizeof(c.to), "%s", path);
    change(d, &c);
}

static void name_goes(struct disk *d, uint64_t position, const char *path)
{
    struct change c = { .position = position };

    snprintf(c.from, sizeof(c.from), "%s", path);
    change(d, &c);
}

static void name_changes(struct disk *d, uint64_t position, const char *from, const char *to,
                         bool swaps)
{
    struct change c = { .position = position,
                        .inode = names_get(&d->cached, from),
                        .swapped = swaps ? names_get(&d->cached, to) : NULL };

    snprintf(c.from, sizeof(c.from), "%s", from);
    snprintf(c.to, sizeof(c.to), "%s", to);
    change(d, &c);
}

/* The folder is synced: changes in it from before that are durable. */
static void changes_settle(struct disk *d, const char *folder, uint64_t begun)
{
    size_t kept = 0;

    for (size_t i = 0; i < d->n_changes; i++) {
        struct change *c = &d->changes[i];
        if (c->age < begun && disk_is_in(change_path(c), folder)) {
            disk_names_change(&d->durable, c);
        } else {
            d->changes[kept++] = *c;
        }
    }
    d->n_changes = kept;
}

/* ---- contents ---- */

static struct inode *inode_new(struct disk *d, bool is_folder)
{
    struct inode *i = mem_zalloc(1, sizeof(*i));

    i->is_folder = is_folder;
    i->oldest = UINT64_MAX;
    mem_grow(&d->inodes, &d->cap_inodes, d->n_inodes + 1, sizeof(struct inode *));
    d->inodes[d->n_inodes++] = i;
    return i;
}

void disk_buf_resize(struct buf *b, size_t bytes)
{
    size_t have = buf_len(b);

    if (bytes > have) {
        memset(buf_reserve(b, bytes - have), 0, bytes - have);
    }
    b->end = b->start + bytes;
}

static void dirty(struct inode *i, size_t begin, size_t end, uint64_t position)
{
    size_t pages = (end + PAGE_BYTES - 1) / PAGE_BYTES;

    if (pages > i->n_dirty) {
        i->dirty = mem_realloc(i->dirty, 2 * pages);
        memset(i->dirty + i->n_dirty, 0, 2 * pages - i->n_dirty);
        i->n_dirty = 2 * pages;
    }
    for (size_t p = begin / PAGE_BYTES; p < pages; p++) {
        i->dirty[p] = 1;
    }
    i->oldest = MIN_OF(i->oldest, position);
}

static void content_write(struct inode *i, const struct record *r, uint64_t position)
{
    size_t end = (size_t) r->at + r->bytes;

    if (end > buf_len(&i->cache)) {
        disk_buf_resize(&i->cache, end);
    }
    memcpy(buf_head(&i->cache) + r->at, r->payload, r->bytes);
    dirty(i, (size_t) r->at, end, position);
}

static void content_cut(struct inode *i, size_t bytes, uint64_t position)
{
    disk_buf_resize(&i->cache, bytes);
    i->oldest = MIN_OF(i->oldest, position);
}

/* ---- syncs ---- */

static void sync_begin(struct disk *d, const struct record *r)
{
    struct inode *i = d->open[r->fd];
    struct sync *s = &d->syncs[r->fd];
    size_t bytes = buf_len(&i->cache);

    kumo_assert(!s->running);
    s->running = true;
    s->begun = d->age;
    s->oldest = i->oldest;
    s->bytes = bytes;
    i->oldest = i->lost ? i->oldest : UINT64_MAX;
    for (size_t p = 0; p < i->n_dirty && p * PAGE_BYTES < bytes; p++) {
        if (i->dirty[p]) {
            i->dirty[p] = 0;
            buf_append(&s->pages, &p, sizeof(p));
            buf_append(&s->pages, buf_head(&i->cache) + p * PAGE_BYTES,
                       MIN_OF((size_t) PAGE_BYTES, bytes - p * PAGE_BYTES));
        }
    }
}

static void sync_settle(struct inode *i, struct sync *s)
{
    i->durable_bytes = s->bytes;
    disk_buf_resize(&i->durable, s->bytes);
    while (buf_len(&s->pages) > 0) {
        size_t p;
        size_t n;
        memcpy(&p, buf_head(&s->pages), sizeof(p));
        n = MIN_OF((size_t) PAGE_BYTES, s->bytes - p * PAGE_BYTES);
        memcpy(buf_head(&i->durable) + p * PAGE_BYTES, buf_head(&s->pages) + sizeof(p), n);
        buf_consume(&s->pages, sizeof(p) + n);
    }
}

/* A sync that didn't happen: what it took is dirty again. */
static void sync_undo(struct inode *i, struct sync *s)
{
    s->running = false;
    i->oldest = MIN_OF(i->oldest, s->oldest);
    while (buf_len(&s->pages) > 0) {
        size_t p;
        memcpy(&p, buf_head(&s->pages), sizeof(p));
        i->dirty[p] = 1;
        buf_consume(&s->pages, sizeof(p) + MIN_OF((size_t) PAGE_BYTES, s->bytes - p * PAGE_BYTES));
    }
}

static bool lies(struct disk *d, const char *path, const struct inode *i)
{
    bool about = (d->lie == DISK_LIES_ABOUT_LOGS && disk_is_in(path, "log")) ||
                 (d->lie == DISK_LIES_ABOUT_FOLDERS && i->is_folder);

    return about && ++d->lies % 2 == 0;
}

static void sync_end(struct disk *d, const struct record *r)
{
    struct inode *i = d->open[r->fd];
    struct sync *s = &d->syncs[r->fd];
    const char *path = d->paths[r->fd];

    kumo_assert(s->running);
    s->running = false;
    if (r->flag) {
        i->lost = i->lost || s->oldest != UINT64_MAX;
        i->oldest = MIN_OF(i->oldest, s->oldest);
    } else if (lies(d, path, i)) {
        sync_undo(i, s); /* the next one will do it */
    } else if (i->is_folder) {
        changes_settle(d, path, s->begun);
    } else {
        sync_settle(i, s);
    }
    buf_clear(&s->pages);
}

/* ---- what happened ---- */

static void on_open(struct disk *d, const struct record *r, uint64_t position)
{
    const char *path = (const char *) r->payload;
    struct inode *i = names_get(&d->cached, path);

    kumo_assert(r->fd < FDS_MAX && r->bytes <= DISK_PATH_BYTES);
    if (!i) {
        i = inode_new(d, false);
        name_comes(d, position, path, i);
    } else if (r->flag && buf_len(&i->cache) > 0) {
        content_cut(i, 0, position);
    }
    d->open[r->fd] = i;
    memcpy(d->paths[r->fd], path, r->bytes);
}

static void on_life(struct disk *d)
{
    for (size_t fd = 0; fd < FDS_MAX; fd++) {
        if (d->syncs[fd].running) {
            sync_undo(d->open[fd], &d->syncs[fd]);
        }
        d->open[fd] = NULL;
    }
}

void disk_apply(struct disk *d, const struct record *r, uint64_t position)
{
    const char *path = (const char *) r->payload;

    d->age++;
    switch ((enum record_kind) r->kind) {
    case RECORD_LIFE:
        on_life(d);
        return;
    case RECORD_MKDIR:
        name_comes(d, position, path, inode_new(d, true));
        return;
    case RECORD_OPEN:
        on_open(d, r, position);
        return;
    case RECORD_CLOSE:
        d->open[r->fd] = NULL;
        return;
    case RECORD_WRITE:
        content_write(d->open[r->fd], r, position);
        return;
    case RECORD_TRUNCATE:
        content_cut(r->fd >= 0 ? d->open[r->fd] : names_get(&d->cached, path), (size_t) r->at,
                    position);
        return;
    case RECORD_SYNC_BEGIN:
        sync_begin(d, r);
        return;
    case RECORD_SYNC_END:
        sync_end(d, r);
        return;
    case RECORD_RENAME:
        name_changes(d, position, path, path + strlen(path) + 1, r->flag);
        return;
    case RECORD_UNLINK:
        name_goes(d, position, path);
        return;
    default:
        return;
    }
}

/* ---- the real folder ---- */

static void on_file(void *ctx, const char *path, bool is_folder, const uint8_t *p, size_t bytes)
{
    struct disk *d = ctx;
    struct inode *i;

    if (!files_is_data(path)) {
        return;
    }
    i = inode_new(d, is_folder);
    buf_append(&i->cache, p, bytes);
    buf_append(&i->durable, p, bytes);
    i->durable_bytes = bytes;
    disk_names_put(&d->cached, path, i);
    disk_names_put(&d->durable, path, i);
}

struct disk *disk_new(const char *dir, enum disk_lie lie)
{
    struct disk *d = mem_zalloc(1, sizeof(*d));

    d->lie = lie;
    on_file(d, "", true, NULL, 0);
    files_walk(dir, on_file, d);
    return d;
}

struct comparison {
    const struct disk *disk;
    char *differs;
    size_t n;
};

static void compare_file(void *ctx, const char *path, bool is_folder, const uint8_t *p,
                         size_t bytes)
{
    struct comparison *c = ctx;
    const struct inode *i = names_get(&c->disk->cached, path);

    if (!files_is_data(path)) {
        return;
    }
    c->n++;
    if (!i || i->is_folder != is_folder || buf_len(&i->cache) != bytes ||
        (bytes > 0 && memcmp(i->cache.data + i->cache.start, p, bytes) != 0)) {
        snprintf(c->differs, DISK_PATH_BYTES, "%s", path);
    }
}

bool disk_equals(const struct disk *d, const char *dir, char differs[static DISK_PATH_BYTES])
{
    struct comparison c = { .disk = d, .differs = differs };

    differs[0] = '\0';
    files_walk(dir, compare_file, &c);
    if (!differs[0] && c.n + 1 != d->cached.n) { /* the folder itself is a name, too */
        snprintf(differs, DISK_PATH_BYTES, "a file that is gone");
    }
    return !differs[0];
}

struct disk *disk_free(struct disk *d)
{
    if (!d) {
        return NULL;
    }
    for (size_t i = 0; i < d->n_inodes; i++) {
        buf_free(&d->inodes[i]->cache);
        buf_free(&d->inodes[i]->durable);
        free(d->inodes[i]->dirty);
        free(d->inodes[i]);
    }
    for (size_t fd = 0; fd < FDS_MAX; fd++) {
        buf_free(&d->syncs[fd].pages);
    }
    free(d->inodes);
    free(d->cached.v);
    free(d->durable.v);
    free(d->changes);
    free(d);
    return NULL;
}
