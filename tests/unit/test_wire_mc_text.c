/* memcached's text protocol: each case is a stream of bytes and a transcript of what the parser
 * made of it. Every case is fed whole, byte by byte, and cut in two at every place, from buffers of
 * exactly the size of what was received, with the same transcript each time. */
#include "base/cleanup.h"
#include "wire/mc_text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VALUE_BYTES_MAX  16
#define TRANSCRIPT_BYTES 65536

static const struct mc_limits limits = { .value_bytes_max = VALUE_BYTES_MAX };

/* ---- transcripts ---- */

static const char *const names[_MC_CMD_MAX] = {
    [MC_GET] = "get",         [MC_GETS] = "gets",         [MC_GAT] = "gat",
    [MC_GATS] = "gats",       [MC_SET] = "set",           [MC_ADD] = "add",
    [MC_REPLACE] = "replace", [MC_APPEND] = "append",     [MC_PREPEND] = "prepend",
    [MC_CAS] = "cas",         [MC_DELETE] = "delete",     [MC_INCR] = "incr",
    [MC_DECR] = "decr",       [MC_TOUCH] = "touch",       [MC_FLUSH_ALL] = "flush",
    [MC_VERSION] = "version", [MC_STATS] = "stats",       [MC_VERBOSITY] = "verbosity",
    [MC_QUIT] = "quit",       [MC_METADUMP] = "metadump",
};

struct transcript {
    char text[TRANSCRIPT_BYTES];
    size_t len;
    size_t pieces;           /* of get lines that came in several; their text is joined */
    bool open;               /* the last one was such a piece, and not the last */
    struct mc_request first; /* piece: the others say the same */
};

__attribute__((format(printf, 2, 3))) static void say(struct transcript *t, const char *format, ...)
{
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(t->text + t->len, sizeof(t->text) - t->len, format, ap);
    va_end(ap);
    assert_in_range(n, 0, (int) (sizeof(t->text) - t->len - 1));
    t->len += (size_t) n;
}

static void say_tokens(struct transcript *t, const uint8_t *rest, size_t len)
{
    const uint8_t *token;
    size_t token_len;

    while (mc_text_next_token(&rest, &len, &token, &token_len)) {
        say(t, " %.*s", (int) token_len, (const char *) token);
    }
}

static void say_request(struct transcript *t, const struct mc_request *r)
{
    if (t->open) {
        assert_int_equal(r->cmd, t->first.cmd);
        assert_int_equal(r->exptime, t->first.exptime);
        say_tokens(t, r->keys, r->keys_len);
        return;
    }
    t->first = *r;
    say(t, "%s", names[r->cmd]);
    if (r->key) {
        say(t, " %.*s", (int) r->key_len, (const char *) r->key);
    }
    if (r->flags) {
        say(t, " f=%u", r->flags);
    }
    if (r->exptime) {
        say(t, " e=%d", r->exptime);
    }
    if (r->delta) {
        say(t, " d=%llu", (unsigned long long) r->delta);
    }
    if (r->cas) {
        say(t, " c=%llu", (unsigned long long) r->cas);
    }
    if (r->verbosity) {
        say(t, " v=%llu", (unsigned long long) r->verbosity);
    }
    say_tokens(t, r->keys, r->keys_len);
    say_tokens(t, r->args, r->args_len);
    if (r->value) {
        say(t, " <%.*s>", (int) r->value_len, (const char *) r->value);
    }
    say(t, "%s", r->noreply ? " silent" : "");
}

static void say_error(struct transcript *t, const struct mc_request *r)
{
    say(t, "%.*s", r->error ? (int) strlen(r->error) - 2 : 6, r->error ? r->error : "silent");
}

static void say_result(struct transcript *t, enum mc_parse_result result,
                       const struct mc_request *r, size_t need)
{
    say(t, "%s", t->len > 0 && !(t->open && result == MC_REQUEST) ? "; " : "");
    switch (result) {
    case MC_REQUEST:
        say_request(t, r);
        break;
    case MC_ERROR:
        say_error(t, r);
        break;
    case MC_TOO_LARGE:
        say(t, "large %s %.*s: ", names[r->cmd], (int) r->key_len, (const char *) r->key);
        say_error(t, r);
        break;
    case MC_META:
        say(t, "meta %zu", need);
        break;
    case MC_CLOSE:
        say(t, "close");
        break;
    default:
        fail();
    }
    t->open = result == MC_REQUEST && r->more;
    t->pieces += t->open;
}

