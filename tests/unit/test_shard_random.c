/* Random histories of one partition on three servers: messages lost, doubled and reordered,
 * processes killed with or without what they had not synced, views changed by the rules of R7 and
 * R11. After each: answered writes are there, nothing else is, one name has one content, and each
 * log alone, as well as a checkpoint with the log behind it, gives the state of its server. */
#include "base/rng.h"
#include "core/checkpoint.h"
#include "shard_rig_ops.h"

#define STEPS 600
#define KEYS  5

static const char *const key_names[KEYS] = { "a", "b", "c", "d", "e" };

struct world {
    struct rig *g;
    struct rng rng;
    uint64_t seed;
    uint32_t view;
    char members[8];
    uint64_t calm; /* the higher, the fewer disasters */
    bool healing;
    uint64_t adds[1000]; /* ids of unique adds, by number */
    size_t n_adds;
    uint64_t retries[1000]; /* ids of adds that were sent again */
    size_t n_retries;
    struct buf checkpoint[RIG_SERVERS + 1]; /* the newest of each server, empty: none */
    uint64_t checkpoint_group[RIG_SERVERS + 1];
    size_t synced_bytes[RIG_SERVERS + 1][RIG_FILES_MAX];
    size_t synced_files[RIG_SERVERS + 1];
};

static uint32_t member(struct world *w)
{
    return (uint32_t) (w->members[rng_below(&w->rng, strlen(w->members))] - '0');
}

static void note_synced(struct world *w, uint32_t server)
{
    struct rig_node *n = &w->g->nodes[server];

    w->synced_files[server] = n->n_files;
    for (size_t i = 0; i < n->n_files; i++) {
        w->synced_bytes[server][i] = n->files[i].bytes;
    }
}

static void take_checkpoint(struct world *w, uint32_t server)
{
    struct position x;

    buf_clear(&w->checkpoint[server]);
    assert_int_equal(checkpoint_take(w->g->nodes[server].shard, 0, &w->checkpoint[server], NULL, &x,
                                     &w->checkpoint_group[server]),
                     0);
}

/* Kills a process and starts it again; the unsynced end of its log is cut at a group, or not. */
static void kill_one(struct world *w, uint32_t server)
{
    struct rig_node *n = &w->g->nodes[server];

    if (w->checkpoint_group[server] > n->synced_group) {
        buf_clear(&w->checkpoint[server]); /* it never was in a manifest */
    }
    w->checkpoint_group[server] = 0;
    if (rng_chance(&w->rng, 1, 2)) { /* the power went: only what was synced is left */
        while (n->n_files > w->synced_files[server]) {
            free(n->files[--n->n_files].data);
        }
        for (size_t i = 0; i < n->n_files; i++) {
            n->files[i].bytes = w->synced_bytes[server][i];
        }
    }
    rig_restart(w->g, server);
    note_synced(w, server); /* a start syncs what it replayed */
}

/* R7: all members of the newest view are asked; the highest durable tail of those who answer
 * becomes primary, the others who answered follow it. */
static void change_view(struct world *w)
{
    struct rig *g = w->g;
    char next[8] = "", order[8] = "";
    struct name best = { 0 };

    for (const char *m = w->members; *m; m++) {
        uint32_t server = (uint32_t) (*m - '0');
        unsigned seals = g->nodes[server].seals;
        bool silent = !w->healing && rng_chance(&w->rng, 1, 6 * w->calm);
        if (silent) {
            continue;
        }
        rig_seal(g, server, w->view);
        if (g->nodes[server].seals == seals) {
            rig_sync(g, server);
            note_synced(w, server);
        }
        if (g->nodes[server].seals == seals) {
            continue; /* it has not heard of the view */
        }
        if (name_compare(g->nodes[server].sealed.last, best) > 0 || next[0] == 0) {
            best = g->nodes[server].sealed.last;
            snprintf(order, sizeof(order), "%c%s", *m, next);
        } else {
            snprintf(order, sizeof(order), "%s%c", next, *m);
        }
        strcpy(next, order);
    }
    if (next[0] == 0) {
        return;
    }
    w->view++;
    strcpy(w->members, next);
    for (uint32_t i = 1; i <= RIG_SERVERS; i++) {
        if (rng_chance(&w->rng, 9, 10)) {
            rig_view(g, i, w->view, w->members);
        }
    }
}

static void one_op(struct world *w)
{
    static const uint8_t codes[] = { OP_SET, OP_DELETE, OP_APPEND, OP_INCR, OP_TOUCH, OP_GET };
    uint32_t server = rng_chance(&w->rng, 3, 4) ? (uint32_t) (w->members[0] - '0') : member(w);
    char key[24];

    if (rng_chance(&w->rng, 1, 3) && w->n_adds < ARRAY_LEN(w->adds)) {
        snprintf(key, sizeof(key), "u%zu", w->n_adds);
        w->adds[w->n_adds] = rig_id(w->g, server, OP_ADD, key, key, w->n_adds + 1, 1);
        w->n_adds++;
        return;
    }
    if (rng_chance(&w->rng, 1, 3) && w->n_adds > 0 && w->n_retries < ARRAY_LEN(w->retries)) {
        size_t i = rng_below(&w->rng, w->n_adds);
        snprintf(key, sizeof(key), "u%zu", i);
        w->retries[w->n_retries++] = rig_id(w->g, server, OP_ADD, key, key, i + 1, 1);
        return;
    }
    rig_kv(w->g, server, codes[rng_below(&w->rng, ARRAY_LEN(codes))],
           key_names[rng_below(&w->rng, KEYS)], "7");
}

