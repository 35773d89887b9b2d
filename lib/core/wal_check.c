/* Reading a log at a start: how far each stream is good, what was torn and what is rot, and the
 * walk through its frames. */
#include "core/wal.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Length of the whole, good group at `offset`, 0 at the end or where no good group is. Sets
 * *ret_head. */
static size_t group_check(const struct wal_segment *s, size_t offset, struct group_head *ret_head)
{
    size_t left = s->bytes - offset;
    size_t at = GROUP_HEAD_BYTES;
    uint32_t frames = 0;
    struct frame f;

    if (group_head_decode(s->data + offset, left, s->head.crc, ret_head) < 0 ||
        ret_head->bytes > left - GROUP_HEAD_BYTES) {
        return 0;
    }
    while (at < GROUP_HEAD_BYTES + (size_t) ret_head->bytes) {
        int64_t n = frame_decode(s->data + offset + at,
                                 GROUP_HEAD_BYTES + (size_t) ret_head->bytes - at, &f);
        if (n < 0) {
            return 0;
        }
        at += (size_t) n;
        frames++;
    }
    return frames == ret_head->frames ? at : 0;
}

uint32_t wal_floor_of(const struct wal_floor *f, uint32_t shard, uint32_t shards)
{
    uint32_t lowest = f->partitions > 0 ? UINT32_MAX : 0;

    for (uint32_t p = shard; p < f->partitions; p += shards) {
        lowest = MIN_OF(lowest, f->x[p].segment);
    }
    return lowest;
}

void wal_floor_copy(const struct wal_floor *f, struct wal_floor *ret)
{
    *ret = (struct wal_floor){ .partitions = f->partitions };
    ret->x = mem_alloc((f->partitions + 1) * sizeof(*ret->x));
    if (f->partitions > 0) {
        memcpy(ret->x, f->x, f->partitions * sizeof(*ret->x));
    }
}

void wal_floor_lower(struct wal_floor *f, const struct wal_floor *other)
{
    f->partitions = MIN_OF(f->partitions, other->partitions);
    for (uint32_t p = 0; p < f->partitions; p++) {
        if (position_compare(other->x[p], f->x[p]) < 0) {
            f->x[p] = other->x[p];
        }
    }
}

void wal_floor_free(struct wal_floor *f)
{
    free(f->x);
    *f = (struct wal_floor){ 0 };
}

/* A stream: the segments of one shard in one start. */
struct stream {
    uint64_t start;
    uint32_t shard;
    uint32_t floor;
    struct position synced_end; /* highest that a group named; when all is judged, or an X */
    struct position end;        /* of its good groups, as far as looked at */
    struct position bad;        /* first place without a good group; segment 0: none yet */
};

struct checker {
    struct wal_segment *segments;
    size_t n;
    struct stream *streams;
    size_t n_streams;
    const struct wal_floor *floor;
    struct segment_head newest; /* head of a segment of the newest start */
    struct wal_damage *ret_damage;
};

static struct stream *stream_find(struct checker *c, const struct segment_head *h, uint32_t shard)
{
    for (size_t i = 0; i < c->n_streams; i++) {
        if (c->streams[i].start == h->start && c->streams[i].shard == shard) {
            return &c->streams[i];
        }
    }
    c->streams[c->n_streams] = (struct stream){
        .start = h->start,
        .shard = shard,
        .floor = c->floor ? wal_floor_of(c->floor, shard, h->shards) : 0,
    };
    return &c->streams[c->n_streams++];
}

static int damage(struct checker *c, struct position at, const char *what)
{
    *c->ret_damage = (struct wal_damage){ at.segment, at.offset, what };
    return -EBADMSG;
}

static void synced_end_raise(struct stream *st, struct position end)
{
    if (position_compare(end, st->synced_end) > 0) {
        st->synced_end = end;
    }
}

/* Knows the newest start and the streams again; named ends are theirs. */
static void streams_fill(struct checker *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct wal_segment *s = &c->segments[i];
        struct stream *st;
        if (s->head.segment == 0) {
            continue;
        }
        if (s->head.start >= c->newest.start) {
            c->newest = s->head;
        }
        st = stream_find(c, &s->head, s->head.shard);
        synced_end_raise(st, s->named_end);
    }
}

