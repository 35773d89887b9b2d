/* export: all records of a data directory or a backup, into a file. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/conf.h"
#include "json.h"
#include "record_walk.h"
#include "shell.h"
#include "verb.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum export_format {
    EXPORT_JSON,
    EXPORT_TCH,
    _EXPORT_FORMAT_INVALID = -EINVAL,
};

struct export
{
    const struct ctl *ctl;
    const char *path; /* NULL: the standard output */
    enum export_format format;
    const char *partitions; /* "3,17"; NULL: all */
};

static enum export_format format_of(const char *name)
{
    return !name || strcmp(name, "jsonl") == 0 ? EXPORT_JSON
           : strcmp(name, "tch") == 0          ? EXPORT_TCH
                                               : _EXPORT_FORMAT_INVALID;
}

/* The wanted partitions, by number; NULL: all. False: said what is wrong. */
static bool partitions_take(const struct export *x, uint32_t n, bool **ret)
{
    const char *p = x->partitions;

    *ret = p ? mem_zalloc(n, sizeof(**ret)) : NULL;
    for (; p; p = *p == ',' ? p + 1 : NULL) {
        size_t bytes = strcspn(p, ",");
        char number[16] = "";
        uint64_t v;
        (void) snprintf(number, sizeof(number), "%.*s", (int) MIN_OF(bytes, 15u), p);
        if (conf_parse_uint(number, &v) < 0 || v >= n) {
            verb_error(x->ctl, "--partition %s: numbers from 0 to %u are expected, as in 3,17",
                       x->partitions, n - 1);
            return false;
        }
        (*ret)[v] = true;
        p += bytes;
    }
    return true;
}

static int sink_open(const struct export *x, struct datadir *d, struct record_sink **ret,
                     struct io_error *error)
{
    struct shard_counts counts;

    if (x->format == EXPORT_JSON) {
        return record_sink_json(d, x->path, ret, error);
    }
    shard_count(datadir_shard(d), &counts);
    return record_sink_tch(x->path, counts.records, ret, error);
}

static void export_print(const struct export *x, const struct record_walk *walk, bool as_json)
{
    struct json j;

    if (as_json) {
        json_begin(&j, stdout);
        json_str(&j, "file", x->path);
        json_str(&j, "format", x->format == EXPORT_TCH ? "tch" : "jsonl");
        json_uint(&j, "records", walk->records);
        json_uint(&j, "expired", walk->expired);
        json_end(&j);
        return;
    }
    printf("%" PRIu64 " records exported to %s", walk->records, x->path);
    if (walk->expired > 0) {
        printf("; %" PRIu64 " left out, their time is over", walk->expired);
    }
    printf("\n");
    if (x->format == EXPORT_TCH) {
        printf("a .tch file has keys and values only: flags and expiry are not in it\n");
    }
}

static int export_run(const struct export *x, struct datadir *d, bool as_json)
{
    _cleanup_free_ bool *partitions = NULL;
    struct io_error error = { "" };
    struct record_walk walk = { .interrupted = &shell_interrupted };
    int r;

    if (!partitions_take(x, datadir_superblock(d)->partitions, &partitions)) {
        return VERB_USAGE;
    }
    r = sink_open(x, d, &walk.sink, &error);
    if (r == 0) {
        walk.partitions = partitions;
        r = record_walk_run(&walk, d, &error);
    }
    record_sink_free(walk.sink);
    if (r < 0) {
        return verb_error(x->ctl, "%s%s", error.text,
                          x->path ? "; no file was made" : "; the output is not whole");
    }
    if (x->path) {
        export_print(x, &walk, as_json);
    }
    return VERB_OK;
}

int verb_export(struct ctl *ctl, int argc, char **argv)
{
    const char *format = NULL;
    const char *as_json = NULL;
    const char *partitions = NULL;
    const struct verb_option options[] = {
        { .name = "--format", .metavar = "FORMAT", .ret = &format },
        { .name = "--partition", .metavar = "N[,N...]", .ret = &partitions },
        { .name = "--json", .ret = &as_json },
        { 0 }
    };
    struct export x = { .ctl = ctl };
    struct io_error error = { "" };
    struct datadir *d;
    struct verb_words w;
    int code;

    if (!verb_args(ctl, verb_find("export"), argc, argv, options, 1, 2, &w)) {
        return VERB_USAGE;
    }
    x.partitions = partitions;
    x.format = format_of(format);
    x.path = w.n == 2 && strcmp(w.v[1], "-") != 0 ? w.v[1] : NULL;
    if (x.format == _EXPORT_FORMAT_INVALID) {
        verb_error(ctl, "--format %s: jsonl or tch is expected", format);
        return VERB_USAGE;
    }
    if (!x.path && (x.format == EXPORT_TCH || as_json)) {
        verb_error(ctl, "%s needs a FILE", as_json ? "--json" : "--format tch");
        return VERB_USAGE;
    }
    if (record_source_open(w.v[0], &d, &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    code = export_run(&x, d, as_json != NULL);
    datadir_free(d);
    return code;
}
