/* import: a file of records into a data directory or a cluster. */
#include "base/cleanup.h"
#include "core/operation.h"
#include "import_target.h"
#include "io/clock.h"
#include "json.h"
#include "record_file.h"
#include "record_progress.h"
#include "shell.h"

#include <errno.h>
#include <inttypes.h>

struct import {
    const struct ctl *ctl;
    struct record_file *file;
    struct record_sink *sink;
    uint64_t skip; /* the first records, which an earlier run brought */
    uint64_t read; /* records of the file so far */
    uint64_t put;
    uint64_t expired;               /* left out, their time is over */
    uint64_t places[IMPORT_WINDOW]; /* of what was put last: which record of the file it was */
    struct record_progress progress;
    uint64_t now_usec;
};

/* Calls `take` for every record that is wanted. */
static int import_walk(struct import *m,
                       int (*take)(struct record_sink *, const struct entry *, struct io_error *),
                       struct io_error *error)
{
    struct entry e;
    int r;

    m->read = m->put = m->expired = 0;
    m->now_usec = clock_real_usec();
    while ((r = record_file_next(m->file, &e, error)) > 0) {
        if (shell_interrupted) {
            return io_error_set(error, -EINTR, "interrupted");
        }
        if (m->read++ < m->skip) {
            continue;
        }
        if (expiry_is_over(e.expiry_sec, m->now_usec)) {
            m->expired++;
            continue;
        }
        m->places[m->put++ % IMPORT_WINDOW] = m->read - 1;
        r = take(m->sink, &e, error);
        if (r < 0) {
            return r;
        }
        record_progress_show(&m->progress, m->read);
    }
    return r;
}

/* Looks through the whole file before anything is changed, where it can be read twice. */
static int import_check(struct import *m)
{
    struct io_error error = { "" };
    int r;

    m->progress = (struct record_progress){ .what = "records looked at" };
    r = import_walk(m, m->sink->ops->check, &error);
    record_progress_end(&m->progress);
    if (r == -EPERM || r == -EINVAL) {
        return verb_error(m->ctl, "%s:%" PRIu64 ": %s; nothing was imported",
                          record_file_name(m->file), record_file_line(m->read - 1), error.text);
    }
    return r < 0 ? verb_error(m->ctl, "%s; nothing was imported", error.text) : VERB_OK;
}

/* What was imported before the error, and how to go on. */
static int import_stopped(const struct import *m, int code, const struct io_error *error)
{
    uint64_t done = m->sink->done;
    uint64_t next = done < m->put ? m->places[done % IMPORT_WINDOW] : m->read;
    bool of_file = code == -EBADMSG; /* it names the line itself */

    if (of_file) {
        return verb_error(m->ctl, "%s; %" PRIu64 " records before it were imported", error->text,
                          done);
    }
    return verb_error(m->ctl,
                      "%s:%" PRIu64 ": %s; %" PRIu64 " records before it were imported. To go on "
                      "there: --skip %" PRIu64,
                      record_file_name(m->file), record_file_line(next), error->text, done, next);
}

static int import_run(struct import *m)
{
    struct io_error error = { "" };
    int r;

    m->progress = (struct record_progress){ .what = "records" };
    r = import_walk(m, m->sink->ops->put, &error);
    if (r == 0 || r == -EBADMSG) { /* what stood before a wrong line is imported whole */
        struct io_error why = { "" };
        int end = m->sink->ops->finish(m->sink, &why);
        if (end < 0) {
            r = end;
            error = why;
        }
    }
    record_progress_end(&m->progress);
    return r < 0 ? import_stopped(m, r, &error) : VERB_OK;
}

static void import_print(const struct import *m, const char *target, bool dry, bool as_json)
{
    struct json j;

    if (as_json) {
        json_begin(&j, stdout);
        json_str(&j, "target", target);
        json_bool(&j, "dry_run", dry);
        json_uint(&j, "records", m->put);
        json_uint(&j, "skipped", m->read - m->put - m->expired);
        json_uint(&j, "expired", m->expired);
        json_end(&j);
        return;
    }
    printf("%" PRIu64 " records %s %s", m->put, dry ? "could be imported into" : "imported into",
           target);
    if (m->expired > 0) {
        printf("; %" PRIu64 " left out, their time is over", m->expired);
    }
    printf("\n");
}

static int import_file(struct import *m, const char *target, bool dry, bool as_json)
{
    int code = VERB_OK;
    bool twice = record_file_rewind(m->file) == 0;

    if (dry || twice) {
        code = import_check(m);
    }
    if (code == VERB_OK && !dry) {
        if (twice) {
            (void) record_file_rewind(m->file);
        }
        code = import_run(m);
    }
    if (code == VERB_OK) {
        import_print(m, target, dry, as_json);
    }
    return code;
}

int verb_import(struct ctl *ctl, int argc, char **argv)
{
    const char *dry = NULL;
    const char *skip = NULL;
    const char *as_json = NULL;
    const struct verb_option options[] = { { .name = "--dry-run", .ret = &dry },
                                           { .name = "--skip", .metavar = "N", .ret = &skip },
                                           { .name = "--json", .ret = &as_json },
                                           { 0 } };
    struct import m = { .ctl = ctl };
    struct io_error error = { "" };
    struct verb_words w;
    int code = VERB_FAILED;

    if (!verb_args(ctl, verb_find("import"), argc, argv, options, 2, 2, &w) ||
        !verb_number(ctl, "--skip", skip, UINT64_MAX, &m.skip)) {
        return VERB_USAGE;
    }
    if (record_file_open(w.v[1], &m.file, &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    m.sink = import_target_open(ctl, w.v[0]);
    if (m.sink) {
        code = import_file(&m, w.v[0], dry != NULL, as_json != NULL);
    }
    record_sink_free(m.sink);
    record_file_free(m.file);
    return code;
}
