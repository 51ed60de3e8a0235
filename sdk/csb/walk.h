/*
 * walk.h: which flows an update concerns, and the walk over a tid's flows that finds them, a bounded part at a time.
 *
 * A flow concerns update n if H_new(n) gives its key to another tid than the one that has it, or if its key is a
 * conflicted one now.  The walked column has the hash of each row's flow, 0 in a free row: eight bytes a connection, in
 * order, so that the walk reads no TCB.
 */
#ifndef CSB_WALK_H
#define CSB_WALK_H

#include "csb/hash.h"
#include "csb/view.h"

#define CSB_PLAN_ASK ((uint16_t)0xffff) /* of a plan's slot: it depends on the key */

/* What an update intends, one flat value that every walker reads. */
struct csb_plan {
    uint16_t slot[CSB_SLOT_COUNT]; /* the owner of all of the slot, or CSB_PLAN_ASK */
    struct csb_map next;           /* H_new(n) */
};

/* now: the view in force, NULL for none. */
void csb_plan_init(struct csb_plan *plan, const struct csb_map *next, const struct csb_view *now);

/* Whether update n concerns the flow with this hash that tid has. */
static inline bool csb_plan_concerns(const struct csb_plan *plan, const struct csb_view *now, uint16_t tid,
                                     uint64_t hash)
{
    uint32_t key = csb_key(hash);
    uint16_t slot = plan->slot[key >> CSB_SLOT_SHIFT];

    if (__builtin_expect(slot != CSB_PLAN_ASK, 1))
        return slot != tid;
    return csb_lookup(&plan->next, key) != tid || (now != NULL && csb_view_is_conflicted(now, key));
}

/* Walks rows [*cursor, rows), at most budget of them, and writes the hashes of concerned flows; stops earlier when out,
 * which has room for room, could run out.  Moves the cursor; returns how many were written. */
uint32_t csb_walk(const struct csb_plan *plan, const struct csb_view *now, uint16_t tid, const uint64_t *column,
                  uint32_t rows, uint32_t *cursor, uint32_t budget, uint64_t *out, uint32_t room);

/* The same, but writes the flows that a draft of the next view would send to another tid than the one that has them. */
uint32_t csb_walk_check(const struct csb_view *draft, uint16_t tid, const uint64_t *column, uint32_t rows,
                        uint32_t *cursor, uint32_t budget, uint64_t *out, uint32_t room);

#endif
