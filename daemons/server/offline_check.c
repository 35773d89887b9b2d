/* kumo-server --check: segments, checkpoints and index against each other. Changes nothing.
 *
 * A start has several ways to the same records: from each good generation of checkpoints, and, as
 * long as nothing was compacted, from the log alone. All are gone, one at a time, and must agree.
 */
#include "offline_private.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/map.h"
#include "base/mem.h"
#include "core/hashspace.h"
#include "core/replica.h"
#include "io/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEMS_SHOWN_MAX 100

struct check {
    struct datadir *d;
    struct buf problems; /* their sentences, each with its end of line */
    uint64_t n_problems;

    uint64_t frames[_FRAME_KIND_MAX];
    uint64_t log_bytes;
    uint64_t torn_bytes;
    uint64_t torn_frames;  /* that can be read nevertheless */
    uint64_t *generations; /* good in every byte, newest first */
    size_t n_generations;
    size_t n_damaged;

    /* of the newest way */
    bool replayed;
    uint64_t records;
    uint64_t record_bytes;
    uint64_t expired;
    uint64_t flushed;
    uint64_t tombstones;
    uint64_t pending;

    uint64_t *digests; /* by partition, of the first way that could be gone */
    char first_way[64];
    unsigned ways;

    uint64_t now_usec;
    const struct replica *replica; /* whose index is walked */
    uint64_t digest;               /* of its records */
};

__attribute__((format(printf, 2, 3))) static void problem(struct check *c, const char *fmt, ...)
{
    char line[640];
    va_list ap;
    int n;

    if (++c->n_problems > PROBLEMS_SHOWN_MAX) {
        return;
    }
    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    buf_append(&c->problems, "problem: ", 9);
    buf_append(&c->problems, line, MIN_OF((size_t) n, sizeof(line) - 1));
    buf_append(&c->problems, "\n", 1);
}

/* ---- generations ---- */

static bool generation_is_good(struct check *c, uint64_t generation)
{
    uint32_t partitions = datadir_superblock(c->d)->partitions;
    struct checkpoint_set set;
    struct io_error error;
    bool good = true;

    if (datadir_generation_open(datadir_path(c->d), generation, partitions, &set, &error) < 0) {
        problem(c, "%s", error.text);
        good = false;
    }
    for (uint32_t p = 0; set.found && p < partitions; p++) {
        if (datadir_generation_check(&set, (uint16_t) p, &error) < 0) {
            problem(c, "%s", error.text);
            good = false;
        }
    }
    checkpoint_set_close(&set);
    return good;
}

static int generations_check(struct check *c, struct io_error *error)
{
    uint64_t highest;
    size_t n;
    int r = datadir_generations(datadir_path(c->d), &c->generations, &n, &highest, error);

    for (size_t i = 0; r == 0 && i < n; i++) {
        offline_progress("checking checkpoint generations", i, n);
        if (generation_is_good(c, c->generations[i])) {
            c->generations[c->n_generations++] = c->generations[i];
        } else {
            c->n_damaged++;
        }
    }
    return r;
}

/* ---- the ways of a start ---- */

/* Records that live, however they came into the index: tombstones and dead records may have been
 * dropped on one way and not on the other. */
static int record_digest(void *ctx, const uint8_t *key, size_t key_len,
                         const struct index_record *rec)
{
    struct check *c = ctx;
    const struct flush_mark *f = &c->replica->flush;
    struct entry e;

    if (rec->kind != ENTRY_SET || expiry_is_over(rec->expiry_sec, c->now_usec)) {
        return 0;
    }
    if ((f->seq | f->past_usec | f->at_usec) != 0 &&
        (datadir_read(c->d, c->replica->partition, key, key_len, rec, &e, NULL) < 0 ||
         flush_covers(f, rec->seq, e.time_usec, c->now_usec))) {
        return 0;
    }
    c->digest += map_hash_u64(
        hashspace_hash(key, key_len) ^
        map_hash_u64(rec->seq ^ (uint64_t) rec->expiry_sec << 32 ^ map_hash_u64(rec->bytes)));
    return 0;
}

