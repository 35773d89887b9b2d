#include "settings.h"

#include "core/cluster.h"
#include "io/addr.h"
#include "io/keyring.h"
#include "io/log.h"

static bool check_partitions(const void *target, struct io_error *error)
{
    uint64_t n = *(const uint64_t *) target;

    if ((n & (n - 1)) != 0) {
        io_error_set(error, 0, "this is no power of two; allowed: 1, 2, 4, 8, ... %u",
                     PARTITIONS_MAX);
        return false;
    }
    return true;
}

static const struct conf_option settings_options[] = {
    { .key = "listen",
      .type = CONF_LIST,
      .offset = offsetof(struct settings, listen),
      .default_value = "127.0.0.1:19700",
      .help = "addresses to listen on, with port" },
    { .key = "managers",
      .type = CONF_LIST,
      .offset = offsetof(struct settings, managers),
      .help = "all managers of the cluster, this one included; none: it is the only one" },
    { .key = "advertise",
      .type = CONF_STRING,
      .offset = offsetof(struct settings, advertise),
      .min = 1,
      .max = ADDRESS_BYTES_MAX - 1,
      .help = "which of managers this one is, if not the one it listens on" },
    { .key = "source-address",
      .type = CONF_STRING,
      .offset = offsetof(struct settings, source),
      .help = "address that connections to others come from; default: the kernel chooses",
      .check = addr_check_ip },
    { .key = "data-dir",
      .type = CONF_STRING,
      .offset = offsetof(struct settings, data_dir),
      .min = 1,
      .default_value = "/var/lib/kumofs/manager",
      .help = "where the Raft log and its snapshots are kept" },
    { .key = "partitions",
      .type = CONF_UINT,
      .offset = offsetof(struct settings, partitions),
      .min = 1,
      .max = PARTITIONS_MAX,
      .default_value = "1024",
      .help = "pieces of the hash space, a power of two; counts when the cluster is made",
      .check = check_partitions },
    { .key = "replicas",
      .type = CONF_UINT,
      .offset = offsetof(struct settings, replicas),
      .min = 1,
      .max = REPLICAS_MAX,
      .default_value = "3",
      .help = "copies of each record; counts when the cluster is made" },
    { .key = "failure-timeout",
      .type = CONF_DURATION,
      .offset = offsetof(struct settings, failure_usec),
      .min = 100000,
      .max = 60000000,
      .default_value = "1s",
      .help = "how long a server that does not answer is waited for in a view change" },
    { .key = "min-replicas-auto",
      .type = CONF_UINT,
      .offset = offsetof(struct settings, min_replicas_auto),
      .min = 1,
      .max = REPLICAS_MAX,
      .default_value = "1",
      .help = "failures take away no copies below so many" },
    { .key = "cluster-key",
      .type = CONF_STRING,
      .offset = offsetof(struct settings, cluster_key),
      .min = 1,
      .default_value = KEYRING_AUTO,
      .help = KEYRING_HELP },
    { .key = "session-timeout",
      .type = CONF_DURATION,
      .offset = offsetof(struct settings, session_timeout_usec),
      .min = 1000000,
      .max = UINT64_C(30) * 24 * 3600 * 1000000,
      .default_value = "1h",
      .help = "how long the retries of a gateway that is silent are remembered" },
    { .key = "log-level",
      .type = CONF_ENUM,
      .offset = offsetof(struct settings, log_level),
      .default_value = "info",
      .help = "how much is logged",
      .names = log_level_names },
    { 0 },
};

const struct conf_program settings_program = {
    .name = "kumo-manager",
    .summary = "Owns the hash space of a kumofs cluster: which server holds which partition.",
    .version = KUMO_VERSION,
    .default_path = "/etc/kumofs/manager.conf",
    .options = settings_options,
};
