/*
 * coro_switch.c: the time from one event to the next when each event continues a handler, and what others take for the same.
 *
 * coro_switch METHOD COUNT LIVE ORDER EVENTS PASSES: COUNT connections, each a row of 128 bytes with a handler that keeps LIVE bytes
 * on its stack (0: the usual handler, nothing of its own); ORDER is seq, random or prefetch (random, a batch fetched before it runs).
 * Prints one JSON object: ns, the median of the passes over EVENTS events, CPU time; image and stored bytes of a waiting handler.
 *
 * Methods: shared, templates, separate (sdk/coro); copying (a switch function with malloc'ed images, memcpy and saved FPU
 * control words, as libraries of this kind do it); swapcontext; callback (no stack at all); call (a function that fills LIVE bytes
 * of stack); memcpy (the two copies of LIVE bytes alone).
 */
#include "bench/coro_switch.h"
#include "bench/sorted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PASSES_MAX = 64, BATCH = 64, SEPARATE_STACK = 16 << 10 };

struct row *rows;
uint32_t *order;
static char hot[4096];
static uint64_t sink;
static struct coro_sched *sched;

/* --- handlers of sdk/coro --- */

static __attribute__((noinline)) int64_t receive(void)
{
    return coro_wait_value(0);
}

static void serve(void *owner)
{
    struct row *r = owner;
    int64_t got;

    while ((got = receive()) != 0)
        r->served += (uint64_t)got;
}

/* The block is alive at the wait, and is not touched otherwise. */
#define SERVE_WITH(bytes)                                                                                              \
    static void serve_with_##bytes(void *owner)                                                                        \
    {                                                                                                                  \
        struct row *r = owner;                                                                                         \
        char block[bytes];                                                                                             \
        int64_t got;                                                                                                   \
                                                                                                                       \
        memcpy(block, hot, sizeof block);                                                                              \
        do {                                                                                                           \
            __asm__ volatile("" : : "r"(block) : "memory");                                                            \
            got = receive();                                                                                           \
            r->served += (uint64_t)got;                                                                                \
        } while (got != 0);                                                                                            \
        __asm__ volatile("" : : "r"(block) : "memory");                                                                \
    }
SERVE_WITH(168)
SERVE_WITH(920)

/* LIVE as the images of these handlers have it, registers and return addresses included. */
static void (*handler_for(size_t live))(void *)
{
    return live == 0 ? serve : live == 256 ? serve_with_168 : live == 1024 ? serve_with_920 : NULL;
}

/* Together: a prefetch does not retire before its page is found, so that one between two events waits for it. */
static void fetch_rows(uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++)
        __builtin_prefetch(&rows[order[i]], 1);
}

static void prepare_coro(uint32_t count, size_t live, struct coro_options options)
{
    options.owner_bytes = sizeof(struct row);
    if (handler_for(live) == NULL || coro_sched_new(&options, &sched) != 0)
        exit(2);
    for (uint32_t i = 0; i < count; i++) {
        if (coro_start(sched, &rows[i].co, handler_for(live), &rows[i]) != CORO_WAITS)
            exit(3);
    }
}

static void pass_coro(uint32_t events)
{
    for (uint32_t i = 0; i < events; i++) {
        struct row *r = &rows[order[i]];

        coro_load(sched, &r->co, r);
        coro_run(sched, (struct coro_result){1, 0});
    }
}

/* As handlers_run() has it. */
static void pass_coro_prefetch(uint32_t events)
{
    for (uint32_t i = 0; i < events; i += BATCH) {
        uint32_t end = i + BATCH < events ? i + BATCH : events;

        fetch_rows(i, end);
        for (uint32_t j = i; j < end; j++)
            coro_prefetch_image(sched, &rows[order[j]].co);
        for (uint32_t j = i; j < end; j++) {
            struct row *r = &rows[order[j]];

            coro_load(sched, &r->co, r);
            coro_run(sched, (struct coro_result){1, 0});
        }
    }
}

static void prepare_shared(uint32_t count, size_t live)
{
    prepare_coro(count, live, (struct coro_options){.backend = CORO_SHARED});
}

static void prepare_templates(uint32_t count, size_t live)
{
    prepare_coro(count, live, (struct coro_options){.backend = CORO_SHARED, .templates = true});
}

static void prepare_separate(uint32_t count, size_t live)
{
    prepare_coro(count, live, (struct coro_options){.backend = CORO_SEPARATE_STACKS, .stack_bytes = SEPARATE_STACK});
}

/* --- floors --- */

static __attribute__((noinline)) void callback(struct row *r, int64_t got)
{
    r->served += (uint64_t)got;
}

static void prepare_callback(uint32_t count, size_t live)
{
    (void)live;
    for (uint32_t i = 0; i < count; i++)
        rows[i].callback = callback;
}

static void pass_callback(uint32_t events)
{
    for (uint32_t i = 0; i < events; i++) {
        struct row *r = &rows[order[i]];

        r->callback(r, 1);
    }
}

