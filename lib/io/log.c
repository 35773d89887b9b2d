/* Log lines to the journal or to stderr. The journal's socket may block, therefore a thread of its
 * own sends, and a caller only ever queues. */
#include "io/log.h"

#include "base/mem.h"
#include "io/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define LOG_FIELDS_MAX 32
#define LOG_EXIT_SEC   2

/* One journal entry, ready to be sent: its fields as one block of NUL-terminated strings. */
struct log_entry {
    struct log_entry *next;
    size_t n;
    struct iovec fields[LOG_FIELDS_MAX];
    char *bytes;
    size_t used;
    size_t cap;
};

static struct {
    const char *progname;
    _Atomic int level;
    _Atomic bool journal;
    _Atomic uint64_t dropped;
    pthread_mutex_t lock; /* of the rest */
    pthread_cond_t wake;
    struct log_entry *first;
    struct log_entry **last;
    size_t n;
    bool stopping;
    pthread_t thread;
} log_state = {
    .progname = "kumofs",
    .level = LOG_LEVEL_INFO,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .last = &log_state.first,
};

const char *const log_level_names[] = { "error", "warning", "notice", "info", "debug", NULL };

/* ---- lines ---- */

/* A line stays one line, whatever a peer's bytes in it are. */
static void log_clean(char *text)
{
    for (unsigned char *p = (unsigned char *) text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = ' ';
        }
    }
}

static void log_to_stderr(const char *text)
{
    char line[LOG_LINE_BYTES_MAX + 128];
    int n = snprintf(line, sizeof(line), "%s: %s\n", log_state.progname, text);
    ssize_t w;

    if (n >= (int) sizeof(line)) {
        n = (int) sizeof(line) - 1;
        line[n - 1] = '\n';
    }
    w = write(STDERR_FILENO, line, (size_t) n);
    (void) w; /* there is nobody left to tell */
}

/* ---- the journal ---- */

static void log_entry_free(struct log_entry *entry)
{
    free(entry->bytes);
    free(entry);
}

/* Offsets first: the block may move while it grows. */
static void log_entry_add(struct log_entry *entry, const char *key, const char *value)
{
    size_t bytes = strlen(key) + 1 + strlen(value);

    if (entry->n == LOG_FIELDS_MAX) {
        return;
    }
    mem_grow(&entry->bytes, &entry->cap, entry->used + bytes + 1, 1);
    snprintf(entry->bytes + entry->used, bytes + 1, "%s=%s", key, value);
    entry->fields[entry->n++] =
        (struct iovec){ .iov_base = (void *) entry->used, .iov_len = bytes };
    entry->used += bytes + 1;
}

static struct log_entry *log_entry_new(enum log_level level, const char *text)
{
    struct log_entry *entry = mem_zalloc(1, sizeof(*entry));
    char priority[2] = { (char) ('3' + level), '\0' };

    log_entry_add(entry, "MESSAGE", text);
    log_entry_add(entry, "PRIORITY", priority);
    log_entry_add(entry, "SYSLOG_IDENTIFIER", log_state.progname);
    return entry;
}

static void log_entry_send(struct log_entry *entry)
{
    for (size_t i = 0; i < entry->n; i++) {
        entry->fields[i].iov_base = entry->bytes + (uintptr_t) entry->fields[i].iov_base;
    }
    if (sd_journal_sendv(entry->fields, (int) entry->n) < 0) {
        atomic_fetch_add(&log_state.dropped, 1);
    }
}

static void *log_thread(void *arg)
{
    struct log_entry *entry;

    (void) arg;
    pthread_mutex_lock(&log_state.lock);
    for (;;) {
        while (!log_state.first && !log_state.stopping) {
            pthread_cond_wait(&log_state.wake, &log_state.lock);
        }
        entry = log_state.first;
        if (!entry) {
            break;
        }
        log_state.first = entry->next;
        if (!log_state.first) {
            log_state.last = &log_state.first;
        }
        log_state.n--;
        pthread_mutex_unlock(&log_state.lock);
        log_entry_send(entry);
        log_entry_free(entry);
        pthread_mutex_lock(&log_state.lock);
    }
    pthread_mutex_unlock(&log_state.lock);
    return NULL;
}