/* ---- a connection ---- */

struct conn {
    struct mc_parser parser;
    uint8_t *data; /* exactly as large as what it holds, so that the sanitizer sees the edge */
    size_t len;
    bool closed;
    struct transcript *t;
};

static void conn_drop(struct conn *c, size_t bytes)
{
    uint8_t *rest = NULL;

    assert_true(bytes <= c->len);
    if (bytes == 0) {
        return;
    }
    c->len -= bytes;
    if (c->len > 0) {
        rest = malloc(c->len);
        assert_non_null(rest);
        memcpy(rest, c->data + bytes, c->len);
    }
    free(c->data);
    c->data = rest;
}

static void conn_receive(struct conn *c, const char *p, size_t len)
{
    enum mc_parse_result r;

    c->data = realloc(c->data, c->len + len);
    assert_non_null(c->data);
    memcpy(c->data + c->len, p, len);
    c->len += len;
    while (!c->closed) {
        struct mc_request req;
        size_t consumed, need;

        r = mc_text_parse(&c->parser, &limits, c->data, c->len, &req, &consumed, &need);
        if (r != MC_NEED_MORE) {
            say_result(c->t, r, &req, need);
        }
        c->closed = r == MC_CLOSE;
        conn_drop(c, r == MC_META ? need : consumed);
        if (r == MC_NEED_MORE) {
            assert_true(need > c->len);
            assert_true(need <= MC_LINE_BYTES_MAX + 1 + VALUE_BYTES_MAX + 2);
            return;
        }
    }
}

/* Feeds the stream: the first `cut` bytes, then pieces of `step` bytes. */
static void feed(const char *in, size_t len, size_t cut, size_t step, struct transcript *t)
{
    struct conn c = { .t = t };

    t->len = t->pieces = 0;
    t->open = false;
    t->text[0] = '\0';
    for (size_t at = 0, n = cut; at < len && !c.closed; at += n, n = step) {
        n = n > 0 ? n : step;
        n = MIN_OF(n, len - at);
        conn_receive(&c, in + at, n);
    }
    free(c.data);
}

/* Returns the number of pieces of long get lines. */
static size_t check_stream(const char *in, size_t len, const char *expected)
{
    static struct transcript t;
    size_t pieces;

    feed(in, len, 0, len, &t);
    assert_string_equal(t.text, expected);
    pieces = t.pieces;
    feed(in, len, 0, 1, &t);
    assert_string_equal(t.text, expected);
    assert_int_equal(t.pieces, pieces);
    for (size_t cut = 1; cut<len; cut += len> 512 ? 37 : 1) {
        feed(in, len, cut, len, &t);
        assert_string_equal(t.text, expected);
        assert_int_equal(t.pieces, pieces);
    }
    return pieces;
}

#define CHECK(in, expected) check_stream(in, sizeof(in) - 1, expected)

#define BAD_FORMAT "CLIENT_ERROR bad command line format"
#define BAD_DELETE "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]"
#define BAD_CHUNK  "CLIENT_ERROR bad data chunk"
#define BAD_EXP    "CLIENT_ERROR invalid exptime argument"
#define BAD_DELTA  "CLIENT_ERROR invalid numeric delta argument"
#define TOO_LARGE  "SERVER_ERROR object too large for cache"

#define K50  "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
#define K250 K50 K50 K50 K50 K50
#define K251 K250 "k"

/* ---- lines ---- */

