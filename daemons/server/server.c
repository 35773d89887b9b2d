#include "server.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "io/bus.h"
#include "io/daemon.h"
#include "io/keyring.h"
#include "io/log.h"
#include "server_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LISTEN_PORT         19800
#define EXTEND_USEC         (UINT64_C(30) * 1000000)
#define STATUS_USEC         1000000
#define PULSE_USEC          100000
#define HELLO_OUT_BYTES_MAX 65536
#define CONNECTIONS_MAX     65536
#define DESCRIPTORS_BESIDE  (256 + RPC_LOBBY_MAX) /* what there must be beside the indexes */

void server_fail(struct server *s, const char *why)
{
    if (!s->failed) {
        s->failed = true;
        log_error("stopping: %s", why);
        loop_stop(s->loop);
    }
}

/* Has every shard's loop turned since the last question? */
static bool is_alive(void *ctx)
{
    struct server *s = ctx;
    bool alive = true;

    for (uint32_t i = 0; i < s->n_shards; i++) {
        uint64_t turns = shard_thread_turns(s->shards[i]);
        alive = alive && (turns != s->turns_seen[i] || s->n_replayed < s->n_shards);
        s->turns_seen[i] = turns;
    }
    return alive;
}

/* ---- shards ---- */

static void on_shard_failed(void *ctx, const char *why, bool damaged)
{
    if (damaged) {
        distrust_next_start(ctx);
    }
    server_fail(ctx, why);
}

static void on_replayed(void *ctx)
{
    struct server *s = ctx;

    s->n_replayed++;
    if (s->n_replayed == s->n_shards) {
        segment_set_replayed(&s->segments);
        progress_end(&s->progress);
    }
    server_serve_if_ready(s);
}

/* The indexes keep two file descriptors a partition open, and four while they grow. The soft limit
 * is raised as far as is allowed. */
static int descriptors_check(uint32_t partitions, struct io_error *error)
{
    rlim_t need = (rlim_t) partitions * 4 + DESCRIPTORS_BESIDE;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return 0;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
        (void) getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < need) {
        return io_error_set(
            error, -EMFILE,
            "%u partitions need %llu file descriptors, %llu are allowed: raise the limit "
            "(LimitNOFILE= in the unit, or ulimit -n)",
            partitions, (unsigned long long) need, (unsigned long long) limit.rlim_cur);
    }
    return 0;
}

int server_start_shards(struct server *s, struct io_error *error)
{
    struct shard_thread_options o = {
        .shard = { .server = s->superblock.server,
                   .value_bytes_max = s->settings->value_bytes_max,
                   .failure_usec = s->settings->failure_usec,
                   .replica_usec = s->settings->replica_usec,
                   .confirm = s->settings->read_mode == READ_CONFIRM,
                   .distrusted = s->superblock.distrust != DISTRUST_NONE,
                   .untrusted = s->superblock.doubt,
                   .log = { .start = s->superblock.start,
                            .shards = (uint32_t) s->settings->threads,
                            .partitions = s->superblock.partitions,
                            .first_segment = s->superblock.first_segment,
                            .segment_bytes = (uint32_t) s->settings->segment_bytes } },
        .data_dir = s->settings->data_dir,
        .set = &s->segments,
        .checkpoints = &s->checkpoints,
        .progress = &s->progress,
        .checkpoint_writer = s->checkpoint_writer,
        .readers = s->readers,
        .sync = (enum sync_mode) s->settings->sync,
        .sync_interval_usec = s->settings->sync_interval_usec,
        .incarnation = s->superblock.incarnation.counter,
        .owner = { .loop = s->loop,
                   .ctx = s,
                   .on_sealed = manager_link_sealed,
                   .on_reconfig = manager_link_reconfig,
                   .on_failed = on_shard_failed,
                   .on_checkpointed = checkpointer_shard_done,
                   .on_compacted = compactor_shard_done,
                   .on_replayed = on_replayed },
    };

    if (descriptors_check(s->superblock.partitions, error) < 0) {
        return -EMFILE;
    }
    memcpy(o.cluster_id, s->superblock.cluster_id, UUID_BYTES);
    memcpy(o.shard.log.server_id, s->superblock.server_id, UUID_BYTES);
    s->shards = mem_zalloc(o.shard.log.shards, sizeof(struct shard_thread *));
    s->turns_seen = mem_zalloc(o.shard.log.shards, sizeof(*s->turns_seen));
    progress_begin(&s->progress, "reading checkpoints and log", NULL, o.shard.log.shards,
                   checkpoint_set_bytes(&s->checkpoints) +
                       segment_set_replay_bytes(&s->segments, o.shard.log.shards));
    for (uint32_t i = 0; i < o.shard.log.shards; i++) {
        int r;
        o.shard.log.shard = i;
        r = shard_thread_start(&o, &s->shards[i]);
        if (r < 0) {
            return io_error_set(error, r, "the shards can't be started: %s", strerror(-r));
        }
        s->n_shards++;
    }
    return 0;
}

