/* What all daemons share: signals, systemd, limits, the data directory. */
#pragma once

#include "io/io_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct daemon;

struct daemon_ops {
    /* SIGTERM or SIGINT: begin to stop; end with loop_stop. NULL: loop_stop at once. A second
     * signal stops the loop at once. */
    void (*on_stop)(void *ctx);
    /* SIGHUP: reload; a bad file keeps the old settings. Called between RELOADING and READY. */
    void (*on_reload)(void *ctx);
    /* Asked before each watchdog message: has everything made progress (every shard's loop
     * turned…)? NULL: that the main loop turns is enough. */
    bool (*is_alive)(void *ctx);
};

/* Once, at the beginning of main, before threads: SIGPIPE ignored, RLIMIT_NOFILE raised to the hard
 * limit, umask at least 0027. */
void daemon_prepare(void);

/* The setting "source-address", which addr_check_ip has accepted: where the connections of this
 * process come from. NULL: the kernel chooses. Before there are threads. */
void daemon_set_source(const char *text);

/* Signals and watchdog on the main loop. -errno. */
int daemon_new(struct loop *loop, const struct daemon_ops *ops, void *ctx,
               struct daemon **ret_daemon);
struct daemon *daemon_free(struct daemon *daemon);

struct conf_program;

/* What a reload does in all daemons: reads the settings again, and puts log-level and the cluster
 * key in force; the other keys need a restart. A bad file is told and changes nothing. argc and
 * argv are main's. settings_bytes: of the program's settings struct. */
void daemon_reload(const struct conf_program *program, int argc, char **argv,
                   size_t settings_bytes);

/* sd_notify; nothing happens without NOTIFY_SOCKET. From any thread. */
void daemon_notify_ready(void);
void daemon_notify_stopping(void);
void daemon_notify_reloading(void);
void daemon_notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Start or stop takes longer: asks for `usec` more from now; call again before they are over. */
void daemon_notify_extend(uint64_t usec);

/* Makes DIR when missing (0750; missing parents 0755 less the umask) and locks
 * DIR/lock. Returns an fd that holds the lock until closed, or -errno (-EBUSY: names the process
 * that holds it) with a sentence. */
int daemon_lock_dir(const char *dir, struct io_error *error);
