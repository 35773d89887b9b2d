/* Addresses as text, listening sockets, limits, inherited sockets, and who holds a port. */
#include "base/cleanup.h"
#include "io/addr.h"
#include "io/clock.h"
#include "io/listener.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/portuser.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_USEC 5000000
#define FDS_MAX   64

struct door {
    struct loop *loop;
    struct listener *listener;
    int fds[FDS_MAX];
    unsigned n;
};

static void on_accept(void *ctx, int fd)
{
    struct door *d = ctx;

    assert_true(d->n < FDS_MAX);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    d->fds[d->n++] = fd;
}

static void door_make(struct door *d, uint64_t connections_max)
{
    *d = (struct door){ 0 };
    assert_int_equal(loop_new(&d->loop), 0);
    d->listener = listener_new(d->loop, connections_max, "listen", on_accept, d);
}

static void door_close(struct door *d)
{
    while (d->n > 0) {
        close(d->fds[--d->n]);
        listener_release(d->listener);
    }
    loop_turn(d->loop, false);
    listener_free(d->listener);
    loop_free(d->loop);
}

static void turn(struct door *d, unsigned n)
{
    while (n-- > 0) {
        loop_turn(d->loop, false);
    }
}

#define TURN_UNTIL(d, condition)                                                                   \
    do {                                                                                           \
        uint64_t until_ = clock_boot_usec() + WAIT_USEC;                                           \
        while (!(condition)) {                                                                     \
            assert_true(clock_boot_usec() < until_);                                               \
            loop_turn((d)->loop, false);                                                           \
        }                                                                                          \
    } while (0)

static int connect_to(struct door *d, size_t i)
{
    struct addr addr;
    int fd;

    assert_int_equal(listener_addr(d->listener, i, &addr), 0);
    fd = socket(addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &addr.sa, addr.bytes), 0);
    return fd;
}

/* ---- addresses ---- */

static void check_addr(const char *text, uint16_t port, const char *want, int n, bool loopback)
{
    struct addr addrs[ADDR_RESOLVED_MAX];
    struct io_error error;
    char name[ADDR_TEXT_BYTES];

    assert_int_equal(addr_parse(text, port, addrs, ARRAY_LEN(addrs), &error), n);
    assert_string_equal(addr_format(&addrs[0], name), want);
    for (int i = 0; i < n; i++) {
        assert_int_equal(addr_is_loopback(&addrs[i]), loopback);
    }
}

static void test_addresses(void **state)
{
    (void) state;
    check_addr("127.0.0.1:11211", 0, "127.0.0.1:11211", 1, true);
    check_addr("127.0.0.1", 11211, "127.0.0.1:11211", 1, true);
    check_addr("127.9.9.9:1", 0, "127.9.9.9:1", 1, true);
    check_addr("[::1]:11211", 0, "[::1]:11211", 1, true);
    check_addr("[::1]", 5, "[::1]:5", 1, true);
    check_addr("[::ffff:127.0.0.1]:1", 0, "[::ffff:127.0.0.1]:1", 1, true);
    check_addr("[::ffff:10.0.0.1]:1", 0, "[::ffff:10.0.0.1]:1", 1, false);
    check_addr("localhost:11211", 0, "127.0.0.1:11211", 2, true);
    check_addr("*:11211", 0, "[::]:11211", 2, false);
    check_addr("0.0.0.0:11211", 0, "0.0.0.0:11211", 1, false);
    check_addr("10.1.2.3:65535", 0, "10.1.2.3:65535", 1, false);
    check_addr("[2001:db8::1]:80", 0, "[2001:db8::1]:80", 1, false);
    check_addr("/run/kumofs/gateway.sock", 0, "/run/kumofs/gateway.sock", 1, true);
}

