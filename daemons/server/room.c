/* Room on the data directory's disk (R15). While there is less than the reserve nothing is stored
 * any more, and what is left is for deletes, checkpoints and compaction, which make room. A ballast
 * file is given up when a write finds no room after all, so that what was begun can end. */
#include "io/log.h"
#include "server_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Parts of disk-reserve. */
#define BALLAST_PART 8
#define FULL_PART    4
/* To come back there must be this much more than what was too little, in percent. */
#define HYSTERESIS_PERCENT 110

const char *room_word(enum shard_space level)
{
    return level == SPACE_FULL  ? "disk full, no writes: "
           : level == SPACE_LOW ? "disk almost full, nothing is stored: "
                                : "";
}

static void ballast_path(const struct server *s, char out[PATH_MAX])
{
    (void) snprintf(out, PATH_MAX, "%.4000s/ballast", s->settings->data_dir);
}

bool room_give_up_ballast(struct server *s)
{
    char path[PATH_MAX];
    bool was_there;

    ballast_path(s, path);
    was_there = unlink(path) == 0;
    if (was_there) {
        log_notice("%s is given up so that what was begun can be written", path);
    }
    s->room.ballast = false;
    return was_there;
}

static void ballast_take(struct server *s)
{
    off_t bytes = (off_t) (s->settings->reserve_bytes / BALLAST_PART);
    char path[PATH_MAX];
    int fd;

    ballast_path(s, path);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    s->room.ballast = fd >= 0 && posix_fallocate(fd, 0, bytes) == 0;
    if (fd >= 0) {
        close(fd);
    }
    if (!s->room.ballast) {
        (void) unlink(path);
    }
}

static bool writes_wait(const struct server *s)
{
    bool wait = false;

    for (uint32_t i = 0; i < s->n_shards; i++) {
        wait = wait || atomic_load_explicit(&shard_thread_counts(s->shards[i])->disk_full,
                                            memory_order_relaxed);
    }
    return wait;
}

/* A generation of checkpoints needs its room as well. */
static uint64_t reserve(const struct server *s)
{
    return s->settings->reserve_bytes + s->generation.bytes;
}

static enum shard_space level_of(const struct server *s, uint64_t room)
{
    uint64_t full = s->settings->reserve_bytes / FULL_PART;
    uint64_t low = reserve(s);

    if (s->room.level == SPACE_FULL) {
        full = full / 100 * HYSTERESIS_PERCENT;
    }
    if (s->room.level != SPACE_ROOM) {
        low = low / 100 * HYSTERESIS_PERCENT;
    }
    return writes_wait(s) || room < full ? SPACE_FULL : room < low ? SPACE_LOW : SPACE_ROOM;
}

static void level_log(const struct server *s, enum shard_space level, uint64_t room)
{
    static const char *const texts[] = {
        [SPACE_ROOM] = "there is room on the disk again: writes are taken",
        [SPACE_LOW] =
            "the disk is almost full: nothing is stored any more, reads and deletes go on",
        [SPACE_FULL] = "the disk is full: no writes are taken, reads go on",
    };

    log_at(level == SPACE_ROOM ? LOG_LEVEL_NOTICE : LOG_LEVEL_ERROR,
           "%s (%llu MiB free in %s, disk-reserve is %llu MiB)", texts[level],
           (unsigned long long) (room >> 20), s->settings->data_dir,
           (unsigned long long) (s->settings->reserve_bytes >> 20));
}

void room_tick(struct server *s)
{
    struct statvfs fs;
    enum shard_space level;
    uint64_t room;

    if (s->n_shards == 0 || statvfs(s->settings->data_dir, &fs) < 0) {
        return;
    }
    room = (uint64_t) fs.f_bavail * fs.f_frsize;
    level = level_of(s, room);
    if (writes_wait(s)) {
        (void) room_give_up_ballast(s);
    }
    if (level == SPACE_ROOM && !s->room.ballast &&
        room > reserve(s) + s->settings->reserve_bytes / BALLAST_PART * 2) {
        ballast_take(s);
    }
    if (level != s->room.level) {
        level_log(s, level, room);
        s->room.level = level;
    } else if (s->room.told_bytes == reserve(s)) {
        return;
    }
    s->room.told_bytes = reserve(s);
    for (uint32_t i = 0; i < s->n_shards; i++) {
        (void) shard_thread_space(s->shards[i], level, reserve(s));
    }
}
