#include "io/files.h"
#include "io/superblock.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SUPERBLOCK_MAGIC      "KUMOSUP1"
#define SUPERBLOCK_HEAD_BYTES 12   /* magic 8, crc 4; then one MessagePack array */
#define SUPERBLOCK_BYTES      4096 /* always: a spare takes the next one without needing room */
#define SUPERBLOCK_ITEMS      17
#define SUPERBLOCK_ITEMS_MIN  12 /* of the first release */

static int path_of(const char *dir, const char *name, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/%s", dir, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static void encode(struct buf *b, const struct superblock *s)
{
    const struct incarnation *i = &s->incarnation;

    mp_put_array(b, SUPERBLOCK_ITEMS);
    mp_put_bin(b, s->server_id, UUID_BYTES);
    mp_put_bin(b, s->cluster_id, UUID_BYTES);
    mp_put_uint(b, s->server);
    mp_put_uint(b, s->partitions);
    mp_put_uint(b, i->accepted);
    mp_put_uint(b, i->counter);
    mp_put_uint(b, i->random);
    mp_put_uint(b, s->start);
    mp_put_uint(b, s->first_segment);
    mp_put_bool(b, i->sent);
    mp_put_bool(b, s->compacted);
    mp_put_array(b, i->n_priors);
    for (uint32_t j = 0; j < i->n_priors; j++) {
        mp_put_uint(b, i->priors[j]);
    }
    mp_put_bool(b, s->clean);
    mp_put_bool(b, s->weak);
    mp_put_bool(b, s->doubt);
    mp_put_uint(b, s->distrust);
    mp_put_uint(b, s->copies);
}

static int decode(const uint8_t *p, size_t bytes, struct superblock *ret)
{
    struct mp_reader r = mp_reader_of(p, bytes);
    struct superblock s = { 0 };
    struct incarnation *i = &s.incarnation;
    uint32_t items = mp_get_array(&r);

    if (items < SUPERBLOCK_ITEMS_MIN) {
        return -EBADMSG;
    }
    mp_get_bin_exact(&r, s.server_id, UUID_BYTES);
    mp_get_bin_exact(&r, s.cluster_id, UUID_BYTES);
    s.server = (uint32_t) mp_get_uint_max(&r, SERVERS_MAX);
    s.partitions = (uint32_t) mp_get_uint_max(&r, PARTITIONS_MAX);
    i->accepted = mp_get_uint(&r);
    i->counter = mp_get_uint(&r);
    i->random = mp_get_uint(&r);
    s.start = mp_get_uint(&r);
    s.first_segment = (uint32_t) mp_get_uint_max(&r, UINT32_MAX);
    i->sent = mp_get_bool(&r);
    s.compacted = mp_get_bool(&r);
    i->n_priors = mp_get_array(&r);
    if (i->n_priors > PRIORS_MAX) {
        return -EBADMSG;
    }
    for (uint32_t j = 0; j < i->n_priors; j++) {
        i->priors[j] = mp_get_uint(&r);
    }
    if (items >= SUPERBLOCK_ITEMS) {
        s.clean = mp_get_bool(&r);
        s.weak = mp_get_bool(&r);
        s.doubt = mp_get_bool(&r);
        s.distrust = (enum superblock_distrust) mp_get_uint_max(&r, _DISTRUST_MAX - 1);
        s.copies = (enum superblock_copies) mp_get_uint_max(&r, _COPIES_MAX - 1);
    }
    if (r.failed) {
        return -EBADMSG;
    }
    *ret = s;
    return 0;
}

int superblock_read(const char *dir, struct superblock *ret, struct io_error *error)
{
    _cleanup_(files_close) int fd = -1;
    uint8_t bytes[SUPERBLOCK_BYTES];
    char path[PATH_MAX];
    ssize_t n;

    if (path_of(dir, "superblock", path) < 0) {
        return io_error_set(error, -ENAMETOOLONG, "%s: the path is too long", dir);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return io_error_set(error, -errno, "%s can't be opened: %s", path, strerror(errno));
    }
    n = read(fd, bytes, sizeof(bytes));
    if (n < 0) {
        return io_error_set(error, -errno, "%s can't be read: %s", path, strerror(errno));
    }
    if (n != SUPERBLOCK_BYTES || memcmp(bytes, SUPERBLOCK_MAGIC, 8) != 0 ||
        crc32c(0, bytes + SUPERBLOCK_HEAD_BYTES, (size_t) n - SUPERBLOCK_HEAD_BYTES) !=
            bytes_get_u32(bytes + 8) ||
        decode(bytes + SUPERBLOCK_HEAD_BYTES, (size_t) n - SUPERBLOCK_HEAD_BYTES, ret) < 0) {
        return io_error_set(error, -EBADMSG,
                            "%s is damaged or not a superblock of kumofs: without it nobody knows "
                            "whose data this is; nothing was changed",
                            path);
    }
    return 0;
}

/* The file's content at `path`, durable in itself. What was there is written over: on a full disk
 * too. */
static int write_file(const char *path, const struct buf *b)
{
    _cleanup_(files_close) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);

    if (fd < 0 || write(fd, b->data, buf_len(b)) != (ssize_t) buf_len(b) || fsync(fd) < 0) {
        return errno ? -errno : -EIO;
    }
    return 0;
}

/* The old one becomes the spare. */
static int exchange(const char *spare, const char *path)
{
    if (renameat2(AT_FDCWD, spare, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        return 0;
    }
    return rename(spare, path) < 0 ? -errno : 0; /* the first one; or not every disk can exchange */
}

int superblock_write(const char *dir, const struct superblock *s, struct io_error *error)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    size_t padding;
    int r;

    if (path_of(dir, "superblock", path) < 0 || path_of(dir, "superblock.new", temporary) < 0) {
        return io_error_set(error, -ENAMETOOLONG, "%s: the path is too long", dir);
    }
    buf_append(&b, SUPERBLOCK_MAGIC "\0\0\0\0", SUPERBLOCK_HEAD_BYTES);
    encode(&b, s);
    kumo_assert(buf_len(&b) <= SUPERBLOCK_BYTES);
    padding = SUPERBLOCK_BYTES - buf_len(&b);
    memset(buf_reserve(&b, padding), 0, padding);
    b.end += padding;
    bytes_put_u32(b.data + 8,
                  crc32c(0, b.data + SUPERBLOCK_HEAD_BYTES, buf_len(&b) - SUPERBLOCK_HEAD_BYTES));
    errno = 0;
    r = files_sync(dir); /* what is written over is surely the spare, on the disk too */
    if (r == 0) {
        r = write_file(temporary, &b);
    }
    if (r == 0) {
        r = exchange(temporary, path);
    }
    if (r == 0) {
        r = files_sync(dir);
    }
    return r < 0 ? io_error_set(error, r, "%s can't be written: %s", path, strerror(-r)) : 0;
}
