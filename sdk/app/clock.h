/*
 * clock.h: the only reader of time in the SDK.
 */
#ifndef APP_CLOCK_H
#define APP_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in microseconds. */
uint64_t clock_now_us(void);
/* What this thread has used of a processor, in nanoseconds; a system call. */
uint64_t clock_thread_ns(void);

#endif
