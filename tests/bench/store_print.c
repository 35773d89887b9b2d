/* The bench's words. */
#include "bench/store_bench.h"

#include "base/cleanup.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ---- the setup ---- */

static void print_cpu(void)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];

    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            line[strcspn(line, "\n")] = '\0';
            printf("cpu          %s, %ld cores\n", strchr(line, ':') + 2,
                   sysconf(_SC_NPROCESSORS_ONLN));
            break;
        }
    }
    if (f) {
        fclose(f);
    }
}

/* Name of the file system that holds `dir`: the longest mount point that begins its path. */
static void print_folder(const char *dir)
{
    FILE *f = fopen("/proc/self/mounts", "re");
    char device[256];
    char point[256];
    char type[64];
    char best[64] = "?";
    size_t longest = 0;

    while (f && fscanf(f, "%255s %255s %63s %*[^\n]", device, point, type) == 3) {
        size_t n = strlen(point);
        if (n >= longest && strncmp(dir, point, n) == 0) {
            longest = n;
            snprintf(best, sizeof(best), "%s", type);
        }
    }
    if (f) {
        fclose(f);
    }
    printf("folder       %s (%s)\n", dir, best);
}

void print_setup(const struct plan_options *o)
{
    struct utsname u;

    uname(&u);
    printf("bench-store  kumofs %s, %s\n", KUMO_VERSION,
           o->quick ? "quick: too small for the figures' goals" : "full");
    print_cpu();
    printf("kernel       %s %s %s\n", u.sysname, u.release, u.machine);
    print_folder(o->dir);
    printf("rounds       %u of each, taking turns; the medians are printed\n", o->rounds);
    printf("sync         fdatasync after each group of %d operations, unless a row says "
           "otherwise\n",
           GROUP_OPS);
}

/* ---- numbers ---- */

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;

    return *x < *y ? -1 : *x > *y;
}

double median(const double *v, size_t n)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, v, n * sizeof(*v));
    qsort(sorted, n, sizeof(*sorted), compare_doubles);
    return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

void print_rounds_head(const char *title)
{
    printf("\n%-34s %10s %8s %9s %9s %9s\n", title, "ops/s", "spread", "CPU s/M", "log B/B",
           "device B/B");
}

/* 0 is printed as nothing. */
static void print_ratio(double v)
{
    if (v > 0) {
        printf(" %9.2f", v);
    } else {
        printf(" %9s", "-");
    }
}

void print_rounds(const char *name, const struct sample *v, size_t n)
{
    double rate[ROUNDS_MAX];
    double cpu[ROUNDS_MAX];
    double log[ROUNDS_MAX];
    double device[ROUNDS_MAX];
    double low = INFINITY;
    double high = 0;

    for (size_t i = 0; i < n; i++) {
        double user = (double) MAX_OF(v[i].user_bytes, 1);
        rate[i] = (double) v[i].ops / v[i].wall_sec;
        cpu[i] = v[i].cpu_sec / (double) v[i].ops * 1e6;
        log[i] = v[i].user_bytes ? (double) v[i].log_bytes / user : 0;
        device[i] = v[i].user_bytes ? (double) v[i].device_bytes / user : 0;
        low = MIN_OF(low, rate[i]);
        high = MAX_OF(high, rate[i]);
    }
    printf("%-34s %10.0f %7.0f%% %9.3f", name, median(rate, n),
           (high - low) / median(rate, n) * 100, median(cpu, n));
    print_ratio(median(log, n));
    print_ratio(median(device, n));
    printf("\n");
    fflush(stdout);
}

void print_goal(const char *what, double have, double goal, bool at_most, const char *unit)
{
    bool reached = at_most ? have <= goal : have >= goal;

    if (reached) {
        printf("  %-44s %9.2f %-10s reached (%s %g)\n", what, have, unit,
               at_most ? "at most" : "at least", goal);
    } else {
        printf("  %-44s %9.2f %-10s not reached: %.2f instead of %g\n", what, have, unit, have,
               goal);
    }
    fflush(stdout);
}

/* ---- latencies ---- */

static void print_latency(const char *name, const char *what, const struct latency *l)
{
    if (l->n > 0) {
        printf("%-34s %-4s %10llu %9u %9u %9u %9u\n", name, what, (unsigned long long) l->n,
               l->p50_usec, l->p99_usec, l->p999_usec, l->max_usec);
    }
}

void print_latencies(const char *name, const struct sample *s)
{
    static const char *const at_work[_UPKEEP_MAX] = { "", ", checkpoint", ", compaction",
                                                      ", both" };
    char label[64];

    for (int k = 0; k < _UPKEEP_MAX; k++) {
        snprintf(label, sizeof(label), "%s%s", name, at_work[k]);
        print_latency(label, "get", &s->get[k]);
        print_latency(label, "set", &s->set[k]);
    }
    fflush(stdout);
}

static void print_difference(const char *what, const struct latency *alone, const struct latency *l)
{
    if (l->n > 0 && alone->n > 0) {
        printf("  to p99 of a %s: %+d usec", what, (int) l->p99_usec - (int) alone->p99_usec);
    }
}

void print_added(const char *name, const struct sample *alone, const struct sample *s,
                 enum upkeep k)
{
    if (s->get[k].n + s->set[k].n == 0) {
        printf("  %s: was not at work\n", name);
        return;
    }
    printf("  %s adds", name);
    print_difference("get", &alone->get[UPKEEP_NONE], &s->get[k]);
    print_difference("set", &alone->set[UPKEEP_NONE], &s->set[k]);
    printf("\n");
    fflush(stdout);
}
