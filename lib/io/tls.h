/* One end of a TLS 1.3 connection under the cluster key, without a socket: bytes from the peer go
 * in, plain bytes come out, and the other way round. io/conn moves them. Belongs to whoever holds
 * it; may go from thread to thread between calls.
 *
 * TLS 1.3 only, TLS_AES_128_GCM_SHA256 only, no certificates, no tickets, no early data; the key is
 * an external pre-shared key, each connection has a Diffie-Hellman exchange of its own beside it.
 */
#pragma once

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TLS_RECORD_BYTES 16384  /* plain bytes of the largest record */
#define TLS_SEAL_BYTES   262144 /* plain bytes that are sealed before they must be sent */
#define TLS_REKEY_RECORDS                                                                          \
    262144 /* records under one key of ours: far below AES-GCM's limit, 2^24 */
#define TLS_WHY_BYTES 256

struct iovec;
struct keyring;
struct tls;

enum tls_side { TLS_CONNECTS, TLS_ACCEPTS };

/* Takes a reference to the keyring. Who connects uses its key number `key`; who accepts takes any
 * of its keys. What the connecting side has to send first is in tls_out already. Never fails. */
struct tls *tls_new(struct keyring *ring, enum tls_side side, unsigned key);
/* NULL is fine; returns NULL. */
struct tls *tls_free(struct tls *tls);

/* Bytes that came from the peer, all of them taken; plain bytes are appended to `in`. What is to be
 * answered is in tls_out. 0; -EKEYREJECTED: the hands were not shaken; -EBADMSG: afterwards
 * something came that is no TLS under the keys agreed on. tls_why says more. */
int tls_take(struct tls *tls, const uint8_t *p, size_t bytes, struct buf *in);
/* The peer's bytes ended: 0, or -ECONNRESET without the record that says so. */
int tls_take_eof(struct tls *tls);

/* Seals plain bytes into tls_out, at most TLS_SEAL_BYTES, small pieces together; only when
 * tls_is_up. Returns how many were taken, or -EIO. */
ssize_t tls_seal(struct tls *tls, const struct iovec *iov, size_t n);
/* Says that nothing more will be sent; once, when up. */
void tls_end(struct tls *tls);

/* What waits to be sent to the peer: consume what was. */
struct buf *tls_out(struct tls *tls);
/* The hands are shaken: plain bytes may go out. */
bool tls_is_up(const struct tls *tls);
/* The peer said that it sends nothing more. */
bool tls_ended(const struct tls *tls);
/* After an error: what is wrong, and what to do; "" before. */
const char *tls_why(const struct tls *tls);

/* What a process without a key answers to one that begins TLS: an alert that says so. */
#define TLS_NO_KEY_ALERT_BYTES 7
extern const uint8_t tls_no_key_alert[TLS_NO_KEY_ALERT_BYTES];
