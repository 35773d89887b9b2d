/* The entry: one write, one string of bytes, made once by the primary and never changed afterwards.
 * The same bytes go over the wire, into every replica's log, and are what the index points at.
 * Pure.
 *
 *   offset bytes
 *        0     4  CRC-32C of everything behind it
 *        4     4  length of the whole entry
 *        8     2  partition
 *       10     1  kind
 *       11     1  answer (enum result_code) that the operation got
 *       12     1  key length
 *       13     1  item bits (0 now; stale and token bits of the meta protocol)
 *       14     2  op number minus the first unanswered number of its session
 *       16     4  view it was born in
 *       20     4  view of the entry before it
 *       24     8  seq
 *       32     8  partition time, microseconds since 1970
 *       40     8  session (0: none)
 *       48     8  op number
 *       56     8  cas token of the record after it
 *       64     4  flags of the client
 *       68     4  expiry, seconds since 1970, 0 = never
 *       72        key, then value
 *
 * All numbers are little-endian. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENTRY_HEAD_BYTES      72
#define ENTRY_KEY_BYTES_MAX   250
#define ENTRY_VALUE_BYTES_MAX (64u << 20)
#define ENTRY_BYTES_MAX       (ENTRY_HEAD_BYTES + ENTRY_KEY_BYTES_MAX + ENTRY_VALUE_BYTES_MAX)

/* Partitions of one cluster: a power of two up to this. */
#define PARTITIONS_MAX 16384

enum entry_kind {
    ENTRY_NOOP = 1, /* begins a view (R5); no key, no value */
    ENTRY_SET,      /* the key has this record from now on */
    ENTRY_DELETE,   /* the key has none */
    ENTRY_FLUSH,    /* all records of the partition are dead: at once, or from `expiry` on */
    ENTRY_SESSION,  /* what is remembered of the session goes (R12); cas: the entry of the managers'
                       log by which it was over */
    _ENTRY_KIND_MAX,
    _ENTRY_KIND_INVALID = -22,
};

/* The name of an entry. seq counts per partition. Two entries of one name have the same bytes (I5).
 */
struct name {
    uint64_t seq;
    uint32_t view;
};

static inline bool name_equal(struct name a, struct name b)
{
    return a.seq == b.seq && a.view == b.view;
}

/* Negative, 0 or positive as a is below, equal to or above b, in the order (view, seq) of R7. */
static inline int name_compare(struct name a, struct name b)
{
    if (a.view != b.view) {
        return a.view < b.view ? -1 : 1;
    }
    return a.seq < b.seq ? -1 : a.seq > b.seq;
}

/* Identity of an operation (R12): a retry bears the same one. session 0: no retry protection. */
struct op_id {
    uint64_t session;
    uint64_t number; /* from 1, per session and partition */
    uint64_t first;  /* lowest number that the session still waits for; number - first <= 65535 */
};

/* An entry taken apart; key and value point into the bytes that it was decoded from, or wherever
 * the caller of entry_encode has them. */
struct entry {
    uint16_t partition;
    uint8_t kind;
    uint8_t answer;
    uint8_t item_bits;
    uint8_t key_len;
    uint32_t value_len;
    uint32_t prev_view;
    uint32_t flags;
    uint32_t expiry_sec;
    struct name name;
    uint64_t time_usec;
    struct op_id op;
    uint64_t cas;
    const uint8_t *key;
    const uint8_t *value;
};

static inline size_t entry_bytes(const struct entry *e)
{
    return ENTRY_HEAD_BYTES + (size_t) e->key_len + e->value_len;
}

/* Writes the entry's bytes to `out`, which has room for entry_bytes(e). */
void entry_encode(const struct entry *e, uint8_t *out);

/* Takes apart exactly `bytes` bytes. -EBADMSG when they are no entry: wrong length, kind, or
 * checksum. */
int entry_decode(const uint8_t *p, size_t bytes, struct entry *ret);

/* As entry_decode, for bytes that were just made or just checked: does not look at the checksum. */
int entry_decode_trusted(const uint8_t *p, size_t bytes, struct entry *ret);
