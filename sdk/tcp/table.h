/*
 * table.h: the connection table: 32-bit hash to 32-bit handle, open-addressed, in buckets of one cache line.
 *
 *   bucket   0     1     2    ...   split   ...   count-1 | spill
 *         |split|split|split|     |not yet|     | new    |
 *
 * Linear hashing (Litwin 1980): the table grows by splitting one bucket after the other in place, and shrinks by undoing that, so
 * that an insert or a removal does bounded work, memory behind the last bucket stays untouched or is spare
 * (table_next_spare()), and memory is handed over once for the largest size.
 * A full bucket overflows into the next ones: an entry that lies behind its home has only full buckets between.  Hashes
 * must be keyed: who can choose them can fill a run of buckets.  Knows no flows: the caller compares.
 */
#ifndef TCP_TABLE_H
#define TCP_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    TABLE_BUCKET_ENTRIES = 8,
    TABLE_PROBES_MAX = 64, /* buckets from an entry's home to its place, both counted */
};
#define TABLE_NONE UINT32_MAX

struct table_bucket {
    uint32_t hash[TABLE_BUCKET_ENTRIES];
    uint32_t taken[TABLE_BUCKET_ENTRIES]; /* ~handle; 0: free; the taken ones come first */
};
_Static_assert(sizeof(struct table_bucket) == 64, "one cache line");

struct table {
    struct table_bucket *buckets;
    uint32_t base_count; /* buckets of level 0 */
    uint32_t level;      /* base_count << level buckets have their homes in full */
    uint32_t level_max;
    uint32_t split; /* buckets of this level that are split already */
    uint32_t whole; /* base_count << level */
    uint32_t homes; /* whole + split */
    uint32_t mask;  /* of the low bits of a hash that the next level takes */
    uint32_t count; /* entries */
    uint32_t capacity;
    uint32_t touched; /* buckets from here on are as they were at first */
    uint32_t end_max; /* the most that were in reach since the last look */
};

struct table_cursor {
    uint32_t bucket, probes, hash, matches;
};

/* Bytes for capacity entries (1 to 2^30): 10.7 per entry, and a small constant.  0: capacity is out of range. */
size_t table_memory_bytes(uint32_t capacity);

/* An empty table in memory, which must be zero and aligned to 64. */
void table_init(struct table *t, void *memory, uint32_t capacity);

/* Adds handle, any value but TABLE_NONE, under hash; equal hashes, even equal pairs, are fine.  False, and nothing changed: capacity
 * is reached, or no place within TABLE_PROBES_MAX buckets. */
bool table_insert(struct table *t, uint32_t hash, uint32_t handle);

/* Removes one entry (hash, handle).  False: there is none. */
bool table_remove(struct table *t, uint32_t hash, uint32_t handle);

/* Gives the entry (hash, handle) another handle in its place; cannot fail for lack of room.  False: there is none. */
bool table_replace(struct table *t, uint32_t hash, uint32_t handle, uint32_t new_handle);

/* Handles under hash, one after the other; TABLE_NONE: no more.  The table must not change in between.
 *     for (h = table_first(t, hash, &c); h != TABLE_NONE; h = table_next(t, &c)) */
uint32_t table_first(const struct table *t, uint32_t hash, struct table_cursor *cursor);
uint32_t table_next(const struct table *t, struct table_cursor *cursor);

/* The bucket where hash is at home: its low bits say which part of base_count buckets, all of it where in the part.  A part that is not
 * yet there is still in the one that it will be split from. */
static inline uint32_t table_home(const struct table *t, uint32_t hash)
{
    uint64_t low = hash & t->mask;
    uint32_t home = (uint32_t)((low << 32 | hash) * t->base_count >> 32);

    return home < t->homes ? home : home - t->whole;
}

