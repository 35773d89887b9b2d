/* MessagePack-RPC with a cluster key in use, on one side, on both, or with different ones; and the
 * limit of connections that have not said hello. */
#include "io_rpc_pair.h"

#include "io_keys.h"

/* What connections that are made from now on use; "": none. */
static void use_keys(const char *names)
{
    keyring_use(names[0] ? keys_of(names) : NULL);
}

/* The client begins with its keys, the server accepts with its own. */
static void connect_with(struct pair *p, const char *client, const char *server)
{
    pair_listen(p);
    use_keys(client);
    pair_connect(p);
    use_keys(server);
}

static void end_pair(struct pair *p)
{
    pair_close(p);
    p->lobby = rpc_lobby_free(p->lobby);
    keyring_use(NULL);
}

static void test_up(void **state)
{
    struct result r = { 0 };
    struct pair p;

    (void) state;
    connect_with(&p, "a", "a");
    TURN_UNTIL(&p, p.client.ups == 1);
    assert_true(rpc_is_secured(p.client.rpc));
    assert_true(rpc_is_secured(p.server.rpc));
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 5, WAIT_USEC, &r), 0);
    TURN_UNTIL(&p, r.calls == 1);
    assert_int_equal(r.number, 5);
    p.client.rpc = rpc_close(p.client.rpc);
    TURN_UNTIL(&p, p.server.closeds == 1);
    assert_int_equal(p.server.error, 0); /* an orderly end */
    end_pair(&p);
}

/* Refused, with the reason on both sides, and nobody is asked anything. */
static void check_refused(const char *client, const char *server, const char *client_why,
                          const char *server_why)
{
    struct pair p;

    connect_with(&p, client, server);
    TURN_UNTIL(&p, p.client.closeds == 1 && p.server.closeds >= 1);
    assert_int_equal(p.client.error, -EKEYREJECTED);
    assert_int_equal(p.server.error, -EKEYREJECTED);
    if (!strstr(p.client.why, client_why) || !strstr(p.server.why, server_why)) {
        fail_msg("client: %s; server: %s", p.client.why, p.server.why);
    }
    assert_int_equal(p.client.ups + p.server.hellos + p.server.requests, 0);
    end_pair(&p);
}

static void test_refused(void **state)
{
    (void) state;
    check_refused("a", "b", "does not accept our cluster key", "another cluster key");
    check_refused("ab", "cd", "does not accept our cluster key", "another cluster key");
    check_refused("", "a", "no cluster key here", "does not use TLS");
    check_refused("a", "", "it has no cluster key", "no cluster key here");
    check_refused("ab", "", "it has no cluster key", "no cluster key here");
}

/* Whoever is first to get the new file, in both directions: nobody is refused. */
static void test_exchange(void **state)
{
    static const char *const steps[][2] = { { "a", "ba" }, { "ba", "a" }, { "ba", "ba" },
                                            { "b", "ba" }, { "ba", "b" }, { "b", "b" },
                                            { "ab", "b" }, { "ab", "ba" } };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct result r = { 0 };
        struct pair p;

        connect_with(&p, steps[i][0], steps[i][1]);
        TURN_UNTIL(&p, p.client.ups == 1);
        assert_int_equal(p.client.closeds, 0);
        assert_int_equal(ask(p.client.rpc, METHOD_ECHO, i, WAIT_USEC, &r), 0);
        TURN_UNTIL(&p, r.calls == 1);
        assert_int_equal(r.status, 0);
        end_pair(&p);
    }
}

/* A connection that is up outlives its key. */
static void test_key_goes(void **state)
{
    struct result r = { 0 };
    struct pair p;

    (void) state;
    connect_with(&p, "a", "a");
    TURN_UNTIL(&p, p.client.ups == 1);
    use_keys("b");
    assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 7, WAIT_USEC, &r), 0);
    TURN_UNTIL(&p, r.calls == 1);
    assert_int_equal(r.number, 7);
    end_pair(&p);
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
    struct result many[200] = { 0 };
    struct shard shard = { 0 };
    struct pair p;

    (void) state;
    assert_int_equal(loop_new(&shard.loop), 0);
    shard.side.loop = shard.loop;
    connect_with(&p, "a", "a");
    p.server.detach = &shard.parcel;
    p.lobby = rpc_lobby_new();
    assert_int_equal(pthread_create(&shard.thread, NULL, shard_run, &shard), 0);
    TURN_UNTIL(&p, shard.parcel);
    p.server.rpc = NULL;
    assert_int_equal(rpc_lobby_waiting(p.lobby), 0);
    assert_int_equal(loop_post(shard.loop, shard_adopt, &shard), 0);
    TURN_UNTIL(&p, p.client.ups == 1);
    for (unsigned i = 0; i < ARRAY_LEN(many); i++) {
        assert_int_equal(ask(p.client.rpc, METHOD_ECHO, i, WAIT_USEC, &many[i]), 0);
    }
    TURN_UNTIL(&p, many[ARRAY_LEN(many) - 1].calls == 1);
    assert_true(rpc_is_secured(p.client.rpc));
    p.client.rpc = rpc_close(p.client.rpc); /* on_closed of the shard's side stops its loop */
    loop_turn(p.loop, false);
    pthread_join(shard.thread, NULL);
    assert_int_equal(shard.side.error, 0);
    assert_int_equal(shard.side.requests, ARRAY_LEN(many));
    loop_free(shard.loop);
    end_pair(&p);
}

