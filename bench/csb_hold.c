/*
 * csb_hold.c: how long a TCP thread is held by each turn's part of an update: walk, check of a draft, lists over a socket.
 *
 *   csb_hold FLOWS UPDATES
 *
 * The thread's own code (sdk/app/balance.c) over FLOWS flows, half of which move; the draft has as many exceptions as there are
 * flows.  A second thread reads the socket.  Turns in which the thread lost its processor (RUSAGE_THREAD's involuntary
 * switches) are counted, and stand in "any" alone.  As many turns of a loop that only looks at the clock for as long are measured
 * in the same way: "spin" is what the machine itself does.  Prints FORM METRIC VALUE, in us; "whole" is the same walk at once.
 */
#include "app/balance.c"
#include "app/clock.c"
#include "app/mapper.c"
#include "bench/csb_tools.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <x86intrin.h>

enum { TURNS_MAX = 1 << 22, LONG_US = 100 };

struct samples {
    double *us;
    uint32_t count;
};

static uint64_t *flows;
static uint32_t flow_count;
static int ends[2];
static double ticks_per_us;
static struct samples undisturbed, any, processor, spin;

bool attach_wait(const struct attach *a, int timeout_ms)
{
    (void)a;
    (void)timeout_ms;
    return false;
}

int attach_send(struct attach *a, const void *message, size_t bytes)
{
    (void)a;
    return send(ends[0], message, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)bytes ? 0 : -errno;
}

void tcp_expect_cookies(struct tcp_stack *s, uint64_t now_us)
{
    (void)s;
    (void)now_us;
}

uint32_t tcp_flow_column(const struct tcp_stack *s, uint32_t part, const uint64_t **column)
{
    (void)s;
    *column = flows;
    return part == 1 ? flow_count : 0;
}

static void *read_all(void *unused)
{
    static char message[sizeof(struct attach_csb_list)];

    (void)unused;
    while (recv(ends[1], message, sizeof message, 0) > 0)
        ;
    return NULL;
}

