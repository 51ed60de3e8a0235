/*
 * csb_faithful.c: binary searches, a textbook Bloom filter, two walks, qsort: the printed form, nothing added.
 */
#include "csb_faithful.h"

#include <stdlib.h>
#include <string.h>

/* Out of memory ends a test or a benchmark; there is nobody to tell. */
static void *must(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

static uint32_t murmur3_of_key(uint32_t key, uint32_t seed)
{
    uint32_t k = key * 0xcc9e2d51, h = seed;

    k = (k << 15 | k >> 17) * 0x1b873593;
    h ^= k;
    h = (h << 13 | h >> 19) * 5 + 0xe6546b64;
    h ^= sizeof key;
    h = (h ^ h >> 16) * 0x85ebca6b;
    h = (h ^ h >> 13) * 0xc2b2ae35;
    return h ^ h >> 16;
}

static uint32_t bloom_position(const struct faithful_bloom *bf, uint32_t key, uint32_t seed)
{
    return (uint32_t)((uint64_t)murmur3_of_key(key, seed) * bf->bit_count >> 32);
}

static void bloom_init(struct faithful_bloom *bf, uint32_t bit_count, uint32_t hash_count)
{
    bf->bits = must(calloc(bit_count / 8 + 1, 1));
    bf->bit_count = bit_count;
    bf->hash_count = hash_count;
}

static void bloom_add(struct faithful_bloom *bf, uint32_t key)
{
    for (uint32_t seed = 0; seed < bf->hash_count; seed++) {
        uint32_t at = bloom_position(bf, key, seed);
        bf->bits[at >> 3] |= (uint8_t)(1 << (at & 7));
    }
}

bool faithful_bloom_has(const struct faithful_bloom *bf, uint32_t key)
{
    for (uint32_t seed = 0; seed < bf->hash_count; seed++) {
        uint32_t at = bloom_position(bf, key, seed);
        if (!(bf->bits[at >> 3] >> (at & 7) & 1))
            return false;
    }
    return true;
}

static int by_point(const void *a, const void *b)
{
    const struct faithful_point *p = a, *q = b;

    if (p->point != q->point)
        return p->point < q->point ? -1 : 1;
    return p->tid < q->tid ? -1 : p->tid > q->tid;
}

static void circle_init(struct faithful_circle *circle, const struct faithful_point *points, uint32_t count)
{
    circle->points = must(malloc((count + 1) * sizeof *points));
    circle->count = count;
    if (count > 0)
        memcpy(circle->points, points, count * sizeof *points);
    qsort(circle->points, count, sizeof *points, by_point);
}

uint32_t faithful_circle_owner(const struct faithful_circle *circle, uint32_t key)
{
    uint32_t low = 0, high = circle->count;

    if (high == 0)
        return FAITHFUL_NO_TID;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (circle->points[middle].point < key)
            low = middle + 1;
        else
            high = middle;
    }
    return circle->points[low < circle->count ? low : 0].tid;
}

static uint32_t set_cell(const struct faithful_set *set, uint32_t key)
{
    uint32_t at = murmur3_of_key(key, 0) & (set->size - 1);

    while (set->cells[at] != 0 && set->cells[at] != (uint64_t)key + 1)
        at = (at + 1) & (set->size - 1);
    return at;
}

bool faithful_set_has(const struct faithful_set *set, uint32_t key)
{
    return set->count > 0 && set->cells[set_cell(set, key)] != 0;
}

static void set_add(struct faithful_set *set, uint32_t key)
{
    if (set->count * 2 >= set->size) {
        struct faithful_set bigger = {.size = set->size ? set->size * 2 : 64};

        bigger.cells = must(calloc(bigger.size, sizeof *bigger.cells));
        for (uint32_t i = 0; i < set->size; i++) {
            if (set->cells[i] != 0)
                set_add(&bigger, (uint32_t)(set->cells[i] - 1));
        }
        free(set->cells);
        *set = bigger;
    }
    uint32_t at = set_cell(set, key);
    set->count += set->cells[at] == 0;
    set->cells[at] = (uint64_t)key + 1;
}

static void set_free(struct faithful_set *set)
{
    free(set->cells);
    *set = (struct faithful_set){0};
}

void faithful_init(struct faithful_csb *csb, const struct faithful_point *points, uint32_t count)
{
    *csb = (struct faithful_csb){0};
    circle_init(&csb->h_new, points, count);
}

