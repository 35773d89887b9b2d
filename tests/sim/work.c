/* What clients do: few keys, so that operations meet; unique values, so that histories tell much.
 */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "core/hashspace.h"

#include <errno.h>
#include <stdlib.h>

#define KEY_OPS_MAX      400 /* then another key takes its place: histories stay short */
#define KEY_UNKNOWN_MAX  5   /* likewise */
#define KEY_EXPIRIES_MAX 24  /* likewise: each expiry has an unknown outcome */
#define ELEMENT_BYTES    7

/* ---- keys ---- */

static void history_add(struct key *k, const struct lin_op *o)
{
    mem_grow(&k->ops, &k->cap, k->n + 1, sizeof(*k->ops));
    k->ops[k->n++] = *o;
    k->unknown += o->ret == LIN_NEVER;
}

void work_flushed(struct sim *s, const struct slot *slot)
{
    for (size_t i = 0; i < s->n_keys; i++) {
        if (s->keys[i]->partition == slot->partition) {
            history_add(s->keys[i], &slot->flush);
        }
    }
    if (slot->flush.ret == LIN_NEVER) {
        mem_grow(&s->lost_flushes, &s->cap_lost_flushes, s->n_lost_flushes + 1,
                 sizeof(*s->lost_flushes));
        s->lost_flushes[s->n_lost_flushes++] = (struct lost_flush){ slot->partition, slot->flush };
    }
}

struct key *work_key_new(struct sim *s, enum key_kind kind, int partition)
{
    struct key *k = mem_zalloc(1, sizeof(*k));
    uint32_t n = s->setup.partitions;

    k->kind = (uint8_t) kind;
    do {
        k->name_len = (uint8_t) snprintf(k->name, sizeof(k->name), "%c%llu", "mcex"[kind],
                                         (unsigned long long) ++s->serial);
        k->partition =
            hashspace_partition_of_hash(hashspace_hash((const uint8_t *) k->name, k->name_len), n);
    } while (partition >= 0 && k->partition != partition);
    mem_grow(&s->keys, &s->cap_keys, s->n_keys + 1, sizeof(struct key *));
    s->keys[s->n_keys++] = k;
    for (size_t i = 0; i < s->n_lost_flushes; i++) {
        if (s->lost_flushes[i].partition == k->partition) {
            history_add(k, &s->lost_flushes[i].op);
        }
    }
    return k;
}

static enum key_kind kind_draw(struct sim *s)
{
    uint64_t n = sim_between(s, 0, 9);

    if (s->setup.expiry && sim_chance(s, 1, 3)) {
        return KEY_EXPIRING;
    }
    return n < 7 || s->setup.flushes ? KEY_MIXED : n < 9 ? KEY_COUNTER : KEY_ELEMENTS;
}

void work_keys_init(struct sim *s)
{
    for (uint32_t p = 0; p < s->setup.partitions; p++) {
        for (uint32_t i = 0; i < s->setup.keys_per_partition; i++) {
            s->current[s->n_current++] = work_key_new(s, kind_draw(s), (int) p);
        }
    }
}

void work_keys_free(struct sim *s)
{
    for (size_t i = 0; i < s->n_keys; i++) {
        struct key *k = s->keys[i];
        for (size_t j = 0; j < k->n; j++) {
            free((void *) k->ops[j].value);
        }
        free(k->ops);
        free(k);
    }
    free(s->keys);
    free(s->lost_flushes);
}

static struct key *key_draw(struct sim *s)
{
    struct key **k = &s->current[sim_between(s, 0, s->n_current - 1)];

    if ((*k)->n >= KEY_OPS_MAX ||
        (*k)->unknown >= ((*k)->kind == KEY_EXPIRING ? KEY_EXPIRIES_MAX : KEY_UNKNOWN_MAX)) {
        (*k)->retired = true;
        *k = work_key_new(s, (enum key_kind)(*k)->kind, (*k)->partition);
    }
    return *k;
}

/* ---- operations ---- */

struct draft {
    struct op op;
    char value[SIM_VALUE_BYTES];
};

static void draft_value(struct draft *d, const char *before, uint64_t n, const char *after)
{
    d->op.value_len = (uint32_t) snprintf(d->value, sizeof(d->value), "%s%llu%s", before,
                                          (unsigned long long) n, after);
    d->op.value = (const uint8_t *) d->value;
}

/* Now and then a value fills sectors and segments. */
static void draft_pad(struct sim *s, struct draft *d)
{
    uint32_t bytes = d->op.value_len;

    if (s->setup.large_values && d->value[0] == 'v' && sim_chance(s, 1, 10)) {
        bytes = (uint32_t) sim_between(s, 100, SIM_VALUE_BYTES / 2);
        memset(d->value + d->op.value_len, 'x', bytes - d->op.value_len);
        d->op.value_len = bytes;
    }
}

