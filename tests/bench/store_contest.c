/* Contestants: forked, told what to do over a pipe, stopped between their rounds; and what is
 * measured of a process from inside of it. */
#include "bench/store_bench.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "base/rng.h"

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void bench_fail(const char *fmt, ...)
{
    va_list args;

    fputs("bench-store: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

/* ---- the parent's side ---- */

static void sample_read(struct contestant *c, struct sample *ret)
{
    if (read(c->out, ret, sizeof(*ret)) != (ssize_t) sizeof(*ret)) {
        bench_fail("a contestant ended before its work did");
    }
}

void contestant_start(struct contestant *c, contestant_fn fn, const struct contestant_options *o,
                      struct sample *ret_ready)
{
    int in[2];
    int out[2];

    fflush(NULL);
    if (pipe(in) < 0 || pipe(out) < 0 || (c->pid = fork()) < 0) {
        bench_fail("no process for a contestant");
    }
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(in[1]);
        close(out[0]);
        _exit(fn(o, in[0], out[1]));
    }
    close(in[0]);
    close(out[1]);
    c->in = in[1];
    c->out = out[0];
    sample_read(c, ret_ready);
    kill(c->pid, SIGSTOP);
}

void contestant_round(struct contestant *c, const struct order *o, struct sample *ret)
{
    kill(c->pid, SIGCONT);
    if (write(c->in, o, sizeof(*o)) != (ssize_t) sizeof(*o)) {
        bench_fail("a contestant is gone");
    }
    sample_read(c, ret);
    kill(c->pid, SIGSTOP);
}

void contestant_end(struct contestant *c, int signal)
{
    kill(c->pid, signal);
    kill(c->pid, SIGCONT);
    close(c->in);
    waitpid(c->pid, NULL, 0);
    close(c->out);
}

/* ---- the contestant's side ---- */

bool order_read(int in, struct order *ret)
{
    return read(in, ret, sizeof(*ret)) == (ssize_t) sizeof(*ret);
}

void sample_write(int out, const struct sample *s)
{
    if (write(out, s, sizeof(*s)) != (ssize_t) sizeof(*s)) {
        _exit(EXIT_FAILURE);
    }
}

static double clock_sec(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* A number behind `label` in a file of /proc/self. */
static uint64_t proc_number(const char *path, const char *label)
{
    FILE *f = fopen(path, "re");
    char line[256];
    unsigned long long v = 0;

    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, label, strlen(label)) == 0) {
            v = strtoull(line + strlen(label), NULL, 10);
        }
    }
    if (f) {
        fclose(f);
    }
    return v;
}

void meter_begin(struct meter *m)
{
    m->device_bytes = proc_number("/proc/self/io", "write_bytes:");
    m->cpu_sec = clock_sec(CLOCK_PROCESS_CPUTIME_ID);
    m->wall_sec = clock_sec(CLOCK_MONOTONIC);
}

void meter_end(const struct meter *m, struct sample *s)
{
    s->wall_sec = clock_sec(CLOCK_MONOTONIC) - m->wall_sec;
    s->cpu_sec = clock_sec(CLOCK_PROCESS_CPUTIME_ID) - m->cpu_sec;
    s->device_bytes = proc_number("/proc/self/io", "write_bytes:") - m->device_bytes;
}

struct memfd {
    ino_t inode;
    uint64_t bytes;
};

static int compare_memfds(const void *a, const void *b)
{
    const struct memfd *x = a;
    const struct memfd *y = b;

    return x->inode < y->inode ? -1 : x->inode > y->inode;
}

/* The open memfds, sorted; one that is open twice is there twice. *ret is the caller's. */
static size_t memfds_list(struct memfd **ret)
{
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    size_t cap = 0;
    size_t n = 0;

    *ret = NULL;
    while (d && (e = readdir(d))) {
        char target[16] = "";
        struct stat st;
        if (readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1) > 0 &&
            strncmp(target, "/memfd:", 7) == 0 && fstat(atoi(e->d_name), &st) == 0) {
            mem_grow(ret, &cap, n + 1, sizeof(**ret));
            (*ret)[n++] = (struct memfd){ st.st_ino, (uint64_t) st.st_blocks * 512 };
        }
    }
    if (d) {
        closedir(d);
    }
    if (n > 0) {
        qsort(*ret, n, sizeof(**ret), compare_memfds);
    }
    return n;
}

static uint64_t memfd_bytes(void)
{
    _cleanup_free_ struct memfd *v = NULL;
    size_t n = memfds_list(&v);
    uint64_t bytes = 0;

    for (size_t i = 0; i < n; i++) {
        bytes += i == 0 || v[i].inode != v[i - 1].inode ? v[i].bytes : 0;
    }
    return bytes;
}

uint64_t memory_used(void)
{
    return proc_number("/proc/self/status", "RssAnon:") * 1024 + memfd_bytes();
}

uint64_t folder_bytes(const char *dir)
{
    DIR *d = opendir(dir);
    uint64_t bytes = 0;
    struct dirent *e;
    struct stat st;

    while (d && (e = readdir(d))) {
        if (fstatat(dirfd(d), e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode)) {
            bytes += (uint64_t) st.st_size;
        }
    }
    if (d) {
        closedir(d);
    }
    return bytes;
}

/* ---- keys and values ---- */

size_t key_make(uint64_t number, bool short_key, uint8_t out[KEY_BYTES_MAX])
{
    struct rng r = { number };
    uint64_t bits[2] = { rng_u64(&r), rng_u64(&r) };

    memcpy(out, bits, KEY_BYTES_MAX);
    return short_key ? KEY_BYTES_MIN
                     : KEY_BYTES_MIN + (size_t) (number % (KEY_BYTES_MAX - KEY_BYTES_MIN + 1));
}

const uint8_t *value_bytes(void)
{
    static uint64_t bytes[VALUE_BYTES_MAX / 8];
    struct rng r = { 1 };

    if (bytes[0] == 0) {
        for (size_t i = 0; i < VALUE_BYTES_MAX / 8; i++) {
            bytes[i] = rng_u64(&r);
        }
    }
    return (const uint8_t *) bytes;
}
