#include "io/raft_identity.h"

#include "base/cleanup.h"
#include "io/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* The file: "kumo-manager 1 ID new\n", or "... begun\n". */
#define HEAD       "kumo-manager 1 "
#define HEAD_BYTES (sizeof(HEAD) - 1)

void raft_identity_format(const uint8_t id[UUID_BYTES], char out[static RAFT_IDENTITY_TEXT])
{
    for (size_t i = 0; i < UUID_BYTES; i++) {
        snprintf(out + 2 * i, 3, "%02x", id[i]);
    }
}

bool raft_identity_parse(const char *text, uint8_t ret_id[UUID_BYTES])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < UUID_BYTES; i++) {
        const char *high = text[0] ? strchr(digits, text[0]) : NULL;
        const char *low = high && text[1] ? strchr(digits, text[1]) : NULL;
        if (!low) {
            return false;
        }
        ret_id[i] = (uint8_t) ((high - digits) << 4 | (low - digits));
        text += 2;
    }
    return *text == '\0';
}

/* Under another name first: what is there is whole at any time. */
static int identity_write(const char *dir, const struct raft_identity *i, struct io_error *error)
{
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    char id[RAFT_IDENTITY_TEXT];
    char text[128];
    _cleanup_(files_close) int fd = -1;
    int r;

    raft_identity_format(i->id, id);
    snprintf(text, sizeof(text), HEAD "%s %s\n", id, i->begun ? "begun" : "new");
    if (snprintf(path, sizeof(path), "%s/identity", dir) >= (int) sizeof(path) ||
        snprintf(temporary, sizeof(temporary), "%s/identity.new", dir) >= (int) sizeof(temporary)) {
        return io_error_set(error, -ENAMETOOLONG, "%s: the path is too long", dir);
    }
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    r = fd < 0 ? -errno : files_write_all(fd, (const uint8_t *) text, strlen(text));
    if (r == 0 && (fsync(fd) < 0 || rename(temporary, path) < 0)) {
        r = -errno;
    }
    if (r == 0) {
        r = files_sync(dir);
    }
    return r < 0 ? io_error_set(error, r, "%s can't be written: %s", path, strerrordesc_np(-r)) : 0;
}

static bool identity_decode(char *text, struct raft_identity *ret)
{
    char *state;

    if (strncmp(text, HEAD, HEAD_BYTES) != 0 || strlen(text) < HEAD_BYTES + RAFT_IDENTITY_TEXT) {
        return false;
    }
    state = text + HEAD_BYTES + RAFT_IDENTITY_TEXT;
    if (state[-1] != ' ') {
        return false;
    }
    state[-1] = '\0';
    ret->begun = strcmp(state, "begun\n") == 0;
    return (ret->begun || strcmp(state, "new\n") == 0) &&
           raft_identity_parse(text + HEAD_BYTES, ret->id);
}

int raft_identity_open(const char *dir, struct raft_identity *ret, struct io_error *error)
{
    char path[PATH_MAX];
    char text[128] = "";
    _cleanup_(files_close) int fd = -1;

    if (snprintf(path, sizeof(path), "%s/identity", dir) >= (int) sizeof(path)) {
        return io_error_set(error, -ENAMETOOLONG, "%s: the path is too long", dir);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        *ret = (struct raft_identity){ 0 };
        if (getrandom(ret->id, sizeof(ret->id), 0) != sizeof(ret->id)) {
            return io_error_set(error, -EIO, "no random numbers can be had");
        }
        return identity_write(dir, ret, error);
    }
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0) {
        return io_error_set(error, -errno, "%s can't be read: %s", path, strerrordesc_np(errno));
    }
    if (!identity_decode(text, ret)) {
        return io_error_set(error, -EBADMSG,
                            "%s is damaged; restore the directory as a whole, or leave this "
                            "manager off: the others go on without it",
                            path);
    }
    return 0;
}

int raft_identity_begin(const char *dir, struct raft_identity *i, struct io_error *error)
{
    struct raft_identity begun = *i;
    int r;

    begun.begun = true;
    r = identity_write(dir, &begun, error);
    if (r == 0) {
        *i = begun;
    }
    return r;
}
