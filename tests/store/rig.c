#include "rig.h"

#include "../daemons/server/server.h"
#include "base/assert.h"
#include "base/cleanup.h"
#include "io/daemon.h"
#include "io/log.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE_SEC_MAX     40
#define REST_USEC        500000
#define SEGMENT_BYTES    (256u << 10)
#define CHECKPOINT_BYTES (512u << 10)
#define SLACK_BYTES      (256u << 10)
#define RESERVE_BYTES    (1u << 20)

const char *const rig_outcome_names[] = {
    [RIG_OK] = "well",         [RIG_WRONG] = "wrong", [RIG_REFUSED] = "refused to start",
    [RIG_STOPPED] = "stopped", [RIG_HUNG] = "hung",   [RIG_DIED] = "died",
};

const char *const rig_sync_names[] = {
    [SYNC_ALWAYS] = "always",
    [SYNC_INTERVAL] = "interval",
    [SYNC_OS] = "os",
};

bool rig_sync_parse(const char *name, enum sync_mode *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(rig_sync_names); i++) {
        if (strcmp(name, rig_sync_names[i]) == 0) {
            *ret = (enum sync_mode) i;
            return true;
        }
    }
    return false;
}

/* What the process tells the test. */
struct told {
    struct loader_report report;
    struct shim_counts counts;
};

static struct {
    const struct rig_options *o;
    struct told *told;
    uint16_t port;
    uint64_t session;
} rig;

static void *clients_thread(void *arg)
{
    const struct rig_options *o = rig.o;
    struct loader_options l = {
        .model = o->model,
        .journal = o->journal,
        .report = &rig.told->report,
        .partitions = RIG_PARTITIONS,
        .shards = o->threads,
        .n_ops = o->n_ops,
        .seed = o->seed,
        .session = rig.session,
        .pause_usec_max = o->pause_usec_max,
        .wrong_values = o->wrong_values,
        .waits = o->end != RIG_KILL,
    };

    (void) arg;
    shim_exempt();
    loader_run(&l, rig.port);
    if (!rig.told->report.done) {
        return NULL; /* the server stopped: its own end is what counts */
    }
    if (o->end == RIG_CLEAN) {
        kill(getpid(), SIGTERM);
        return NULL;
    }
    usleep(o->end == RIG_REST ? REST_USEC : 0);
    shim_kill();
}

void rig_on_listening(uint16_t port, uint64_t session)
{
    pthread_t thread;

    rig.session = session;
    rig.port = port;
    kumo_assert(pthread_create(&thread, NULL, clients_thread, NULL) == 0);
}

static void log_path(const struct rig_options *o, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s.log", o->dir);
}

static void log_to(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);

    kumo_assert(fd >= 0);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static void set(struct settings *settings, const char *key, const char *value)
{
    struct io_error error;

    kumo_assert(conf_set(conf_find(&settings_program, key), settings, value, &error) == 0);
}

/* The defaults, and what makes files small, so that much happens to them. */
static void settings_make(const struct rig_options *o, struct settings *ret)
{
    struct conf_program program = settings_program;
    char *argv[] = { (char *) program.name, NULL };
    struct io_error error;

    program.default_path = NULL;
    kumo_assert(conf_parse_args(&program, 1, argv, ret, NULL, &error) == CONF_RUN);
    set(ret, "listen", "127.0.0.1:0");
    set(ret, "advertise", "127.0.0.1:1"); /* nobody is told where to connect */
    set(ret, "data-dir", o->dir);
    ret->threads = o->threads;
    ret->sync = (int) o->sync;
    ret->sync_interval_usec = RIG_INTERVAL_USEC;
    ret->checkpoint_log_bytes = CHECKPOINT_BYTES;
    ret->compaction_slack_bytes = SLACK_BYTES;
    ret->segment_bytes = SEGMENT_BYTES;
    ret->reserve_bytes = RESERVE_BYTES;
}

/* In the new process. */
static void serve(const struct rig_options *o, struct told *told)
{
    struct settings settings = { 0 };
    struct shim_options s = {
        .journal = o->journal,
        .dir = o->dir,
        .fault = o->fault,
        .counts = &told->counts,
        .kill_after = o->kill_after,
        .sync_usec_max = o->sync_usec_max,
        .seed = o->seed,
    };
    char path[PATH_MAX];

    log_path(o, path);
    log_to(path);
    alarm(LIFE_SEC_MAX);
    rig.o = o;
    rig.told = told;
    daemon_prepare();
    settings_make(o, &settings);
    log_set_level(LOG_LEVEL_NOTICE);
    shim_begin(&s);
    _exit(server_run(&settings));
}

/* The last line that is in the file, and whether a sanitizer has spoken. */
static void log_look(const char *path, struct rig_result *ret)
{
    FILE *f = fopen(path, "re");
    char line[sizeof(((struct rig_result *) NULL)->last)];

    ret->last[0] = '\0';
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = '\0';
        memcpy(ret->last, line, sizeof(line));
        ret->complained =
            ret->complained || strstr(line, "Sanitizer") || strstr(line, "runtime error");
    }
    if (f) {
        fclose(f);
    }
}

/* Did it end with a sentence? Memory that ran out ends it by abort; and the clients' SIGTERM may
 * reach it when it is ending by itself and handles none any more. */
static bool is_told_end(int status, const struct rig_result *r)
{
    if (r->complained || !r->last[0]) {
        return false;
    }
    return (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE) ||
           (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
            strstr(r->last, "out of memory")) ||
           (WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM && r->report.done);
}

static enum rig_outcome outcome(const struct rig_options *o, int status, const struct rig_result *r)
{
    if (r->report.lost + r->report.corrupt > 0) {
        return RIG_WRONG;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        return RIG_HUNG;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && (r->report.done || o->kill_after > 0) &&
        !r->complained) {
        return r->report.damaged > 0 ? RIG_DAMAGED : RIG_OK;
    }
    if (!is_told_end(status, r)) {
        return RIG_DIED;
    }
    return r->report.verified ? RIG_STOPPED : RIG_REFUSED;
}

void rig_live(const struct rig_options *o, struct rig_result *ret)
{
    struct told *told =
        mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char path[PATH_MAX];
    int status;
    pid_t pid;

    kumo_assert(told != MAP_FAILED);
    *ret = (struct rig_result){ 0 };
    journal_adopt(o->journal);
    fflush(NULL);
    pid = fork();
    kumo_assert(pid >= 0);
    if (pid == 0) {
        serve(o, told);
    }
    kumo_assert(waitpid(pid, &status, 0) == pid);
    memcpy(&ret->report, &told->report, sizeof(ret->report));
    for (size_t i = 0; i < _SHIM_CALL_MAX; i++) {
        ret->calls[i] = told->counts.calls[i];
    }
    ret->status = status;
    ret->fired = told->counts.fired;
    munmap(told, sizeof(*told));
    log_path(o, path);
    log_look(path, ret);
    ret->outcome = outcome(o, status, ret);
}