static void log_enqueue(struct log_entry *entry)
{
    bool full;

    pthread_mutex_lock(&log_state.lock);
    full = log_state.n >= LOG_QUEUE_MAX || log_state.stopping;
    if (!full) {
        *log_state.last = entry;
        log_state.last = &entry->next;
        log_state.n++;
        pthread_cond_signal(&log_state.wake);
    }
    pthread_mutex_unlock(&log_state.lock);
    if (full) {
        atomic_fetch_add(&log_state.dropped, 1);
        log_entry_free(entry);
    }
}

/* JOURNAL_STREAM names the device and inode of the stream that systemd gave us. */
static bool log_stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long dev;
    unsigned long long ino;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *progname)
{
    log_state.progname = progname;
    if (!atomic_load(&log_state.journal) && log_stderr_is_journal()) {
        log_state.stopping = false;
        if (pthread_create(&log_state.thread, NULL, log_thread, NULL) == 0) {
            atomic_store(&log_state.journal, true);
        }
    }
}

void log_exit(void)
{
    struct timespec until;

    if (!atomic_exchange(&log_state.journal, false)) {
        return;
    }
    pthread_mutex_lock(&log_state.lock);
    log_state.stopping = true;
    pthread_cond_signal(&log_state.wake);
    pthread_mutex_unlock(&log_state.lock);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LOG_EXIT_SEC;
    if (pthread_timedjoin_np(log_state.thread, NULL, &until) != 0) {
        pthread_detach(log_state.thread);
    }
}

/* ---- the interface ---- */

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_state.level, (int) level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int) level <= atomic_load_explicit(&log_state.level, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    return atomic_load(&log_state.dropped);
}

void log_line(enum log_level level, const char *file, int line, const char *fmt, ...)
{
    char text[LOG_LINE_BYTES_MAX];
    char number[16];
    struct log_entry *entry;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_clean(text);
    if (!atomic_load(&log_state.journal)) {
        log_to_stderr(text);
        return;
    }
    entry = log_entry_new(level, text);
    snprintf(number, sizeof(number), "%d", line);
    log_entry_add(entry, "CODE_FILE", file);
    log_entry_add(entry, "CODE_LINE", number);
    log_enqueue(entry);
}

void log_event(enum log_level level, const char *message_id, const char *const *fields,
               size_t n_fields, const char *fmt, ...)
{
    char text[LOG_LINE_BYTES_MAX];
    struct log_entry *entry;
    va_list ap;

    if (!log_enabled(level)) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_clean(text);
    if (!atomic_load(&log_state.journal)) {
        log_to_stderr(text);
        return;
    }
    entry = log_entry_new(level, text);
    if (message_id) {
        log_entry_add(entry, "MESSAGE_ID", message_id);
    }
    for (size_t i = 0; i < n_fields; i++) {
        log_entry_add(entry, fields[2 * i], fields[2 * i + 1]);
    }
    log_enqueue(entry);
}

bool log_ratelimit_ok(struct log_ratelimit *limit, uint64_t *ret_missed)
{
    uint64_t now = clock_boot_usec();
    uint64_t begin = __atomic_load_n(&limit->begin_usec, __ATOMIC_RELAXED);
    uint64_t missed = 0;

    if (begin == 0 || now - begin >= limit->interval_usec) {
        /* Of several threads one begins the interval; the others count in it. */
        if (__atomic_compare_exchange_n(&limit->begin_usec, &begin, now, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            __atomic_store_n(&limit->passed, 0, __ATOMIC_RELAXED);
        }
    }
    if (__atomic_fetch_add(&limit->passed, 1, __ATOMIC_RELAXED) >= limit->burst) {
        __atomic_fetch_add(&limit->missed, 1, __ATOMIC_RELAXED);
        return false;
    }
    missed = __atomic_exchange_n(&limit->missed, 0, __ATOMIC_RELAXED);
    if (ret_missed) {
        *ret_missed = missed;
    }
    return true;
}
