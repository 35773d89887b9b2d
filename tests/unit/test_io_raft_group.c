/* Groups of managers, all on one loop, each with its own disk and port, over real connections: the
 * first start, elections, replication, cuts, snapshots, restarts, and who must not be let in. */
#include "io_raft_group_rig.h"

static void test_replicates(void **state)
{
    struct rig g;
    uint64_t began;

    (void) state;
    began = clock_boot_usec();
    rig_start(&g, 3);
    wait_leader(&g);
    print_message("# leader of a new group after %.0f ms\n",
                  (double) (clock_boot_usec() - began) / 1e3);
    commit(&g, 200);
    wait_equal(&g, 200);
    assert_int_equal(g.n_lost, 0);
    for (size_t i = 0; i < g.n; i++) {
        struct msg_managers told = { 0 };
        raft_group_tell(g.nodes[i].group, &told);
        assert_int_equal(told.number, i + 1);
        assert_int_equal(told.role, g.nodes[i].leader ? MANAGER_LEADS : MANAGER_FOLLOWS);
        assert_int_equal(told.leader, leader_of(&g) - g.nodes + 1);
        assert_int_equal(told.n, 3);
        assert_true(told.members[0].reachable && told.members[1].reachable &&
                    told.members[2].reachable);
        assert_int_equal(consensus_is_leader(raft_group_consensus(g.nodes[i].group)),
                         g.nodes[i].leader);
    }
    assert_int_equal(consensus_propose(raft_group_consensus(other_than(&g, leader_of(&g))->group),
                                       (const uint8_t *) "x", 1, NULL, NULL),
                     -EAGAIN);
    rig_free(&g);
}

/* The leader goes, the others go on; it comes back and gets what it missed. */
static void test_leader_stops(void **state)
{
    struct rig g;
    struct node *first;
    uint64_t began;

    (void) state;
    rig_start(&g, 3);
    commit(&g, 50);
    for (unsigned round = 0; round < 3; round++) {
        first = wait_leader(&g);
        node_stop(first);
        began = clock_boot_usec();
        commit(&g, 1);
        print_message("# first commit %.0f ms after a leader's end\n",
                      (double) (clock_boot_usec() - began) / 1e3);
        commit(&g, 49);
        assert_int_equal(node_start(first), 0);
        wait_equal(&g, 50 * (round + 2));
    }
    rig_free(&g);
}

/* A leader that nobody hears gives up, what it had under way has no known outcome, and the others
 * decide. */
static void test_leader_cut_off(void **state)
{
    struct rig g;
    struct node *first;
    unsigned lost;

    (void) state;
    rig_start(&g, 3);
    commit(&g, 20);
    first = wait_leader(&g);
    lost = g.n_lost;
    node_cut(first);
    for (unsigned i = 0; i < 5; i++) {
        consensus_propose(raft_group_consensus(first->group), (const uint8_t *) "lost?", 5, on_done,
                          &g);
    }
    WAIT_FOR(&g, !first->leader);
    WAIT_FOR(&g, g.n_lost == lost + 5);
    commit(&g, 30);
    node_heal(first);
    wait_equal(&g, 50);
    rig_free(&g);
}

/* Two of three are gone: nothing is decided, and nothing is lost. */
static void test_minority(void **state)
{
    struct rig g;
    struct node *leader;

    (void) state;
    rig_start(&g, 3);
    commit(&g, 20);
    wait_equal(&g, 20);
    leader = wait_leader(&g);
    for (size_t i = 0; i < 3; i++) {
        if (&g.nodes[i] != leader) {
            node_stop(&g.nodes[i]);
        }
    }
    WAIT_FOR(&g, !leader->leader);
    run_for(&g, 1500000);
    assert_null(leader_of(&g));
    assert_int_equal(leader->state.count, 20);
    assert_int_equal(node_start(other_than(&g, leader)), 0);
    commit(&g, 5);
    wait_equal(&g, 25);
    rig_free(&g);
}

