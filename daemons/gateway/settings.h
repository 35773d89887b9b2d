/* What kumo-gateway can be configured to: conf/gateway.conf, its drop-ins, the command line. */
#pragma once

#include "io/conf.h"

#include <stdbool.h>
#include <stdint.h>

#define GATEWAY_PORT 11211
#define MANAGER_PORT 19700

#define THREADS_MAX         64
#define THREADS_DEFAULT_MAX 4 /* threads made unless the setting says how many */
#define VALUE_BYTES_FLOOR   1024
#define VALUE_BYTES_CEILING (64u << 20)

struct settings {
    struct conf_list listen;
    struct conf_list manager;
    char *source;     /* NULL: the kernel chooses */
    char *state_dir;  /* NULL: $STATE_DIRECTORY, or nothing is kept */
    uint64_t threads; /* 0: as many as there are processors, at most THREADS_DEFAULT_MAX */
    uint64_t max_value_bytes;
    uint64_t max_connections;
    uint64_t request_timeout_usec;
    uint64_t server_queue_bytes;
    bool allow_flush_all;
    char *cluster_key;
    int log_level;
    int argc; /* of main, for a reload */
    char **argv;
};

extern const struct conf_program gateway_program;

/* Threads to start: the setting, or what the machine suggests. */
unsigned settings_threads(const struct settings *s);

/* Bytes that one of `n_threads` threads may have on the way to one server: its part of
 * server-queue-bytes, but room for two of the largest values. */
size_t settings_thread_queue_bytes(const struct settings *s, unsigned n_threads);
