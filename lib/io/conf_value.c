#include "io/conf_value.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct conf_unit {
    const char *name;
    uint64_t factor;
};

/* The first name of a factor is the one that is printed. */
static const struct conf_unit conf_sizes[] = {
    { "TiB", 1ULL << 40 }, { "GiB", 1ULL << 30 }, { "MiB", 1ULL << 20 },
    { "KiB", 1ULL << 10 }, { "T", 1ULL << 40 },   { "G", 1ULL << 30 },
    { "M", 1ULL << 20 },   { "K", 1ULL << 10 },   { "B", 1 },
};

static const struct conf_unit conf_durations[] = {
    { "d", 86400000000ULL }, { "h", 3600000000ULL }, { "min", 60000000 },
    { "s", 1000000 },        { "ms", 1000 },         { "us", 1 },
};

/* Digits up to the first other character, which *ret_end points to. */
static int conf_digits(const char *text, uint64_t *ret_value, const char **ret_end)
{
    uint64_t v = 0;

    if (*text < '0' || *text > '9') {
        return -EINVAL;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t) (*text - '0'), &v)) {
            return -ERANGE;
        }
    }
    *ret_value = v;
    *ret_end = text;
    return 0;
}

static const struct conf_unit *conf_unit_find(const struct conf_unit *units, size_t n,
                                              const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcasecmp(units[i].name, name) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

/* Digits, blanks, unit. A number without unit counts as `bare`; 0 means that only 0 may do without.
 */
static int conf_parse_unit(const char *text, const struct conf_unit *units, size_t n, uint64_t bare,
                           uint64_t *ret_value)
{
    const struct conf_unit *unit;
    const char *end;
    uint64_t v;
    int r = conf_digits(text, &v, &end);

    if (r < 0) {
        return r;
    }
    end += strspn(end, " \t");
    if (*end == '\0') {
        if (bare == 0 && v != 0) {
            return -EINVAL;
        }
        *ret_value = v * bare;
        return 0;
    }
    unit = conf_unit_find(units, n, end);
    if (!unit) {
        return -EINVAL;
    }
    return __builtin_mul_overflow(v, unit->factor, ret_value) ? -ERANGE : 0;
}

int conf_parse_uint(const char *text, uint64_t *ret_value)
{
    const char *end;
    uint64_t v;
    int r = conf_digits(text, &v, &end);

    if (r == 0 && *end != '\0') {
        r = -EINVAL;
    }
    if (r == 0) {
        *ret_value = v;
    }
    return r;
}

int conf_parse_size(const char *text, uint64_t *ret_bytes)
{
    uint64_t v;
    int r = conf_parse_unit(text, conf_sizes, ARRAY_LEN(conf_sizes), 1, &v);

    if (r == 0) {
        *ret_bytes = v;
    }
    return r;
}

int conf_parse_duration(const char *text, uint64_t *ret_usec)
{
    uint64_t v;
    int r = conf_parse_unit(text, conf_durations, ARRAY_LEN(conf_durations), 0, &v);

    if (r == 0) {
        *ret_usec = v;
    }
    return r;
}

const char *conf_format_value(enum conf_type type, uint64_t value,
                              char out[static CONF_VALUE_TEXT_BYTES])
{
    const struct conf_unit *units = type == CONF_SIZE ? conf_sizes : conf_durations;
    size_t n = type == CONF_SIZE ? ARRAY_LEN(conf_sizes) : ARRAY_LEN(conf_durations);
    size_t i = 0;

    if (value == 0 || (type != CONF_SIZE && type != CONF_DURATION)) {
        snprintf(out, CONF_VALUE_TEXT_BYTES, "%llu", (unsigned long long) value);
        return out;
    }
    while (i + 1 < n && value % units[i].factor != 0) {
        i++;
    }
    snprintf(out, CONF_VALUE_TEXT_BYTES, "%llu %s", (unsigned long long) (value / units[i].factor),
             units[i].name);
    return out;
}

/* What, from where to where, such as. */
static void conf_format_range(const struct conf_option *option, const char *what, const char *such,
                              char *out, size_t bytes)
{
    char min[CONF_VALUE_TEXT_BYTES];
    char max[CONF_VALUE_TEXT_BYTES];
    char range[128] = "";

    conf_format_value(option->type, option->min, min);
    conf_format_value(option->type, option->max, max);
    if (option->max > 0) {
        snprintf(range, sizeof(range), " from %s to %s", min, max);
    } else if (option->min > 0) {
        snprintf(range, sizeof(range), " of at least %s", min);
    }
    snprintf(out, bytes, "%s%s%s%s%s", what, range, such, option->word ? ", or " : "",
             option->word ? option->word : "");
}

static void conf_format_names(const struct conf_option *option, char *out, size_t bytes)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; option->names[i] && used < bytes; i++) {
        int n = snprintf(out + used, bytes - used, "%s%s", i > 0 ? ", " : "", option->names[i]);
        used += (size_t) n;
    }
}

void conf_format_allowed(const struct conf_option *option, char *out, size_t bytes)
{
    switch (option->type) {
    case CONF_UINT:
        conf_format_range(option, "a number", "", out, bytes);
        break;
    case CONF_SIZE:
        conf_format_range(option, "a size", ", such as 65536, 64k or 1 MiB", out, bytes);
        break;
    case CONF_DURATION:
        conf_format_range(option, "a time", ", such as 200ms, 5s or 10min", out, bytes);
        break;
    case CONF_BOOL:
        snprintf(out, bytes, "yes and no");
        break;
    case CONF_ENUM:
        conf_format_names(option, out, bytes);
        break;
    case CONF_LIST:
        snprintf(out, bytes, "words with commas or blanks between them");
        break;
    default:
        conf_format_range(option, "a text", "", out, bytes);
        if (option->max > 0 || option->min > 0) {
            snprintf(out, bytes, "a text of %llu to %llu bytes", (unsigned long long) option->min,
                     (unsigned long long) (option->max > 0 ? option->max : CONF_LINE_MAX));
        }
        break;
    }
}
