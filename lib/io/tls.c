/* TLS 1.3 under a pre-shared key, on OpenSSL. Its BIO is this: reads come from the bytes that
 * tls_take was given, writes go to a buffer and never wait. */
#include "io/tls.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/keyring_private.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define TLS_SUITE          "TLS_AES_128_GCM_SHA256"
#define TLS_TYPE_ALERT     0x15 /* first byte of a record */
#define TLS_TYPE_HANDSHAKE 0x16

static const unsigned char tls_suite_id[] = { 0x13, 0x01 };

const uint8_t tls_no_key_alert[TLS_NO_KEY_ALERT_BYTES] = {
    TLS_TYPE_ALERT, 3, 3, 0, 2, SSL3_AL_FATAL, SSL_AD_ACCESS_DENIED
};

struct tls {
    struct keyring *ring;
    SSL *ssl;
    enum tls_side side;
    unsigned key; /* of the connecting side */
    bool heard;   /* the peer's first byte was seen */
    bool up;
    bool ended;
    bool unknown_key; /* the peer named a key that is not ours */
    const uint8_t *feed;
    size_t feed_bytes;
    struct buf out;
    uint64_t records; /* sealed under the present key */
    char why[TLS_WHY_BYTES];
};

/* ---- the BIO ---- */

static int tls_bio_read(BIO *bio, char *p, size_t bytes, size_t *ret)
{
    struct tls *tls = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    *ret = MIN_OF(bytes, tls->feed_bytes);
    if (*ret == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(p, tls->feed, *ret);
    tls->feed += *ret;
    tls->feed_bytes -= *ret;
    return 1;
}

static int tls_bio_write(BIO *bio, const char *p, size_t bytes, size_t *ret)
{
    struct tls *tls = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    buf_append(&tls->out, p, bytes);
    *ret = bytes;
    return 1;
}

static long tls_bio_ctrl(BIO *bio, int what, long n, void *p)
{
    (void) bio;
    (void) n;
    (void) p;
    return what == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *tls_bio; /* made once, for ever */

static void tls_bio_make(void)
{
    tls_bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kumofs buffers");
    kumo_assert(tls_bio);
    BIO_meth_set_read_ex(tls_bio, tls_bio_read);
    BIO_meth_set_write_ex(tls_bio, tls_bio_write);
    BIO_meth_set_ctrl(tls_bio, tls_bio_ctrl);
}

static BIO *tls_bio_new(struct tls *tls)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    pthread_once(&once, tls_bio_make);
    bio = BIO_new(tls_bio);
    kumo_assert(bio);
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- the key ---- */

/* A session that was never held before: only the key and what to use it with. */
static SSL_SESSION *tls_session(SSL *ssl, const uint8_t *key)
{
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, tls_suite_id);
    SSL_SESSION *session = SSL_SESSION_new();

    if (session && cipher && SSL_SESSION_set1_master_key(session, key, KEY_BYTES) == 1 &&
        SSL_SESSION_set_cipher(session, cipher) == 1 &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1) {
        return session;
    }
    SSL_SESSION_free(session);
    return NULL;
}

static int tls_on_connect(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *id_bytes,
                          SSL_SESSION **ret)
{
    const struct tls *tls = SSL_get_app_data(ssl);

    (void) md; /* there is one suite */
    *ret = tls_session(ssl, keyring_key(tls->ring, tls->key));
    *id = (const unsigned char *) keyring_id(tls->ring, tls->key);
    *id_bytes = KEYRING_NAME_BYTES - 1;
    return *ret != NULL;
}

static int tls_on_accept(SSL *ssl, const unsigned char *id, size_t id_bytes, SSL_SESSION **ret)
{
    struct tls *tls = SSL_get_app_data(ssl);

    *ret = NULL;
    for (unsigned i = 0; i < keyring_count(tls->ring); i++) {
        if (id_bytes == KEYRING_NAME_BYTES - 1 &&
            memcmp(keyring_id(tls->ring, i), id, id_bytes) == 0) {
            *ret = tls_session(ssl, keyring_key(tls->ring, i));
            return *ret != NULL;
        }
    }
    tls->unknown_key = true;
    return 1; /* no session: without a certificate there is no handshake then */
}

int tls_make_context(SSL_CTX **ret)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());

    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(ctx, TLS_SUITE) != 1 || SSL_CTX_set_num_tickets(ctx, 0) != 1) {
        SSL_CTX_free(ctx);
        ERR_clear_error();
        return -EIO;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_psk_use_session_callback(ctx, tls_on_connect);
    SSL_CTX_set_psk_find_session_callback(ctx, tls_on_accept);
    *ret = ctx;
    return 0;
}

