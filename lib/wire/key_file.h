/* The file with the cluster key, as text: lines "kumofs-key-1 BASE64" (KEY_BYTES random bytes),
 * blank lines, and comments that begin with '#'. The first key is the one to connect with, all of
 * them are accepted: a second one is there while keys are exchanged. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define KEY_BYTES      32
#define KEYS_MAX       2
#define KEY_LINE_BYTES 64   /* room for a line with its newline and a NUL */
#define KEY_FILE_MAX   4096 /* bytes of a file; the reader's limit */

struct key_file {
    unsigned n; /* > 0 */
    uint8_t keys[KEYS_MAX][KEY_BYTES];
};

/* 0, or -EINVAL: *ret_why is what is wrong with line *ret_line (from 1; 0: with the file as a
 * whole). Nothing of the file's content is in it. */
int key_file_parse(const char *text, size_t bytes, struct key_file *ret, unsigned *ret_line,
                   const char **ret_why);

/* One line with its newline, and a NUL behind it. Returns its length without the NUL. */
size_t key_file_format(const uint8_t key[static KEY_BYTES], char out[static KEY_LINE_BYTES]);
