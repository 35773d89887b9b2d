/* Judges a history: judge FILE... Every key's operations must be linearizable (tests/lin); counters
 * and sets are checked by the linear checks as well. Prints what is wrong, then one line of counts;
 * exit status 1 when anything is. */
#include "notes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 60 /* operations of a wrong key */
#define WRONG_MAX 5  /* keys that are shown */

struct counts {
    size_t keys;
    size_t ops;
    size_t unknown;
    size_t visited;
    size_t wrong;
};

/* The last read of the key that was answered, or NULL. */
static const struct lin_op *last_read(const struct lin_op *ops, size_t n)
{
    const struct lin_op *last = NULL;

    for (size_t i = 0; i < n; i++) {
        if (ops[i].code == OP_GET &&
            (ops[i].result == RESULT_VALUE || ops[i].result == RESULT_NOT_FOUND) &&
            (!last || ops[i].call > last->call)) {
            last = &ops[i];
        }
    }
    return last;
}

/* The linear checks hold at the end only: the last read must come after all else. */
static const char *check_end(char kind, const struct lin_op *ops, size_t n)
{
    const struct lin_op *last = last_read(ops, n);
    const uint8_t *value = last && last->result == RESULT_VALUE ? last->value : NULL;
    size_t bytes = value ? last->value_len : 0;

    if (kind == KEY_COUNTER) {
        char text[24] = "";
        memcpy(text, value ? (const char *) value : "", bytes < sizeof(text) ? bytes : 0);
        return lin_check_counter(ops, n, 0, strtoull(text, NULL, 10)) < 0
                   ? "the counter's end is not what was counted"
                   : NULL;
    }
    if (kind != KEY_SET) {
        return NULL;
    }
    switch (lin_check_elements(ops, n, ELEMENT_BYTES, value, bytes)) {
    case 0:
        return NULL;
    case -ENOENT:
        return "an element that was acknowledged is lost";
    case -EEXIST:
        return "an element is there twice";
    default:
        return "there is an element that nobody added";
    }
}

static void show(const char *key, const struct lin_op *ops, size_t n, size_t from, const char *why)
{
    size_t end = from + SHOWN_MAX < n ? from + SHOWN_MAX : n;

    printf("key %s is wrong: %s; its operations %zu to %zu of %zu:\n", key, why, from, end, n);
    for (size_t i = from; i < end; i++) {
        lin_print(stdout, &ops[i]);
    }
}

static void judge_key(const char *key, struct lin_op *ops, size_t n, struct counts *counts)
{
    struct lin_report report;
    const char *why = check_end(key[0], ops, n);
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        counts->unknown += ops[i].ret == LIN_NEVER;
    }
    if (lin_check(ops, n, &report) != LIN_OK) {
        why = why ? why : report.why;
        from = report.stuck > SHOWN_MAX / 2 ? report.stuck - SHOWN_MAX / 2 : 0;
    }
    counts->keys++;
    counts->ops += n;
    counts->visited += report.visited;
    counts->wrong += why != NULL;
    if (why && counts->wrong <= WRONG_MAX) {
        show(key, ops, n, from, why);
    }
}

static void judge_all(struct notes *notes, struct counts *counts)
{
    struct lin_op *ops = calloc(notes->n + 1, sizeof(*ops));

    if (!ops) {
        abort();
    }
    notes_sort(notes);
    for (size_t begin = 0, end; begin < notes->n; begin = end) {
        for (end = begin; end < notes->n && strcmp(notes->v[end].key, notes->v[begin].key) == 0;
             end++) {
            ops[end - begin] = notes->v[end].op;
        }
        judge_key(notes->v[begin].key, ops, end - begin, counts);
    }
    free(ops);
}

int main(int argc, char **argv)
{
    struct counts counts = { 0 };
    struct notes notes = { 0 };

    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "re");
        size_t line = 0;
        int r = f ? notes_read(&notes, f, &line) : -errno;
        if (r < 0) {
            fprintf(stderr, "%s:%zu: %s\n", argv[i], line, strerrordesc_np(-r));
            return 2;
        }
        fclose(f);
    }
    judge_all(&notes, &counts);
    printf("%zu keys, %zu operations, %zu of unknown outcome, %zu configurations: %zu keys wrong\n",
           counts.keys, counts.ops, counts.unknown, counts.visited, counts.wrong);
    notes_free(&notes);
    return counts.wrong > 0;
}
