#include "loader.h"

#include "base/assert.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/rng.h"
#include "client.h"
#include "core/hashspace.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHARDS        8
#define PARTITIONS    256
#define UNDER_WAY_MAX 48
#define KEY_BYTES     16
#define VALUE_BYTES   65536
#define RETRY_USEC    2000
#define EXPIRY_SEC    100000

/* A key, and the one operation on it that is under way. */
struct slot {
    char key[KEY_BYTES];
    size_t key_len;
    uint16_t partition;
    struct state state; /* as it was observed or answered last */
    struct buf value;

    bool busy;
    bool again;    /* the server was not ready for it */
    bool verifies; /* the first read after the start */
    struct op op;
    bool changes; /* when done: the key is `next`, with `next_value` */
    struct state next;
    struct buf next_value;
    uint8_t expected; /* enum result_code */
};

struct loader {
    const struct loader_options *o;
    struct client clients[SHARDS];
    struct slot *slots;
    size_t n;
    size_t under_way;
    uint64_t session;
    uint64_t numbers[PARTITIONS];
    uint64_t submitted;
    bool no_room; /* the last write was refused for that */
    struct rng rng;
};

/* ---- what is wrong ---- */

static void describe(const struct state *s, char out[64])
{
    if (s->exists) {
        snprintf(out, 64, "%u bytes %016llx, flags %u", s->bytes, (unsigned long long) s->hash,
                 s->flags);
    } else {
        snprintf(out, 64, "not there");
    }
}

static void complain(struct loader *l, bool lost, const struct slot *s, const char *what,
                     const struct state *found)
{
    struct loader_report *r = l->o->report;
    char expected[64];
    char is[64];

    describe(&s->state, expected);
    describe(found, is);
    if (r->lost + r->corrupt == 0) {
        snprintf(r->why, sizeof(r->why), "%s (partition %u): %s; found %s, known was %s", s->key,
                 s->partition, what, is, expected);
    }
    r->lost += lost;
    r->corrupt += !lost;
}

/* ---- operations ---- */

static uint64_t first_unanswered(const struct loader *l, uint16_t partition)
{
    uint64_t first = l->numbers[partition];

    for (size_t i = 0; i < l->n; i++) {
        const struct slot *s = &l->slots[i];
        if (s->busy && s->op.op.number > 0 && s->partition == partition) {
            first = MIN_OF(first, s->op.op.number);
        }
    }
    return first;
}

static void slot_send(struct loader *l, struct slot *s)
{
    s->again = false;
    client_add(&l->clients[s->partition % l->o->shards], &s->op);
}

static void note(const struct loader *l, enum record_kind kind, const struct slot *s, bool flag,
                 const struct state *state)
{
    struct record head = { .kind = kind, .at = (uint64_t) (s - l->slots), .flag = flag };

    journal_note(l->o->journal, &head, state, state ? sizeof(*state) : 0);
}

static void begin(struct loader *l, struct slot *s, uint8_t code, uint8_t expected, bool changes)
{
    s->busy = true;
    s->expected = expected;
    s->changes = changes;
    s->op.id = (uint64_t) (s - l->slots);
    s->op.code = code;
    s->op.key = (const uint8_t *) s->key;
    s->op.key_len = (uint8_t) s->key_len;
    l->under_way++;
    if (code != OP_GET) {
        s->op.op.number = ++l->numbers[s->partition];
        s->op.op.first = first_unanswered(l, s->partition);
    }
    if (changes) {
        struct state told = s->next;
        told.hash ^= l->o->wrong_values && rng_chance(&l->rng, 1, 20);
        note(l, RECORD_SUBMIT, s, false, &told);
    }
    slot_send(l, s);
}

static size_t value_bytes(struct rng *rng)
{
    uint64_t kind = rng_below(rng, 20);

    return rng_below(rng, kind < 12 ? 512 : kind < 19 ? 8192 : VALUE_BYTES + 1);
}

static void value_fill(struct rng *rng, struct buf *b, size_t bytes)
{
    uint8_t *p = buf_reserve(b, bytes + sizeof(uint64_t));

    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t x = rng_u64(rng);
        memcpy(p + i, &x, sizeof(x));
    }
    b->end += bytes;
}

