/* The log over many starts: torn tails that are cut, segments above all others, another number of
 * shards; what was cut never comes back, what was durable never goes. */
#include "base/rng.h"
#include "wal_rig.h"

#define SHARDS_OF_ALL 4

struct life {
    struct log_image g;
    uint32_t next_segment;
    uint64_t start;
    uint64_t next_tag;
    uint64_t kept[LOG_FRAMES_MAX]; /* tags that a start found or a sync made durable */
    size_t n_kept;
    struct log_walk w;
    struct wal_damage damage;
};

/* One start: finds what there is, writes, syncs some of it, crashes. Tags tell their shard. */
static void live(struct life *f, struct rng *rng)
{
    uint32_t shards = (uint32_t) rng_between(rng, 1, SHARDS_OF_ALL);
    size_t synced_bytes[1024] = { 0 }; /* by number, from first on */
    uint32_t first_segment = f->next_segment;
    struct wal l[SHARDS_OF_ALL];
    size_t old = f->g.n_files;

    f->start++;
    for (uint32_t i = 0; i < shards; i++) {
        struct wal_options o = log_options(f->start, f->next_segment, i, shards, 300);
        wal_init(&l[i], &o);
    }
    for (uint64_t turns = rng_below(rng, 12); turns > 0; turns--) {
        struct wal *x = &l[rng_below(rng, shards)];
        uint64_t first = f->next_tag, group;
        for (uint64_t n = rng_between(rng, 1, 3); n > 0; n--) {
            log_append(x, f->next_tag++, 8 + rng_below(rng, 50));
        }
        group = image_flush(&f->g, x);
        if (rng_chance(rng, 1, 2)) { /* this stream is durable now, all of it */
            wal_synced(x, group);
            for (size_t i = old; i < f->g.n_files; i++) {
                uint32_t nth = f->g.files[i].number - first_segment;
                if (nth % shards == x->o.shard) {
                    synced_bytes[nth] = buf_len(&f->g.files[i].data);
                }
            }
            for (uint64_t tag = first; tag < f->next_tag; tag++) {
                f->kept[f->n_kept++] = tag; /* of this turn at least */
            }
        }
    }
    for (uint32_t i = 0; i < shards; i++) {
        wal_free(&l[i]);
    }
    for (size_t i = f->g.n_files; i-- > old;) { /* the crash */
        uint32_t number = f->g.files[i].number;
        struct buf *b = &f->g.files[i].data;
        size_t synced = synced_bytes[number - first_segment];
        b->end = rng_between(rng, synced, buf_len(b));
        f->next_segment = MAX_OF(f->next_segment, number + 1);
        if (synced == 0 && rng_chance(rng, 1, 3)) {
            image_remove(&f->g, number);
        }
    }
}

/* The start after the crash: all that was durable is there, in order, nothing twice, and nothing
 * that a start before did not find. */
static void find(struct life *f, uint64_t seed)
{
    size_t found = 0;

    if (image_read(&f->g, &f->w, &f->damage) < 0) {
        fail_msg("seed %llu: damage at %u+%llu: %s", (unsigned long long) seed, f->damage.segment,
                 (unsigned long long) f->damage.offset, f->damage.what);
    }
    for (size_t i = 0; i < f->n_kept; i++) {
        for (size_t j = 0; j < f->w.n; j++) {
            found += f->w.frames[j].tag == f->kept[i];
        }
        if (found != i + 1) {
            fail_msg("seed %llu: frame %llu: found %zu times", (unsigned long long) seed,
                     (unsigned long long) f->kept[i], found - i);
        }
    }
    for (size_t j = 0; j < f->w.n; j++) {
        f->kept[j] = f->w.frames[j].tag;
        for (size_t i = 0; i < j; i++) {
            assert_int_not_equal(f->kept[i], f->kept[j]);
        }
    }
    f->n_kept = f->w.n;
}

static void test_lives(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        struct life *f = calloc(1, sizeof(*f));
        struct rng rng = { seed };
        f->next_segment = 1;
        f->next_tag = 1000;
        for (int start = 0; start < 6 && f->g.n_files < 40; start++) {
            size_t before;
            live(f, &rng);
            before = f->n_kept;
            find(f, seed);
            assert_true(f->n_kept >= before);
            before = f->n_kept;
            find(f, seed); /* a start that writes nothing changes nothing */
            assert_int_equal(f->n_kept, before);
        }
        image_free(&f->g);
        free(f);
    }
}

/* A flip in any byte of a start that is over, and was cut by the next one, is damage. */
static void test_rot_of_older_starts(void **state)
{
    static const uint32_t shards[] = { 2, 3, 1 };
    struct log_image g = { 0 };
    _cleanup_free_ struct log_walk *w = calloc(1, sizeof(*w));
    struct wal_damage damage;
    uint32_t first = 1, newest = 1;
    uint64_t tag = 0;

    (void) state;
    for (uint64_t start = 0; start < 3; start++) {
        for (uint32_t shard = 0; shard < shards[start]; shard++) {
            struct wal_options o = log_options(start + 1, first, shard, shards[start], 300);
            struct wal l;
            wal_init(&l, &o);
            for (int i = 0; i < 6; i++) {
                log_append(&l, tag++, 8 + (size_t) i * 11);
                wal_synced(&l, image_flush(&g, &l));
            }
            newest = MAX_OF(newest, l.end.segment);
            wal_free(&l);
        }
        first = newest + 1;
    }
    assert_int_equal(image_read(&g, w, &damage), 0);
    assert_int_equal(w->n, tag);
    for (size_t i = 0; i < g.n_files; i++) {
        struct segment_head h;
        assert_int_equal(segment_head_decode(g.files[i].data.data, SEGMENT_HEAD_BYTES, &h), 0);
        for (size_t at = 0; h.start < 3 && at < buf_len(&g.files[i].data); at++) {
            struct log_image c = image_copy(&g);
            c.files[i].data.data[at] ^= 0x10;
            if (image_read(&c, w, &damage) != -EBADMSG) {
                fail_msg("a flip at %u+%zu was not noticed", g.files[i].number, at);
            }
            assert_int_equal(damage.segment, g.files[i].number);
            image_free(&c);
        }
    }
    image_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_rot_of_older_starts),
    };

    return cmocka_run_group_tests_name("wal_starts", tests, NULL, NULL);
}