static void test_bad_addresses(void **state)
{
    static const char *const bad[] = {
        "",
        ":11211",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1: 80",
        "::1:11211",
        "[::1",
        "[::1]x:1",
        "[]:1",
        "[127.0.0.1]:1",
        "[*]:1",
        "[::1]:",
    };
    struct addr addr;
    struct io_error error;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        error.text[0] = '\0';
        assert_int_equal(addr_parse(bad[i], 0, &addr, 1, &error), -EINVAL);
        assert_non_null(strstr(error.text, "allowed are"));
        assert_int_equal(addr_parse_numeric(bad[i], 0, &addr, NULL), -EINVAL);
    }
    assert_int_equal(addr_parse_numeric("db1.example:80", 0, &addr, &error), -EINVAL);
    char path[256] = "/";
    memset(path + 1, 'x', 200);
    assert_int_equal(addr_parse(path, 0, &addr, 1, &error), -EINVAL);
}

static void test_ip_alone(void **state)
{
    static const char *const bad[] = { "", "127.0.0.1:1", "[::1]", "localhost", "*", "/a" };
    struct io_error error;
    struct addr addr;
    char name[ADDR_TEXT_BYTES];

    (void) state;
    assert_int_equal(addr_parse_ip("192.0.2.1", &addr, &error), 0);
    assert_string_equal(addr_format(&addr, name), "192.0.2.1:0");
    assert_int_equal(addr_parse_ip("2001:db8::1", &addr, &error), 0);
    assert_string_equal(addr_format(&addr, name), "[2001:db8::1]:0");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(addr_check_ip(&bad[i], &error));
        assert_non_null(strstr(error.text, "allowed are"));
    }
}

static void test_addr_equal(void **state)
{
    static const char *const texts[] = { "127.0.0.1:1", "127.0.0.1:2", "127.0.0.2:1",
                                         "[::1]:1",     "/a",          "/b" };
    struct addr a;
    struct addr b;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        for (size_t k = 0; k < ARRAY_LEN(texts); k++) {
            assert_int_equal(addr_parse_numeric(texts[i], 0, &a, NULL), 0);
            assert_int_equal(addr_parse_numeric(texts[k], 0, &b, NULL), 0);
            assert_int_equal(addr_equal(&a, &b), i == k);
        }
    }
}

/* ---- accepting ---- */

static void test_accept(void **state)
{
    struct door d;
    int fd;

    (void) state;
    door_make(&d, 0);
    assert_int_equal(listener_open(d.listener, "127.0.0.1:0", 0, true, NULL), 0);
    fd = connect_to(&d, 0);
    turn(&d, 3);
    assert_int_equal(d.n, 0); /* not before start */
    listener_start(d.listener);
    TURN_UNTIL(&d, d.n == 1);
    assert_int_equal(listener_connections(d.listener), 1);
    close(fd);
    door_close(&d);
}

static void test_localhost_opens_both(void **state)
{
    struct door d;
    struct addr addr;
    int r;

    (void) state;
    door_make(&d, 0);
    r = listener_open(d.listener, "localhost:0", 0, true, NULL);
    assert_int_equal(r, 0);
    assert_true(listener_sockets(d.listener) >= 1);
    assert_int_equal(listener_addr(d.listener, 0, &addr), 0);
    assert_true(addr_is_loopback(&addr));
    door_close(&d);
}