static void test_lines(void **state)
{
    (void) state;
    CHECK("version\r\n", "version");
    CHECK("version\n", "version");
    CHECK("  version  \r\n", "version");
    CHECK("version a b c\r\n", "version");
    CHECK("\r\n\n", "ERROR; ERROR");
    CHECK(" \r\n   \n", "ERROR; ERROR");
    CHECK("VERSION\r\n", "ERROR");
    CHECK("versio\r\nversionx\r\n", "ERROR; ERROR");
    CHECK("version\tx\r\n", "ERROR");
    CHECK("version\r\r\n", "ERROR");
    CHECK("ver\0sion\r\nversion\r\n", "ERROR; version");
    CHECK("quit\r\n", "quit");
    CHECK("quit now\r\nversion\r\n", "quit; version");
    CHECK("version", "");
    CHECK("version\r\nget a\r\nget", "version; get a");
}

static void test_http(void **state)
{
    (void) state;
    CHECK("GET / HTTP/1.1\r\nHost: x\r\n", "close");
    CHECK("POST  /  HTTP/1.1 \nversion\r\n", "close");
    CHECK("HTTP/\r\n", "close");
    CHECK("a b c d e f g h i j k l m n o HTTP/2\r\n", "close");
    CHECK("POST / HTTP/1.1 x\r\nversion\r\n", "ERROR; version");
    CHECK("POST / xHTTP/1.1\r\n", "ERROR");
    CHECK("get / HTTP/1.1\r\n", "get / HTTP/1.1");
    CHECK("set k HTTP/1.1\r\n", "ERROR");
    CHECK("HTTP\r\n", "ERROR");
}

static void test_meta_lines(void **state)
{
    (void) state;
    CHECK("mg k v\r\nversion\r\n", "meta 8; version");
    CHECK(" mn\n", "meta 4");
    CHECK("ms k 1\r\nmd\r\nma\r\nme\r\n", "meta 8; meta 4; meta 4; meta 4");
    CHECK("mx k\r\nm\r\nmgk\r\nMG k\r\n", "ERROR; ERROR; ERROR; ERROR");
}

/* ---- commands ---- */

static void test_get(void **state)
{
    (void) state;
    CHECK("get a\r\n", "get a");
    CHECK("gets  a   b a \r\n", "gets a b a");
    CHECK("get noreply\r\n", "get noreply");
    CHECK("get a b c d e f g h i j k l m n o p q r s t u v w x y z 1 2 3\r\n",
          "get a b c d e f g h i j k l m n o p q r s t u v w x y z 1 2 3");
    CHECK("get " K250 "\r\n", "get " K250);
    CHECK("get " K251 "\r\nversion\r\n", BAD_FORMAT "; version");
    CHECK("gets a " K251 " b\r\nversion\r\n", BAD_FORMAT "; version");
    CHECK("get \xc3\xa9\t\x01\xff\r\n", "get \xc3\xa9\t\x01\xff");
    CHECK("get a\0b\r\nget a\rb\r\n", BAD_FORMAT "; " BAD_FORMAT);
    CHECK("get\r\nget \r\ngets\r\n", "ERROR; ERROR; ERROR");
}

static void test_gat(void **state)
{
    (void) state;
    CHECK("gat 10 a\r\n", "gat e=10 a");
    CHECK("gats -1 a b\r\n", "gats e=-1 a b");
    CHECK("gat 0 10\r\n", "gat 10");
    CHECK("gat x a\r\nversion\r\n", BAD_EXP "; version");
    CHECK("gat x " K251 "\r\n", BAD_EXP);
    CHECK("gat 0 a " K251 "\r\nversion\r\n", BAD_FORMAT "; version");
    CHECK("gat\r\ngat 0\r\ngats 1 \r\n", "ERROR; ERROR; ERROR");
}

