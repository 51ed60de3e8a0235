/*
 * line_trip.c: how long a cache line takes from one processor to another and back.
 *
 *   line_trip CPU CPU  ->  cycles, the least of many
 *
 * A virtual machine's two processors are now behind one cache and now not, as the host pleases, and whatever two threads hand each other
 * costs several times as much then.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#define CYCLES() __rdtsc()
#else
#include <time.h>
static uint64_t CYCLES(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}
#endif

enum { TRIPS = 100, BATCHES = 400 };

static _Alignas(128) _Atomic uint64_t there;
static _Alignas(128) _Atomic uint64_t back;

static void pin(int cpu)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET((unsigned)cpu, &cpus);
    (void)sched_setaffinity(0, sizeof cpus, &cpus);
}

static void *answer(void *cpu)
{
    pin(*(int *)cpu);
    for (uint64_t i = 1; i <= (uint64_t)TRIPS * BATCHES; i++) {
        while (atomic_load_explicit(&there, memory_order_acquire) < i)
            continue;
        atomic_store_explicit(&back, i, memory_order_release);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    uint64_t least = UINT64_MAX, i = 0;
    int other = argc > 2 ? atoi(argv[2]) : 1;
    pthread_t thread;

    pin(argc > 1 ? atoi(argv[1]) : 0);
    if (pthread_create(&thread, NULL, answer, &other) != 0)
        return 1;
    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t begin = CYCLES();
        for (int trip = 0; trip < TRIPS; trip++) {
            atomic_store_explicit(&there, ++i, memory_order_release);
            while (atomic_load_explicit(&back, memory_order_acquire) < i)
                continue;
        }
        uint64_t cycles = (CYCLES() - begin) / TRIPS;
        least = cycles < least ? cycles : least;
    }
    (void)pthread_join(thread, NULL);
    printf("%lu\n", (unsigned long)least);
}
