/* The hand-driven cluster's beginning, restarts and end; operations, and what became of them. */
#pragma once

#include "shard_rig.h"

/* ---- making, restarting ---- */

static inline int rig_shard_new(struct rig_node *n, struct shard **ret)
{
    struct shard_options o = {
        .log = { .start = n->start,
                 .shards = 1,
                 .partitions = n->rig->partitions,
                 .first_segment = n->next_segment,
                 .segment_bytes = RIG_SEGMENT_BYTES },
        .server = n->server,
        .value_bytes_max = RIG_VALUE_MAX,
        .index_open = index_map_open,
        .read = rig_read,
        .read_ctx = n,
        .distrusted = n->distrusted,
    };

    return shard_new(&o, ret);
}

#define RIG_SESSION 77

/* The managers tell a server about sessions; `ended`: these are over. */
static inline void rig_sessions(struct rig *g, uint32_t server, uint64_t index, bool whole,
                                const uint64_t *ids, uint32_t opened, uint32_t ended)
{
    struct shard_event e = { .kind = SHARD_SESSIONS };

    e.sessions = (struct msg_sessions){ index, whole, opened, ended, ids };
    rig_step(g, server, &e);
}

static inline void rig_session_open(struct rig *g, uint32_t server)
{
    rig_sessions(g, server, 100, true, (uint64_t[]){ RIG_SESSION }, 1, 0);
}

static inline struct rig *rig_new(uint32_t partitions)
{
    struct rig *g = calloc(1, sizeof(*g));

    g->partitions = partitions;
    g->msgs = calloc(RIG_MSGS_MAX, sizeof(*g->msgs));
    g->answers = calloc(RIG_ANSWERS_MAX, sizeof(*g->answers));
    g->boot_usec = 1000000;
    g->next_id = 1;
    for (uint32_t i = 1; i <= RIG_SERVERS; i++) {
        g->nodes[i].rig = g;
        g->nodes[i].server = i;
        g->nodes[i].next_segment = 1;
        g->nodes[i].start = 1;
        assert_int_equal(rig_shard_new(&g->nodes[i], &g->nodes[i].shard), 0);
        rig_session_open(g, i);
    }
    return g;
}

static inline void rig_free(struct rig *g)
{
    rig_drop_all(g, 0, 0, 0);
    for (uint32_t i = 1; i <= RIG_SERVERS; i++) {
        shard_free(g->nodes[i].shard);
        for (size_t j = 0; j < g->nodes[i].n_files; j++) {
            free(g->nodes[i].files[j].data);
        }
    }
    free(g->msgs);
    free(g->answers);
    free(g);
}

struct rig_replay {
    struct shard *shard;
};

static inline int rig_replay_frame(void *ctx, const struct frame *f, struct position at)
{
    return shard_replay_frame(((struct rig_replay *) ctx)->shard, f, at);
}

/* A new shard of this server, made from its log image alone. */
static inline struct shard *rig_replay(struct rig_node *n)
{
    struct wal_segment segments[RIG_FILES_MAX] = { 0 };
    struct wal_damage damage;
    struct rig_replay replay;

    for (size_t i = 0; i < n->n_files; i++) {
        segments[i] = (struct wal_segment){ .number = n->files[i].number,
                                            .data = n->files[i].data,
                                            .bytes = n->files[i].bytes };
    }
    assert_int_equal(wal_check(segments, n->n_files, NULL, &damage), 0);
    assert_int_equal(rig_shard_new(n, &replay.shard), 0);
    for (size_t i = 0; i < n->n_files; i++) {
        assert_int_equal(segments[i].good_bytes, n->files[i].bytes);
        assert_int_equal(wal_walk(&segments[i], rig_replay_frame, &replay), 0);
    }
    shard_replay_end(replay.shard);
    return replay.shard;
}

/* Ends the process and starts it again from what it wrote; what was gathered in memory only, and
 * messages to and from it, are lost. */
static inline void rig_restart(struct rig *g, uint32_t server)
{
    struct rig_node *n = &g->nodes[server];

    rig_drop_all(g, 0, server, 0);
    rig_drop_all(g, 0, 0, server);
    shard_free(n->shard);
    n->start++;
    n->shard = rig_replay(n);
    n->written_group = n->synced_group = 0;
    n->halted = NULL;
    rig_session_open(g, server);
}

