/* kumo-manager: owns the hash space of a cluster. */
#include "host.h"

#include "io/daemon.h"
#include "io/log.h"

#include <stdio.h>
#include <stdlib.h>

static int run(struct settings *settings)
{
    struct host *host;
    int code;

    log_set_level((enum log_level) settings->log_level);
    daemon_set_source(settings->source);
    if (host_new(settings, &host) < 0) {
        return EXIT_FAILURE;
    }
    code = host_run(host);
    host_free(host);
    return code;
}

int main(int argc, char **argv)
{
    struct settings settings = { .argc = argc, .argv = argv };
    struct io_error error = { "" };
    int code;
    int r;

    daemon_prepare();
    log_init("kumo-manager");
    r = conf_parse_args(&settings_program, argc, argv, &settings, NULL, &error);
    if (r < 0) {
        log_error("%s", error.text);
        code = EXIT_FAILURE;
    } else {
        code = r == CONF_EXIT ? EXIT_SUCCESS : run(&settings);
    }
    conf_free(&settings_program, &settings);
    log_exit();
    return code;
}
