/*
 * coro_storm.h: thousands of coroutines that recurse, keep integers and doubles across waits, and check both; every choice is
 * drawn from one seed.  Also the body of the program that runs under another architecture's emulator.
 */
#ifndef CORO_STORM_H
#define CORO_STORM_H

#include "coro/run.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

struct storm {
    uint64_t seed, steps, started, ended, mismatches, checksum;
    uint32_t coroutines, depth_max;
    struct coro_sched *sched;
};

/* One coroutine, with a twin of the sum that its stack must arrive at. */
struct gust {
    struct coro co;
    struct storm *storm;
    uint64_t random, expected;
    double expected_real;
    uint32_t waits_left;
};

static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* What the scheduler answers to a request, checked on both sides. */
static struct coro_result answer_of(uint64_t request)
{
    return (struct coro_result){request * 3 + 1, request ^ 0x5555aaaa5555aaaau};
}

static __attribute__((noinline)) struct coro_result gust_wait(uint64_t request)
{
    return coro_wait(request);
}

static __attribute__((noinline)) uint64_t gust_descend(struct gust *g, uint32_t depth, double real)
{
    uint64_t sum = 0;
    double own = real * 0.5 + depth;
    unsigned char block[1 + 113 * 3];
    size_t block_len = 1 + (draw(&g->random) & 3) * 113;

    memset(block, (int)(depth + 1), block_len);
    while (g->waits_left > 0 && (draw(&g->random) & 7) != 0) {
        uint64_t request = draw(&g->random);
        struct coro_result expected = answer_of(request), got;

        g->waits_left--;
        g->expected += request;
        g->expected_real += own;
        got = gust_wait(request);
        sum += request;
        if (got.first != expected.first || got.second != expected.second)
            g->storm->mismatches++;
        g->expected_real -= own;
        if (depth < g->storm->depth_max && (draw(&g->random) & 1) != 0)
            sum += gust_descend(g, depth + 1, own);
    }
    for (size_t i = 0; i < block_len; i++)
        if (block[i] != (unsigned char)(depth + 1)) {
            g->storm->mismatches++;
            break;
        }
    if (own != real * 0.5 + depth)
        g->storm->mismatches++;
    return sum;
}

static void gust_main(void *owner)
{
    struct gust *g = owner;
    uint64_t sum = gust_descend(g, 0, (double)(g->random & 0xffff));

    if (sum != g->expected || g->expected_real != 0)
        g->storm->mismatches++;
    g->storm->checksum += sum;
}

static int gust_begin(struct storm *storm, struct gust *g, uint64_t *random)
{
    enum coro_outcome outcome;

    *g = (struct gust){.storm = storm, .random = draw(random), .waits_left = 1 + (uint32_t)(draw(random) % 40)};
    storm->started++;
    outcome = coro_start(storm->sched, &g->co, gust_main, g);
    storm->ended += outcome == CORO_ENDED;
    return outcome == CORO_WAITS || outcome == CORO_ENDED ? 0 : -(int)outcome;
}

static int gust_continue(struct storm *storm, struct gust *g)
{
    uint64_t request = coro_load(storm->sched, &g->co, g);
    enum coro_outcome outcome = coro_run(storm->sched, answer_of(request));

    storm->ended += outcome == CORO_ENDED;
    return outcome == CORO_WAITS || outcome == CORO_ENDED ? 0 : -(int)outcome;
}

/* Resumes coroutines in random order until steps are done, then lets all of them end.  0, or the outcome that should not be. */
static int storm_run(struct coro_sched *s, struct storm *storm)
{
    struct gust *gusts = calloc(storm->coroutines, sizeof *gusts);
    uint64_t random = storm->seed;
    int error = gusts == NULL ? -CORO_NO_MEMORY : 0;

    storm->sched = s;
    for (uint64_t step = 0; step < storm->steps && error == 0; step++) {
        struct gust *g = &gusts[draw(&random) % storm->coroutines];

        error = g->co.state == CORO_NEW ? gust_begin(storm, g, &random) : gust_continue(storm, g);
    }
    for (uint32_t i = 0; i < storm->coroutines && error == 0; i++) {
        gusts[i].waits_left = 0;
        while (gusts[i].co.state != CORO_NEW && error == 0)
            error = gust_continue(storm, &gusts[i]);
    }
    free(gusts);
    return error;
}

#endif
