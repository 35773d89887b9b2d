/* The clients of tests/bench/failover: connections that ask without pause, nine reads to a write,
 * and know how long each had to wait.
 *
 *   failover-load PORT CONNECTIONS KEYS VALUE_BYTES
 *
 * Commands, one a line, each answered by a line:
 *   fill FROM TO   sets these keys, many at a time
 *   start          the connections begin
 *   mark           counts begin anew
 *   tell           JSON: what happened since the mark
 *   stop           the connections end
 * It ends with its standard input. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cluster/nemesis/mc.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEC          UINT64_C(1000000000) /* in nanoseconds */
#define TIMEOUT_NSEC (30 * SEC)
#define VALUE_MAX    65536
#define FILL_BATCH   256 /* sets under way */

struct client {
    struct bench *bench;
    pthread_t thread;
    struct rng rng;
    struct mc mc;
    pthread_mutex_t lock; /* of what follows */
    uint64_t last_ok_nsec;
    uint64_t longest_nsec; /* without an answer, since the mark */
    uint64_t ok;
    uint64_t failed;
};

struct bench {
    uint16_t port;
    size_t n_clients;
    uint64_t keys;
    uint32_t value_bytes;
    uint8_t value[VALUE_MAX];
    atomic_bool stop;
    struct client *clients;
};

static void key_of(uint64_t i, char key[static MC_KEY_BYTES])
{
    snprintf(key, MC_KEY_BYTES, "failover-%08" PRIu64, i);
}

static void nap(uint64_t nsec)
{
    struct timespec ts = { .tv_nsec = (long) nsec };

    nanosleep(&ts, NULL);
}

/* ---- the connections ---- */

static void client_note(struct client *c, bool ok)
{
    uint64_t now;

    pthread_mutex_lock(&c->lock);
    now = mc_now_nsec(); /* not before a mark that is being made */
    if (ok) {
        c->longest_nsec = MAX_OF(c->longest_nsec, now - c->last_ok_nsec);
        c->last_ok_nsec = now;
        c->ok++;
    } else {
        c->failed++;
    }
    pthread_mutex_unlock(&c->lock);
}

static void client_step(struct client *c)
{
    _cleanup_(buf_free) struct buf value = { 0 };
    struct lin_op o = { .code = rng_chance(&c->rng, 1, 10) ? OP_SET : OP_GET };
    char key[MC_KEY_BYTES];
    char error[160];
    int r;

    key_of(rng_below(&c->rng, c->bench->keys), key);
    if (o.code == OP_SET) {
        o.value = c->bench->value;
        o.value_len = c->bench->value_bytes;
    }
    r = mc_do(&c->mc, key, &o, TIMEOUT_NSEC, &value, error);
    client_note(c, r == 0 && o.result != LIN_UNKNOWN && o.result != RESULT_REFUSED);
}

static void *client_run(void *ctx)
{
    struct client *c = ctx;

    while (!c->bench->stop) {
        if (c->mc.fd >= 0) {
            client_step(c);
        } else if (mc_connect(&c->mc, c->bench->port, SEC) < 0) {
            client_note(c, false);
            nap(SEC / 100);
        }
    }
    mc_close(&c->mc);
    return NULL;
}

static void clients_start(struct bench *b)
{
    b->stop = false;
    b->clients = mem_zalloc(b->n_clients, sizeof(*b->clients));
    for (size_t i = 0; i < b->n_clients; i++) {
        struct client *c = &b->clients[i];
        c->bench = b;
        c->rng.state = i;
        c->mc.fd = -1;
        c->last_ok_nsec = mc_now_nsec();
        pthread_mutex_init(&c->lock, NULL);
        if (pthread_create(&c->thread, NULL, client_run, c) != 0) {
            abort();
        }
    }
}

static void clients_stop(struct bench *b)
{
    b->stop = true;
    for (size_t i = 0; b->clients && i < b->n_clients; i++) {
        pthread_join(b->clients[i].thread, NULL);
    }
    free(b->clients);
    b->clients = NULL;
}

static void clients_mark(struct bench *b)
{
    for (size_t i = 0; i < b->n_clients; i++) {
        struct client *c = &b->clients[i];
        pthread_mutex_lock(&c->lock);
        c->last_ok_nsec = mc_now_nsec();
        c->longest_nsec = c->ok = c->failed = 0;
        pthread_mutex_unlock(&c->lock);
    }
}

/* A connection that still waits has waited until now. */
static void clients_tell(struct bench *b)
{
    uint64_t longest = 0, ok = 0, failed = 0;

    for (size_t i = 0; i < b->n_clients; i++) {
        struct client *c = &b->clients[i];
        pthread_mutex_lock(&c->lock);
        longest = MAX_OF(longest, MAX_OF(c->longest_nsec, mc_now_nsec() - c->last_ok_nsec));
        ok += c->ok;
        failed += c->failed;
        pthread_mutex_unlock(&c->lock);
    }
    printf("{\"ok\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"pause_msec\": %.1f}\n", ok, failed,
           (double) longest / 1e6);
}

/* ---- filling ---- */

static bool fill_batch(struct bench *b, struct mc *m, uint64_t from, uint64_t to)
{
    _cleanup_(buf_free) struct buf request = { 0 };
    char line[128];
    char key[MC_KEY_BYTES];

    for (uint64_t i = from; i < to; i++) {
        key_of(i, key);
        int n = snprintf(line, sizeof(line), "set %s 0 0 %" PRIu32 "\r\n", key, b->value_bytes);
        buf_append(&request, line, (size_t) n);
        buf_append(&request, b->value, b->value_bytes);
        buf_append(&request, "\r\n", 2);
    }
    return mc_pipeline(m, &request, to - from, "STORED", TIMEOUT_NSEC) == 0;
}

static bool fill(struct bench *b, uint64_t from, uint64_t to)
{
    struct mc m = { .fd = -1 };
    bool good = mc_connect(&m, b->port, SEC) == 0;

    for (uint64_t i = from; good && i < to; i += FILL_BATCH) {
        good = fill_batch(b, &m, i, MIN_OF(to, i + FILL_BATCH));
    }
    mc_close(&m);
    return good;
}

/* ---- commands ---- */

static void do_line(struct bench *b, const char *line)
{
    uint64_t from, to;

    if (sscanf(line, "fill %" SCNu64 " %" SCNu64, &from, &to) == 2) {
        puts(fill(b, from, to) ? "ok" : "error");
    } else if (strcmp(line, "start\n") == 0 && !b->clients) {
        clients_start(b);
        puts("ok");
    } else if (strcmp(line, "mark\n") == 0 && b->clients) {
        clients_mark(b);
        puts("ok");
    } else if (strcmp(line, "tell\n") == 0 && b->clients) {
        clients_tell(b);
    } else if (strcmp(line, "stop\n") == 0) {
        clients_stop(b);
        puts("ok");
    } else {
        puts("error");
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct bench b;
    char line[256];

    if (argc != 5 || atoi(argv[4]) > VALUE_MAX) {
        fprintf(stderr, "failover-load PORT CONNECTIONS KEYS VALUE_BYTES\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    b.port = (uint16_t) atoi(argv[1]);
    b.n_clients = (size_t) atoi(argv[2]);
    b.keys = strtoull(argv[3], NULL, 10);
    b.value_bytes = (uint32_t) atoi(argv[4]);
    memset(b.value, 'v', sizeof(b.value));
    while (fgets(line, sizeof(line), stdin)) {
        do_line(&b, line);
    }
    clients_stop(&b);
    return EXIT_SUCCESS;
}
