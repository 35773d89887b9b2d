/* The gateway's routing at its limits: time, queues, clients that go away. */
#include "route_rig.h"

/* ---- time ---- */

static const struct route_failure *the_failure(const struct fixture *f)
{
    assert_int_equal(count(f, ROUTE_DONE), 1);
    assert_true(nth(f, ROUTE_DONE, 0)->done.failed);
    return &nth(f, ROUTE_DONE, 0)->done.failure;
}

static void assert_text(const struct fixture *f, const struct route_failure *failure,
                        const char *text)
{
    char out[ROUTE_TEXT_BYTES];

    assert_string_equal(route_failure_text(f->route, failure, out), text);
}

static void test_timeout_of_a_write_on_the_wire(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t end;
    uint64_t id;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    id = the_send(f).id;
    end = f->now + TIMEOUT_USEC;
    tick_at(f, end - 1);
    assert_int_equal(count(f, ROUTE_DONE), 0);
    assert_int_equal(route_wake_usec(f->route), end);
    tick_at(f, end);
    assert_text(f, the_failure(f),
                "request timed out; no answer from server db1, or from a replica that it waits for "
                "(the write may still happen)");
    submit(f, 0, OP_SET, key_in(0, 0)); /* its number counts as answered */
    assert_int_equal(the_send(f).op.number, 2);
    assert_int_equal(the_send(f).op.first, 2);
    answer(f, 0, id, RESULT_STORED); /* late, and of nothing */
    assert_int_equal(f->out.n, 0);
}

static void test_timeout_of_a_read(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_GET, key_in(0, 0));
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_text(f, the_failure(f),
                "request timed out; no answer from server db1, or from a replica that it waits for "
                "(nothing was done)");
}

/* What is never sent is never done; what was sent before the connection went may have been. */
static void test_timeout_without_a_link(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    route_link_down(f->route, f->now, 1, 0, &f->out);
    submit(f, 0, OP_SET, key_in(0, 1));
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_int_equal(count(f, ROUTE_DONE), 2);
    assert_text(f, &nth(f, ROUTE_DONE, 0)->done.failure,
                "request timed out; server db1 can't be reached (the write may still happen)");
    assert_text(f, &nth(f, ROUTE_DONE, 1)->done.failure,
                "request timed out; server db1 can't be reached (nothing was done)");
    assert_int_equal(route_unanswered(f->route), 0);
}

static void test_timeout_of_a_server_that_refuses(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t end = f->now + TIMEOUT_USEC;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    while (f->now < end) {
        if (count(f, ROUTE_SEND) > 0) {
            answer(f, 0, the_send(f).id, RESULT_BUSY);
        }
        tick_at(f, MIN_OF(route_wake_usec(f->route), end));
    }
    assert_text(f, the_failure(f), "request timed out; server db1 is not ready (nothing was done)");
}

/* R3: "not me" may be said of what was proposed already. */
static void test_timeout_after_not_primary_is_unknown(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    answer(f, 0, the_send(f).id, RESULT_NOT_PRIMARY);
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_text(f, the_failure(f),
                "request timed out; server db1 is not ready (the write may still happen)");
}

/* What waits behind it would only wait as long again: it ends with it, and nothing of it is sent.
 */
static void test_timeout_of_followers_sends_nothing(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    submit(f, 0, OP_SET, key_in(0, 0));
    f->now += 1000;
    submit(f, 0, OP_SET, key_in(0, 0));
    tick_at(f, f->now - 1000 + TIMEOUT_USEC);
    assert_int_equal(count(f, ROUTE_DONE), 3);
    assert_false(nth(f, ROUTE_DONE, 0)->done.failure.may_happen);
    assert_false(nth(f, ROUTE_DONE, 1)->done.failure.may_happen);
    assert_true(nth(f, ROUTE_DONE, 2)->done.failure.may_happen); /* the one that was on the wire */
    assert_int_equal(count(f, ROUTE_SEND), 0);
}

/* A pipeline of writes of one key is not too slow only because it is long. */
static void test_time_begins_when_it_is_first(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t id;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    id = the_send(f).id;
    for (unsigned i = 0; i < 4; i++) {
        submit(f, 0, OP_SET, key_in(0, 0));
    }
    for (unsigned i = 0; i < 5; i++) {
        tick_at(f, f->now + TIMEOUT_USEC - 1000);
        assert_int_equal(count(f, ROUTE_DONE), 0);
        answer(f, 0, id, RESULT_STORED);
        assert_int_equal(count(f, ROUTE_DONE), 1);
        assert_false(nth(f, ROUTE_DONE, 0)->done.failed);
        if (i < 4) {
            id = the_send(f).id;
        }
    }
}