/* Reads a head; one that can't be read is marked by head.segment = 0. */
static int head_read(struct checker *c, struct wal_segment *s)
{
    struct position at = { .segment = s->number };
    int r = segment_head_decode(s->data, s->bytes, &s->head);

    if (r == -EPROTONOSUPPORT) {
        return damage(c, at, "it was written by a newer version of kumofs");
    }
    if (r == 0 && s->head.segment != s->number) {
        return damage(c, at, "its head bears another number than its name");
    }
    if (r < 0) {
        s->head = (struct segment_head){ 0 };
    }
    s->synced_bytes = 0;
    s->named_end = (struct position){ 0 };
    s->trusted =
        r == 0 && c->floor && s->number < wal_floor_of(c->floor, s->head.shard, s->head.shards);
    s->good_bytes = s->trusted ? s->bytes : r == 0 ? SEGMENT_HEAD_BYTES : 0;
    s->looked_bytes = s->trusted || r < 0 ? s->bytes : SEGMENT_HEAD_BYTES;
    return 0;
}

int wal_check_begin(struct wal_segment *segments, size_t n, const struct wal_floor *floor,
                    struct wal_damage *ret_damage)
{
    struct checker c = { .floor = floor, .ret_damage = ret_damage };
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++) {
        r = head_read(&c, &segments[i]);
    }
    return r;
}

static void named_end_raise(struct wal_segment *s, const struct group_head *h)
{
    if (position_compare(h->synced_end, s->named_end) > 0) {
        s->named_end = h->synced_end;
    }
}

/* Behind an unreadable place only heads of groups are looked for: one that names a synced end above
 * that place proves that it was no tear. */
bool wal_check_step(struct wal_segment *s, size_t bytes)
{
    size_t end = s->looked_bytes + MIN_OF(bytes, s->bytes - s->looked_bytes);
    struct group_head h;
    size_t n;

    while (s->looked_bytes < end && s->looked_bytes == s->good_bytes &&
           (n = group_check(s, s->good_bytes, &h)) > 0) {
        s->good_bytes += n;
        s->looked_bytes = s->good_bytes;
        named_end_raise(s, &h);
    }
    for (; s->looked_bytes < end; s->looked_bytes++) {
        if (group_head_decode(s->data + s->looked_bytes, s->bytes - s->looked_bytes, s->head.crc,
                              &h) == 0) {
            named_end_raise(s, &h);
        }
    }
    return s->looked_bytes < s->bytes;
}

static bool holds_groups(const struct wal_segment *s, uint32_t segment_crc)
{
    struct group_head h;

    for (size_t at = SEGMENT_HEAD_BYTES; at + GROUP_HEAD_BYTES <= s->bytes; at++) {
        if (group_head_decode(s->data + at, s->bytes - at, segment_crc, &h) == 0) {
            return true;
        }
    }
    return false;
}

/* Was there a head once, in this file whose head can't be read? Groups continue the checksum of
 * their head: if one fits the checksum that stands there, or the one that the head has now, then
 * the head was written, and is rotten. In a torn first write none fits: head and first group head
 * lie in one sector. */
static bool head_is_rotten(const struct wal_segment *s)
{
    return s->bytes > SEGMENT_HEAD_BYTES && (holds_groups(s, segment_head_crc_stored(s->data)) ||
                                             holds_groups(s, segment_head_crc_computed(s->data)));
}

/* A segment without a head is a file that was never synced, of the newest start: or it is rot. */
static int headless_judge(struct checker *c, const struct wal_segment *s)
{
    const struct segment_head *h = &c->newest;
    struct position at = { .segment = s->number };
    struct stream *st;

    if (head_is_rotten(s) || (h->segment != 0 && s->number < h->first)) {
        return damage(c, at, "its head can't be read");
    }
    if (h->segment == 0) {
        return 0; /* nothing readable at all: a first start that never synced */
    }
    st = stream_find(c, h, (s->number - h->first) % h->shards);
    if (st->bad.segment == 0) {
        st->bad = at;
    }
    return 0;
}

/* Decides about the place where the stream's good groups end in this segment. */
static int segment_judge(struct checker *c, struct wal_segment *s)
{
    struct stream *st = stream_find(c, &s->head, s->head.shard);
    struct position prev = s->head.prev_end;
    bool gap = prev.segment >= st->floor && prev.segment != 0 &&
               position_compare(prev, st->end) != 0 &&
               (prev.segment == st->end.segment || position_compare(prev, st->synced_end) > 0);

    if (gap && st->bad.segment == 0) {
        st->bad = st->end.segment == prev.segment ? st->end : prev;
    }
    if (st->bad.segment == 0) {
        st->end = (struct position){ s->number, (uint32_t) s->good_bytes };
        if (s->good_bytes < s->bytes) {
            st->bad = st->end;
        }
    } else {
        s->good_bytes = 0; /* behind a tear nothing counts, however good it looks */
    }
    if (st->bad.segment != 0 && st->start != c->newest.start) {
        return damage(c, st->bad, "an unreadable group in a closed segment");
    }
    return 0;
}

