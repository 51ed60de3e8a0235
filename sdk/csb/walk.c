/*
 * walk.c: rows in blocks: a first, branchless look at the slot alone, then the full question for what is left.
 */
#include "csb/walk.h"

#include <string.h>

enum { BLOCK = 64 };

void csb_plan_init(struct csb_plan *plan, const struct csb_map *next, const struct csb_view *now)
{
    memcpy(&plan->next, next, offsetof(struct csb_map, points) + next->point_count * sizeof next->points[0]);
    for (uint32_t i = 0; i < CSB_SLOT_COUNT; i++)
        plan->slot[i] = next->slot[i] & CSB_SLOT_MIXED ? CSB_PLAN_ASK : next->slot[i];
    for (uint32_t i = 0; now != NULL && i < now->exact_size; i++) {
        uint64_t hash = csb_view_exact(now)[i].hash; /* each conflicted key has a flow here */

        if (hash != 0)
            plan->slot[csb_key(hash) >> CSB_SLOT_SHIFT] = CSB_PLAN_ASK;
    }
}

static inline uint32_t rows_of_block(uint32_t left, uint32_t budget, uint32_t room)
{
    uint32_t rows = left < BLOCK ? left : BLOCK;

    rows = rows < budget ? rows : budget;
    return rows < room ? rows : room;
}

uint32_t csb_walk(const struct csb_plan *plan, const struct csb_view *now, uint16_t tid, const uint64_t *column,
                  uint32_t rows, uint32_t *cursor, uint32_t budget, uint64_t *out, uint32_t room)
{
    uint32_t written = 0, at = *cursor;

    while (at < rows) {
        uint64_t maybe[BLOCK];
        uint32_t n = 0, some = rows_of_block(rows - at, budget, room - written);

        if (some == 0)
            break;
        for (uint32_t i = 0; i < some; i++) {
            uint64_t hash = column[at + i];

            maybe[n] = hash;
            n += plan->slot[csb_key(hash) >> CSB_SLOT_SHIFT] != tid;
        }
        for (uint32_t i = 0; i < n; i++) {
            out[written] = maybe[i];
            written += maybe[i] != 0 && csb_plan_concerns(plan, now, tid, maybe[i]);
        }
        at += some;
        budget -= some;
    }
    *cursor = at;
    return written;
}

uint32_t csb_walk_check(const struct csb_view *draft, uint16_t tid, const uint64_t *column, uint32_t rows,
                        uint32_t *cursor, uint32_t budget, uint64_t *out, uint32_t room)
{
    uint32_t written = 0, at = *cursor;

    while (at < rows) {
        uint16_t tids[BLOCK];
        uint32_t some = rows_of_block(rows - at, budget, room - written);

        if (some == 0)
            break;
        csb_view_lookup_batch(draft, column + at, tids, some);
        for (uint32_t i = 0; i < some; i++) {
            uint64_t hash = column[at + i];

            if (hash != 0 && tids[i] != tid)
                out[written++] = hash;
        }
        at += some;
        budget -= some;
    }
    *cursor = at;
    return written;
}
