/*
 * circle.h: H_new, the unit circle as a sorted array of (point, tid), compiled into a table of 4,096 slots (paper III-C).
 *
 *      0            2^20           2^21                                   2^32
 *      |-- slot 0 --|-- slot 1 --|-- ... one point or none in most ... --|
 *
 * The owner of a key is the first point at or after it, wrapping.  A slot without a point before its last key has one
 * owner; a slot with one is marked CSB_SLOT_MIXED and asks the sorted array.  A map is one flat value without pointers, so
 * that it can be published through shared memory; it is never changed after it has been published.
 */
#ifndef CSB_CIRCLE_H
#define CSB_CIRCLE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CSB_SLOT_COUNT = 4096,
    CSB_SLOT_SHIFT = 20, /* a key's slot is key >> 20 */
    CSB_TIDS_MAX = 256,
    CSB_POINTS_MAX = 4096,
    CSB_POINTS_PER_TID = 16, /* at weight 1 (paper: 16) */
};

#define CSB_SLOT_MIXED ((uint16_t)0x8000)
#define CSB_NO_TID     ((uint16_t)0x7fff)

struct csb_point {
    uint32_t point;
    uint32_t tid;
};

struct csb_map {
    uint64_t epoch;       /* counts publications, from 1 */
    uint32_t point_count; /* 0: no thread serves, every lookup gives CSB_NO_TID */
    uint32_t reserved;
    uint16_t slot[CSB_SLOT_COUNT]; /* tid, or CSB_SLOT_MIXED | index of the first point at or after the slot's start */
    struct csb_point points[CSB_POINTS_MAX]; /* sorted by point, points distinct */
};

/* What janusd shares with an app's threads for good, read-only for them; views come one by one. */
struct csb_region {
    uint64_t secret[2]; /* struct csb_secret */
};

/* Sorts the points and fills the slot table.  False: count is above CSB_POINTS_MAX, two points are equal or a tid is at
 * or above CSB_TIDS_MAX; map is then unchanged.  points may be map->points. */
bool csb_map_build(struct csb_map *map, const struct csb_point *points, uint32_t count, uint64_t epoch);

/* Writes the first n points of tid behind the *count points that are there, and counts them.  Always the same ones
 * (murmur3 of tid and a running number); a point that is there already is left out and the next one taken.  False: tid is
 * at or above CSB_TIDS_MAX or there would be more than CSB_POINTS_MAX; nothing is then written.  points has room for
 * CSB_POINTS_MAX. */
bool csb_place_tid(struct csb_point *points, uint32_t *count, uint32_t tid, uint32_t n);

#endif
