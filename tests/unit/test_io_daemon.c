/* What daemons share: signals, sd_notify, the watchdog, the lock of the data directory; and log
 * lines. */
#include "base/cleanup.h"
#include "io/clock.h"
#include "io/daemon.h"
#include "io/log.h"
#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_USEC 5000000

struct service {
    struct loop *loop;
    unsigned stops;
    unsigned reloads;
    bool alive;
};

static void on_stop(void *ctx)
{
    ((struct service *) ctx)->stops++;
}

static void on_reload(void *ctx)
{
    ((struct service *) ctx)->reloads++;
}

static bool is_alive(void *ctx)
{
    return ((struct service *) ctx)->alive;
}

static const struct daemon_ops ops = {
    .on_stop = on_stop,
    .on_reload = on_reload,
    .is_alive = is_alive,
};

#define TURN_UNTIL(s, condition)                                                                   \
    do {                                                                                           \
        uint64_t until_ = clock_boot_usec() + WAIT_USEC;                                           \
        while (!(condition)) {                                                                     \
            assert_true(clock_boot_usec() < until_);                                               \
            loop_turn((s)->loop, false);                                                           \
        }                                                                                          \
    } while (0)

static int notify_socket(const char *dir)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(un.sun_path, sizeof(un.sun_path), "%s/notify", dir);
    assert_int_equal(bind(fd, (struct sockaddr *) &un, sizeof(un)), 0);
    setenv("NOTIFY_SOCKET", un.sun_path, 1);
    return fd;
}

static void check_notified(int fd, const char *want)
{
    char text[512];
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

    assert_true(n >= 0);
    text[n] = '\0';
    assert_ptr_equal(strstr(text, want), text);
}

static void test_signals_and_notify(void **state)
{
    char dir[] = "/tmp/kumo-daemon-XXXXXX";
    struct service s = { .alive = true };
    struct daemon *daemon = NULL;
    char text[64];
    int fd;

    (void) state;
    assert_non_null(mkdtemp(dir));
    fd = notify_socket(dir);
    daemon_prepare();
    assert_int_equal(loop_new(&s.loop), 0);
    assert_int_equal(daemon_new(s.loop, &ops, &s, &daemon), 0);
    daemon_notify_ready();
    check_notified(fd, "READY=1");
    daemon_notify_status("serving %d partitions", 1024);
    check_notified(fd, "STATUS=serving 1024 partitions");
    daemon_notify_extend(5000000);
    check_notified(fd, "EXTEND_TIMEOUT_USEC=5000000");
    kill(getpid(), SIGPIPE); /* ignored */
    kill(getpid(), SIGHUP);
    TURN_UNTIL(&s, s.reloads == 1);
    check_notified(fd, "RELOADING=1\nMONOTONIC_USEC=");
    check_notified(fd, "READY=1");
    kill(getpid(), SIGTERM);
    TURN_UNTIL(&s, s.stops == 1);
    check_notified(fd, "STOPPING=1");
    assert_false(loop_stopping(s.loop)); /* the owner stops it when it is done */
    kill(getpid(), SIGINT);
    TURN_UNTIL(&s, loop_stopping(s.loop)); /* or the operator's second signal */
    assert_int_equal(s.stops, 1);
    assert_null(daemon_free(daemon));
    loop_free(s.loop);
    close(fd);
    unsetenv("NOTIFY_SOCKET");
    snprintf(text, sizeof(text), "%s/notify", dir);
    unlink(text);
    rmdir(dir);
}

static void test_watchdog(void **state)
{
    char dir[] = "/tmp/kumo-daemon-XXXXXX";
    struct service s = { .alive = true };
    struct daemon *daemon = NULL;
    char text[64];
    int fd;

    (void) state;
    assert_non_null(mkdtemp(dir));
    fd = notify_socket(dir);
    setenv("WATCHDOG_USEC", "40000", 1);
    assert_int_equal(loop_new(&s.loop), 0);
    assert_int_equal(daemon_new(s.loop, &ops, &s, &daemon), 0);
    for (unsigned i = 0; i < 3; i++) {
        TURN_UNTIL(&s, recv(fd, text, sizeof(text), MSG_PEEK) > 0);
        check_notified(fd, "WATCHDOG=1");
    }
    s.alive = false;
    while (recv(fd, text, sizeof(text), 0) > 0) {
    }
    uint64_t until = clock_boot_usec() + 60000;
    while (clock_boot_usec() < until) {
        loop_turn(s.loop, false);
    }
    assert_true(recv(fd, text, sizeof(text), 0) < 0);
    daemon_free(daemon);
    loop_free(s.loop);
    close(fd);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    snprintf(text, sizeof(text), "%s/notify", dir);
    unlink(text);
    rmdir(dir);
}

