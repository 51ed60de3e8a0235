/*
 * table.c: see table.h.
 *
 * Splits start when a level holds START entries per bucket and every insert splits enough that they end one entry
 * per bucket later, so no bucket that is not yet split has more than START + 1 entries to house on average (81 % of its room).
 */
#undef NDEBUG /* table_check() must hold in every build; nothing on the fast path asserts */
#include "tcp/table.h"

#include <assert.h>
#include <string.h>

enum {
    BASE_COUNT_MIN = 16, /* buckets of level 0: between this and twice as many */
    FULL_ENTRIES = 6,    /* per bucket, when capacity is reached */
    START_HALVES = 11,   /* 5.5 entries per bucket */
    FULL = TABLE_BUCKET_ENTRIES,
};

static void dimensions(uint32_t capacity, uint32_t *base_count, uint32_t *level_max)
{
    uint32_t buckets = capacity / FULL_ENTRIES + 1;
    uint32_t level = 0;

    while ((buckets - 1) >> level >= 2 * BASE_COUNT_MIN)
        level++;
    *base_count = ((buckets - 1) >> level) + 1;
    if (*base_count < BASE_COUNT_MIN)
        *base_count = BASE_COUNT_MIN;
    *level_max = level;
}

size_t table_memory_bytes(uint32_t capacity)
{
    uint32_t base_count, level_max;

    if (capacity == 0 || capacity > 1u << 30)
        return 0;
    dimensions(capacity, &base_count, &level_max);
    return (((size_t)base_count << level_max) + TABLE_PROBES_MAX) * sizeof(struct table_bucket);
}

void table_init(struct table *t, void *memory, uint32_t capacity)
{
    memset(t, 0, sizeof *t);
    t->buckets = memory;
    t->capacity = capacity;
    dimensions(capacity, &t->base_count, &t->level_max);
}

static bool is_full(const struct table_bucket *b)
{
    return b->taken[FULL - 1] != 0;
}

static uint32_t fill(const struct table_bucket *b)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < FULL; i++)
        n += b->taken[i] != 0;
    return n;
}

/* Takes entry i out of bucket p, then keeps the overflow rule: while the bucket with the hole had been full, an entry from
 * behind that is at home at or before it moves up. */
static void take_out(struct table *t, uint32_t p, uint32_t i)
{
    for (;;) {
        struct table_bucket *b = &t->buckets[p];
        uint32_t last = fill(b) - 1;
        bool was_full = last == FULL - 1;
        uint32_t q, j = 0;

        b->hash[i] = b->hash[last];
        b->taken[i] = b->taken[last];
        b->taken[last] = 0;
        if (!was_full)
            return;
        for (q = p + 1; q < p + TABLE_PROBES_MAX; q++) {
            const struct table_bucket *behind = &t->buckets[q];

            for (j = 0; j < FULL && behind->taken[j] != 0; j++) {
                if (table_home(t, behind->hash[j]) <= p)
                    break;
            }
            if (j < FULL) /* an entry to move, or a bucket with room, behind which none can be */
                break;
        }
        if (q == p + TABLE_PROBES_MAX || t->buckets[q].taken[j] == 0)
            return;
        b->hash[last] = t->buckets[q].hash[j];
        b->taken[last] = t->buckets[q].taken[j];
        p = q;
        i = j;
    }
}

static bool put(struct table *t, uint32_t hash, uint32_t taken)
{
    uint32_t home = table_home(t, hash);

    for (uint32_t p = home; p < home + TABLE_PROBES_MAX; p++) {
        struct table_bucket *b = &t->buckets[p];
        uint32_t i;

        if (is_full(b))
            continue;
        i = fill(b);
        b->hash[i] = hash;
        b->taken[i] = taken;
        return true;
    }
    return false;
}

/* Finds the first entry of the bucket now split that belongs to the new bucket. */
static bool find_mover(const struct table *t, uint32_t home, uint32_t *p, uint32_t *i)
{
    uint32_t bit = 1u << t->level;

    for (*p = home; *p < home + TABLE_PROBES_MAX; ++*p) {
        const struct table_bucket *b = &t->buckets[*p];

        for (*i = 0; *i < FULL && b->taken[*i] != 0; ++*i) {
            if (b->hash[*i] & bit && table_home(t, b->hash[*i]) == home)
                return true;
        }
        if (*i < FULL)
            break;
    }
    return false;
}

