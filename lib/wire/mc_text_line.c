/* A command line of memcached's text protocol: a row of the table below for each command says how
 * many arguments there may be and who reads them; see mc_text_line.h. */
#include "wire/mc_text_line.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "wire/mc_number.h"
#include "wire/mc_text_reply.h"

#include <string.h>

/* As many arguments as one cares to give. */
#define ANY UINT8_MAX

/* No argument of this command is "noreply". */
#define REPLY UINT8_MAX

/* A longer value is a bad number, as in memcached; a shorter one may still be over the limit. */
#define VALUE_BYTES_WORD_MAX (INT32_MAX - 2)

/* Reads the arguments into the request. Returns NULL, or the line that refuses them. */
typedef const char *read_args(const struct mc_line *l, struct mc_request *req);

static read_args read_keys, read_gat, read_store, read_cas, read_delete, read_delta, read_touch,
    read_flush, read_nothing, read_verbosity, read_stats, read_metadump;

struct mc_command {
    const char *name;
    enum mc_cmd cmd;
    uint8_t args_min;
    uint8_t args_max;
    uint8_t
        noreply_from; /* index of the first argument that, when it is the last, may be "noreply" */
    enum mc_line_kind kind;
    read_args *read;
};

/* clang-format off */
static const struct mc_command commands[] = {
    /* name                        arguments  noreply  what follows   who reads */
    { "get",         MC_GET,       1, ANY,    REPLY,   MC_LINE_KEYS,  read_keys },
    { "set",         MC_SET,       4, 5,      1,       MC_LINE_DATA,  read_store },
    { "gets",        MC_GETS,      1, ANY,    REPLY,   MC_LINE_KEYS,  read_keys },
    { "delete",      MC_DELETE,    1, 3,      1,       MC_LINE_ALONE, read_delete },
    { "add",         MC_ADD,       4, 5,      1,       MC_LINE_DATA,  read_store },
    { "cas",         MC_CAS,       5, 6,      1,       MC_LINE_DATA,  read_cas },
    { "incr",        MC_INCR,      2, 3,      1,       MC_LINE_ALONE, read_delta },
    { "decr",        MC_DECR,      2, 3,      1,       MC_LINE_ALONE, read_delta },
    { "touch",       MC_TOUCH,     2, 3,      1,       MC_LINE_ALONE, read_touch },
    { "gat",         MC_GAT,       2, ANY,    REPLY,   MC_LINE_KEYS,  read_gat },
    { "gats",        MC_GATS,      2, ANY,    REPLY,   MC_LINE_KEYS,  read_gat },
    { "replace",     MC_REPLACE,   4, 5,      1,       MC_LINE_DATA,  read_store },
    { "append",      MC_APPEND,    4, 5,      1,       MC_LINE_DATA,  read_store },
    { "prepend",     MC_PREPEND,   4, 5,      1,       MC_LINE_DATA,  read_store },
    { "version",     MC_VERSION,   0, ANY,    REPLY,   MC_LINE_ALONE, read_nothing },
    { "stats",       MC_STATS,     0, ANY,    REPLY,   MC_LINE_ALONE, read_stats },
    { "flush_all",   MC_FLUSH_ALL, 0, 2,      0,       MC_LINE_ALONE, read_flush },
    { "verbosity",   MC_VERBOSITY, 1, 2,      0,       MC_LINE_ALONE, read_verbosity },
    { "lru_crawler", MC_METADUMP,  2, 2,      REPLY,   MC_LINE_ALONE, read_metadump },
    { "quit",        MC_QUIT,      0, ANY,    REPLY,   MC_LINE_ALONE, read_nothing },
};
/* clang-format on */

/* ---- tokens ---- */

static bool token_is(const struct mc_token *t, const char *word)
{
    return strlen(word) == t->len && memcmp(t->p, word, t->len) == 0;
}

