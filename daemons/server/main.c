/* kumo-server: stores and replicates records. */
#include "io/daemon.h"
#include "io/log.h"
#include "offline.h"
#include "server.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct conf_program program = settings_program;
    struct settings settings = { .argc = argc, .argv = argv };
    struct io_error error = { "" };
    int code = EXIT_SUCCESS;
    int r;

    daemon_prepare();
    if (offline_wanted(argc, argv)) {
        return offline_run(argc, argv);
    }
    program.usage = offline_usage;
    r = conf_parse_args(&program, argc, argv, &settings, NULL, &error);
    if (r < 0) {
        fprintf(stderr, "kumo-server: %s\n", error.text);
        code = EXIT_FAILURE;
    } else if (r == CONF_RUN) {
        log_init(settings_program.name);
        log_set_level((enum log_level) settings.log_level);
        daemon_set_source(settings.source);
        code = server_run(&settings);
        log_exit();
    }
    conf_free(&settings_program, &settings);
    return code;
}
