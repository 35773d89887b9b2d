/* What a start makes of a log that a crash or a bad disk left: a torn tail is cut and nothing
 * before it lost, what was durable and is not readable any more is said to be damage. */
#include "base/rng.h"
#include "wal_rig.h"

#define FRAMES 60

/* A log with several flushes, of which the last ones were not synced. */
struct story {
    struct log_image g;
    struct wal l;
    struct log_frame frames[FRAMES];
    size_t n;
    size_t synced_frames;               /* of them, in synced flushes */
    size_t synced_bytes[LOG_FILES_MAX]; /* by file, as of the last sync */
    struct position named_end;          /* highest synced end that a head names */
    struct log_walk w;
    struct wal_damage damage;
};

static void story_sync(struct story *s, uint64_t group)
{
    wal_synced(&s->l, group);
    s->synced_frames = s->n;
    for (size_t i = 0; i < s->g.n_files; i++) {
        s->synced_bytes[i] = buf_len(&s->g.files[i].data);
    }
}

/* `flushes` flushes of 1 to 4 frames; those before `synced` are synced one by one. */
static struct story *story_new(uint64_t seed, uint32_t segment_bytes, int flushes, int synced)
{
    struct wal_options o = log_options(1, 1, 0, 1, segment_bytes);
    struct story *s = calloc(1, sizeof(*s));
    struct rng rng = { seed };

    wal_init(&s->l, &o);
    for (int i = 0; i < flushes; i++) {
        s->named_end = s->l.synced_end;
        for (uint64_t j = rng_between(&rng, 1, 4); j > 0; j--) {
            assert_true(s->n < FRAMES);
            s->frames[s->n].at = log_append(&s->l, 1000 + s->n, 8 + rng_below(&rng, 50));
            s->frames[s->n].group = s->l.group;
            s->frames[s->n].tag = 1000 + s->n;
            s->n++;
        }
        uint64_t group = image_flush(&s->g, &s->l);
        if (i < synced) {
            story_sync(s, group);
        }
    }
    return s;
}

static void story_free(struct story *s)
{
    image_free(&s->g);
    wal_free(&s->l);
    free(s);
}

/* Checks the image: it must give a prefix of the story's frames that has all that was synced, and
 * give the same again after the cut. Returns the length of the prefix. */
static size_t assert_prefix(struct story *s, struct log_image *g, const char *what, size_t where)
{
    int r = image_read(g, &s->w, &s->damage);
    size_t n = s->w.n;

    if (r < 0) {
        fail_msg("%s at %zu: damage at %u+%llu: %s", what, where, s->damage.segment,
                 (unsigned long long) s->damage.offset, s->damage.what);
    }
    assert_true(n <= s->n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(s->w.frames[i].tag, s->frames[i].tag);
        assert_int_equal(position_compare(s->w.frames[i].at, s->frames[i].at), 0);
    }
    if (n < s->synced_frames) {
        fail_msg("%s at %zu: %zu of %zu durable frames left", what, where, n, s->synced_frames);
    }
    assert_int_equal(image_read(g, &s->w, &s->damage), 0);
    assert_int_equal(s->w.n, n);
    return n;
}

/* Ends the stream of bytes at `end`: what comes behind it in the file, and all files behind, are as
 * `fill` says: 0 cut off, 1 zeros, 2 noise. */
static void tear(struct log_image *g, size_t file, size_t end, int fill)
{
    struct rng rng = { end + 1 };

    for (size_t i = file; i < g->n_files; i++) {
        struct buf *b = &g->files[i].data;
        size_t from = i == file ? end : 0;
        for (size_t j = from; j < buf_len(b); j++) {
            b->data[j] = fill == 1 ? 0 : (uint8_t) rng_u64(&rng);
        }
        if (fill == 0) {
            b->end = from;
        }
    }
}

/* A tear at every byte that was not synced, in one segment and in many. */
static void test_torn_everywhere(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        struct story *s = story_new(seed, seed % 2 ? 250 : 0, 8, (int) (seed % 7));
        size_t kept = SIZE_MAX;
        for (size_t i = s->g.n_files; i-- > 0;) {
            for (size_t end = buf_len(&s->g.files[i].data); end-- > s->synced_bytes[i];) {
                size_t n[3];
                for (int fill = 0; fill < 3; fill++) {
                    struct log_image g = image_copy(&s->g);
                    tear(&g, i, end, fill);
                    n[fill] = assert_prefix(s, &g, "tear", end);
                    image_free(&g);
                }
                assert_true(n[0] <= n[1]); /* what was lost may have been zeros */
                assert_true(n[0] <= kept); /* the earlier the tear, the less is left */
                kept = n[0];
            }
        }
        assert_int_equal(kept, s->synced_frames);
        story_free(s);
    }
}