static void test_store(void **state)
{
    (void) state;
    CHECK("set k 0 0 1\r\nx\r\n", "set k <x>");
    CHECK("set k 1 2 0\r\n\r\n", "set k f=1 e=2 <>");
    CHECK("set k 4294967295 -2147483648 4\r\na\r\nb\r\n",
          "set k f=4294967295 e=-2147483648 <a\r\nb>");
    CHECK("add k +5 +2147483647 +1\nx\r\n", "add k f=5 e=2147483647 <x>");
    CHECK("replace k 007 0 01\r\nx\r\n", "replace k f=7 <x>");
    CHECK("append k 0 0 1 noreply\r\nx\r\n", "append k <x> silent");
    CHECK("prepend k 0 0 1 norepl\r\nx\r\n", "prepend k <x>");
    CHECK("set k 0  0   1   noreply \r\nx\r\nversion\r\n", "set k <x> silent; version");
    CHECK("set " K250 " 0 0 1\r\nx\r\n", "set " K250 " <x>");
    CHECK("set k 0 0 16\r\n0123456789abcdef\r\n", "set k <0123456789abcdef>");
    CHECK("cas k 0 0 1 18446744073709551615\r\nx\r\n", "cas k c=18446744073709551615 <x>");
    CHECK("cas k 0 0 1 0 noreply\r\nx\r\n", "cas k <x> silent");
    CHECK("set k 0 0 5\r\nxxx", "");
}

static void test_store_wrong_count(void **state)
{
    (void) state;
    CHECK("set\r\nset k 0 0\r\nversion\r\n", "ERROR; ERROR; version");
    CHECK("set k 0 0 1 noreply x\r\nversion\r\n", "ERROR; version");
    CHECK("set k 0 0 1 noreply noreply\r\nx\r\n", "ERROR; ERROR");
    CHECK("set noreply\r\n", "ERROR");
    CHECK("cas k 0 0 1\r\nx\r\n", "ERROR; ERROR");
    CHECK("cas k 0 0 1 1 noreply x\r\n", "ERROR");
}

static void test_store_bad_line(void **state)
{
    (void) state;
    CHECK("set " K251 " 0 0 1\r\nx\r\n", BAD_FORMAT "; ERROR");
    CHECK("set k -1 0 1\r\nx\r\n", BAD_FORMAT "; ERROR");
    CHECK("set k 4294967296 0 1\r\nx\r\n", BAD_FORMAT "; ERROR");
    CHECK("set k 0x5 0 1\r\nset k 1a 0 1\r\n", BAD_FORMAT "; " BAD_FORMAT);
    CHECK("set k 0 x 1\r\nx\r\n", BAD_FORMAT "; ERROR");
    CHECK("set k 0 2147483648 1\r\nset k 0 -2147483649 1\r\n", BAD_FORMAT "; " BAD_FORMAT);
    CHECK("set k 0 0 -1\r\nx\r\n", BAD_FORMAT "; ERROR");
    CHECK("set k 0 0 2147483646\r\nx\r\n", BAD_FORMAT "; ERROR");
    CHECK("set k 0 0 4294967296\r\nx\r\n", BAD_FORMAT "; ERROR");
    CHECK("set k 0 0 99999999999999999999\r\nversion\r\n", BAD_FORMAT "; version");
    CHECK("set k 0 0 noreply\r\nversion\r\n", "silent; version");
    CHECK("set k x 0 1 noreply\r\nversion\r\n", "silent; version");
    CHECK("cas k 0 0 1 noreply\r\nx\r\n", "silent; ERROR");
    CHECK("cas k 0 0 1 -1\r\ncas k 0 0 1 18446744073709551616\r\n", BAD_FORMAT "; " BAD_FORMAT);
}

static void test_bad_chunk(void **state)
{
    (void) state;
    CHECK("set k 0 0 3\r\nabcdefg\r\nversion\r\n", BAD_CHUNK "; ERROR; version");
    CHECK("set k 0 0 3\r\nabcXYversion\r\n", BAD_CHUNK "; version");
    CHECK("set k 0 0 3\r\nabc\rversion\r\nversion\r\n", BAD_CHUNK "; ERROR; version");
    CHECK("set k 0 0 3\r\nabc\nversion\r\nversion\r\n", BAD_CHUNK "; ERROR; version");
    CHECK("set k 0 0 3\r\nab\r\nversion\r\nversion\r\n", BAD_CHUNK "; ERROR; version");
    CHECK("set k 0 0 3 noreply\r\nabcXYversion\r\n", "silent; version");
}

