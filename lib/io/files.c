#include "io/files.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void files_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

int files_write_all(int fd, const uint8_t *p, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        p += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t) n : 0;
    }
    return 0;
}

int files_sync(const char *path)
{
    _cleanup_(files_close) int fd = open(path, O_RDONLY | O_CLOEXEC);

    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}