static void test_timeouts_before_the_cluster_is_there(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_bare(1 << 20, 1000);

    (void) state;
    submit(f, 0, OP_GET, key_in(0, 0));
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_text(f, the_failure(f),
                "request timed out; no manager can be reached (nothing was done)");
    tell_table(f);
    submit(f, 0, OP_GET, key_in(0, 0));
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_text(
        f, the_failure(f),
        "request timed out; no servers are attached yet; run kumoctl attach (nothing was done)");
    table_form(f);
    set_row(f, 0, 0, 0);
    tell_table(f);
    submit(f, 0, OP_SET, key_in(0, 0));
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_text(f, the_failure(f),
                "request timed out; no server holds this key's partition at present "
                "(nothing was done)");
    submit(f, 0, OP_SET, key_in(1, 0));
    links_up(f, 1);
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_text(f, the_failure(f),
                "request timed out; no manager can be reached for a session (nothing was done)");
}

static void test_timeout_behind_the_window(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t ids[SESSION_WINDOW];

    (void) state;
    window_fill(f, ids);
    submit(f, 1, OP_SET, key_in(0, 0));
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_int_equal(count(f, ROUTE_DONE), SESSION_WINDOW + 1);
    assert_int_equal(count(f, ROUTE_SEND), 0);
    assert_false(nth(f, ROUTE_DONE, SESSION_WINDOW)->done.failure.may_happen);
    submit(f, 1, OP_SET, key_in(0, 0));
    assert_int_equal(the_send(f).op.number, SESSION_WINDOW + 1);
    assert_int_equal(the_send(f).op.first, SESSION_WINDOW + 1);
}

static void test_refused_after_a_lost_try_is_unknown(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    answer(f, 0, the_send(f).id, RESULT_REFUSED);
    assert_int_equal(nth(f, ROUTE_DONE, 0)->done.result.code, RESULT_REFUSED);
    assert_int_equal(count(f, ROUTE_NEED_SESSION), 0);
    submit(f, 0, OP_SET, key_in(0, 0));
    f->out.n = 0;
    route_link_down(f->route, f->now, 1, 0, &f->out);
    route_link_up(f->route, f->now, 1, 0, &f->out);
    answer(f, 0, the_send(f).id, RESULT_REFUSED);
    assert_int_equal(nth(f, ROUTE_DONE, 0)->done.result.code, RESULT_UNKNOWN);
}

/* ---- a session that is over ---- */

static void test_over_begins_anew(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t ids[2];

    (void) state;
    for (unsigned i = 0; i < 2; i++) {
        submit(f, 0, OP_SET, key_in(0, i));
        ids[i] = the_send(f).id;
    }
    answer(f, 0, ids[0], RESULT_NO_SESSION);
    assert_int_equal(count(f, ROUTE_NEED_SESSION), 1);
    assert_int_equal(count(f, ROUTE_DONE) + count(f, ROUTE_SEND), 0);
    answer(f, 0, ids[1], RESULT_NO_SESSION);
    assert_int_equal(count(f, ROUTE_NEED_SESSION), 0); /* it was asked for just now */
    f->out.n = 0;
    route_set_session(f->route, f->now, SESSION + 5, &f->out);
    assert_int_equal(count(f, ROUTE_SEND), 2);
    for (unsigned i = 0; i < 2; i++) {
        const struct route_action *a = nth(f, ROUTE_SEND, i);
        assert_int_equal(a->send.session, SESSION + 5);
        assert_int_equal(a->send.op->op.number, i + 1);
        assert_int_equal(a->send.op->op.first, 1);
        assert_int_equal(a->send.op->id, ids[i]);
    }
    answer(f, 0, ids[0], RESULT_STORED);
    assert_int_equal(nth(f, ROUTE_DONE, 0)->done.result.code, RESULT_STORED);
}

/* A new session is there already when the last answers of the old one come. */
static void test_over_is_known(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t id;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    id = the_send(f).id;
    route_set_session(f->route, f->now, SESSION + 5, &f->out);
    answer(f, 0, id, RESULT_NO_SESSION);
    assert_int_equal(the_send(f).id, id);
    assert_int_equal(nth(f, ROUTE_SEND, 0)->send.session, SESSION + 5);
    assert_int_equal(count(f, ROUTE_NEED_SESSION), 0);
}