/* ---- looking ---- */

static inline struct replica_info rig_info(struct rig *g, uint32_t server)
{
    struct replica_info info;

    assert_int_equal(shard_replica_info(g->nodes[server].shard, 0, &info), 0);
    return info;
}

#define rig_assert_state(g, server, want)                                                          \
    assert_string_equal(replica_state_name(rig_info(g, server).state), replica_state_name(want))

#define rig_assert_name(name_, view_, seq_)                                                        \
    do {                                                                                           \
        assert_int_equal((name_).view, view_);                                                     \
        assert_int_equal((name_).seq, seq_);                                                       \
    } while (0)

/* ---- operations ---- */

/* Sends an operation to a server; returns its id, by which rig_answer finds what it got. */
static inline uint64_t rig_op(struct rig *g, uint32_t server, const struct op *op)
{
    struct shard_event e = { .kind = SHARD_OP };

    e.op.op = *op;
    e.op.op.id = g->next_id++;
    e.op.asker = (struct asker){ .conn = 1, .id = e.op.op.id };
    rig_step(g, server, &e);
    return e.op.op.id;
}

static inline struct op op_of(uint8_t code, const char *key, const char *value)
{
    return (struct op){
        .code = code,
        .key = (const uint8_t *) key,
        .key_len = (uint8_t) (key ? strlen(key) : 0),
        .value = (const uint8_t *) value,
        .value_len = value ? (uint32_t) strlen(value) : 0,
    };
}

static inline uint64_t rig_kv(struct rig *g, uint32_t server, uint8_t code, const char *key,
                              const char *value)
{
    struct op op = op_of(code, key, value);

    return rig_op(g, server, &op);
}

/* As rig_kv, with an op id (R12). */
static inline uint64_t rig_id(struct rig *g, uint32_t server, uint8_t code, const char *key,
                              const char *value, uint64_t number, uint64_t first)
{
    struct op op = op_of(code, key, value);

    op.op = (struct op_id){ .session = RIG_SESSION, .number = number, .first = first };
    return rig_op(g, server, &op);
}

/* incr, decr, cas, touch: an operation with a number and an exptime. */
static inline uint64_t rig_num(struct rig *g, uint32_t server, uint8_t code, const char *key,
                               uint64_t operand, int64_t exptime)
{
    struct op op = op_of(code, key, NULL);

    op.operand = operand;
    op.exptime = exptime;
    return rig_op(g, server, &op);
}

static inline const struct rig_answer *rig_find_answer(const struct rig *g, uint64_t id)
{
    const struct rig_answer *found = NULL;

    for (size_t i = 0; i < g->n_answers; i++) {
        if (g->answers[i].id == id) {
            assert_null(found); /* answered once */
            found = &g->answers[i];
        }
    }
    return found;
}

/* enum result_code, or 0 when it is not answered yet. */
static inline int rig_answer(const struct rig *g, uint64_t id)
{
    const struct rig_answer *a = rig_find_answer(g, id);

    return a ? a->result.code : 0;
}

/* The value that a get finds at the server now, "" when it misses. */
static inline const char *rig_get(struct rig *g, uint32_t server, const char *key)
{
    uint64_t id = rig_kv(g, server, OP_GET, key, NULL);
    const struct rig_answer *a = rig_find_answer(g, id);

    if (!a) { /* its leases have ended: it waits for others */
        rig_tick(g, server, SHARD_LEASE_USEC);
        rig_turn(g, server);
        a = rig_find_answer(g, id);
    }
    if (!a) { /* its record has ended: that is noted first */
        struct replica_info info = rig_info(g, server);
        char members[RIG_SERVERS + 1] = "";
        for (unsigned i = 0; i < info.n_members; i++) {
            members[i] = (char) ('0' + info.members[i]);
        }
        rig_run(g, members);
        a = rig_find_answer(g, id);
    }
    assert_non_null(a); /* reads wait for nothing else */
    if (a->result.code == RESULT_NOT_FOUND) {
        return "";
    }
    assert_int_equal(a->result.code, RESULT_VALUE);
    return a->value;
}

