/*
 * diff.c: how an exception gets into its line.
 */
#include "csb/diff.h"

enum csb_added csb_diff_add(struct csb_diff *diff, uint32_t key, uint16_t tid)
{
    uint32_t at = csb_diff_home(key, diff->line_count);

    for (uint32_t step = 0; step < diff->line_count; step++) {
        struct csb_line *line = &diff->lines[at];
        uint32_t found = csb_line_match(line, key);

        if (found != 0) {
            if (line->tid[__builtin_ctz(found)] == tid)
                return CSB_ADDED_BEFORE;
            line->conflicted |= (uint16_t)found;
            return CSB_ADDED_CONFLICT;
        }
        if (line->count < CSB_LINE_KEYS) {
            line->key[line->count] = key;
            line->tid[line->count++] = (uint8_t)tid;
            return CSB_ADDED;
        }
        line->is_spilled = 1;
        at = at + 1 < diff->line_count ? at + 1 : 0;
    }
    return CSB_ADDED_NONE;
}
