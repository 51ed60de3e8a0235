/*
 * view.c: a view is built from what the tids report, and asked; bursts are in view_batch.c.
 */
#include "csb/view.h"

#include "csb/hash.h"

#include <string.h>

enum {
    AHEAD = 24, /* entries between the fetch of a line and its use */
};

static uint64_t bytes_of(uint32_t lines, uint32_t cells)
{
    return sizeof(struct csb_view) + (uint64_t)lines * sizeof(struct csb_line) +
           (uint64_t)cells * sizeof(struct csb_exact);
}

uint64_t csb_view_bytes(uint64_t reported, uint32_t members)
{
    return bytes_of(csb_diff_lines(reported), csb_exact_size(members));
}

static void start(struct csb_view *view, const struct csb_map *map, uint32_t lines)
{
    memset(view, 0, offsetof(struct csb_view, slot));
    view->line_count = lines;
    memcpy(&view->map, map, offsetof(struct csb_map, points) + map->point_count * sizeof map->points[0]);
    memset(view->lines, 0, (uint64_t)lines * sizeof view->lines[0]);
    for (uint32_t i = 0; i < CSB_SLOT_COUNT; i++)
        view->slot[i] = map->point_count == 0 ? CSB_SLOT_MIXED : map->slot[i];
}

/* Enters every flow's key; returns whether some key is conflicted. */
static bool enter_keys(struct csb_view *view, const struct csb_list *list)
{
    struct csb_diff diff = {view->lines, view->line_count};
    bool has_conflict = false;

    for (uint32_t i = 0; i < list->count; i++) {
        uint32_t key = csb_key(list->hashes[i]);

        if (i + AHEAD < list->count)
            __builtin_prefetch(&view->lines[csb_diff_home(csb_key(list->hashes[i + AHEAD]), view->line_count)], 1);
        if (list->hashes[i] == 0)
            continue;
        enum csb_added added = csb_diff_add(&diff, key, list->tid);
        view->exception_count += added == CSB_ADDED;
        has_conflict |= added == CSB_ADDED_CONFLICT;
        view->slot[key >> CSB_SLOT_SHIFT] |= CSB_SLOT_FLAG;
    }
    return has_conflict;
}

bool csb_view_is_conflicted(const struct csb_view *view, uint32_t key)
{
    uint32_t index;
    const struct csb_line *line;

    if (!(view->slot[key >> CSB_SLOT_SHIFT] & CSB_SLOT_FLAG))
        return false;
    line = csb_diff_find(view->lines, view->line_count, key, &index);
    return line != NULL && line->conflicted >> index & 1;
}

/* Counts the flows that the exact table must hold and, with cells, puts them there. */
static uint32_t enter_exact(const struct csb_view *view, const struct csb_list *lists, uint32_t list_count,
                            struct csb_exact *cells)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < list_count; i++) {
        for (uint32_t j = 0; j < lists[i].count; j++) {
            uint64_t hash = lists[i].hashes[j];

            if (hash == 0 || !csb_view_is_conflicted(view, csb_key(hash)) ||
                csb_lookup(&view->map, csb_key(hash)) == lists[i].tid)
                continue;
            count++;
            if (cells != NULL)
                csb_exact_add(cells, view->exact_size, hash, lists[i].tid);
        }
    }
    return count;
}

uint64_t csb_view_build(void *memory, uint64_t room, const struct csb_map *map, const struct csb_list *lists,
                        uint32_t list_count)
{
    struct csb_view *view = memory;
    uint64_t reported = 0, bytes;
    bool has_conflict = false;

    for (uint32_t i = 0; i < list_count; i++) {
        if (lists[i].tid >= CSB_TIDS_MAX)
            return 0;
        reported += lists[i].count;
    }
    bytes = csb_view_bytes(reported, 0);
    if (bytes > room)
        return bytes;
    start(view, map, csb_diff_lines(reported));
    for (uint32_t i = 0; i < list_count; i++)
        has_conflict |= enter_keys(view, &lists[i]);
    if (has_conflict) {
        struct csb_exact *cells = (struct csb_exact *)(view->lines + view->line_count);

        view->exact_count = enter_exact(view, lists, list_count, NULL);
        view->exact_size = csb_exact_size(view->exact_count);
        bytes = bytes_of(view->line_count, view->exact_size);
        if (bytes > room)
            return bytes;
        memset(cells, 0, view->exact_size * sizeof *cells);
        enter_exact(view, lists, list_count, cells);
    }
    for (uint32_t i = 0; i < CSB_SLOT_COUNT; i++)
        view->flagged_count += (view->slot[i] & CSB_SLOT_FLAG) != 0;
    view->bytes = bytes;
    return bytes;
}

