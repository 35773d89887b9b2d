/* Small files and folders of the tests, whole. What goes wrong ends the test. Paths are relative to
 * `dir`; "" is the folder itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False for what a server makes beside its data: lock and ballast. */
bool files_is_data(const char *path);

/* Makes a folder of its own for this process, in $TMPDIR or /tmp; the path has no links. */
#define FILES_DIR_BYTES 2048
void files_make_temporary(const char *name, char out[static FILES_DIR_BYTES]);
void files_make_folder(const char *dir, const char *path);
/* Is the folder there that `path` lies in? */
bool files_has_folder(const char *dir, const char *path);
void files_write(const char *dir, const char *path, const uint8_t *p, size_t bytes);
/* Calls fn for everything below dir, folders before what is in them; one level of folders. */
typedef void (*files_fn)(void *ctx, const char *path, bool is_folder, const uint8_t *p,
                         size_t bytes);
void files_walk(const char *dir, files_fn fn, void *ctx);
void files_copy(const char *from, const char *to);
/* Removes the folder with everything in it; fine when there is none. */
void files_remove(const char *dir);