/* What a manager missed is not in the log any more: it gets a snapshot; with large entries too. */
static void test_snapshot(void **state)
{
    struct rig g;
    struct node *behind;

    (void) state;
    rig_start(&g, 3);
    commit(&g, 20);
    wait_equal(&g, 20);
    behind = other_than(&g, wait_leader(&g));
    node_stop(behind);
    commit(&g, 2 * RAFT_NODE_SNAPSHOT_THRESHOLD + RAFT_NODE_SNAPSHOT_TRAILING);
    assert_int_equal(node_start(behind), 0);
    wait_equal(&g, 20);
    assert_true(behind->n_restored >= 1);
    commit(&g, 50);
    wait_equal(&g, 70);
    node_stop(behind);
    assert_int_equal(node_start(behind), 0); /* from its own disk */
    wait_equal(&g, 70);
    rig_free(&g);
}

/* Entries as large as they may be, and more of them missing than go into one message. */
static void test_large(void **state)
{
    struct rig g;
    struct node *behind;

    (void) state;
    rig_start(&g, 3);
    commit(&g, 1);
    behind = other_than(&g, wait_leader(&g));
    node_stop(behind);
    commit_bytes(&g, 2, RAFT_NODE_ENTRY_BYTES_MAX);
    commit_bytes(&g, 60, 100000); /* 1,024 views in one entry are less */
    assert_int_equal(node_start(behind), 0);
    wait_equal(&g, 63);
    assert_int_equal(behind->n_restored, 0);
    rig_free(&g);
}

static void test_five(void **state)
{
    struct rig g;

    (void) state;
    rig_start(&g, 5);
    commit(&g, 20);
    node_stop(wait_leader(&g));
    commit(&g, 20);
    node_stop(wait_leader(&g));
    commit(&g, 20);
    for (size_t i = 0; i < 5; i++) {
        if (!g.nodes[i].group) {
            assert_int_equal(node_start(&g.nodes[i]), 0);
        }
    }
    wait_equal(&g, 60);
    rig_free(&g);
}

/* A new group waits for all of its managers; nobody leads before. */
static void test_waits_for_all(void **state)
{
    struct rig g;
    struct msg_managers told = { 0 };

    (void) state;
    rig_make(&g, 3);
    assert_int_equal(node_start(&g.nodes[0]), 0);
    assert_int_equal(node_start(&g.nodes[1]), 0);
    run_for(&g, 2500000);
    assert_null(leader_of(&g));
    raft_group_tell(g.nodes[0].group, &told);
    assert_int_equal(told.role, MANAGER_WAITING);
    assert_true(told.members[1].reachable);
    assert_false(told.members[2].reachable);
    assert_int_equal(node_start(&g.nodes[2]), 0);
    commit(&g, 3);
    wait_equal(&g, 3);
    rig_free(&g);
}

/* A manager that lost its disk must not vote again. The others go on. */
static void test_lost_disk(void **state)
{
    struct rig g;
    struct node *lost;

    (void) state;
    rig_start(&g, 3);
    commit(&g, 20);
    wait_equal(&g, 20);
    lost = other_than(&g, wait_leader(&g));
    node_stop(lost);
    dir_remove(lost->dir);
    assert_int_equal(mkdir(lost->dir, 0750), 0);
    assert_int_equal(node_start(lost), 0);
    WAIT_FOR(&g, lost->failed);
    assert_non_null(strstr(lost->why, "lost or exchanged"));
    run_for(&g, 1500000);
    assert_false(lost->leader);
    assert_int_equal(lost->state.count, 0);
    commit(&g, 20);
    node_stop(lost);
    wait_equal(&g, 40);
    rig_free(&g);
}

/* Removes what a raft log consists of, and leaves the rest. */
static void remove_log(const struct node *x)
{
    DIR *d = opendir(x->dir);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] != '.' && strcmp(e->d_name, "identity") != 0) {
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
        }
    }
    closedir(d);
}

