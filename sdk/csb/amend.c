/*
 * amend.c: what is reported late gets into a view that nobody has seen yet.
 */
#include "csb/hash.h"
#include "csb/view.h"

/* False: the flows of the key have several owners, or every line is full. */
static bool amend_flow(struct csb_view *view, uint64_t hash, uint16_t tid)
{
    struct csb_diff diff = {view->lines, view->line_count};
    uint32_t key = csb_key(hash);
    uint16_t *slot = &view->slot[key >> CSB_SLOT_SHIFT];
    enum csb_added added = csb_diff_add(&diff, key, tid);

    if (added != CSB_ADDED && added != CSB_ADDED_BEFORE)
        return false;
    view->exception_count += added == CSB_ADDED;
    view->flagged_count += !(*slot & CSB_SLOT_FLAG);
    *slot |= CSB_SLOT_FLAG;
    return added == CSB_ADDED || !csb_view_is_conflicted(view, key);
}

bool csb_view_amend(struct csb_view *view, const struct csb_list *lists, uint32_t list_count)
{
    for (uint32_t i = 0; i < list_count; i++) {
        if (lists[i].tid >= CSB_TIDS_MAX)
            return false;
        for (uint32_t j = 0; j < lists[i].count; j++) {
            if (lists[i].hashes[j] != 0 && !amend_flow(view, lists[i].hashes[j], lists[i].tid))
                return false;
        }
    }
    return true;
}
