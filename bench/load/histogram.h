/*
 * histogram.h: a log-linear histogram of 32-bit values: 64 buckets to each power of two, so a percentile is off by 1.6 % at most.
 */
#ifndef BENCH_LOAD_HISTOGRAM_H
#define BENCH_LOAD_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_SUB = 64, HISTOGRAM_BUCKETS = (32 - 6 + 1) * HISTOGRAM_SUB };

struct histogram {
    uint64_t count;
    uint32_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline uint32_t histogram_bucket(uint32_t value)
{
    if (value < HISTOGRAM_SUB)
        return value;
    uint32_t shift = 31 - (uint32_t)__builtin_clz(value) - 6;
    return (shift + 1) * HISTOGRAM_SUB + (value >> shift) - HISTOGRAM_SUB;
}

/* The lowest value of a bucket. */
static inline uint32_t histogram_value(uint32_t bucket)
{
    if (bucket < HISTOGRAM_SUB)
        return bucket;
    return (bucket % HISTOGRAM_SUB + HISTOGRAM_SUB) << (bucket / HISTOGRAM_SUB - 1);
}

static inline void histogram_add(struct histogram *h, uint32_t value)
{
    h->count++;
    h->buckets[histogram_bucket(value)]++;
    if (value > h->max)
        h->max = value;
}

static inline uint32_t histogram_percentile(const struct histogram *h, double part)
{
    uint64_t seen = 0, wanted = (uint64_t)(part * (double)h->count);

    if (h->count == 0)
        return 0;
    for (uint32_t b = 0; b < HISTOGRAM_BUCKETS; b++) {
        seen += h->buckets[b];
        if (seen > wanted || seen == h->count)
            return histogram_value(b);
    }
    return h->max;
}

#endif
