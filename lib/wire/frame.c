#include "wire/frame.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <errno.h>
#include <string.h>

#define SEGMENT_MAGIC "KUMOSEG\n"
#define GROUP_MAGIC   0x50524b47u /* "GKRP" */

uint32_t segment_head_crc_stored(const uint8_t *p)
{
    return bytes_get_u32(p + 8);
}

uint32_t segment_head_crc_computed(const uint8_t *p)
{
    return crc32c(0, p + 12, SEGMENT_HEAD_BYTES - 12);
}

void segment_head_encode(struct segment_head *h, uint8_t out[SEGMENT_HEAD_BYTES])
{
    memset(out, 0, SEGMENT_HEAD_BYTES);
    memcpy(out, SEGMENT_MAGIC, 8);
    bytes_put_u32(out + 12, SEGMENT_VERSION);
    bytes_put_u32(out + 16, h->segment);
    bytes_put_u32(out + 20, h->shard);
    bytes_put_u32(out + 24, h->shards);
    bytes_put_u32(out + 28, h->partitions);
    bytes_put_u64(out + 32, h->start);
    memcpy(out + 40, h->server_id, 16);
    bytes_put_u32(out + 56, h->first);
    bytes_put_u32(out + 60, h->prev_end.segment);
    bytes_put_u32(out + 64, h->prev_end.offset);
    h->crc = segment_head_crc_computed(out);
    bytes_put_u32(out + 8, h->crc);
}

int segment_head_decode(const uint8_t *p, size_t bytes, struct segment_head *ret)
{
    struct segment_head h;

    if (bytes < SEGMENT_HEAD_BYTES || memcmp(p, SEGMENT_MAGIC, 8) != 0 ||
        segment_head_crc_computed(p) != segment_head_crc_stored(p)) {
        return -EBADMSG;
    }
    if (bytes_get_u32(p + 12) != SEGMENT_VERSION) {
        return -EPROTONOSUPPORT;
    }
    h = (struct segment_head){
        .segment = bytes_get_u32(p + 16),
        .shard = bytes_get_u32(p + 20),
        .shards = bytes_get_u32(p + 24),
        .partitions = bytes_get_u32(p + 28),
        .start = bytes_get_u64(p + 32),
        .first = bytes_get_u32(p + 56),
        .crc = segment_head_crc_stored(p),
        .prev_end = { bytes_get_u32(p + 60), bytes_get_u32(p + 64) },
    };
    memcpy(h.server_id, p + 40, 16);
    if (h.first == 0 || h.segment < h.first || h.shards == 0 || h.shard >= h.shards ||
        h.partitions > PARTITIONS_MAX) {
        return -EBADMSG;
    }
    *ret = h;
    return 0;
}

void group_head_encode(const struct group_head *h, uint32_t segment_crc,
                       uint8_t out[GROUP_HEAD_BYTES])
{
    memset(out, 0, GROUP_HEAD_BYTES);
    bytes_put_u32(out, GROUP_MAGIC);
    bytes_put_u32(out + 8, h->bytes);
    bytes_put_u32(out + 12, h->frames);
    bytes_put_u32(out + 16, h->synced_end.segment);
    bytes_put_u32(out + 20, h->synced_end.offset);
    bytes_put_u32(out + 4, crc32c(segment_crc, out + 8, GROUP_HEAD_BYTES - 8));
}

int group_head_decode(const uint8_t *p, size_t bytes, uint32_t segment_crc, struct group_head *ret)
{
    if (bytes < GROUP_HEAD_BYTES || bytes_get_u32(p) != GROUP_MAGIC ||
        crc32c(segment_crc, p + 8, GROUP_HEAD_BYTES - 8) != bytes_get_u32(p + 4)) {
        return -EBADMSG;
    }
    *ret = (struct group_head){
        .bytes = bytes_get_u32(p + 8),
        .frames = bytes_get_u32(p + 12),
        .synced_end = { bytes_get_u32(p + 16), bytes_get_u32(p + 20) },
    };
    return 0;
}

static uint32_t frame_crc(const uint8_t *head, uint8_t kind, const uint8_t *payload, size_t bytes)
{
    uint32_t crc = crc32c(0, head + 4, FRAME_HEAD_BYTES - 4);

    return frame_kind_has_entry(kind) ? crc : crc32c(crc, payload, bytes);
}

