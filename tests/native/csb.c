/* csb.c: hashes, circle and lookup for Python, inline functions wrapped. */
#include "csb/circle.h"
#include "csb/hash.h"
#include "csb/lookup.h"

static uint32_t native_csb_key(uint64_t hash)
{
    return csb_key(hash);
}

static uint32_t native_csb_table_hash(uint64_t hash)
{
    return csb_table_hash(hash);
}

static uint16_t native_csb_lookup(const struct csb_map *map, uint32_t key)
{
    return csb_lookup(map, key);
}