/* The new value is what is in next_value from `from` on; the key's will be all of it. */
static void begin_write(struct loader *l, struct slot *s, uint8_t code, size_t from)
{
    s->op.value = buf_head(&s->next_value) + from;
    s->op.value_len = (uint32_t) (buf_len(&s->next_value) - from);
    s->next = (struct state){
        .exists = true,
        .flags = code == OP_APPEND ? s->state.flags : s->op.flags,
        .bytes = (uint32_t) buf_len(&s->next_value),
        .hash = state_hash(buf_head(&s->next_value), buf_len(&s->next_value)),
    };
    begin(l, s, code, RESULT_STORED, true);
}

static void begin_random(struct loader *l, struct slot *s)
{
    uint64_t kind = rng_below(&l->rng, 100);
    size_t bytes = value_bytes(&l->rng);

    s->op = (struct op){ 0 };
    buf_clear(&s->next_value);
    if (kind < 10) {
        begin(l, s, OP_GET, s->state.exists ? RESULT_VALUE : RESULT_NOT_FOUND, false);
    } else if (kind < 25) {
        s->next = (struct state){ 0 };
        begin(l, s, OP_DELETE, s->state.exists ? RESULT_DELETED : RESULT_NOT_FOUND,
              s->state.exists);
    } else if (kind < 40 && s->state.exists && s->state.bytes + bytes <= VALUE_BYTES) {
        buf_append(&s->next_value, buf_head(&s->value), buf_len(&s->value));
        value_fill(&l->rng, &s->next_value, bytes);
        begin_write(l, s, OP_APPEND, s->state.bytes);
    } else {
        value_fill(&l->rng, &s->next_value, bytes);
        s->op.flags = (uint32_t) rng_u64(&l->rng);
        s->op.exptime = rng_chance(&l->rng, 1, 8) ? EXPIRY_SEC : 0;
        begin_write(l, s, OP_SET, 0);
    }
}

/* ---- answers ---- */

static struct state state_of(const struct result *r)
{
    return (struct state){ .exists = r->code == RESULT_VALUE,
                           .flags = r->flags,
                           .bytes = r->value_len,
                           .hash = state_hash(r->value, r->value_len) };
}

static void observe(struct loader *l, struct slot *s, const struct result *r)
{
    struct state found = r->code == RESULT_VALUE ? state_of(r) : (struct state){ 0 };
    size_t key = (size_t) (s - l->slots);
    enum verdict v = model_judge(l->o->model, key, &found);
    char what[64];

    s->state = model_certain(l->o->model, key);
    if (r->code == RESULT_DAMAGED) {
        l->o->report->damaged++;
        return;
    }
    snprintf(what, sizeof(what), "a read after the start was answered %u", r->code);
    if (r->code != RESULT_VALUE && r->code != RESULT_NOT_FOUND) {
        complain(l, false, s, what, &found);
    } else if (v != VERDICT_RIGHT) {
        complain(l, v == VERDICT_LOST, s, what, &found);
    }
    s->state = found;
    buf_clear(&s->value);
    buf_append(&s->value, r->value, r->value_len);
    note(l, RECORD_OBSERVED, s, false, &found);
}

static void answered(struct loader *l, struct slot *s, const struct result *r)
{
    struct state found = r->code == RESULT_VALUE ? state_of(r) : (struct state){ 0 };
    char what[64];

    if (r->code == RESULT_NO_SPACE) {
        l->o->report->refused++;
        l->no_room = true;
        if (s->changes) {
            note(l, RECORD_ANSWER, s, true, NULL);
        }
        return;
    }
    if (r->code != s->expected) {
        snprintf(what, sizeof(what), "operation %u was answered %u, not %u", s->op.code, r->code,
                 s->expected);
        complain(l, false, s, what, &found);
    } else if (r->code == RESULT_VALUE && !state_equal(&found, &s->state)) {
        complain(l, false, s, "read", &found);
    } else if (s->changes) {
        struct buf old = s->value;
        note(l, RECORD_ANSWER, s, false, NULL);
        s->state = s->next;
        s->value = s->next_value;
        s->next_value = old;
        l->no_room = false;
        l->o->report->answered++;
    }
}

