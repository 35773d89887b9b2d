/* What the cluster key costs: CPU of both ends of internal connections on loopback, plain and under
 * TLS, in one thread. The two take turns; medians are printed, nothing is judged.
 *
 *     bench-tls [ROUNDS] */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/keyring.h"
#include "io/listener.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS       7
#define ROUNDS_MAX   101
#define BULK_BYTES   65536
#define BULK_TOTAL   (512u << 20)
#define SMALL_BYTES  100
#define SMALL_WINDOW 64
#define SMALL_TOTAL  200000
#define SINGLE_TOTAL 20000
#define DIALS        500
#define TIMEOUT_USEC 60000000
#define METHOD       7

struct bench {
    struct loop *loop;
    struct listener *listener;
    struct addr addr;
    struct rpc *server;
    struct rpc *client;
    bool up;
    uint64_t bytes; /* that the server got in notifies */
    unsigned asked;
    unsigned answered;
    unsigned total;
};

static void fail(const char *what)
{
    fprintf(stderr, "bench-tls: %s\n", what);
    exit(EXIT_FAILURE);
}

/* ---- both ends ---- */

static void pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    (void) rpc;
    (void) ctx;
    mp_put_array(out, 0);
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    (void) rpc;
    (void) answer;
    ((struct bench *) ctx)->up = true;
    return 0;
}

static enum rpc_verdict on_hello(struct rpc *rpc, void *ctx, struct mp_reader *params,
                                 struct buf *answer)
{
    (void) rpc;
    (void) ctx;
    (void) params;
    mp_put_uint(answer, 1);
    return RPC_HELLO_ACCEPT;
}

static void on_request(struct rpc *rpc, void *ctx, uint64_t id, uint32_t method,
                       struct mp_reader *params)
{
    struct buf *out = rpc_begin_response(rpc, id);

    (void) ctx;
    (void) method;
    buf_append(out, params->p, (size_t) (params->end - params->p));
    (void) rpc_end(rpc);
}

static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    (void) rpc;
    (void) method;
    (void) params;
    ((struct bench *) ctx)->bytes += BULK_BYTES;
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    (void) rpc;
    (void) ctx;
    if (error != 0) {
        fail(why);
    }
}

static const struct rpc_ops ops = {
    .pack_hello = pack_hello,
    .on_up = on_up,
    .on_hello = on_hello,
    .on_request = on_request,
    .on_notify = on_notify,
    .on_closed = on_closed,
};

static struct rpc_config config_of(struct bench *b)
{
    return (struct rpc_config){
        .ops = &ops, .ctx = b, .message_bytes_max = 2 * BULK_BYTES, .out_bytes_max = 16 * BULK_BYTES
    };
}

static void on_accept(void *ctx, int fd)
{
    struct bench *b = ctx;
    struct rpc_config config = config_of(b);

    b->server = rpc_accept(b->loop, fd, &config);
}

static void dial(struct bench *b)
{
    struct rpc_config config = config_of(b);

    b->up = false;
    if (rpc_connect(b->loop, &b->addr, &config, &b->client) < 0) {
        fail("can't connect");
    }
    while (!b->up) {
        loop_turn(b->loop, true);
    }
}

static void hang_up(struct bench *b)
{
    b->client = rpc_close(b->client);
    b->server = rpc_close(b->server);
    loop_turn(b->loop, false);
}

/* ---- what is measured ---- */

static void run_bulk(struct bench *b)
{
    static uint8_t block[BULK_BYTES];

    b->bytes = 0;
    for (uint64_t sent = 0; sent < BULK_TOTAL;) {
        while (!rpc_out_full(b->client) && sent < BULK_TOTAL) {
            struct buf *out = rpc_begin_notify(b->client, METHOD);
            mp_put_array(out, 1);
            mp_put_bin(out, block, sizeof(block));
            (void) rpc_end(b->client);
            sent += sizeof(block);
        }
        loop_turn(b->loop, true);
    }
    while (b->bytes < BULK_TOTAL) {
        loop_turn(b->loop, true);
    }
}

static void ask(struct bench *b);

