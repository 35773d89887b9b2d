/* Connections against real sockets: the other end is a plain descriptor that the test holds, and
 * that may do what it likes. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/conn.h"
#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_USEC     5000000
#define OUT_BYTES_MAX 65536

enum owner_action { OWNER_KEEP, OWNER_CLOSE, OWNER_CLOSE_AFTER_FLUSH };

struct owner {
    struct loop *loop;
    struct conn *conn;
    int peer;
    struct buf got;
    size_t leave; /* bytes of conn_in not to consume */
    enum owner_action on_data;
    bool echo;
    unsigned datas;
    unsigned connecteds;
    unsigned eofs;
    unsigned closeds;
    unsigned draineds;
    int error;
    enum owner_action on_drained;
};

static void owner_act(struct conn *conn, enum owner_action action)
{
    if (action == OWNER_CLOSE) {
        conn_close(conn);
    } else if (action == OWNER_CLOSE_AFTER_FLUSH) {
        conn_close_after_flush(conn);
    }
}

static void on_data(struct conn *conn, void *ctx)
{
    struct owner *o = ctx;
    struct buf *in = conn_in(conn);
    size_t n = buf_len(in) > o->leave ? buf_len(in) - o->leave : 0;

    o->datas++;
    buf_append(&o->got, buf_head(in), n);
    if (o->echo) {
        buf_append(conn_out(conn), buf_head(in), n);
        conn_mark(conn);
    }
    buf_consume(in, n);
    owner_act(conn, o->on_data);
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

static void on_closed(struct conn *conn, void *ctx, int error)
{
    struct owner *o = ctx;

    assert_ptr_equal(conn, o->conn);
    o->closeds++;
    o->error = error;
}

static void on_drained(struct conn *conn, void *ctx)
{
    struct owner *o = ctx;

    o->draineds++;
    owner_act(conn, o->on_drained);
}

static const struct conn_ops ops = {
    .on_data = on_data,
    .on_connected = on_connected,
    .on_eof = on_eof,
    .on_closed = on_closed,
    .on_drained = on_drained,
};

static void owner_open(struct owner *o)
{
    int fds[2];

    *o = (struct owner){ 0 };
    assert_int_equal(loop_new(&o->loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    o->conn = conn_new(o->loop, fds[0], &ops, o, OUT_BYTES_MAX);
    o->peer = fds[1];
    fcntl(o->peer, F_SETFL, O_NONBLOCK);
}

static void owner_close(struct owner *o)
{
    conn_close(o->closeds == 0 ? o->conn : NULL);
    loop_free(o->loop);
    buf_free(&o->got);
    if (o->peer >= 0) {
        close(o->peer);
    }
}

/* Turns until the condition holds; fails after WAIT_USEC. */
#define TURN_UNTIL(o, condition)                                                                   \
    do {                                                                                           \
        uint64_t until_ = clock_boot_usec() + WAIT_USEC;                                           \
        while (!(condition)) {                                                                     \
            assert_true(clock_boot_usec() < until_);                                               \
            loop_turn((o)->loop, false);                                                           \
        }                                                                                          \
    } while (0)

static void turn(struct owner *o, unsigned n)
{
    while (n-- > 0) {
        loop_turn(o->loop, false);
    }
}

static void send_all(int fd, const void *p, size_t n)
{
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), n);
}

/* Reads what is there; returns how many bytes, 0 at the end, -errno. */
static ssize_t drain(int fd, struct buf *into)
{
    ssize_t n = recv(fd, buf_reserve(into, 65536), 65536, MSG_DONTWAIT);

    if (n > 0) {
        into->end += (size_t) n;
    }
    return n < 0 ? -errno : n;
}

/* ---- reading ---- */

static void test_byte_by_byte(void **state)
{
    struct owner o;
    const char *text = "one byte at a time";

    (void) state;
    owner_open(&o);
    for (size_t i = 0; i < strlen(text); i++) {
        send_all(o.peer, text + i, 1);
        TURN_UNTIL(&o, buf_len(&o.got) == i + 1);
    }
    assert_memory_equal(buf_head(&o.got), text, strlen(text));
    assert_int_equal(o.datas, strlen(text));
    assert_int_equal(conn_bytes_in(o.conn), strlen(text));
    owner_close(&o);
}

/* An owner that leaves everything stops being read at CONN_IN_BYTES_MAX, and goes on with
 * conn_need. */
static void test_in_limit_and_need(void **state)
{
    static uint8_t block[65536];
    struct owner o;
    size_t sent = 0;

    (void) state;
    owner_open(&o);
    o.leave = SIZE_MAX;
    for (unsigned i = 0; i < 200; i++) {
        ssize_t n = send(o.peer, block, sizeof(block), MSG_NOSIGNAL);

        sent += n > 0 ? (size_t) n : 0;
        turn(&o, 1);
    }
    assert_true(buf_len(conn_in(o.conn)) >= CONN_IN_BYTES_MAX);
    assert_true(buf_len(conn_in(o.conn)) <= CONN_IN_BYTES_MAX + CONN_READ_LARGE_BYTES);
    assert_true(sent > buf_len(conn_in(o.conn)));
    conn_need(o.conn, 4 << 20);
    while (buf_len(conn_in(o.conn)) < 4 << 20) {
        (void) send(o.peer, block, sizeof(block), MSG_NOSIGNAL);
        turn(&o, 1);
    }
    assert_true(buf_len(conn_in(o.conn)) <= (4 << 20) + CONN_READ_BYTES);
    owner_close(&o);
}

/* A peer that promises much and sends little costs little. */
static void test_need_reserves_little(void **state)
{
    struct owner o;

    (void) state;
    owner_open(&o);
    o.leave = SIZE_MAX;
    conn_need(o.conn, 64 << 20);
    send_all(o.peer, "x", 1);
    TURN_UNTIL(&o, buf_len(conn_in(o.conn)) == 1);
    assert_true(conn_in(o.conn)->cap <= 2 * CONN_READ_BYTES);
    owner_close(&o);
}

static void test_pause_and_resume(void **state)
{
    struct owner o;

    (void) state;
    owner_open(&o);
    conn_pause_read(o.conn);
    send_all(o.peer, "abc", 3);
    turn(&o, 3);
    assert_int_equal(o.datas, 0);
    conn_resume_read(o.conn);
    assert_int_equal(o.datas, 0); /* never within */
    TURN_UNTIL(&o, o.datas == 1);
    o.leave = 2;
    send_all(o.peer, "def", 3);
    TURN_UNTIL(&o, o.datas == 2);
    conn_pause_read(o.conn);
    o.leave = 0;
    conn_resume_read(o.conn); /* what was left comes again without new bytes */
    TURN_UNTIL(&o, o.datas == 3);
    assert_int_equal(buf_len(&o.got), 6);
    assert_memory_equal(buf_head(&o.got), "abcdef", 6);
    owner_close(&o);
}

static void test_resume_before_eof(void **state)
{
    struct owner o;

    (void) state;
    owner_open(&o);
    o.leave = 3;
    send_all(o.peer, "abc", 3);
    TURN_UNTIL(&o, o.datas == 1);
    conn_pause_read(o.conn);
    close(o.peer);
    o.peer = -1;
    turn(&o, 2);
    assert_int_equal(o.eofs, 0);
    o.leave = 0;
    conn_resume_read(o.conn);
    TURN_UNTIL(&o, o.closeds == 1);
    assert_int_equal(buf_len(&o.got), 3);
    assert_int_equal(o.eofs, 1);
    assert_int_equal(o.error, 0);
    owner_close(&o);
}

/* ---- ends ---- */

static void test_half_close_gets_its_answers(void **state)
{
    struct owner o;
    struct buf answer = { 0 };

    (void) state;
    owner_open(&o);
    o.echo = true;
    send_all(o.peer, "last words", 10);
    shutdown(o.peer, SHUT_WR);
    TURN_UNTIL(&o, o.closeds == 1);
    assert_int_equal(o.eofs, 1);
    assert_int_equal(o.error, 0);
    assert_int_equal(drain(o.peer, &answer), 10);
    assert_memory_equal(buf_head(&answer), "last words", 10);
    assert_int_equal(drain(o.peer, &answer), 0);
    buf_free(&answer);
    owner_close(&o);
}

static void test_close_within_data(void **state)
{
    struct owner o;
    struct buf answer = { 0 };

    (void) state;
    owner_open(&o);
    o.on_data = OWNER_CLOSE;
    o.echo = true; /* dropped */
    send_all(o.peer, "x", 1);
    TURN_UNTIL(&o, o.datas == 1);
    turn(&o, 3);
    assert_int_equal(o.closeds, 0);
    assert_int_equal(drain(o.peer, &answer), 0);
    buf_free(&answer);
    o.closeds = 1; /* gone */
    owner_close(&o);
}

/* The peer goes on sending: what we said last must arrive all the same. */
static void test_close_after_flush_lingers(void **state)
{
    struct owner o;
    struct buf answer = { 0 };

    (void) state;
    owner_open(&o);
    o.on_data = OWNER_CLOSE_AFTER_FLUSH;
    o.echo = true;
    send_all(o.peer, "bye", 3);
    TURN_UNTIL(&o, drain(o.peer, &answer) > 0);
    send_all(o.peer, "more and more", 13);
    turn(&o, 5);
    assert_int_equal(o.datas, 1);
    assert_int_equal(o.closeds, 0); /* waits for the peer's end */
    assert_int_equal(drain(o.peer, &answer), 0);
    assert_false(conn_is_open(o.conn));
    close(o.peer);
    o.peer = -1;
    TURN_UNTIL(&o, o.closeds == 1);
    assert_int_equal(o.error, 0);
    assert_memory_equal(buf_head(&answer), "bye", 3);
    buf_free(&answer);
    owner_close(&o);
}

static void test_linger_ends(void **state)
{
    struct owner o;
    uint64_t begin = clock_boot_usec();

    (void) state;
    owner_open(&o);
    conn_close_after_flush(o.conn);
    assert_int_equal(o.closeds, 0);
    while (o.closeds == 0) {
        loop_turn(o.loop, true);
    }
    assert_int_equal(o.error, 0);
    assert_true(clock_boot_usec() - begin >= CONN_LINGER_USEC);
    owner_close(&o);
}

static void test_peer_vanishes_while_writing(void **state)
{
    static uint8_t block[OUT_BYTES_MAX * 8];
    struct owner o;

    (void) state;
    owner_open(&o);
    buf_append(conn_out(o.conn), block, sizeof(block));
    conn_mark(o.conn);
    turn(&o, 2);
    close(o.peer);
    o.peer = -1;
    buf_append(conn_out(o.conn), block, sizeof(block));
    conn_mark(o.conn);
    TURN_UNTIL(&o, o.closeds == 1);
    turn(&o, 3);
    assert_int_equal(o.closeds, 1);
    owner_close(&o);
}

static void test_calls_after_close(void **state)
{
    struct owner o;

    (void) state;
    owner_open(&o);
    conn_close(o.conn);
    buf_append(conn_out(o.conn), "x", 1);
    conn_mark(o.conn);
    conn_out_ref(o.conn, "y", 1, NULL, NULL);
    conn_pause_read(o.conn);
    conn_resume_read(o.conn);
    conn_need(o.conn, 100);
    conn_unread(o.conn, "z", 1);
    conn_close_after_flush(o.conn);
    assert_null(conn_close(o.conn));
    assert_false(conn_is_open(o.conn));
    turn(&o, 2);
    assert_int_equal(o.closeds + o.datas, 0);
    o.closeds = 1;
    owner_close(&o);
}

/* ---- writing ---- */

/* A peer that doesn't read: full at the limit, drained at half of it, nothing lost. */
static void test_peer_that_does_not_read(void **state)
{
    static uint8_t block[8192];
    struct owner o;
    struct buf got = { 0 };
    size_t sent = 0;

    (void) state;
    owner_open(&o);
    while (!conn_out_full(o.conn)) {
        memset(block, (int) (sent / sizeof(block)), sizeof(block));
        buf_append(conn_out(o.conn), block, sizeof(block));
        conn_mark(o.conn);
        sent += sizeof(block);
        turn(&o, 1);
        assert_true(sent < 64 << 20);
    }
    turn(&o, 5);
    assert_int_equal(o.draineds, 0);
    assert_true(conn_out_bytes(o.conn) > OUT_BYTES_MAX);
    while (o.draineds == 0) {
        drain(o.peer, &got);
        turn(&o, 1);
    }
    assert_true(conn_out_bytes(o.conn) <= OUT_BYTES_MAX / 2);
    TURN_UNTIL(&o, drain(o.peer, &got) == -EAGAIN && conn_out_bytes(o.conn) == 0);
    assert_int_equal(buf_len(&got), sent);
    for (size_t i = 0; i < sent; i += sizeof(block)) {
        assert_int_equal(buf_head(&got)[i], (uint8_t) (i / sizeof(block)));
    }
    assert_int_equal(o.draineds, 1);
    assert_int_equal(conn_bytes_out(o.conn), sent);
    buf_free(&got);
    owner_close(&o);
}

static void test_close_within_drained(void **state)
{
    static uint8_t block[1 << 20];
    struct owner o;
    struct buf got = { 0 };

    (void) state;
    owner_open(&o);
    o.on_drained = OWNER_CLOSE;
    buf_append(conn_out(o.conn), block, sizeof(block));
    conn_mark(o.conn);
    while (o.draineds == 0) {
        turn(&o, 1);
        drain(o.peer, &got);
    }
    turn(&o, 2);
    assert_int_equal(o.closeds, 0);
    o.closeds = 1;
    buf_free(&got);
    owner_close(&o);
}

/* All that is marked in a turn goes out in one piece at its end, not before. */
static void test_one_write_per_turn(void **state)
{
    struct owner o;
    struct buf got = { 0 };

    (void) state;
    owner_open(&o);
    for (unsigned i = 0; i < 10; i++) {
        buf_append(conn_out(o.conn), "0123456789", 10);
        conn_mark(o.conn);
    }
    assert_int_equal(drain(o.peer, &got), -EAGAIN);
    turn(&o, 1);
    assert_int_equal(drain(o.peer, &got), 100);
    buf_free(&got);
    owner_close(&o);
}

static void count_release(void *ctx)
{
    (*(unsigned *) ctx)++;
}

/* Own bytes and references keep their order through partial writes. */
static void test_references(void **state)
{
    struct owner o;
    struct buf want = { 0 };
    struct buf got = { 0 };
    static uint8_t value[100000];
    unsigned released = 0;

    (void) state;
    owner_open(&o);
    for (unsigned i = 0; i < 200; i++) {
        size_t n = i % 3 == 0 ? CONN_REF_MIN_BYTES - 1 : CONN_REF_MIN_BYTES + 97 * i;
        char head[32];

        for (size_t k = 0; i == 0 && k < sizeof(value); k++) {
            value[k] = (uint8_t) (k * 7 + k / 251);
        }
        snprintf(head, sizeof(head), "VALUE %u %zu\r\n", i, n);
        if (i % 5 != 0) { /* sometimes two references in a row */
            buf_append(conn_out(o.conn), head, strlen(head));
            buf_append(&want, head, strlen(head));
        }
        conn_out_ref(o.conn, value + i, n, count_release, &released);
        buf_append(&want, value + i, n);
    }
    assert_int_equal(conn_out_bytes(o.conn), buf_len(&want));
    assert_int_equal(released, 67); /* the short ones were copied */
    TURN_UNTIL(&o, (drain(o.peer, &got), buf_len(&got) == buf_len(&want)));
    assert_memory_equal(buf_head(&got), buf_head(&want), buf_len(&want));
    assert_int_equal(released, 200);
    conn_out_ref(o.conn, value, sizeof(value), count_release, &released);
    conn_close(o.conn);
    assert_int_equal(released, 201);
    o.closeds = 1;
    buf_free(&got);
    buf_free(&want);
    owner_close(&o);
}

/* ---- connecting, detaching ---- */

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

static void owner_connect(struct owner *o, const struct addr *addr)
{
    *o = (struct owner){ .peer = -1 };
    assert_int_equal(loop_new(&o->loop), 0);
    assert_int_equal(conn_connect(o->loop, addr, &ops, o, OUT_BYTES_MAX, &o->conn), 0);
}

static void test_connect(void **state)
{
    struct addr addr;
    int fd = listen_somewhere(&addr);
    struct owner o;
    struct buf got = { 0 };
    char name[ADDR_TEXT_BYTES];

    (void) state;
    owner_connect(&o, &addr);
    buf_append(conn_out(o.conn), "early", 5); /* waits for the connection */
    conn_mark(o.conn);
    o.peer = accept(fd, NULL, NULL);
    TURN_UNTIL(&o, o.connecteds == 1);
    TURN_UNTIL(&o, drain(o.peer, &got) == 5);
    assert_string_equal(conn_peer_name(o.conn), addr_format(&addr, name));
    close(fd);
    buf_free(&got);
    owner_close(&o);
}

static void test_connect_from_a_source(void **state)
{
    struct addr addr;
    struct addr from;
    int fd = listen_somewhere(&addr);
    struct owner o;

    (void) state;
    assert_int_equal(addr_parse_ip("127.1.2.3", &from, NULL), 0);
    conn_set_source(&from);
    owner_connect(&o, &addr);
    o.peer = accept(fd, NULL, NULL);
    TURN_UNTIL(&o, o.connecteds == 1);
    assert_int_equal(addr_of_peer(o.peer, &from), 0);
    assert_int_equal(ntohl(from.in.sin_addr.s_addr), 0x7f010203);
    owner_close(&o);

    assert_int_equal(addr_parse_ip("192.0.2.1", &from, NULL), 0); /* nobody has this address */
    conn_set_source(&from);
    owner_connect(&o, &addr);
    TURN_UNTIL(&o, o.closeds == 1);
    assert_int_equal(o.error, -EADDRNOTAVAIL);
    conn_set_source(NULL);
    close(fd);
    owner_close(&o);
}

static void test_connect_refused(void **state)
{
    struct addr addr;
    struct owner o;
    int fd = listen_somewhere(&addr);

    (void) state;
    close(fd);
    owner_connect(&o, &addr);
    assert_int_equal(o.closeds, 0); /* never within the call */
    TURN_UNTIL(&o, o.closeds == 1);
    assert_int_equal(o.error, -ECONNREFUSED);
    assert_int_equal(o.connecteds, 0);
    owner_close(&o);
}

static void test_connect_unix_missing(void **state)
{
    struct addr addr;
    struct owner o;

    (void) state;
    assert_int_equal(addr_parse_numeric("/nowhere/at/all.sock", 0, &addr, NULL), 0);
    owner_connect(&o, &addr);
    assert_int_equal(o.closeds, 0);
    TURN_UNTIL(&o, o.closeds == 1);
    assert_int_equal(o.error, -ENOENT);
    owner_close(&o);
}

static void test_detach(void **state)
{
    struct owner o;
    struct owner second = { .peer = -1 };
    struct buf in = { 0 };
    struct tls *tls;
    int fd;

    (void) state;
    owner_open(&o);
    o.leave = 3;
    send_all(o.peer, "abc", 3);
    TURN_UNTIL(&o, o.datas == 1);
    fd = conn_detach(o.conn, &in, &tls);
    assert_null(tls);
    turn(&o, 2);
    assert_int_equal(o.closeds, 0);
    second.loop = o.loop;
    second.conn = conn_new(o.loop, fd, &ops, &second, OUT_BYTES_MAX);
    conn_unread(second.conn, buf_head(&in), buf_len(&in));
    buf_free(&in);
    assert_int_equal(second.datas, 0);
    send_all(o.peer, "def", 3);
    TURN_UNTIL(&o, buf_len(&second.got) == 6);
    assert_memory_equal(buf_head(&second.got), "abcdef", 6);
    conn_close(second.conn);
    buf_free(&second.got);
    o.closeds = 1;
    owner_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_in_limit_and_need),
        cmocka_unit_test(test_need_reserves_little),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_resume_before_eof),
        cmocka_unit_test(test_half_close_gets_its_answers),
        cmocka_unit_test(test_close_within_data),
        cmocka_unit_test(test_close_after_flush_lingers),
        cmocka_unit_test(test_linger_ends),
        cmocka_unit_test(test_peer_vanishes_while_writing),
        cmocka_unit_test(test_calls_after_close),
        cmocka_unit_test(test_peer_that_does_not_read),
        cmocka_unit_test(test_close_within_drained),
        cmocka_unit_test(test_one_write_per_turn),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_connect_from_a_source),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_connect_unix_missing),
        cmocka_unit_test(test_detach),
    };

    return cmocka_run_group_tests_name("io_conn", tests, NULL, NULL);
}
