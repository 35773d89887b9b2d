/* MessagePack-RPC with hostile raw peers, moves between threads, and links. */
#include "io_rpc_pair.h"

/* ---- the bad ---- */

/* Whatever is sent as first bytes: the connection is closed with this error, and nobody was asked.
 */
static void check_garbage(const void *bytes, size_t n, int error)
{
    struct pair p;
    int fd;

    pair_listen(&p);
    fd = raw_connect(&p);
    (void) send(fd, bytes, n, MSG_NOSIGNAL);
    TURN_UNTIL(&p, p.server.closeds == 1);
    assert_int_equal(p.server.error, error);
    assert_int_equal(p.server.hellos + p.server.requests + p.server.notifies, 0);
    close(fd);
    pair_close(&p);
}

static void test_garbage_first(void **state)
{
    static const uint8_t five[] = { 0xdd, 0xff, 0xff, 0xff, 0xff }; /* an array of 2^32 - 1 */
    static const uint8_t bin[] = { 0x94, 0x00, 0x00, 0x00, 0xc6, 0x7f, 0xff, 0xff, 0xff };
    static const uint8_t notify[] = { 0x93, 0x02, 0x05, 0x90 };
    static const uint8_t answer[] = { 0x94, 0x01, 0x00, 0xc0, 0xc0 };
    static const uint8_t other_method[] = { 0x94, 0x00, 0x01, 0x05, 0x90 };
    static const uint8_t no_array[] = { 0x94, 0x00, 0x01, 0x00, 0xc0 };
    static const uint8_t short_one[] = { 0x93, 0x00, 0x01, 0x00 };
    static const uint8_t number[] = { 0x05 };

    (void) state;
    check_garbage("GET / HTTP/1.1\r\n", 16, -EBADMSG);
    check_garbage(five, sizeof(five), -EMSGSIZE);
    check_garbage(bin, sizeof(bin), -EMSGSIZE);
    check_garbage("\xc1", 1, -EBADMSG);
    check_garbage(notify, sizeof(notify), -EBADMSG);
    check_garbage(answer, sizeof(answer), -EBADMSG);
    check_garbage(other_method, sizeof(other_method), -EBADMSG);
    check_garbage(no_array, sizeof(no_array), -EBADMSG);
    check_garbage(short_one, sizeof(short_one), -EBADMSG);
    check_garbage(number, sizeof(number), -EBADMSG);
}

/* The same after a good hello. */
static void check_garbage_later(const struct buf *bytes, int error)
{
    struct pair p;
    struct buf hello = { 0 };
    int fd;

    pair_listen(&p);
    fd = raw_connect(&p);
    put_hello(&hello);
    raw_send(fd, &hello);
    TURN_UNTIL(&p, p.server.hellos == 1);
    raw_send(fd, bytes);
    TURN_UNTIL(&p, p.server.closeds == 1);
    assert_int_equal(p.server.error, error);
    close(fd);
    buf_free(&hello);
    pair_close(&p);
}

static void test_garbage_later(void **state)
{
    struct buf b = { 0 };

    (void) state;
    put_hello(&b); /* a second hello */
    check_garbage_later(&b, -EBADMSG);
    buf_clear(&b);
    mp_put_array(&b, 4); /* an answer to a request that was never made */
    mp_put_uint(&b, 1);
    mp_put_uint(&b, 99);
    mp_put_nil(&b);
    mp_put_nil(&b);
    check_garbage_later(&b, -EBADMSG);
    buf_clear(&b);
    buf_append(&b, "\x93\x02\x05\xc6\x00\x10\x00\x00", 8); /* 1 MiB announced, over the limit */
    check_garbage_later(&b, -EMSGSIZE);
    buf_clear(&b);
    buf_append(&b, "\xc1\xc1\xc1", 3);
    check_garbage_later(&b, -EBADMSG);
    buf_free(&b);
}