static void test_lost_log(void **state)
{
    struct rig g;
    struct node *x = &g.nodes[1];

    (void) state;
    rig_start(&g, 3);
    commit(&g, 5);
    node_stop(x);
    remove_log(x);
    assert_int_equal(node_start(x), -EBADMSG);
    assert_non_null(strstr(x->text, "is gone"));
    commit(&g, 5);
    rig_free(&g);
}

/* One that died before it had begun, when the others already did: they know its id. (They must not
 * remember what this one stored before the test took it away.) */
static void test_begins_late(void **state)
{
    struct rig g;
    struct node *x = &g.nodes[2];
    struct raft_identity i;
    struct io_error error;
    char path[160];

    (void) state;
    rig_start(&g, 3);
    commit(&g, 5);
    for (size_t n = 0; n < 3; n++) {
        node_stop(&g.nodes[n]);
    }
    remove_log(x);
    assert_int_equal(raft_identity_open(x->dir, &i, &error), 0);
    snprintf(path, sizeof(path), "%s/identity", x->dir);
    FILE *f = fopen(path, "we");
    char id[RAFT_IDENTITY_TEXT];
    raft_identity_format(i.id, id);
    fprintf(f, "kumo-manager 1 %s new\n", id);
    fclose(f);
    for (size_t n = 0; n < 3; n++) {
        assert_int_equal(node_start(&g.nodes[n]), 0);
    }
    wait_equal(&g, 5);
    commit(&g, 5);
    wait_equal(&g, 10);
    rig_free(&g);
}

/* Lists that differ: no group begins, and each is told. */
static void test_other_list(void **state)
{
    struct rig g;
    const char *swapped[3];

    (void) state;
    rig_make(&g, 3);
    swapped[0] = g.nodes[1].address;
    swapped[1] = g.nodes[0].address;
    swapped[2] = g.nodes[2].address;
    assert_int_equal(node_start(&g.nodes[0]), 0);
    assert_int_equal(node_start(&g.nodes[1]), 0);
    assert_int_equal(node_start_as(&g.nodes[2], swapped, 3, 2), 0);
    WAIT_FOR(&g, strstr(g.nodes[0].text, "another one") && strstr(g.nodes[2].text, "another one"));
    run_for(&g, 1500000);
    assert_null(leader_of(&g));
    node_stop(&g.nodes[2]);
    assert_int_equal(node_start(&g.nodes[2]), 0);
    commit(&g, 3);
    wait_equal(&g, 3);

    /* and one that has begun keeps to its list */
    node_stop(&g.nodes[2]);
    assert_int_equal(node_start_as(&g.nodes[2], swapped, 3, 2), -EINVAL);
    assert_non_null(strstr(g.nodes[2].text, g.nodes[0].address));
    assert_int_equal(node_start_as(&g.nodes[2], swapped + 2, 1, 0), -EINVAL);
    assert_int_equal(node_start(&g.nodes[2]), 0);
    wait_equal(&g, 3);
    rig_free(&g);
}

/* A manager alone is as ever, and does not become one of a group by a list. */
static void test_alone(void **state)
{
    struct rig g;
    struct node *x = &g.nodes[0];
    const char *list[3];

    (void) state;
    rig_start(&g, 1);
    commit(&g, 5);
    node_stop(x);
    list[0] = x->address;
    list[1] = "127.0.0.1:1";
    list[2] = "127.0.0.1:2";
    assert_int_equal(node_start_as(x, list, 3, 0), -EINVAL);
    assert_non_null(strstr(x->text, "this one manager"));
    list[0] = "127.0.0.1:3"; /* its address may change */
    assert_int_equal(node_start_as(x, list, 1, 0), 0);
    wait_leader(&g);
    assert_int_equal(x->state.count, 5);
    rig_free(&g);
}

