/* R12: an operation that was tried again, and then found nothing to do, must not be done by its
 * first copy, which waited for the disk meanwhile. (Copies that lie unread in a connection end with
 * it: session_set of the server's clients.c.) */
#include "shard_rig_ops.h"

#define NUMBER 1

/* The read that was asked for first has come. */
static void read_done(struct rig *g, uint32_t server)
{
    struct rig_node *n = &g->nodes[server];
    struct action a = n->reads[0];
    struct shard_event e = { .kind = SHARD_READ };

    assert_int_equal(n->n_reads, 1);
    n->n_reads = 0;
    e.read.number = a.read.number;
    (void) rig_read(n, a.read.at, a.read.bytes, &e.read.data);
    e.read.bytes = a.read.bytes;
    rig_step(g, server, &e);
}

/* "add a" at server 1, whose record of a is on the disk only. */
static struct rig *rig_adding(const char *members)
{
    struct rig *g = rig_new(1);

    rig_form(g, 1, members);
    rig_kv(g, 1, OP_SET, "a", "one");
    rig_run(g, members);
    g->nodes[1].cold = true;
    assert_int_equal(rig_answer(g, rig_id(g, 1, OP_ADD, "a", "late", NUMBER, NUMBER)), 0);
    assert_int_equal(g->nodes[1].n_reads, 1);
    g->nodes[1].cold = false;
    return g;
}

/* Somebody else deletes a; then the first copy's read comes. What `again` was told must hold. */
static void assert_done_as_told(struct rig *g, uint32_t server, const char *members, uint64_t again)
{
    uint64_t del = rig_kv(g, server, OP_DELETE, "a", NULL);

    rig_run(g, members);
    assert_int_equal(rig_answer(g, del), RESULT_DELETED);
    if (server != 1) {
        rig_form(g, 3, members);
    }
    read_done(g, 1);
    rig_run(g, members);
    assert_string_equal(rig_get(g, 1, "a"), rig_answer(g, again) == RESULT_STORED ? "late" : "");
    rig_free(g);
}

/* The gateway's connection broke, and it asks again over another one. */
static void test_asked_again(void **state)
{
    struct rig *g = rig_adding("1");
    uint64_t again = rig_id(g, 1, OP_ADD, "a", "late", NUMBER, NUMBER);

    (void) state;
    assert_done_as_told(g, 1, "1", again);
}

/* The view changes, twice: it is asked and answered elsewhere in between. */
static void test_views_changed(void **state)
{
    struct rig *g = rig_adding("12");
    uint64_t again;

    (void) state;
    rig_form(g, 2, "21");
    again = rig_id(g, 2, OP_ADD, "a", "late", NUMBER, NUMBER);
    assert_int_equal(rig_answer(g, again), RESULT_NOT_STORED);
    assert_done_as_told(g, 2, "12", again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked_again),
        cmocka_unit_test(test_views_changed),
    };
    return cmocka_run_group_tests_name("shard_cold_retries", tests, NULL, NULL);
}