static void test_byte_by_byte(void **state)
{
    struct pair p;
    struct buf b = { 0 };
    uint8_t answer[64];
    int fd;

    (void) state;
    pair_listen(&p);
    fd = raw_connect(&p);
    put_hello(&b);
    for (unsigned i = 0; i < 3; i++) {
        mp_put_array(&b, 3);
        mp_put_uint(&b, 2);
        mp_put_uint(&b, 300);
        mp_put_array(&b, 2);
        mp_put_uint(&b, 70000 + i);
        mp_put_str(&b, "some text that takes a while");
    }
    for (size_t i = 0; i < buf_len(&b); i++) {
        assert_int_equal(send(fd, buf_head(&b) + i, 1, 0), 1);
        for (unsigned k = 0; k < 3; k++) {
            loop_turn(p.loop, false);
        }
    }
    TURN_UNTIL(&p, p.server.notifies == 3);
    assert_int_equal(p.server.last, 70002);
    assert_int_equal(p.server.closeds, 0);
    assert_true(recv(fd, answer, sizeof(answer), 0) > 0); /* or closing would be a reset */
    close(fd);
    TURN_UNTIL(&p, p.server.closeds == 1);
    assert_int_equal(p.server.error, 0);
    buf_free(&b);
    pair_close(&p);
}

static void test_peer_dies_in_a_message(void **state)
{
    struct pair p;
    struct buf b = { 0 };
    int fd;

    (void) state;
    pair_listen(&p);
    fd = raw_connect(&p);
    put_hello(&b);
    buf_append(&b, "\x93\x02\x05", 3);
    raw_send(fd, &b);
    close(fd);
    TURN_UNTIL(&p, p.server.closeds == 1);
    assert_int_equal(p.server.error, -ECONNRESET);
    buf_free(&b);
    pair_close(&p);
}

/* A peer that asks and asks and never reads: the owner sees out full; memory is its to bound. */
static void test_peer_that_does_not_read(void **state)
{
    struct pair p;
    struct buf b = { 0 };
    static uint8_t blob[65536];
    int fd;
    size_t n = 0;

    (void) state;
    pair_listen(&p);
    fd = raw_connect(&p);
    put_hello(&b);
    raw_send(fd, &b);
    TURN_UNTIL(&p, p.server.hellos == 1);
    while (!rpc_out_full(p.server.rpc)) {
        struct buf *out = rpc_begin_notify(p.server.rpc, 1);
        mp_put_array(out, 1);
        mp_put_bin(out, blob, sizeof(blob));
        assert_int_equal(rpc_end(p.server.rpc), 0);
        loop_turn(p.loop, false);
        assert_true(++n < 10000);
    }
    assert_int_equal(p.server.draineds, 0);
    while (p.server.draineds == 0) {
        ssize_t got = recv(fd, blob, sizeof(blob), 0);
        assert_true(got != 0);
        loop_turn(p.loop, false);
    }
    close(fd);
    buf_free(&b);
    pair_close(&p);
}

/* ---- to another thread ---- */

struct shard {
    struct loop *loop;
    struct side side;
    struct rpc_parcel *parcel;
    pthread_t thread;
};

static void shard_adopt(void *arg)
{
    struct shard *s = arg;
    struct rpc_config config = config_of(&s->side);

    s->side.rpc = rpc_adopt(s->loop, s->parcel, &config);
}

static void *shard_run(void *arg)
{
    struct shard *s = arg;

    loop_run(s->loop);
    rpc_close(s->side.rpc);
    return NULL;
}

