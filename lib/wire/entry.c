#include "wire/entry.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"

#include <errno.h>
#include <string.h>

void entry_encode(const struct entry *e, uint8_t *out)
{
    size_t bytes = entry_bytes(e);

    kumo_assert(e->op.number - e->op.first <= UINT16_MAX);
    kumo_assert(e->value_len <= ENTRY_VALUE_BYTES_MAX);
    bytes_put_u32(out + 4, (uint32_t) bytes);
    bytes_put_u16(out + 8, e->partition);
    out[10] = e->kind;
    out[11] = e->answer;
    out[12] = e->key_len;
    out[13] = e->item_bits;
    bytes_put_u16(out + 14, (uint16_t) (e->op.number - e->op.first));
    bytes_put_u32(out + 16, e->name.view);
    bytes_put_u32(out + 20, e->prev_view);
    bytes_put_u64(out + 24, e->name.seq);
    bytes_put_u64(out + 32, e->time_usec);
    bytes_put_u64(out + 40, e->op.session);
    bytes_put_u64(out + 48, e->op.number);
    bytes_put_u64(out + 56, e->cas);
    bytes_put_u32(out + 64, e->flags);
    bytes_put_u32(out + 68, e->expiry_sec);
    if (e->key_len > 0) {
        memcpy(out + ENTRY_HEAD_BYTES, e->key, e->key_len);
    }
    if (e->value_len > 0) {
        memcpy(out + ENTRY_HEAD_BYTES + e->key_len, e->value, e->value_len);
    }
    bytes_put_u32(out, crc32c(0, out + 4, bytes - 4));
}

int entry_decode_trusted(const uint8_t *p, size_t bytes, struct entry *ret)
{
    uint64_t number;

    if (bytes < ENTRY_HEAD_BYTES || bytes > ENTRY_BYTES_MAX || bytes_get_u32(p + 4) != bytes ||
        p[10] == 0 || p[10] >= _ENTRY_KIND_MAX || p[12] > ENTRY_KEY_BYTES_MAX ||
        bytes < ENTRY_HEAD_BYTES + (size_t) p[12] || bytes_get_u16(p + 8) >= PARTITIONS_MAX ||
        bytes - ENTRY_HEAD_BYTES - p[12] > ENTRY_VALUE_BYTES_MAX) {
        return -EBADMSG;
    }
    if ((p[12] > 0) != (p[10] == ENTRY_SET || p[10] == ENTRY_DELETE)) {
        return -EBADMSG;
    }
    number = bytes_get_u64(p + 48);
    if (bytes_get_u16(p + 14) > number) {
        return -EBADMSG;
    }
    *ret = (struct entry){
        .partition = bytes_get_u16(p + 8),
        .kind = p[10],
        .answer = p[11],
        .key_len = p[12],
        .item_bits = p[13],
        .name = { .view = bytes_get_u32(p + 16), .seq = bytes_get_u64(p + 24) },
        .prev_view = bytes_get_u32(p + 20),
        .time_usec = bytes_get_u64(p + 32),
        .op = { .session = bytes_get_u64(p + 40),
                .number = number,
                .first = number - bytes_get_u16(p + 14) },
        .cas = bytes_get_u64(p + 56),
        .flags = bytes_get_u32(p + 64),
        .expiry_sec = bytes_get_u32(p + 68),
        .key = p + ENTRY_HEAD_BYTES,
        .value = p + ENTRY_HEAD_BYTES + p[12],
        .value_len = (uint32_t) (bytes - ENTRY_HEAD_BYTES - p[12]),
    };
    return 0;
}

int entry_decode(const uint8_t *p, size_t bytes, struct entry *ret)
{
    struct entry e;
    int r = entry_decode_trusted(p, bytes, &e);

    if (r < 0) {
        return r;
    }
    if (crc32c(0, p + 4, bytes - 4) != bytes_get_u32(p)) {
        return -EBADMSG;
    }
    *ret = e;
    return 0;
}
