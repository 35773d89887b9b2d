/* Connections under TLS: two of ours in one loop, with nothing, or a relay that cuts bytes into
 * pieces, between them. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/conn.h"
#include "io/loop.h"
#include "io/tls.h"

#include "io_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_USEC     20000000
#define OUT_BYTES_MAX 65536

struct owner {
    struct conn *conn;
    struct buf got;
    bool echo;
    bool pause_on_data;
    unsigned connecteds;
    unsigned eofs;
    unsigned draineds;
    unsigned closeds;
    int error;
};

struct pair {
    struct loop *loop;
    struct keyring *ring;
    struct owner a; /* connects */
    struct owner b;
    int relay[2]; /* the other ends of the sockets of a and b; -1: they are one socket */
};

static void on_data(struct conn *conn, void *ctx)
{
    struct owner *o = ctx;
    struct buf *in = conn_in(conn);

    if (o->pause_on_data) {
        o->pause_on_data = false;
        conn_pause_read(conn);
        return;
    }
    buf_append(&o->got, buf_head(in), buf_len(in));
    if (o->echo) {
        buf_append(conn_out(conn), buf_head(in), buf_len(in));
        conn_mark(conn);
    }
    buf_clear(in);
}

static void on_connected(struct conn *conn, void *ctx)
{
    (void) conn;
    ((struct owner *) ctx)->connecteds++;
}

static void on_eof(struct conn *conn, void *ctx)
{
    ((struct owner *) ctx)->eofs++;
    conn_close_after_flush(conn);
}

static void on_drained(struct conn *conn, void *ctx)
{
    (void) conn;
    ((struct owner *) ctx)->draineds++;
}

static void on_closed(struct conn *conn, void *ctx, int error)
{
    struct owner *o = ctx;

    assert_ptr_equal(conn, o->conn);
    o->closeds++;
    o->error = error;
    o->conn = NULL;
}

static const struct conn_ops ops = {
    .on_data = on_data,
    .on_connected = on_connected,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_closed = on_closed,
};

static void sockets(int fds[static 2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static void owner_open(struct pair *p, struct owner *o, int fd, enum tls_side side)
{
    o->conn = conn_new(p->loop, fd, &ops, o, OUT_BYTES_MAX);
    conn_use_tls(o->conn, tls_new(p->ring, side, 0));
    assert_true(conn_is_secured(o->conn));
}

static void pair_open(struct pair *p, bool relay)
{
    int fds[2];
    int more[2];

    *p = (struct pair){ .relay = { -1, -1 } };
    assert_int_equal(loop_new(&p->loop), 0);
    p->ring = keys_of("a");
    sockets(fds);
    if (relay) {
        sockets(more);
        p->relay[0] = fds[1];
        p->relay[1] = more[1];
        fds[1] = more[0];
    }
    owner_open(p, &p->a, fds[0], TLS_CONNECTS);
    owner_open(p, &p->b, fds[1], TLS_ACCEPTS);
}

static void pair_close(struct pair *p)
{
    conn_close(p->a.conn);
    conn_close(p->b.conn);
    loop_free(p->loop);
    buf_free(&p->a.got);
    buf_free(&p->b.got);
    for (int i = 0; i < 2; i++) {
        if (p->relay[i] >= 0) {
            close(p->relay[i]);
        }
    }
    keyring_unref(p->ring);
}

/* Passes at most `piece` bytes on, each way. */
static void relay(struct pair *p, size_t piece)
{
    uint8_t bytes[65536];

    for (int i = 0; i < 2 && p->relay[0] >= 0; i++) {
        ssize_t n = recv(p->relay[i], bytes, MIN_OF(piece, sizeof(bytes)), 0);
        if (n > 0) {
            ssize_t sent = send(p->relay[1 - i], bytes, (size_t) n, MSG_NOSIGNAL);
            assert_true(sent == n || (sent < 0 && errno == EPIPE)); /* it may have closed */
        }
    }
}

#define RELAY_UNTIL(p, piece, condition)                                                           \
    do {                                                                                           \
        uint64_t until_ = clock_boot_usec() + WAIT_USEC;                                           \
        while (!(condition)) {                                                                     \
            assert_true(clock_boot_usec() < until_);                                               \
            relay(p, piece);                                                                       \
            loop_turn((p)->loop, false);                                                           \
        }                                                                                          \
    } while (0)

#define TURN_UNTIL(p, condition) RELAY_UNTIL(p, 65536, condition)

static void say(struct owner *o, const void *bytes, size_t n)
{
    buf_append(conn_out(o->conn), bytes, n);
    conn_mark(o->conn);
}

static void check_got(struct owner *o, const void *want, size_t n)
{
    assert_int_equal(buf_len(&o->got), n);
    assert_memory_equal(buf_head(&o->got), want, n);
    buf_clear(&o->got);
}

/* What was appended before the handshake goes when it is done; byte by byte it takes longer. */
static void test_byte_by_byte(void **state)
{
    struct pair p;

    (void) state;
    pair_open(&p, true);
    say(&p.a, "early", 5);
    RELAY_UNTIL(&p, 1, buf_len(&p.b.got) == 5);
    check_got(&p.b, "early", 5);
    say(&p.b, "answer", 6);
    RELAY_UNTIL(&p, 1, buf_len(&p.a.got) == 6);
    check_got(&p.a, "answer", 6);
    assert_int_equal(p.a.connecteds + p.b.connecteds, 0); /* of conn_new */
    pair_close(&p);
}

static uint8_t *pattern(size_t bytes)
{
    uint8_t *p = mem_alloc(bytes);

    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t) (i * 7 + i / 251);
    }
    return p;
}

