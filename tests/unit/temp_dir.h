/* A folder for each test, gone after it: setup and teardown of cmocka. */
#pragma once

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char dir[64];

static inline int setup(void **state)
{
    (void) state;
    strcpy(dir, "/tmp/kumo-unit-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void) st;
    (void) type;
    (void) ftw;
    return remove(path);
}

static inline int teardown(void **state)
{
    (void) state;
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void path_of(const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", dir, name);
}
