/* TLS without sockets: two ends whose bytes the test carries, in pieces that it chooses. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/tls.h"

#include "io_keys.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>

struct end {
    struct tls *tls;
    struct buf in;
    int error;
    uint64_t sealed; /* bytes that it gave away */
};

struct ends {
    struct keyring *rings[2];
    struct end a; /* connects */
    struct end b;
};

static void ends_open_key(struct ends *e, const char *a_keys, unsigned key, const char *b_keys)
{
    *e = (struct ends){ 0 };
    e->rings[0] = keys_of(a_keys);
    e->rings[1] = keys_of(b_keys);
    e->a.tls = tls_new(e->rings[0], TLS_CONNECTS, key);
    e->b.tls = tls_new(e->rings[1], TLS_ACCEPTS, 0);
}

static void ends_open(struct ends *e, const char *a_keys, const char *b_keys)
{
    ends_open_key(e, a_keys, 0, b_keys);
}

static void ends_close(struct ends *e)
{
    tls_free(e->a.tls);
    tls_free(e->b.tls);
    buf_free(&e->a.in);
    buf_free(&e->b.in);
    keyring_unref(e->rings[0]);
    keyring_unref(e->rings[1]);
}

/* Carries what `from` has to say, in pieces of at most `piece` bytes. */
static bool carry(struct end *from, struct end *to, size_t piece)
{
    struct buf *out = tls_out(from->tls);
    bool any = buf_len(out) > 0;

    while (buf_len(out) > 0) {
        size_t n = MIN_OF(piece, buf_len(out));
        _cleanup_free_ uint8_t *held = malloc(n); /* of that size, for the sanitizer */
        memcpy(held, buf_head(out), n);
        if (to->error == 0) {
            to->error = tls_take(to->tls, held, n, &to->in);
        }
        from->sealed += n;
        buf_consume(out, n);
    }
    return any;
}

static void talk(struct ends *e, size_t piece)
{
    for (bool more = true; more;) {
        more = carry(&e->a, &e->b, piece);
        more = carry(&e->b, &e->a, piece) || more;
    }
}

static void shake(struct ends *e, size_t piece)
{
    talk(e, piece);
    assert_int_equal(e->a.error, 0);
    assert_int_equal(e->b.error, 0);
    assert_true(tls_is_up(e->a.tls));
    assert_true(tls_is_up(e->b.tls));
}

static void say(struct end *from, const void *p, size_t bytes)
{
    struct iovec iov = { .iov_base = (void *) (uintptr_t) p, .iov_len = bytes };

    assert_int_equal(tls_seal(from->tls, &iov, 1), bytes);
}

static void check_in(struct end *e, const char *want)
{
    assert_int_equal(e->error, 0);
    assert_int_equal(buf_len(&e->in), strlen(want));
    assert_memory_equal(buf_head(&e->in), want, strlen(want));
    buf_clear(&e->in);
}

/* Byte by byte, and in pieces of every size: so split at every byte. */
static void test_every_split(void **state)
{
    (void) state;
    for (size_t piece = 1; piece < 400; piece++) {
        struct ends e;

        ends_open(&e, "a", "a");
        shake(&e, piece);
        say(&e.a, "question", 8);
        say(&e.b, "answer", 6);
        talk(&e, piece);
        check_in(&e.b, "question");
        check_in(&e.a, "answer");
        ends_close(&e);
    }
}

static uint8_t *pattern(size_t bytes)
{
    uint8_t *p = mem_alloc(bytes);

    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t) (i * 31 + i / 253);
    }
    return p;
}

/* Pieces of all sizes are joined into records; more than TLS_SEAL_BYTES are not taken at once. */
static void test_large(void **state)
{
    size_t total = 3 * TLS_SEAL_BYTES + 12345;
    _cleanup_free_ uint8_t *bytes = pattern(total);
    struct ends e;
    size_t at = 0;

    (void) state;
    ends_open(&e, "a", "a");
    shake(&e, SIZE_MAX);
    e.a.sealed = 0;
    while (at < total) {
        struct iovec iov[40];
        size_t n = 0;
        size_t sum = 0;
        while (n < ARRAY_LEN(iov) && at + sum < total) {
            size_t piece = MIN_OF(total - at - sum, n % 3 == 0 ? 70000 + n : 1 + n * 100);
            iov[n++] = (struct iovec){ .iov_base = bytes + at + sum, .iov_len = piece };
            sum += piece;
        }
        ssize_t taken = tls_seal(e.a.tls, iov, n);
        assert_int_equal(taken, MIN_OF(sum, (size_t) TLS_SEAL_BYTES));
        assert_true(buf_len(tls_out(e.a.tls)) < TLS_SEAL_BYTES + 4096);
        at += (size_t) taken;
        talk(&e, 65536);
    }
    assert_int_equal(buf_len(&e.b.in), total);
    assert_memory_equal(buf_head(&e.b.in), bytes, total);
    assert_true(e.a.sealed < total + total / 500); /* records are full: 22 bytes for 16384 */
    ends_close(&e);
}

