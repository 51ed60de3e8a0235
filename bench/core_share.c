/*
 * core_share.c: how much of its core a processor has at the moment.
 *
 *   core_share CPU  ->  cycles of the time-stamp counter for four additions that need not wait for each other, the median of many samples;
 *                       x86-64
 *
 * A core does four in one of its cycles.  A virtual machine's processor may be one of two threads of a core: while the host has somebody
 * busy on the other they take up to 1.8 times as long, and code that branches much twice as long.  The clock does not show it.
 */
#include "bench/sorted.h"

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

enum { ROUNDS = 100, FOURS = 100, SAMPLES = 4001 };

static double sample(void)
{
    uint64_t a = 0, b = 0, c = 0, d = 0, begin = __rdtsc();

    for (int i = 0; i < ROUNDS; i++) /* so many in a row that the loop does not matter */
        __asm__ volatile(".rept %c4\n\tadd $1, %0\n\tadd $1, %1\n\tadd $1, %2\n\tadd $1, %3\n\t.endr"
                         : "+r"(a), "+r"(b), "+r"(c), "+r"(d)
                         : "i"(FOURS));
    return (double)(__rdtsc() - begin) / (ROUNDS * FOURS);
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
    sort_values(samples, SAMPLES);
    printf("%.3f\n", samples[SAMPLES / 2]);
}
