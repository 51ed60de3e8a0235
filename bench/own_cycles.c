/*
 * own_cycles.c: how many cycles of the time-stamp counter go by in one of a processor's own.
 *
 *   own_cycles CPU  ->  the median of many samples of 4 us; x86-64
 *
 * The counter runs at one rate, the processor at whatever the host grants: additions that wait for each other take one of its own cycles
 * each.  Where they take 1.7 of the counter's instead of 0.8, everything else takes twice as many too.
 */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

enum { ROUNDS = 100, ADDITIONS = 100, SAMPLES = 4001 };

static double sample(void)
{
    uint64_t sum = 0, begin = __rdtsc();

    for (int i = 0; i < ROUNDS; i++) /* so many in a row that the loop does not matter */
        __asm__ volatile(".rept %c1\n\tadd $1, %0\n\t.endr" : "+r"(sum) : "i"(ADDITIONS));
    return (double)(__rdtsc() - begin) / (ROUNDS * ADDITIONS);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static double samples[SAMPLES];
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(argc > 1 ? (unsigned)atoi(argv[1]) : 0, &cpus);
    (void)sched_setaffinity(0, sizeof cpus, &cpus);
    for (int i = 0; i < SAMPLES; i++)
        samples[i] = sample();
    qsort(samples, SAMPLES, sizeof samples[0], compare);
    printf("%.3f\n", samples[SAMPLES / 2]);
}
