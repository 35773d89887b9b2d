/* get, set, delete: one record, at the primary of its key. */
#include "base/cleanup.h"
#include "verb.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define RELATIVE_SEC_MAX (30 * 24 * 3600) /* memcached: larger ones are points in time */

static const struct verb_option no_options[] = { { 0 } };

/* What a server answered instead of doing it. */
static int data_refused(const struct ctl *ctl, uint8_t code)
{
    switch (code) {
    case RESULT_NOT_FOUND:
        return verb_error(ctl, "there is no such record");
    case RESULT_TOO_LARGE:
        return verb_error(ctl, "the value is larger than the servers' max-value-size");
    case RESULT_NO_SPACE:
        return verb_error(ctl, "a server's disk is full; nothing was changed. Make room, and see: "
                               "kumoctl status");
    case RESULT_DAMAGED:
        return verb_error(ctl,
                          "the record is damaged on the server's disk; its journal says where");
    case RESULT_UNKNOWN:
        return verb_error(ctl, "outcome unknown; read the key again: kumoctl get");
    case RESULT_REFUSED:
        return verb_error(ctl, "the server refused the operation: too large, or not understood");
    default:
        return verb_error(ctl,
                          "the server gave an answer (%u) that this kumoctl does not know; "
                          "is it of another version?",
                          code);
    }
}

static int data_run(struct ctl *ctl, struct op *op, const char *key, uint8_t wanted,
                    struct client_result *ret)
{
    struct io_error error = { "" };

    if (!verb_key(ctl, key)) {
        return VERB_USAGE;
    }
    op->key = (const uint8_t *) key;
    op->key_len = (uint8_t) strlen(key);
    if (client_op(ctl->client, op, ret, &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    return ret->code == wanted ? VERB_OK : data_refused(ctl, ret->code);
}

int verb_get(struct ctl *ctl, int argc, char **argv)
{
    struct client_result res = { 0 };
    struct op op = { .code = OP_GET };
    struct verb_words w;
    int code;

    if (!verb_args(ctl, verb_find("get"), argc, argv, no_options, 1, 1, &w)) {
        return VERB_USAGE;
    }
    code = data_run(ctl, &op, w.v[0], RESULT_VALUE, &res);
    if (code == VERB_OK && !ctl->interactive && !isatty(STDOUT_FILENO)) {
        if (buf_len(&res.bytes) > 0) {
            fwrite(buf_head(&res.bytes), 1, buf_len(&res.bytes), stdout);
        }
    } else if (code == VERB_OK) {
        verb_print_escaped(stdout, res.bytes.data + res.bytes.start, buf_len(&res.bytes));
        putchar('\n');
    }
    buf_free(&res.bytes);
    return code;
}

int verb_set(struct ctl *ctl, int argc, char **argv)
{
    const char *expire = NULL;
    const char *flags = NULL;
    const struct verb_option options[] = { { "--expire", "SECONDS", &expire },
                                           { "--flags", "N", &flags },
                                           { 0 } };
    struct client_result res = { 0 };
    struct op op = { .code = OP_SET };
    uint64_t expire_sec = 0;
    uint64_t flags_number = 0;
    struct verb_words w;
    int code;

    if (!verb_args(ctl, verb_find("set"), argc, argv, options, 2, 2, &w) ||
        !verb_number(ctl, "--expire", expire, UINT32_MAX / 2, &expire_sec) ||
        !verb_number(ctl, "--flags", flags, UINT32_MAX, &flags_number)) {
        return VERB_USAGE;
    }
    op.flags = (uint32_t) flags_number;
    op.exptime = (int64_t) expire_sec;
    if (expire_sec > RELATIVE_SEC_MAX) {
        op.exptime += time(NULL);
    }
    op.value = (const uint8_t *) w.v[1];
    op.value_len = (uint32_t) strlen(w.v[1]);
    code = data_run(ctl, &op, w.v[0], RESULT_STORED, &res);
    if (code == VERB_OK) {
        printf("stored\n");
    }
    buf_free(&res.bytes);
    return code;
}

int verb_delete(struct ctl *ctl, int argc, char **argv)
{
    struct client_result res = { 0 };
    struct op op = { .code = OP_DELETE };
    struct verb_words w;
    int code;

    if (!verb_args(ctl, verb_find("delete"), argc, argv, no_options, 1, 1, &w)) {
        return VERB_USAGE;
    }
    code = data_run(ctl, &op, w.v[0], RESULT_DELETED, &res);
    if (code == VERB_OK) {
        printf("deleted\n");
    }
    buf_free(&res.bytes);
    return code;
}