/* ---- accepting ---- */

/* NULL, or why this hello is refused. */
static const char *hello_refuses(const struct server *s, const struct msg_hello *h)
{
    static const uint8_t none[UUID_BYTES];

    if (h->protocol_min > MSG_PROTOCOL_MAX || h->protocol_max < MSG_PROTOCOL_MIN) {
        return "no protocol version in common: upgrade the older side";
    }
    if (memcmp(h->cluster_id, none, UUID_BYTES) != 0 &&
        memcmp(h->cluster_id, s->superblock.cluster_id, UUID_BYTES) != 0) {
        return "this server belongs to another cluster";
    }
    if (h->role != ROLE_SERVER && h->role != ROLE_GATEWAY && h->role != ROLE_CTL) {
        return "a server only serves gateways, servers and kumoctl";
    }
    if (h->role == ROLE_SERVER &&
        (h->server == 0 || memcmp(h->cluster_id, none, UUID_BYTES) == 0)) {
        return "a server that no manager has accepted";
    }
    return h->shard >= s->n_shards ? "there is no such shard" : NULL;
}

static enum rpc_verdict on_hello(struct rpc *rpc, void *ctx, struct mp_reader *params,
                                 struct buf *answer)
{
    struct server *s = ctx;
    struct msg_hello h;
    const char *why;

    msg_get_hello(params, &h);
    why = params->failed ? "malformed hello" : hello_refuses(s, &h);
    if (why) {
        buf_append(answer, why, strlen(why));
        return RPC_HELLO_REFUSE;
    }
    /* The connection belongs to the shard that its hello names. */
    (void) shard_thread_adopt(s->shards[h.shard], rpc_detach(rpc));
    listener_release(s->listener);
    return RPC_HELLO_DETACHED;
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct server *s = ctx;

    (void) error;
    listener_release(s->listener);
    log_debug("%s went before its hello: %s", rpc_peer_name(rpc), why);
}

static const struct rpc_ops accept_ops = {
    .on_hello = on_hello,
    .on_closed = on_closed,
};

static void on_accept(void *ctx, int fd)
{
    struct server *s = ctx;
    struct rpc_config config = {
        .ops = &accept_ops,
        .ctx = s,
        .message_bytes_max = RPC_HELLO_BYTES_MAX,
        .out_bytes_max = HELLO_OUT_BYTES_MAX,
        .lobby = s->lobby,
    };

    rpc_accept(s->loop, fd, &config);
}

void server_serve_if_ready(struct server *s)
{
    if (s->serving || !s->registered || s->n_shards == 0 || s->n_replayed < s->n_shards) {
        return;
    }
    s->serving = true;
    listener_start(s->listener);
    daemon_notify_ready();
    log_info("ready: %s, %u shards", s->address, s->n_shards);
}

/* ---- status ---- */