/* What a replica itself holds of a key; "" when nothing. */
static inline const char *rig_peek(struct rig *g, uint32_t server, const char *key, char out[64])
{
    struct shard_event e = { .kind = SHARD_PEEK };
    struct rig_node *n = &g->nodes[server];

    e.peek.key = (const uint8_t *) key;
    e.peek.key_len = strlen(key);
    rig_step(g, server, &e);
    assert_true(n->peek.value_len < 64);
    memset(out, 0, 64);
    if (n->peek.found) {
        memcpy(out, n->peek.value, n->peek.value_len);
    }
    return out;
}

/* Enters the same view at all of its members and runs until it serves. */
static inline void rig_form(struct rig *g, uint32_t view, const char *members)
{
    for (const char *m = members; *m; m++) {
        rig_view(g, (uint32_t) (*m - '0'), view, members);
    }
    rig_run(g, members);
    if (rig_info(g, (uint32_t) (members[0] - '0')).state == REPLICA_RECONCILING) {
        rig_tick(g, (uint32_t) (members[0] - '0'), PROMISE_USEC); /* of an earlier process (R10) */
        rig_run(g, members);
    }
    rig_assert_state(g, (uint32_t) (members[0] - '0'), REPLICA_PRIMARY);
    for (const char *m = members + 1; *m; m++) {
        rig_assert_state(g, (uint32_t) (*m - '0'), REPLICA_SECONDARY);
    }
}

/* ---- replay equality ---- */

static inline void rig_note_tail(void *ctx, const struct entry *e, bool durable)
{
    char line[128];

    (void) durable;
    snprintf(line, sizeof(line), "%u.%llu k%u %.*s %u\n", e->name.view,
             (unsigned long long) e->name.seq, e->kind, e->key_len, (const char *) e->key,
             e->value_len);
    buf_append(ctx, line, strlen(line));
}

static inline void rig_note_state(const struct shard *s, uint32_t partitions, struct buf *b)
{
    struct replica_info i;
    char line[160];

    for (uint32_t p = 0; p < partitions; p++) {
        assert_int_equal(shard_replica_info(s, (uint16_t) p, &i), 0);
        snprintf(line, sizeof(line), "p%u v%u c%u.%llu l%u.%llu\n", p, i.view, i.commit.view,
                 (unsigned long long) i.commit.seq, i.last.view, (unsigned long long) i.last.seq);
        buf_append(b, line, strlen(line));
        shard_tail_walk(s, (uint16_t) p, rig_note_tail, b);
    }
}

/* Whatever happened: the log alone gives the same views, commits, tails and records again. Ticks
 * and syncs first, so that the commit is in the log. `keys` are compared one by one. */
static inline void rig_assert_replay(struct rig *g, uint32_t server, const char *const *keys,
                                     size_t n_keys)
{
    struct rig_node *n = &g->nodes[server];
    struct buf live = { 0 }, again = { 0 };
    struct shard_counts a, b;
    struct shard *s;

    rig_tick(g, server, 2 * SHARD_COMMIT_USEC);
    rig_sync(g, server);
    s = rig_replay(n);
    rig_note_state(n->shard, g->partitions, &live);
    rig_note_state(s, g->partitions, &again);
    buf_append(&live, "", 1);
    buf_append(&again, "", 1);
    assert_string_equal((char *) live.data, (char *) again.data);
    shard_count(n->shard, &a);
    shard_count(s, &b);
    assert_int_equal(a.records, b.records);
    assert_int_equal(a.tail_bytes, b.tail_bytes);
    for (size_t i = 0; i < n_keys; i++) {
        struct index_record x = { 0 }, y = { 0 };
        int have = shard_record(n->shard, (const uint8_t *) keys[i], strlen(keys[i]), &x);
        assert_int_equal(shard_record(s, (const uint8_t *) keys[i], strlen(keys[i]), &y), have);
        assert_int_equal(x.seq, y.seq);
        assert_int_equal(x.kind, y.kind);
        assert_int_equal(x.expiry_sec, y.expiry_sec);
        assert_int_equal(x.bytes, y.bytes);
    }
    buf_free(&live);
    buf_free(&again);
    shard_free(s);
}