static uint64_t partition_digest(struct check *c, struct replica *r)
{
    struct shard *s = datadir_shard(c->d);
    struct actions none = { 0 };

    /* A checkpoint may be ahead of the commits that the log notes: the tail counts as committed,
     * which it will be when a server starts. */
    s->out = &none;
    replica_commit_to(s, r, r->last.seq);
    s->out = NULL;
    actions_free(&none);
    c->replica = r;
    c->digest = map_hash_u64(r->view) ^ map_hash_u64(r->last.seq + ((uint64_t) r->last.view << 40));
    (void) datadir_index_walk(c->d, r->partition, record_digest, c);
    return c->digest;
}

static void digests_compare(struct check *c, const char *way)
{
    uint32_t partitions = datadir_superblock(c->d)->partitions;
    bool first = c->digests == NULL;

    if (first) {
        c->digests = mem_zalloc(partitions, sizeof(*c->digests));
        (void) snprintf(c->first_way, sizeof(c->first_way), "%s", way);
    }
    for (uint32_t p = 0; p < partitions; p++) {
        uint64_t digest = partition_digest(c, shard_replica(datadir_shard(c->d), p));
        offline_progress("comparing partitions", p, partitions);
        if (first) {
            c->digests[p] = digest;
        } else if (digest != c->digests[p]) {
            problem(c, "%s: partition %" PRIu32 " differs between %s and %s", datadir_path(c->d), p,
                    c->first_way, way);
        }
    }
}

static int record_check(void *ctx, const uint8_t *key, size_t key_len,
                        const struct index_record *rec)
{
    struct check *c = ctx;
    struct io_error error;
    struct entry e;

    if (datadir_read(c->d, c->replica->partition, key, key_len, rec, &e, &error) < 0) {
        problem(c, "%s", error.text);
    } else if (hashspace_partition_of_hash(hashspace_hash(key, key_len),
                                           datadir_superblock(c->d)->partitions) !=
               c->replica->partition) {
        problem(c,
                "%s: the record at segment %" PRIu32 ", byte %" PRIu32
                " has a key of another partition than %u",
                datadir_path(c->d), rec->at.segment, rec->at.offset, c->replica->partition);
    } else if (rec->kind != ENTRY_SET) {
        c->tombstones++;
    } else if (flush_covers(&c->replica->flush, rec->seq, e.time_usec, c->now_usec)) {
        c->flushed++;
    } else {
        c->records++;
        c->record_bytes += rec->bytes;
        c->expired += expiry_is_over(rec->expiry_sec, c->now_usec);
    }
    return 0;
}

/* Every record of the index points at a readable entry with its key. */
static void index_check(struct check *c)
{
    uint32_t partitions = datadir_superblock(c->d)->partitions;

    for (uint32_t p = 0; p < partitions; p++) {
        c->replica = shard_replica(datadir_shard(c->d), p);
        offline_progress("reading the records of partitions", p, partitions);
        c->pending += c->replica->n_tail;
        (void) datadir_index_walk(c->d, (uint16_t) p, record_check, c);
    }
    c->replayed = true;
}

/* 0, or what stops the whole check. */
static int way_go(struct check *c, uint64_t generation, bool newest, struct io_error *error)
{
    char way[64] = "the log alone";
    int r;

    if (generation != 0) {
        (void) snprintf(way, sizeof(way), "generation %" PRIu64 " with the log behind it",
                        generation);
    }
    offline_progress("replaying: way", c->ways, c->n_generations + 1);
    r = datadir_replay(c->d, generation, error);
    if (r == -EMFILE || r == -ENOMEM) {
        return r;
    }
    if (r < 0) {
        problem(c, "%s", error->text);
        return 0;
    }
    if (newest) {
        index_check(c);
    }
    digests_compare(c, way);
    c->ways++;
    return 0;
}

