/* MessagePack-RPC between two ends that behave: requests, deadlines, the hello, ends of
 * connections. */
#include "io_rpc_pair.h"

/* ---- the good ---- */

static void test_request_and_answer(void **state)
{
    struct pair p;
    struct result r = { 0 };
    struct result failed = { 0 };

    (void) state;
    pair_up(&p);
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 1234567, WAIT_USEC, &r), 0);
    assert_int_equal(ask(p.client.rpc, METHOD_FAIL, 1, WAIT_USEC, &failed), 0);
    assert_int_equal(rpc_pending(p.client.rpc), 2);
    TURN_UNTIL(&p, r.calls == 1 && failed.calls == 1);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.number, 1234567);
    assert_int_equal(failed.status, -EREMOTEIO);
    assert_int_equal(failed.code, 77);
    assert_string_equal(failed.text, "no such thing");
    assert_int_equal(rpc_pending(p.client.rpc), 0);
    pair_close(&p);
}

/* After the hello the accepting side may ask as well. */
static void test_both_directions(void **state)
{
    struct pair p;
    struct result results[200] = { 0 };

    (void) state;
    pair_up(&p);
    for (unsigned i = 0; i < 200; i++) {
        struct rpc *rpc = i % 2 ? p.client.rpc : p.server.rpc;
        assert_int_equal(ask(rpc, METHOD_ECHO, i, WAIT_USEC, &results[i]), 0);
    }
    TURN_UNTIL(&p, rpc_pending(p.client.rpc) + rpc_pending(p.server.rpc) == 0);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(results[i].calls, 1);
        assert_int_equal(results[i].number, i);
    }
    pair_close(&p);
}

static void test_notifies(void **state)
{
    struct pair p;

    (void) state;
    pair_up(&p);
    for (unsigned i = 1; i <= 10000; i++) {
        struct buf *out = rpc_begin_notify(p.client.rpc, 3);
        mp_put_array(out, 1);
        mp_put_uint(out, i);
        assert_int_equal(rpc_end(p.client.rpc), 0);
    }
    assert_true(rpc_out_bytes(p.client.rpc) > 0);
    TURN_UNTIL(&p, p.server.notifies == 10000);
    assert_int_equal(p.server.last, 10000);
    pair_close(&p);
}

static void test_large_message(void **state)
{
    struct pair p;
    struct result r = { 0 };
    static uint8_t blob[MESSAGE_BYTES_MAX];
    struct buf *out;

    (void) state;
    pair_up(&p);
    assert_int_equal(
        rpc_begin_request(p.client.rpc, METHOD_ECHO, on_answer, &r, WAIT_USEC, &out, NULL), 0);
    mp_put_array(out, 2);
    mp_put_uint(out, 5);
    mp_put_bin(out, blob, sizeof(blob) - 100);
    assert_int_equal(rpc_end(p.client.rpc), 0);
    TURN_UNTIL(&p, r.calls == 1);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.number, 5);

    /* One over the limit is taken back before it is sent. */
    assert_int_equal(
        rpc_begin_request(p.client.rpc, METHOD_ECHO, on_answer, &r, WAIT_USEC, &out, NULL), 0);
    mp_put_array(out, 1);
    mp_put_bin(out, blob, sizeof(blob));
    assert_int_equal(rpc_end(p.client.rpc), -EMSGSIZE);
    assert_int_equal(rpc_pending(p.client.rpc), 0);
    r = (struct result){ 0 };
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 6, WAIT_USEC, &r), 0);
    TURN_UNTIL(&p, r.calls == 1);
    assert_int_equal(r.number, 6);
    pair_close(&p);
}

static void test_cancel_and_abort(void **state)
{
    struct pair p;
    struct result cancelled = { 0 };
    struct result kept = { 0 };
    struct buf *out;
    uint64_t id;

    (void) state;
    pair_up(&p);
    assert_int_equal(
        rpc_begin_request(p.client.rpc, METHOD_ECHO, on_answer, &cancelled, WAIT_USEC, &out, &id),
        0);
    mp_put_array(out, 0);
    assert_int_equal(rpc_end(p.client.rpc), 0);
    rpc_cancel(p.client.rpc, id);
    rpc_cancel(p.client.rpc, id);
    assert_int_equal(
        rpc_begin_request(p.client.rpc, METHOD_ECHO, on_answer, &cancelled, WAIT_USEC, &out, NULL),
        0);
    mp_put_array(out, 1);
    rpc_abort(p.client.rpc);
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 9, WAIT_USEC, &kept), 0);
    TURN_UNTIL(&p, kept.calls == 1);
    assert_int_equal(cancelled.calls, 0);
    assert_int_equal(p.server.requests, 2);
    pair_close(&p);
}