static void test_parcel_nobody_wants(void **state)
{
    struct rpc_parcel *parcel = NULL;
    struct pair p;

    (void) state;
    connect_with(&p, "a", "a");
    p.server.detach = &parcel;
    TURN_UNTIL(&p, parcel);
    p.server.rpc = NULL;
    assert_null(rpc_parcel_free(parcel));
    TURN_UNTIL(&p, p.client.closeds == 1);
    end_pair(&p);
}

/* ---- links ---- */

/* A link goes on trying, and comes up when the other side has got the key. */
static void test_link(void **state)
{
    struct pair p;
    struct rpc_config config = config_of(&p.client);
    struct rpc_link *link;

    (void) state;
    pair_listen(&p);
    use_keys("ab");
    link = rpc_link_new(p.loop, &p.addr, 1, &config);
    loop_turn(p.loop, false); /* begins to connect */
    use_keys("c");
    TURN_UNTIL(&p, p.client.closeds >= 1);
    use_keys("ab");
    TURN_UNTIL(&p, p.client.ups == 1);
    assert_non_null(rpc_link_rpc(link));
    rpc_link_free(link);
    end_pair(&p);
}

/* ---- the lobby ---- */

/* The oldest of too many silent connections goes, a real peer comes through at once, and those that
 * are done do not count. */
static void test_lobby(void **state)
{
    static int fds[RPC_LOBBY_MAX + 50];
    struct result r = { 0 };
    struct pair p;
    char byte;

    (void) state;
    for (int key = 0; key < 2; key++) {
        pair_listen(&p);
        p.lobby = rpc_lobby_new();
        use_keys(key ? "a" : "");
        pair_connect(&p);
        TURN_UNTIL(&p, p.client.ups == 1);
        assert_int_equal(rpc_lobby_waiting(p.lobby), 0);
        for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
            fds[i] = raw_connect(&p);
            loop_turn(p.loop, false);
        }
        TURN_UNTIL(&p, p.server.closeds == 50);
        assert_int_equal(p.server.error, -ETIMEDOUT);
        assert_int_equal(rpc_lobby_waiting(p.lobby), RPC_LOBBY_MAX);
        for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
            ssize_t n = recv(fds[i], &byte, 1, MSG_DONTWAIT);
            assert_int_equal(n, i < 50 ? 0 : -1);
        }
        assert_int_equal(ask(p.client.rpc, METHOD_ECHO, 3, WAIT_USEC, &r), 0);
        TURN_UNTIL(&p, r.calls == 1 + (unsigned) key);
        rpc_close(p.client.rpc);
        pair_connect(&p); /* another real one */
        TURN_UNTIL(&p, p.client.ups == 2);
        for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
            close(fds[i]);
        }
        p.client.rpc = rpc_close(p.client.rpc);
        TURN_UNTIL(&p, p.server.closeds == ARRAY_LEN(fds) + 2);
        assert_int_equal(rpc_lobby_waiting(p.lobby), 0);
        end_pair(&p);
    }
}

/* Those that wait are closed with it. */
static void test_lobby_ends(void **state)
{
    struct pair p;
    int fd;

    (void) state;
    pair_listen(&p);
    p.lobby = rpc_lobby_new();
    fd = raw_connect(&p);
    TURN_UNTIL(&p, rpc_lobby_waiting(p.lobby) == 1);
    p.lobby = rpc_lobby_free(p.lobby);
    assert_int_equal(p.server.closeds, 1);
    assert_int_equal(p.server.error, -ECANCELED);
    close(fd);
    end_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_key_goes),
        cmocka_unit_test(test_detach_to_thread),
        cmocka_unit_test(test_parcel_nobody_wants),
        cmocka_unit_test(test_link),
        cmocka_unit_test(test_lobby),
        cmocka_unit_test(test_lobby_ends),
    };

    return cmocka_run_group_tests_name("io_rpc_tls", tests, quiet, NULL);
}
