/* Fuzzes the parser of memcached's text protocol. Beside not crashing: the pieces in which the
 * bytes arrive must not matter, a request must be made of nothing but good parts, and the parser
 * must keep its promises to the connection. The first byte of the input sets the limit, the second
 * seeds the cuts, the rest is the stream. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/rng.h"
#include "wire/mc_number.h"
#include "wire/mc_text.h"
#include "wire/mc_text_reply.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* What the parser made of a stream, as one number that depends on every byte of it. */
struct digest {
    uint64_t hash;
    uint64_t results;
};

static void digest_bytes(struct digest *d, const void *p, size_t len)
{
    const uint8_t *bytes = p;

    for (size_t i = 0; i < len; i++) {
        d->hash = (d->hash ^ bytes[i]) * 0x100000001b3ULL;
    }
    d->hash = (d->hash ^ len) * 0x100000001b3ULL;
}

static void digest_u64(struct digest *d, uint64_t v)
{
    digest_bytes(d, &v, sizeof(v));
}

static void check_keys(struct digest *d, const struct mc_request *r)
{
    const uint8_t *rest = r->keys, *key;
    size_t rest_len = r->keys_len, key_len, n = 0;
    uint8_t line[MC_VALUE_LINE_BYTES_MAX];

    while (mc_text_next_token(&rest, &rest_len, &key, &key_len)) {
        kumo_assert(mc_text_key_ok(key, key_len));
        kumo_assert(mc_text_write_value_cas(line, sizeof(line), key, key_len, r->flags, SIZE_MAX,
                                            UINT64_MAX) > 0);
        digest_bytes(d, key, key_len);
        n++;
    }
    kumo_assert(r->cmd <= MC_GATS || n == 0);
}

static void check_request(struct digest *d, const struct mc_request *r, size_t value_bytes_max)
{
    bool store = r->cmd >= MC_SET && r->cmd <= MC_CAS;
    uint64_t counter;

    kumo_assert(r->cmd >= 0 && r->cmd < _MC_CMD_MAX);
    kumo_assert(!r->error);
    kumo_assert(!r->more || r->cmd <= MC_GATS);
    kumo_assert(store == (r->value != NULL));
    kumo_assert(r->value_len <= value_bytes_max);
    kumo_assert((r->cmd >= MC_SET && r->cmd <= MC_TOUCH) == (r->key != NULL));
    kumo_assert(!r->key || mc_text_key_ok(r->key, r->key_len));
    if (store && mc_parse_counter(r->value, r->value_len, &counter) == 0) {
        uint8_t text[MC_U64_CHARS_MAX];
        uint64_t again;

        kumo_assert(mc_parse_u64(text, mc_format_u64(text, counter), &again) == 0);
        kumo_assert(again == counter);
    }
    digest_bytes(d, r->key ? r->key : (const uint8_t *) "", r->key_len);
    digest_bytes(d, r->value ? r->value : (const uint8_t *) "", r->value_len);
    digest_bytes(d, r->args ? r->args : (const uint8_t *) "", r->args_len);
    check_keys(d, r);
    digest_u64(d, r->flags);
    digest_u64(d, (uint64_t) r->exptime);
    digest_u64(d, r->delta);
    digest_u64(d, r->cas);
    digest_u64(d, r->verbosity);
}

static void check_result(struct digest *d, enum mc_parse_result result, const struct mc_request *r,
                         size_t need, size_t value_bytes_max)
{
    d->results++;
    digest_u64(d, (uint64_t) result);
    if (result == MC_META) {
        digest_u64(d, need);
        return;
    }
    if (result == MC_CLOSE) {
        return;
    }
    digest_u64(d, (uint64_t) r->cmd);
    digest_u64(d, (uint64_t) r->noreply << 1 | r->more);
    if (result == MC_REQUEST) {
        check_request(d, r, value_bytes_max);
        return;
    }
    kumo_assert(result == MC_ERROR || result == MC_TOO_LARGE);
    kumo_assert(r->noreply == !r->error);
    if (r->error) {
        digest_bytes(d, r->error, strlen(r->error));
    }
    if (result == MC_TOO_LARGE) {
        kumo_assert(mc_text_key_ok(r->key, r->key_len));
        digest_bytes(d, r->key, r->key_len);
    }
}

/* Takes what can be taken from bytes[0..len), held in memory of exactly that size so that the
 * sanitizer sees every step over the edge. Returns how much was consumed; -1 when the connection
 * was closed. */
static int64_t drain(struct mc_parser *p, size_t value_bytes_max, const uint8_t *bytes, size_t len,
                     struct digest *d)
{
    const struct mc_limits limits = { .value_bytes_max = value_bytes_max };
    _cleanup_free_ uint8_t *held = malloc(len ? len : 1);
    enum mc_parse_result r;
    size_t at = 0;

    kumo_assert(held);
    memcpy(held, bytes, len);
    do {
        struct mc_request req;
        size_t consumed, need;

        r = mc_text_parse(p, &limits, held + at, len - at, &req, &consumed, &need);
        kumo_assert(consumed <= len - at);
        at += consumed;
        if (r == MC_NEED_MORE) {
            kumo_assert(need > len - at);
            kumo_assert(need <= MC_LINE_BYTES_MAX + 1 + value_bytes_max + 2);
            break;
        }
        check_result(d, r, &req, need, value_bytes_max);
        kumo_assert(r == MC_META ? consumed == 0 || need > 0 : consumed > 0 || r == MC_CLOSE);
        at += need;
        kumo_assert(at <= len);
    } while (r != MC_CLOSE);
    return r == MC_CLOSE ? -1 : (int64_t) at;
}

/* Feeds the stream in pieces of random size up to `piece_max`, or whole. */
static struct digest feed(const uint8_t *data, size_t len, size_t value_bytes_max, size_t piece_max,
                          struct rng *rng)
{
    struct mc_parser p = { 0 };
    struct digest d = { 0 };
    size_t begin = 0, end = 0;

    while (end < len) {
        size_t piece = piece_max < len ? (size_t) rng_between(rng, 1, piece_max) : len;
        int64_t n;

        end += MIN_OF(len - end, piece);
        n = drain(&p, value_bytes_max, data + begin, end - begin, &d);
        if (n < 0) {
            break;
        }
        begin += (size_t) n;
    }
    return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const size_t piece_max[] = { 3, 40, 700, 3000 };
    struct digest whole, split;
    struct rng rng;
    size_t value_bytes_max;

    if (len < 3) {
        return 0;
    }
    value_bytes_max = data[0];
    rng = (struct rng){ .state = data[1] };
    data += 2;
    len -= 2;
    whole = feed(data, len, value_bytes_max, SIZE_MAX, &rng);
    split = feed(data, len, value_bytes_max, len < 200 ? 1 : piece_max[rng_below(&rng, 4)], &rng);
    kumo_assert(split.results == whole.results);
    kumo_assert(split.hash == whole.hash);
    return 0;
}