static void test_over_after_a_lost_try_is_unknown(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    f->out.n = 0;
    route_link_down(f->route, f->now, 1, 0, &f->out);
    route_link_up(f->route, f->now, 1, 0, &f->out);
    answer(f, 0, the_send(f).id, RESULT_NO_SESSION);
    assert_int_equal(nth(f, ROUTE_DONE, 0)->done.result.code, RESULT_UNKNOWN);
    assert_int_equal(count(f, ROUTE_NEED_SESSION), 1);
    submit(f, 0, OP_SET, key_in(0, 1)); /* the next one waits for a session */
    assert_int_equal(count(f, ROUTE_SEND), 0);
}

/* ---- silence ---- */

/* A server that says nothing is asked after, and connected to anew; one that answers others is
 * asked after only. */
static void test_silence(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    uint64_t begin = f->now;
    uint64_t id;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    assert_int_equal(route_wake_usec(f->route), begin + ROUTE_SILENT_USEC);
    tick_at(f, begin + ROUTE_SILENT_USEC - 1);
    assert_int_equal(f->out.n, 0);
    submit(f, 1, OP_GET, key_in(0, 1));
    answer(f, 0, the_send(f).id, RESULT_NOT_FOUND);
    tick_at(f, begin + ROUTE_SILENT_USEC);
    assert_int_equal(count(f, ROUTE_NEED_TABLE), 1);
    assert_int_equal(count(f, ROUTE_RECONNECT), 0);
    tick_at(f, begin + 2 * ROUTE_SILENT_USEC);
    assert_int_equal(count(f, ROUTE_NEED_TABLE), 1);
    assert_int_equal(count(f, ROUTE_RECONNECT), 1);
    assert_int_equal(nth(f, ROUTE_RECONNECT, 0)->server, 1);
    assert_int_equal(nth(f, ROUTE_RECONNECT, 0)->shard, 0);
    f->out.n = 0;
    route_link_down(f->route, f->now, 1, 0, &f->out);
    tick_at(f, f->now + ROUTE_SILENT_USEC / 2);
    assert_int_equal(f->out.n, 0);
    tick_at(f, f->now + ROUTE_SILENT_USEC); /* no connection comes: where should it go? */
    assert_int_equal(count(f, ROUTE_NEED_TABLE), 1);
    f->out.n = 0;
    route_link_up(f->route, f->now, 1, 0, &f->out);
    id = the_send(f).id;
    answer(f, 0, id, RESULT_STORED);
    tick_at(f, f->now + ROUTE_SILENT_USEC);
    assert_int_equal(f->out.n, 0);
    assert_true(route_wake_usec(f->route) == UINT64_MAX);
}

/* ---- limits ---- */

static void test_limit_of_a_servers_queue(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_with(2000, 1000);
    unsigned n = 0;

    (void) state;
    while (try_submit(f, 0, OP_SET, key_in(0, n % 60), "0123456789", NULL) == 0) {
        n++;
        assert_in_range(n, 1, 20);
    }
    assert_in_range(n, 2, 20);
    assert_text(f, &f->failure, "server db1: queue full (nothing was done)");
    assert_in_range(route_server_bytes(f->route, 1), 1, 2000);
    set_row(f, 1, 2, 2); /* other servers have their own */
    tell_table(f);
    assert_int_equal(try_submit(f, 0, OP_SET, key_in(1, 0), "0123456789", NULL), 0);
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_int_equal(count(f, ROUTE_DONE), n + 1);
    assert_int_equal(route_server_bytes(f->route, 1), 0);
    assert_int_equal(try_submit(f, 0, OP_SET, key_in(0, 0), "0123456789", NULL), 0);
}

/* What changes servers waits until there is room, so that no queue goes over its limit. */
static void test_limit_holds_when_primaries_move(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_with(2000, 1000);
    unsigned first = 0;
    unsigned second = 0;
    unsigned done = 0;

    (void) state;
    set_row(f, 1, 2, 2);
    tell_table(f);
    while (try_submit(f, 0, OP_GET, key_in(0, first), NULL, NULL) == 0) {
        first++;
    }
    while (try_submit(f, 0, OP_GET, key_in(1, second), NULL, NULL) == 0) {
        second++;
    }
    set_row(f, 0, 2, 2);
    tell_table(f);
    f->out.n = 0;
    links_up(f, 2);
    for (unsigned turn = 0; turn < 100 && done < first + second; turn++) {
        uint64_t ids[64];
        uint32_t shards[64];
        size_t n = 0;
        assert_in_range(route_server_bytes(f->route, 2), 0, 2000);
        for (size_t i = 0; i < f->out.n; i++) {
            if (f->out.v[i].kind == ROUTE_SEND) {
                shards[n] = f->out.v[i].shard;
                ids[n++] = f->out.v[i].send.op->id;
            }
        }
        for (size_t i = 0; i < n; i++) {
            answer_at(f, 2, (uint16_t) shards[i], ids[i], RESULT_NOT_FOUND, 0);
            assert_int_equal(count(f, ROUTE_SEND), 0);
            done += count(f, ROUTE_DONE);
        }
        tick_at(f, f->now + ROUTE_RETRY_MAX_USEC);
    }
    assert_int_equal(done, first + second);
}

