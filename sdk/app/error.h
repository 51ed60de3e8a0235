/*
 * error.h: filling struct janus_error.
 */
#ifndef APP_ERROR_H
#define APP_ERROR_H

#include "app/thread_api.h"

/* Fills error (null is allowed) and returns -code. */
__attribute__((format(printf, 3, 4))) int error_set(struct janus_error *error, int code, const char *format, ...);

#endif
