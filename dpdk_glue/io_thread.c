/*
 * io_thread.c: turns, naps and heartbeats.
 */
#include "dpdk_glue/io_thread.h"

#include "dpdk_glue/deliver.h"
#include "dpdk_glue/out.h"
#include "dpdk_glue/refuse.h"
#include "dpdk_glue/rx.h"
#include "dpdk_glue/turns.h"
#include "dpdk_glue/tx.h"
#include "shm/slice.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_pause.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

enum {
    SPIN_US = 50,
    SLEEP_MIN_US = 50,
    SLEEP_MAX_US = 1000,
    SLEEP_WOKEN_MAX_US = 100000, /* a bound for what nobody rings for, as an NIC's full queue */
    HEARTBEAT_MS = 10,
    TIMER_SLACK_NS = 5000,
};

static void arm(struct io_thread *io, const struct session_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        struct glue_session *s = list->sessions[i];
        if (s->tx_io == io->index)
            atomic_store_explicit((_Atomic uint32_t *)&session_j2a(s)->io[io->index].io_sleeping.value, 1,
                                  memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_seq_cst); /* one for all: doorbell_arm() of a whole list */
}

static void disarm(struct io_thread *io, const struct session_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->sessions[i]->tx_io == io->index)
            doorbell_disarm(&session_j2a(list->sessions[i])->io[io->index].io_sleeping);
    }
}

/* Whether a sleep would miss something; takes returned slots on the way, so that an idle app's slots are all back. */
static bool work_waits(struct io_thread *io, const struct session_list *list)
{
    bool waits = false;

    for (uint32_t i = 0; i < list->count; i++) {
        struct glue_session *s = list->sessions[i];
        if (session_is_closed(s))
            continue;
        waits |= session_collect(s, io->index) > 0;
        waits |= s->tx_io == io->index && tx_waits(s, io->index);
    }
    uint32_t ports = atomic_load_explicit(&io->glue->port_count, memory_order_acquire);
    for (uint32_t i = 0; io->index == 0 && i < ports; i++)
        waits |= rte_ring_count(io->glue->ports[i].handover) > 0;
    return waits || atomic_load(&io->glue->orders) != io->orders_taken || atomic_load(&io->glue->stop);
}

/* A port that cannot wake us is looked at every millisecond. */
static uint32_t sleep_max_us(const struct glue *g)
{
    uint32_t ports = atomic_load_explicit(&g->port_count, memory_order_acquire);

    for (uint32_t i = 0; i < ports; i++) {
        if (!g->ports[i].wakes)
            return SLEEP_MAX_US;
    }
    return SLEEP_WOKEN_MAX_US;
}

static void nap(struct io_thread *io)
{
    static const struct session_list none = {0};
    const struct session_list *list = atomic_load_explicit(&io->sessions, memory_order_acquire);
    struct epoll_event events[8];

    if (list == NULL)
        list = &none;
    arm(io, list);
    if (!work_waits(io, list)) {
        struct timespec timeout = {.tv_nsec = (long)io->sleep_us * 1000};
        page_add(io->stats, STATS_IO_SLEEPS, 1);
        int rung = epoll_pwait2(io->epoll_fd, events, 8, &timeout, NULL);
        uint32_t doubled = io->sleep_us * 2, most = sleep_max_us(io->glue);
        io->sleep_us = rung > 0 ? SLEEP_MIN_US : doubled < most ? doubled : most;
    }
    disarm(io, list);
}

static void beat(struct io_thread *io, uint64_t now)
{
    const struct session_list *list = atomic_load_explicit(&io->sessions, memory_order_acquire);

    if (now - io->heartbeat_tsc < io->glue->tsc_hz / 1000 * HEARTBEAT_MS)
        return;
    io->heartbeat_tsc = now;
    int cpu = sched_getcpu();
    for (uint32_t i = 0; list != NULL && i < list->count; i++) {
        struct shm_j2a_header *j2a = session_j2a(list->sessions[i]);
        atomic_store_explicit((_Atomic uint16_t *)&j2a->io_cpu[io->index], (uint16_t)(cpu + 1), memory_order_relaxed);
        if (list->sessions[i]->tx_io == io->index) {
            _Atomic uint64_t *heartbeat = (_Atomic uint64_t *)&j2a->heartbeat;
            atomic_store_explicit(heartbeat, atomic_load_explicit(heartbeat, memory_order_relaxed) + 1,
                                  memory_order_relaxed);
        }
    }
}

static bool turn(struct io_thread *io)
{
    balance_obey(io);
    uint32_t work = rx_ports(io) + tx_sessions(io);

    if (io->index == 0)
        work += out_take_handover(io);
    work += out_flush(io);
    return work != 0;
}

/* After a turn in which there was nothing to do.  Who shares the processor may be the one that is waited for. */
static void idle(struct io_thread *io, uint64_t now)
{
    if (io->glue->mode == GLUE_MODE_POLL)
        rte_pause();
    else if (now - io->idle_since_tsc < io->glue->tsc_hz / 1000000 * SPIN_US)
        sched_yield();
    else
        nap(io);
}