static void test_limit_of_operations(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_with(1 << 20, 3);

    (void) state;
    for (unsigned i = 0; i < 3; i++) {
        submit(f, 0, OP_SET, key_in(0, 0));
    }
    assert_int_equal(try_submit(f, 0, OP_SET, key_in(0, 1), "x", NULL), -ENOBUFS);
    assert_text(f, &f->failure, "too many requests under way in this gateway (nothing was done)");
    assert_int_equal(route_unanswered(f->route), 3);
}

/* ---- clients that go away ---- */

static void test_forgotten_writes_go_on(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();
    struct op op;

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    op = the_send(f);
    submit(f, 0, OP_DELETE, key_in(0, 0));
    submit(f, 0, OP_GET, key_in(0, 0));
    f->out.n = 0;
    route_forget(f->route, f->now, &f->client[0], &f->out);
    assert_int_equal(f->out.n, 0);
    assert_int_equal(route_unanswered(f->route), 2); /* the read was not sent yet */
    answer(f, 0, op.id, RESULT_STORED);
    assert_int_equal(count(f, ROUTE_DONE), 0);
    assert_int_equal(the_send(f).code, OP_DELETE);
    assert_int_equal(the_send(f).op.number, 2);
    assert_int_equal(the_send(f).op.first, 2);
    answer(f, 0, the_send(f).id, RESULT_DELETED);
    assert_int_equal(f->out.n, 0);
    assert_int_equal(route_unanswered(f->route), 0);
    submit(f, 1, OP_SET, key_in(0, 0));
    assert_int_equal(the_send(f).op.first, 3);
}

static void test_forgotten_reads_free_what_waits(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    route_link_down(f->route, f->now, 1, 0, &f->out);
    submit(f, 0, OP_GET, key_in(0, 0));
    submit(f, 0, OP_SET, key_in(0, 0));
    submit(f, 0, OP_GET, key_in(0, 1));
    f->out.n = 0;
    route_forget(f->route, f->now, &f->client[0], &f->out);
    assert_int_equal(route_unanswered(f->route), 1);
    route_link_up(f->route, f->now, 1, 0, &f->out);
    assert_int_equal(the_send(f).code, OP_SET);
}

static void test_forgotten_timeouts_are_silent(void **state)
{
    _cleanup_fixture_ struct fixture *f = fixture_up();

    (void) state;
    submit(f, 0, OP_SET, key_in(0, 0));
    submit(f, 0, OP_GET, key_in(0, 1)); /* on the wire already */
    route_forget(f->route, f->now, &f->client[0], &f->out);
    f->out.n = 0;
    route_link_down(f->route, f->now, 1, 0, &f->out);
    assert_int_equal(route_unanswered(f->route), 1); /* the read need not be sent again */
    tick_at(f, f->now + TIMEOUT_USEC);
    assert_int_equal(f->out.n, 0);
    assert_int_equal(route_unanswered(f->route), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeout_of_a_write_on_the_wire),
        cmocka_unit_test(test_timeout_of_a_read),
        cmocka_unit_test(test_timeout_without_a_link),
        cmocka_unit_test(test_timeout_of_a_server_that_refuses),
        cmocka_unit_test(test_timeout_after_not_primary_is_unknown),
        cmocka_unit_test(test_timeout_of_followers_sends_nothing),
        cmocka_unit_test(test_time_begins_when_it_is_first),
        cmocka_unit_test(test_timeouts_before_the_cluster_is_there),
        cmocka_unit_test(test_timeout_behind_the_window),
        cmocka_unit_test(test_refused_after_a_lost_try_is_unknown),
        cmocka_unit_test(test_over_begins_anew),
        cmocka_unit_test(test_over_is_known),
        cmocka_unit_test(test_over_after_a_lost_try_is_unknown),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_limit_of_a_servers_queue),
        cmocka_unit_test(test_limit_holds_when_primaries_move),
        cmocka_unit_test(test_limit_of_operations),
        cmocka_unit_test(test_forgotten_writes_go_on),
        cmocka_unit_test(test_forgotten_reads_free_what_waits),
        cmocka_unit_test(test_forgotten_timeouts_are_silent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
