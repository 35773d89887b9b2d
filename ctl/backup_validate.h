/* Is a backup whole? */
#pragma once

#include "io/datadir.h"

/* Opens it as a start of the server would, and looks that every record's bytes are there, without
 * reading them. *ret_records: how many it has; *ret_generation: of its checkpoints, 0: none.
 * -errno with a sentence. */
int backup_validate(const char *dir, uint64_t *ret_records, uint64_t *ret_generation,
                    struct io_error *error);