static void test_too_large(void **state)
{
    (void) state;
    CHECK("set k 0 0 17\r\n0123456789abcdefg\r\nversion\r\n",
          "large set k: " TOO_LARGE "; version");
    CHECK("set k 0 0 17 noreply\r\n0123456789abcdefg\r\nversion\r\n",
          "large set k: silent; version");
    CHECK("append k 0 0 17\r\n0123456789abcdefgXYversion\r\n",
          "large append k: " TOO_LARGE "; version");
    CHECK("set k 0 0 2147483645\r\nversion\r\n", "large set k: " TOO_LARGE);
}

/* What a large value needs is known at its line, and what is over the limit is never held. */
static void test_need(void **state)
{
    const struct mc_limits large = { .value_bytes_max = 1U << 20 };
    const char line[] = "set k 0 0 1048576\r\n", over[] = "set k 0 0 1048577\r\n";
    const size_t len = sizeof(line) - 1;
    struct mc_parser p = { 0 };
    struct mc_request req;
    size_t consumed, need;

    (void) state;
    assert_int_equal(MC_NEED_MORE, mc_text_parse(&p, &large, NULL, 0, &req, &consumed, &need));
    assert_int_equal(consumed, 0);
    assert_int_equal(need, 1);
    assert_int_equal(MC_NEED_MORE, mc_text_parse(&p, &large, (const uint8_t *) line, len, &req,
                                                 &consumed, &need));
    assert_int_equal(consumed, 0);
    assert_int_equal(need, len + (1 << 20) + 2);
    assert_int_equal(MC_TOO_LARGE, mc_text_parse(&p, &large, (const uint8_t *) over, len, &req,
                                                 &consumed, &need));
    assert_int_equal(consumed, len);
    for (int i = 0; i < 1024; i++) {
        static const uint8_t block[1024];

        assert_int_equal(MC_NEED_MORE,
                         mc_text_parse(&p, &large, block, sizeof(block), &req, &consumed, &need));
        assert_int_equal(consumed, sizeof(block));
        assert_int_equal(need, 1);
    }
    assert_int_equal(MC_REQUEST, mc_text_parse(&p, &large, (const uint8_t *) "x\r\nversion\n", 11,
                                               &req, &consumed, &need));
    assert_int_equal(req.cmd, MC_VERSION);
    assert_int_equal(consumed, 11);
}

static void test_delete(void **state)
{
    (void) state;
    CHECK("delete k\r\ndelete k 0\r\n", "delete k; delete k");
    CHECK("delete k noreply\r\ndelete k 0 noreply\r\n", "delete k silent; delete k silent");
    CHECK("delete noreply\r\n", "delete noreply");
    CHECK("delete k 5\r\ndelete k x\r\ndelete k 00\r\n",
          BAD_DELETE "; " BAD_DELETE "; " BAD_DELETE);
    CHECK("delete k 0 x\r\ndelete k noreply 0\r\n", BAD_DELETE "; " BAD_DELETE);
    CHECK("delete k 5 noreply\r\nversion\r\n", "silent; version");
    CHECK("delete " K251 "\r\n", BAD_FORMAT);
    CHECK("delete " K251 " 5\r\n", BAD_DELETE);
    CHECK("delete " K251 " noreply\r\n", "silent");
    CHECK("delete\r\ndelete k 0 noreply x\r\n", "ERROR; ERROR");
}

static void test_counters(void **state)
{
    (void) state;
    CHECK("incr k 1\r\ndecr k 18446744073709551615\r\n",
          "incr k d=1; decr k d=18446744073709551615");
    CHECK("incr k 1 noreply\r\n", "incr k d=1 silent");
    CHECK("incr k 1 x\r\n", "incr k d=1");
    CHECK("incr k x\r\nincr k -1\r\nincr k 1a\r\n", BAD_DELTA "; " BAD_DELTA "; " BAD_DELTA);
    CHECK("decr k 18446744073709551616\r\n", BAD_DELTA);
    CHECK("incr k x noreply\r\nincr k noreply\r\n", "silent; silent");
    CHECK("incr " K251 " x\r\n", BAD_FORMAT);
    CHECK("incr\r\nincr k\r\nincr k 1 noreply x\r\n", "ERROR; ERROR; ERROR");
}