/* Larger than every buffer between, there and back again; conn_need makes room as without TLS. */
static void test_large(void **state)
{
    size_t total = (8u << 20) + 4321;
    _cleanup_free_ uint8_t *bytes = pattern(total);
    struct pair p;

    (void) state;
    pair_open(&p, false);
    p.b.echo = true;
    conn_need(p.b.conn, total);
    say(&p.a, bytes, total);
    assert_true(conn_out_full(p.a.conn));
    TURN_UNTIL(&p, buf_len(&p.a.got) == total);
    check_got(&p.a, bytes, total);
    assert_int_equal(p.a.draineds, 1);
    assert_int_equal(conn_out_bytes(p.a.conn), 0);
    assert_true(conn_bytes_out(p.a.conn) > total);
    pair_close(&p);
}

static void count_release(void *ctx)
{
    (*(unsigned *) ctx)++;
}

/* Own bytes and references keep their order, and references are given back once. */
static void test_references(void **state)
{
    _cleanup_free_ uint8_t *value = pattern(200000);
    struct buf want = { 0 };
    unsigned released = 0;
    struct pair p;

    (void) state;
    pair_open(&p, false);
    for (unsigned i = 0; i < 300; i++) {
        size_t n = CONN_REF_MIN_BYTES - 1 + 211 * (i % 200);
        char head[32];

        snprintf(head, sizeof(head), "VALUE %u %zu\r\n", i, n);
        if (i % 5 != 0) {
            buf_append(conn_out(p.a.conn), head, strlen(head));
            buf_append(&want, head, strlen(head));
        }
        conn_out_ref(p.a.conn, value + i, n, count_release, &released);
        buf_append(&want, value + i, n);
    }
    TURN_UNTIL(&p, buf_len(&p.b.got) == buf_len(&want));
    assert_memory_equal(buf_head(&p.b.got), buf_head(&want), buf_len(&want));
    assert_int_equal(released, 300);
    conn_out_ref(p.a.conn, value, 100000, count_release, &released);
    p.a.conn = conn_close(p.a.conn);
    assert_int_equal(released, 301);
    buf_free(&want);
    pair_close(&p);
}

/* A peer that does not read: what is sealed for it stays little, the rest waits in conn_out. */
static void test_peer_that_does_not_read(void **state)
{
    size_t total = 4u << 20;
    _cleanup_free_ uint8_t *bytes = pattern(total);
    struct pair p;

    (void) state;
    pair_open(&p, true);
    say(&p.a, "x", 1);
    TURN_UNTIL(&p, buf_len(&p.b.got) == 1);
    buf_clear(&p.b.got);
    say(&p.a, bytes, total);
    for (int i = 0; i < 200; i++) {
        loop_turn(p.loop, false);
    }
    assert_true(conn_out_bytes(p.a.conn) > total / 2);
    assert_true(conn_out_bytes(p.a.conn) < total + 2 * TLS_SEAL_BYTES);
    assert_int_equal(p.a.draineds, 0);
    TURN_UNTIL(&p, buf_len(&p.b.got) == total);
    check_got(&p.b, bytes, total);
    pair_close(&p);
}

