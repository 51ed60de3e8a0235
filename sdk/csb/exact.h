/*
 * exact.h: the flows of keys that have more than one owner, by all 64 bits of their hash.
 *
 * Two flows with one 32-bit key and different owners cannot both be right in a map of keys.  Such a key is marked as
 * conflicted in H_diff, and each of its flows that H_new would send elsewhere stands here.  Open addressing, at most half
 * full; hash 0 is no flow.
 */
#ifndef CSB_EXACT_H
#define CSB_EXACT_H

#include <stdbool.h>
#include <stdint.h>

struct csb_exact {
    uint64_t hash; /* 0: a free cell */
    uint32_t tid;
    uint32_t reserved;
};

/* Cells for this many flows: a power of two, or 0 for none. */
uint32_t csb_exact_size(uint32_t count);

/* The last owner that was said wins.  There is room for it, hash is not 0, size is not 0. */
void csb_exact_add(struct csb_exact *cells, uint32_t size, uint64_t hash, uint16_t tid);

/* The owner, or -1. */
static inline int csb_exact_find(const struct csb_exact *cells, uint32_t size, uint64_t hash)
{
    if (size == 0)
        return -1;
    for (uint32_t at = (uint32_t)(hash >> 32) & (size - 1); cells[at].hash != 0; at = (at + 1) & (size - 1)) {
        if (cells[at].hash == hash)
            return (int)cells[at].tid;
    }
    return -1;
}

#endif
