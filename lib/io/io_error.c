#include "io/io_error.h"

#include <stdarg.h>
#include <stdio.h>

int io_error_set(struct io_error *error, int code, const char *fmt, ...)
{
    va_list ap;

    if (error) {
        va_start(ap, fmt);
        vsnprintf(error->text, sizeof(error->text), fmt, ap);
        va_end(ap);
    }
    return code;
}
