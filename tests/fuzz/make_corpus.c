/* Writes the corpora of the fuzzers of a server's files: a shard of the real core on a disk in
 * memory writes logs, checkpoints and manifests of some of everything, and what it wrote becomes
 * the inputs.
 *
 *     make fuzzers && build/fuzz/make_corpus tests/fuzz/corpus
 *
 * To be run again when a format has changed. */
#include "base/assert.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "core/checkpoint.h"
#include "core/hashspace.h"
#include "core/index_map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PARTITIONS   4
#define SEGMENTS_MAX 64
#define T0_USEC      UINT64_C(1700000000000000)
#define SERVER       1
#define VICTIM       1 /* the segment that is compacted */

/* First byte of an input; see the fuzzers. */
#define MEND  0x04
#define FLOOR 0x08

struct machine {
    struct buf segments[SEGMENTS_MAX]; /* by number; never moved again once created */
    uint32_t segment_bytes;
    uint32_t highest;
    struct shard *shard;
    uint64_t start;
    uint64_t boot_usec;
    uint64_t written;
    uint64_t number;               /* of the session's last operation */
    struct position x[PARTITIONS]; /* what a checkpoint in the middle of the work would have */
    bool compacted;
};

/* ---- a disk ---- */

static int disk_read(void *ctx, struct position at, size_t bytes, const uint8_t **ret)
{
    struct machine *m = ctx;

    kumo_assert(at.segment < SEGMENTS_MAX);
    kumo_assert(at.offset + bytes <= buf_len(&m->segments[at.segment]));
    *ret = buf_head(&m->segments[at.segment]) + at.offset;
    return 0;
}

static void disk_write(struct machine *m, const struct action *a)
{
    struct buf *b = &m->segments[a->file.at.segment];

    kumo_assert(a->file.at.segment < SEGMENTS_MAX);
    if (a->kind == ACTION_CREATE) {
        buf_reserve(b, 1u << 20); /* a victim's bytes must stay where they are */
        m->highest = MAX_OF(m->highest, a->file.at.segment);
    }
    kumo_assert(buf_len(b) == a->file.at.offset);
    buf_append(b, a->file.data, a->file.bytes);
}

/* ---- steps ---- */

static void step(struct machine *m, const struct shard_event *e)
{
    struct shard_clock now = { m->boot_usec, T0_USEC + m->boot_usec };
    struct actions out = { 0 };

    shard_step(m->shard, &now, e, &out);
    for (size_t i = 0; i < out.n; i++) {
        const struct action *a = &out.v[i];
        if (a->kind == ACTION_CREATE || a->kind == ACTION_WRITE) {
            disk_write(m, a);
        } else if (a->kind == ACTION_SYNC) {
            m->written = a->group;
        } else if (a->kind == ACTION_COMPACTED) {
            kumo_assert(a->compacted.error == 0);
            m->compacted = true;
        }
    }
    actions_free(&out);
}

static void turn(struct machine *m)
{
    struct shard_event e = { .kind = SHARD_TURN_END };

    step(m, &e);
}

static void sync_all(struct machine *m)
{
    struct shard_event e = { .kind = SHARD_SYNCED };

    turn(m);
    e.group = m->written;
    step(m, &e);
}

static void tick(struct machine *m)
{
    struct shard_event e = { .kind = SHARD_TICK };

    m->boot_usec += SHARD_COMMIT_USEC;
    step(m, &e);
    sync_all(m);
}

static void operation(struct machine *m, uint8_t code, const char *key, const char *value,
                      int64_t exptime, uint64_t operand)
{
    struct shard_event e = { .kind = SHARD_OP };
    struct op *op = &e.op.op;

    m->number++;
    *op = (struct op){
        .id = m->number,
        .code = code,
        .key_len = (uint8_t) strlen(key),
        .key = (const uint8_t *) key,
        .value_len = (uint32_t) strlen(value),
        .value = (const uint8_t *) value,
        .flags = 7,
        .exptime = exptime,
        .operand = operand,
        .op = { .session = 99, .number = m->number, .first = m->number > 3 ? m->number - 3 : 1 },
    };
    step(m, &e);
}

/* ---- starts ---- */

static int replay_frame(void *ctx, const struct frame *f, struct position at)
{
    return shard_replay_frame(ctx, f, at);
}

