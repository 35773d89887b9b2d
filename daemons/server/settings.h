/* kumo-server's options. */
#pragma once

#include "io/conf.h"
#include "io/segments.h"

#include <stdint.h>

enum read_mode { READ_LEASE, READ_CONFIRM };
enum on_damage { DAMAGE_REJOIN, DAMAGE_STOP };

struct settings {
    struct conf_list listen;
    char *advertise; /* NULL: the first address listened on */
    char *source;    /* NULL: the kernel chooses */
    struct conf_list manager;
    char *data_dir;
    char *cluster_key;
    char *name; /* NULL: the host's name */
    uint64_t threads;
    uint64_t io_threads;
    int sync; /* enum sync_mode */
    uint64_t sync_interval_usec;
    int read_mode; /* enum read_mode */
    uint64_t failure_usec;
    uint64_t replica_usec;
    uint64_t stop_usec;
    int on_damage; /* enum on_damage */
    uint64_t checkpoint_log_bytes;
    uint64_t compaction_slack_bytes;
    uint64_t segment_bytes;
    uint64_t reserve_bytes;
    uint64_t value_bytes_max;
    int log_level; /* enum log_level */
    int argc;      /* of main, for a reload */
    char **argv;
};

extern const struct conf_program settings_program;
