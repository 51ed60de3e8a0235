/*
 * refuse.h: how a call of glue.h says why it failed.
 */
#ifndef DPDK_GLUE_REFUSE_H
#define DPDK_GLUE_REFUSE_H

#include "dpdk_glue/glue.h"

/* Fills why (which may be null) and returns -code; code is an errno, above 0. */
__attribute__((format(printf, 3, 4))) int refuse(struct glue_text *why, int code, const char *format, ...);

#endif
