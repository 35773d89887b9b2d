#include "settings.h"

#include "io/addr.h"
#include "io/keyring.h"
#include "io/log.h"
#include "io/readers.h"
#include "wire/msg.h"

#include <stddef.h>

static const char *const sync_names[] = { "always", "interval", "os", NULL };
static const char *const read_mode_names[] = { "lease", "confirm", NULL };
static const char *const damage_names[] = { "rejoin", "stop", NULL };

#define OPTION(key_, type_, field_)                                                                \
    .key = key_, .type = type_, .offset = offsetof(struct settings, field_)

static const struct conf_option options[] = {
    { OPTION("listen", CONF_LIST, listen), .default_value = "127.0.0.1:19800",
      .help = "addresses for gateways and other servers; without a cluster key loopback only" },
    { OPTION("advertise", CONF_STRING, advertise), .max = ADDRESS_BYTES_MAX - 1,
      .help = "address that others should connect to; default: the first of listen" },
    { OPTION("source-address", CONF_STRING, source), .check = addr_check_ip,
      .help = "address that connections to others come from; default: the kernel chooses" },
    { OPTION("manager", CONF_LIST, manager), .default_value = "127.0.0.1:19700",
      .help = "addresses of the managers" },
    { OPTION("data-dir", CONF_STRING, data_dir), .min = 1,
      .default_value = "/var/lib/kumofs/server", .help = "where the records are kept" },
    { OPTION("name", CONF_STRING, name), .max = NAME_BYTES_MAX - 1,
      .help = "name shown to the operator; default: the host's name" },
    { OPTION("threads", CONF_UINT, threads), .min = 1, .max = SHARDS_MAX, .default_value = "auto",
      .word = "auto", .word_value = 0, .help = "shards; auto: as many as cores, at most 4" },
    { OPTION("io-threads", CONF_UINT, io_threads), .min = 1, .max = READERS_THREADS_MAX,
      .default_value = "4", .help = "threads that read records which are not in memory" },
    { OPTION("sync", CONF_ENUM, sync), .default_value = "always", .names = sync_names,
      .help = "when a write counts as kept: on disk, or soon to be there" },
    { OPTION("sync-interval", CONF_DURATION, sync_interval_usec), .min = 1000, .max = 60000000,
      .default_value = "100ms", .help = "for sync = interval: how often the log goes to disk" },
    { OPTION("read-mode", CONF_ENUM, read_mode), .default_value = "lease", .names = read_mode_names,
      .help = "how a primary makes sure that it is one before it answers a read" },
    { OPTION("failure-timeout", CONF_DURATION, failure_usec), .min = 500000, .max = 60000000,
      .default_value = "1s", .help = "a primary that is silent for so long is accused" },
    { OPTION("replica-timeout", CONF_DURATION, replica_usec), .min = 500000, .max = 60000000,
      .default_value = "1s", .help = "so is another replica without progress" },
    { OPTION("stop-timeout", CONF_DURATION, stop_usec), .max = UINT64_C(3600) * 1000000,
      .default_value = "30s", .help = "how long a stop may take to hand over what is led here" },
    { OPTION("on-damage", CONF_ENUM, on_damage), .default_value = "rejoin", .names = damage_names,
      .help = "data that can't be read: set aside and fetched anew from others, or stop" },
    { OPTION("checkpoint-log-size", CONF_SIZE, checkpoint_log_bytes), .min = 1 << 20,
      .default_value = "256 MiB",
      .help = "log written since the last checkpoint that makes the next one, or twice its size" },
    { OPTION("compaction-slack", CONF_SIZE, compaction_slack_bytes), .default_value = "1 GiB",
      .help = "the log may be this much larger than 1.4 times the live records" },
    { OPTION("disk-reserve", CONF_SIZE, reserve_bytes), .min = 4 << 20, .default_value = "256 MiB",
      .help = "with less room than this on the disk nothing more is stored; reads go on" },
    { OPTION("segment-size", CONF_SIZE, segment_bytes), .min = 1 << 20, .max = 1 << 30,
      .default_value = "128 MiB", .help = "size of the log's files" },
    { OPTION("max-value-size", CONF_SIZE, value_bytes_max), .min = 1024,
      .max = ENTRY_VALUE_BYTES_MAX, .default_value = "1 MiB", .help = "largest value" },
    { OPTION("cluster-key", CONF_STRING, cluster_key), .min = 1, .default_value = KEYRING_AUTO,
      .help = KEYRING_HELP },
    { OPTION("log-level", CONF_ENUM, log_level), .default_value = "info", .names = log_level_names,
      .help = "how much is logged" },
    { .key = NULL },
};

const struct conf_program settings_program = {
    .name = "kumo-server",
    .summary = "Stores the records of a kumofs cluster.",
    .version = KUMO_VERSION,
    .default_path = "/etc/kumofs/server.conf",
    .options = options,
};