/* A start may take as long as it needs while it comes forward. */
static bool start_status(struct server *s)
{
    char text[PROGRESS_TEXT_BYTES];
    uint64_t moves = atomic_load_explicit(&s->progress.moves, memory_order_relaxed);

    if (!progress_text(&s->progress, text)) {
        return false;
    }
    daemon_notify_status("%s", text);
    if (moves != s->moves_seen) {
        s->moves_seen = moves;
        daemon_notify_extend(EXTEND_USEC);
    }
    return true;
}

static void serving_status(const struct server *s, const struct shard_counts *c)
{
    char learning[80] = "";
    char waiting[80] = "";

    if (c->learning > 0) {
        snprintf(learning, sizeof(learning), "; %u learning, %llu MiB received", c->learning,
                 (unsigned long long) ((c->learnt_bytes - s->learning.bytes) >> 20));
    }
    if (c->waiting > 0) {
        snprintf(waiting, sizeof(waiting), "; %u waiting for a view", c->waiting);
    }
    daemon_notify_status("%sserving %u partitions, %u primary%s%s", room_word(s->room.level),
                         c->members - MIN_OF(c->waiting, c->members), c->primary, learning,
                         waiting);
}

static void on_status(void *ctx)
{
    struct server *s = ctx;
    struct shard_counts c;

    if (s->generation.last || s->drain.running) {
        daemon_notify_extend(EXTEND_USEC);
    }
    if (start_status(s) || s->drain.running) {
        return;
    }
    counts_sum(s, &c);
    learning_tick(s, &c);
    if (s->registered) {
        serving_status(s, &c);
    } else {
        daemon_notify_status("looking for a manager");
    }
}

static void on_pulse(void *ctx)
{
    struct server *s = ctx;

    room_tick(s);
    checkpointer_tick(s);
    drain_tick(s);
    distrust_tick(s);
}

/* ---- start and stop ---- */

static int names_set(struct server *s, struct io_error *error)
{
    const struct settings *c = s->settings;
    const char *address = c->advertise ? c->advertise : c->listen.items[0];
    char host[NAME_BYTES_MAX] = "server";
    struct addr addr;
    char text[ADDR_TEXT_BYTES];
    struct io_error why;
    int r;

    gethostname(host, sizeof(host) - 1);
    snprintf(s->name, sizeof(s->name), "%s", c->name ? c->name : host);
    r = addr_parse_numeric(address, LISTEN_PORT, &addr, &why);
    if (r < 0) {
        return io_error_set(error, r, "%s = %s: %s", c->advertise ? "advertise" : "listen", address,
                            why.text);
    }
    snprintf(s->address, sizeof(s->address), "%s", addr_format(&addr, text));
    return 0;
}