static void test_lock(void **state)
{
    char top[] = "/tmp/kumo-daemon-XXXXXX";
    char dir[64];
    char want[32];
    struct io_error error;
    struct stat st;
    int fd;

    (void) state;
    assert_non_null(mkdtemp(top));
    snprintf(dir, sizeof(dir), "%s/kumofs/server", top);
    fd = daemon_lock_dir(dir, &error);
    assert_true(fd >= 0);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0750);
    assert_int_equal(daemon_lock_dir(dir, &error), -EBUSY);
    snprintf(want, sizeof(want), "(pid %d)", (int) getpid());
    assert_non_null(strstr(error.text, want));
    assert_non_null(strstr(error.text, dir));
    close(fd);
    fd = daemon_lock_dir(dir, &error);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(daemon_lock_dir("relative/dir", &error), -EINVAL);
    snprintf(dir, sizeof(dir), "%s/kumofs/server/lock", top);
    assert_int_equal(daemon_lock_dir(dir, &error), -ENOTDIR); /* a file is in the way */
    unlink(dir);
    snprintf(dir, sizeof(dir), "rm -r %s", top);
    assert_int_equal(system(dir), 0);
}

/* ---- log ---- */

/* What a function writes to stderr. */
static void capture(void (*fn)(void), char *out, size_t bytes)
{
    int saved = dup(STDERR_FILENO);
    int fds[2];
    ssize_t n;

    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    dup2(fds[1], STDERR_FILENO);
    fn();
    dup2(saved, STDERR_FILENO);
    n = read(fds[0], out, bytes - 1);
    out[n > 0 ? n : 0] = '\0';
    close(fds[0]);
    close(fds[1]);
    close(saved);
}

static void say_lines(void)
{
    static const char *const fields[] = { "KUMO_SERVER", "db1" };

    log_init("kumo-test");
    log_info("number %d\nno second line\x1b[31m", 1);
    log_debug("not shown");
    log_set_level(LOG_LEVEL_ERROR);
    log_warning("not shown either");
    log_error("shown");
    log_event(LOG_LEVEL_ERROR, "0123456789abcdef0123456789abcdef", fields, 1, "event of %s", "db1");
    log_set_level(LOG_LEVEL_INFO);
}

static void test_log_lines(void **state)
{
    char text[1024];

    (void) state;
    capture(say_lines, text, sizeof(text));
    assert_string_equal(text, "kumo-test: number 1 no second line [31m\nkumo-test: shown\n"
                              "kumo-test: event of db1\n");
}

static void say_often(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        log_ratelimit(LOG_LEVEL_WARNING, "again %u", i);
    }
}

static void test_log_ratelimit(void **state)
{
    struct log_ratelimit limit = LOG_RATELIMIT(20000, 2);
    char text[4096];
    uint64_t missed = 99;
    unsigned lines = 0;

    (void) state;
    capture(say_often, text, sizeof(text));
    for (const char *p = text; *p; p++) {
        lines += *p == '\n';
    }
    assert_int_equal(lines, 5);
    assert_true(log_ratelimit_ok(&limit, &missed));
    assert_int_equal(missed, 0);
    assert_true(log_ratelimit_ok(&limit, NULL));
    assert_false(log_ratelimit_ok(&limit, NULL));
    assert_false(log_ratelimit_ok(&limit, NULL));
    usleep(25000);
    assert_true(log_ratelimit_ok(&limit, &missed));
    assert_int_equal(missed, 2);
}

static void *log_from_thread(void *arg)
{
    (void) arg;
    for (unsigned i = 0; i < 500; i++) {
        log_info("line %u of a thread", i);
    }
    return NULL;
}

/* JOURNAL_STREAM that matches: lines go through the queue, even when nobody is there to take them.
 */
static void say_to_journal(void)
{
    pthread_t threads[4];
    struct stat st;
    char stream[64];

    fstat(STDERR_FILENO, &st);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long) st.st_dev,
             (unsigned long long) st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init("kumo-test");
    for (unsigned i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, log_from_thread, NULL);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    log_exit();
    unsetenv("JOURNAL_STREAM");
}

static void test_log_journal(void **state)
{
    char text[64];

    (void) state;
    if (access("/run/systemd/journal/socket", F_OK) == 0) {
        skip(); /* would write into a real journal */
    }
    capture(say_to_journal, text, sizeof(text));
    assert_string_equal(text, ""); /* nothing went to stderr itself */
    log_init("kumo-test");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signals_and_notify),
        cmocka_unit_test(test_watchdog),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_log_ratelimit),
        cmocka_unit_test(test_log_journal),
    };

    return cmocka_run_group_tests_name("io_daemon", tests, NULL, NULL);
}
