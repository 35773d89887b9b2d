/* Preloaded into one server: while the file that $KUMO_FAIL_FSYNC names exists, syncs fail as they
 * do when a disk dies. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

typedef int (*sync_fn)(int fd);

static int sync_or_fail(const char *name, int fd)
{
    const char *path = getenv("KUMO_FAIL_FSYNC");
    sync_fn real = (sync_fn) dlsym(RTLD_NEXT, name);

    if (path && access(path, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd)
{
    return sync_or_fail("fsync", fd);
}

int fdatasync(int fd)
{
    return sync_or_fail("fdatasync", fd);
}
