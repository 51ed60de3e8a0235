/*
 * samples.h: cycles that one connection takes, by samples of SAMPLE_TURNS turns: fewer do not have as much of every phase of the load, and
 * the median of many leaves out what others on the processor took in some.
 */
#ifndef BENCH_SAMPLES_H
#define BENCH_SAMPLES_H

#include "bench/sorted.h"

#include <stdbool.h>
#include <stdint.h>

enum { SAMPLES = 1 << 16, SAMPLE_TURNS = 1024 };

struct samples {
    double values[SAMPLES];
    uint32_t count, turns;
    uint64_t cycles, done; /* since the last sample; connections until then */
};

/* A turn has taken so many cycles, and completed connections have been so far.  False: there is room for no more. */
static inline bool samples_turn(struct samples *s, uint64_t cycles, uint64_t completed)
{
    s->cycles += cycles;
    if (++s->turns % SAMPLE_TURNS != 0 || completed == s->done)
        return true;
    if (s->count == SAMPLES)
        return false;
    s->values[s->count++] = (double)s->cycles / (double)(completed - s->done);
    s->done = completed;
    s->cycles = 0;
    return true;
}

/* The median of those since the last call; 0: there is none. */
static inline double samples_median(struct samples *s)
{
    double median;

    sort_values(s->values, s->count);
    median = s->count != 0 ? s->values[s->count / 2] : 0.0;
    s->count = 0;
    return median;
}

#endif