/* Many small pieces of one turn are one record. */
static void test_small_pieces_together(void **state)
{
    struct iovec iov[64];
    struct ends e;

    (void) state;
    ends_open(&e, "a", "a");
    shake(&e, SIZE_MAX);
    for (size_t i = 0; i < ARRAY_LEN(iov); i++) {
        iov[i] = (struct iovec){ .iov_base = (void *) (uintptr_t) "0123456789", .iov_len = 10 };
    }
    assert_int_equal(tls_seal(e.a.tls, iov, ARRAY_LEN(iov)), 640);
    assert_int_equal(buf_len(tls_out(e.a.tls)), 640 + 22);
    talk(&e, SIZE_MAX);
    assert_int_equal(buf_len(&e.b.in), 640);
    ends_close(&e);
}

/* No value is in the bytes on the wire; the server gives no tickets away. */
static void test_nothing_readable(void **state)
{
    static const char secret[] = "a value that must not be seen";
    struct ends e;

    (void) state;
    ends_open(&e, "a", "a");
    shake(&e, SIZE_MAX);
    assert_int_equal(buf_len(tls_out(e.b.tls)), 0);
    say(&e.a, secret, strlen(secret));
    assert_null(memmem(buf_head(tls_out(e.a.tls)), buf_len(tls_out(e.a.tls)), secret, 6));
    talk(&e, SIZE_MAX);
    check_in(&e.b, secret);
    ends_close(&e);
}

static void test_end(void **state)
{
    struct ends e;

    (void) state;
    ends_open(&e, "a", "a");
    shake(&e, SIZE_MAX);
    say(&e.a, "last", 4);
    tls_end(e.a.tls);
    talk(&e, SIZE_MAX);
    check_in(&e.b, "last");
    assert_true(tls_ended(e.b.tls));
    assert_false(tls_ended(e.a.tls));
    assert_int_equal(tls_take_eof(e.b.tls), 0);
    say(&e.b, "an answer", 9); /* the other direction goes on */
    talk(&e, 1);
    check_in(&e.a, "an answer");
    assert_int_equal(tls_take_eof(e.a.tls), -ECONNRESET); /* without the last word */
    assert_non_null(strstr(tls_why(e.a.tls), "cut"));
    ends_close(&e);
}

static void check_refused(const char *a_keys, unsigned key, const char *b_keys)
{
    struct ends e;

    ends_open_key(&e, a_keys, key, b_keys);
    talk(&e, SIZE_MAX);
    assert_int_equal(e.b.error, -EKEYREJECTED);
    assert_non_null(strstr(tls_why(e.b.tls), "another cluster key"));
    assert_int_equal(e.a.error, -EKEYREJECTED);
    assert_non_null(strstr(tls_why(e.a.tls), "does not accept our cluster key"));
    assert_false(tls_is_up(e.a.tls));
    assert_false(tls_is_up(e.b.tls));
    ends_close(&e);
}

static void check_accepted(const char *a_keys, unsigned key, const char *b_keys)
{
    struct ends e;

    ends_open_key(&e, a_keys, key, b_keys);
    shake(&e, SIZE_MAX);
    ends_close(&e);
}

static void test_keys(void **state)
{
    (void) state;
    check_refused("a", 0, "b");
    check_refused("ab", 0, "b");
    check_refused("ab", 0, "cd");
    check_accepted("ab", 1, "b");
    check_accepted("a", 0, "ba");
    check_accepted("ba", 0, "ab");
    check_accepted("a", 0, "ab");
}

/* The name of a key is known to all who listen; who has the name but not the key gets nowhere: the
 * first message ends with a proof of the key. */
static void test_name_without_key(void **state)
{
    (void) state;
    for (size_t i = 1; i <= 32; i++) {
        struct ends e;
        struct buf *out;

        ends_open(&e, "a", "a");
        out = tls_out(e.a.tls);
        buf_head(out)[buf_len(out) - i] ^= 1;
        talk(&e, SIZE_MAX);
        assert_int_equal(e.b.error, -EKEYREJECTED);
        assert_int_equal(e.a.error, -EKEYREJECTED);
        ends_close(&e);
    }
}

/* A bit that changes on the way, at any place of a record, ends the connection. */
static void test_changed_bit(void **state)
{
    (void) state;
    for (size_t i = 0; i < 22 + 8; i++) {
        struct ends e;

        ends_open(&e, "a", "a");
        shake(&e, SIZE_MAX);
        say(&e.a, "question", 8);
        say(&e.a, "question", 8); /* bytes enough for a length that became larger */
        buf_head(tls_out(e.a.tls))[i] ^= 1;
        talk(&e, SIZE_MAX);
        if (e.b.error == 0) {
            assert_true(i == 3); /* a length of 256 bytes more: waits for them */
        } else {
            assert_int_equal(e.b.error, -EBADMSG);
            assert_true(tls_why(e.b.tls)[0] != '\0');
        }
        assert_int_equal(buf_len(&e.b.in), 0);
        ends_close(&e);
    }
}

