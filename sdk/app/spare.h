/*
 * spare.h: memory that nothing uses any more goes back to the machine, one piece a millisecond at most.
 *
 * Rows of a session lie in a memory file, where a hole is made, the rest in private memory.  Both are zero when they are touched again.
 */
#ifndef APP_SPARE_H
#define APP_SPARE_H

#include "app/thread.h"

/* Private memory: the pages wholly in it. */
void spare_discard(void *memory, size_t bytes);
/* One step, when t->spare_us has come. */
void spare_turn(struct janus_thread *t);
/* When the next is worth the while; UINT64_MAX: nothing is spare. */
uint64_t spare_next_us(const struct janus_thread *t);

#endif
