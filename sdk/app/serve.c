/*
 * serve.c: janus_run(): a process that serves, one system thread for each TCP thread, and the caller who watches them.
 */
#include "app/address.h"
#include "app/error.h"
#include "app/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    LEAVE_MS = 4000,      /* janusd answers in 3 s at most */
    TURN_US = 100 * 1000, /* the longest sleep of a thread: the stop is looked at in between */
    WATCH_MS = 50,
    DRAIN_MS = 5000,
    STALL_MS = 1000,
    CANCEL_MS = 1000, /* for handlers to end when their waits fail */
    THREADS_MAX = 256,
};

struct server {
    pthread_t system_thread;
    pthread_barrier_t *all_attached;
    const struct janus_options *options;
    const struct janus_service *services;
    size_t count;
    pthread_mutex_t watched; /* worker stays while it is held */
    struct janus_worker *worker;
    struct janus_error error;
    int rc;
    uint32_t number;
    /* The watch's own: since when the same handler runs. */
    uint32_t seen_running;
    uint64_t seen_turns, since_ms;
    bool told;
};

static volatile sig_atomic_t stopping;

void janus_stop(void)
{
    stopping = 1;
}

static void on_signal(int number)
{
    (void)number;
    janus_stop();
}

static uint64_t clock_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* --- a server thread --- */

/* The ports first: whoever is online gets connections. */
static int bring_up(struct server *s)
{
    for (size_t i = 0; i < s->count; i++) {
        int rc = janus_listen(s->worker, &s->services[i], &s->error);

        if (rc < 0)
            return rc;
    }
    return janus_online(s->worker, &s->error);
}

static void drain(struct server *s, uint32_t ms, bool cancel)
{
    uint64_t end_ms = clock_ms() + ms;
    struct janus_counts counts;

    if (cancel)
        handlers_cancel(s->worker->handlers);
    for (;;) {
        janus_get_counts(s->worker, &counts);
        if ((counts.handlers == 0 && (counts.connections == 0 || !cancel)) || clock_ms() >= end_ms)
            return;
        janus_turn(s->worker, 10 * 1000);
    }
}

/* New connections go to other threads, then the ports may close. */
static void leave(struct server *s)
{
    uint64_t end_ms = clock_ms() + LEAVE_MS;
    struct janus_stats stats;

    thread_leave(s->worker->thread);
    do {
        janus_turn(s->worker, 10 * 1000);
        thread_get_stats(s->worker->thread, &stats);
    } while ((!thread_has_left(s->worker->thread) || stats.usage.half_open > 0) && clock_ms() < end_ms);
}

static void *serve(void *argument)
{
    struct server *s = argument;
    uint32_t drain_ms = s->options->drain_ms != 0 ? s->options->drain_ms : DRAIN_MS;

    s->worker = janus_attach(s->options, &s->error);
    s->rc = s->worker == NULL ? -s->error.code : 0;
    if (s->rc < 0)
        janus_stop();
    pthread_barrier_wait(s->all_attached); /* one of them failing ends all, before the first connection is served */
    if (s->rc == 0 && !stopping)
        s->rc = bring_up(s);
    if (s->rc < 0)
        janus_stop();
    while (!stopping)
        janus_turn(s->worker, TURN_US);
    if (s->rc == 0) {
        leave(s);
        for (size_t i = 0; i < s->count; i++)
            (void)janus_unlisten(s->worker, s->services[i].address, s->services[i].port, &s->error);
        drain(s, drain_ms, false);
        drain(s, CANCEL_MS, true);
    }
    pthread_mutex_lock(&s->watched);
    janus_detach(s->worker);
    s->worker = NULL;
    pthread_mutex_unlock(&s->watched);
    return NULL;
}

/* --- the watch --- */