static void test_detach_to_thread(void **state)
{
    struct pair p;
    struct shard shard = { 0 };
    struct result r = { 0 };
    struct result many[100] = { 0 };

    (void) state;
    assert_int_equal(loop_new(&shard.loop), 0);
    shard.side.loop = shard.loop;
    pair_listen(&p);
    p.server.detach = &shard.parcel;
    assert_int_equal(pthread_create(&shard.thread, NULL, shard_run, &shard), 0);
    pair_connect(&p);
    TURN_UNTIL(&p, shard.parcel);
    p.server.rpc = NULL;
    assert_int_equal(loop_post(shard.loop, shard_adopt, &shard), 0);
    TURN_UNTIL(&p, p.client.ups == 1);
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 5, WAIT_USEC, &r), 0);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(ask(p.client.rpc, METHOD_ECHO, i, WAIT_USEC, &many[i]), 0);
    }
    TURN_UNTIL(&p, many[99].calls == 1);
    assert_int_equal(r.number, 5);
    p.client.rpc = rpc_close(p.client.rpc); /* on_closed of the shard's side stops its loop */
    loop_turn(p.loop, false);
    pthread_join(shard.thread, NULL);
    assert_int_equal(shard.side.hellos, 1);
    assert_int_equal(shard.side.requests, 101);
    assert_int_equal(p.server.hellos, 1);
    assert_int_equal(p.server.closeds, 0);
    loop_free(shard.loop);
    pair_close(&p);
}

static void test_parcel_nobody_wants(void **state)
{
    struct pair p;
    struct rpc_parcel *parcel = NULL;

    (void) state;
    pair_listen(&p);
    p.server.detach = &parcel;
    pair_connect(&p);
    TURN_UNTIL(&p, parcel);
    p.server.rpc = NULL;
    assert_null(rpc_parcel_free(parcel));
    assert_null(rpc_parcel_free(NULL));
    TURN_UNTIL(&p, p.client.closeds == 1);
    pair_close(&p);
}

/* ---- links ---- */

static void test_link_comes_back(void **state)
{
    struct pair p;
    struct rpc_config config;
    struct rpc_link *link;
    struct result r = { 0 };

    (void) state;
    pair_listen(&p);
    config = config_of(&p.client);
    link = rpc_link_new(p.loop, &p.addr, 1, &config);
    assert_null(rpc_link_rpc(link));
    for (unsigned i = 1; i <= 3; i++) {
        TURN_UNTIL(&p, p.client.ups == i);
        assert_non_null(rpc_link_rpc(link));
        r = (struct result){ 0 };
        assert_int_equal(ask(rpc_link_rpc(link), METHOD_SILENT, 1, WAIT_USEC, &r), 0);
        p.server.rpc = rpc_close(p.server.rpc);
        TURN_UNTIL(&p, p.client.closeds == i);
        assert_null(rpc_link_rpc(link));
        assert_int_equal(r.status, -ECONNRESET);
    }
    TURN_UNTIL(&p, p.client.ups == 4);
    assert_int_equal(ask(rpc_link_rpc(link), METHOD_SILENT, 1, WAIT_USEC, &r), 0);
    assert_null(rpc_link_free(link));
    assert_int_equal(r.calls, 2); /* told within */
    assert_int_equal(p.client.closeds, 3);
    pair_close(&p);
}

/* Dead addresses are passed over at once; a round without success waits longer each time. */
static void test_link_tries_addresses(void **state)
{
    struct pair p;
    struct pair dead;
    struct addr addrs[3];
    struct rpc_config config;
    struct rpc_link *link;
    uint64_t begin;

    (void) state;
    pair_listen(&p);
    pair_listen(&dead);
    listener_stop(dead.listener);
    addrs[0] = addrs[1] = dead.addr;
    addrs[2] = p.addr;
    config = config_of(&p.client);
    link = rpc_link_new(p.loop, addrs, 3, &config);
    begin = clock_boot_usec();
    TURN_UNTIL(&p, p.client.ups == 1);
    assert_true(clock_boot_usec() - begin < RPC_LINK_BACKOFF_MIN_USEC);
    assert_true(addr_equal(rpc_link_addr(link), &p.addr));
    assert_int_equal(p.client.closeds, 2);
    rpc_link_set_addrs(link, addrs, 2); /* not among them: down, and tries those */
    assert_int_equal(p.client.closeds, 3);
    assert_null(rpc_link_rpc(link));
    begin = clock_boot_usec();
    TURN_UNTIL(&p, p.client.closeds == 9);
    assert_true(clock_boot_usec() - begin >= 3 * RPC_LINK_BACKOFF_MIN_USEC); /* 50 + 100 ms */
    rpc_link_set_addrs(link, &p.addr, 1);
    TURN_UNTIL(&p, p.client.ups == 2);
    rpc_link_next(link);
    TURN_UNTIL(&p, p.client.ups == 3);
    rpc_link_free(link);
    pair_close(&dead);
    pair_close(&p);
}

