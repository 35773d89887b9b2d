/* kumo-server --salvage: what can still be read of a last copy, in a new directory.
 *
 * Each partition begins with the newest checkpoint of it that is good, if there is one; then every
 * readable entry that stands behind it counts, whether it is known to be committed or not: it may
 * have been answered. A key's newest entry wins. Positions order what was written for a partition;
 * of two entries of its history the one with the higher seq is the newer one. */
#include "base/mem.h"
#include "offline_salvage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- talking to the operator ---- */

static bool confirm(const char *dir, bool confirmed)
{
    char line[64] = "";

    printf("\nSALVAGE is for the last copy of data that can't be read otherwise. If another server "
           "holds a\ncopy, stop here and give this server an empty data-dir instead.\n"
           "  - What can't be read is LOST; an older value of its key may come back.\n"
           "  - DELETED KEYS MAY RETURN where their deletion can't be read.\n"
           "%s is not changed; the result goes to %s.salvaged.\n",
           dir, dir);
    if (confirmed) {
        return true;
    }
    printf("Type salvage to go on: ");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin)) {
        line[0] = '\0';
    }
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "salvage") != 0) {
        puts("Nothing was done.");
        return false;
    }
    return true;
}

static void report(const struct salvage *s, const char *name)
{
    uint32_t partitions = datadir_superblock(s->d)->partitions;
    const char *dir = datadir_path(s->d);
    uint32_t based = 0;

    for (uint32_t p = 0; p < partitions; p++) {
        based += s->parts[p].based;
    }
    offline_progress("", 0, 0);
    printf("salvaged into %s:\n", name);
    printf("  %-22s %14" PRIu64 ", %" PRIu64 " bytes\n", "records", s->records, s->bytes);
    printf("  %-22s %14" PRIu64 " not known to be committed\n", "keys in doubt", s->in_doubt);
    printf("  %-22s %14" PRIu64 " that the checkpoints point at\n", "unreadable records", s->lost);
    printf("  %-22s %14" PRIu64 ", %" PRIu64 " bytes of log\n", "unreadable ranges", s->ranges,
           s->ranges_bytes);
    printf("  %-22s %14" PRIu32 " of %" PRIu32 "\n", "without a checkpoint", partitions - based,
           partitions);
    printf("To use it:\n  mv %s %s.damaged\n  mv %s %s\nand start the server.\n", dir, dir, name,
           dir);
}

/* ---- the verb ---- */

/* Told by the check. */
static void unreadable_ignore(void *ctx, uint32_t segment, uint64_t offset, uint64_t bytes)
{
    (void) ctx;
    (void) segment;
    (void) offset;
    (void) bytes;
}

static int salvage(struct salvage *s, const char *name, struct io_error *error)
{
    uint32_t partitions = datadir_superblock(s->d)->partitions;
    int r = datadir_mask(s->d, unreadable_ignore, NULL, error);

    if (r == 0) {
        r = datadir_begin(s->d, error);
    }
    s->parts = mem_zalloc(partitions, sizeof(*s->parts));
    if (r == 0) {
        r = salvage_collect(s, error);
    }
    if (r == 0) {
        r = salvage_write(s, name, error);
    }
    return r;
}

static int name_make(const char *dir, char name[4096], struct io_error *error)
{
    char partial[4096];

    if (snprintf(name, 4096, "%s.salvaged", dir) >= 4000) {
        return io_error_set(error, -ENAMETOOLONG, "%.64s…: the path is too long", dir);
    }
    (void) snprintf(partial, sizeof(partial), "%.4000s.partial", name);
    if (access(name, F_OK) == 0) {
        return io_error_set(error, -EEXIST, "%s is there already: move it away", name);
    }
    if (access(partial, F_OK) == 0) {
        return io_error_set(error, -EEXIST, "%s is left of a salvage that did not end: remove it",
                            partial);
    }
    return 0;
}

static void salvage_free(struct salvage *s)
{
    for (uint32_t p = 0; s->parts && p < datadir_superblock(s->d)->partitions; p++) {
        free(s->parts[p].v);
    }
    free(s->parts);
    datadir_free(s->d);
}

enum offline_status offline_salvage(const char *dir, bool confirmed)
{
    bool torn;
    enum offline_status status = offline_check(dir, &torn);
    struct salvage s = { 0 };
    struct io_error error;
    char name[4096];
    int r;

    if (status == OFFLINE_OK && !torn) {
        puts("Nothing is damaged: start the server on it. Nothing was done.");
        return OFFLINE_OK;
    }
    if (status == OFFLINE_FAILED) {
        return status;
    }
    r = name_make(dir, name, &error);
    if (r == 0) {
        r = datadir_look(dir, 0, &s.d, &error);
    }
    if (r == 0 && !confirm(dir, confirmed)) {
        datadir_free(s.d);
        return OFFLINE_FAILED;
    }
    if (r == 0) {
        r = salvage(&s, name, &error);
    }
    if (r == 0) {
        report(&s, name);
    }
    salvage_free(&s);
    return r < 0 ? offline_refuse(r, &error) : OFFLINE_OK;
}
