/* Options of kumoctl: conf/kumoctl.conf has each of them with its meaning. */
#pragma once

#include "io/conf.h"

struct settings {
    struct conf_list manager;
    char *cluster_key;
    uint64_t timeout; /* microseconds */
};

extern const struct conf_program settings_program;