static void test_touch(void **state)
{
    (void) state;
    CHECK("touch k 100\r\ntouch k -1 noreply\r\n", "touch k e=100; touch k e=-1 silent");
    CHECK("touch k x\r\ntouch k 99999999999\r\n", BAD_EXP "; " BAD_EXP);
    CHECK("touch k x noreply\r\ntouch k noreply\r\n", "silent; silent");
    CHECK("touch " K251 " x\r\n", BAD_FORMAT);
    CHECK("touch\r\ntouch k\r\ntouch k 0 noreply x\r\n", "ERROR; ERROR; ERROR");
}

static void test_admin(void **state)
{
    (void) state;
    CHECK("flush_all\r\nflush_all 0\r\nflush_all 10\r\n", "flush; flush; flush e=10");
    CHECK("flush_all -1\r\nflush_all 0 x\r\n", "flush e=-1; flush");
    CHECK("flush_all noreply\r\nflush_all 0 noreply\r\n", "flush silent; flush silent");
    CHECK("flush_all x\r\nflush_all x noreply\r\n", BAD_EXP "; silent");
    CHECK("flush_all noreply noreply\r\n", "silent");
    CHECK("flush_all 0 x y\r\n", "ERROR");
    CHECK("verbosity\r\nverbosity 1 2 3\r\n", "ERROR; ERROR");
    CHECK("verbosity 1\r\nverbosity 2 noreply\r\n", "verbosity v=1; verbosity v=2 silent");
    CHECK("verbosity x\r\nverbosity -1\r\nverbosity 1 x\r\n",
          BAD_FORMAT "; " BAD_FORMAT "; verbosity v=1");
    CHECK("verbosity noreply\r\nverbosity x noreply\r\n", "silent; silent");
    CHECK("stats\r\nstats items\r\nstats cachedump 1 0 \r\n",
          "stats; stats items; stats cachedump 1 0");
    CHECK("lru_crawler metadump all\r\nlru_crawler metadump hash\r\n", "metadump; metadump");
    CHECK("lru_crawler\r\nlru_crawler enable\r\nlru_crawler metadump 1\r\n", "ERROR; ERROR; ERROR");
    CHECK("lru_crawler metadump all x\r\nlru_crawler x all\r\n", "ERROR; ERROR");
}

/* ---- long lines ---- */

/* A stream built from pieces. */
struct stream {
    char text[TRANSCRIPT_BYTES];
    size_t len;
};

static void add(struct stream *s, const char *text, size_t times)
{
    for (size_t i = 0; i < times; i++) {
        size_t n = strlen(text);

        assert_true(s->len + n < sizeof(s->text));
        memcpy(s->text + s->len, text, n + 1);
        s->len += n;
    }
}

static void test_line_limit(void **state)
{
    struct stream in = { .len = 0 };

    (void) state;
    add(&in, "x", MC_LINE_BYTES_MAX);
    check_stream(in.text, in.len, "");
    add(&in, "\nversion\r\n", 1);
    check_stream(in.text, in.len, "ERROR; version");
    in.len = 0;
    add(&in, "x", MC_LINE_BYTES_MAX + 1);
    check_stream(in.text, in.len, "close");
    in.len = 0;
    add(&in, "x y ", MC_LINE_BYTES_MAX);
    check_stream(in.text, in.len, "close");
    in.len = 0;
    add(&in, " ", MC_LINE_BYTES_MAX + 1);
    check_stream(in.text, in.len, "close");
    in.len = 0;
    add(&in, "mg", 1);
    add(&in, " k", MC_LINE_BYTES_MAX);
    check_stream(in.text, in.len, "close");
    in.len = 0;
    add(&in, "set k 0 0 ", 1);
    add(&in, "0", MC_LINE_BYTES_MAX);
    add(&in, "1\r\nx\r\n", 1);
    check_stream(in.text, in.len, "close");
}

