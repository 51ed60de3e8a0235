/*
 * refuse.c: one sentence for a person.
 */
#include "dpdk_glue/refuse.h"

#include <stdarg.h>
#include <stdio.h>

int refuse(struct glue_text *why, int code, const char *format, ...)
{
    if (why != NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(why->text, sizeof why->text, format, args);
        va_end(args);
        why->code = code;
    }
    return -code;
}