static void on_answer(void *ctx, const struct rpc_answer *answer)
{
    struct bench *b = ctx;

    if (answer->status != 0) {
        fail(answer->error_text);
    }
    b->answered++;
    if (b->asked < b->total) {
        ask(b);
    }
}

static void ask(struct bench *b)
{
    static const uint8_t value[SMALL_BYTES];
    struct buf *out;

    if (rpc_begin_request(b->client, METHOD, on_answer, b, TIMEOUT_USEC, &out, NULL) < 0) {
        fail("can't ask");
    }
    mp_put_array(out, 1);
    mp_put_bin(out, value, sizeof(value));
    (void) rpc_end(b->client);
    b->asked++;
}

static void run_small(struct bench *b, unsigned window, unsigned total)
{
    b->asked = b->answered = 0;
    b->total = total;
    for (unsigned i = 0; i < window; i++) {
        ask(b);
    }
    while (b->answered < total) {
        loop_turn(b->loop, true);
    }
}

static void run_window(struct bench *b)
{
    run_small(b, SMALL_WINDOW, SMALL_TOTAL);
}

static void run_single(struct bench *b)
{
    run_small(b, 1, SINGLE_TOTAL);
}

static void run_dials(struct bench *b)
{
    for (unsigned i = 0; i < DIALS; i++) {
        hang_up(b);
        dial(b);
    }
}

static const struct work {
    const char *name;
    const char *unit;
    void (*run)(struct bench *b);
    double count; /* units in one run */
    double scale; /* seconds to the unit that is printed */
} works[] = {
    { "1 GB in messages of 64 KiB", "s", run_bulk, BULK_TOTAL / 1e9, 1 },
    { "a request and answer of 100 bytes, 64 under way", "us", run_window, SMALL_TOTAL, 1e6 },
    { "the same, one under way", "us", run_single, SINGLE_TOTAL, 1e6 },
    { "a connection made, with its hello", "us", run_dials, DIALS, 1e6 },
};

/* ---- rounds ---- */

static double cpu_seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static double measure(struct bench *b, const struct work *w, struct keyring *ring)
{
    double begin;

    keyring_use(ring ? keyring_ref(ring) : NULL);
    dial(b);
    begin = cpu_seconds();
    w->run(b);
    begin = cpu_seconds() - begin;
    hang_up(b);
    return begin * w->scale / w->count;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

static struct keyring *make_ring(void)
{
    struct key_file keys = { .n = 1 };
    struct keyring *ring;

    memset(keys.keys[0], 7, KEY_BYTES);
    if (keyring_new(&keys, &ring, NULL) < 0) {
        fail("no TLS here");
    }
    return ring;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned) atoi(argv[1]) : ROUNDS;
    struct keyring *ring = make_ring();
    struct bench b = { 0 };

    if (rounds < 1 || rounds > ROUNDS_MAX || loop_new(&b.loop) < 0) {
        fail("ROUNDS: 1 to 101");
    }
    b.listener = listener_new(b.loop, 0, "listen", on_accept, &b);
    if (listener_open(b.listener, "127.0.0.1:0", 0, true, NULL) < 0) {
        fail("can't listen");
    }
    listener_start(b.listener);
    listener_addr(b.listener, 0, &b.addr);
    printf("CPU time of both ends together, median of %u rounds%*splain       TLS\n", rounds, 9,
           "");
    for (size_t i = 0; i < ARRAY_LEN(works); i++) {
        double plain[ROUNDS_MAX];
        double secured[ROUNDS_MAX];
        for (unsigned r = 0; r < rounds; r++) {
            plain[r] = measure(&b, &works[i], NULL);
            secured[r] = measure(&b, &works[i], ring);
        }
        printf("%-50s %7.2f %-2s %7.2f %-2s\n", works[i].name, median(plain, rounds), works[i].unit,
               median(secured, rounds), works[i].unit);
        fflush(stdout);
    }
    listener_free(b.listener);
    keyring_use(NULL);
    keyring_unref(ring);
    loop_free(b.loop);
    return EXIT_SUCCESS;
}
