#include "record_keys.h"

#include "base/mem.h"

#include <stdlib.h>
#include <xxhash.h>

#define SLOTS_MIN 1024

static bool is_free(const struct record_hash *h)
{
    return h->low == 0 && h->high == 0;
}

/* The hash's slot, or the free one where it belongs. */
static struct record_hash *slot_of(const struct record_keys *k, struct record_hash h)
{
    size_t i = h.low & (k->n_slots - 1);

    while (!is_free(&k->slots[i]) && (k->slots[i].low != h.low || k->slots[i].high != h.high)) {
        i = (i + 1) & (k->n_slots - 1);
    }
    return &k->slots[i];
}

static void grow(struct record_keys *k)
{
    struct record_keys old = *k;

    k->n_slots = old.n_slots ? 2 * old.n_slots : SLOTS_MIN;
    k->slots = mem_zalloc(k->n_slots, sizeof(*k->slots));
    for (size_t i = 0; i < old.n_slots; i++) {
        if (!is_free(&old.slots[i])) {
            *slot_of(k, old.slots[i]) = old.slots[i];
        }
    }
    free(old.slots);
}

bool record_keys_add(struct record_keys *k, const uint8_t *key, size_t key_len)
{
    XXH128_hash_t x = XXH3_128bits(key, key_len);
    struct record_hash h = { x.low64, x.high64 | 1 }; /* never that of a free slot */
    struct record_hash *slot;

    if (4 * k->n >= 3 * k->n_slots) {
        grow(k);
    }
    slot = slot_of(k, h);
    if (!is_free(slot)) {
        return false;
    }
    *slot = h;
    k->n++;
    return true;
}

void record_keys_free(struct record_keys *k)
{
    free(k->slots);
    *k = (struct record_keys){ 0 };
}
