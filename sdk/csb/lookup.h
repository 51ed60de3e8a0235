/*
 * lookup.h: key to tid, the hot path of every I/O thread.
 */
#ifndef CSB_LOOKUP_H
#define CSB_LOOKUP_H

#include "csb/circle.h"

/* The owner of key on H_new: the successor point, inclusive, wrapping; CSB_NO_TID when the circle is empty. */
static inline uint16_t csb_lookup(const struct csb_map *map, uint32_t key)
{
    uint16_t slot = map->slot[key >> CSB_SLOT_SHIFT];

    if (__builtin_expect(!(slot & CSB_SLOT_MIXED), 1))
        return slot;
    uint32_t i = slot & (uint16_t)~CSB_SLOT_MIXED;
    i += map->points[i].point < key; /* no branch: most mixed slots have one point, which keys pass as they please */
    while (__builtin_expect(i < map->point_count && map->points[i].point < key, 0))
        i++;
    return (uint16_t)map->points[i < map->point_count ? i : 0].tid;
}

#endif