static int listen_all(struct server *s, struct io_error *error)
{
    bool loopback_only = !keyring_in_use();
    int r;

    s->lobby = rpc_lobby_new();
    s->listener = listener_new(s->loop, CONNECTIONS_MAX, "listen", on_accept, s);
    r = listener_inherit(s->listener, "peer", loopback_only, error);
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    for (size_t i = 0; i < s->settings->listen.n; i++) {
        r = listener_open(s->listener, s->settings->listen.items[i], LISTEN_PORT, loopback_only,
                          error);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int start(struct server *s, struct io_error *error)
{
    int r = keyring_open(s->settings->cluster_key, error);

    if (r == 0) {
        r = names_set(s, error);
    }
    if (r == 0) {
        r = identity_open(s, error);
    }
    if (r == 0) {
        r = listen_all(s, error); /* who connects waits; nobody is accepted before all is read */
    }
    if (r == 0) {
        r = identity_check(s, error);
    }
    if (r == 0) {
        checkpointer_start(s);
    }
    if (r == 0) {
        r = checkpoint_writer_new(s->settings->data_dir, &s->checkpoint_writer);
        if (r < 0) {
            io_error_set(error, r, "no thread for checkpoints: %s", strerror(-r));
        }
    }
    if (r == 0) {
        r = readers_new((unsigned) s->settings->io_threads, &s->readers);
        if (r < 0) {
            io_error_set(error, r, "no threads for reading: %s", strerror(-r));
        }
    }
    if (r == 0 && s->superblock.partitions > 0) {
        r = server_start_shards(s, error); /* the log is read while a manager is looked for */
    }
    if (r == 0) {
        r = manager_link_start(s, error);
    }
    return r;
}

void server_finish(struct server *s)
{
    s->manager = rpc_link_free(s->manager);
    listener_stop(s->listener);
    checkpointer_stop(s);
}

static void on_stop(void *ctx)
{
    struct server *s = ctx;

    daemon_notify_stopping();
    progress_stop(&s->progress);
    drain_begin(s);
}

static void on_reload(void *ctx)
{
    const struct server *s = ctx;

    daemon_reload(&settings_program, s->settings->argc, s->settings->argv, sizeof(*s->settings));
}

static const struct daemon_ops ops = { .is_alive = is_alive,
                                       .on_stop = on_stop,
                                       .on_reload = on_reload };

/* Ends what start began, as far as it came. */
static void stop(struct server *s)
{
    loop_timer_free(s->timer);
    loop_timer_free(s->pulse);
    s->manager = rpc_link_free(s->manager);
    if (s->listener) {
        listener_stop(s->listener);
    }
    s->generation.running = false; /* what is reported late is not wanted */
    compactor_end(s);
    for (uint32_t i = 0; i < s->n_shards; i++) {
        shard_thread_join(s->shards[i]);
    }
    s->checkpoint_writer =
        checkpoint_writer_free(s->checkpoint_writer); /* it posts to the shards */
    for (uint32_t i = 0; i < s->n_shards; i++) {
        s->shards[i] = shard_thread_free(s->shards[i]);
    }
    s->readers = readers_free(s->readers);
    s->n_shards = 0;
    s->lobby = rpc_lobby_free(s->lobby);
    (void) loop_turn(s->loop, false); /* what the threads posted last */
    compaction_live_free(&s->compactor.live);
    wal_floor_free(&s->compactor.floor);
    wal_floor_free(&s->compactor.floor_before);
    manifest_free(&s->generation.manifest);
    listener_free(s->listener);
    if (s->finished && !s->failed) {
        identity_ended(s);
    }
    keyring_use(NULL);
    identity_close(s);
    hashspace_free(&s->space);
    free(s->shards);
    free(s->turns_seen);
}

static int start_daemon(struct server *s, struct io_error *error)
{
    int r = loop_new(&s->loop);

    if (r == 0) {
        r = daemon_new(s->loop, &ops, s, &s->daemon);
    }
    if (r < 0) {
        return io_error_set(error, r, "the main loop can't be made: %s", strerror(-r));
    }
    s->timer = loop_timer_new(s->loop, on_status, s);
    loop_timer_every(s->timer, STATUS_USEC);
    s->pulse = loop_timer_new(s->loop, on_pulse, s);
    loop_timer_every(s->pulse, PULSE_USEC);
    return start(s, error);
}

int server_run(struct settings *settings)
{
    struct server s = { .settings = settings, .lock_fd = -1 };
    struct io_error error = { "" };
    int r;

    if (settings->threads == 0) {
        settings->threads = (uint64_t) MAX_OF(1, MIN_OF(4, sysconf(_SC_NPROCESSORS_ONLN)));
    }
    (void) bus_prepare();
    s.progress.threads = (unsigned) settings->threads;
    r = start_daemon(&s, &error);
    if (r == -ECANCELED) {
        log_info("stopped before it was ready");
        r = 0;
    } else if (r < 0) {
        log_error("%s", error.text);
    } else {
        r = loop_run(s.loop);
    }
    if (s.loop) {
        s.daemon = daemon_free(s.daemon);
        stop(&s);
        loop_free(s.loop);
    }
    return r < 0 || s.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