static void replay(struct machine *m)
{
    struct wal_segment v[SEGMENTS_MAX];
    struct wal_damage damage;
    size_t n = 0;
    int err;

    for (uint32_t i = 1; i <= m->highest; i++) {
        if (buf_len(&m->segments[i]) > 0) {
            v[n++] = (struct wal_segment){ .number = i,
                                           .data = buf_head(&m->segments[i]),
                                           .bytes = buf_len(&m->segments[i]) };
        }
    }
    err = wal_check(v, n, NULL, &damage);
    kumo_assert(err == 0);
    for (size_t i = 0; i < n; i++) {
        err = wal_walk(&v[i], replay_frame, m->shard);
        kumo_assert(err == 0);
    }
    shard_replay_end(m->shard);
}

static void start(struct machine *m)
{
    struct shard_options o = {
        .log = { .start = ++m->start,
                 .shards = 1,
                 .partitions = PARTITIONS,
                 .first_segment = m->highest + 1,
                 .segment_bytes = m->segment_bytes,
                 .server_id = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } },
        .server = SERVER,
        .value_bytes_max = 1u << 20,
        .index_open = index_map_open,
        .read = disk_read,
        .read_ctx = m,
    };
    int err;

    m->shard = shard_free(m->shard);
    err = shard_new(&o, &m->shard);
    kumo_assert(err == 0);
    replay(m);
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        struct shard_event e = { .kind = SHARD_VIEW };
        e.row = (struct view_row){ .partition = p, .n_members = 1, .view = (uint32_t) m->start };
        e.row.members[0] = SERVER;
        step(m, &e);
    }
    for (unsigned i = 0; i < 4; i++) { /* the view, then the no-op that begins it */
        sync_all(m);
    }
}

/* ---- work ---- */

static void take(const struct machine *m, uint16_t partition, struct buf *b,
                 struct manifest_item *ret)
{
    size_t begin = buf_len(b);
    uint64_t group;
    int err = checkpoint_take(m->shard, partition, b, NULL, &ret->x, &group);

    kumo_assert(err == 0);
    ret->partition = partition;
    ret->offset = begin;
    ret->bytes = buf_len(b) - begin;
    ret->crc = checkpoint_crc(buf_head(b) + begin, ret->bytes);
}

/* Some of everything, in every partition. */
static void use(struct machine *m)
{
    operation(m, OP_SET, "h", "to be copied", 0, 0);
    operation(m, OP_SET, "d", "to be gone", 0, 0);
    sync_all(m);
    operation(m, OP_DELETE, "d", "", 0, 0);
    sync_all(m);
    operation(m, OP_SET, "a", "first", 0, 0);
    operation(m, OP_SET, "b", "5", 0, 0);
    sync_all(m);
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        struct manifest_item item;
        struct buf unused = { 0 };
        take(m, p, &unused, &item);
        m->x[p] = item.x;
        buf_free(&unused);
    }
    operation(m, OP_APPEND, "a", "more", 0, 0);
    operation(m, OP_INCR, "b", "", 0, 37);
    operation(m, OP_SET, "c", "short life", 1, 0);
    operation(m, OP_ADD, "e", "", 3600, 0);
    sync_all(m);
    operation(m, OP_DELETE, "e", "", 0, 0);
    operation(m, OP_TOUCH, "a", "", 100, 0);
    operation(m, OP_FLUSH, "", "", 0, 2);
    tick(m);
}

static void compact(struct machine *m)
{
    struct shard_event e = { .kind = SHARD_COMPACT };
    struct wal_damage damage;
    int err;

    e.victim = (struct wal_segment){ .number = VICTIM,
                                     .data = buf_head(&m->segments[VICTIM]),
                                     .bytes = buf_len(&m->segments[VICTIM]) };
    err = wal_check(&e.victim, 1, NULL, &damage);
    kumo_assert(err == 0);
    step(m, &e);
    for (unsigned i = 0; i < 100 && !m->compacted; i++) {
        tick(m);
    }
    kumo_assert(m->compacted);
}

/* ---- inputs ---- */

static const char *folder;

