/*
 * table.c: see table.h.
 *
 * Splits start when a level holds START entries per bucket and every insert splits enough that they end one entry
 * per bucket later, so no bucket that is not yet split has more than START + 1 entries to house on average (81 % of its room).
 * The last split is undone when there are fewer than SPARSE entries per bucket, so far below that the two never chase each other.
 */
#undef NDEBUG /* table_check() must hold in every build; nothing on the fast path asserts */
#include "tcp/table.h"

#include <assert.h>
#include <string.h>

enum {
    BASE_COUNT_MIN = 16, /* buckets of level 0: between this and twice as many */
    FULL_ENTRIES = 6,    /* per bucket, when capacity is reached */
    START_HALVES = 11,   /* 5.5 entries per bucket */
    SPARSE = 3,
    SPARE_MIN = 1024,  /* buckets: less is not worth the while */
    SPARE_MAX = 32768, /* at a time */
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

static void set_split(struct table *t, uint32_t level, uint32_t split)
{
    t->level = level;
    t->split = split;
    t->whole = t->base_count << level;
    t->homes = t->whole + split;
    t->mask = (2u << level) - 1;
}

void table_init(struct table *t, void *memory, uint32_t capacity)
{
    memset(t, 0, sizeof *t);
    t->buckets = memory;
    t->capacity = capacity;
    dimensions(capacity, &t->base_count, &t->level_max);
    set_split(t, 0, 0);
    t->touched = t->end_max = t->base_count + TABLE_PROBES_MAX;
}

/* Buckets where an entry may be. */
static uint32_t end_of(const struct table *t)
{
    return t->homes + TABLE_PROBES_MAX;
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

/* The bucket that has one entry (hash, handle), as number *i; TABLE_NONE: there is none. */
static inline uint32_t find_pair(const struct table *t, uint32_t hash, uint32_t handle, uint32_t *i)
{
    uint32_t home = table_home(t, hash);

    for (uint32_t p = home; p < home + TABLE_PROBES_MAX; p++) {
        uint32_t matches = table_matches_pair(&t->buckets[p], hash, ~handle);

        if (matches != 0) {
            *i = (uint32_t)__builtin_ctz(matches);
            return p;
        }
        if (!is_full(&t->buckets[p]))
            break;
    }
    return TABLE_NONE;
}

static bool take_pair(struct table *t, uint32_t hash, uint32_t handle)
{
    uint32_t i, p = find_pair(t, hash, handle, &i);

    if (p == TABLE_NONE)
        return false;
    take_out(t, p, i);
    return true;
}

/* Finds the first entry at home in bucket home, of those that its split gives to the new bucket when split. */
static bool find_mover(const struct table *t, uint32_t home, bool split, uint32_t *p, uint32_t *i)
{
    uint32_t bit = 1u << t->level;

    for (*p = home; *p < home + TABLE_PROBES_MAX; ++*p) {
        const struct table_bucket *b = &t->buckets[*p];

        for (*i = 0; *i < FULL && b->taken[*i] != 0; ++*i) {
            if ((!split || (b->hash[*i] & bit)) && table_home(t, b->hash[*i]) == home)
                return true;
        }
        if (*i < FULL)
            break;
    }
    return false;
}

/* Entries on their way: all that is at home in one bucket lies within TABLE_PROBES_MAX buckets. */
struct movers {
    uint32_t count;
    uint32_t hashes[TABLE_PROBES_MAX * FULL], takens[TABLE_PROBES_MAX * FULL];
};

static void take_movers(struct table *t, uint32_t home, bool split, struct movers *m)
{
    uint32_t p, i;

    m->count = 0;
    while (m->count < TABLE_PROBES_MAX * FULL && find_mover(t, home, split, &p, &i)) {
        m->hashes[m->count] = t->buckets[p].hash[i];
        m->takens[m->count++] = t->buckets[p].taken[i];
        take_out(t, p, i);
    }
}

/* False: one has no place, and none was put. */
static bool put_movers(struct table *t, const struct movers *m)
{
    for (uint32_t done = 0; done < m->count; done++) {
        if (put(t, m->hashes[done], m->takens[done]))
            continue;
        while (done-- > 0)
            (void)take_pair(t, m->hashes[done], ~m->takens[done]);
        return false;
    }
    return true;
}

/* They fit where they were. */
static void put_back(struct table *t, const struct movers *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        (void)put(t, m->hashes[i], m->takens[i]);
}

static void after_split(struct table *t)
{
    uint32_t end;

    if (t->split + 1 == t->whole)
        set_split(t, t->level + 1, 0);
    else
        set_split(t, t->level, t->split + 1);
    end = end_of(t);
    t->touched = end > t->touched ? end : t->touched;
    t->end_max = end > t->end_max ? end : t->end_max;
}

static void before_split(struct table *t)
{
    if (t->split == 0)
        set_split(t, t->level - 1, t->whole / 2 - 1);
    else
        set_split(t, t->level, t->split - 1);
}

/* Splits the next bucket.  When the new home has no place for an entry, the split is undone. */
static void split_one(struct table *t)
{
    struct movers m;

    take_movers(t, t->split, true, &m);
    after_split(t);
    if (!put_movers(t, &m)) {
        before_split(t);
        put_back(t, &m);
    }
}

/* Undoes the last split in the same way. */
static void merge_one(struct table *t)
{
    struct movers m;

    take_movers(t, end_of(t) - TABLE_PROBES_MAX - 1, false, &m);
    before_split(t);
    if (!put_movers(t, &m)) {
        after_split(t);
        put_back(t, &m);
    }
}

static void grow(struct table *t)
{
    uint64_t start = (uint64_t)t->whole * START_HALVES / 2;

    if (t->level < t->level_max && t->count >= start && t->split <= t->count - start)
        split_one(t);
}

static void shrink(struct table *t)
{
    if (t->homes > t->base_count && t->count / SPARSE < t->homes - 1)
        merge_one(t);
}

bool table_insert(struct table *t, uint32_t hash, uint32_t handle)
{
    if (t->count >= t->capacity || !put(t, hash, ~handle))
        return false;
    t->count++;
    grow(t);
    return true;
}

bool table_remove(struct table *t, uint32_t hash, uint32_t handle)
{
    if (!take_pair(t, hash, handle))
        return false;
    t->count--;
    shrink(t);
    return true;
}

bool table_replace(struct table *t, uint32_t hash, uint32_t handle, uint32_t new_handle)
{
    uint32_t i, p = find_pair(t, hash, handle, &i);

    if (p == TABLE_NONE)
        return false;
    t->buckets[p].taken[i] = ~new_handle;
    return true;
}

bool table_next_spare(struct table *t, uint32_t *first, uint32_t *count)
{
    if (t->touched < t->end_max + SPARE_MIN) {
        t->end_max = end_of(t);
        return false;
    }
    *count = t->touched - t->end_max < SPARE_MAX ? t->touched - t->end_max : SPARE_MAX;
    *first = t->touched -= *count;
    return true;
}

bool table_has_spare(const struct table *t)
{
    return t->touched >= end_of(t) + SPARE_MIN;
}

void table_check(const struct table *t)
{
    uint32_t homes = t->homes, count = 0;

    assert(t->whole == t->base_count << t->level && t->homes == t->whole + t->split && t->mask == (2u << t->level) - 1);
    assert(t->level <= t->level_max && t->split < t->whole);
    assert(t->level < t->level_max || t->split == 0);
    assert(end_of(t) <= t->end_max && t->end_max <= t->touched);
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