/* Splits the next bucket.  All that is at home in it lies within TABLE_PROBES_MAX buckets, so at most 512 entries move.  When the
 * new home has no place for one, the split is undone: the movers fit where they were. */
static void split_one(struct table *t)
{
    uint32_t hashes[TABLE_PROBES_MAX * FULL], takens[TABLE_PROBES_MAX * FULL];
    uint32_t n = 0, done, p, i;

    while (n < TABLE_PROBES_MAX * FULL && find_mover(t, t->split, &p, &i)) {
        hashes[n] = t->buckets[p].hash[i];
        takens[n++] = t->buckets[p].taken[i];
        take_out(t, p, i);
    }
    t->split++;
    for (done = 0; done < n; done++) {
        if (!put(t, hashes[done], takens[done]))
            break;
    }
    if (done < n) {
        for (i = 0; i < done; i++)
            table_remove(t, hashes[i], ~takens[i]);
        t->count += done;
        t->split--;
        for (i = 0; i < n; i++)
            put(t, hashes[i], takens[i]);
    } else if (t->split == t->base_count << t->level) {
        t->level++;
        t->split = 0;
    }
}

static void grow(struct table *t)
{
    uint32_t whole = t->base_count << t->level;
    uint64_t start = (uint64_t)whole * START_HALVES / 2;

    if (t->level < t->level_max && t->count >= start && t->split <= t->count - start)
        split_one(t);
}

bool table_insert(struct table *t, uint32_t hash, uint32_t handle)
{
    if (t->count >= t->capacity || !put(t, hash, ~handle))
        return false;
    t->count++;
    grow(t);
    return true;
}

/* Puts the cursor on the next bucket with matches. */
static uint32_t scan(const struct table *t, struct table_cursor *c)
{
    while (c->matches == 0) {
        if (c->probes == TABLE_PROBES_MAX || (c->probes > 0 && !is_full(&t->buckets[c->bucket])))
            return TABLE_NONE;
        if (c->probes++ > 0)
            c->bucket++;
        c->matches = table_matches(&t->buckets[c->bucket], c->hash);
    }
    return ~t->buckets[c->bucket].taken[__builtin_ctz(c->matches)];
}

uint32_t table_first(const struct table *t, uint32_t hash, struct table_cursor *cursor)
{
    cursor->bucket = table_home(t, hash);
    cursor->probes = 0;
    cursor->hash = hash;
    cursor->matches = 0;
    return scan(t, cursor);
}

uint32_t table_next(const struct table *t, struct table_cursor *cursor)
{
    cursor->matches &= cursor->matches - 1;
    return scan(t, cursor);
}

static bool find_pair(const struct table *t, uint32_t hash, uint32_t handle, struct table_cursor *c)
{
    const struct table_bucket *home = &t->buckets[c->bucket = table_home(t, hash)];
    uint32_t found;

    c->matches = table_matches(home, hash);
    if (c->matches != 0 && home->taken[__builtin_ctz(c->matches)] == ~handle)
        return true;
    found = table_first(t, hash, c);
    while (found != TABLE_NONE && found != handle)
        found = table_next(t, c);
    return found != TABLE_NONE;
}

bool table_remove(struct table *t, uint32_t hash, uint32_t handle)
{
    struct table_cursor c;

    if (!find_pair(t, hash, handle, &c))
        return false;
    take_out(t, c.bucket, (uint32_t)__builtin_ctz(c.matches));
    t->count--;
    return true;
}

bool table_replace(struct table *t, uint32_t hash, uint32_t handle, uint32_t new_handle)
{
    struct table_cursor c;

    if (!find_pair(t, hash, handle, &c))
        return false;
    t->buckets[c.bucket].taken[__builtin_ctz(c.matches)] = ~new_handle;
    return true;
}

void table_check(const struct table *t)
{
    uint32_t homes = (t->base_count << t->level) + t->split;
    uint32_t count = 0;

    assert(t->level <= t->level_max && t->split < t->base_count << t->level);
    assert(t->level < t->level_max || t->split == 0);
    for (uint32_t p = 0; p < homes + TABLE_PROBES_MAX - 1; p++) {
        const struct table_bucket *b = &t->buckets[p];
        uint32_t n = fill(b);

        count += n;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t home = table_home(t, b->hash[i]);

            assert(b->taken[i] != 0 && home < homes && home <= p && p - home < TABLE_PROBES_MAX);
            while (home < p)
                assert(is_full(&t->buckets[home++]));
        }
    }
    assert(count == t->count && count <= t->capacity);
}