static void one_message(struct world *w)
{
    struct rig *g = w->g;
    size_t i;

    if (g->n_msgs == 0) {
        return;
    }
    i = rng_below(&w->rng, MIN_OF(g->n_msgs, 4)); /* nearly in order */
    if (rng_chance(&w->rng, 1, 40 * w->calm)) {
        rig_msg_free(g, i);
    } else if (rng_chance(&w->rng, 1, 40 * w->calm)) {
        struct rig_msg m = g->msgs[i];
        m.entry =
            m.entry ? memcpy(malloc(m.prepare.entry_bytes), m.entry, m.prepare.entry_bytes) : NULL;
        m.prepare.entry = m.entry;
        rig_msg_show(g, &m);
        free(m.entry);
    } else {
        struct rig_msg m = g->msgs[i];
        g->msgs[i].entry = NULL;
        rig_msg_free(g, i);
        rig_msg_show(g, &m);
        free(m.entry);
    }
}

static void one_step(struct world *w)
{
    uint32_t server = (uint32_t) rng_between(&w->rng, 1, RIG_SERVERS);
    uint64_t dice = rng_below(&w->rng, 970 + 30 / w->calm);

    if (dice < 200) {
        one_op(w);
    } else if (dice < 700) {
        one_message(w);
    } else if (dice < 800) {
        rig_turn(w->g, server);
    } else if (dice < 930) {
        rig_synced(w->g, server);
        note_synced(w, server);
        rig_turn(w->g, server);
    } else if (dice < 960) {
        rig_tick(w->g, server, rng_below(&w->rng, SHARD_RESEND_USEC));
    } else if (dice < 970) {
        rig_event(w->g, server, SHARD_PEER_UP, (uint32_t) rng_between(&w->rng, 1, RIG_SERVERS));
    } else if (rng_chance(&w->rng, 1, 4)) {
        take_checkpoint(w, server);
    } else if (rng_chance(&w->rng, 1, 2)) {
        change_view(w);
    } else if (rng_chance(&w->rng, 1, 2)) {
        rig_view(w->g, server, w->view, w->members); /* a late push */
    } else {
        kill_one(w, server);
    }
    for (uint32_t i = 1; i <= RIG_SERVERS; i++) {
        if (w->g->nodes[i].halted) {
            fail_msg("seed %llu: server %u stopped: %s", (unsigned long long) w->seed, i,
                     w->g->nodes[i].halted);
        }
    }
}

/* I3, I5: below the lowest commit of the members all is the same, by name and by record. */
static void check_same(struct world *w)
{
    struct replica_info first = rig_info(w->g, (uint32_t) (w->members[0] - '0'));

    for (const char *m = w->members; *m; m++) {
        struct replica_info i = rig_info(w->g, (uint32_t) (*m - '0'));
        if (i.commit.seq != first.commit.seq || i.commit.view != first.commit.view) {
            fail_msg("seed %llu: server %c has committed %u.%llu, the primary %u.%llu",
                     (unsigned long long) w->seed, *m, i.commit.view,
                     (unsigned long long) i.commit.seq, first.commit.view,
                     (unsigned long long) first.commit.seq);
        }
    }
    for (size_t k = 0; k < KEYS; k++) {
        char want[64], got[64];
        rig_peek(w->g, (uint32_t) (w->members[0] - '0'), key_names[k], want);
        for (const char *m = w->members; *m; m++) {
            rig_peek(w->g, (uint32_t) (*m - '0'), key_names[k], got);
            assert_string_equal(got, want);
        }
    }
}

/* Heals everything: a view of all who know the last one, and quiet. */
static void heal(struct world *w)
{
    bool serving = false;

    w->healing = true;
    for (int round = 0; round < 50 && !serving; round++) {
        rig_run(w->g, "123");
        change_view(w);
        for (const char *m = w->members; *m; m++) {
            rig_view(w->g, (uint32_t) (*m - '0'), w->view, w->members);
        }
        for (int i = 0; i < 3; i++) {
            rig_run(w->g, "123");
            for (uint32_t s = 1; s <= RIG_SERVERS; s++) {
                rig_tick(w->g, s, SHARD_RESEND_USEC);
            }
        }
        rig_run(w->g, "123");
        serving = true;
        for (const char *m = w->members; *m; m++) {
            uint8_t state = rig_info(w->g, (uint32_t) (*m - '0')).state;
            serving &= state == (m == w->members ? REPLICA_PRIMARY : REPLICA_SECONDARY);
        }
    }
    if (!serving) {
        fail_msg("seed %llu: it doesn't serve again", (unsigned long long) w->seed);
    }
}

