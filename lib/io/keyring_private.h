/* Between keyring.c and tls.c. */
#pragma once

#include "io/keyring.h"

#include <openssl/ssl.h>

/* Both belong to the keyring. */
SSL_CTX *keyring_ssl(const struct keyring *ring);
const char *keyring_id(const struct keyring *ring, unsigned key);
const uint8_t *keyring_key(const struct keyring *ring, unsigned key);

/* In tls.c: what OpenSSL asks when it shakes hands. */
int tls_make_context(SSL_CTX **ret);
