/*
 * csb_hold.c: how long a TCP thread is held by each turn's part of an update: walk, check of a draft, lists over a socket.
 *
 *   csb_hold FLOWS UPDATES                    in us
 *   csb_hold spin TURNS                       so many turns of the loop that only looks at the clock, alone
 *   csb_hold FLOWS UPDATES part|turn|points   each turn dumped by callgrind, of which it needs to be a child
 *
 * The thread's own code (sdk/app/balance.c) over FLOWS flows, half of which move; the draft has as many exceptions as there are
 * flows.  The thread beside it sends, and another one reads the socket.  "own": turns that nothing has interrupted, by the kernel's own events
 * (bench/interruptions.h); "any": all, "processor": the same in processor time.  As many turns of a loop that only looks at the clock for
 * as long are measured in the same way: "spin" and "spin-own" are what the machine itself does.  Prints FORM METRIC VALUE; "whole" is the
 * same walk at once.
 *
 * Instructions need a clock that does not depend on valgrind's pace.  part: it stands at the turn's end whenever it is looked at, so that a turn is
 * one step; turn: it stands still, so that a turn is as many steps as there may be; points: the same, with as many points as a
 * circle may have, at random, among which each key has to be looked for.
 */
#define clock_now_us running_clock_us
#include "app/clock.c"
#undef clock_now_us
uint64_t clock_now_us(void);
#include "app/balance.c"
#include "app/mapper.c"
#include "bench/csb_tools.h"
#include "bench/interruptions.h"
#include "bench/sorted.h"

#include <pthread.h>
#include <sys/socket.h>
#include <valgrind/callgrind.h>
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
static struct samples own, any, processor, spin, spin_own;
static bool is_counting, is_moving; /* each turn's instructions; the clock moves by a turn when it is looked at */
static uint64_t counted_us = 1;

uint64_t clock_now_us(void)
{
    if (!is_counting)
        return running_clock_us();
    return counted_us += is_moving ? TURN_US : 0;
}

bool attach_wait(const struct attach *a, int timeout_ms)
{
    (void)a;
    (void)timeout_ms;
    return false;
}