/* ---- time ---- */

static void test_timeouts_in_order(void **state)
{
    struct pair p;
    struct result late = { 0 };
    struct result soon = { 0 };
    struct result answered = { 0 };

    (void) state;
    pair_up(&p);
    assert_int_equal(ask(p.client.rpc, METHOD_SILENT, 1, 60000, &late), 0);
    assert_int_equal(ask(p.client.rpc, METHOD_SILENT, 2, 20000, &soon), 0);
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 3, 40000, &answered), 0);
    TURN_UNTIL(&p, soon.calls == 1);
    assert_int_equal(soon.status, -ETIMEDOUT);
    assert_int_equal(late.calls, 0);
    TURN_UNTIL(&p, late.calls == 1);
    assert_int_equal(answered.calls, 1);
    assert_int_equal(answered.status, 0);
    assert_int_equal(p.client.closeds, 0);
    pair_close(&p);
}

static void test_close_within_timeout(void **state)
{
    struct pair p;
    struct result first = { 0 };
    struct result second = { 0 };

    (void) state;
    pair_up(&p);
    first.close = p.client.rpc;
    assert_int_equal(ask(p.client.rpc, METHOD_SILENT, 1, 10000, &first), 0);
    assert_int_equal(ask(p.client.rpc, METHOD_SILENT, 2, 10000, &second), 0);
    TURN_UNTIL(&p, first.calls == 1);
    assert_int_equal(second.calls, 1);
    assert_int_equal(second.status, -ECONNRESET);
    p.client.rpc = NULL;
    TURN_UNTIL(&p, p.server.closeds == 1);
    assert_int_equal(p.client.closeds, 0);
    pair_close(&p);
}

/* A peer that connects and says nothing, or half a hello, is closed. */
static void test_hello_deadline(void **state)
{
    struct pair p;
    int fd;
    uint64_t begin = clock_boot_usec();

    (void) state;
    pair_listen(&p);
    fd = raw_connect(&p);
    assert_int_equal(send(fd, "\x94\x00", 2, 0), 2);
    while (p.server.closeds == 0) {
        assert_int_equal(loop_turn(p.loop, true), 0);
    }
    assert_int_equal(p.server.error, -ETIMEDOUT);
    assert_true(clock_boot_usec() - begin >= RPC_HELLO_TIMEOUT_USEC);
    close(fd);
    pair_close(&p);
}

/* ---- the hello ---- */

static void test_hello_refused(void **state)
{
    struct pair p;

    (void) state;
    pair_listen(&p);
    p.server.refuse = "another cluster: kumofs-test, this is kumofs";
    pair_connect(&p);
    TURN_UNTIL(&p, p.client.closeds == 1 && p.server.closeds == 1);
    assert_int_equal(p.client.error, -EPERM);
    assert_int_equal(p.server.error, -EPERM);
    assert_string_equal(p.client.why, p.server.refuse);
    assert_string_equal(p.server.why, p.server.refuse);
    assert_int_equal(p.client.ups, 0);
    pair_close(&p);
}

static void test_hello_unacceptable(void **state)
{
    struct pair p;

    (void) state;
    pair_listen(&p);
    p.client.unacceptable = true;
    p.client.close_in_closed = true;
    pair_connect(&p);
    TURN_UNTIL(&p, p.client.closeds == 1 && p.server.closeds == 1);
    assert_int_equal(p.client.error, -EPROTO);
    pair_close(&p);
}

static void test_nothing_before_hello(void **state)
{
    struct pair p;
    struct result r = { 0 };

    (void) state;
    pair_listen(&p);
    pair_connect(&p);
    assert_false(rpc_is_up(p.client.rpc));
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 1, WAIT_USEC, &r), -ENOTCONN);
    TURN_UNTIL(&p, p.client.ups == 1);
    pair_close(&p);
}

/* ---- ends ---- */

static void test_close_ends_requests(void **state)
{
    struct pair p;
    struct result results[50] = { 0 };

    (void) state;
    pair_up(&p);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(ask(p.client.rpc, METHOD_SILENT, i, WAIT_USEC, &results[i]), 0);
    }
    results[10].close = p.client.rpc; /* while they are being told */
    TURN_UNTIL(&p, p.server.requests == 50);
    p.server.rpc = rpc_close(p.server.rpc);
    TURN_UNTIL(&p, results[49].calls == 1);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(results[i].calls, 1);
        assert_int_equal(results[i].status, -ECONNRESET);
    }
    assert_int_equal(p.client.closeds, 0); /* its owner closed it within */
    p.client.rpc = NULL;
    pair_close(&p);
}

