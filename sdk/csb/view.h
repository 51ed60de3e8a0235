/*
 * view.h: all that decides where a packet goes, as one flat value: H_new, H_diff and the exact table (paper section IV).
 *
 *   | head, slots | circle | lines of H_diff ... | exact cells ... |
 *
 * It has no pointers, so that it can be published through shared memory, by one swap; after that it never changes.  Each of
 * the 4,096 slots holds its owner; only a slot with a point inside, or with an exception, is looked at further.
 */
#ifndef CSB_VIEW_H
#define CSB_VIEW_H

#include "csb/circle.h"
#include "csb/diff.h"
#include "csb/exact.h"
#include "csb/lookup.h"

#include <stddef.h>

#define CSB_SLOT_FLAG ((uint16_t)0x4000) /* of a view's slot: some key in it is an exception */

struct csb_view {
    uint64_t bytes; /* of all of it */
    uint32_t line_count;
    uint32_t exact_size;
    uint32_t exception_count; /* keys in H_diff */
    uint32_t exact_count;     /* flows of conflicted keys that H_new would send elsewhere, at most */
    uint32_t flagged_count;   /* slots */
    uint32_t reserved[9];
    uint16_t slot[CSB_SLOT_COUNT]; /* below CSB_SLOT_FLAG: the owner of all of it */
    struct csb_map map;            /* H_new */
    struct csb_line lines[];
};

static_assert(offsetof(struct csb_view, slot) == 64, "the slots begin a cache line");

/* The flows that one tid reports: those that H_new would send elsewhere, and those of conflicted keys. */
struct csb_list {
    const uint64_t *hashes; /* as csb_hash() made them; 0 is left out */
    uint32_t count;
    uint16_t tid;
};

/* Bytes of a view with this many reported flows, of which members are of conflicted keys. */
uint64_t csb_view_bytes(uint64_t reported, uint32_t members);

/* Builds the view of map with the reported flows as exceptions in memory, which is 64-byte aligned and has room bytes.
 * Returns its bytes; if that is above room, there is no view, and another call needs that much.  0: a tid is out of range.
 * A flow that two lists claim belongs to the later one.  O(reported). */
uint64_t csb_view_build(void *memory, uint64_t room, const struct csb_map *map, const struct csb_list *lists,
                        uint32_t list_count);

/* Adds flows that were reported late to a view that nobody has seen yet.  False: flows of one key have several owners now, or
 * the lines are full: it is to be built anew, with all of them. */
bool csb_view_amend(struct csb_view *view, const struct csb_list *lists, uint32_t list_count);

/* The view of map after the tids of dead (a bit each) have gone and only their slots have got other owners: now's exceptions,
 * but theirs.  now: the view in force.  Memory, room and result as above. */
uint64_t csb_view_inherit(void *memory, uint64_t room, const struct csb_map *map, const struct csb_view *now,
                          const uint64_t dead[CSB_TIDS_MAX / 64]);

/* After a restart H_new is known and the exceptions are not: flags the slots that had some, a bit each, which is where a
 * view of them will differ.  Until then such a slot's flows are H_new's. */
void csb_view_flag(struct csb_view *view, const uint64_t flagged[CSB_SLOT_COUNT / 64]);

/* Whether flows of this key have different owners. */
bool csb_view_is_conflicted(const struct csb_view *view, uint32_t key);

/* For slots at or above CSB_SLOT_FLAG. */
uint16_t csb_view_lookup_further(const struct csb_view *view, uint64_t hash);

/* What has decided where a flow goes, for people; the same order as the lookup's. */
enum csb_decider {
    CSB_BY_SLOT,      /* all of the slot is one owner's */
    CSB_BY_CIRCLE,    /* the first point at or after the key */
    CSB_BY_EXCEPTION, /* the key stands in H_diff */
    CSB_BY_EXACT      /* the key has several owners, and the flow an entry of its own */
};

/* The tid that csb_view_lookup() gives, what H_new alone would give, and what decides. */
enum csb_decider csb_view_explain(const struct csb_view *view, uint64_t hash, uint16_t *tid, uint16_t *home);

static inline const struct csb_exact *csb_view_exact(const struct csb_view *view)
{
    return (const struct csb_exact *)(view->lines + view->line_count);
}

/* The tid of a flow, by its hash: an exact entry, else an exception of its key, else H_new.  CSB_NO_TID: nobody. */
static inline uint16_t csb_view_lookup(const struct csb_view *view, uint64_t hash)
{
    uint16_t slot = view->slot[(uint32_t)hash >> CSB_SLOT_SHIFT];

    return __builtin_expect(slot < CSB_SLOT_FLAG, 1) ? slot : csb_view_lookup_further(view, hash);
}

/* The same for a burst, with the lines of exceptions fetched ahead; count is any number. */
void csb_view_lookup_batch(const struct csb_view *view, const uint64_t *hashes, uint16_t *tids, uint32_t count);

#endif
