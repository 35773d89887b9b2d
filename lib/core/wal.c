#include "core/wal.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

void wal_init(struct wal *l, const struct wal_options *o)
{
    *l = (struct wal){ .o = *o, .group = 1 };
    kumo_assert(o->first_segment > 0);
    kumo_assert(o->shard < o->shards);
    if (l->o.segment_bytes == 0) {
        l->o.segment_bytes = WAL_SEGMENT_BYTES_DEFAULT;
    }
}

void wal_free(struct wal *l)
{
    buf_free(&l->bytes);
    free(l->chunks);
    free(l->flushed_ends);
}

/* Fills in the head of the group being gathered. */
static void group_close(struct wal *l)
{
    struct group_head h;

    if (!l->group_open) {
        return;
    }
    h = (struct group_head){
        .bytes = (uint32_t) (buf_len(&l->bytes) - l->group_begin - GROUP_HEAD_BYTES),
        .frames = l->group_frames,
        .synced_end = l->synced_end,
    };
    group_head_encode(&h, l->segment_crc, buf_head(&l->bytes) + l->group_begin);
    l->group_open = false;
}

/* Ends the open chunk where the gathered bytes end now, and moves the log's end there. */
static void chunk_close(struct wal *l)
{
    struct wal_chunk *c;

    group_close(l);
    if (l->n_chunks == 0) {
        return;
    }
    c = &l->chunks[l->n_chunks - 1];
    if (c->end == 0) {
        c->end = buf_len(&l->bytes);
        l->end.offset = c->at.offset + (uint32_t) (c->end - c->begin);
    }
}

static struct wal_chunk *chunk_add(struct wal *l, bool creates)
{
    mem_grow(&l->chunks, &l->cap_chunks, l->n_chunks + 1, sizeof(*l->chunks));
    l->chunks[l->n_chunks] = (struct wal_chunk){
        .at = l->end,
        .begin = buf_len(&l->bytes),
        .creates = creates,
    };
    return &l->chunks[l->n_chunks++];
}

static void segment_open(struct wal *l)
{
    struct segment_head h = {
        .segment = l->o.first_segment + l->o.shard + l->opened * l->o.shards,
        .shard = l->o.shard,
        .shards = l->o.shards,
        .partitions = l->o.partitions,
        .start = l->o.start,
        .first = l->o.first_segment,
    };

    chunk_close(l);
    h.prev_end = l->end;
    l->opened++;
    l->end = (struct position){ .segment = h.segment };
    chunk_add(l, true);
    memcpy(h.server_id, l->o.server_id, UUID_BYTES);
    segment_head_encode(&h, buf_reserve(&l->bytes, SEGMENT_HEAD_BYTES));
    l->segment_crc = h.crc;
    l->bytes.end += SEGMENT_HEAD_BYTES;
}

/* Offset in the open segment at which the next gathered byte will stand. */
static size_t end_offset(const struct wal *l)
{
    const struct wal_chunk *c = l->n_chunks > 0 ? &l->chunks[l->n_chunks - 1] : NULL;

    return c && c->end == 0 ? c->at.offset + (buf_len(&l->bytes) - c->begin) : l->end.offset;
}

struct position wal_end(const struct wal *l)
{
    if (l->end.segment == 0) {
        return (struct position){ .segment = l->o.first_segment };
    }
    return (struct position){ l->end.segment, (uint32_t) end_offset(l) };
}

static void group_open(struct wal *l)
{
    if (l->n_chunks == 0 || l->chunks[l->n_chunks - 1].end != 0) {
        chunk_add(l, false);
    }
    l->group_begin = buf_len(&l->bytes);
    buf_reserve(&l->bytes, GROUP_HEAD_BYTES);
    memset(l->bytes.data + l->bytes.end, 0, GROUP_HEAD_BYTES);
    l->bytes.end += GROUP_HEAD_BYTES;
    l->group_frames = 0;
    l->group_open = true;
}

struct position wal_append(struct wal *l, uint8_t kind, uint16_t partition, uint32_t view,
                           const uint8_t *payload, size_t payload_bytes)
{
    struct frame f = { kind, partition, view, (uint32_t) payload_bytes, payload };
    size_t need = FRAME_HEAD_BYTES + payload_bytes;
    struct position at;

    if (l->group_open && buf_len(&l->bytes) - l->group_begin + need > WAL_GROUP_BYTES_MAX) {
        group_close(l);
    }
    /* A frame that fits no segment gets one of its own: only an empty segment may grow beyond its
     * size. */
    if (l->end.segment == 0 || (end_offset(l) + GROUP_HEAD_BYTES + need > l->o.segment_bytes &&
                                end_offset(l) > SEGMENT_HEAD_BYTES)) {
        segment_open(l);
    }
    if (!l->group_open) {
        group_open(l);
    }
    frame_head_encode(&f, buf_reserve(&l->bytes, need));
    l->bytes.end += FRAME_HEAD_BYTES;
    at = (struct position){ l->end.segment, (uint32_t) end_offset(l) };
    buf_append(&l->bytes, payload, payload_bytes);
    l->group_frames++;
    return at;
}

void wal_flush(struct wal *l, struct actions *out)
{
    struct action *a;

    if (!wal_dirty(l)) {
        return;
    }
    chunk_close(l);
    for (size_t i = 0; i < l->n_chunks; i++) {
        const struct wal_chunk *c = &l->chunks[i];
        a = actions_add(out, c->creates ? ACTION_CREATE : ACTION_WRITE);
        a->file.at = c->at;
        a->file.data = buf_head(&l->bytes) + c->begin;
        a->file.bytes = c->end - c->begin;
    }
    a = actions_add(out, ACTION_SYNC);
    a->group = l->group;
    mem_grow(&l->flushed_ends, &l->cap_flushed, l->n_flushed + 1, sizeof(*l->flushed_ends));
    l->flushed_ends[l->n_flushed++] = l->end;
    l->group++;
}

void wal_flushed(struct wal *l)
{
    buf_clear(&l->bytes);
    buf_trim(&l->bytes, 1u << 20);
    l->n_chunks = 0;
}

void wal_written(struct wal *l, uint64_t group)
{
    kumo_assert(group < l->group);
    l->synced_group = MAX_OF(l->synced_group, group);
}

void wal_synced(struct wal *l, uint64_t group)
{
    size_t n;

    wal_written(l, group);
    if (group <= l->disk_group) {
        return;
    }
    n = (size_t) (group - l->disk_group);
    kumo_assert(n <= l->n_flushed);
    l->synced_end = l->flushed_ends[n - 1];
    l->n_flushed -= n;
    memmove(l->flushed_ends, l->flushed_ends + n, l->n_flushed * sizeof(*l->flushed_ends));
    l->disk_group = group;
}
