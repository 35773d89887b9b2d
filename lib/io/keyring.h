/* The cluster key as this process uses it: one or two pre-shared keys for TLS (io/tls.h). A keyring
 * never changes; it is counted, and may be used by any thread. A process has at most one at a time:
 * connections that are made while it is in use are under TLS, others are plain. */
#pragma once

#include "io/io_error.h"
#include "wire/key_file.h"

#include <stdbool.h>

#define KEYRING_DEFAULT_PATH "/etc/kumofs/cluster.key"
#define KEYRING_CREDENTIAL   "cluster.key" /* in $CREDENTIALS_DIRECTORY */
#define KEYRING_NAME_BYTES   17            /* a key's public name: 16 hex digits and a NUL */

/* What stands behind `cluster-key` in all programs' options, and its default. */
#define KEYRING_AUTO "auto"
#define KEYRING_HELP                                                                               \
    "file with the cluster key, or none; auto: systemd's credential, else " KEYRING_DEFAULT_PATH

struct keyring;

/* A keyring of these keys. -EIO with a sentence when OpenSSL can't do what is needed. */
int keyring_new(const struct key_file *keys, struct keyring **ret, struct io_error *error);
struct keyring *keyring_ref(struct keyring *ring);
/* NULL is fine; returns NULL. */
struct keyring *keyring_unref(struct keyring *ring);

/* How many keys are in it; the one with index 0 is tried first by who connects. */
unsigned keyring_count(const struct keyring *ring);

/* ---- files ---- */

/* Reads a key file. Refuses one that others may read. -errno, with "FILE:LINE: what is wrong". */
int keyring_read_file(const char *path, struct key_file *ret, struct io_error *error);

/* The name that a key has on the wire and for operators; tells nothing of the key. */
void keyring_name(const uint8_t key[static KEY_BYTES], char out[static KEYRING_NAME_BYTES]);

/* ---- the process's own ---- */

/* At start, with the value of `cluster-key`: a path, "none", or "auto". Puts the keyring into use.
 * -errno with a sentence; nothing is in use then. */
int keyring_open(const char *setting, struct io_error *error);
/* At a reload: reads the same again for new connections. A process that had a key keeps the old one
 * unless there is a good new one. With "auto" KEYRING_DEFAULT_PATH goes before the credential,
 * which systemd makes at the start of a unit only. Logs what it did; false: the setting is not in
 * force. */
bool keyring_reload(const char *setting);
/* Connections from now on; takes the reference over. NULL: plain. */
void keyring_use(struct keyring *ring);
/* A reference to the one in use, or NULL. */
struct keyring *keyring_current(void);
/* There is one: what decides whether anything but loopback may be listened on. */
bool keyring_in_use(void);