/* The keys of a long line come in pieces: all of them, once each, in order. */
static void test_long_get(void **state)
{
    static const char *const lines[][2] = {
        { "get", "get" },      { "  gets", "gets" },       { "gat 10", "gat e=10" },
        { "get  a", "get a" }, { "gats -1", "gats e=-1" }, { "get " K250, "get " K250 },
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct stream in = { .len = 0 }, want = { .len = 0 };

        add(&in, lines[i][0], 1);
        add(&in, " key", 1500);
        add(&in, "\r\nversion\r\n", 1);
        add(&want, lines[i][1], 1);
        add(&want, " key", 1500);
        add(&want, "; version", 1);
        assert_in_range(check_stream(in.text, in.len, want.text), 2, 4);
    }
}

/* A line whose keys end exactly where a piece does, give or take some bytes. */
static void test_long_get_edges(void **state)
{
    (void) state;
    for (size_t extra = 0; extra < 12; extra++) {
        struct stream in = { .len = 0 }, want = { .len = 0 };

        add(&in, "get", 1);
        add(&in, " a", (MC_LINE_BYTES_MAX - 3) / 2 - 2);
        add(&want, in.text, 1);
        add(&in, " ", extra);
        add(&in, extra % 2 ? " \n" : " \r\n", 1);
        add(&in, "get b\n", 1);
        add(&want, "; get b", 1);
        check_stream(in.text, in.len, want.text);
    }
}

static void test_long_get_errors(void **state)
{
    struct stream in = { .len = 0 }, want = { .len = 0 };

    (void) state;
    add(&in, "get", 1);
    add(&in, " key", 1000);
    add(&want, in.text, 1);
    add(&in, " " K251 " b\r\nversion\r\n", 1);
    add(&want, "; " BAD_FORMAT "; version", 1);
    check_stream(in.text, in.len, want.text);

    in.len = 0; /* a bad key early, all the rest is skipped */
    add(&in, "get " K251, 1);
    add(&in, " key", 2000);
    add(&in, "\r\nversion\r\n", 1);
    assert_int_equal(check_stream(in.text, in.len, BAD_FORMAT "; version"), 0);

    in.len = 0; /* a key that has no end */
    add(&in, "get ", 1);
    add(&in, K250, 20);
    add(&in, " a\r\nversion\r\n", 1);
    check_stream(in.text, in.len, "get; " BAD_FORMAT "; version");

    in.len = 0;
    add(&in, "gat x", 1);
    add(&in, " key", 1000);
    add(&in, "\nversion\n", 1);
    check_stream(in.text, in.len, BAD_EXP "; version");

    in.len = 0; /* blanks alone */
    add(&in, "get", 1);
    add(&in, " ", 6000);
    add(&in, "\r\nversion\r\n", 1);
    check_stream(in.text, in.len, "get; ERROR; version");

    in.len = 0;
    add(&in, "gat", 1);
    add(&in, " ", 6000);
    add(&in, "1 k\r\nversion\r\n", 1);
    check_stream(in.text, in.len, "ERROR; version");
}

/* What the meta parser asks to be dropped is dropped. */
static void test_skip(void **state)
{
    struct mc_parser p = { 0 };
    struct mc_request req;
    size_t consumed, need;

    (void) state;
    mc_text_skip(&p, 0);
    mc_text_skip(&p, 5);
    assert_int_equal(MC_NEED_MORE, mc_text_parse(&p, &limits, (const uint8_t *) "xxx", 3, &req,
                                                 &consumed, &need));
    assert_int_equal(consumed, 3);
    assert_int_equal(MC_REQUEST, mc_text_parse(&p, &limits, (const uint8_t *) "\r\nversion\r\n", 11,
                                               &req, &consumed, &need));
    assert_int_equal(consumed, 11);
    assert_int_equal(req.cmd, MC_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_http),
        cmocka_unit_test(test_meta_lines),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_gat),
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_store_wrong_count),
        cmocka_unit_test(test_store_bad_line),
        cmocka_unit_test(test_bad_chunk),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_need),
        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_touch),
        cmocka_unit_test(test_admin),
        cmocka_unit_test(test_line_limit),
        cmocka_unit_test(test_long_get),
        cmocka_unit_test(test_long_get_edges),
        cmocka_unit_test(test_long_get_errors),
        cmocka_unit_test(test_skip),
    };

    return cmocka_run_group_tests_name("wire_mc_text", tests, NULL, NULL);
}
