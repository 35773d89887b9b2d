#include "settings.h"

#include "base/cleanup.h"
#include "io/addr.h"
#include "io/keyring.h"
#include "io/log.h"

#include <stddef.h>
#include <unistd.h>

static const struct conf_option options[] = {
    { "listen", CONF_LIST, offsetof(struct settings, listen),
      .default_value = "127.0.0.1:11211, [::1]:11211",
      .help = "addresses for memcached clients, unless systemd hands sockets over" },
    { "manager", CONF_LIST, offsetof(struct settings, manager), .default_value = "127.0.0.1:19700",
      .help = "addresses of the managers" },
    { "source-address", CONF_STRING, offsetof(struct settings, source), .check = addr_check_ip,
      .help = "address that connections to others come from; default: the kernel chooses" },
    { "state-dir", CONF_STRING, offsetof(struct settings, state_dir), .min = 1,
      .help = "what is kept for a start without managers; default: $STATE_DIRECTORY, or nothing" },
    { "threads", CONF_UINT, offsetof(struct settings, threads), .min = 1, .max = THREADS_MAX,
      .default_value = "auto", .word = "auto", .word_value = 0,
      .help = "threads that serve clients; auto: one per processor, at most 4" },
    { "max-value-size", CONF_SIZE, offsetof(struct settings, max_value_bytes),
      .min = VALUE_BYTES_FLOOR, .max = VALUE_BYTES_CEILING, .default_value = "1 MiB",
      .help = "largest value; the servers' setting must be at least as large" },
    { "max-connections", CONF_UINT, offsetof(struct settings, max_connections), .min = 1,
      .max = 1000000, .default_value = "16384",
      .help = "client connections; further ones wait to be accepted" },
    { "request-timeout", CONF_DURATION, offsetof(struct settings, request_timeout_usec),
      .min = 100000, .max = UINT64_C(3600000000), .default_value = "5s",
      .help = "how long a request is tried before the client gets an error" },
    { "server-queue-bytes", CONF_SIZE, offsetof(struct settings, server_queue_bytes),
      .min = 1 << 20, .max = UINT64_C(1) << 40, .default_value = "128 MiB",
      .help = "requests that wait for one server; beyond it clients get an error" },
    { "allow-flush-all", CONF_BOOL, offsetof(struct settings, allow_flush_all),
      .default_value = "no", .help = "whether flush_all empties the cluster or is refused" },
    { "cluster-key", CONF_STRING, offsetof(struct settings, cluster_key), .min = 1,
      .default_value = KEYRING_AUTO, .help = KEYRING_HELP },
    { "log-level", CONF_ENUM, offsetof(struct settings, log_level), .default_value = "info",
      .names = log_level_names, .help = "what is logged" },
    { .key = NULL },
};

const struct conf_program gateway_program = {
    .name = "kumo-gateway",
    .summary = "Speaks memcached with applications and routes their requests to kumofs servers.",
    .version = KUMO_VERSION,
    .default_path = "/etc/kumofs/gateway.conf",
    .options = options,
};

unsigned settings_threads(const struct settings *s)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    if (s->threads > 0) {
        return (unsigned) s->threads;
    }
    return (unsigned) MIN_OF(MAX_OF(processors, 1L), (long) THREADS_DEFAULT_MAX);
}

size_t settings_thread_queue_bytes(const struct settings *s, unsigned n_threads)
{
    return (size_t) MAX_OF(s->server_queue_bytes / n_threads, 2 * s->max_value_bytes + 65536);
}
