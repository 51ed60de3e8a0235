/*
 * ring_port.c: the load as a thread of janusd's process, on a port made of two rte_rings: a wire that costs next to nothing.
 *
 * Loaded after EAL's start and before the ports are opened (bench/rig/ring_janusd.py).  janusd finds the port by its name, net_ring_load.
 */
#include "bench/load/pump.h"

#include <errno.h>
#include <pthread.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_ring.h>
#include <sched.h>
#include <signal.h>

enum { RING = 4096 };

int load_ring_open(const char *const *words, uint32_t count);

static struct pump pump;
static struct rte_ring *to_janusd, *from_janusd;
static int cpu;

static uint16_t receive(void *wire, struct rte_mbuf **mbufs, uint16_t count)
{
    (void)wire;
    return (uint16_t)rte_ring_dequeue_burst(from_janusd, (void **)mbufs, count, NULL);
}

static uint16_t transmit(void *wire, struct rte_mbuf **mbufs, uint16_t count)
{
    (void)wire;
    return (uint16_t)rte_ring_enqueue_burst(to_janusd, (void **)mbufs, count, NULL);
}

static void *run(void *arg)
{
    cpu_set_t cpus;

    (void)arg;
    (void)pthread_setname_np(pthread_self(), "load");
    if (cpu >= 0) {
        CPU_ZERO(&cpus);
        CPU_SET((unsigned)cpu, &cpus);
        (void)pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    }
    (void)rte_thread_register(); /* for the pools' caches */
    pump_run(&pump);
}

/* 0 or -errno. */
int load_ring_open(const char *const *words, uint32_t count)
{
    struct pump_words given = {.cpu = -1, .ends.mac = {2, 0, 0, 0, 0, 2}, .ends.server_mac = {2, 0, 0, 0, 0, 1}};
    sigset_t all, before;
    pthread_t thread;

    for (uint32_t i = 0; i < count; i++) {
        if (!pump_word(&given, words[i]))
            return -EINVAL;
    }
    cpu = given.cpu;
    to_janusd = rte_ring_create("load_in", RING, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
    from_janusd = rte_ring_create("load_out", RING, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
    if (to_janusd == NULL || from_janusd == NULL ||
        rte_eth_from_rings("load", &to_janusd, 1, &from_janusd, 1, SOCKET_ID_ANY) < 0)
        return -ENOMEM;
    pump.receive = receive;
    pump.transmit = transmit;
    int rc = pump_init(&pump, &given);
    if (rc != 0)
        return rc;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}
