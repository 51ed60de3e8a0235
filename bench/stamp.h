/*
 * stamp.h: how soon a server has a message: one that asks for it comes back with the time at which the server had it.
 *
 *   | "stamp me" | clock, 8 bytes | ... |     ns of CLOCK_MONOTONIC, in the machine's byte order: client and server share the clock
 */
#ifndef BENCH_STAMP_H
#define BENCH_STAMP_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { STAMP_WORD = 8, STAMP_BYTES = 16 };

static inline bool stamp_is_wanted(const void *message, size_t len)
{
    return len >= STAMP_BYTES && memcmp(message, "stamp me", STAMP_WORD) == 0;
}

static inline void stamp(void *message)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    memcpy((uint8_t *)message + STAMP_WORD, &ns, sizeof ns);
}

#endif