static void on_result(void *ctx, const struct result *r)
{
    struct loader *l = ctx;
    struct slot *s = &l->slots[r->id];

    kumo_assert(r->id < l->n);
    if (!s->busy) {
        complain(l, false, s, "answered twice", &s->state);
        return;
    }
    if (r->code == RESULT_NOT_PRIMARY || r->code == RESULT_BUSY) {
        s->again = true;
        return;
    }
    s->busy = false;
    l->under_way--;
    if (s->verifies) {
        s->verifies = false;
        observe(l, s, r);
    } else {
        answered(l, s, r);
    }
}

/* ---- the rounds ---- */

/* Sends what is ready and handles what has come; asks refused operations again. */
static int round_trip(struct loader *l)
{
    struct pollfd fds[SHARDS];
    bool again = false;
    int r = 0;

    for (uint32_t i = 0; i < l->o->shards && r == 0; i++) {
        r = client_flush(&l->clients[i], l->session);
        fds[i] = (struct pollfd){ .fd = l->clients[i].fd, .events = POLLIN };
    }
    if (r < 0 || poll(fds, l->o->shards, RETRY_USEC / 1000) < 0) {
        return -ECONNRESET;
    }
    for (uint32_t i = 0; i < l->o->shards && r == 0; i++) {
        if (fds[i].revents) {
            r = client_read(&l->clients[i], on_result, l);
        }
    }
    for (size_t i = 0; i < l->n; i++) {
        if (l->slots[i].again) {
            again = true;
            slot_send(l, &l->slots[i]);
        }
    }
    if (again) {
        usleep(RETRY_USEC);
    }
    return r;
}

static int verify(struct loader *l)
{
    int r = 0;

    for (size_t i = 0; i < l->n; i++) {
        l->slots[i].verifies = true;
        begin(l, &l->slots[i], OP_GET, 0, false);
    }
    while (r == 0 && l->under_way > 0) {
        r = round_trip(l);
    }
    return r;
}

static int work(struct loader *l)
{
    size_t draw;
    int r = 0;

    while (r == 0 && (l->submitted < l->o->n_ops || l->no_room)) {
        size_t burst = (size_t) rng_between(&l->rng, 1, UNDER_WAY_MAX);
        while (l->under_way < burst && !l->slots[draw = rng_below(&l->rng, l->n)].busy) {
            l->submitted++;
            begin_random(l, &l->slots[draw]);
        }
        r = round_trip(l);
        usleep((useconds_t) rng_below(&l->rng, l->o->pause_usec_max + 1));
    }
    while (r == 0 && l->o->waits && l->under_way > 0) {
        r = round_trip(l);
    }
    return r;
}

static void slots_make(struct loader *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct slot *s = &l->slots[i];
        uint64_t hash;
        s->key_len = (size_t) snprintf(s->key, sizeof(s->key), "key-%zu", i);
        hash = hashspace_hash((const uint8_t *) s->key, s->key_len);
        s->partition = hashspace_partition_of_hash(hash, l->o->partitions);
    }
}

void loader_run(const struct loader_options *o, uint16_t port)
{
    struct loader l = { .o = o, .n = model_keys(o->model), .rng = { o->seed } };
    int r = 0;

    kumo_assert(o->shards <= SHARDS && o->partitions <= PARTITIONS);
    kumo_assert(l.n >= 2 * UNDER_WAY_MAX);
    l.session = o->session;
    l.slots = mem_zalloc(l.n, sizeof(*l.slots));
    slots_make(&l);
    for (uint32_t i = 0; i < o->shards && r == 0; i++) {
        r = client_open(&l.clients[i], port, i);
    }
    if (r == 0) {
        r = verify(&l);
    }
    if (r == 0) {
        o->report->verified = true;
        r = work(&l);
    }
    o->report->done = r == 0;
    for (uint32_t i = 0; i < o->shards; i++) {
        client_close(&l.clients[i]);
    }
    for (size_t i = 0; i < l.n; i++) {
        buf_free(&l.slots[i].value);
        buf_free(&l.slots[i].next_value);
    }
    free(l.slots);
}
