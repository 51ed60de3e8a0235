/*
 * save.h: large images from the stack into their slots.
 */
#ifndef CORO_SAVE_H
#define CORO_SAVE_H

#include <stddef.h>

/* Copies units * 32 bytes that end at from_end to where to_end ends; both aligned to 32. */
typedef void coro_save_fn(char *to_end, const char *from_end, size_t units);

/* The quickest one for this processor. */
coro_save_fn *coro_choose_save(void);

#endif
