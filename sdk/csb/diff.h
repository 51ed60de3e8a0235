/*
 * diff.h: H_diff, the recorded exceptions to H_new (paper section III-C), exact: key to tid, twelve in a cache line.
 *
 *   | key key key key key key key key key key key key | tid x 12 | conflicted | count | is_spilled |
 *     48 bytes                                          12         2            1       1
 *
 * A key's line follows from the key; what finds its line full goes into the next one, and the line says so.  The paper
 * keeps merged ranges behind a Bloom filter; a line costs one cache miss, has no false positives and attracts no newcomers.
 */
#ifndef CSB_DIFF_H
#define CSB_DIFF_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    CSB_LINE_KEYS = 12,
    CSB_LINE_FILL = 8, /* the average that a table is sized for */
};

struct csb_line {
    uint32_t key[CSB_LINE_KEYS];
    uint8_t tid[CSB_LINE_KEYS];
    uint16_t conflicted; /* a bit per key: flows of this key have different owners, exact.h decides */
    uint8_t count;
    uint8_t is_spilled; /* a key of this line is in a later one */
} __attribute__((aligned(64)));

static_assert(sizeof(struct csb_line) == 64, "a line is a cache line");

struct csb_diff {
    struct csb_line *lines;
    uint32_t line_count;
};

enum csb_added {
    CSB_ADDED,
    CSB_ADDED_BEFORE,   /* the same key and owner are there */
    CSB_ADDED_CONFLICT, /* the key is there with another owner: it is marked now */
    CSB_ADDED_NONE,     /* every line is full */
};

/* Lines for this many exceptions. */
static inline uint32_t csb_diff_lines(uint64_t count)
{
    return (uint32_t)(count / CSB_LINE_FILL + 1);
}

/* Keys lie close together on the circle where it moved, so they are spread by a multiplication first. */
static inline uint32_t csb_diff_home(uint32_t key, uint32_t line_count)
{
    return (uint32_t)((uint64_t)(key * UINT32_C(0x9e3779b1)) * line_count >> 32);
}

/* A bit per position at which key stands. */
static inline uint32_t csb_line_match(const struct csb_line *line, uint32_t key)
{
#ifdef __SSE2__
    const __m128i *keys = (const __m128i *)line->key;
    __m128i want = _mm_set1_epi32((int)key);
    __m128i low =
        _mm_packs_epi32(_mm_cmpeq_epi32(_mm_load_si128(keys), want), _mm_cmpeq_epi32(_mm_load_si128(keys + 1), want));
    __m128i high = _mm_cmpeq_epi32(_mm_load_si128(keys + 2), want);
    uint32_t found = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, _mm_packs_epi32(high, high)));
#else
    uint32_t found = 0;
    for (uint32_t i = 0; i < CSB_LINE_KEYS; i++)
        found |= (uint32_t)(line->key[i] == key) << i;
#endif
    return found & ((UINT32_C(1) << line->count) - 1);
}

/* Where key stands: the line, and its index there.  NULL: it is no exception. */
static inline const struct csb_line *csb_diff_find(const struct csb_line *lines, uint32_t line_count, uint32_t key,
                                                   uint32_t *index)
{
    uint32_t at = csb_diff_home(key, line_count);

    for (uint32_t step = 0; step < line_count; step++) {
        uint32_t found = csb_line_match(&lines[at], key);

        if (found != 0) {
            *index = (uint32_t)__builtin_ctz(found);
            return &lines[at];
        }
        if (!lines[at].is_spilled)
            return NULL;
        at = at + 1 < line_count ? at + 1 : 0;
    }
    return NULL;
}

/* lines are all zero at first.  tid is below CSB_TIDS_MAX. */
enum csb_added csb_diff_add(struct csb_diff *diff, uint32_t key, uint16_t tid);

#endif
