/*
 * coro_main.c: the storm as a program, for architectures that the tests run under an emulator.
 *
 * coro_main SEED [WAY] prints one line per way of storing: its name, mismatches and checksum; all checksums must be equal.
 */
#include "tests/native/coro_storm.h"

#include <stdio.h>

/* setjmp and longjmp within a coroutine, a wait between them. */
static void jumper(void *owner)
{
    uint64_t *rounds = owner;
    jmp_buf place;

    if (setjmp(place) < 3) {
        coro_wait(0);
        longjmp(place, (int)++*rounds);
    }
}

static int run_jumper(struct coro_sched *s)
{
    struct coro co = {0};
    uint64_t rounds = 0;

    if (coro_start(s, &co, jumper, &rounds) != CORO_WAITS)
        return 1;
    while (co.state != CORO_NEW) {
        coro_load(s, &co, &rounds);
        coro_run(s, (struct coro_result){0, 0});
    }
    return rounds != 3;
}

/* Small, because an emulator may keep books of every reserved page. */
#define IMAGE_SPACE ((size_t)64 << 20)

static const char *only;

static int run(const char *name, struct coro_options options, uint64_t seed)
{
    struct storm storm = {.seed = seed, .steps = 20000, .coroutines = 500, .depth_max = 6};
    struct coro_sched *s;
    struct coro_stats stats;
    int error;

    if (only != NULL && strcmp(only, name) != 0)
        return 0;
    options.image_bytes_max = IMAGE_SPACE;
    error = coro_sched_new(&options, &s);
    if (error != 0 || run_jumper(s) != 0)
        return 1;
    error = storm_run(s, &storm);
    coro_stats(s, &stats);
    printf("%s: outcome %d mismatches %llu live %llu images %llu checksum %llx\n", name, error,
           (unsigned long long)storm.mismatches, (unsigned long long)stats.live, (unsigned long long)stats.images,
           (unsigned long long)storm.checksum);
    coro_sched_free(s);
    return error != 0 || storm.mismatches != 0 || storm.started != storm.ended || stats.live != 0 || stats.images != 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    int failed = 0;

    only = argc > 2 ? argv[2] : NULL;
    failed |= run("plain", (struct coro_options){.backend = CORO_SHARED}, seed);
    failed |=
        run("templates", (struct coro_options){.backend = CORO_SHARED, .templates = true, .owner_bytes = 64}, seed);
    failed |= run("poison", (struct coro_options){.backend = CORO_SHARED, .poison = true}, seed);
    failed |= run("separate", (struct coro_options){.backend = CORO_SEPARATE_STACKS}, seed);
    return failed != 0;
}