/* Entries of b with this hash, one bit each. */
static inline uint32_t table_matches(const struct table_bucket *b, uint32_t hash)
{
#ifdef __SSE2__
    const __m128i *hashes = (const __m128i *)(const void *)b->hash, *taken = (const __m128i *)(const void *)b->taken;
    __m128i wanted = _mm_set1_epi32((int)hash), zero = _mm_setzero_si128();
    __m128i low =
        _mm_andnot_si128(_mm_cmpeq_epi32(_mm_load_si128(taken), zero), _mm_cmpeq_epi32(_mm_load_si128(hashes), wanted));
    __m128i high = _mm_andnot_si128(_mm_cmpeq_epi32(_mm_load_si128(taken + 1), zero),
                                    _mm_cmpeq_epi32(_mm_load_si128(hashes + 1), wanted));

    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(low, high), zero));
#else
    uint32_t matches = 0;

    for (uint32_t i = 0; i < TABLE_BUCKET_ENTRIES; i++)
        matches |= (uint32_t)(b->hash[i] == hash && b->taken[i] != 0) << i;
    return matches;
#endif
}

/* Entries of b with this hash and this in taken, which is not 0, one bit each. */
static inline uint32_t table_matches_pair(const struct table_bucket *b, uint32_t hash, uint32_t taken)
{
#ifdef __SSE2__
    const __m128i *hashes = (const __m128i *)(const void *)b->hash, *takens = (const __m128i *)(const void *)b->taken;
    __m128i wanted = _mm_set1_epi32((int)hash), with = _mm_set1_epi32((int)taken);
    __m128i low =
        _mm_and_si128(_mm_cmpeq_epi32(_mm_load_si128(takens), with), _mm_cmpeq_epi32(_mm_load_si128(hashes), wanted));
    __m128i high = _mm_and_si128(_mm_cmpeq_epi32(_mm_load_si128(takens + 1), with),
                                 _mm_cmpeq_epi32(_mm_load_si128(hashes + 1), wanted));

    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128()));
#else
    uint32_t matches = 0;

    for (uint32_t i = 0; i < TABLE_BUCKET_ENTRIES; i++)
        matches |= (uint32_t)(b->hash[i] == hash && b->taken[i] == taken) << i;
    return matches;
#endif
}

/* Whether entries that are at home in b may lie behind it: it is full. */
static inline bool table_overflows(const struct table_bucket *b)
{
    return b->taken[TABLE_BUCKET_ENTRIES - 1] != 0;
}

/* The first handle under hash in bucket b; TABLE_NONE: look on by table_first(), if b overflows.  The taken ones come first, so a free one
 * is found only when none of them has this hash, and its handle is TABLE_NONE. */
static inline uint32_t table_first_in(const struct table_bucket *b, uint32_t hash)
{
#ifdef __SSE2__
    const __m128i *hashes = (const __m128i *)(const void *)b->hash;
    __m128i wanted = _mm_set1_epi32((int)hash);
    __m128i low = _mm_cmpeq_epi32(_mm_load_si128(hashes), wanted);
    __m128i high = _mm_cmpeq_epi32(_mm_load_si128(hashes + 1), wanted);
    uint32_t matches = (uint32_t)_mm_movemask_epi8(_mm_packs_epi32(low, high)); /* two bits each */

    return matches != 0 ? ~b->taken[(uint32_t)__builtin_ctz(matches) / 2] : TABLE_NONE;
#else
    uint32_t matches = table_matches(b, hash);

    return matches != 0 ? ~b->taken[__builtin_ctz(matches)] : TABLE_NONE;
#endif
}

/* Buckets [*first, *first + *count) that were out of reach at the look before, and since: their memory is zero, or may become so.  Each call
 * gives some, from behind.  False: the look is over. */
bool table_next_spare(struct table *t, uint32_t *first, uint32_t *count);
/* Whether a look could give some. */
bool table_has_spare(const struct table *t);

/* Aborts the program when an entry cannot be found from its home or the count is wrong.  O(buckets). */
void table_check(const struct table *t);

#endif