/* Whoever closes, in whatever way, the other side sees an end and all that was said before it. */
static void test_orderly_ends(void **state)
{
    (void) state;
    for (int how = 0; how < 2; how++) {
        struct pair p;

        pair_open(&p, false);
        say(&p.a, "hello", 5);
        TURN_UNTIL(&p, buf_len(&p.b.got) == 5);
        if (how == 0) {
            say(&p.a, " last", 5);
            conn_close_after_flush(p.a.conn);
            TURN_UNTIL(&p, p.a.closeds == 1);
            assert_int_equal(p.a.error, 0);
        } else {
            p.a.conn = conn_close(p.a.conn);
        }
        TURN_UNTIL(&p, p.b.closeds == 1);
        assert_int_equal(p.b.eofs, 1);
        assert_int_equal(p.b.error, 0);
        check_got(&p.b, how == 0 ? "hello last" : "hello", how == 0 ? 10 : 5);
        pair_close(&p);
    }
}

/* The end is not told before the owner has seen what came before it. */
static void test_end_while_paused(void **state)
{
    struct pair p;

    (void) state;
    pair_open(&p, false);
    say(&p.a, "hello", 5);
    TURN_UNTIL(&p, buf_len(&p.b.got) == 5);
    buf_clear(&p.b.got);
    p.b.pause_on_data = true;
    say(&p.a, "last", 4);
    conn_close_after_flush(p.a.conn);
    TURN_UNTIL(&p, buf_len(conn_in(p.b.conn)) == 4);
    for (int i = 0; i < 20; i++) {
        loop_turn(p.loop, false);
    }
    assert_int_equal(p.b.eofs, 0);
    conn_resume_read(p.b.conn);
    TURN_UNTIL(&p, p.b.closeds == 1);
    assert_int_equal(p.b.eofs, 1);
    check_got(&p.b, "last", 4);
    pair_close(&p);
}

/* A connection that somebody cuts is no orderly end. */
static void test_cut(void **state)
{
    struct pair p;

    (void) state;
    pair_open(&p, true);
    say(&p.a, "hello", 5);
    TURN_UNTIL(&p, buf_len(&p.b.got) == 5);
    close(p.relay[1]);
    p.relay[1] = p.relay[0] = (close(p.relay[0]), -1);
    TURN_UNTIL(&p, p.a.closeds == 1 && p.b.closeds == 1);
    assert_int_equal(p.a.error, -ECONNRESET);
    assert_int_equal(p.b.error, -ECONNRESET);
    assert_int_equal(p.a.eofs + p.b.eofs, 0);
    pair_close(&p);
}

static void test_end_in_handshake(void **state)
{
    struct pair p;

    (void) state;
    pair_open(&p, true);
    for (int i = 0; i < 3; i++) {
        relay(&p, 20);
        loop_turn(p.loop, false);
    }
    close(p.relay[1]);
    p.relay[1] = p.relay[0] = (close(p.relay[0]), -1);
    TURN_UNTIL(&p, p.a.closeds == 1 && p.b.closeds == 1);
    assert_int_equal(p.a.error, -ECONNRESET);
    assert_int_equal(p.b.error, -ECONNRESET);
    pair_close(&p);
}

/* Who wants to close before TLS is up does not wait for it. */
static void test_close_before_up(void **state)
{
    struct pair p;

    (void) state;
    pair_open(&p, true);
    say(&p.a, "never sent", 10);
    conn_close_after_flush(p.a.conn);
    conn_close_after_flush(p.b.conn);
    TURN_UNTIL(&p, p.a.closeds == 1 && p.b.closeds == 1);
    pair_close(&p);
}

struct adopter {
    struct pair *p;
    struct loop *loop;
    int fd;
    struct buf in;
    struct tls *tls;
    struct owner second;
    size_t want;
};

