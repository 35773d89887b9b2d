/* Values of settings as text: numbers with units, both ways. */
#pragma once

#include "io/conf.h"

#define CONF_VALUE_TEXT_BYTES 40

/* "64 MiB", "200 ms", "17": a number as an operator would write it. Returns out. */
const char *conf_format_value(enum conf_type type, uint64_t value,
                              char out[static CONF_VALUE_TEXT_BYTES]);

/* "a size from 1 KiB to 64 MiB, such as 65536, 64k or 1 MiB" and the like: what an option allows.
 */
void conf_format_allowed(const struct conf_option *option, char *out, size_t bytes);
