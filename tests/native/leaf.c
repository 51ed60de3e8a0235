/* leaf.c: the leaf structures of the TCP core for Python, inline functions wrapped, bulk loops in C. */
#include "tcp/bbr.h"
#include "tcp/cc.h"
#include "tcp/isn.h"
#include "tcp/reasm.h"
#include "tcp/rtt.h"
#include "tcp/seq.h"
#include "tcp/slab.h"
#include "tcp/table.h"
#include "tcp/wheel.h"

#include <stdlib.h>
#include <string.h>

static bool native_wheel_is_scheduled(const struct wheel *w, uint32_t index)
{
    return wheel_is_scheduled(w, index);
}

static uint32_t native_slab_take(struct slab *s)
{
    return slab_take(s);
}

static void native_slab_give(struct slab *s, uint32_t index)
{
    slab_give(s, index);
}

static uint32_t native_slab_next(const struct slab *s, uint32_t index)
{
    return slab_next(s, index);
}

/* Says yes as often as *context, and counts down. */
static bool native_populate(void *context, void *memory, size_t bytes)
{
    int *left = context;

    memset(memory, 0, bytes);
    return *left != 0 && (*left)-- > 0;
}

static void native_slab_populate(struct slab *s, int *left)
{
    s->populate = native_populate;
    s->context = left;
}

static void *native_table_memory(uint32_t capacity)
{
    size_t bytes = table_memory_bytes(capacity);

    return calloc(1, bytes + 64); /* the test aligns */
}

static void native_table_memory_free(void *memory)
{
    free(memory);
}

static uint32_t hash_of(uint32_t i)
{
    return csb_murmur3(i, 77);
}

/* Inserts handles from .. from + count - 1 under drawn hashes; returns how many were taken. */
static uint32_t native_table_fill(struct table *t, uint32_t from, uint32_t count)
{
    uint32_t i = 0;

    while (i < count && table_insert(t, hash_of(from + i), from + i))
        i++;
    return i;
}

/* The reverse, from the last. */
static uint32_t native_table_drain(struct table *t, uint32_t from, uint32_t count)
{
    uint32_t i = 0;

    while (i < count && table_remove(t, hash_of(from + count - 1 - i), from + count - 1 - i))
        i++;
    return i;
}

static void native_table_forget(struct table *t, uint32_t first, uint32_t count)
{
    memset(t->buckets + first, 0, count * sizeof *t->buckets);
}

static uint32_t native_table_missing(const struct table *t, uint32_t from, uint32_t count)
{
    uint32_t missing = 0;

    for (uint32_t i = from; i < from + count; i++) {
        struct table_cursor c;
        uint32_t h = table_first(t, hash_of(i), &c);

        while (h != TABLE_NONE && h != i)
            h = table_next(t, &c);
        missing += h == TABLE_NONE;
    }
    return missing;
}

/* Longest way from a home to a place, in buckets. */
static uint32_t native_table_longest(const struct table *t)
{
    uint32_t longest = 0;
    uint32_t homes = (t->base_count << t->level) + t->split;

    for (uint32_t p = 0; p < homes + TABLE_PROBES_MAX - 1; p++) {
        for (uint32_t i = 0; i < TABLE_BUCKET_ENTRIES && t->buckets[p].taken[i]; i++) {
            uint32_t way = p - table_home(t, t->buckets[p].hash[i]);

            longest = way > longest ? way : longest;
        }
    }
    return longest;
}

/* Index behind the last bucket that is not all zero. */
static uint32_t native_table_buckets_touched(const struct table *t, size_t bytes)
{
    static const struct table_bucket zero;
    size_t n = bytes / sizeof zero;

    while (n > 0 && memcmp(&t->buckets[n - 1], &zero, sizeof zero) == 0)
        n--;
    return (uint32_t)n;
}

static uint32_t native_rtt_srtt_us(const struct rtt *r)
{
    return rtt_srtt_us(r);
}

static uint32_t native_rtt_rttvar_us(const struct rtt *r)
{
    return rtt_rttvar_us(r);
}

static uint32_t native_isn_at(const struct isn_offsets *offsets, uint64_t now_us)
{
    return isn_at(offsets, now_us);
}

static uint32_t native_isn_tsval(const struct isn_offsets *offsets, uint64_t now_us)
{
    return isn_tsval(offsets, now_us);
}

static bool native_seq_lt(uint32_t a, uint32_t b)
{
    return seq_lt(a, b);
}

static bool native_seq_leq(uint32_t a, uint32_t b)
{
    return seq_leq(a, b);
}

static bool native_seq_between(uint32_t seq, uint32_t begin, uint32_t len)
{
    return seq_between(seq, begin, len);
}

static uint32_t native_seq_max(uint32_t a, uint32_t b)
{
    return seq_max(a, b);
}

static bool native_seq_is_acceptable(uint32_t rcv_nxt, uint32_t rcv_wnd, uint32_t seg_seq, uint32_t seg_len)
{
    return seq_is_acceptable(rcv_nxt, rcv_wnd, seg_seq, seg_len);
}