/* Who says nothing is left, whether it took the connection or only its kernel did. */
static void test_link_leaves_the_silent(void **state)
{
    struct pair p;
    struct pair dumb;
    struct addr addrs[2];
    struct rpc_config config;
    struct rpc_link *link;

    (void) state;
    pair_listen(&p);
    dumb = (struct pair){ .loop = p.loop };
    dumb.listener = listener_new(p.loop, 0, "listen", on_accept, &dumb);
    assert_int_equal(listener_open(dumb.listener, "127.0.0.1:0", 0, true, NULL), 0);
    assert_int_equal(listener_addr(dumb.listener, 0, &addrs[0]), 0);
    addrs[1] = p.addr;
    config = config_of(&p.client);
    link = rpc_link_new(p.loop, addrs, 2, &config);
    rpc_link_set_silence(link, 100000);
    TURN_UNTIL(&p, p.client.ups == 1);
    assert_int_equal(p.client.closeds, 1);
    assert_int_equal(p.client.error, -ETIMEDOUT);
    assert_true(addr_equal(rpc_link_addr(link), &p.addr));
    TURN_UNTIL(&p, p.client.closeds == 2);
    assert_int_equal(p.client.error, -ETIMEDOUT);
    assert_string_equal(p.client.why, "it says nothing");
    TURN_UNTIL(&p, p.client.ups == 2);
    rpc_link_set_silence(link, 0);
    rpc_link_free(link);
    listener_free(dumb.listener);
    pair_close(&p);
}

struct link_owner {
    struct side side;
    struct rpc_link *link;
};

static void free_link(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct link_owner *o = ctx;

    on_closed(rpc, &o->side, error, why);
    o->link = rpc_link_free(o->link);
}

static void test_link_freed_within(void **state)
{
    struct pair p;
    struct rpc_ops freeing = ops;
    struct rpc_config config;
    struct link_owner owner = { 0 };

    (void) state;
    pair_listen(&p);
    freeing.on_closed = free_link;
    config = config_of(&owner.side);
    config.ops = &freeing;
    config.ctx = &owner;
    p.server.refuse = "no";
    owner.link = rpc_link_new(p.loop, &p.addr, 1, &config);
    TURN_UNTIL(&p, owner.side.closeds == 1);
    assert_null(owner.link);
    for (unsigned i = 0; i < 20; i++) {
        loop_turn(p.loop, false);
    }
    assert_int_equal(owner.side.closeds, 1);
    assert_null(rpc_link_free(NULL));
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_garbage_first),
        cmocka_unit_test(test_garbage_later),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_peer_dies_in_a_message),
        cmocka_unit_test(test_peer_that_does_not_read),
        cmocka_unit_test(test_detach_to_thread),
        cmocka_unit_test(test_parcel_nobody_wants),
        cmocka_unit_test(test_link_comes_back),
        cmocka_unit_test(test_link_tries_addresses),
        cmocka_unit_test(test_link_leaves_the_silent),
        cmocka_unit_test(test_link_freed_within),
    };

    return cmocka_run_group_tests_name("io_rpc_peers", tests, quiet, NULL);
}
