/*
 * echo_janus.c: an echo server on the event-driven interface of a TCP thread, the Janus side of the benchmarks of connections.
 *
 *   echo_janus SOCKET APP PORT CPU adaptive|poll|yield
 *
 * CPU -1: not pinned.  yield: gives the processor away when there is nothing to do, for one that is shared with an I/O thread.
 * A line on the standard input is answered by a JSON object: turns that had something to do, their cycles, connections accepted; after
 * "sample" the median of the cycles that a connection took in samples of such turns, since the last such line.
 */
#include "app/thread_api.h"
#include "bench/samples.h"
#include "bench/stamp.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

enum { ASK_EVERY = 1024, VIEWS = 8, YIELD_TURNS = 4, IDLE_TURNS = 8, STAMPED_MAX = 64 };

static uint64_t busy_cycles, busy_turns, long_cycles, packets, accepted;
static struct samples samples;

static int64_t echo(struct janus_thread *t, uint32_t conn, const struct tcp_view *view)
{
    uint8_t copy[STAMPED_MAX];

    if (!stamp_is_wanted(view->data, view->len) || view->len > sizeof copy)
        return thread_send(t, conn, view->data, view->len);
    memcpy(copy, view->data, view->len);
    stamp(copy);
    return thread_send(t, conn, copy, view->len);
}

static void serve(struct janus_thread *t, const struct tcp_event *event)
{
    struct tcp_view views[VIEWS];
    uint32_t n;

    if (event->kinds & TCP_EVENT_ACCEPTED) {
        thread_set_nodelay(t, event->conn, true);
        accepted++;
    }
    while ((n = thread_recv_views(t, event->conn, views, VIEWS)) != 0) {
        uint32_t taken = 0;

        for (uint32_t i = 0; i < n; i++) {
            int64_t sent = echo(t, event->conn, &views[i]);
            taken += sent > 0 ? (uint32_t)sent : 0;
            if (sent < (int64_t)views[i].len)
                break;
        }
        if (taken == 0)
            return;
        thread_recv_consume(t, event->conn, taken);
    }
    if (thread_recv_eof(t, event->conn))
        thread_close_conn(t, event->conn);
}

static void answer(struct janus_thread *t)
{
    struct janus_stats stats;
    char line[64];

    if (read(STDIN_FILENO, line, sizeof line) <= 0)
        return;
    if (line[0] == 's') {
        printf("{\"cycles\": %.1f}\n", samples_median(&samples));
        fflush(stdout);
        return;
    }
    thread_get_stats(t, &stats);
    printf(
        "{\"busy_cycles\": %llu, \"busy_turns\": %llu, \"long_cycles\": %llu, \"packets\": %llu, \"accepted\": %llu, "
        "\"turns\": %llu}\n",
        (unsigned long long)busy_cycles, (unsigned long long)busy_turns, (unsigned long long)long_cycles,
        (unsigned long long)packets, (unsigned long long)stats.tcp.connections_accepted,
        (unsigned long long)stats.turns);
    fflush(stdout);
}

/* A turn that lasted over a millisecond was preempted; it is counted apart. */
static void count(uint64_t cycles, uint32_t n)
{
    if (cycles > 3000000) {
        long_cycles += cycles;
        return;
    }
    busy_turns++;
    busy_cycles += cycles;
    packets += n;
    (void)samples_turn(&samples, cycles, accepted);
}

static bool turn(struct janus_thread *t)
{
    struct tcp_event event;
    uint64_t begin = __rdtsc();
    uint32_t n = thread_poll(t);

    while (thread_next_event(t, &event))
        serve(t, &event);
    thread_flush(t);
    if (n != 0)
        count(__rdtsc() - begin, n);
    return n != 0;
}

int main(int argc, char **argv)
{
    struct janus_options options = {0};
    struct janus_error error;
    cpu_set_t cpus;

    if (argc != 6) {
        fprintf(stderr, "usage: echo_janus SOCKET APP PORT CPU adaptive|poll|yield\n");
        return 2;
    }
    options.socket_path = argv[1];
    options.app = argv[2];
    if (atoi(argv[4]) >= 0) {
        CPU_ZERO(&cpus);
        CPU_SET((unsigned)atoi(argv[4]), &cpus);
        sched_setaffinity(0, sizeof cpus, &cpus);
    }
    struct janus_thread *t = thread_open(&options, &error);
    if (t == NULL || thread_listen(t, NULL, (uint16_t)atoi(argv[3]), 0, &error) < 0 || thread_online(t, &error) < 0) {
        fprintf(stderr, "echo_janus: %s\n", error.text);
        return 1;
    }
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    for (uint32_t i = 0, idle = 0;; i++) {
        idle = turn(t) ? 0 : idle + 1;
        if (i % ASK_EVERY == 0 || idle > ASK_EVERY)
            answer(t);
        if (idle > IDLE_TURNS && argv[5][0] != 'p')
            thread_wait(t, 10000);
        else if (argv[5][0] == 'y' && (idle > 0 || i % YIELD_TURNS == 0))
            sched_yield();
    }
}