static void draft_store(struct sim *s, struct draft *d, uint8_t code)
{
    bool number = sim_chance(s, 1, 3);

    d->op.code = code;
    d->op.flags = (uint32_t) rng_u64(&s->rng);
    draft_value(d, number ? "" : "v", ++s->serial * (number ? 1000 : 1), "");
    draft_pad(s, d);
}

static void draft_count(struct sim *s, struct draft *d, uint8_t code)
{
    d->op.code = code;
    d->op.operand = sim_between(s, 1, 9);
}

static void draft_mixed(struct sim *s, const struct key *k, struct draft *d)
{
    static const uint8_t codes[] = {
        OP_GET,    OP_GET,     OP_GET,    OP_GET,    OP_GET,     OP_GET,  OP_GET,   OP_SET,
        OP_SET,    OP_SET,     OP_SET,    OP_ADD,    OP_REPLACE, OP_CAS,  OP_CAS,   OP_CAS,
        OP_APPEND, OP_PREPEND, OP_DELETE, OP_DELETE, OP_INCR,    OP_DECR, OP_TOUCH, OP_GAT,
    };
    uint8_t code = codes[sim_between(s, 0, ARRAY_LEN(codes) - 1)];

    d->op.code = code;
    switch (code) {
    case OP_SET:
    case OP_ADD:
    case OP_REPLACE:
        draft_store(s, d, code);
        return;
    case OP_CAS:
        draft_store(s, d, code);
        d->op.operand = k->last_token + (sim_chance(s, 1, 10) ? 1 : 0);
        return;
    case OP_APPEND:
    case OP_PREPEND:
        draft_value(d, ".", ++s->serial, "");
        return;
    case OP_INCR:
    case OP_DECR:
        draft_count(s, d, code);
        return;
    default:
        return;
    }
}

static void draft_counter(struct sim *s, const struct key *k, struct draft *d)
{
    uint64_t n = sim_between(s, 0, 9);

    if (k->n < 3) {
        d->op.code = OP_ADD;
        draft_value(d, "", 0, "");
    } else if (n < 7) {
        draft_count(s, d, OP_INCR);
    } else {
        d->op.code = OP_GET;
    }
}

static void draft_elements(struct sim *s, const struct key *k, struct draft *d)
{
    uint64_t n = sim_between(s, 0, 9);

    if (k->n < 3) {
        d->op.code = OP_ADD;
    } else if (n < 5) {
        d->op.code = n < 3 ? OP_APPEND : OP_PREPEND;
        draft_value(d, "", 100000 + ++s->serial, ";");
    } else {
        d->op.code = OP_GET;
    }
}

static void draft_expiring(struct sim *s, const struct key *k, struct draft *d)
{
    static const uint8_t codes[] = { OP_GET, OP_GET, OP_GET, OP_GET,    OP_GET,
                                     OP_ADD, OP_ADD, OP_CAS, OP_DELETE, OP_SET };
    uint8_t code = codes[sim_between(s, 0, ARRAY_LEN(codes) - 1)];

    d->op.code = code;
    if (code == OP_ADD || code == OP_SET || code == OP_CAS) {
        draft_store(s, d, code);
        d->op.exptime = sim_chance(s, 3, 4) ? (int64_t) sim_between(s, 1, 3) : 0;
        if (d->op.exptime != 0 && sim_chance(s, 1, 4)) {
            d->op.exptime = INT64_C(1700000000) - 5000; /* long over: compaction may drop it */
        }
        d->op.operand = code == OP_CAS ? k->last_token : 0;
    }
}

/* What it stores may be gone at any time from now on: servers' clocks are all wrong. */
static void expiry_note(struct sim *s, struct key *k, const struct op *op)
{
    struct lin_op o = { .call = s->logical, .ret = LIN_NEVER, .code = LIN_EXPIRE };
    uint8_t *copy = mem_alloc(op->value_len + 1);

    memcpy(copy, op->value, op->value_len);
    o.value = copy;
    o.value_len = op->value_len;
    history_add(k, &o);
}

static void flush_submit(struct sim *s, struct client *c, struct slot *slot)
{
    struct op op = { .code = OP_FLUSH, .operand = sim_between(s, 0, s->setup.partitions - 1) };

    client_submit(s, c, slot, NULL, &op);
}

static void draft_fill(struct sim *s, const struct key *k, struct draft *d)
{
    switch (k->kind) {
    case KEY_MIXED:
        draft_mixed(s, k, d);
        break;
    case KEY_COUNTER:
        draft_counter(s, k, d);
        break;
    case KEY_EXPIRING:
        draft_expiring(s, k, d);
        break;
    default:
        draft_elements(s, k, d);
    }
    d->op.key = (const uint8_t *) k->name;
    d->op.key_len = k->name_len;
}

