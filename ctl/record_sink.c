#include "record_sink.h"

#include "base/cleanup.h"
#include "io/files.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int record_publish(const char *temporary, const char *path, struct io_error *error)
{
    _cleanup_free_ char *copy = strdup(path);
    int r = copy ? files_sync(temporary) : -ENOMEM;

    if (r == 0 && rename(temporary, path) < 0) {
        r = -errno;
    }
    if (r == 0) {
        r = files_sync(dirname(copy));
    }
    return r < 0 ? io_error_set(error, r, "%s can't be written: %s", path, strerror(-r)) : 0;
}

int record_temporary(const char *path, char out[PATH_MAX], struct io_error *error)
{
    return snprintf(out, PATH_MAX, "%s.new", path) < PATH_MAX
               ? 0
               : io_error_set(error, -ENAMETOOLONG, "%s: the name is too long", path);
}

void record_uuid_format(const uint8_t uuid[UUID_BYTES], char out[2 * UUID_BYTES + 1])
{
    for (unsigned i = 0; i < UUID_BYTES; i++) {
        (void) snprintf(out + 2 * i, 3, "%02x", uuid[i]);
    }
}
