/* kumo-gateway: memcached for applications, kumofs behind it. */
#include "gateway.h"
#include "io/daemon.h"
#include "io/log.h"
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct settings settings = { .argc = argc, .argv = argv };
    struct io_error error = { "" };
    int r;

    daemon_prepare();
    r = conf_parse_args(&gateway_program, argc, argv, &settings, NULL, &error);
    if (r != CONF_RUN) {
        if (r < 0) {
            fprintf(stderr, "kumo-gateway: %s\n", error.text);
        }
        conf_free(&gateway_program, &settings);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    log_init(gateway_program.name);
    log_set_level((enum log_level) settings.log_level);
    daemon_set_source(settings.source);
    r = gateway_run(&settings, &error);
    if (r < 0) {
        log_error("%s", error.text);
    }
    log_exit();
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
