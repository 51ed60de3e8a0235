/*
 * one_thread.h: what programs share that have the load generator and the stack in one thread: a clock that goes by 20 us a turn, and a
 * JSON object: connections, and the median of the cycles that the stack's side takes for one.
 */
#ifndef BENCH_ONE_THREAD_H
#define BENCH_ONE_THREAD_H

#include "bench/load/load.h"
#include "bench/samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

enum { PORT = 7, WINDOW = 512, ROWS = 65536, ETHER = 14, TURN_US = 20 };

/* Whole connections of one request each, WINDOW at a time, to 10.77.0.1. */
static void one_thread_load(struct load *load, const struct load_wire *wire)
{
    const struct load_ends ends = {.server = 0x0a4d0001, .gateway = 0x0a4d0002, .clients = 0x64400000, .port = PORT};
    const struct load_job job = {.phase = LOAD_OPENING, .window = WINDOW, .bytes = 64, .requests = 1, .fin = true};

    load_init(load, &ends, wire);
    load_time(load, 1);
    load_begin(load, &job);
}

/* For so many seconds of a 2.5 GHz counter.  turn: everything of one turn; returns the stack's cycles.  Returns what main() does. */
static int one_thread_run(double seconds, struct load *load, uint64_t (*turn)(uint64_t now_us))
{
    static struct samples samples;
    uint64_t begin = __rdtsc(), length = (uint64_t)(seconds * 2.5e9), now_us = 1;
    double median;
    bool room = true;

    while (room && __rdtsc() - begin < length) {
        uint64_t cycles;

        now_us += TURN_US;
        load_time(load, now_us);
        cycles = turn(now_us);
        room = samples_turn(&samples, cycles, load->counts.completed);
    }
    median = samples_median(&samples);
    printf("{\"connections\": %llu, \"bad\": %llu, \"lost\": %llu, \"cycles\": %.1f}\n",
           (unsigned long long)load->counts.completed, (unsigned long long)load->counts.bad,
           (unsigned long long)load->counts.lost, median);
    return median == 0.0;
}

#endif
