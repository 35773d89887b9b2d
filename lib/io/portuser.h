/* Who holds an address, for an error that helps. Best effort: without the right to look into other
 * users' processes nothing is found. */
#pragma once

#include "io/addr.h"

#include <stdbool.h>

#define PORTUSER_TEXT_BYTES 64

/* Writes "memcached (pid 123)". False when it can't be found out. Looks through /proc: not for hot
 * paths. */
bool portuser_find(const struct addr *addr, char out[static PORTUSER_TEXT_BYTES]);