static void note(struct samples *s, double us)
{
    if (s->count == TURNS_MAX)
        abort();
    s->us[s->count++] = us;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(const char *name, struct samples *s)
{
    uint32_t at;

    qsort(s->us, s->count, sizeof s->us[0], by_size);
    printf("%s turns %u\n", name, s->count);
    printf("%s p50 %.3f\n", name, s->us[s->count / 2]);
    printf("%s p99 %.3f\n", name, s->us[(uint64_t)s->count * 99 / 100]);
    printf("%s p99.9 %.3f\n", name, s->us[(uint64_t)s->count * 999 / 1000]);
    printf("%s max %.3f\n", name, s->us[s->count - 1]);
    for (at = s->count; at > 0 && s->us[at - 1] > LONG_US; at--)
        continue;
    printf("%s long %.3f\n", name, (s->count - at) * 1e6 / s->count);
}

static long switches(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

/* What the second thread maps is there: a turn before that has nothing to do. */
static void await_values(const struct balance *b)
{
    while (mapper_is_busy(&b->mapper) && atomic_load(&b->mapper.done) != atomic_load(&b->mapper.asked))
        sched_yield();
}

/* Turns until nothing is left; with the message that began it in the first one. */
static void turns(struct balance *b, const struct attach_csb *message, int fd)
{
    bool is_more = true;

    while (is_more) {
        long before = switches();
        uint64_t cpu = clock_thread_ns(), tsc = __rdtsc();

        if (message != NULL)
            balance_hear(b, message, fd, 0);
        is_more = balance_turn(b);
        tsc = __rdtsc() - tsc;
        cpu = clock_thread_ns() - cpu;
        note(&any, (double)tsc / ticks_per_us);
        note(&processor, (double)cpu / 1000);
        if (switches() == before)
            note(&undisturbed, (double)tsc / ticks_per_us);
        await_values(b);
        is_more |= message != NULL;
        message = NULL;
    }
}

static int descriptor_of(const void *value, uint64_t bytes)
{
    int fd = memfd_create("value", MFD_CLOEXEC);

    for (uint64_t at = 0; at < bytes;) {
        ssize_t n = write(fd, (const char *)value + at, bytes - at);
        if (n <= 0)
            abort();
        at += (uint64_t)n;
    }
    return fd;
}

static void one_update(struct balance *b, uint64_t attempt, const struct csb_plan *plan, int draft,
                       uint64_t draft_bytes)
{
    struct attach_csb m = {.type = ATTACH_CSB_BEGIN, .attempt = attempt, .bytes = sizeof *plan, .ios = 1};

    turns(b, &m, descriptor_of(plan, sizeof *plan));
    m = (struct attach_csb){.type = ATTACH_CSB_CHECK, .attempt = attempt, .bytes = draft_bytes};
    turns(b, &m, dup(draft));
    balance_marker(b, (uint32_t)attempt, CSB_MARKER_SEAL, 0, 0);
    m = (struct attach_csb){.type = ATTACH_CSB_VIEW, .attempt = attempt, .bytes = draft_bytes};
    turns(b, &m, dup(draft));
    balance_marker(b, (uint32_t)attempt, CSB_MARKER_OPEN, 0, 0);
    turns(b, NULL, -1);
}

static void calibrate(void)
{
    double began = now();
    uint64_t tsc = __rdtsc();

    while (now() - began < 0.1)
        ;
    ticks_per_us = (double)(__rdtsc() - tsc) / ((now() - began) * 1e6);
}

/* The same number of turns that do nothing. */
static void spin_turns(uint32_t count)
{
    for (uint32_t n = 0; n < count; n++) {
        long before = switches();
        uint64_t until_us = clock_now_us() + TURN_US, tsc = __rdtsc();

        while (clock_now_us() < until_us)
            ;
        tsc = __rdtsc() - tsc;
        if (switches() == before)
            note(&spin, (double)tsc / ticks_per_us);
    }
}

static void whole_walk(const struct csb_plan *plan, uint64_t *list)
{
    uint32_t cursor = 0;
    double began = now();

    csb_walk(plan, NULL, 0, flows, flow_count, &cursor, UINT32_MAX, list, flow_count);
    printf("whole max %.3f\n", (now() - began) * 1e6);
}

int main(int argc, char **argv)
{
    const struct csb_point even[] = {{INT32_MAX, 0}, {UINT32_MAX, 1}};
    static struct balance b;
    static struct csb_map map;
    static struct csb_plan plan;
    struct csb_list list;
    struct csb_view *draft;
    pthread_t reader;
    uint64_t bytes;
    int fd;

    if (argc != 3 || (flow_count = (uint32_t)atoi(argv[1])) == 0) {
        fprintf(stderr, "usage: csb_hold FLOWS UPDATES\n");
        return 2;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0 || pthread_create(&reader, NULL, read_all, NULL) != 0 ||
        !csb_map_build(&map, even, 2, 1))
        abort();
    undisturbed.us = room_of(TURNS_MAX * sizeof(double));
    any.us = room_of(TURNS_MAX * sizeof(double));
    spin.us = room_of(TURNS_MAX * sizeof(double));
    processor.us = room_of(TURNS_MAX * sizeof(double));
    flows = room_of(flow_count * sizeof *flows);
    for (uint32_t i = 0; i < flow_count; i++)
        flows[i] = draw() | 1;
    csb_plan_init(&plan, &map, NULL);
    list = (struct csb_list){room_of(flow_count * sizeof *flows), flow_count, 0};
    memcpy((void *)(uintptr_t)list.hashes, flows, flow_count * sizeof *flows);
    bytes = csb_view_bytes(flow_count, 0);
    draft = room_of(2 * bytes);
    bytes = csb_view_build(draft, 2 * bytes, &map, &list, 1);
    fd = descriptor_of(draft, bytes);
    calibrate();
    balance_start(&b, NULL, 0, true);
    mapper_start(&b.mapper);
    for (int n = 1; n <= atoi(argv[2]); n++)
        one_update(&b, (uint64_t)n, &plan, fd, bytes);
    if (b.updates != (uint64_t)atoi(argv[2]))
        abort(); /* what was measured is something else */
    spin_turns(any.count);
    print("spin", &spin);
    print("undisturbed", &undisturbed);
    print("any", &any);
    print("processor", &processor);
    printf("counter max %.3f\n", (double)b.held_ns / 1000);
    printf("updates count %llu\n", (unsigned long long)b.updates);
    whole_walk(&plan, (uint64_t *)(uintptr_t)list.hashes);
    balance_free(&b);
    shutdown(ends[0], SHUT_RDWR);
    pthread_join(reader, NULL);
    return 0;
}
