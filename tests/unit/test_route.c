/* The gateway's routing: where operations go, order per connection and key, numbers and their
 * window (R12), retries, changes of the hash space. */
#include "route_rig.h"

/* ---- sending ---- */

static void test_operation_goes_to_the_primarys_shard(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    const struct route_action *a;
    struct op op;

    (void) state;
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        submit(f, 0, OP_SET, key_in(p, 0));
        op = the_send(f);
        a = nth(f, ROUTE_SEND, 0);
        assert_int_equal(a->server, 1);
        assert_int_equal(a->shard, p % SHARDS);
        assert_int_equal(a->send.session, SESSION);
        assert_int_equal(op.op.number, 1);
        assert_int_equal(op.op.first, 1);
        assert_true(is_key(&op, key_in(p, 0)));
        assert_memory_equal(op.value, "value", 5);
    }
}

static void test_gets_have_no_number(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_GET, key_in(0, 0));
    assert_int_equal(the_send(f).op.number, 0);
    submit(f, 0, OP_GAT, key_in(0, 1));
    assert_int_equal(the_send(f).op.number, 1);
}

static void test_answer_goes_to_who_asked(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    const struct route_action *a;
    int token;
    uint64_t id;

    (void) state;
    assert_int_equal(try_submit(f, 1, OP_SET, key_in(0, 0), "x", &token), 0);
    id = the_send(f).id;
    answer(f, 0, id, RESULT_STORED);
    a = nth(f, ROUTE_DONE, 0);
    assert_ptr_equal(a->done.client, &f->client[1]);
    assert_ptr_equal(a->done.token, &token);
    assert_false(a->done.failed);
    assert_int_equal(a->done.result.code, RESULT_STORED);
    assert_true(is_key(a->done.op, key_in(0, 0)));
    answer(f, 0, id, RESULT_STORED); /* a second answer meets nothing */
    assert_int_equal(f->out.n, 0);
    assert_int_equal(route_server_bytes(f->route, 1), 0);
}

/* ---- order ---- */

static void test_one_operation_per_connection_and_key(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    const char *key = key_in(0, 0);
    uint8_t codes[] = { OP_SET, OP_GET, OP_DELETE, OP_GET };
    uint64_t id;

    (void) state;
    submit(f, 0, codes[0], key);
    id = the_send(f).id;
    for (unsigned i = 1; i < ARRAY_LEN(codes); i++) {
        submit(f, 0, codes[i], key);
        assert_int_equal(f->out.n, 0);
    }
    for (unsigned i = 1; i < ARRAY_LEN(codes); i++) {
        answer(f, 0, id, RESULT_STORED);
        assert_int_equal(count(f, ROUTE_DONE), 1);
        assert_int_equal(the_send(f).code, codes[i]);
        id = the_send(f).id;
    }
    answer(f, 0, id, RESULT_NOT_FOUND);
    assert_int_equal(count(f, ROUTE_SEND), 0);
    assert_int_equal(route_unanswered(f->route), 0);
}

static void test_other_keys_and_connections_do_not_wait(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    submit(f, 0, OP_SET, key_in(0, 1));
    assert_int_equal(the_send(f).op.number, 2);
    submit(f, 1, OP_SET, key_in(0, 0));
    assert_int_equal(the_send(f).op.number, 3);
}

/* Numbers are given when an operation is sent: one that waits behind another holds none back. */
static void test_numbers_are_dense(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t id;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    id = the_send(f).id;
    submit(f, 0, OP_SET, key_in(0, 0));
    submit(f, 0, OP_SET, key_in(0, 1));
    assert_int_equal(the_send(f).op.number, 2);
    answer(f, 0, id, RESULT_STORED);
    assert_int_equal(the_send(f).op.number, 3);
    assert_int_equal(the_send(f).op.first, 2);
}

/* ---- the window ---- */

