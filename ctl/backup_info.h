/* BACKUP.json: what a backup is of. Written last, so that a backup without it is not whole. */
#pragma once

#include "io/datadir.h"

#include <limits.h>

struct backup_info {
    uint64_t time_sec; /* since 1970: when it was begun */
    char server_id[2 * UUID_BYTES + 1];
    char cluster_id[2 * UUID_BYTES + 1];
    uint32_t server;
    uint32_t partitions;
    uint64_t generation; /* of checkpoints, 0: none */
    uint64_t segments;
    uint64_t bytes;
    uint64_t bytes_linked; /* of them, shared with the data directory or another backup */
    uint64_t records;      /* expired ones are among them */
};

/* Durable when it returns 0. */
int backup_info_write(const char *dir, const struct backup_info *info, struct io_error *error);
/* Reads time_sec and server_id; the others are for the operator. -ENOENT: no backup, or one that
 * was not finished; -EBADMSG: it can't be understood. */
int backup_info_read(const char *dir, struct backup_info *ret, struct io_error *error);

/* The newest backup of that server in a folder. False: there is none. */
bool backup_info_newest(const char *folder, const char *server_id, char ret[PATH_MAX]);