void faithful_free(struct faithful_csb *csb)
{
    free(csb->h_new.points);
    free(csb->h_diff.points);
    free(csb->bf.bits);
    free(csb->next_h_new.points);
    free(csb->next_h_diff.points);
    free(csb->next_bf.bits);
    free(csb->set_diff);
    set_free(&csb->set_fly);
    set_free(&csb->flying);
    *csb = (struct faithful_csb){0};
}

uint32_t faithful_lookup(struct faithful_csb *csb, uint32_t key, bool is_syn)
{
    if (is_syn && csb->is_open)
        set_add(&csb->flying, key);
    if (faithful_set_has(&csb->flying, key))
        return faithful_circle_owner(&csb->next_h_new, key);
    if (faithful_set_has(&csb->set_fly, key))
        return faithful_circle_owner(&csb->h_new, key);
    if (csb->h_diff.count > 0 && faithful_bloom_has(&csb->bf, key))
        return faithful_circle_owner(&csb->h_diff, key);
    return faithful_circle_owner(&csb->h_new, key);
}

void faithful_step_1_place(struct faithful_csb *csb, const struct faithful_point *points, uint32_t count,
                           uint32_t bit_count, uint32_t hash_count)
{
    circle_init(&csb->next_h_new, points, count);
    bloom_init(&csb->next_bf, bit_count, hash_count);
    csb->set_diff_count = 0;
}

void faithful_step_2_open(struct faithful_csb *csb)
{
    csb->is_open = true;
}

void faithful_step_3_filter(struct faithful_csb *csb, const struct faithful_connection *table, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (faithful_circle_owner(&csb->next_h_new, table[i].key) != table[i].tid)
            bloom_add(&csb->next_bf, table[i].key);
    }
}

void faithful_step_4_collect(struct faithful_csb *csb, const struct faithful_connection *table, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!faithful_bloom_has(&csb->next_bf, table[i].key))
            continue;
        if (csb->set_diff_count == csb->set_diff_room) {
            csb->set_diff_room = csb->set_diff_room ? csb->set_diff_room * 2 : 1024;
            csb->set_diff = must(realloc(csb->set_diff, csb->set_diff_room * sizeof *csb->set_diff));
        }
        csb->set_diff[csb->set_diff_count++] = (struct faithful_point){table[i].key, table[i].tid};
    }
}

/* Neighbours of one thread become one point, the last of them; of equal keys the last stays, as a key has one point. */
void faithful_step_5_merge(struct faithful_csb *csb)
{
    struct faithful_point *out = NULL;
    uint32_t count = 0;

    if (csb->set_diff_count > 0)
        qsort(csb->set_diff, csb->set_diff_count, sizeof *csb->set_diff, by_point);
    out = must(malloc((csb->set_diff_count + 1) * sizeof *out));
    for (uint32_t i = 0; i < csb->set_diff_count; i++) {
        struct faithful_point p = csb->set_diff[i];

        if (count > 0 && (out[count - 1].tid == p.tid || out[count - 1].point == p.point))
            count--;
        out[count++] = p;
    }
    csb->next_h_diff = (struct faithful_circle){out, count};
}

void faithful_step_6_publish(struct faithful_csb *csb)
{
    struct faithful_set kept = {0};

    free(csb->h_new.points);
    free(csb->h_diff.points);
    free(csb->bf.bits);
    set_free(&csb->set_fly);
    csb->h_new = csb->next_h_new;
    csb->h_diff = csb->next_h_diff;
    csb->bf = csb->next_bf;
    for (uint32_t i = 0; i < csb->flying.size; i++) { /* equation 1 */
        uint32_t key = (uint32_t)(csb->flying.cells[i] - 1);

        if (csb->flying.cells[i] != 0 && csb->h_diff.count > 0 && faithful_bloom_has(&csb->bf, key) &&
            faithful_circle_owner(&csb->h_diff, key) != faithful_circle_owner(&csb->h_new, key))
            set_add(&kept, key);
    }
    csb->set_fly = kept;
    set_free(&csb->flying);
    csb->next_h_new = csb->next_h_diff = (struct faithful_circle){0};
    csb->next_bf = (struct faithful_bloom){0};
    csb->is_open = false;
}