void frame_head_encode(const struct frame *f, uint8_t out[FRAME_HEAD_BYTES])
{
    bytes_put_u32(out + 4, f->payload_bytes);
    out[8] = f->kind;
    out[9] = 0;
    bytes_put_u16(out + 10, f->partition);
    bytes_put_u32(out + 12, f->view);
    bytes_put_u32(out, frame_crc(out, f->kind, f->payload, f->payload_bytes));
}

int64_t frame_decode(const uint8_t *p, size_t bytes, struct frame *ret)
{
    struct frame f;
    struct entry e;

    if (bytes < FRAME_HEAD_BYTES) {
        return -EBADMSG;
    }
    f = (struct frame){
        .kind = p[8],
        .partition = bytes_get_u16(p + 10),
        .view = bytes_get_u32(p + 12),
        .payload_bytes = bytes_get_u32(p + 4),
        .payload = p + FRAME_HEAD_BYTES,
    };
    if (f.payload_bytes > bytes - FRAME_HEAD_BYTES || f.partition >= PARTITIONS_MAX ||
        frame_crc(p, f.kind, f.payload, f.payload_bytes) != bytes_get_u32(p)) {
        return -EBADMSG;
    }
    if (frame_kind_has_entry(f.kind) &&
        (entry_decode(f.payload, f.payload_bytes, &e) < 0 || e.partition != f.partition)) {
        return -EBADMSG;
    }
    *ret = f;
    return FRAME_HEAD_BYTES + (int64_t) f.payload_bytes;
}

void frame_commit_encode(struct name name, uint64_t time_usec, uint8_t out[FRAME_COMMIT_BYTES])
{
    bytes_put_u64(out, name.seq);
    bytes_put_u32(out + 8, name.view);
    bytes_put_u64(out + 12, time_usec);
}

int frame_commit_decode(const struct frame *f, struct name *ret, uint64_t *ret_time_usec)
{
    if (f->kind != FRAME_COMMIT || f->payload_bytes != FRAME_COMMIT_BYTES) {
        return -EBADMSG;
    }
    *ret = (struct name){ .seq = bytes_get_u64(f->payload), .view = bytes_get_u32(f->payload + 8) };
    *ret_time_usec = bytes_get_u64(f->payload + 12);
    return 0;
}

size_t frame_gone_encode(const struct frame_gone *g, uint8_t out[FRAME_GONE_BYTES_MAX])
{
    bytes_put_u64(out, g->seq);
    bytes_put_u64(out + 8, g->time_usec);
    memcpy(out + FRAME_GONE_HEAD_BYTES, g->key, g->key_len);
    return FRAME_GONE_HEAD_BYTES + g->key_len;
}

int frame_gone_decode(const struct frame *f, struct frame_gone *ret)
{
    if (f->kind != FRAME_GONE || f->payload_bytes <= FRAME_GONE_HEAD_BYTES ||
        f->payload_bytes > FRAME_GONE_BYTES_MAX) {
        return -EBADMSG;
    }
    *ret = (struct frame_gone){ .seq = bytes_get_u64(f->payload),
                                .time_usec = bytes_get_u64(f->payload + 8),
                                .key = f->payload + FRAME_GONE_HEAD_BYTES,
                                .key_len = f->payload_bytes - FRAME_GONE_HEAD_BYTES };
    return 0;
}

size_t frame_view_encode(const struct frame_view *v, uint8_t out[FRAME_VIEW_BYTES_MAX])
{
    memset(out, 0, 4);
    out[0] = v->part;
    out[1] = v->n_members;
    for (unsigned i = 0; i < v->n_members; i++) {
        bytes_put_u32(out + 4 + 4 * i, v->members[i]);
    }
    return 4 + 4 * (size_t) v->n_members;
}

int frame_view_decode(const struct frame *f, struct frame_view *ret)
{
    const uint8_t *p = f->payload;

    if (f->kind != FRAME_VIEW || f->payload_bytes < 4 || p[0] >= _VIEW_PART_MAX ||
        p[1] > REPLICAS_MAX || f->payload_bytes != 4 + 4 * (size_t) p[1]) {
        return -EBADMSG;
    }
    *ret = (struct frame_view){ .part = p[0], .n_members = p[1] };
    for (unsigned i = 0; i < p[1]; i++) {
        ret->members[i] = bytes_get_u32(p + 4 + 4 * i);
    }
    return 0;
}
