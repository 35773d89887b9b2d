/* The raft node on a real disk: order, replay, snapshots, lengths, closing, kill -9, damage, dead
 * disk. */
#include "io/raft_node.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A state machine that remembers how many entries it saw, and a checksum over all of them in order.
 */
struct counter {
    uint64_t count;
    uint64_t index;
    uint32_t crc;
};

struct rig {
    char dir[64];
    struct event_base *base;
    struct raft_node *node;
    struct counter state;
    unsigned n_restored;
    unsigned n_snapshots;
    int refuse_restore;
    bool leader;
    bool closed;
    unsigned n_failed;
    char text[1024]; /* the last sentence for the operator */
    unsigned n_done;
    unsigned n_ok;
    unsigned n_lost;
    unsigned n_bad; /* done out of order, or before apply */
    uint64_t done_index;
    unsigned to_propose; /* from within done */
    bool close_in_done;
};

static double now_sec(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void on_apply(void *ctx, uint64_t index, const uint8_t *data, size_t bytes)
{
    struct rig *g = ctx;

    g->n_bad += index <= g->state.index;
    g->state.index = index;
    g->state.count++;
    g->state.crc = crc32c(g->state.crc, &bytes, sizeof(bytes));
    g->state.crc = crc32c(g->state.crc, data, bytes);
}

static void on_snapshot(void *ctx, struct buf *out)
{
    struct rig *g = ctx;

    g->n_snapshots++;
    buf_append(out, &g->state, sizeof(g->state));
}

static int on_restore(void *ctx, const uint8_t *data, size_t bytes)
{
    struct rig *g = ctx;

    if (g->refuse_restore < 0) {
        return g->refuse_restore;
    }
    if (bytes != sizeof(g->state)) {
        return -EBADMSG;
    }
    memcpy(&g->state, data, bytes);
    g->n_restored++;
    return 0;
}

static void on_leadership(void *ctx, bool leader)
{
    struct rig *g = ctx;

    g->leader = leader;
}

static void on_failed(void *ctx, const char *why)
{
    struct rig *g = ctx;

    g->n_failed++;
    snprintf(g->text, sizeof(g->text), "%s", why);
}

static void on_log(void *ctx, int level, const char *text)
{
    struct rig *g = ctx;

    (void) level;
    snprintf(g->text, sizeof(g->text), "%s", text);
}

static void on_closed(void *ctx)
{
    struct rig *g = ctx;

    g->closed = true;
    g->node = NULL;
}

static int rig_start_as(struct rig *g, uint64_t id)
{
    struct raft_node_options o = {
        .base = g->base,
        .dir = g->dir,
        .id = id,
        .address = "127.0.0.1:19700",
        .bootstrap = true,
        .fsm = { .ctx = g,
                 .apply = on_apply,
                 .snapshot = on_snapshot,
                 .restore = on_restore,
                 .leadership = on_leadership,
                 .failed = on_failed },
        .log = on_log,
        .log_ctx = g,
    };

    g->state = (struct counter){ 0 };
    g->leader = g->closed = false;
    g->n_restored = g->n_snapshots = g->n_done = g->n_ok = g->n_lost = 0;
    g->done_index = 0;
    g->text[0] = '\0';
    g->node = NULL;
    return raft_node_start(&o, &g->node);
}

static int rig_start(struct rig *g)
{
    return rig_start_as(g, 7);
}

/* Turns the loop until the flag is set; false after 60 s (valgrind is slow). */
static bool rig_wait(struct rig *g, const bool *flag)
{
    double end = now_sec() + 60;

    while (!*flag && now_sec() < end) {
        event_base_loop(g->base, EVLOOP_ONCE);
    }
    return *flag;
}

static bool rig_wait_done(struct rig *g, unsigned n)
{
    double end = now_sec() + 60;

    while (g->n_done < n && now_sec() < end) {
        event_base_loop(g->base, EVLOOP_ONCE);
    }
    return g->n_done == n;
}

static void rig_lead(struct rig *g)
{
    assert_int_equal(rig_start(g), 0);
    assert_true(rig_wait(g, &g->leader));
    assert_true(consensus_is_leader(raft_node_consensus(g->node)));
}

static void rig_close(struct rig *g)
{
    raft_node_close(g->node, on_closed, g);
    assert_true(rig_wait(g, &g->closed));
}

static int rig_propose(struct rig *g, const uint8_t *data, size_t bytes);

static void on_done(void *ctx, int status, uint64_t index)
{
    struct rig *g = ctx;

    g->n_done++;
    if (status == 0) {
        g->n_ok++;
        g->n_bad += index <= g->done_index || index > g->state.index;
        g->done_index = index;
    } else {
        g->n_lost += status == -EREMOTEIO;
    }
    if (g->to_propose > 0) {
        g->to_propose--;
        g->n_bad += rig_propose(g, (const uint8_t *) "more", 4) != 0;
    }
    if (g->close_in_done) {
        g->close_in_done = false;
        raft_node_close(g->node, on_closed, g);
    }
}

static int rig_propose(struct rig *g, const uint8_t *data, size_t bytes)
{
    return consensus_propose(raft_node_consensus(g->node), data, bytes, on_done, g);
}

static void rig_propose_n(struct rig *g, unsigned n)
{
    uint8_t b[24] = { 0 };

    for (unsigned i = 0; i < n; i++) {
        bytes_put_u32(b, i);
        assert_int_equal(rig_propose(g, b, 8 + i % 16), 0);
    }
}

/* Many entries, never more under way than allowed. */
static void rig_commit(struct rig *g, unsigned n)
{
    while (n > 0) {
        unsigned some = MIN_OF(n, 512U);
        unsigned before = g->n_done;
        rig_propose_n(g, some);
        assert_true(rig_wait_done(g, before + some));
        n -= some;
    }
    assert_int_equal(g->n_ok, g->n_done);
    assert_int_equal(g->n_bad, 0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void) st;
    (void) flag;
    (void) ftw;
    return remove(path);
}

static int setup(void **state)
{
    struct rig *g = calloc(1, sizeof(*g));

    strcpy(g->dir, "/tmp/kumo-raft-XXXXXX");
    *state = g;
    g->base = event_base_new();
    return mkdtemp(g->dir) ? 0 : -1;
}

static int teardown(void **state)
{
    struct rig *g = *state;

    event_base_free(g->base);
    nftw(g->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(g);
    return 0;
}

/* The first file whose name begins so, as a path. */
static bool find_file(const struct rig *g, const char *prefix, const char *not_suffix, char *path,
                      size_t path_bytes)
{
    DIR *d = opendir(g->dir);
    bool found = false;

    for (struct dirent *e; d && (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        size_t suffix = not_suffix ? strlen(not_suffix) : 0;
        bool skip = suffix && len > suffix && strcmp(e->d_name + len - suffix, not_suffix) == 0;
        if (!skip && strncmp(e->d_name, prefix, strlen(prefix)) == 0) {
            snprintf(path, path_bytes, "%s/%s", g->dir, e->d_name);
            found = true;
        }
    }
    closedir(d);
    return found;
}

static void flip_bit(const char *path, long offset)
{
    FILE *f = fopen(path, "r+e");
    int c;

    assert_non_null(f);
    fseek(f, offset, offset < 0 ? SEEK_END : SEEK_SET);
    c = fgetc(f);
    assert_int_not_equal(c, EOF);
    fseek(f, -1, SEEK_CUR);
    fputc(c ^ 1, f);
    fclose(f);
}

static void test_leader_soon(void **state)
{
    struct rig *g = *state;
    double t = now_sec();

    rig_lead(g);
    t = now_sec() - t;
    print_message("# leader of a new log after %.1f ms\n", t * 1e3);
    assert_true(t < 5);
    rig_close(g);
    t = now_sec();
    rig_lead(g);
    print_message("# leader of an old log after %.1f ms\n", (now_sec() - t) * 1e3);
    rig_close(g);
}

static void test_order(void **state)
{
    struct rig *g = *state;
    double t;

    rig_lead(g);
    t = now_sec();
    rig_propose_n(g, 1000);
    assert_int_equal(g->n_done, 0);
    assert_true(rig_wait_done(g, 1000));
    print_message("# 1000 entries at once: %.1f us each\n", (now_sec() - t) * 1e3);
    assert_int_equal(g->n_ok, 1000);
    assert_int_equal(g->n_bad, 0);
    assert_int_equal(g->state.count, 1000);
    assert_int_equal(consensus_applied(raft_node_consensus(g->node)), g->done_index);

    g->to_propose = 999;
    t = now_sec();
    rig_propose_n(g, 1);
    assert_true(rig_wait_done(g, 2000));
    print_message("# 1000 entries in turn: %.1f us each\n", (now_sec() - t) * 1e3);
    assert_int_equal(g->n_bad, 0);
    assert_int_equal(g->state.count, 2000);
    rig_close(g);
    assert_int_equal(g->n_done, 2000);
}

static void test_replay(void **state)
{
    struct rig *g = *state;
    struct counter before;

    rig_lead(g);
    rig_commit(g, 700);
    before = g->state;
    rig_close(g);
    assert_int_equal(rig_start(g), 0);
    assert_int_equal(g->n_restored, 0);
    assert_memory_equal(&g->state, &before, sizeof(before)); /* before any turn of the loop */
    assert_true(rig_wait(g, &g->leader));
    rig_commit(g, 1);
    assert_int_equal(g->state.count, 701);
    rig_close(g);
}

static void test_snapshots(void **state)
{
    struct rig *g = *state;
    uint64_t count = 0;

    for (unsigned round = 0; round < 3; round++) {
        rig_lead(g);
        assert_int_equal(g->state.count, count);
        /* How many entries come while a snapshot is being written is up to the disk. */
        while (g->n_snapshots < 3) {
            rig_commit(g, RAFT_NODE_SNAPSHOT_THRESHOLD + 100);
            count += RAFT_NODE_SNAPSHOT_THRESHOLD + 100;
        }
        struct counter before = g->state;
        rig_close(g);
        assert_int_equal(rig_start(g), 0);
        assert_int_equal(g->n_restored, 1);
        assert_memory_equal(&g->state, &before, sizeof(before));
        rig_close(g);
    }
    assert_int_equal(g->n_bad, 0);
}

static void test_lengths(void **state)
{
    struct rig *g = *state;
    _cleanup_free_ uint8_t *big = malloc(RAFT_NODE_ENTRY_BYTES_MAX + 1);
    struct counter before;

    memset(big, 0xa5, RAFT_NODE_ENTRY_BYTES_MAX + 1);
    rig_lead(g);
    for (size_t bytes = 0; bytes <= 17; bytes++) {
        assert_int_equal(rig_propose(g, big, bytes), 0);
    }
    assert_int_equal(rig_propose(g, big, 64 << 10), 0);
    assert_int_equal(rig_propose(g, big, RAFT_NODE_ENTRY_BYTES_MAX), 0);
    assert_int_equal(rig_propose(g, big, RAFT_NODE_ENTRY_BYTES_MAX + 1), -EMSGSIZE);
    assert_true(rig_wait_done(g, 20));
    before = g->state;
    for (size_t i = 0, bytes = 0; i < 20; i++) {
        bytes = i <= 17 ? i : i == 18 ? 64 << 10 : RAFT_NODE_ENTRY_BYTES_MAX;
        before.crc = i == 0 ? 0 : before.crc;
        before.crc = crc32c(before.crc, &bytes, sizeof(bytes));
        before.crc = crc32c(before.crc, big, bytes);
    }
    assert_int_equal(before.crc, g->state.crc);
    rig_close(g);
    rig_lead(g);
    assert_memory_equal(&g->state, &before, sizeof(before));
    rig_close(g);
}

static void test_limits(void **state)
{
    struct rig *g = *state;
    _cleanup_free_ uint8_t *big = calloc(1, RAFT_NODE_ENTRY_BYTES_MAX);

    assert_int_equal(rig_start(g), 0);
    assert_int_equal(rig_propose(g, big, 1), -EAGAIN); /* no leader yet */
    assert_true(rig_wait(g, &g->leader));
    rig_propose_n(g, RAFT_NODE_PENDING_MAX);
    assert_int_equal(rig_propose(g, big, 1), -ENOBUFS);
    assert_true(rig_wait_done(g, RAFT_NODE_PENDING_MAX));
    for (size_t bytes = 0; bytes < RAFT_NODE_PENDING_BYTES_MAX;
         bytes += RAFT_NODE_ENTRY_BYTES_MAX) {
        assert_int_equal(rig_propose(g, big, RAFT_NODE_ENTRY_BYTES_MAX), 0);
    }
    assert_int_equal(rig_propose(g, big, 1), -ENOBUFS);
    assert_int_equal(rig_propose(g, big, 0), 0);
    rig_close(g);
    assert_int_equal(g->n_bad, 0);
}

/* All proposals end when the node is closed over them; what was reported done is there afterwards.
 */
static void test_close_under_way(void **state)
{
    struct rig *g = *state;
    unsigned n_ok;

    rig_lead(g);
    rig_propose_n(g, 300);
    raft_node_close(g->node, on_closed, g);
    assert_int_equal(rig_propose(g, NULL, 0), -EAGAIN);
    assert_false(consensus_is_leader(raft_node_consensus(g->node)));
    assert_true(rig_wait(g, &g->closed));
    assert_int_equal(g->n_done, 300);
    assert_int_equal(g->n_ok + g->n_lost, 300);
    n_ok = g->n_ok;
    rig_lead(g);
    assert_in_range(g->state.count, n_ok, 300);
    rig_close(g);

    rig_lead(g);
    g->close_in_done = true;
    rig_propose_n(g, 100);
    assert_true(rig_wait(g, &g->closed));
    assert_int_equal(g->n_done, 100);
    assert_int_equal(g->n_bad, 0);

    assert_int_equal(rig_start(g), 0); /* closed before it led */
    rig_close(g);
}

/* In a child: proposes for ever, eight under way, and tells through the pipe how many were done. */
struct killed {
    struct rig *rig;
    int pipe_fd;
    uint64_t told;
};

static void on_killed_done(void *ctx, int status, uint64_t index)
{
    struct killed *k = ctx;
    uint8_t b[40] = { 0 };

    (void) index;
    if (status < 0) {
        _exit(3);
    }
    k->told++;
    if (write(k->pipe_fd, &k->told, sizeof(k->told)) != sizeof(k->told)) {
        _exit(4);
    }
    bytes_put_u64(b, k->told);
    if (consensus_propose(raft_node_consensus(k->rig->node), b, 9 + k->told % 30, on_killed_done,
                          k) < 0) {
        _exit(5);
    }
}

static void killed_child(struct rig *g, int pipe_fd)
{
    struct killed k = { .rig = g, .pipe_fd = pipe_fd };

    event_reinit(g->base);
    if (rig_start(g) < 0 || !rig_wait(g, &g->leader)) {
        _exit(2);
    }
    k.told = g->state.count;
    for (int i = 0; i < 8; i++) {
        if (consensus_propose(raft_node_consensus(g->node), (const uint8_t *) "x", 1,
                              on_killed_done, &k) < 0) {
            _exit(6);
        }
    }
    event_base_dispatch(g->base);
    _exit(7);
}

static void test_kill(void **state)
{
    struct rig *g = *state;
    uint64_t count = 0;

    for (unsigned round = 0; round < 6; round++) {
        uint64_t told = 0, last = 0;
        int fds[2], status;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            killed_child(g, fds[1]);
        }
        close(fds[1]);
        uint64_t until = count + 300 + round * 701; /* the later rounds pass snapshots */
        while (last < until && read(fds[0], &told, sizeof(told)) == sizeof(told)) {
            last = told;
        }
        kill(pid, SIGKILL);
        while (read(fds[0], &told, sizeof(told)) == sizeof(told)) {
            last = told;
        }
        close(fds[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_true(last >= until);

        rig_lead(g);
        assert_in_range(g->state.count, last, last + 8);
        count = g->state.count;
        assert_int_equal(g->n_bad, 0);
        rig_close(g);
    }
}

/* Runs a check in a child, perhaps as another user; it exits 0 when all was right. */
static void in_child(struct rig *g, void (*check)(struct rig *g))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        event_reinit(g->base);
        check(g);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void check_not_writable(struct rig *g)
{
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)) {
        _exit(2);
    }
    if (rig_start(g) != -EACCES) {
        _exit(3);
    }
    if (!strstr(g->text, "raft log in") || !strstr(g->text, g->dir) ||
        !strstr(g->text, "Permission denied")) {
        _exit(4);
    }
}

static void test_not_writable(void **state)
{
    struct rig *g = *state;

    assert_int_equal(chmod(g->dir, 0555), 0);
    in_child(g, check_not_writable);
    assert_int_equal(chmod(g->dir, 0755), 0);
}

static void test_refusals(void **state)
{
    struct rig *g = *state;
    struct rig other = { .base = g->base };

    strcpy(other.dir, "/tmp/kumo-raft-none/nothing");
    assert_int_equal(rig_start(&other), -ENOENT);
    strcpy(other.dir, "/etc/passwd");
    assert_int_equal(rig_start(&other), -ENOTDIR);
    strcpy(other.dir, g->dir);
    assert_int_equal(rig_start_as(&other, 0), -EINVAL);

    rig_lead(g);
    assert_int_equal(rig_start(&other), -EBUSY);
    assert_non_null(strstr(other.text, "another process"));
    rig_close(g);
    assert_int_equal(rig_start_as(&other, 8), -EINVAL);
    assert_non_null(strstr(other.text, "another manager"));
    rig_lead(g);
    rig_close(g);
}

static void test_damaged_entry(void **state)
{
    struct rig *g = *state;
    char path[512];

    rig_lead(g);
    rig_commit(g, 100);
    rig_close(g);
    assert_true(find_file(g, "0000000000000002-", NULL, path, sizeof(path)));
    flip_bit(path, 1000);
    assert_int_equal(rig_start(g), -EBADMSG);
    print_message("# %s\n", g->text);
    flip_bit(path, 1000);
    rig_lead(g);
    assert_int_equal(g->state.count, 100);
    rig_close(g);
}

static void test_damaged_snapshot(void **state)
{
    struct rig *g = *state;
    char path[512];

    rig_lead(g);
    while (!find_file(g, "snapshot-", ".meta", path, sizeof(path))) {
        rig_commit(g, RAFT_NODE_SNAPSHOT_THRESHOLD / 4);
    }
    rig_close(g);
    flip_bit(path, -1);
    assert_int_equal(rig_start(g), -EBADMSG);
    print_message("# %s\n", g->text);
    flip_bit(path, -1);
    g->refuse_restore = -EBADMSG;
    assert_int_equal(rig_start(g), -EBADMSG);
    g->refuse_restore = 0;
    rig_lead(g);
    assert_int_equal(g->n_restored, 1);
    rig_close(g);
}

static void test_metadata(void **state)
{
    struct rig *g = *state;
    uint8_t first[32] = { 0 };
    char path[512];

    /* A crash in the middle of the bootstrap: after the term was written, and while it was. */
    for (size_t bytes = 0; bytes <= sizeof(first); bytes += 16) {
        bytes_put_u64(first, 1);
        bytes_put_u64(first + 8, 1);
        bytes_put_u64(first + 16, 1);
        snprintf(path, sizeof(path), "%s/metadata1", g->dir);
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        assert_int_equal(fwrite(first, 1, bytes, f), bytes);
        fclose(f);
        rig_lead(g);
        rig_commit(g, 3);
        rig_close(g);
        assert_int_equal(nftw(g->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
        assert_int_equal(mkdir(g->dir, 0755), 0);
    }

    rig_lead(g);
    rig_commit(g, 3);
    rig_close(g);
    unlink(path);
    snprintf(path, sizeof(path), "%s/metadata2", g->dir);
    unlink(path);
    assert_int_equal(rig_start(g), -EBADMSG); /* not begun anew over a log that is there */
    assert_non_null(strstr(g->text, "metadata"));
}

/* Puts something that can't be written in the place of the open segments' files. */
static void kill_disk(const struct rig *g)
{
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    for (int fd = 3; fd < 256; fd++) {
        char link[64], path[512];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof(path) - 1);
        if (n > 0) {
            path[n] = '\0';
            if (strncmp(path, g->dir, strlen(g->dir)) == 0 && strstr(path, "/open-")) {
                dup2(null_fd, fd);
            }
        }
    }
    close(null_fd);
}

static void check_dead(struct rig *g, void (*kill_it)(const struct rig *g))
{
    static struct raft_node *left_alone; /* for the leak checkers: not freed after a failure */
    uint8_t b[8] = { 0 };

    if (rig_start(g) < 0 || !rig_wait(g, &g->leader)) {
        _exit(2);
    }
    left_alone = g->node;
    kill_it(g);
    for (int i = 0; i < 5; i++) {
        int r = rig_propose(g, b, sizeof(b));
        if (r < 0 && r != -EIO) {
            _exit(3);
        }
        g->n_done += r < 0;
    }
    if (!rig_wait_done(g, 5) || g->n_ok > 0 || g->state.count > 0) {
        _exit(4);
    }
    if (g->n_failed != 1 || g->leader || !strstr(g->text, g->dir)) {
        _exit(5);
    }
    if (rig_propose(g, b, sizeof(b)) != -EIO) {
        _exit(6);
    }
    fprintf(stderr, "# %s\n", g->text);
    raft_node_close(g->node, on_closed, g);
    if (!rig_wait(g, &g->closed) || g->n_failed != 1 || g->n_done != 5 || !left_alone) {
        _exit(7);
    }
}

/* The write is refused at once. */
static void check_dead_disk(struct rig *g)
{
    check_dead(g, kill_disk);
}

static void forbid_writes(const struct rig *g)
{
    const struct rlimit none = { 0, RLIM_INFINITY };

    (void) g;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &none);
}

/* The write is taken, and fails later. */
static void check_failing_disk(struct rig *g)
{
    check_dead(g, forbid_writes);
}

static void test_dead_disk(void **state)
{
    struct rig *g = *state;

    in_child(g, check_dead_disk);
    in_child(g, check_failing_disk);
    rig_lead(g);
    assert_int_equal(g->state.count, 0);
    rig_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_leader_soon, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_snapshots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_writable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_disk, setup, teardown),
    };

    return cmocka_run_group_tests_name("io_raft_node", tests, NULL, NULL);
}