/* ---- what went wrong ---- */

static int tls_fail(struct tls *tls, int error, const char *why)
{
    snprintf(tls->why, sizeof(tls->why), "%s", why);
    ERR_clear_error();
    return error;
}

/* The peer's alert as OpenSSL numbers it, 0: it sent none. */
static int tls_alert_of(unsigned long code)
{
    int reason = ERR_GET_REASON(code);

    return reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256
               ? reason - SSL_AD_REASON_OFFSET
               : 0;
}

static int tls_fail_handshake(struct tls *tls, unsigned long code)
{
    char text[TLS_WHY_BYTES];
    const char *reason = ERR_reason_error_string(code);

    if (tls->side == TLS_ACCEPTS && tls->unknown_key) {
        return tls_fail(tls, -EKEYREJECTED,
                        "it uses another cluster key: both sides need the same key file");
    }
    if (tls->side == TLS_CONNECTS && tls_alert_of(code) == SSL_AD_ACCESS_DENIED) {
        return tls_fail(tls, -EKEYREJECTED,
                        "it has no cluster key, and there is one here: give it the key file");
    }
    if (tls->side == TLS_CONNECTS && tls_alert_of(code) != 0) {
        return tls_fail(tls, -EKEYREJECTED,
                        "it does not accept our cluster key: both sides need the same key file");
    }
    snprintf(text, sizeof(text), "no TLS under the cluster key could be agreed on (%s)",
             reason ? reason : "no reason given");
    return tls_fail(tls, -EKEYREJECTED, text);
}

static int tls_fail_ssl(struct tls *tls)
{
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);
    char text[TLS_WHY_BYTES];

    if (!tls->up) {
        return tls_fail_handshake(tls, code);
    }
    snprintf(text, sizeof(text), "it sent bytes that are not under the agreed keys (%s)",
             reason ? reason : "no reason given");
    return tls_fail(tls, -EBADMSG, text);
}

/* Before OpenSSL sees anything: does the peer speak TLS at all? Who connected without learns by an
 * alert what is spoken here. */
static int tls_hear(struct tls *tls, uint8_t first)
{
    static const uint8_t alert[] = { TLS_TYPE_ALERT,         3, 3, 0, 2, SSL3_AL_FATAL,
                                     SSL_AD_PROTOCOL_VERSION };

    tls->heard = true;
    if (first == TLS_TYPE_HANDSHAKE || (tls->side == TLS_CONNECTS && first == TLS_TYPE_ALERT)) {
        return 0;
    }
    if (tls->side == TLS_ACCEPTS) {
        buf_append(&tls->out, alert, sizeof(alert));
    }
    return tls_fail(tls, -EKEYREJECTED,
                    "it does not use TLS: give it the cluster key of this cluster");
}

/* ---- taking ---- */

static int tls_shake(struct tls *tls)
{
    int n;

    ERR_clear_error();
    n = SSL_do_handshake(tls->ssl);
    if (n == 1) {
        tls->up = true;
        return 0;
    }
    return SSL_get_error(tls->ssl, n) == SSL_ERROR_WANT_READ ? 0 : tls_fail_ssl(tls);
}

/* One piece of plain bytes. 1: there may be more; 0: not now; -errno. */
static int tls_open(struct tls *tls, struct buf *in)
{
    uint8_t stage[TLS_RECORD_BYTES]; /* what the buffer has no room for yet: a message is small */
    size_t room = in->cap - in->end;
    bool direct = room >= sizeof(stage);
    size_t n = 0;
    int r;

    ERR_clear_error();
    r = SSL_read_ex(tls->ssl, direct ? in->data + in->end : stage, direct ? room : sizeof(stage),
                    &n);
    if (r == 1) {
        if (direct) {
            in->end += n;
        } else {
            buf_append(in, stage, n);
        }
        return 1;
    }
    switch (SSL_get_error(tls->ssl, r)) {
    case SSL_ERROR_WANT_READ:
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        tls->ended = true;
        return 0;
    default:
        return tls_fail_ssl(tls);
    }
}

int tls_take(struct tls *tls, const uint8_t *p, size_t bytes, struct buf *in)
{
    int r = 0;

    if (bytes == 0 || tls->ended) {
        return 0;
    }
    if (!tls->heard) {
        r = tls_hear(tls, p[0]);
    }
    tls->feed = p;
    tls->feed_bytes = bytes;
    if (r == 0 && !tls->up) {
        r = tls_shake(tls);
    }
    if (r == 0 && tls->up) {
        do {
            r = tls_open(tls, in);
        } while (r > 0 && (tls->feed_bytes > 0 || SSL_has_pending(tls->ssl) == 1));
        r = MIN_OF(r, 0);
    }
    tls->feed = NULL;
    tls->feed_bytes = 0;
    return r;
}