/* Cut off from the manager, perhaps with a primary that is deposed meanwhile: a write waits there
 * for long, reads may tell. */
static bool is_apart(const struct sim *s, const struct client *c)
{
    return cut_until(s, LANE_DATA, &(struct endpoint){ END_MANAGER, 0, 0 },
                     &(struct endpoint){ END_CLIENT, (uint8_t) c->index, 0 }) > s->now_usec;
}

void work_next(struct sim *s, struct client *c, struct slot *slot)
{
    struct draft d;
    struct key *k;

    memset(&d.op, 0, sizeof(d.op));
    if (s->quiet || slot->busy || c == &s->prober) {
        return;
    }
    if (s->setup.flushes && s->n_current > 0 && sim_chance(s, 1, 200)) {
        flush_submit(s, c, slot);
        return;
    }
    k = key_draw(s);
    if (is_apart(s, c) && sim_chance(s, 7, 8)) {
        d.op.code = OP_GET;
        d.op.key = (const uint8_t *) k->name;
        d.op.key_len = k->name_len;
    } else {
        draft_fill(s, k, &d);
    }
    client_submit(s, c, slot, k, &d.op);
    if (d.op.exptime != 0) {
        expiry_note(s, k, &d.op);
    }
}

static void begins(struct sim *s, struct event *e)
{
    work_next(s, client_of(s, (uint32_t) e->number), e->who);
}

void work_begin(struct sim *s, struct client *c)
{
    for (uint32_t i = 0; i < c->n_slots && c != &s->prober; i++) {
        sim_after(s, sim_between(s, 0, s->setup.think_max_usec), &c->process, begins, &c->slots[i],
                  c->index, NULL);
    }
}

/* ---- at the end ---- */

static void probe(struct sim *s, uint32_t i, struct key *k, uint8_t code)
{
    struct draft d;

    memset(&d.op, 0, sizeof(d.op));
    d.op.code = code;
    if (code == OP_SET) {
        draft_store(s, &d, OP_SET);
    }
    d.op.key = (const uint8_t *) k->name;
    d.op.key_len = k->name_len;
    client_submit(s, &s->prober, &s->prober.slots[i], k, &d.op);
}

/* The first slots write and read each partition, the others read each key. */
void work_probe(struct sim *s)
{
    uint32_t n = 2 * s->setup.partitions;
    size_t known = s->n_keys;
    uint32_t i = 0;

    client_init(s, &s->prober, SIM_CLIENTS_MAX, n + (uint32_t) known);
    client_start(s, &s->prober);
    for (uint32_t p = 0; p < s->setup.partitions; p++) {
        struct key *k = work_key_new(s, KEY_MIXED, (int) p);
        probe(s, i++, k, OP_SET);
        probe(s, i++, k, OP_GET);
    }
    for (size_t j = 0; j < known; j++) {
        probe(s, i++, s->keys[j], OP_GET);
    }
}

/* What the counts of a key's history say of its last read. */
static void count_check(struct sim *s, const struct key *k, const struct lin_op *last)
{
    uint64_t n;

    if (check_is_lossy(s, k->partition) || last->result != RESULT_VALUE ||
        (k->kind != KEY_COUNTER && k->kind != KEY_ELEMENTS)) {
        return;
    }
    if (k->kind == KEY_COUNTER) {
        n = strtoull((const char *) last->value, NULL, 10);
        if (lin_check_counter(k->ops, k->n, 0, n) < 0) {
            sim_fail(s, "counter %s: %llu is not what was acknowledged", k->name,
                     (unsigned long long) n);
        }
    } else {
        int err = lin_check_elements(k->ops, k->n, ELEMENT_BYTES, last->value, last->value_len);
        if (err < 0) {
            sim_fail(s, "elements of %s: %s", k->name,
                     err == -ENOENT ? "an acknowledged one is lost"
                                    : "one is there twice, or nobody's");
        }
    }
}

void work_probe_end(struct sim *s)
{
    for (uint32_t i = 0; i < s->prober.n_slots && !s->failed; i++) {
        const struct slot *slot = &s->prober.slots[i];
        const struct lin_op *o = &slot->key->ops[slot->op];
        if (!check_has_copy(s, slot->key->partition)) {
            continue;
        }
        if (slot->busy || o->ret == LIN_NEVER || o->result == RESULT_BUSY) {
            sim_fail(s, "I11: partition %u does not serve key %s %d s after everything was healed",
                     slot->key->partition, slot->key->name, MEMBERS_BACK_SEC);
        } else if (i >= 2 * s->setup.partitions) {
            count_check(s, slot->key, o);
        }
    }
}
