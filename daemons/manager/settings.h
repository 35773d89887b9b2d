/* Options of kumo-manager: conf/manager.conf has each of them with its meaning. */
#pragma once

#include "io/conf.h"

#define MANAGER_PORT 19700

struct settings {
    struct conf_list listen;
    struct conf_list managers; /* all of the group, this one included; empty: it is alone */
    char *advertise;           /* NULL: what it listens on */
    char *source;              /* NULL: the kernel chooses */
    char *data_dir;
    uint64_t partitions;
    uint64_t replicas;
    uint64_t failure_usec;
    uint64_t min_replicas_auto;
    char *cluster_key;
    uint64_t session_timeout_usec;
    int log_level; /* enum log_level */

    int argc; /* for reloading */
    char **argv;
};

extern const struct conf_program settings_program;