static void test_window_holds_back_and_opens_in_order(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t ids[SESSION_WINDOW];

    (void) state;
    window_fill(f, ids);
    submit(f, 1, OP_SET, key_in(0, 0));
    submit(f, 1, OP_SET, key_in(0, 1));
    assert_int_equal(count(f, ROUTE_SEND), 0);
    submit(f, 1, OP_GET, key_in(0, 2)); /* reads pass */
    assert_int_equal(count(f, ROUTE_SEND), 1);
    submit(f, 1, OP_SET, key_in(1, 0)); /* other partitions too */
    assert_int_equal(count(f, ROUTE_SEND), 1);
    answer(f, 0, ids[1], RESULT_STORED); /* the first one is still out */
    assert_int_equal(count(f, ROUTE_SEND), 0);
    answer(f, 0, ids[0], RESULT_STORED);
    assert_int_equal(count(f, ROUTE_SEND), 2);
    for (unsigned i = 0; i < 2; i++) {
        const struct op *op = nth(f, ROUTE_SEND, i)->send.op;
        assert_true(is_key(op, key_in(0, i)));
        assert_int_equal(op->op.number, SESSION_WINDOW + 1 + i);
        assert_int_equal(op->op.first, 3);
    }
}

static void test_new_session_begins_at_one(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t old;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    submit(f, 0, OP_SET, key_in(0, 1));
    old = the_send(f).id;
    route_set_session(f->route, f->now, SESSION + 1, &f->out);
    submit(f, 0, OP_SET, key_in(0, 2));
    assert_int_equal(the_send(f).op.number, 1);
    assert_int_equal(nth(f, ROUTE_SEND, 0)->send.session, SESSION + 1);
    answer(f, 0, old, RESULT_BUSY);
    tick_at(f, f->now + ROUTE_RETRY_MIN_USEC);
    assert_int_equal(the_send(f).op.number, 2); /* and the old session for what began in it */
    assert_int_equal(nth(f, ROUTE_SEND, 0)->send.session, SESSION);
    answer(f, 0, old, RESULT_STORED);
    submit(f, 0, OP_SET, key_in(0, 3));
    assert_int_equal(the_send(f).op.number, 2);
    assert_int_equal(the_send(f).op.first, 1);
}

static void test_writes_wait_for_a_session(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_bare(1 << 20, 1000);

    (void) state;
    table_form(f);
    tell_table(f);
    submit(f, 0, OP_SET, key_in(0, 0));
    links_up(f, 1);
    assert_int_equal(count(f, ROUTE_NEED_SESSION), 1);
    assert_int_equal(count(f, ROUTE_SEND), 0);
    submit(f, 0, OP_GET, key_in(0, 1));
    assert_int_equal(the_send(f).code, OP_GET);
    f->out.n = 0;
    route_set_session(f->route, f->now, SESSION, &f->out);
    assert_int_equal(the_send(f).op.number, 1);
}

/* ---- retries ---- */

static void test_not_primary_is_tried_again_under_its_number(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t delay = ROUTE_RETRY_MIN_USEC;
    struct op op;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    for (unsigned i = 0; i < 6; i++) {
        op = the_send(f);
        assert_int_equal(op.op.number, 1);
        answer_at(f, 1, 0, op.id, RESULT_NOT_PRIMARY, 1);
        assert_int_equal(f->out.n, 0);
        assert_int_equal(route_wake_usec(f->route), f->now + delay);
        tick_at(f, f->now + delay - 1);
        assert_int_equal(f->out.n, 0);
        tick_at(f, f->now + 1);
        delay = MIN_OF(delay * 2, (uint64_t) ROUTE_RETRY_MAX_USEC);
    }
    answer(f, 0, the_send(f).id, RESULT_STORED);
    assert_int_equal(count(f, ROUTE_DONE), 1);
    submit(f, 0, OP_SET, key_in(0, 0)); /* an answer ends the growth */
    answer(f, 0, the_send(f).id, RESULT_BUSY);
    assert_int_equal(route_wake_usec(f->route), f->now + ROUTE_RETRY_MIN_USEC);
}

static void test_newer_view_asks_for_the_table(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_GET, key_in(0, 0));
    answer_at(f, 1, 0, the_send(f).id, RESULT_NOT_PRIMARY, 2);
    assert_int_equal(count(f, ROUTE_NEED_TABLE), 1);
    tick_at(f, f->now + ROUTE_RETRY_MIN_USEC);
    answer_at(f, 1, 0, the_send(f).id, RESULT_NOT_PRIMARY, 2);
    assert_int_equal(count(f, ROUTE_NEED_TABLE), 0); /* not too often */
    set_row(f, 0, 2, 2);
    tell_table(f); /* the new view ends the delay; its server's link is not there yet */
    assert_int_equal(nth(f, ROUTE_CONNECT, 0)->server, 2);
    f->out.n = 0;
    links_up(f, 2);
    assert_int_equal(nth(f, ROUTE_SEND, 0)->server, 2);
}