static void test_close_within_request(void **state)
{
    struct pair p;
    struct result r = { 0 };
    struct result after = { 0 };

    (void) state;
    pair_up(&p);
    assert_int_equal(ask(p.client.rpc, METHOD_CLOSE, 1, WAIT_USEC, &r), 0);
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 2, WAIT_USEC, &after), 0);
    TURN_UNTIL(&p, p.client.closeds == 1);
    assert_int_equal(r.status, -ECONNRESET);
    assert_int_equal(after.status, -ECONNRESET);
    assert_int_equal(p.server.requests, 1);
    assert_int_equal(p.server.closeds, 0);
    pair_close(&p);
}

static void test_calls_after_close(void **state)
{
    struct pair p;
    struct result r = { 0 };
    struct rpc *rpc;

    (void) state;
    pair_up(&p);
    rpc = TAKE_PTR(p.client.rpc);
    rpc_close(rpc);
    mp_put_array(rpc_begin_notify(rpc, 1), 0);
    assert_int_equal(rpc_end(rpc), -ENOTCONN);
    mp_put_nil(rpc_begin_response(rpc, 1));
    assert_int_equal(rpc_end(rpc), -ENOTCONN);
    rpc_error(rpc, 1, 1, "late");
    assert_int_equal(ask(rpc, METHOD_ECHO, 1, WAIT_USEC, &r), -ENOTCONN);
    rpc_cancel(rpc, 1);
    rpc_pause_read(rpc);
    rpc_resume_read(rpc);
    rpc_close_after_flush(rpc);
    assert_null(rpc_close(rpc));
    assert_false(rpc_is_up(rpc));
    TURN_UNTIL(&p, p.server.closeds == 1);
    assert_int_equal(p.client.closeds, 0);
    pair_close(&p);
}

static void test_close_after_flush(void **state)
{
    struct pair p;

    (void) state;
    pair_up(&p);
    for (unsigned i = 1; i <= 1000; i++) {
        struct buf *out = rpc_begin_notify(p.client.rpc, 1);
        mp_put_array(out, 1);
        mp_put_uint(out, i);
        assert_int_equal(rpc_end(p.client.rpc), 0);
    }
    rpc_close_after_flush(p.client.rpc);
    TURN_UNTIL(&p, p.client.closeds == 1 && p.server.closeds == 1);
    assert_int_equal(p.server.last, 1000);
    assert_int_equal(p.client.error, 0);
    assert_int_equal(p.server.error, 0);
    pair_close(&p);
}

static void test_pause(void **state)
{
    struct pair p;
    struct result r[3] = { 0 };

    (void) state;
    pair_up(&p);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ask(p.client.rpc, METHOD_PAUSE, i, WAIT_USEC, &r[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        TURN_UNTIL(&p, r[i].calls == 1);
        for (unsigned k = 0; k < 10; k++) {
            loop_turn(p.loop, false);
        }
        assert_int_equal(p.server.requests, i + 1);
        rpc_resume_read(p.server.rpc);
        assert_int_equal(p.server.requests, i + 1);
    }
    pair_close(&p);
}

static void test_connect_refused(void **state)
{
    struct pair p;

    (void) state;
    pair_listen(&p);
    listener_stop(p.listener);
    pair_connect(&p);
    TURN_UNTIL(&p, p.client.closeds == 1);
    assert_int_equal(p.client.error, -ECONNREFUSED);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_and_answer),
        cmocka_unit_test(test_both_directions),
        cmocka_unit_test(test_notifies),
        cmocka_unit_test(test_large_message),
        cmocka_unit_test(test_cancel_and_abort),
        cmocka_unit_test(test_timeouts_in_order),
        cmocka_unit_test(test_close_within_timeout),
        cmocka_unit_test(test_hello_deadline),
        cmocka_unit_test(test_hello_refused),
        cmocka_unit_test(test_hello_unacceptable),
        cmocka_unit_test(test_nothing_before_hello),
        cmocka_unit_test(test_close_ends_requests),
        cmocka_unit_test(test_close_within_request),
        cmocka_unit_test(test_calls_after_close),
        cmocka_unit_test(test_close_after_flush),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_connect_refused),
    };

    return cmocka_run_group_tests_name("io_rpc", tests, quiet, NULL);
}