static void *adopt(void *arg)
{
    struct adopter *a = arg;
    uint64_t until = clock_boot_usec() + WAIT_USEC;

    assert_int_equal(loop_new(&a->loop), 0);
    a->second.echo = true;
    a->second.conn = conn_new(a->loop, a->fd, &ops, &a->second, OUT_BYTES_MAX);
    conn_use_tls(a->second.conn, a->tls);
    conn_unread(a->second.conn, buf_head(&a->in), buf_len(&a->in));
    while (a->second.closeds == 0 && clock_boot_usec() < until) {
        loop_turn(a->loop, false);
    }
    loop_free(a->loop);
    return NULL;
}

/* At whatever byte of the stream it happens: within a record, between two, in the handshake. */
static void test_detach(void **state)
{
    (void) state;
    for (size_t at = 1; at < 700; at += 13) {
        struct pair p;
        struct adopter a = { .p = &p };
        pthread_t thread;
        uint8_t bytes[1];

        pair_open(&p, true);
        buf_append(conn_out(p.a.conn), "first, ", 7);
        conn_mark(p.a.conn);
        for (size_t i = 0; i < at; i++) { /* one byte to b, and whatever it answers */
            loop_turn(p.loop, false);
            if (recv(p.relay[0], bytes, 1, 0) == 1) {
                assert_int_equal(send(p.relay[1], bytes, 1, MSG_NOSIGNAL), 1);
            }
            loop_turn(p.loop, false);
            while (recv(p.relay[1], bytes, 1, 0) == 1) {
                assert_int_equal(send(p.relay[0], bytes, 1, MSG_NOSIGNAL), 1);
            }
        }
        say(&p.a, "second", 6);
        conn_pause_read(p.b.conn);
        a.fd = conn_detach(p.b.conn, &a.in, &a.tls);
        assert_non_null(a.tls);
        p.b.conn = NULL;
        loop_turn(p.loop, false);
        assert_int_equal(pthread_create(&thread, NULL, adopt, &a), 0);
        TURN_UNTIL(&p, buf_len(&p.a.got) >= 13 - buf_len(&p.b.got));
        p.a.conn = conn_close(p.a.conn);
        while (pthread_tryjoin_np(thread, NULL) != 0) { /* it ends after WAIT_USEC at the latest */
            relay(&p, 65536);
            if (p.relay[0] >= 0 && recv(p.relay[0], bytes, 1, MSG_PEEK) == 0) {
                shutdown(p.relay[1], SHUT_WR);
            }
        }
        buf_append(&p.b.got, buf_head(&a.second.got), buf_len(&a.second.got));
        check_got(&p.b, "first, second", 13);
        buf_free(&a.second.got);
        buf_free(&a.in);
        pair_close(&p);
    }
}

/* ---- connecting ---- */

static int listen_somewhere(struct addr *ret_addr)
{
    struct io_error error;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(addr_parse_numeric("127.0.0.1:0", 0, ret_addr, &error), 0);
    assert_int_equal(bind(fd, &ret_addr->sa, ret_addr->bytes), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(addr_of_fd(fd, ret_addr), 0);
    return fd;
}

/* on_connected comes with the handshake, not with the connection. */
static void test_connect(void **state)
{
    struct pair p = { .relay = { -1, -1 } };
    struct addr addr;
    int fd = listen_somewhere(&addr);

    (void) state;
    assert_int_equal(loop_new(&p.loop), 0);
    p.ring = keys_of("a");
    assert_int_equal(conn_connect(p.loop, &addr, &ops, &p.a, OUT_BYTES_MAX, &p.a.conn), 0);
    conn_use_tls(p.a.conn, tls_new(p.ring, TLS_CONNECTS, 0));
    for (int i = 0; i < 50; i++) {
        loop_turn(p.loop, false);
    }
    assert_int_equal(p.a.connecteds, 0);
    owner_open(&p, &p.b, accept(fd, NULL, NULL), TLS_ACCEPTS);
    TURN_UNTIL(&p, p.a.connecteds == 1);
    say(&p.a, "hello", 5);
    TURN_UNTIL(&p, buf_len(&p.b.got) == 5);
    assert_int_equal(p.a.connecteds, 1);
    close(fd);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_peer_that_does_not_read),
        cmocka_unit_test(test_orderly_ends),
        cmocka_unit_test(test_end_while_paused),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_end_in_handshake),
        cmocka_unit_test(test_close_before_up),
        cmocka_unit_test(test_detach),
        cmocka_unit_test(test_connect),
    };

    return cmocka_run_group_tests_name("io_conn_tls", tests, NULL, NULL);
}
