/* A log or checkpoints that can't be believed (R15). When the cluster said that every partition has
 * other members, they are set aside in DIR/damaged-N, whole, with a superblock, so that the offline
 * verbs work there; the server begins with an empty log and fetches everything from the others.
 * What only this server has is never set aside. Nothing is removed here. */
#include "base/cleanup.h"
#include "io/files.h"
#include "io/log.h"
#include "server_private.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASIDE_MAX 1000 /* folders that are looked at for a free number */

static bool others_have_it(const struct server *s)
{
    return s->superblock.copies == COPIES_ELSEWHERE && s->settings->on_damage == DAMAGE_REJOIN;
}

static int path_in(const char *dir, const char *name, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/%s", dir, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* A new folder DIR/damaged-N. */
static int aside_make(const char *dir, char out[PATH_MAX])
{
    char name[32];

    for (unsigned i = 1; i <= ASIDE_MAX; i++) {
        snprintf(name, sizeof(name), "damaged-%u", i);
        if (path_in(dir, name, out) < 0) {
            return -ENAMETOOLONG;
        }
        if (mkdir(out, 0750) == 0) {
            return 0;
        }
        if (errno != EEXIST) {
            return -errno;
        }
    }
    return -EEXIST;
}

static int move(const char *dir, const char *to, const char *name)
{
    char a[PATH_MAX];
    char b[PATH_MAX];

    if (path_in(dir, name, a) < 0 || path_in(to, name, b) < 0) {
        return -ENAMETOOLONG;
    }
    return rename(a, b) == 0 || errno == ENOENT ? 0 : -errno;
}

/* Moves log and checkpoints. A start that is interrupted in it goes on with what is left: the
 * superblock says so first. */
static int data_move(struct server *s, struct io_error *error)
{
    const char *dir = s->settings->data_dir;
    struct superblock left = s->superblock;
    char to[PATH_MAX];
    int r = aside_make(dir, to);

    left.distrust = DISTRUST_NONE; /* for who looks at it there */
    if (r == 0) {
        r = superblock_write(to, &left, error);
    }
    if (r == 0) {
        r = move(dir, to, "checkpoint");
    }
    if (r == 0) {
        r = move(dir, to, "log");
    }
    if (r == 0) {
        r = files_sync(to);
    }
    if (r == 0) {
        r = files_sync(dir);
    }
    if (r < 0) {
        return io_error_set(error, r, "damaged data can't be set aside in %s: %s", to,
                            strerror(-r));
    }
    log_error("the data is set aside in %s, and all is fetched from other servers; remove it when "
              "kumoctl status shows every server well, or look into it: kumo-server --check %s",
              to, to);
    return 0;
}

static bool is_empty(const struct server *s)
{
    char path[PATH_MAX];

    return s->segments.n == 0 &&
           (path_in(s->settings->data_dir, "checkpoint", path) < 0 || access(path, F_OK) < 0);
}

static int set_aside(struct server *s, struct io_error *error)
{
    struct superblock *b = &s->superblock;
    int r;

    b->distrust = DISTRUST_ASIDE;
    b->first_segment = MAX_OF(b->first_segment, segment_set_highest(&s->segments));
    r = superblock_write(s->settings->data_dir, b, error);
    if (r == 0 && !is_empty(s)) {
        r = data_move(s, error);
    }
    if (r < 0) {
        return r;
    }
    segment_set_close(&s->segments);
    checkpoint_set_close(&s->checkpoints);
    b->distrust =
        DISTRUST_EMPTY; /* durable before the first segment is written: superblock_begin */
    b->compacted = false;
    return segment_set_open(&s->segments, s->settings->data_dir, error);
}

int distrust_start(struct server *s, int found, struct io_error *error)
{
    bool decided = s->superblock.distrust == DISTRUST_ASIDE;

    if ((found != -EBADMSG && found != -EIO) || (!decided && !others_have_it(s))) {
        return found;
    }
    log_error("%s", error->text);
    return set_aside(s, error);
}

void distrust_next_start(struct server *s)
{
    struct superblock b = s->superblock;

    b.distrust = DISTRUST_ASIDE;
    if (others_have_it(s) && identity_write(s, &b) == 0) {
        log_notice("other servers have all of it: the next start sets this data aside and fetches "
                   "it anew");
    }
}

void distrust_tick(struct server *s)
{
    struct superblock b = s->superblock;
    struct shard_counts c;

    if ((b.distrust == DISTRUST_NONE && !b.doubt) || s->n_shards == 0) {
        return;
    }
    counts_sum(s, &c);
    if (b.distrust == DISTRUST_EMPTY && c.distrusted == 0) {
        b.distrust = DISTRUST_NONE;
    }
    b.doubt = b.doubt && c.untrusted > 0;
    if (b.distrust != s->superblock.distrust || b.doubt != s->superblock.doubt) {
        (void) identity_write(s, &b);
    }
}
