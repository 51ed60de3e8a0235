/*
 * pump.h: the load on DPDK: frames between a wire and load.h, until the end of the process.
 */
#ifndef BENCH_LOAD_PUMP_H
#define BENCH_LOAD_PUMP_H

#include "bench/load/control.h"

#include <rte_mbuf.h>

enum { PUMP_BURST = 64 };

struct pump {
    uint16_t (*receive)(void *wire, struct rte_mbuf **mbufs, uint16_t count);
    uint16_t (*transmit)(void *wire, struct rte_mbuf **mbufs, uint16_t count);
    void *wire;
    struct rte_mempool *pool;
    struct rte_mbuf *fresh[PUMP_BURST], *staged[PUMP_BURST];
    uint32_t fresh_count, staged_count;
    struct control control;
    struct load load;
};

/* What both programs are told: words of "key=value": socket=, server=, gateway=, clients=, port=, cpu=. */
struct pump_words {
    char socket[108];
    struct load_ends ends;
    int cpu; /* -1: not pinned */
};

/* False: a word is none of these. */
bool pump_word(struct pump_words *words, const char *word);
/* 0 or -errno. */
int pump_init(struct pump *p, const struct pump_words *words);
_Noreturn void pump_run(struct pump *p);

#endif