static void tell_stall(struct server *s, uint64_t ms)
{
    struct handlers *h = s->worker->handlers;
    char name[JANUS_NAME_BYTES] = "none";
    struct flow flow;

    if (s->seen_running - 1 < h->conn_max) {
        thread_flow(s->worker->thread, s->seen_running - 1, &flow); /* it runs: its row does not change */
        address_name(&flow.raddr, flow.rport, name, sizeof name);
    }
    fprintf(stderr,
            "janus: thread %u: the handler of connection %u (peer %s) has not waited for %llu ms: all others of its "
            "thread stand still\n",
            s->number, s->seen_running - 1, name, (unsigned long long)ms);
}

/* A handler that blocks the thread, by a system call or a loop, is named while it does so. */
static void watch(struct server *s, uint64_t stall_ms)
{
    const struct handlers *h;
    uint32_t running;
    uint64_t turns, now_ms = clock_ms();

    h = s->worker->handlers;
    running = __atomic_load_n(&h->running, __ATOMIC_RELAXED);
    turns = __atomic_load_n(&h->turns, __ATOMIC_RELAXED);
    if (running == 0 || running != s->seen_running || turns != s->seen_turns) {
        s->seen_running = running;
        s->seen_turns = turns;
        s->since_ms = now_ms;
        s->told = false;
    } else if (!s->told && now_ms - s->since_ms >= stall_ms) {
        s->told = true;
        tell_stall(s, now_ms - s->since_ms);
    }
}

static void watch_until_end(struct server *servers, uint32_t n, uint32_t stall_ms)
{
    for (uint32_t ended = 0; ended < n;) {
        (void)poll(NULL, 0, WATCH_MS);
        ended = 0;
        for (uint32_t i = 0; i < n; i++) {
            pthread_mutex_lock(&servers[i].watched);
            if (servers[i].worker != NULL)
                watch(&servers[i], stall_ms != 0 ? stall_ms : STALL_MS);
            else
                ended++;
            pthread_mutex_unlock(&servers[i].watched);
        }
    }
}

/* --- the process --- */

static int start_all(struct server *servers, uint32_t n, pthread_barrier_t *barrier, struct janus_error *error)
{
    pthread_barrier_init(barrier, NULL, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        int rc = pthread_create(&servers[i].system_thread, NULL, serve, &servers[i]);

        if (rc != 0) { /* those before it wait for it: the process cannot go on in order */
            error_set(error, rc, "no system thread: %s", strerror(rc));
            fprintf(stderr, "janus: %s\n", error->text);
            abort();
        }
    }
    pthread_barrier_wait(barrier);
    for (uint32_t i = 0; i < n; i++) {
        if (servers[i].rc < 0) {
            *error = servers[i].error;
            return servers[i].rc;
        }
    }
    return 0;
}

int janus_run(const struct janus_options *options, const struct janus_service *services, size_t count,
              struct janus_error *error)
{
    struct sigaction before[2], ours = {.sa_handler = on_signal};
    uint32_t n = options->threads != 0 ? options->threads : 1;
    struct server *servers;
    pthread_barrier_t barrier;
    struct janus_error unused;
    int rc;

    error = error != NULL ? error : &unused;
    if (n > THREADS_MAX || count == 0)
        return error_set(error, EINVAL, "%u threads and %zu services: allowed are 1 to %d, and at least one", n, count,
                         THREADS_MAX);
    servers = calloc(n, sizeof *servers);
    if (servers == NULL)
        return error_set(error, ENOMEM, "no memory");
    stopping = 0;
    sigaction(SIGTERM, &ours, &before[0]);
    sigaction(SIGINT, &ours, &before[1]);
    for (uint32_t i = 0; i < n; i++)
        servers[i] = (struct server){.all_attached = &barrier,
                                     .watched = PTHREAD_MUTEX_INITIALIZER,
                                     .options = options,
                                     .services = services,
                                     .count = count,
                                     .number = i};
    rc = start_all(servers, n, &barrier, error);
    watch_until_end(servers, n, options->stall_ms);
    for (uint32_t i = 0; i < n; i++)
        pthread_join(servers[i].system_thread, NULL);
    pthread_barrier_destroy(&barrier);
    sigaction(SIGTERM, &before[0], NULL);
    sigaction(SIGINT, &before[1], NULL);
    free(servers);
    return rc;
}