/* memcached hangs up on browsers, known by the last word of their lines. */
static bool last_token_is_http(const struct mc_line *l)
{
    static const char http[] = { 'H', 'T', 'T', 'P', '/' };
    const uint8_t *begin = l->word.p, *end = l->end, *space;

    while (end > begin && end[-1] == ' ') {
        end--;
    }
    space = memrchr(begin, ' ', (size_t) (end - begin));
    begin = space ? space + 1 : begin;
    return (size_t) (end - begin) >= sizeof(http) && memcmp(begin, http, sizeof(http)) == 0;
}

bool mc_text_next_token(const uint8_t **rest, size_t *rest_len, const uint8_t **ret_token,
                        size_t *ret_len)
{
    const uint8_t *p = *rest, *space;
    size_t len = *rest_len;

    for (; len > 0 && *p == ' '; len--) {
        p++;
    }
    if (len == 0) {
        return false;
    }
    space = memchr(p, ' ', len);
    *ret_token = p;
    *ret_len = space ? (size_t) (space - p) : len;
    *rest = p + *ret_len;
    *rest_len = len - *ret_len;
    return true;
}

bool mc_text_key_ok(const uint8_t *key, size_t len)
{
    if (len == 0 || len > MC_KEY_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (key[i] == ' ' || key[i] == '\r' || key[i] == '\n' || key[i] == '\0') {
            return false;
        }
    }
    return true;
}

int mc_text_count_keys(const uint8_t *keys, size_t len)
{
    const uint8_t *key;
    size_t key_len;
    int n = 0;

    while (mc_text_next_token(&keys, &len, &key, &key_len)) {
        if (!mc_text_key_ok(key, key_len)) {
            return -EINVAL;
        }
        n++;
    }
    return n;
}

static const struct mc_command *find_command(const struct mc_token *word)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const char *name = commands[i].name;

        if (name[0] == word->p[0] && token_is(word, name)) {
            return &commands[i];
        }
    }
    return NULL;
}

void mc_line_split(const uint8_t *p, size_t len, struct mc_line *ret_line)
{
    struct mc_line *l = ret_line;
    size_t n_max = 0;

    *l = (struct mc_line){ .end = p + len };
    if (mc_text_next_token(&p, &len, &l->word.p, &l->word.len)) {
        l->command = find_command(&l->word);
    }
    if (l->command) {
        n_max = l->command->args_max == ANY ? MAX_OF(l->command->args_min, 1)
                                            : l->command->args_max + 1;
    }
    kumo_assert(n_max <= MC_LINE_ARGS_MAX);
    for (; l->n_args < n_max; l->n_args++) {
        struct mc_token *arg = &l->args[l->n_args];

        if (!mc_text_next_token(&p, &len, &arg->p, &arg->len)) {
            break;
        }
    }
}

enum mc_line_kind mc_line_kind(const struct mc_line *l)
{
    const struct mc_token *word = &l->word;

    if (l->command) {
        return l->command->kind;
    }
    if (word->len == 2 && word->p[0] == 'm' && memchr("gsdane", word->p[1], 6)) {
        return MC_LINE_META;
    }
    return word->len > 0 && last_token_is_http(l) ? MC_LINE_HTTP : MC_LINE_UNKNOWN;
}

const char *mc_line_read(const struct mc_line *l, bool more, struct mc_request *req)
{
    const struct mc_command *c = l->command;
    size_t n_args = l->n_args + more;

    kumo_assert(c);
    req->cmd = c->cmd;
    req->more = more;
    if (n_args < c->args_min || l->n_args > c->args_max) {
        return MC_LINE_ERROR;
    }
    req->noreply = l->n_args > c->noreply_from && token_is(&l->args[l->n_args - 1], "noreply");
    return c->read(l, req);
}

/* ---- arguments, command by command ---- */

/* The line from argument i to its end, nothing when there is no such argument. */
static void rest_from(const struct mc_line *l, size_t i, const uint8_t **ret, size_t *ret_len)
{
    *ret = i < l->n_args ? l->args[i].p : l->end;
    *ret_len = (size_t) (l->end - *ret);
}

static const char *read_key(const struct mc_line *l, struct mc_request *req)
{
    req->key = l->args[0].p;
    req->key_len = l->args[0].len;
    return mc_text_key_ok(req->key, req->key_len) ? NULL : MC_LINE_BAD_FORMAT;
}

