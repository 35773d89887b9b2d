/* make bench-store: what the store's operations cost, beside the bare log and bare Tokyo Cabinet
 * in the same run. It prints and never judges: its exit status says only whether it could measure.
 */
#include "bench/store_bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: bench-store [--quick] [--dir DIR] [--rounds N] [--only set,get,start,move,latency]\n"
    "\n"
    "  --quick     smaller counts, under a minute: shows that it works, not what it costs\n"
    "  --dir DIR   where the files go: on the disk that is to be measured (default: /var/tmp)\n"
    "  --live MIB  of records in the sets (default: 2048, quick: 64)\n"
    "  --rounds N  of each measurement, 1 to 15 (default: 5, quick: 3)\n"
    "  --only ...  these parts only\n";

static bool is_wanted(const char *only, const char *part)
{
    const char *at = only ? strstr(only, part) : part;

    return at != NULL;
}

static void run(const struct plan_options *o, const char *only)
{
    print_setup(o);
    if (is_wanted(only, "set")) {
        plan_set(o, 100);
        plan_set(o, 1024);
    }
    if (is_wanted(only, "get")) {
        plan_get(o);
    }
    if (is_wanted(only, "start")) {
        plan_start(o);
    }
    if (is_wanted(only, "move")) {
        plan_move(o);
    }
    if (is_wanted(only, "latency")) {
        plan_latency(o);
    }
}

static int options_read(int argc, char **argv, struct plan_options *o, const char **ret_dir,
                        const char **ret_only)
{
    static const struct option options[] = {
        { "quick", no_argument, NULL, 'q' },
        { "dir", required_argument, NULL, 'd' },
        { "live", required_argument, NULL, 'l' },
        { "rounds", required_argument, NULL, 'r' },
        { "only", required_argument, NULL, 'o' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (c) {
        case 'q':
            o->quick = true;
            break;
        case 'd':
            *ret_dir = optarg;
            break;
        case 'r':
            o->rounds = (unsigned) atoi(optarg);
            break;
        case 'l':
            o->live_bytes = strtoull(optarg, NULL, 10) * MIB;
            break;
        case 'o':
            *ret_only = optarg;
            break;
        default:
            fputs(usage, c == 'h' ? stdout : stderr);
            exit(c == 'h' ? EXIT_SUCCESS : EXIT_FAILURE);
        }
    }
    if (o->rounds == 0) {
        o->rounds = o->quick ? 3 : 5;
    }
    if (o->live_bytes == 0) {
        o->live_bytes = (o->quick ? 64 : 2048) * MIB;
    }
    return optind == argc && o->rounds <= ROUNDS_MAX ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct plan_options o = { 0 };
    const char *parent = "/var/tmp";
    const char *only = NULL;
    char dir[256];

    if (options_read(argc, argv, &o, &parent, &only) < 0) {
        fputs(usage, stderr);
        return EXIT_FAILURE;
    }
    snprintf(dir, sizeof(dir), "%s/kumo-bench-XXXXXX", parent);
    if (!mkdtemp(dir)) {
        bench_fail("no folder can be made in %s", parent);
    }
    o.dir = dir;
    (void) value_bytes(); /* made before the contestants are */
    run(&o, only);
    rmdir(dir);
    return EXIT_SUCCESS;
}