/* The newest one last, for that is the one that a start takes. */
static int ways_check(struct check *c, struct io_error *error)
{
    bool compacted = datadir_superblock(c->d)->compacted;
    int r = compacted ? 0 : way_go(c, 0, c->n_generations == 0, error);

    if (compacted && c->n_generations == 0) {
        problem(c,
                "%s/checkpoint has no good generation, and segments were compacted away: the log "
                "alone is not everything",
                datadir_path(c->d));
    }
    for (size_t i = c->n_generations; r == 0 && i > 0; i--) {
        r = way_go(c, c->generations[i - 1], i == 1, error);
    }
    return r;
}

/* ---- segments ---- */

static void unreadable_tell(void *ctx, uint32_t segment, uint64_t offset, uint64_t bytes)
{
    struct check *c = ctx;

    problem(c,
            "%s/%010" PRIu32 ".seg: the disk can't give %" PRIu64 " bytes from byte %" PRIu64 " on",
            datadir_segments(c->d)->dir, segment, bytes, offset);
}

/* Behind a torn tail nothing counts. Where no way could be gone nobody knows where it begins. */
static bool is_torn(const struct check *c, const struct wal_segment *s, uint64_t offset)
{
    return c->replayed && !s->trusted && offset >= s->good_bytes;
}

static void frame_count(void *ctx, const struct wal_segment *s, const struct frame *f,
                        struct position at)
{
    struct check *c = ctx;

    if (is_torn(c, s, at.offset)) {
        c->torn_frames++;
        return;
    }
    if (f->kind == 0 || f->kind >= _FRAME_KIND_MAX) {
        problem(c, "%s/%010" PRIu32 ".seg: the frame at byte %" PRIu32 " is of unknown kind %u",
                datadir_segments(c->d)->dir, s->number, at.offset - FRAME_HEAD_BYTES, f->kind);
    } else {
        c->frames[f->kind]++;
    }
}

static void lost_tell(void *ctx, const struct wal_segment *s, uint64_t from, uint64_t to,
                      const char *what)
{
    struct check *c = ctx;

    if (!is_torn(c, s, from)) {
        problem(c, "%s/%010" PRIu32 ".seg: bytes %" PRIu64 " to %" PRIu64 " can't be read: %s",
                datadir_segments(c->d)->dir, s->number, from, to, what);
    }
}

static void head_check(struct check *c, const struct wal_segment *s)
{
    const struct superblock *b = datadir_superblock(c->d);
    const char *dir = datadir_segments(c->d)->dir;
    struct segment_head h;

    if (s->bytes < SEGMENT_HEAD_BYTES || segment_head_decode(s->data, s->bytes, &h) < 0) {
        return; /* told by the scan */
    }
    if (memcmp(h.server_id, b->server_id, UUID_BYTES) != 0) {
        problem(c, "%s/%010" PRIu32 ".seg, byte 40: is of another server", dir, s->number);
    }
    if (h.segment != s->number) {
        problem(c, "%s/%010" PRIu32 ".seg, byte 16: its head says segment %" PRIu32, dir, s->number,
                h.segment);
    }
    if (h.partitions != b->partitions) {
        problem(c, "%s/%010" PRIu32 ".seg, byte 28: is of %" PRIu32 " partitions, and not %" PRIu32,
                dir, s->number, h.partitions, b->partitions);
    }
    if (h.start > b->start) {
        problem(c,
                "%s/%010" PRIu32 ".seg, byte 32: is of start %" PRIu64
                ", the superblock knows of %" PRIu64 ": it is an older one",
                dir, s->number, h.start, b->start);
    }
}

static void segments_check(struct check *c)
{
    const struct segment_set *set = datadir_segments(c->d);
    const struct scan scan = { .ctx = c, .frame = frame_count, .lost = lost_tell };

    for (size_t i = 0; i < set->n; i++) {
        const struct wal_segment *s = &set->v[i];
        offline_progress("reading segments", i, set->n);
        c->log_bytes += s->bytes;
        if (is_torn(c, s, s->bytes)) {
            c->torn_bytes += s->bytes - s->good_bytes;
        }
        if (!is_torn(c, s, 0)) {
            head_check(c, s);
        }
        offline_scan(s, &scan);
    }
}