static const char *read_key_list(const struct mc_line *l, size_t first, struct mc_request *req)
{
    rest_from(l, first, &req->keys, &req->keys_len);
    return mc_text_count_keys(req->keys, req->keys_len) >= 0 ? NULL : MC_LINE_BAD_FORMAT;
}

static const char *read_exptime(const struct mc_token *t, struct mc_request *req)
{
    return mc_parse_i32(t->p, t->len, &req->exptime) >= 0 ? NULL : MC_LINE_BAD_EXPTIME;
}

/* <key>+ */
static const char *read_keys(const struct mc_line *l, struct mc_request *req)
{
    return read_key_list(l, 0, req);
}

/* <exptime> <key>+ */
static const char *read_gat(const struct mc_line *l, struct mc_request *req)
{
    const char *error = read_exptime(&l->args[0], req);

    return error ? error : read_key_list(l, 1, req);
}

/* <key> <flags> <exptime> <bytes> */
static const char *read_store(const struct mc_line *l, struct mc_request *req)
{
    const struct mc_token *a = l->args;
    uint32_t value_len;

    if (read_key(l, req) || mc_parse_u32(a[1].p, a[1].len, &req->flags) < 0 ||
        mc_parse_i32(a[2].p, a[2].len, &req->exptime) < 0 ||
        mc_parse_u32(a[3].p, a[3].len, &value_len) < 0 || value_len > VALUE_BYTES_WORD_MAX) {
        return MC_LINE_BAD_FORMAT;
    }
    req->value_len = value_len;
    return NULL;
}

/* <key> <flags> <exptime> <bytes> <cas> */
static const char *read_cas(const struct mc_line *l, struct mc_request *req)
{
    const struct mc_token *cas = &l->args[4];

    if (read_store(l, req) || mc_parse_u64(cas->p, cas->len, &req->cas) < 0) {
        return MC_LINE_BAD_FORMAT;
    }
    return NULL;
}

/* <key> [0]: the time argument of old clients, which must be 0. */
static const char *read_delete(const struct mc_line *l, struct mc_request *req)
{
    size_t n = l->n_args - req->noreply;

    if (n > 2 || (n == 2 && !token_is(&l->args[1], "0"))) {
        return MC_LINE_BAD_DELETE;
    }
    return read_key(l, req);
}

/* <key> <delta> */
static const char *read_delta(const struct mc_line *l, struct mc_request *req)
{
    const char *error = read_key(l, req);

    if (error) {
        return error;
    }
    return mc_parse_u64(l->args[1].p, l->args[1].len, &req->delta) >= 0 ? NULL : MC_LINE_BAD_DELTA;
}

/* <key> <exptime> */
static const char *read_touch(const struct mc_line *l, struct mc_request *req)
{
    const char *error = read_key(l, req);

    return error ? error : read_exptime(&l->args[1], req);
}

/* [delay] */
static const char *read_flush(const struct mc_line *l, struct mc_request *req)
{
    return l->n_args > req->noreply ? read_exptime(&l->args[0], req) : NULL;
}

static const char *read_nothing(const struct mc_line *l, struct mc_request *req)
{
    (void) l;
    (void) req;
    return NULL;
}

/* <level> */
static const char *read_verbosity(const struct mc_line *l, struct mc_request *req)
{
    const struct mc_token *level = &l->args[0];

    return mc_parse_u64(level->p, level->len, &req->verbosity) >= 0 ? NULL : MC_LINE_BAD_FORMAT;
}

/* [sub-command ...] */
static const char *read_stats(const struct mc_line *l, struct mc_request *req)
{
    rest_from(l, 0, &req->args, &req->args_len);
    return NULL;
}

/* metadump all|hash; nothing else of lru_crawler has a meaning here. */
static const char *read_metadump(const struct mc_line *l, struct mc_request *req)
{
    (void) req;
    if (token_is(&l->args[0], "metadump") &&
        (token_is(&l->args[1], "all") || token_is(&l->args[1], "hash"))) {
        return NULL;
    }
    return MC_LINE_ERROR;
}
