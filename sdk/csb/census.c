/*
 * census.c: one pass over the lines.
 */
#include "csb/census.h"

#include <string.h>

uint32_t csb_view_census(const struct csb_view *view, uint32_t *counts, struct csb_strangers *out, uint32_t room)
{
    uint32_t found = 0;

    memset(counts, 0, (uint64_t)CSB_SLOT_COUNT * CSB_TIDS_MAX * sizeof *counts);
    for (uint32_t i = 0; i < view->line_count; i++) {
        const struct csb_line *line = &view->lines[i];

        for (uint32_t k = 0; k < line->count; k++) {
            if (!(line->conflicted >> k & 1))
                counts[(line->key[k] >> CSB_SLOT_SHIFT) * CSB_TIDS_MAX + line->tid[k]]++;
        }
    }
    for (uint32_t at = 0; at < CSB_SLOT_COUNT * CSB_TIDS_MAX; at++) {
        if (counts[at] == 0)
            continue;
        if (found < room)
            out[found] =
                (struct csb_strangers){(uint16_t)(at / CSB_TIDS_MAX), (uint16_t)(at % CSB_TIDS_MAX), counts[at]};
        found++;
    }
    return found;
}
