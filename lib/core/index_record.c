#include "base/bytes.h"
#include "core/index.h"

void index_record_encode(const struct index_record *r, uint8_t out[INDEX_RECORD_BYTES])
{
    bytes_put_u64(out, r->seq);
    bytes_put_u32(out + 8, r->at.segment);
    bytes_put_u32(out + 12, r->at.offset);
    bytes_put_u32(out + 16, r->bytes);
    bytes_put_u32(out + 20, r->expiry_sec);
    out[24] = r->kind;
}

struct index_record index_record_decode(const uint8_t *p)
{
    return (struct index_record){
        .seq = bytes_get_u64(p),
        .at = { bytes_get_u32(p + 8), bytes_get_u32(p + 12) },
        .bytes = bytes_get_u32(p + 16),
        .expiry_sec = bytes_get_u32(p + 20),
        .kind = p[24],
    };
}
