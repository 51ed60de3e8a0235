/* csbup.c: the update's parts and the printed form for Python, inline functions wrapped. */
#include "csb/census.h"
#include "csb/update.h"

#include <stdlib.h>

#include "../reference/csb_faithful.c"
#include "csb_sim_events.h"

static uint32_t native_diff_lines(uint64_t count)
{
    return csb_diff_lines(count);
}

/* tid | 256 if the key is conflicted, or -1. */
static int native_diff_find(const struct csb_diff *diff, uint32_t key)
{
    uint32_t index;
    const struct csb_line *line = csb_diff_find(diff->lines, diff->line_count, key, &index);

    return line == NULL ? -1 : line->tid[index] | (line->conflicted >> index & 1) << 8;
}

static int native_exact_find(const struct csb_exact *cells, uint32_t size, uint64_t hash)
{
    return csb_exact_find(cells, size, hash);
}

static uint16_t native_view_lookup(const struct csb_view *view, uint64_t hash)
{
    return csb_view_lookup(view, hash);
}

static struct csb_view *native_view_new(uint64_t bytes)
{
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void native_view_free(struct csb_view *view)
{
    free(view);
}

static bool native_plan_concerns(const struct csb_plan *plan, const struct csb_view *now, uint16_t tid, uint64_t hash)
{
    return csb_plan_concerns(plan, now, tid, hash);
}

static uint16_t native_io_route(const struct csb_io *io, uint64_t hash, bool is_syn)
{
    return csb_io_route(io, hash, is_syn);
}

static bool native_faithful_bf_has(const struct faithful_csb *csb, uint32_t key)
{
    return csb->bf.bits != NULL && faithful_bloom_has(&csb->bf, key);
}

static bool native_faithful_fly_has(const struct faithful_csb *csb, uint32_t key)
{
    return faithful_set_has(&csb->set_fly, key);
}

static struct sim_result native_sim_run(uint64_t seed, uint32_t off, uint64_t updates, uint64_t steps)
{
    return sim_run(seed, off, updates, steps);
}