int tls_take_eof(struct tls *tls)
{
    if (tls->ended || (tls->side == TLS_ACCEPTS && !tls->heard)) {
        return 0; /* who says nothing at all only looked whether somebody listens */
    }
    return tls_fail(tls, -ECONNRESET, "the connection was cut");
}

/* ---- sealing ---- */

static int tls_put_record(struct tls *tls, const uint8_t *p, size_t bytes)
{
    size_t n = 0;

    if (++tls->records > TLS_REKEY_RECORDS) {
        tls->records = 1;
        (void) SSL_key_update(tls->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    }
    ERR_clear_error();
    if (SSL_write_ex(tls->ssl, p, bytes, &n) != 1) {
        tls_fail(tls, -EIO, "OpenSSL did not seal what was to be sent");
        return -EIO;
    }
    kumo_assert(n == bytes);
    return 0;
}

/* Pieces that become one record. */
struct tls_stage {
    size_t n;
    uint8_t bytes[TLS_RECORD_BYTES];
};

static int tls_stage_flush(struct tls *tls, struct tls_stage *stage)
{
    size_t n = stage->n;

    stage->n = 0;
    return n > 0 ? tls_put_record(tls, stage->bytes, n) : 0;
}

/* What makes a whole record by itself is not copied. */
static int tls_stage_put(struct tls *tls, struct tls_stage *stage, const uint8_t *p, size_t bytes)
{
    int r = 0;

    while (bytes > 0 && r == 0) {
        size_t piece = MIN_OF(bytes, TLS_RECORD_BYTES - stage->n);
        if (piece == TLS_RECORD_BYTES) {
            r = tls_put_record(tls, p, piece);
        } else {
            memcpy(stage->bytes + stage->n, p, piece);
            stage->n += piece;
            r = stage->n == TLS_RECORD_BYTES ? tls_stage_flush(tls, stage) : 0;
        }
        p += piece;
        bytes -= piece;
    }
    return r;
}

ssize_t tls_seal(struct tls *tls, const struct iovec *iov, size_t n)
{
    struct tls_stage stage;
    size_t taken = 0;
    int r = 0;

    kumo_assert(tls->up);
    stage.n = 0; /* the bytes need no zeroes */
    for (size_t i = 0; i < n && r == 0; i++) {
        size_t piece = MIN_OF(iov[i].iov_len, TLS_SEAL_BYTES - taken);
        r = tls_stage_put(tls, &stage, iov[i].iov_base, piece);
        taken += piece;
    }
    if (r == 0) {
        r = tls_stage_flush(tls, &stage);
    }
    return r < 0 ? r : (ssize_t) taken;
}

void tls_end(struct tls *tls)
{
    kumo_assert(tls->up);
    (void) SSL_shutdown(tls->ssl);
    ERR_clear_error();
}

/* ---- making, asking ---- */

struct tls *tls_new(struct keyring *ring, enum tls_side side, unsigned key)
{
    struct tls *tls = mem_zalloc(1, sizeof(*tls));
    BIO *bio = tls_bio_new(tls);

    kumo_assert(key < keyring_count(ring));
    tls->ring = keyring_ref(ring);
    tls->side = side;
    tls->key = key;
    tls->ssl = SSL_new(keyring_ssl(ring));
    kumo_assert(tls->ssl);
    SSL_set_app_data(tls->ssl, tls);
    SSL_set_bio(tls->ssl, bio, bio);
    if (side == TLS_ACCEPTS) {
        SSL_set_accept_state(tls->ssl);
    } else {
        SSL_set_connect_state(tls->ssl);
        (void) tls_shake(tls); /* a failure comes again when the peer's bytes are taken */
    }
    return tls;
}

struct tls *tls_free(struct tls *tls)
{
    if (tls) {
        SSL_free(tls->ssl);
        buf_free(&tls->out);
        keyring_unref(tls->ring);
        free(tls);
    }
    return NULL;
}

struct buf *tls_out(struct tls *tls)
{
    return &tls->out;
}

bool tls_is_up(const struct tls *tls)
{
    return tls->up;
}

bool tls_ended(const struct tls *tls)
{
    return tls->ended;
}

const char *tls_why(const struct tls *tls)
{
    return tls->why;
}
