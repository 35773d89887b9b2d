#include "base/cleanup.h"
#include "io/daemon.h"
#include "io/log.h"
#include "io/loop.h"
#include "server.h"

#include <stdio.h>
#include <unistd.h>

static bool is_alive(void *ctx)
{
    struct server **server = ctx;

    return !*server || server_is_alive(*server);
}

static void on_stop(void *ctx)
{
    struct server **server = ctx;

    server_begin_stop(*server);
}

static const struct daemon_ops ops = { .is_alive = is_alive, .on_stop = on_stop };

static int run(const struct settings *settings)
{
    struct loop *loop = NULL;
    struct server *server = NULL;
    struct daemon *daemon = NULL;
    struct io_error error = { "out of file descriptors or memory" };
    int r = loop_new(&loop);

    if (r == 0) {
        r = daemon_new(loop, &ops, &server, &daemon);
    }
    if (r == 0) {
        r = server_start(loop, settings, &server, &error);
    }
    if (r == 0) {
        r = loop_run(loop);
        r = server_failed(server) ? -1 : r;
    } else {
        log_error("%s", error.text);
    }
    daemon_free(daemon);
    server_stop(server);
    loop_free(loop);
    return r < 0;
}

int main(int argc, char **argv)
{
    struct settings settings = { 0 };
    struct io_error error;
    int r;

    daemon_prepare();
    r = conf_parse_args(&settings_program, argc, argv, &settings, NULL, &error);
    if (r == CONF_RUN) {
        if (settings.threads == 0) {
            settings.threads = (uint64_t) MAX_OF(1, MIN_OF(4, sysconf(_SC_NPROCESSORS_ONLN)));
        }
        log_init("kumo-server");
        log_set_level((enum log_level) settings.log_level);
        r = run(&settings);
        log_exit();
    } else if (r < 0) {
        fprintf(stderr, "kumo-server: %s\n", error.text);
        r = 2;
    } else {
        r = 0;
    }
    conf_free(&settings_program, &settings);
    return r;
}