static void test_plain_peer(void **state)
{
    static const uint8_t hello[] = { 0x94, 0, 0, 0, 0x92 };
    struct keyring *ring = keys_of("a");
    struct buf in = { 0 };

    (void) state;
    for (int side = 0; side < 2; side++) {
        struct tls *tls = tls_new(ring, side ? TLS_ACCEPTS : TLS_CONNECTS, 0);
        buf_clear(tls_out(tls));
        assert_int_equal(tls_take(tls, hello, sizeof(hello), &in), -EKEYREJECTED);
        assert_non_null(strstr(tls_why(tls), "does not use TLS"));
        /* A plain peer that connected is told by an alert. */
        assert_int_equal(buf_len(tls_out(tls)), side ? 7 : 0);
        tls_free(tls);
        tls = tls_new(ring, side ? TLS_ACCEPTS : TLS_CONNECTS, 0);
        assert_int_equal(tls_take_eof(tls), side ? 0 : -ECONNRESET); /* it only looked */
        tls_free(tls);
    }
    assert_int_equal(buf_len(&in), 0);
    keyring_unref(ring);
}

/* Whatever comes instead of a handshake is refused, at once or when the connection ends. */
static void test_garbage(void **state)
{
    struct keyring *ring = keys_of("a");
    uint64_t x = 88172645463325252;

    (void) state;
    for (int round = 0; round < 2000; round++) {
        struct tls *tls = tls_new(ring, round % 2 ? TLS_ACCEPTS : TLS_CONNECTS, 0);
        uint8_t bytes[700];
        struct buf in = { 0 };
        int r;
        for (size_t i = 0; i < sizeof(bytes); i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            bytes[i] = (uint8_t) x;
        }
        if (round % 4 < 2) { /* looks like the head of a record */
            memcpy(bytes, (uint8_t[]){ 0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3 }, 11);
        }
        r = tls_take(tls, bytes, sizeof(bytes), &in);
        assert_true(r == -EKEYREJECTED || r == 0);
        if (r == 0) {
            assert_int_equal(tls_take_eof(tls), -ECONNRESET);
        }
        assert_false(tls_is_up(tls));
        assert_int_equal(buf_len(&in), 0);
        buf_free(&in);
        tls_free(tls);
    }
    keyring_unref(ring);
}

/* A client of plain OpenSSL against our accepting end, through buffers. */
static int foreign_client(struct keyring *ring, SSL_CTX *ctx)
{
    struct tls *tls = tls_new(ring, TLS_ACCEPTS, 0);
    SSL *ssl = SSL_new(ctx);
    BIO *to_ssl = BIO_new(BIO_s_mem());
    BIO *from_ssl = BIO_new(BIO_s_mem());
    struct buf in = { 0 };
    uint8_t bytes[4096];
    int r = 0;

    SSL_set_bio(ssl, to_ssl, from_ssl);
    for (int i = 0; i < 8 && r == 0 && !tls_is_up(tls); i++) {
        int n;
        (void) SSL_connect(ssl);
        n = BIO_read(from_ssl, bytes, sizeof(bytes));
        if (n > 0) {
            r = tls_take(tls, bytes, (size_t) n, &in);
        }
        BIO_write(to_ssl, buf_head(tls_out(tls)), (int) buf_len(tls_out(tls)));
        buf_clear(tls_out(tls));
    }
    assert_false(tls_is_up(tls));
    buf_free(&in);
    SSL_free(ssl);
    tls_free(tls);
    return r;
}

/* TLS 1.2, and so renegotiation, is impossible, and so is TLS 1.3 without a key. */
static void test_other_versions(void **state)
{
    struct keyring *ring = keys_of("a");

    (void) state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_min_proto_version(ctx, version);
        SSL_CTX_set_max_proto_version(ctx, version);
        assert_int_equal(foreign_client(ring, ctx), -EKEYREJECTED);
        SSL_CTX_free(ctx);
    }
    keyring_unref(ring);
}

/* After TLS_REKEY_RECORDS the keys change on the way. */
static void test_rekey(void **state)
{
    struct ends e;
    uint8_t byte = 'x';

    (void) state;
    ends_open(&e, "a", "a");
    shake(&e, SIZE_MAX);
    for (unsigned i = 0; i < TLS_REKEY_RECORDS + 10; i++) {
        say(&e.a, &byte, 1);
        if (i == TLS_REKEY_RECORDS) { /* a key update is a record before this one */
            assert_true(buf_len(tls_out(e.a.tls)) > 2 * 22);
        }
        carry(&e.a, &e.b, SIZE_MAX);
        assert_int_equal(e.b.error, 0);
        assert_int_equal(buf_len(&e.b.in), 1);
        buf_clear(&e.b.in);
    }
    say(&e.b, "back", 4);
    talk(&e, SIZE_MAX);
    check_in(&e.a, "back");
    ends_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_small_pieces_together),
        cmocka_unit_test(test_nothing_readable),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_name_without_key),
        cmocka_unit_test(test_changed_bit),
        cmocka_unit_test(test_plain_peer),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_rekey),
    };

    return cmocka_run_group_tests_name("io_tls", tests, NULL, NULL);
}