static void test_lost_link_sends_again(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    struct op op;

    (void) state;
    submit(f, 0, OP_INCR, key_in(0, 0));
    op = the_send(f);
    f->out.n = 0;
    route_link_down(f->route, f->now, 1, 0, &f->out);
    assert_int_equal(f->out.n, 0);
    answer(f, 0, op.id, RESULT_STORED); /* of a connection that is gone */
    assert_int_equal(f->out.n, 0);
    submit(f, 0, OP_INCR, key_in(0, 1)); /* waits as well */
    assert_int_equal(f->out.n, 0);
    route_link_up(f->route, f->now, 1, 0, &f->out);
    assert_int_equal(count(f, ROUTE_SEND), 2);
    assert_int_equal(nth(f, ROUTE_SEND, 0)->send.op->id, op.id);
    assert_int_equal(nth(f, ROUTE_SEND, 0)->send.op->op.number, 1);
    assert_int_equal(nth(f, ROUTE_SEND, 1)->send.op->op.number, 2);
}

static void test_other_primary_gets_what_was_on_the_way(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    struct op op;
    struct op other;

    (void) state;
    submit(f, 0, OP_SET, key_in(2, 0));
    other = the_send(f);
    submit(f, 0, OP_SET, key_in(0, 0));
    op = the_send(f);
    set_row(f, 0, 2, 3);
    tell_table(f);
    f->out.n = 0;
    links_up(f, 3);
    assert_int_equal(the_send(f).id, op.id);
    assert_int_equal(the_send(f).op.number, 1);
    assert_int_equal(nth(f, ROUTE_SEND, 0)->server, 3);
    answer(f, 0, op.id, RESULT_NOT_PRIMARY); /* the old one's answer is late */
    assert_int_equal(f->out.n, 0);
    answer_at(f, 3, 0, op.id, RESULT_STORED, 0);
    assert_int_equal(count(f, ROUTE_DONE), 1);
    answer(f, 2, other.id, RESULT_STORED); /* its neighbour was left alone */
    assert_int_equal(count(f, ROUTE_DONE), 1);
    assert_int_equal(route_server_bytes(f->route, 1), 0);
    assert_int_equal(route_server_bytes(f->route, 3), 0);
}

static void test_operations_wait_for_the_first_table(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_bare(1 << 20, 1000);

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    assert_int_equal(count(f, ROUTE_NEED_TABLE), 1);
    submit(f, 0, OP_GET, key_in(0, 0));
    assert_int_equal(f->out.n, 0);
    route_set_session(f->route, f->now, SESSION, &f->out);
    tell_table(f); /* not formed yet */
    assert_int_equal(f->out.n, 0);
    table_form(f);
    tell_table(f);
    links_up(f, 1);
    assert_int_equal(the_send(f).code, OP_SET);
    answer(f, 0, the_send(f).id, RESULT_STORED);
    assert_int_equal(the_send(f).code, OP_GET);
}

/* ---- flush ---- */

static void test_flush_goes_to_its_partition(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        struct op op = { .code = OP_FLUSH, .operand = p };
        f->out.n = 0;
        assert_int_equal(
            route_submit(f->route, f->now, &f->client[0], NULL, &op, &f->out, &f->failure), 0);
        assert_int_equal(the_send(f).operand, p);
        assert_int_equal(the_send(f).op.number, 1);
        assert_int_equal(nth(f, ROUTE_SEND, 0)->shard, p % SHARDS);
    }
    assert_int_equal(route_unanswered(f->route), PARTITIONS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operation_goes_to_the_primarys_shard),
        cmocka_unit_test(test_gets_have_no_number),
        cmocka_unit_test(test_answer_goes_to_who_asked),
        cmocka_unit_test(test_one_operation_per_connection_and_key),
        cmocka_unit_test(test_other_keys_and_connections_do_not_wait),
        cmocka_unit_test(test_numbers_are_dense),
        cmocka_unit_test(test_window_holds_back_and_opens_in_order),
        cmocka_unit_test(test_new_session_begins_at_one),
        cmocka_unit_test(test_writes_wait_for_a_session),
        cmocka_unit_test(test_not_primary_is_tried_again_under_its_number),
        cmocka_unit_test(test_newer_view_asks_for_the_table),
        cmocka_unit_test(test_lost_link_sends_again),
        cmocka_unit_test(test_other_primary_gets_what_was_on_the_way),
        cmocka_unit_test(test_operations_wait_for_the_first_table),
        cmocka_unit_test(test_flush_goes_to_its_partition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
