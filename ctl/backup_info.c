#include "backup_info.h"

#include "backup_files.h"
#include "base/cleanup.h"
#include "record_walk.h"
#include "io/files.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static void json_unref(json_t **j)
{
    json_decref(*j);
}

static int path_of(const char *dir, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/" BACKUP_INFO_NAME, dir) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int backup_info_write(const char *dir, const struct backup_info *i, struct io_error *error)
{
    _cleanup_(json_unref) json_t *j = json_pack(
        "{si sI ss ss sI sI sI sI sI sI sI}", "schema", 1, "time", (json_int_t) i->time_sec,
        "server_id", i->server_id, "cluster_id", i->cluster_id, "server", (json_int_t) i->server,
        "partitions", (json_int_t) i->partitions, "generation", (json_int_t) i->generation,
        "segments", (json_int_t) i->segments, "bytes", (json_int_t) i->bytes, "bytes_linked",
        (json_int_t) i->bytes_linked, "records", (json_int_t) i->records);
    char path[PATH_MAX];
    int r = path_of(dir, path);

    if (r == 0) {
        errno = 0;
        r = json_dump_file(j, path, JSON_INDENT(2)) < 0 ? (errno ? -errno : -EIO)
                                                        : files_sync(path);
    }
    return r < 0 ? io_error_set(error, r, "%s can't be written: %s", path, strerror(-r)) : 0;
}

int backup_info_read(const char *dir, struct backup_info *ret, struct io_error *error)
{
    _cleanup_(json_unref) json_t *j = NULL;
    struct backup_info i = { 0 };
    const char *server_id;
    json_int_t time_sec;
    char path[PATH_MAX];
    int schema;

    if (path_of(dir, path) < 0 || !record_source_is_backup(dir)) {
        return io_error_set(error, -ENOENT,
                            "%s has no " BACKUP_INFO_NAME ": it is no backup, or one that was not "
                            "finished",
                            dir);
    }
    j = json_load_file(path, 0, NULL);
    if (!j ||
        json_unpack(j, "{si sI ss}", "schema", &schema, "time", &time_sec, "server_id",
                    &server_id) < 0 ||
        schema != 1) {
        return io_error_set(error, -EBADMSG, "%s is damaged, or of a newer version of kumofs",
                            path);
    }
    i.time_sec = (uint64_t) time_sec;
    (void) snprintf(i.server_id, sizeof(i.server_id), "%s", server_id);
    *ret = i;
    return 0;
}

bool backup_info_newest(const char *folder, const char *server_id, char ret[PATH_MAX])
{
    DIR *d = opendir(folder);
    uint64_t newest = 0;
    struct dirent *e;

    while (d && (e = readdir(d))) {
        struct backup_info info;
        struct io_error none;
        char path[PATH_MAX];
        if (e->d_name[0] == '.' ||
            snprintf(path, sizeof(path), "%s/%s", folder, e->d_name) >= (int) sizeof(path)) {
            continue;
        }
        if (backup_info_read(path, &info, &none) == 0 && strcmp(info.server_id, server_id) == 0 &&
            info.time_sec >= newest) {
            newest = info.time_sec;
            memcpy(ret, path, sizeof(path));
        }
    }
    if (d) {
        closedir(d);
    }
    return newest > 0;
}