/* ---- the whole ---- */

static void count_print(const char *what, uint64_t n, const char *more)
{
    printf("  %-22s %14" PRIu64 "%s\n", what, n, more);
}

static void frames_print(const struct check *c)
{
    static const char *const names[_FRAME_KIND_MAX] = {
        [FRAME_PREPARE] = "prepares", [FRAME_COMMIT] = "commits", [FRAME_VIEW] = "views",
        [FRAME_COPY] = "copies",      [FRAME_BASE] = "bases",     [FRAME_HORIZON] = "horizons",
        [FRAME_GONE] = "dropped",     [FRAME_DROP] = "emptied",
    };

    for (unsigned k = 1; k < _FRAME_KIND_MAX; k++) {
        if (c->frames[k] > 0) {
            count_print(names[k] ? names[k] : "other frames", c->frames[k], "");
        }
    }
}

static void counts_print(const struct check *c)
{
    const struct superblock *b = datadir_superblock(c->d);

    printf("%s: server %" PRIu32 " of its cluster, %" PRIu64 " starts%s\n", datadir_path(c->d),
           b->server, b->start, b->compacted ? ", compacted" : "");
    count_print("segments", datadir_segments(c->d)->n, "");
    count_print("bytes of log", c->log_bytes, "");
    count_print("torn tail", c->torn_bytes, " bytes, ignored");
    frames_print(c);
    count_print("good generations", c->n_generations, "");
    count_print("damaged generations", c->n_damaged, "");
    count_print("partitions", b->partitions, "");
    if (c->replayed) {
        count_print("records", c->records, "");
        count_print("bytes of records", c->record_bytes, "");
        count_print("of them expired", c->expired, "");
        count_print("flushed", c->flushed, "");
        count_print("tombstones", c->tombstones, "");
        count_print("uncommitted entries", c->pending, "");
    }
    count_print("ways of a start", c->ways, " gone and compared");
}

static enum offline_status result_print(struct check *c)
{
    offline_progress("", 0, 0);
    counts_print(c);
    if (c->torn_frames > 0) {
        printf("note: %" PRIu64
               " frames in the torn tail can be read, and the next start cuts them "
               "off. That is\nright after a power loss or a kill. If the server was stopped "
               "cleanly, the log is damaged there:\nkeep a copy of the directory, and see "
               "--salvage\n",
               c->torn_frames);
    }
    if (c->n_problems == 0) {
        puts("ok");
        return OFFLINE_OK;
    }
    fwrite(buf_head(&c->problems), 1, buf_len(&c->problems), stdout);
    if (c->n_problems > PROBLEMS_SHOWN_MAX) {
        printf("and %" PRIu64 " more problems\n", c->n_problems - PROBLEMS_SHOWN_MAX);
    }
    return OFFLINE_PROBLEMS;
}

enum offline_status offline_check(const char *dir, bool *ret_torn)
{
    struct check c = { .now_usec = clock_real_usec() };
    enum offline_status status;
    struct io_error error;
    int r = datadir_look(dir, 0, &c.d, &error);

    *ret_torn = false;
    if (r == -ENODATA) {
        printf("%s\nok\n", error.text);
        return OFFLINE_OK;
    }
    if (r < 0) {
        return offline_refuse(r, &error);
    }
    r = datadir_mask(c.d, unreadable_tell, &c, &error);
    if (r == 0) {
        r = generations_check(&c, &error);
    }
    if (r == 0) {
        r = ways_check(&c, &error);
    }
    if (r == 0) {
        segments_check(&c);
    }
    status = r < 0 ? offline_refuse(r, &error) : result_print(&c);
    *ret_torn = c.torn_frames > 0;
    datadir_free(c.d);
    buf_free(&c.problems);
    free(c.generations);
    free(c.digests);
    return status;
}
