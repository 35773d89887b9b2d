/* Logs of a test: what wal_flush emits, kept as images of segment files, with the place up to which
 * each flush was synced, so that any crash can be made from them. */
#pragma once

#include "base/cleanup.h"
#include "core/wal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LOG_FILES_MAX  64
#define LOG_FRAMES_MAX 4096

struct log_file {
    uint32_t number;
    struct buf data;
};

struct log_frame {
    uint64_t tag; /* which frame it is: the test's number */
    struct position at;
    uint64_t group;
};

struct log_image {
    struct log_file files[LOG_FILES_MAX]; /* by number */
    size_t n_files;
    uint64_t syncs;
};

static inline void image_free(struct log_image *g)
{
    for (size_t i = 0; i < g->n_files; i++) {
        buf_free(&g->files[i].data);
    }
    *g = (struct log_image){ 0 };
}

static inline struct log_file *image_file(struct log_image *g, uint32_t number)
{
    for (size_t i = 0; i < g->n_files; i++) {
        if (g->files[i].number == number) {
            return &g->files[i];
        }
    }
    return NULL;
}

static inline struct log_file *image_create(struct log_image *g, uint32_t number)
{
    size_t i = g->n_files;

    assert_null(image_file(g, number));
    g->n_files++;
    assert_true(g->n_files < LOG_FILES_MAX);
    for (; i > 0 && g->files[i - 1].number > number; i--) {
        g->files[i] = g->files[i - 1];
    }
    g->files[i] = (struct log_file){ .number = number };
    return &g->files[i];
}

static inline void image_remove(struct log_image *g, uint32_t number)
{
    struct log_file *f = image_file(g, number);

    buf_free(&f->data);
    g->n_files--;
    memmove(f, f + 1, (size_t) (&g->files[g->n_files] - f) * sizeof(*f));
}

static inline struct log_image image_copy(const struct log_image *g)
{
    struct log_image c = *g;

    for (size_t i = 0; i < g->n_files; i++) {
        c.files[i].data = (struct buf){ 0 };
        buf_append(&c.files[i].data, g->files[i].data.data, buf_len(&g->files[i].data));
    }
    return c;
}

/* Flushes the log into the image. Returns the group that was flushed, 0: nothing to flush. */
static inline uint64_t image_flush(struct log_image *g, struct wal *l)
{
    struct actions out = { 0 };
    uint64_t group = 0;

    wal_flush(l, &out);
    for (size_t i = 0; i < out.n; i++) {
        const struct action *a = &out.v[i];
        struct log_file *f = image_file(g, a->file.at.segment);
        if (a->kind == ACTION_SYNC) {
            assert_int_equal(i, out.n - 1);
            group = a->group;
            continue;
        }
        if (a->kind == ACTION_CREATE) {
            f = image_create(g, a->file.at.segment);
        }
        assert_int_equal(a->file.at.offset, buf_len(&f->data));
        assert_true(a->file.bytes > 0);
        buf_append(&f->data, a->file.data, a->file.bytes);
    }
    assert_int_equal(group > 0, out.n > 0);
    wal_flushed(l);
    actions_free(&out);
    return group;
}

/* ---- frames that bear a number ---- */

/* Appends frame `tag` with a payload of at least 8 bytes. */
static inline struct position log_append(struct wal *l, uint64_t tag, size_t bytes)
{
    _cleanup_free_ uint8_t *payload = malloc(bytes);

    assert_true(bytes >= 8);
    memset(payload, (int) tag, bytes);
    memcpy(payload, &tag, 8);
    return wal_append(l, FRAME_HORIZON, (uint16_t) (tag % 64), (uint32_t) tag, payload, bytes);
}

struct log_walk {
    struct log_frame frames[LOG_FRAMES_MAX];
    size_t n;
};

static inline int log_walk_frame(void *ctx, const struct frame *f, struct position at)
{
    struct log_walk *w = ctx;
    uint64_t tag;

    memcpy(&tag, f->payload, 8);
    assert_int_equal(f->view, (uint32_t) tag);
    assert_int_equal(f->partition, tag % 64);
    assert_int_equal(f->kind, FRAME_HORIZON);
    for (uint32_t i = 8; i < f->payload_bytes; i++) {
        assert_int_equal(f->payload[i], (uint8_t) tag);
    }
    assert_true(w->n < LOG_FRAMES_MAX);
    w->frames[w->n++] = (struct log_frame){ .tag = tag, .at = at };
    return 0;
}

/* wal_check, which looks through a segment in one go, and once more in small steps: both find the
 * same. */
static inline int image_check(struct wal_segment *s, size_t n, struct wal_damage *damage)
{
    struct wal_segment whole[LOG_FILES_MAX];
    int r = wal_check(s, n, NULL, damage);

    memcpy(whole, s, n * sizeof(*s));
    if (wal_check_begin(s, n, NULL, damage) < 0) {
        assert_true(r < 0);
        return r;
    }
    for (size_t i = 0; i < n; i++) {
        size_t before;
        do {
            before = s[i].looked_bytes;
        } while (wal_check_step(&s[i], 1 + i % 3 * 40) && s[i].looked_bytes > before);
        assert_int_equal(s[i].looked_bytes, s[i].bytes);
    }
    assert_int_equal(wal_check_end(s, n, NULL, damage), r);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(s[i].good_bytes, whole[i].good_bytes);
        assert_int_equal(s[i].synced_bytes, whole[i].synced_bytes);
    }
    return r;
}

/* Checks an image and walks it; cuts it as a start would, and then it must be whole. Returns
 * wal_check's answer. */
static inline int image_read(struct log_image *g, struct log_walk *w, struct wal_damage *damage)
{
    struct wal_segment s[LOG_FILES_MAX] = { 0 };
    size_t n = g->n_files;
    int r;

    w->n = 0;
    for (size_t i = 0; i < n; i++) {
        s[i].number = g->files[i].number;
        s[i].data = g->files[i].data.data;
        s[i].bytes = buf_len(&g->files[i].data);
    }
    r = image_check(s, n, damage);
    for (size_t i = 0; r == 0 && i < n; i++) {
        assert_true(s[i].good_bytes <= s[i].bytes);
        assert_int_equal(wal_walk(&s[i], log_walk_frame, w), 0);
        if (s[i].good_bytes == 0) {
            image_remove(g, s[i].number);
        } else {
            image_file(g, s[i].number)->data.end = s[i].good_bytes;
        }
    }
    return r;
}

static inline struct wal_options log_options(uint64_t start, uint32_t first, uint32_t shard,
                                             uint32_t shards, uint32_t segment_bytes)
{
    return (struct wal_options){
        .start = start,
        .shard = shard,
        .shards = shards,
        .partitions = 64,
        .first_segment = first,
        .segment_bytes = segment_bytes,
        .server_id = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    };
}
