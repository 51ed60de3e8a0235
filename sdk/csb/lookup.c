/*
 * lookup.c: the lookup for a burst.
 */
#include "csb/lookup.h"

void csb_lookup_batch(const struct csb_map *map, const uint32_t *keys, uint16_t *tids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tids[i] = csb_lookup(map, keys[i]);
}
