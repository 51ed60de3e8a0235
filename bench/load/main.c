/*
 * main.c: the load as a process of its own, on one DPDK port.
 *
 *   load_gen socket=PATH server=A gateway=A clients=A port=N [cpu=N] -- EAL words
 */
#include "bench/load/pump.h"

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { DESCRIPTORS = 2048, WORDS_MAX = 32 };

static uint16_t receive(void *wire, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_rx_burst(*(uint16_t *)wire, 0, mbufs, count);
}

static uint16_t transmit(void *wire, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_tx_burst(*(uint16_t *)wire, 0, mbufs, count);
}

static void die(const char *what)
{
    fprintf(stderr, "load_gen: %s\n", what);
    exit(1);
}

static void start_port(struct pump *p, uint16_t port)
{
    struct rte_eth_conf conf = {0};
    uint16_t rx = DESCRIPTORS, tx = DESCRIPTORS;

    if (rte_eth_dev_configure(port, 1, 1, &conf) != 0 || rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx, &tx) != 0 ||
        rte_eth_rx_queue_setup(port, 0, rx, SOCKET_ID_ANY, NULL, p->pool) != 0 ||
        rte_eth_tx_queue_setup(port, 0, tx, SOCKET_ID_ANY, NULL) != 0 || rte_eth_dev_start(port) != 0)
        die("the port does not start");
    (void)rte_eth_promiscuous_enable(port);
    if (rte_eth_macaddr_get(port, (struct rte_ether_addr *)p->load.ends.mac) != 0)
        die("the port has no address");
}

int main(int argc, char **argv)
{
    static struct pump pump;
    struct pump_words words = {.cpu = -1};
    static char *eal[WORDS_MAX + 1];
    static uint16_t port;
    int eal_count = 1, i = 1;
    cpu_set_t cpus;

    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (!pump_word(&words, argv[i]))
            die(argv[i]);
    }
    eal[0] = argv[0];
    for (i++; i < argc && eal_count < WORDS_MAX; i++)
        eal[eal_count++] = argv[i];
    if (rte_eal_init(eal_count, eal) < 0 || rte_eth_dev_count_avail() != 1)
        die("EAL does not start with one port");
    if (words.cpu >= 0) {
        CPU_ZERO(&cpus);
        CPU_SET((unsigned)words.cpu, &cpus);
        (void)sched_setaffinity(0, sizeof cpus, &cpus);
    }
    port = rte_eth_find_next(0);
    pump.wire = &port;
    pump.receive = receive;
    pump.transmit = transmit;
    if (pump_init(&pump, &words) != 0)
        die("no memory, or no place for the socket");
    start_port(&pump, port);
    pump_run(&pump);
}