/* I4, I8: what was answered is there; a retry of each finds it done, or does it, once. */
static void check_adds(struct world *w)
{
    uint32_t primary = (uint32_t) (w->members[0] - '0');
    char key[24];

    for (size_t i = 0; i < w->n_adds; i++) {
        int answer = rig_answer(w->g, w->adds[i]);
        uint64_t again;
        snprintf(key, sizeof(key), "u%zu", i);
        if (answer == RESULT_STORED && strcmp(rig_get(w->g, primary, key), key) != 0) {
            fail_msg("seed %llu: %s was answered and is lost", (unsigned long long) w->seed, key);
        }
        again = rig_id(w->g, primary, OP_ADD, key, key, i + 1, 1);
        rig_run(w->g, "123");
        if (rig_answer(w->g, again) != RESULT_STORED ||
            strcmp(rig_get(w->g, primary, key), key) != 0) {
            fail_msg("seed %llu: the retry of %s got %d", (unsigned long long) w->seed, key,
                     rig_answer(w->g, again));
        }
    }
}

static void check_retries(struct world *w)
{
    for (size_t i = 0; i < w->n_retries; i++) {
        int answer = rig_answer(w->g, w->retries[i]);
        if (answer != 0 && answer != RESULT_STORED && answer != RESULT_NOT_PRIMARY) {
            fail_msg("seed %llu: a retry got %d", (unsigned long long) w->seed, answer);
        }
    }
}

/* The checkpoint and what the log has behind it give what all of the log gives. */
static void check_checkpoint(struct world *w, uint32_t server)
{
    struct rig_node *n = &w->g->nodes[server];
    struct buf *c = &w->checkpoint[server];
    struct replica_info live, again;
    struct wal_segment segments[RIG_FILES_MAX] = { 0 };
    struct wal_damage damage;
    struct rig_replay replay;

    if (buf_len(c) > 0) {
        assert_int_equal(rig_shard_new(n, &replay.shard), 0);
        assert_int_equal(checkpoint_load(replay.shard, buf_head(c), buf_len(c)), 0);
        for (size_t i = 0; i < n->n_files; i++) {
            segments[i].number = n->files[i].number;
            segments[i].data = n->files[i].data;
            segments[i].bytes = n->files[i].bytes;
        }
        assert_int_equal(wal_check(segments, n->n_files, NULL, &damage), 0);
        for (size_t i = 0; i < n->n_files; i++) {
            assert_int_equal(wal_walk(&segments[i], rig_replay_frame, &replay), 0);
        }
        shard_replay_end(replay.shard);
        assert_int_equal(shard_replica_info(n->shard, 0, &live), 0);
        assert_int_equal(shard_replica_info(replay.shard, 0, &again), 0);
        assert_int_equal(again.view, live.view);
        rig_assert_name(again.last, live.last.view, live.last.seq);
        /* it may know of a commit whose note died with a process that loaded no checkpoint */
        assert_true(again.commit.seq >= live.commit.seq);
        for (size_t k = 0; k < KEYS && again.commit.seq == live.commit.seq; k++) {
            struct index_record x = { 0 }, y = { 0 };
            const uint8_t *key = (const uint8_t *) key_names[k];
            int have = shard_record(n->shard, key, 1, &x);
            assert_int_equal(shard_record(replay.shard, key, 1, &y), have);
            assert_int_equal(x.seq, y.seq);
        }
        shard_free(replay.shard);
    }
    buf_free(c);
}

static void run_seed(uint64_t seed)
{
    struct world *w = calloc(1, sizeof(*w));

    w->seed = seed;
    w->rng = (struct rng){ seed };
    w->calm = 1 + seed % 5;
    w->g = rig_new(1);
    w->view = 1;
    strcpy(w->members, "123");
    rig_form(w->g, 1, "123");
    for (uint32_t i = 1; i <= RIG_SERVERS; i++) {
        note_synced(w, i);
    }
    for (int i = 0; i < STEPS; i++) {
        one_step(w);
    }
    heal(w);
    check_same(w);
    check_adds(w);
    check_retries(w);
    rig_run(w->g, "123");
    for (uint32_t i = 1; i <= RIG_SERVERS; i++) {
        rig_assert_replay(w->g, i, key_names, KEYS);
        check_checkpoint(w, i);
    }
    rig_free(w->g);
    free(w);
}

static void test_random(void **state)
{
    const char *from = getenv("SHARD_SEED");
    uint64_t first = from ? strtoull(from, NULL, 10) : 1;
    uint64_t n = getenv("SHARD_SEEDS") ? strtoull(getenv("SHARD_SEEDS"), NULL, 10)
                 : from                ? 1
                                       : 3000;

    (void) state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        run_seed(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests_name("shard_random", tests, NULL, NULL);
}
