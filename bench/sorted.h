/*
 * sorted.h: measured values in the order of their size.
 */
#ifndef BENCH_SORTED_H
#define BENCH_SORTED_H

#include <stdlib.h>

static inline int compare_values(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static inline void sort_values(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_values);
}

#endif