static int streams_judge(struct checker *c)
{
    for (size_t i = 0; i < c->n; i++) {
        struct wal_segment *s = &c->segments[i];
        int r = s->head.segment == 0 ? headless_judge(c, s) : segment_judge(c, s);
        if (r < 0) {
            return r;
        }
    }
    for (size_t i = 0; i < c->n_streams; i++) {
        const struct stream *st = &c->streams[i];
        if (st->bad.segment != 0 && position_compare(st->bad, st->synced_end) < 0) {
            return damage(c, st->bad, "an unreadable group below the synced end");
        }
    }
    return 0;
}

/* A generation was published when the log was durable through its X: what is not there is lost, and
 * what is there is on the disk. */
static int floor_judge(struct checker *c)
{
    for (uint32_t p = 0; c->floor && p < c->floor->partitions; p++) {
        struct position x = c->floor->x[p];
        const struct wal_segment *s = NULL;
        struct stream *st;
        for (size_t i = 0; i < c->n; i++) {
            s = c->segments[i].number == x.segment ? &c->segments[i] : s;
        }
        if (x.offset > 0 && (!s || s->good_bytes < x.offset)) {
            x.offset = s ? (uint32_t) s->good_bytes : 0;
            return damage(c, x, "unreadable or missing, and a checkpoint needs it");
        }
        if (x.offset > 0) {
            st = stream_find(c, &s->head, s->head.shard);
            synced_end_raise(st, x);
        }
    }
    return 0;
}

static void synced_bytes_set(struct checker *c)
{
    for (size_t i = 0; i < c->n; i++) {
        struct wal_segment *s = &c->segments[i];
        const struct stream *st;
        if (s->head.segment == 0) {
            continue;
        }
        st = stream_find(c, &s->head, s->head.shard);
        s->synced_bytes = st->synced_end.segment > s->number ? s->good_bytes
                          : st->synced_end.segment == s->number
                              ? MIN_OF(s->good_bytes, st->synced_end.offset)
                              : 0;
    }
}

int wal_check_end(struct wal_segment *segments, size_t n, const struct wal_floor *floor,
                  struct wal_damage *ret_damage)
{
    _cleanup_free_ struct stream *streams = mem_zalloc(2 * n, sizeof(*streams));
    struct checker c = { segments, n, streams, 0, floor, { 0 }, ret_damage };
    int r;

    streams_fill(&c);
    r = streams_judge(&c);
    if (r == 0) {
        r = floor_judge(&c);
    }
    synced_bytes_set(&c);
    return r;
}

int wal_check(struct wal_segment *segments, size_t n, const struct wal_floor *floor,
              struct wal_damage *ret_damage)
{
    int r = wal_check_begin(segments, n, floor, ret_damage);

    for (size_t i = 0; i < n && r == 0; i++) {
        while (wal_check_step(&segments[i], SIZE_MAX)) {
        }
    }
    return r == 0 ? wal_check_end(segments, n, floor, ret_damage) : r;
}

int wal_next(const struct wal_segment *s, struct wal_cursor *c, struct frame *ret,
             struct position *ret_at)
{
    struct group_head h;
    int64_t n;

    c->offset = MAX_OF(c->offset, SEGMENT_HEAD_BYTES);
    while (c->frames == 0) {
        if (c->offset >= s->good_bytes) {
            return 0;
        }
        if (group_head_decode(s->data + c->offset, s->good_bytes - c->offset, s->head.crc, &h) <
            0) {
            return -EBADMSG;
        }
        c->offset += GROUP_HEAD_BYTES;
        c->frames = h.frames;
    }
    n = frame_decode(s->data + c->offset, s->good_bytes - c->offset, ret);
    if (n < 0) {
        return -EBADMSG;
    }
    *ret_at = (struct position){ s->number, (uint32_t) (c->offset + FRAME_HEAD_BYTES) };
    c->offset += (size_t) n;
    c->frames--;
    return 1;
}

int wal_walk(const struct wal_segment *s, wal_frame_fn fn, void *ctx)
{
    struct wal_cursor c = { 0 };
    struct position at;
    struct frame f;
    int r;

    while ((r = wal_next(s, &c, &f, &at)) > 0) {
        r = fn(ctx, &f, at);
        if (r < 0) {
            return r;
        }
    }
    kumo_assert(r == 0); /* wal_check has read it all */
    return 0;
}