static void pass_callback_prefetch(uint32_t events)
{
    for (uint32_t i = 0; i < events; i += BATCH) {
        uint32_t end = i + BATCH < events ? i + BATCH : events;

        fetch_rows(i, end);
        for (uint32_t j = i; j < end; j++) {
            struct row *r = &rows[order[j]];

            r->callback(r, 1);
        }
    }
}

static size_t floor_bytes;
static char *slots, *stack_area;

static __attribute__((noinline)) void fill_1024(struct row *r)
{
    char block[1024];

    memcpy(block, hot, sizeof block);
    __asm__ volatile("" : : "r"(block) : "memory");
    r->served++;
}

static void prepare_call(uint32_t count, size_t live)
{
    (void)count;
    if (live != 1024)
        exit(2);
}

static void pass_call(uint32_t events)
{
    for (uint32_t i = 0; i < events; i++)
        fill_1024(&rows[order[i]]);
}

static void prepare_memcpy(uint32_t count, size_t live)
{
    floor_bytes = live;
    slots = aligned_alloc(64, (size_t)count * live + 64);
    stack_area = aligned_alloc(64, live + 64);
    memset(slots, 1, (size_t)count * live);
}

static void pass_memcpy(uint32_t events)
{
    for (uint32_t i = 0; i < events; i++) {
        char *slot = slots + order[i] * floor_bytes;

        memcpy(stack_area, slot, floor_bytes);
        __asm__ volatile("" : : "r"(stack_area) : "memory");
        memcpy(slot, stack_area, floor_bytes);
        rows[order[i]].served++;
    }
}

static const struct method {
    const char *name;
    void (*prepare)(uint32_t count, size_t live);
    void (*pass)(uint32_t events);
    void (*pass_prefetch)(uint32_t events);
} methods[] = {
    {"shared", prepare_shared, pass_coro, pass_coro_prefetch},
    {"templates", prepare_templates, pass_coro, pass_coro_prefetch},
    {"separate", prepare_separate, pass_coro, pass_coro_prefetch},
    {"copying", prepare_copying, pass_copying, NULL},
    {"swapcontext", prepare_swapcontext, pass_swapcontext, NULL},
    {"callback", prepare_callback, pass_callback, pass_callback_prefetch},
    {"call", prepare_call, pass_call, NULL},
    {"memcpy", prepare_memcpy, pass_memcpy, NULL},
};

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double measure(void (*pass)(uint32_t events), uint32_t events, int passes)
{
    double ns[PASSES_MAX];

    pass(events);
    for (int i = 0; i < passes; i++) {
        double begin = now_ns();

        pass(events);
        ns[i] = (now_ns() - begin) / events;
    }
    sort_values(ns, (size_t)passes);
    return ns[passes / 2];
}

static void make_rows(uint32_t count, const char *how, uint32_t events)
{
    size_t bytes = ((size_t)count * sizeof *rows + (2u << 20)) & ~(size_t)((2u << 20) - 1);
    uint64_t random = 88172645463325252u;

    rows = aligned_alloc(2u << 20, bytes);
    order = malloc(events * sizeof *order);
    if (rows == NULL || order == NULL)
        exit(4);
    madvise(rows, bytes, MADV_HUGEPAGE);
    memset(rows, 0, (size_t)count * sizeof *rows);
    for (uint32_t i = 0; i < events; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order[i] = strcmp(how, "seq") == 0 ? i % count : (uint32_t)((random >> 32) * count >> 32);
    }
}

int main(int argc, char **argv)
{
    const struct method *m = NULL;
    uint32_t count, events;
    int passes;
    double ns;

    for (size_t i = 0; argc == 7 && i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(methods[i].name, argv[1]) == 0)
            m = &methods[i];
    if (m == NULL || (strcmp(argv[4], "prefetch") == 0 && m->pass_prefetch == NULL)) {
        fprintf(stderr, "usage: coro_switch METHOD COUNT LIVE seq|random|prefetch EVENTS PASSES\n");
        return 1;
    }
    count = (uint32_t)strtoul(argv[2], NULL, 10);
    events = (uint32_t)strtoul(argv[5], NULL, 10);
    passes = atoi(argv[6]);
    if (passes < 1 || passes > PASSES_MAX)
        return 1;
    make_rows(count, argv[4], events);
    memset(hot, 1, sizeof hot);
    m->prepare(count, strtoul(argv[3], NULL, 10));
    ns = measure(strcmp(argv[4], "prefetch") == 0 ? m->pass_prefetch : m->pass, events, passes);
    for (uint32_t i = 0; i < count; i++)
        sink += rows[i].served;
    if (sink != (uint64_t)events * (uint64_t)(passes + 1))
        return 5;
    printf("{\"ns\": %.2f, \"live\": %zu, \"stored\": %zu}\n", ns,
           sched != NULL ? coro_live_bytes(sched, &rows[0].co) : 0,
           sched != NULL ? coro_stored_bytes(sched, &rows[0].co) : 0);
    return 0;
}
