/* restore: the records of a backup into a data directory or a cluster. */
#include "backup_info.h"
#include "import_target.h"
#include "json.h"
#include "record_walk.h"
#include "shell.h"

#include <inttypes.h>

static void restore_print(const char *target, const struct record_walk *walk, bool as_json)
{
    struct json j;

    if (!as_json) {
        printf("%" PRIu64 " records restored into %s", walk->records, target);
        if (walk->expired > 0) {
            printf("; %" PRIu64 " left out, their time is over", walk->expired);
        }
        printf("\n");
        return;
    }
    json_begin(&j, stdout);
    json_str(&j, "target", target);
    json_uint(&j, "records", walk->records);
    json_uint(&j, "expired", walk->expired);
    json_end(&j);
}

/* Looks whether all can go there before anything is changed. */
static int restore_run(const struct ctl *ctl, struct datadir *d, struct record_walk *walk)
{
    struct io_error error = { "" };

    walk->check_only = true;
    if (record_walk_run(walk, d, &error) < 0) {
        return verb_error(ctl, "%s; nothing was restored", error.text);
    }
    walk->check_only = false;
    if (record_walk_run(walk, d, &error) < 0) {
        return verb_error(ctl,
                          "%s; %" PRIu64 " records were restored before that. It may be run again: "
                          "what is there is replaced",
                          error.text, walk->sink->done);
    }
    return VERB_OK;
}

int verb_restore(struct ctl *ctl, int argc, char **argv)
{
    const char *as_json = NULL;
    const struct verb_option options[] = { { .name = "--json", .ret = &as_json }, { 0 } };
    struct record_walk walk = { .interrupted = &shell_interrupted };
    struct io_error error = { "" };
    struct backup_info info;
    struct datadir *d;
    struct verb_words w;
    int code = VERB_FAILED;

    if (!verb_args(ctl, verb_find("restore"), argc, argv, options, 2, 2, &w)) {
        return VERB_USAGE;
    }
    if (backup_info_read(w.v[0], &info, &error) < 0 || record_source_open(w.v[0], &d, &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    walk.sink = import_target_open(ctl, w.v[1]);
    if (walk.sink) {
        code = restore_run(ctl, d, &walk);
    }
    if (code == VERB_OK) {
        restore_print(w.v[1], &walk, as_json != NULL);
    }
    record_sink_free(walk.sink);
    datadir_free(d);
    return code;
}
