#include "files.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool files_is_data(const char *path)
{
    return strcmp(path, "lock") != 0 && strcmp(path, "ballast") != 0;
}

static void whole(const char *dir, const char *path, char out[PATH_MAX])
{
    kumo_assert(snprintf(out, PATH_MAX, "%s/%s", dir, path) < PATH_MAX);
}

void files_make_temporary(const char *name, char out[static FILES_DIR_BYTES])
{
    const char *tmp = getenv("TMPDIR");
    char path[PATH_MAX];
    char real[PATH_MAX];

    snprintf(path, sizeof(path), "%s/kumo-%s-XXXXXX", tmp ? tmp : "/tmp", name);
    kumo_assert(mkdtemp(path) && realpath(path, real));
    kumo_assert(strlen(real) < FILES_DIR_BYTES);
    memcpy(out, real, strlen(real) + 1);
}

void files_make_folder(const char *dir, const char *path)
{
    char name[PATH_MAX];

    whole(dir, path, name);
    if (mkdir(name, 0700) < 0) {
        kumo_assert(errno == EEXIST);
    }
}

bool files_has_folder(const char *dir, const char *path)
{
    char name[PATH_MAX];
    struct stat st;

    whole(dir, path, name);
    *strrchr(name, '/') = '\0';
    return stat(name, &st) == 0 && S_ISDIR(st.st_mode);
}

void files_write(const char *dir, const char *path, const uint8_t *p, size_t bytes)
{
    char name[PATH_MAX];
    int fd;

    whole(dir, path, name);
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    kumo_assert(fd >= 0);
    kumo_assert(bytes == 0 || write(fd, p, bytes) == (ssize_t) bytes);
    close(fd);
}

static void visit_file(const char *dir, const char *path, files_fn fn, void *ctx)
{
    _cleanup_free_ uint8_t *p = NULL;
    char name[PATH_MAX];
    struct stat st;
    int fd;

    whole(dir, path, name);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    kumo_assert(fd >= 0 && fstat(fd, &st) == 0);
    p = mem_alloc((size_t) st.st_size);
    kumo_assert(read(fd, p, (size_t) st.st_size) == st.st_size);
    close(fd);
    fn(ctx, path, false, p, (size_t) st.st_size);
}

static void walk(const char *dir, const char *folder, files_fn fn, void *ctx)
{
    char name[PATH_MAX];
    struct dirent **v;
    int n;

    whole(dir, folder, name);
    n = scandir(name, &v, NULL, alphasort);
    kumo_assert(n >= 0);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s%s%s", folder, folder[0] ? "/" : "", v[i]->d_name);
        if (v[i]->d_name[0] != '.' && v[i]->d_type == DT_DIR) {
            fn(ctx, path, true, NULL, 0);
            walk(dir, path, fn, ctx);
        } else if (v[i]->d_name[0] != '.') {
            visit_file(dir, path, fn, ctx);
        }
        free(v[i]);
    }
    free(v);
}

void files_walk(const char *dir, files_fn fn, void *ctx)
{
    walk(dir, "", fn, ctx);
}

static void copy_one(void *ctx, const char *path, bool is_folder, const uint8_t *p, size_t bytes)
{
    const char *to = ctx;

    if (is_folder) {
        files_make_folder(to, path);
    } else {
        files_write(to, path, p, bytes);
    }
}

void files_copy(const char *from, const char *to)
{
    files_make_folder(to, "");
    files_walk(from, copy_one, (void *) to);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void) st;
    (void) type;
    (void) ftw;
    return remove(path);
}

void files_remove(const char *dir)
{
    (void) nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