int attach_send_list(int fd, uint64_t attempt, const uint64_t *hashes, uint32_t count)
{
    struct iovec parts[] = {{&attempt, sizeof attempt}, {(void *)(uintptr_t)hashes, count * sizeof *hashes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) > 0 ? 0 : -errno;
}

int attach_send_done(int fd, uint64_t attempt, uint32_t phase)
{
    (void)phase;
    return send(fd, &attempt, sizeof attempt, MSG_NOSIGNAL | MSG_DONTWAIT) > 0 ? 0 : -errno;
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

static void print(const char *name, struct samples *s)
{
    uint32_t at;

    if (s->count == 0)
        return;
    sort_values(s->us, s->count);
    printf("%s turns %u\n", name, s->count);
    printf("%s p50 %.3f\n", name, s->us[s->count / 2]);
    printf("%s p99 %.3f\n", name, s->us[(uint64_t)s->count * 99 / 100]);
    printf("%s p99.9 %.3f\n", name, s->us[(uint64_t)s->count * 999 / 1000]);
    printf("%s max %.3f\n", name, s->us[s->count - 1]);
    for (at = s->count; at > 0 && s->us[at - 1] > LONG_US; at--)
        continue;
    printf("%s long %.3f\n", name, (s->count - at) * 1e6 / s->count);
}

static bool must_wait(const struct balance *b)
{
    return (mapper_is_busy(&b->mapper) && atomic_load(&b->mapper.done) != atomic_load(&b->mapper.asked)) ||
           (mapper_is_sending(&b->mapper) && !has_room_for_walk(&b->member));
}

/* What the thread beside this one maps is there, and what it sends makes room: a turn before that has nothing to do. */
static void await_mapper(const struct balance *b)
{
    while (must_wait(b))
        usleep(20);
}

/* One turn, with the message that began it. */
static bool turn(struct balance *b, const struct attach_csb *message, int fd)
{
    if (message != NULL)
        balance_hear(b, message, fd, 0);
    return balance_turn(b);
}

static bool counted_turn(struct balance *b, const struct attach_csb *message, int fd)
{
    bool is_more;

    CALLGRIND_ZERO_STATS;
    is_more = turn(b, message, fd);
    CALLGRIND_DUMP_STATS;
    return is_more;
}

static bool timed_turn(struct balance *b, const struct attach_csb *message, int fd)
{
    uint64_t before = interruptions(), cpu = clock_thread_ns(), tsc = __rdtsc();
    bool is_more = turn(b, message, fd);

    tsc = __rdtsc() - tsc;
    cpu = clock_thread_ns() - cpu;
    note(&any, (double)tsc / ticks_per_us);
    note(&processor, (double)cpu / 1000);
    if (interruptions() == before)
        note(&own, (double)tsc / ticks_per_us);
    return is_more;
}

/* Turns until nothing is left; with the message that began it in the first one. */
static void turns(struct balance *b, const struct attach_csb *message, int fd)
{
    bool is_more = true;

    while (is_more) {
        is_more = is_counting ? counted_turn(b, message, fd) : timed_turn(b, message, fd);
        await_mapper(b);
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
        uint64_t before = interruptions(), until_us = clock_now_us() + TURN_US, tsc = __rdtsc();

        while (clock_now_us() < until_us)
            ;
        tsc = __rdtsc() - tsc;
        note(&spin, (double)tsc / ticks_per_us);
        if (interruptions() == before)
            note(&spin_own, (double)tsc / ticks_per_us);
    }
}

static void whole_walk(const struct csb_plan *plan, uint64_t *list)
{
    uint32_t cursor = 0;
    double began = now();

    csb_walk(plan, NULL, 0, flows, flow_count, &cursor, UINT32_MAX, list, flow_count);
    printf("whole max %.3f\n", (now() - began) * 1e6);
}

/* Two threads, half of the circle each: by two points, or by as many as there may be. */
static void make_map(struct csb_map *map, bool is_scattered)
{
    struct csb_point points[CSB_POINTS_MAX] = {{INT32_MAX, 0}, {UINT32_MAX, 1}};
    uint32_t count = is_scattered ? CSB_POINTS_MAX : 2;

    for (uint32_t i = 0; is_scattered && i < count; i++)
        points[i] = (struct csb_point){(uint32_t)draw(), (uint16_t)(i % 2)};
    if (!csb_map_build(map, points, count, 1))
        abort(); /* two points alike: the seed is fixed, so never by chance */
}

static void make_room(void)
{
    struct samples *all[] = {&own, &any, &processor, &spin, &spin_own};

    for (uint32_t i = 0; i < sizeof all / sizeof all[0]; i++)
        all[i]->us = room_of(TURNS_MAX * sizeof(double));
    flows = room_of(flow_count * sizeof *flows);
    for (uint32_t i = 0; i < flow_count; i++)
        flows[i] = draw() | 1;
}

static void report(const struct balance *b, const struct csb_plan *plan, uint64_t *list)
{
    spin_turns(any.count);
    print("spin", &spin);
    print("spin-own", &spin_own);
    print("own", &own);
    print("any", &any);
    print("processor", &processor);
    printf("counter max %.3f\n", (double)b->held.own_ns / 1000);
    printf("updates count %llu\n", (unsigned long long)b->updates);
    whole_walk(plan, list);
}

/* All updates; a thread beside this one reads what it sends. */
static void update_often(uint32_t updates, bool is_scattered)
{
    static struct balance b;
    static struct attach attach;
    static struct csb_map map;
    static struct csb_plan plan;
    struct csb_list list = {room_of(flow_count * sizeof *flows), flow_count, 0};
    uint64_t bytes = csb_view_bytes(flow_count, 0);
    struct csb_view *draft = room_of(2 * bytes);
    int fd;

    make_map(&map, is_scattered);
    csb_plan_init(&plan, &map, NULL);
    memcpy((void *)(uintptr_t)list.hashes, flows, flow_count * sizeof *flows);
    bytes = csb_view_build(draft, 2 * bytes, &map, &list, 1);
    fd = descriptor_of(draft, bytes);
    attach.fd = ends[0];
    balance_start(&b, &attach, 0, true);
    mapper_start(&b.mapper);
    for (uint32_t n = 1; n <= updates; n++)
        one_update(&b, n, &plan, fd, bytes);
    if (b.updates != updates)
        abort(); /* what was measured is something else */
    if (!is_counting)
        report(&b, &plan, (uint64_t *)(uintptr_t)list.hashes);
    balance_free(&b);
}

static void begin_interruptions(void)
{
    if (interruptions_begin())
        return;
    fprintf(stderr, "the kernel does not let us count interrupts\n");
    exit(1);
}

static void spin_alone(uint32_t count)
{
    begin_interruptions();
    make_room();
    calibrate();
    spin_turns(count);
    print("spin", &spin);
    print("spin-own", &spin_own);
}

int main(int argc, char **argv)
{
    pthread_t reader;

    if (argc == 3 && strcmp(argv[1], "spin") == 0) {
        spin_alone((uint32_t)atoi(argv[2]));
        return 0;
    }
    if (argc < 3 || (flow_count = (uint32_t)atoi(argv[1])) == 0) {
        fprintf(stderr, "usage: csb_hold FLOWS UPDATES [part|turn|points]\n");
        return 2;
    }
    is_counting = argc > 3;
    is_moving = is_counting && strcmp(argv[3], "part") == 0;
    if (!is_counting)
        begin_interruptions();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0 || pthread_create(&reader, NULL, read_all, NULL) != 0)
        abort();
    make_room();
    calibrate();
    update_often((uint32_t)atoi(argv[2]), is_counting && strcmp(argv[3], "points") == 0);
    shutdown(ends[0], SHUT_RDWR);
    pthread_join(reader, NULL);
    return 0;
}
