/*
 * circle.c: from any set of points to a map that can be published, and where a tid's points lie.
 */
#include "csb/circle.h"

#include "csb/hash.h"

#include <string.h>

enum {
    PLACE_SEED = 0x6a616e75, /* fixed: the same tids have the same points after a restart */
    RADIX_BITS = 8,
    RADIX = 1 << RADIX_BITS,
};

/* Sorts by point, least significant byte first.  scratch has room for count. */
static void sort_points(struct csb_point *points, struct csb_point *scratch, uint32_t count)
{
    struct csb_point *from = points, *to = scratch;

    /* Four passes: an even number, so the last one ends in points. */
    for (int shift = 0; shift < 32; shift += RADIX_BITS) {
        uint32_t start[RADIX] = {0}, sum = 0;

        for (uint32_t i = 0; i < count; i++)
            start[from[i].point >> shift & (RADIX - 1)]++;
        for (uint32_t digit = 0; digit < RADIX; digit++) {
            uint32_t n = start[digit];
            start[digit] = sum;
            sum += n;
        }
        for (uint32_t i = 0; i < count; i++)
            to[start[from[i].point >> shift & (RADIX - 1)]++] = from[i];
        struct csb_point *swap = from;
        from = to;
        to = swap;
    }
}

static void fill_slots(struct csb_map *map)
{
    uint32_t i = 0; /* the first point at or after the slot's first key */

    for (uint32_t slot = 0; slot < CSB_SLOT_COUNT; slot++) {
        uint32_t first = slot << CSB_SLOT_SHIFT;
        uint32_t last = first + ((UINT32_C(1) << CSB_SLOT_SHIFT) - 1);

        while (i < map->point_count && map->points[i].point < first)
            i++;
        if (map->point_count == 0)
            map->slot[slot] = CSB_NO_TID;
        else if (i < map->point_count && map->points[i].point < last)
            map->slot[slot] = (uint16_t)(CSB_SLOT_MIXED | i);
        else
            map->slot[slot] = (uint16_t)map->points[i < map->point_count ? i : 0].tid;
    }
}

bool csb_map_build(struct csb_map *map, const struct csb_point *points, uint32_t count, uint64_t epoch)
{
    struct csb_point sorted[CSB_POINTS_MAX], scratch[CSB_POINTS_MAX];

    if (count > CSB_POINTS_MAX)
        return false;
    if (count > 0) {
        memcpy(sorted, points, count * sizeof *points);
        sort_points(sorted, scratch, count);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (sorted[i].tid >= CSB_TIDS_MAX || (i > 0 && sorted[i].point == sorted[i - 1].point))
            return false;
    }
    map->epoch = epoch;
    map->point_count = count;
    map->reserved = 0;
    if (count > 0)
        memcpy(map->points, sorted, count * sizeof *sorted);
    fill_slots(map);
    return true;
}

static bool is_taken(const struct csb_point *points, uint32_t count, uint32_t point)
{
    for (uint32_t i = 0; i < count; i++) {
        if (points[i].point == point)
            return true;
    }
    return false;
}

bool csb_place_tid(struct csb_point *points, uint32_t *count, uint32_t tid, uint32_t n)
{
    if (tid >= CSB_TIDS_MAX || *count > CSB_POINTS_MAX || n > CSB_POINTS_MAX - *count)
        return false;
    for (uint32_t draw = 0, placed = 0; placed < n; draw++) {
        uint32_t point = csb_murmur3((uint64_t)tid << 32 | draw, PLACE_SEED);

        if (is_taken(points, *count, point))
            continue;
        points[(*count)++] = (struct csb_point){point, tid};
        placed++;
    }
    return true;
}
