/* Log lines for the operator: to the journal when stderr is the journal, otherwise to stderr as
 * "kumo-server: text". One line each. Never keys' values, never secrets. From any thread; never
 * blocks on the journal: lines wait in a bounded queue for a thread of their own, and are dropped
 * and counted when it is full. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_QUEUE_MAX      1024 /* lines waiting for the journal */
#define LOG_LINE_BYTES_MAX 2048 /* longer ones are cut */

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    _LOG_LEVEL_MAX,
};

/* "error", "warning"…, NULL: for an option of type CONF_ENUM. */
extern const char *const log_level_names[];

/* progname must stay valid. Before it lines go to stderr. */
void log_init(const char *progname);
/* Sends what waits (at most 2 s) and ends the thread; afterwards lines go to stderr. */
void log_exit(void);
/* Default LOG_LEVEL_INFO; from any thread. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* Lines dropped so far because the journal was slow. */
uint64_t log_dropped(void);

void log_line(enum log_level level, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A line with journal fields: MESSAGE_ID (32 hex digits, may be NULL) and n pairs KEY, value
 * ("KUMO_SERVER", "db1", …), which stderr doesn't show. */
void log_event(enum log_level level, const char *message_id, const char *const *fields,
               size_t n_fields, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

#define log_at(level, ...)                                                                         \
    do {                                                                                           \
        if (log_enabled(level)) {                                                                  \
            log_line(level, __FILE__, __LINE__, __VA_ARGS__);                                      \
        }                                                                                          \
    } while (0)

#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Lets `burst` lines pass per interval. Static, one per place; from any thread. */
struct log_ratelimit {
    uint64_t interval_usec;
    uint64_t burst;
    uint64_t begin_usec; /* of the interval under way; atomic */
    uint64_t passed;     /* atomic */
    uint64_t missed;     /* atomic */
};

#define LOG_RATELIMIT(interval, n)                                                                 \
    {                                                                                              \
        .interval_usec = (interval), .burst = (n)                                                  \
    }

/* True: log now. *ret_missed (may be NULL) is how many lines were kept back before this one. */
bool log_ratelimit_ok(struct log_ratelimit *limit, uint64_t *ret_missed);

/* A line at most 5 times in 10 seconds from this place; tells how many were kept back. */
#define log_ratelimit(level, fmt, ...)                                                             \
    do {                                                                                           \
        static struct log_ratelimit log_limit_ = LOG_RATELIMIT(10000000, 5);                       \
        uint64_t log_missed_;                                                                      \
        if (log_enabled(level) && log_ratelimit_ok(&log_limit_, &log_missed_)) {                   \
            if (log_missed_ > 0) {                                                                 \
                log_line(level, __FILE__, __LINE__, fmt " (%llu more like this were not shown)",   \
                         ##__VA_ARGS__, (unsigned long long) log_missed_);                         \
            } else {                                                                               \
                log_line(level, __FILE__, __LINE__, fmt, ##__VA_ARGS__);                           \
            }                                                                                      \
        }                                                                                          \
    } while (0)