/* A flipped bit in a log: that manager refuses to start, the others go on. */
static void test_damage(void **state)
{
    struct rig g;
    struct node *x = &g.nodes[0];
    char path[400] = "";
    DIR *d;

    (void) state;
    rig_start(&g, 3);
    commit(&g, 300);
    wait_equal(&g, 300);
    node_stop(x); /* closes its segments */
    d = opendir(x->dir);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '0') {
            snprintf(path, sizeof(path), "%s/%s", x->dir, e->d_name);
        }
    }
    closedir(d);
    FILE *f = fopen(path, "r+e");
    assert_non_null(f);
    fseek(f, -100, SEEK_END);
    int c = fgetc(f);
    fseek(f, -1, SEEK_CUR);
    fputc(c ^ 4, f);
    fclose(f);
    assert_int_equal(node_start(x), -EBADMSG);
    assert_non_null(strstr(x->text, "can't be opened"));
    commit(&g, 20);
    rig_free(&g);
}

/* The leader's disk is full: the other two store what is decided, whoever leads then, and the one
 * that is full has it all when there is room again. Needs a file system of its own, so root. */
static void test_full_disk(void **state)
{
    struct rig g;
    struct node *x = &g.nodes[0];
    static const char block[4096];
    char filler[160];
    FILE *f;

    (void) state;
    rig_make(&g, 3);
    if (mount("tmpfs", x->dir, "tmpfs", 0, "size=40m") < 0) {
        print_message("# skipped: no file system of its own: %s\n", strerror(errno));
        rig_free(&g);
        skip();
    }
    for (size_t n = 0; n < 3; n++) {
        assert_int_equal(node_start(&g.nodes[n]), 0);
    }
    commit(&g, 20);
    while (wait_leader(&g) != x) { /* until it is this one's turn */
        struct node *first = wait_leader(&g);
        node_stop(first);
        wait_leader(&g);
        assert_int_equal(node_start(first), 0);
        wait_equal(&g, 20);
    }
    snprintf(filler, sizeof(filler), "%s/filler", x->dir);
    f = fopen(filler, "we");
    assert_non_null(f);
    setvbuf(f, NULL, _IONBF, 0);
    while (fwrite(block, sizeof(block), 1, f) == 1) {
    }
    fclose(f);
    commit_bytes(&g, 40, 1 << 20); /* more than the segments that it had made ahead */
    assert_int_equal(unlink(filler), 0);
    wait_equal(&g, 60);
    node_stop(x);
    assert_int_equal(umount2(x->dir, MNT_DETACH), 0);
    rig_free(&g);
}

/* Two new managers with one identity: a data-dir was copied. */
static void test_cloned(void **state)
{
    struct rig g;
    struct raft_identity i;
    struct io_error error;
    char command[300];

    (void) state;
    rig_make(&g, 3);
    assert_int_equal(raft_identity_open(g.nodes[0].dir, &i, &error), 0);
    snprintf(command, sizeof(command), "cp '%s/identity' '%s/'", g.nodes[0].dir, g.nodes[1].dir);
    assert_int_equal(system(command), 0);
    for (size_t n = 0; n < 3; n++) {
        assert_int_equal(node_start(&g.nodes[n]), 0);
    }
    WAIT_FOR(&g, g.nodes[0].failed || g.nodes[1].failed || g.nodes[2].failed);
    assert_null(leader_of(&g));
    rig_free(&g);
}

static int quiet(void **state)
{
    (void) state;
    log_set_level(LOG_LEVEL_ERROR);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replicates),     cmocka_unit_test(test_leader_stops),
        cmocka_unit_test(test_leader_cut_off), cmocka_unit_test(test_minority),
        cmocka_unit_test(test_snapshot),       cmocka_unit_test(test_large),
        cmocka_unit_test(test_five),           cmocka_unit_test(test_waits_for_all),
        cmocka_unit_test(test_lost_disk),      cmocka_unit_test(test_lost_log),
        cmocka_unit_test(test_begins_late),    cmocka_unit_test(test_other_list),
        cmocka_unit_test(test_alone),          cmocka_unit_test(test_damage),
        cmocka_unit_test(test_full_disk),      cmocka_unit_test(test_cloned),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