/* Any subset of the sectors that were not synced may be there, and any of the new files. */
static void test_sectors(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= 4000; seed++) {
        struct story *s = story_new(seed, seed % 3 ? 300 : 0, 8, (int) (seed % 8));
        struct log_image g = image_copy(&s->g);
        struct rng rng = { seed };
        for (size_t i = g.n_files; i-- > 0;) {
            struct buf *b = &g.files[i].data;
            size_t sector = seed % 2 ? 128 : 256; /* no less than a head and a group's head */
            for (size_t at = 0; at < buf_len(b); at += sector) {
                bool lost = rng_chance(&rng, 1, 2);
                for (size_t j = at; lost && j < MIN_OF(at + sector, buf_len(b)); j++) {
                    b->data[j] = j < s->synced_bytes[i] ? b->data[j] : 0;
                }
            }
            if (rng_chance(&rng, 1, 4)) {
                b->end = rng_between(&rng, s->synced_bytes[i], buf_len(b));
            }
            if (s->synced_bytes[i] == 0 && rng_chance(&rng, 1, 4)) {
                image_remove(&g, g.files[i].number);
            }
        }
        assert_prefix(s, &g, "seed", seed);
        image_free(&g);
        story_free(s);
    }
}

/* A changed bit below a synced end that a later head names is damage, wherever it is: in a
 * segment's head, a group's, a frame's, an entry. */
static void test_rot(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct story *s = story_new(seed, seed % 2 ? 250 : 0, 7, 6);
        for (size_t i = 0; i < s->g.n_files; i++) {
            for (size_t at = 0; at < buf_len(&s->g.files[i].data); at++) {
                struct position p = { s->g.files[i].number, (uint32_t) at };
                struct log_image g = image_copy(&s->g);
                g.files[i].data.data[at] ^= (uint8_t) (1 << (at + seed) % 8);
                if (at >= SEGMENT_HEAD_BYTES && position_compare(p, s->named_end) >= 0) {
                    assert_prefix(s, &g, "flip in the last group", at);
                } else if (image_read(&g, &s->w, &s->damage) != -EBADMSG) {
                    fail_msg("seed %llu: a flip at %u+%zu was taken for a tear: %zu of %zu left",
                             (unsigned long long) seed, p.segment, at, s->w.n, s->synced_frames);
                }
                image_free(&g);
            }
        }
        story_free(s);
    }
}

/* The newest segment is missing, empty, without a head, or with a piece of one. */
static void test_newest_segment(void **state)
{
    struct story *s = story_new(3, 250, 7, 6);
    size_t last = s->g.n_files - 1;
    struct log_image g;

    (void) state;
    assert_true(s->g.n_files > 2);
    assert_int_equal(s->synced_bytes[last], 0); /* it was not synced */
    for (size_t bytes = 0; bytes <= SEGMENT_HEAD_BYTES; bytes++) {
        g = image_copy(&s->g);
        g.files[last].data.end = bytes;
        assert_prefix(s, &g, "head", bytes);
        image_free(&g);
    }
    g = image_copy(&s->g);
    image_remove(&g, g.files[last].number);
    assert_prefix(s, &g, "missing", 0);
    image_free(&g);
    story_free(s);
}

/* An empty folder, and one in which nothing ever became durable. */
static void test_nothing(void **state)
{
    struct log_image g = { 0 };
    _cleanup_free_ struct log_walk *w = calloc(1, sizeof(*w));
    struct wal_damage damage;

    (void) state;
    assert_int_equal(image_read(&g, w, &damage), 0);
    image_create(&g, 1);
    buf_append(&image_create(&g, 2)->data, "KUMOSEG\n", 8);
    assert_int_equal(image_read(&g, w, &damage), 0);
    assert_int_equal(w->n, 0);
    assert_int_equal(g.n_files, 0); /* to be removed */
}

/* The name and the head must agree; a newer version's log is left alone. */
static void test_head_lies(void **state)
{
    struct story *s = story_new(5, 0, 3, 3);
    struct log_image g = image_copy(&s->g);
    struct segment_head h;
    struct buf *b = &g.files[0].data;

    (void) state;
    g.files[0].number = 7;
    assert_int_equal(image_read(&g, &s->w, &s->damage), -EBADMSG);
    assert_int_equal(s->damage.segment, 7);
    g.files[0].number = 1;
    assert_int_equal(segment_head_decode(b->data, buf_len(b), &h), 0);
    segment_head_encode(&h, b->data);
    assert_int_equal(image_read(&g, &s->w, &s->damage), 0);
    image_free(&g);
    story_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torn_everywhere),
        cmocka_unit_test(test_sectors),
        cmocka_unit_test(test_rot),
        cmocka_unit_test(test_newest_segment),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_head_lies),
    };

    return cmocka_run_group_tests_name("wal_check", tests, NULL, NULL);
}