static bool is_dead(const uint64_t dead[CSB_TIDS_MAX / 64], uint32_t tid)
{
    return tid < CSB_TIDS_MAX && (dead[tid / 64] >> (tid % 64) & 1);
}

/* Takes key i out; the last one takes its place.  The line still says if it had spilled. */
static void take_out(struct csb_line *line, uint32_t i)
{
    uint32_t last = --line->count;

    line->key[i] = line->key[last];
    line->tid[i] = line->tid[last];
    line->conflicted = (uint16_t)((line->conflicted & ~(1u << i)) | (line->conflicted >> last & 1u) << i);
    line->conflicted &= (uint16_t) ~(1u << last);
}

uint64_t csb_view_inherit(void *memory, uint64_t room, const struct csb_map *map, const struct csb_view *now,
                          const uint64_t dead[CSB_TIDS_MAX / 64])
{
    struct csb_view *view = memory;

    if (now->bytes > room)
        return now->bytes;
    memcpy(view, now, now->bytes);
    memcpy(&view->map, map, offsetof(struct csb_map, points) + map->point_count * sizeof map->points[0]);
    for (uint32_t i = 0; i < CSB_SLOT_COUNT; i++)
        view->slot[i] = (map->point_count == 0 ? CSB_SLOT_MIXED : map->slot[i]) | (now->slot[i] & CSB_SLOT_FLAG);
    view->exception_count = 0;
    for (uint32_t i = 0; i < view->line_count; i++) {
        struct csb_line *line = &view->lines[i];

        for (uint32_t j = line->count;
             j-- > 0;) { /* a conflicted key stays so: its other flows are in the exact table */
            if (is_dead(dead, line->tid[j]) && !(line->conflicted >> j & 1))
                take_out(line, j);
        }
        view->exception_count += line->count;
    }
    struct csb_exact *cells = (struct csb_exact *)(view->lines + view->line_count);
    for (uint32_t i = 0; i < view->exact_size; i++) {
        if (cells[i].hash != 0 && is_dead(dead, cells[i].tid))
            cells[i].tid = csb_lookup(map, csb_key(cells[i].hash));
    }
    return view->bytes;
}

void csb_view_flag(struct csb_view *view, const uint64_t flagged[CSB_SLOT_COUNT / 64])
{
    view->flagged_count = 0;
    for (uint32_t i = 0; i < CSB_SLOT_COUNT; i++) {
        if (flagged[i / 64] >> (i % 64) & 1)
            view->slot[i] |= CSB_SLOT_FLAG;
        view->flagged_count += (view->slot[i] & CSB_SLOT_FLAG) != 0;
    }
}

/* What H_diff's line says: the exact table's word for a conflicted key, H_new's for its newcomers. */
static uint16_t by_line(const struct csb_view *view, const struct csb_line *line, uint32_t index, uint64_t hash)
{
    int tid;

    if (__builtin_expect(!(line->conflicted >> index & 1), 1))
        return line->tid[index];
    tid = csb_exact_find(csb_view_exact(view), view->exact_size, hash);
    return tid >= 0 ? (uint16_t)tid : csb_lookup(&view->map, csb_key(hash));
}

uint16_t csb_view_lookup_further(const struct csb_view *view, uint64_t hash)
{
    uint32_t key = csb_key(hash), index;
    const struct csb_line *line = NULL;

    if (view->slot[key >> CSB_SLOT_SHIFT] & CSB_SLOT_FLAG)
        line = csb_diff_find(view->lines, view->line_count, key, &index);
    return line != NULL ? by_line(view, line, index, hash) : csb_lookup(&view->map, key);
}

enum csb_decider csb_view_explain(const struct csb_view *view, uint64_t hash, uint16_t *tid, uint16_t *home)
{
    uint32_t key = csb_key(hash), index;
    const struct csb_line *line = NULL;

    *home = csb_lookup(&view->map, key);
    *tid = csb_view_lookup(view, hash);
    if (view->slot[key >> CSB_SLOT_SHIFT] & CSB_SLOT_FLAG)
        line = csb_diff_find(view->lines, view->line_count, key, &index);
    if (line != NULL && !(line->conflicted >> index & 1))
        return CSB_BY_EXCEPTION;
    if (line != NULL && csb_exact_find(csb_view_exact(view), view->exact_size, hash) >= 0)
        return CSB_BY_EXACT;
    return view->map.slot[key >> CSB_SLOT_SHIFT] & CSB_SLOT_MIXED ? CSB_BY_CIRCLE : CSB_BY_SLOT;
}
