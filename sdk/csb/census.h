/*
 * census.h: how many exceptions of which tid are in which slot: what a slot's move would bring home.
 */
#ifndef CSB_CENSUS_H
#define CSB_CENSUS_H

#include "csb/view.h"

struct csb_strangers {
    uint16_t slot, tid;
    uint32_t count; /* keys of tid in a slot that is another's */
};

/* Fills out, sorted by slot; returns how many there are, at most room are written.  counts: scratch, CSB_SLOT_COUNT * CSB_TIDS_MAX of them.
 * Flows of conflicted keys are left out. */
uint32_t csb_view_census(const struct csb_view *view, uint32_t *counts, struct csb_strangers *out, uint32_t room);

#endif