static void test_unix_socket(void **state)
{
    char dir[] = "/tmp/kumo-listener-XXXXXX";
    char path[64];
    struct door d;
    int fd;

    (void) state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    for (unsigned i = 0; i < 2; i++) { /* the second time over a file that nobody listens on */
        door_make(&d, 0);
        assert_int_equal(listener_open(d.listener, path, 0, true, NULL), 0);
        listener_start(d.listener);
        fd = connect_to(&d, 0);
        TURN_UNTIL(&d, d.n == 1);
        close(fd);
        door_close(&d);
        assert_int_equal(access(path, F_OK), -1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        struct addr addr;
        assert_int_equal(addr_parse_numeric(path, 0, &addr, NULL), 0);
        assert_int_equal(bind(fd, &addr.sa, addr.bytes), 0);
        close(fd);
    }
    unlink(path);
    rmdir(dir);
}

static void test_limit_of_connections(void **state)
{
    struct door d;
    int fds[5];

    (void) state;
    door_make(&d, 2);
    assert_int_equal(listener_open(d.listener, "127.0.0.1:0", 0, true, NULL), 0);
    listener_start(d.listener);
    for (unsigned i = 0; i < 5; i++) {
        fds[i] = connect_to(&d, 0);
    }
    turn(&d, 20);
    assert_int_equal(d.n, 2);
    assert_int_equal(listener_pauses(d.listener), 1);
    for (unsigned i = 0; i < 3; i++) {
        close(d.fds[i]);
        d.fds[i] = -1;
        listener_release(d.listener);
        TURN_UNTIL(&d, d.n == 3 + i);
        turn(&d, 5);
        assert_int_equal(d.n, 3 + i);
    }
    for (unsigned i = 0; i < 5; i++) {
        close(fds[i]);
    }
    for (unsigned i = 3; i < 5; i++) {
        close(d.fds[i]);
        listener_release(d.listener);
    }
    d.n = 0;
    assert_int_equal(listener_connections(d.listener), 0);
    turn(&d, 3);
    door_close(&d);
}

static void *release_all(void *arg)
{
    for (unsigned i = 0; i < 16; i++) {
        listener_release(arg);
    }
    return NULL;
}

/* Releases from other threads while accepting is paused: never stuck. */
static void test_release_from_threads(void **state)
{
    struct door d;
    int fds[48];
    pthread_t threads[2];

    (void) state;
    door_make(&d, 32);
    assert_int_equal(listener_open(d.listener, "127.0.0.1:0", 0, true, NULL), 0);
    listener_start(d.listener);
    for (unsigned i = 0; i < 48; i++) {
        fds[i] = connect_to(&d, 0);
    }
    TURN_UNTIL(&d, d.n == 32);
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, release_all, d.listener);
    }
    TURN_UNTIL(&d, d.n == 48);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(listener_connections(d.listener), 16);
    for (unsigned i = 0; i < 48; i++) {
        close(fds[i]);
        close(d.fds[i]);
    }
    d.n = 0;
    turn(&d, 2);
    door_close(&d);
}

/* No descriptors left: accepting rests for 100 ms instead of spinning, then goes on. */
static void test_out_of_descriptors(void **state)
{
    struct door d;
    struct rlimit before;
    struct rlimit tight;
    uint64_t turns;
    int fd;

    (void) state;
    door_make(&d, 0);
    assert_int_equal(listener_open(d.listener, "127.0.0.1:0", 0, true, NULL), 0);
    listener_start(d.listener);
    fd = connect_to(&d, 0);
    getrlimit(RLIMIT_NOFILE, &before);
    tight = before;
    tight.rlim_cur = (rlim_t) fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    TURN_UNTIL(&d, listener_pauses(d.listener) == 1);
    turns = loop_turns(d.loop);
    loop_turn(d.loop, true); /* sleeps until the timer: one turn, not thousands */
    assert_int_equal(loop_turns(d.loop), turns + 1);
    assert_int_equal(d.n, 0);
    setrlimit(RLIMIT_NOFILE, &before);
    TURN_UNTIL(&d, d.n == 1);
    close(fd);
    door_close(&d);
}

/* ---- rules and errors ---- */

static void test_loopback_rule(void **state)
{
    struct door d;
    struct io_error error;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct addr any;

    (void) state;
    door_make(&d, 0);
    assert_int_equal(listener_open(d.listener, "0.0.0.0:0", 0, true, &error), -EACCES);
    assert_non_null(strstr(error.text, "0.0.0.0:0"));
    assert_non_null(strstr(error.text, "cluster key"));
    assert_int_equal(listener_open(d.listener, "*:0", 0, true, NULL), -EACCES);
    assert_int_equal(listener_sockets(d.listener), 0);
    assert_int_equal(addr_parse_numeric("0.0.0.0:0", 0, &any, NULL), 0);
    assert_int_equal(bind(fd, &any.sa, any.bytes), 0);
    assert_int_equal(listener_check_loopback(fd, &error), -EACCES);
    close(fd);
    door_close(&d);
}

