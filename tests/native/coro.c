/* coro.c: handlers with one behaviour each, chosen by name, and owners that run them. */
#include "coro/run.h"
#include "tests/native/coro_storm.h"

#include <errno.h>
#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

struct owner {
    struct coro co;
    struct coro_sched *sched;
    uint64_t id, argument, seen;
    const char *behaviour;
    char note[64];
    const char *buffer; /* of a handler that receives into its own stack */
    size_t buffer_len;
    int *stale;
};

static __attribute__((noinline)) struct coro_result wait_for(uint64_t request)
{
    return coro_wait(request);
}

/* Adds up what it is given until it is given 0. */
static void sum(struct owner *o)
{
    struct coro_result r;

    while ((r = wait_for(o->argument)).first != 0)
        o->seen += r.first;
}

static void return_at_once(struct owner *o)
{
    o->seen = o->argument;
}

/* The usual idle handler: one owner, nothing else alive. */
static void idle(struct owner *o)
{
    while (wait_for(7).first != 0)
        o->seen++;
}

/* One integer of its own stays alive, so that each image differs from the template in that word. */
static void idle_with_count(struct owner *o)
{
    uint64_t count = o->argument * 0x100000001u;

    while (wait_for(7).first != 0) {
        count++;
        __asm__ volatile("" : "+r"(count));
    }
    o->seen = count - o->argument * 0x100000001u;
}

/* Nearly every word differs. */
static void idle_with_noise(struct owner *o)
{
    uint64_t noise[24], state = o->argument;

    for (size_t i = 0; i < 24; i++)
        noise[i] = draw(&state);
    __asm__ volatile("" : : "r"(noise) : "memory");
    while (wait_for(7).first != 0)
        o->seen++;
    state = o->argument;
    for (size_t i = 0; i < 24; i++)
        if (noise[i] != draw(&state))
            o->seen = UINT64_MAX;
}

/* The scheduler receives into a buffer on this stack. */
static void receive_into_stack(struct owner *o)
{
    char buffer[64] = "";
    struct coro_result r;

    while ((r = wait_for((uint64_t)(uintptr_t)buffer)).first != 0)
        memcpy(o->note, buffer, sizeof o->note);
}

static __attribute__((noinline)) uint64_t descend(struct owner *o, uint64_t levels)
{
    volatile char block[200];

    block[0] = (char)levels;
    if (levels == 0)
        return wait_for(1).first + (uint64_t)block[0];
    return descend(o, levels - 1) + (uint64_t)block[0] - (uint64_t)(char)levels;
}

static void deep(struct owner *o)
{
    o->seen = descend(o, o->argument);
}

/* Waits deep, then flat, then deep: the slot's class changes every time. */
static void breathe(struct owner *o)
{
    for (uint64_t levels = 0; levels < o->argument; levels++) {
        o->seen += descend(o, levels);
        o->seen += descend(o, 0);
    }
}

static void jump(struct owner *o)
{
    jmp_buf place;
    volatile int round = 0;
    int code = setjmp(place);

    o->seen = o->seen * 10 + (uint64_t)code;
    wait_for(1);
    if (round++ < 3)
        longjmp(place, round);
}

static void use_errno(struct owner *o)
{
    errno = EINTR;
    wait_for(1);
    o->seen = (uint64_t)errno;
}

static void use_doubles(struct owner *o)
{
    double a = sqrt((double)o->argument), b = a * 3.5;

    wait_for(1);
    snprintf(o->note, sizeof o->note, "%.6f %.6f %d", a, b, fegetround());
    o->seen = (uint64_t)b;
}

/* Leaves a pointer into its stack behind, which nobody may follow while it waits. */
static void leave_stale_pointer(struct owner *o)
{
    int local = 42;

    o->stale = &local;
    wait_for(1);
    o->seen = (uint64_t)local;
}

/* Leaves another rounding mode behind while it waits. */
static void change_rounding(struct owner *o)
{
    fesetround(FE_UPWARD);
    wait_for(1);
    o->seen = (uint64_t)fegetround();
    fesetround(FE_TONEAREST);
}

static void see_rounding(struct owner *o)
{
    o->seen = (uint64_t)fegetround();
}

static void aligned(struct owner *o)
{
    _Alignas(64) char block[64];

    memset(block, 1, sizeof block);
    __asm__ volatile("" : : "r"(block) : "memory");
    wait_for(1);
    o->seen = (uintptr_t)block % 64 == 0 && block[63] == 1 && (uintptr_t)__builtin_frame_address(0) % 16 == 0;
}