static void input_write(const char *corpus, const char *name, const struct buf *b)
{
    char path[4096];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", folder, corpus);
    if (mkdir(path, 0777) < 0 && errno != EEXIST) {
        perror(path);
        exit(1);
    }
    snprintf(path, sizeof(path), "%s/%s/%s", folder, corpus, name);
    f = fopen(path, "we");
    n = f ? fwrite(b->data + b->start, 1, buf_len(b), f) : 0;
    if (!f || n != buf_len(b) || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

/* `count` segments from `first` on become the segments 1 to `count` of the input; the last one
 * without its last `cut` bytes. */
static void segment_input(const struct machine *m, const char *name, uint8_t how, uint32_t first,
                          uint32_t count, size_t cut)
{
    struct buf b = { 0 };
    uint8_t head = (uint8_t) (how | (count - 1));

    buf_append(&b, &head, 1);
    for (unsigned p = 0; p < PARTITIONS && (how & FLOOR); p++) {
        uint8_t x[3] = { (uint8_t) m->x[p].segment };
        bytes_put_u16(x + 1, (uint16_t) m->x[p].offset);
        buf_append(&b, x, sizeof(x));
    }
    for (uint32_t i = first; i < first + count; i++) {
        const struct buf *s = &m->segments[i];
        uint8_t bytes[2];
        kumo_assert(buf_len(s) > cut); /* else a format has shrunk: make the segments smaller */
        bytes_put_u16(bytes, (uint16_t) buf_len(s));
        buf_append(&b, bytes, i + 1 < first + count ? 2 : 0);
        buf_append(&b, s->data + s->start, buf_len(s) - (i + 1 < first + count ? 0 : cut));
    }
    input_write("segment", name, &b);
    buf_free(&b);
}

static void checkpoint_inputs(const struct machine *m, const char *what)
{
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        struct manifest_item unused;
        struct buf b = { 0 };
        char name[64];
        buf_append(&b, "\1", 1);
        take(m, p, &b, &unused);
        snprintf(name, sizeof(name), "%s-%u", what, p);
        input_write("checkpoint", name, &b);
        buf_free(&b);
    }
}

static void manifest_input(const struct machine *m, const char *name, uint64_t generation)
{
    struct manifest_item items[PARTITIONS] = { 0 };
    struct manifest manifest = { generation, PARTITIONS, items };
    struct buf files = { 0 };
    struct buf b = { 0 };

    for (uint16_t p = 0; p < PARTITIONS; p++) {
        take(m, p, &files, &items[p]);
    }
    buf_append(&b, "\1", 1);
    manifest_encode(&b, &manifest);
    input_write("manifest", name, &b);
    buf_free(&files);
    buf_free(&b);
}

static void start_and_compact(struct machine *m)
{
    start(m);
    compact(m);
    operation(m, OP_SET, "a", "pending", 0, 0);
    operation(m, OP_DELETE, "b", "", 0, 0);
    operation(m, OP_SET, "h", "pending", 0, 0);
    turn(m); /* and no sync: checkpoints have a tail */
}

static void machine_free(struct machine *m)
{
    shard_free(m->shard);
    for (size_t i = 0; i < SEGMENTS_MAX; i++) {
        buf_free(&m->segments[i]);
    }
}

static void small_segments(void)
{
    struct machine m = { .segment_bytes = 900 };

    start(&m);
    use(&m);
    segment_input(&m, "start", 0, 1, 3, 0);
    segment_input(&m, "start_floor", FLOOR, 1, 3, 0);
    segment_input(&m, "start_floor_mended", MEND | FLOOR, 1, 3, 0);
    segment_input(&m, "start_torn", MEND, 1, 2, 33);
    start_and_compact(&m);
    segment_input(&m, "compacted_end", MEND, m.highest - 2, 3, 7);
    machine_free(&m);
}

static void large_segments(void)
{
    struct machine m = { .segment_bytes = 1u << 14 };

    start(&m);
    checkpoint_inputs(&m, "empty");
    manifest_input(&m, "first", 1);
    use(&m);
    checkpoint_inputs(&m, "records");
    start_and_compact(&m);
    checkpoint_inputs(&m, "tail");
    manifest_input(&m, "later", UINT64_C(1) << 40);
    segment_input(&m, "compacted", 0, 1, 2, 0);
    segment_input(&m, "compacted_floor", FLOOR, 1, 2, 0);
    segment_input(&m, "compacted_mended", MEND, 1, 2, 0);
    machine_free(&m);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_corpus FOLDER\n");
        return 1;
    }
    folder = argv[1];
    small_segments();
    large_segments();
    return 0;
}