static void test_port_in_use(void **state)
{
    struct door d;
    struct io_error error;
    struct addr addr;
    char name[ADDR_TEXT_BYTES];
    char want[ADDR_TEXT_BYTES];

    (void) state;
    door_make(&d, 0);
    assert_int_equal(listener_open(d.listener, "127.0.0.1:0", 0, true, NULL), 0);
    assert_int_equal(listener_addr(d.listener, 0, &addr), 0);
    addr_format(&addr, name);
    assert_int_equal(listener_open(d.listener, name, 0, true, &error), -EADDRINUSE);
    assert_ptr_equal(strstr(error.text, name), error.text);
    assert_non_null(strstr(error.text, "is in use"));
    assert_non_null(strstr(error.text, "listen = ..."));
    snprintf(want, sizeof(want), "(pid %d)", (int) getpid());
    assert_non_null(strstr(error.text, want));
    door_close(&d);
}

static void test_who_holds_a_port(void **state)
{
    struct addr addr;
    struct addr other;
    char who[PORTUSER_TEXT_BYTES];
    char want[32];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void) state;
    assert_int_equal(addr_parse_numeric("0.0.0.0:0", 0, &addr, NULL), 0);
    assert_int_equal(bind(fd, &addr.sa, addr.bytes), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(addr_of_fd(fd, &addr), 0);
    assert_int_equal(addr_parse_numeric("127.0.0.1:1", 0, &other, NULL), 0);
    assert_false(portuser_find(&other, who));
    other.in.sin_port = addr.in.sin_port; /* the wildcard holds it */
    assert_true(portuser_find(&other, who));
    snprintf(want, sizeof(want), "(pid %d)", (int) getpid());
    assert_non_null(strstr(who, want));
    close(fd);
}

/* ---- inherited sockets: in a child, whose descriptors 3 and following are ours to set ---- */

static int inherit_child(const char *bind_text, const char *name, bool loopback_only)
{
    struct door d;
    struct addr addr;
    char pid[16];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int r;

    if (addr_parse_numeric(bind_text, 0, &addr, NULL) < 0 || bind(fd, &addr.sa, addr.bytes) < 0 ||
        listen(fd, 1) < 0) {
        return 100;
    }
    dup2(fd, 3);
    snprintf(pid, sizeof(pid), "%d", (int) getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "peer", 1);
    door_make(&d, 0);
    r = listener_inherit(d.listener, name, loopback_only, NULL);
    return r < 0 ? 50 : r;
}

static int inherit_in_child(const char *bind_text, const char *name, bool loopback_only)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        _exit(inherit_child(bind_text, name, loopback_only));
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

static void test_inherited(void **state)
{
    (void) state;
    assert_int_equal(inherit_in_child("127.0.0.1:0", "peer", true), 1);
    assert_int_equal(inherit_in_child("127.0.0.1:0", "client", true), 0);
    assert_int_equal(inherit_in_child("0.0.0.0:0", "peer", false), 1);
    assert_int_equal(inherit_in_child("0.0.0.0:0", "peer", true), 50);
}

static void test_nothing_inherited(void **state)
{
    struct door d;

    (void) state;
    unsetenv("LISTEN_FDS");
    door_make(&d, 0);
    assert_int_equal(listener_inherit(d.listener, "peer", true, NULL), 0);
    door_close(&d);
    assert_null(listener_free(NULL));
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
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_ip_alone),
        cmocka_unit_test(test_addr_equal),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_localhost_opens_both),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_limit_of_connections),
        cmocka_unit_test(test_release_from_threads),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_loopback_rule),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_who_holds_a_port),
        cmocka_unit_test(test_inherited),
        cmocka_unit_test(test_nothing_inherited),
    };

    return cmocka_run_group_tests_name("io_listener", tests, quiet, NULL);
}