static void loop(struct io_thread *io)
{
    uint32_t in_a_row = 0;

    io->sleep_us = SLEEP_MIN_US;
    io->idle_since_tsc = rte_rdtsc();
    while (!atomic_load_explicit(&io->glue->stop, memory_order_relaxed)) {
        /* The quiet point: no snapshot of the last turn is used from here on. */
        atomic_store(&io->turns, atomic_load_explicit(&io->turns, memory_order_relaxed) + 1);
        page_add(io->stats, STATS_IO_TURNS, 1);
        uint64_t begin = rte_rdtsc();
        bool busy = turn(io);
        uint64_t now = rte_rdtsc();
        beat(io, now);
        if (busy) {
            io->idle_since_tsc = now;
            io->sleep_us = SLEEP_MIN_US;
            page_add(io->stats, STATS_IO_BUSY_TURNS, 1);
            page_add(io->stats, STATS_IO_BUSY_CYCLES, now - begin);
        }
        if (io->glue->mode == GLUE_MODE_YIELD) {
            if (!busy || turns_are_enough(++in_a_row, io->port_has_more, io->thread_is_full)) {
                in_a_row = 0;
                sched_yield();
            }
        } else if (!busy) {
            idle(io, now);
        }
    }
}

static void *run(void *arg)
{
    struct io_thread *io = arg;
    bool registered = rte_thread_register() == 0; /* for the packet pool's cache; without it the pool is slower */

    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    slice_ask_short();
    loop(io);
    rx_clear(io);
    out_clear(io);
    if (registered)
        rte_thread_unregister();
    atomic_store(&io->running, 0);
    return NULL;
}

static int start_one(struct io_thread *io, struct glue_text *why)
{
    char name[16];
    cpu_set_t cpus;
    sigset_t all, before;

    atomic_store(&io->running, 1);
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&io->thread, NULL, run, io);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        atomic_store(&io->running, 0);
        return refuse(why, rc, "I/O thread %u does not start: %s", io->index, strerror(rc));
    }
    io->created = true;
    snprintf(name, sizeof name, "janus-io%u", io->index);
    (void)pthread_setname_np(io->thread, name);
    if (io->cpu < 0)
        return 0;
    CPU_ZERO(&cpus);
    CPU_SET((unsigned)io->cpu, &cpus);
    rc = pthread_setaffinity_np(io->thread, sizeof cpus, &cpus);
    return rc == 0 ? 0
                   : refuse(why, rc,
                            "I/O thread %u cannot be pinned to cpu %d: there is no such processor or it is "
                            "not allowed",
                            io->index, io->cpu);
}

int glue_io_start(struct glue *g, struct glue_text *why)
{
    int rc = 0;

    mtx_lock(&g->control);
    for (uint32_t i = 0; rc == 0 && i < g->io_count; i++) {
        if (!g->io[i].created)
            rc = start_one(&g->io[i], why);
    }
    mtx_unlock(&g->control);
    return rc;
}

int glue_io_info(struct glue *g, uint32_t io, struct glue_io_info *out)
{
    if (io >= g->io_count)
        return -EINVAL;
    struct io_thread *t = &g->io[io];
    *out = (struct glue_io_info){.turns = t->stats->counters[STATS_IO_TURNS],
                                 .busy_turns = t->stats->counters[STATS_IO_BUSY_TURNS],
                                 .sleeps = t->stats->counters[STATS_IO_SLEEPS],
                                 .busy_cycles = t->stats->counters[STATS_IO_BUSY_CYCLES],
                                 .cycles_hz = g->tsc_hz,
                                 .cpu = t->cpu,
                                 .running = atomic_load(&t->running) != 0};
    return 0;
}

int io_thread_init(struct glue *g, uint32_t index, int32_t cpu)
{
    struct io_thread *io = &g->io[index];
    struct epoll_event kicked = {.events = EPOLLIN | EPOLLET};

    io->glue = g;
    io->index = index;
    io->cpu = cpu;
    io->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    io->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    io->slow = calloc(1, sizeof *io->slow);
    io->fragments = calloc(1, sizeof *io->fragments); /* touched when it is used */
    io->stats = page_block_add(g->page, PAGE_KIND_IO, index, 0, index, 0, "");
    if (io->epoll_fd < 0 || io->kick_fd < 0 || io->slow == NULL || io->fragments == NULL || io->stats == NULL)
        return -ENOMEM;
    return epoll_ctl(io->epoll_fd, EPOLL_CTL_ADD, io->kick_fd, &kicked) == 0 ? 0 : -errno;
}

void io_thread_release(struct io_thread *io)
{
    if (io->glue == NULL)
        return;
    if (io->epoll_fd >= 0)
        close(io->epoll_fd);
    if (io->kick_fd >= 0)
        close(io->kick_fd);
    free(io->slow);
    free(io->fragments);
    free(atomic_load(&io->sessions));
}

void io_threads_stop(struct glue *g)
{
    atomic_store(&g->stop, 1);
    for (uint32_t i = 0; i < g->io_count; i++) {
        if (!g->io[i].created)
            continue;
        doorbell_ring_io(g->io[i].kick_fd);
        pthread_join(g->io[i].thread, NULL);
        g->io[i].created = false;
    }
}
