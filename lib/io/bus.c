#include "io/bus.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define PAGE_BYTES 4096

/* What a thread is touching. */
struct guard {
    sigjmp_buf failed;
    const uint8_t *from;
    const uint8_t *to;
};

static _Thread_local struct guard *volatile guard_now;

static void complain(void)
{
    static const char text[] =
        ": a mapped file can't be read (SIGBUS): the disk failed, or a file was cut, or no memory "
        "was left for the index; see the kernel's messages and kumo-server --check. Stopping\n";

    (void) !write(STDERR_FILENO, program_invocation_short_name,
                  strlen(program_invocation_short_name));
    (void) !write(STDERR_FILENO, text, sizeof(text) - 1);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    const uint8_t *at = info->si_addr;
    struct guard *g = guard_now;

    (void) context;
    if (g && info->si_code > 0 && at >= g->from && at < g->to) {
        siglongjmp(g->failed, 1);
    }
    complain();
    (void) signal(sig, SIG_DFL);
    (void) raise(sig); /* comes when this returns */
}

int bus_prepare(void)
{
    struct sigaction a = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

    sigemptyset(&a.sa_mask);
    return sigaction(SIGBUS, &a, NULL) < 0 ? -errno : 0;
}

static void touch_pages(const volatile uint8_t *p, size_t bytes)
{
    size_t to_next = PAGE_BYTES - (uintptr_t) p % PAGE_BYTES;

    for (size_t i = 0; i < bytes; i = to_next, to_next += PAGE_BYTES) {
        (void) p[i];
    }
}

/* The handler was left by a jump: what it had blocked still is. */
static int touch_failed(void)
{
    sigset_t set;

    guard_now = NULL;
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    (void) pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return -EIO;
}

int bus_touch(const uint8_t *p, size_t bytes)
{
    struct guard g = { .from = p, .to = p + bytes };

    if (sigsetjmp(g.failed, 0) != 0) { /* saving the mask would take a system call each time */
        return touch_failed();
    }
    guard_now = &g;
    atomic_signal_fence(memory_order_seq_cst);
    touch_pages(p, bytes);
    atomic_signal_fence(memory_order_seq_cst);
    guard_now = NULL;
    return 0;
}