static const struct behaviour {
    const char *name;
    void (*run)(struct owner *o);
} behaviours[] = {
    {"sum", sum},
    {"return_at_once", return_at_once},
    {"idle", idle},
    {"idle_with_count", idle_with_count},
    {"idle_with_noise", idle_with_noise},
    {"receive_into_stack", receive_into_stack},
    {"deep", deep},
    {"breathe", breathe},
    {"jump", jump},
    {"use_errno", use_errno},
    {"use_doubles", use_doubles},
    {"leave_stale_pointer", leave_stale_pointer},
    {"change_rounding", change_rounding},
    {"see_rounding", see_rounding},
    {"aligned", aligned},
};

struct owner *owners_new(struct coro_sched *s, uint32_t count)
{
    struct owner *owners = calloc(count, sizeof *owners);

    for (uint32_t i = 0; i < count; i++)
        owners[i] = (struct owner){.sched = s, .id = 1000 + i};
    return owners;
}

void owners_free(struct owner *owners)
{
    free(owners);
}

int owner_start(struct owner *o, const char *behaviour, uint64_t argument)
{
    for (size_t i = 0; i < sizeof behaviours / sizeof behaviours[0]; i++) {
        if (strcmp(behaviours[i].name, behaviour) != 0)
            continue;
        o->argument = argument;
        return (int)coro_start(o->sched, &o->co, (void (*)(void *))behaviours[i].run, o);
    }
    return -1;
}

int owner_resume(struct owner *o, uint64_t first, uint64_t second)
{
    coro_prefetch_image(o->sched, &o->co);
    coro_load(o->sched, &o->co, o);
    return (int)coro_run(o->sched, (struct coro_result){first, second});
}

/* Serves the request into the coroutine's own stack, which is in place between load and run. */
int owner_receive(struct owner *o, const char *data, size_t len)
{
    char *buffer = (char *)(uintptr_t)coro_load(o->sched, &o->co, o);

    memcpy(buffer, data, len);
    return (int)coro_run(o->sched, (struct coro_result){len, 0});
}

/* What it waits for: resumes it with that as the answer's second word, which no behaviour reads. */
uint64_t owner_request(struct owner *o)
{
    uint64_t request = coro_load(o->sched, &o->co, o);

    coro_run(o->sched, (struct coro_result){1, request});
    return request;
}

/* What a stale pointer shows. */
int owner_stale_value(struct owner *o)
{
    return *(volatile int *)o->stale;
}

bool built_with_asan(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return true;
#else
    return false;
#endif
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    volatile char frame[2048];

    memset((char *)frame, number, sizeof frame);
    signals++;
}

/* The storm while a timer's signals arrive at any instruction, on whatever stack is in use.  Returns storm_run()'s result. */
int storm_with_signals(struct coro_sched *s, struct storm *storm, uint64_t *count)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
    struct itimerval every = {.it_interval.tv_usec = 100, .it_value.tv_usec = 100}, off = {0};
    int outcome;

    signals = 0;
    sigaction(SIGALRM, &action, &before);
    setitimer(ITIMER_REAL, &every, NULL);
    outcome = storm_run(s, storm);
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &before, NULL);
    *count = (uint64_t)signals;
    return outcome;
}

static uint64_t id_of(const void *owner)
{
    return ((const struct owner *)owner)->id;
}

static __attribute__((noinline)) uint64_t recurse_without_end(struct owner *o, volatile char *above)
{
    volatile char block[512];

    block[0] = above[0];
    if (block[0] == 0)
        return o->id;
    return recurse_without_end(o, block) + (uint64_t)block[0];
}

static void overflow(struct owner *o)
{
    volatile char first[1] = {1};

    wait_for(1);
    o->seen = recurse_without_end(o, first);
}

static void touch_null(struct owner *o)
{
    o->seen = (uint64_t) * (volatile char *)o->argument;
}

/* For a process of its own: each of these dies. */
int die_of_overflow(enum coro_backend backend, uint64_t id)
{
    struct coro_options options = {.backend = backend, .owner_id = id_of, .stack_bytes = 64 << 10};
    struct owner o = {.id = id};

    if (coro_sched_new(&options, &o.sched) != 0)
        return -1;
    coro_start(o.sched, &o.co, (void (*)(void *))overflow, &o);
    return owner_resume(&o, 1, 0);
}

int die_elsewhere(enum coro_backend backend)
{
    struct coro_options options = {.backend = backend, .owner_id = id_of};
    struct owner o = {.id = 1, .argument = 8};

    if (coro_sched_new(&options, &o.sched) != 0)
        return -1;
    return (int)coro_start(o.sched, &o.co, (void (*)(void *))touch_null, &o);
}
