/*
 * pump.c: receive, answer, emit, transmit.
 */
#include "bench/load/pump.h"

#include "dpdk_glue/mbufs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <rte_cycles.h>
#include <rte_pause.h>
#include <stdlib.h>
#include <time.h>

enum {
    POOL = 32767,
    SPINS = 20, /* for a full wire; then the frame is lost, as at a switch: who waits longer misses what comes */
    CONTROL_EVERY = 64,
    IDLE_NS = 100000,
    ASK_US = 100000,
};

static uint64_t clock_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void flush(struct pump *p)
{
    uint32_t sent = 0;

    for (int i = 0; sent < p->staged_count && i < SPINS; i++) {
        uint16_t n = p->transmit(p->wire, p->staged + sent, (uint16_t)(p->staged_count - sent));

        sent += n;
        if (n == 0)
            rte_pause();
    }
    p->load.counts.wire_full += p->staged_count - sent;
    rte_pktmbuf_free_bulk(p->staged + sent, p->staged_count - sent);
    p->staged_count = 0;
}

static uint8_t *room(void *context)
{
    struct pump *p = context;

    if (p->fresh_count == 0 && mbufs_take(p->pool, p->fresh, PUMP_BURST))
        p->fresh_count = PUMP_BURST;
    return p->fresh_count != 0 ? rte_pktmbuf_mtod(p->fresh[p->fresh_count - 1], uint8_t *) : NULL;
}

static void send_next(void *context, uint32_t len)
{
    struct pump *p = context;
    struct rte_mbuf *m = p->fresh[--p->fresh_count];

    m->data_len = (uint16_t)len;
    m->pkt_len = len;
    p->staged[p->staged_count++] = m;
    if (p->staged_count == PUMP_BURST)
        flush(p);
}

static uint32_t turn(struct pump *p)
{
    struct rte_mbuf *mbufs[PUMP_BURST];
    uint32_t n = p->receive(p->wire, mbufs, PUMP_BURST);

    for (uint32_t i = 0; i < n; i++)
        rte_prefetch0(mbufs[i]);
    for (uint32_t i = 0; i < n && i < 8; i++)
        rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], void *));
    for (uint32_t i = 0; i < n; i++) {
        if (i + 8 < n)
            rte_prefetch0(rte_pktmbuf_mtod(mbufs[i + 8], void *));
        if (mbufs[i]->nb_segs == 1)
            load_input(&p->load, rte_pktmbuf_mtod(mbufs[i], const uint8_t *), rte_pktmbuf_data_len(mbufs[i]));
    }
    mbufs_free(mbufs, n);
    n += load_emit(&p->load);
    if (p->staged_count != 0)
        flush(p);
    return n;
}

void pump_run(struct pump *p)
{
    const struct timespec nap = {.tv_nsec = IDLE_NS};
    uint64_t asked_us = 0;
    bool busy = false;

    for (uint32_t i = 0;; i++) {
        load_time(&p->load, clock_us());
        if (!p->load.knows_server && p->load.now_us - asked_us > ASK_US) {
            asked_us = p->load.now_us;
            load_ask_server(&p->load);
        }
        if (i % CONTROL_EVERY == 0 || !busy)
            busy = control_step(&p->control, &p->load) && p->load.knows_server;
        uint64_t begin = rte_rdtsc();
        if (turn(p) != 0)
            p->load.counts.busy_cycles += rte_rdtsc() - begin;
        else if (!busy)
            nanosleep(&nap, NULL);
        else
            rte_pause();
    }
}

bool pump_word(struct pump_words *words, const char *word)
{
    const char *value = strchr(word, '=');
    struct in_addr address = {0};

    if (value++ == NULL)
        return false;
    size_t len = (size_t)(value - word);
    if (strncmp(word, "socket=", len) == 0) {
        snprintf(words->socket, sizeof words->socket, "%s", value);
        return true;
    }
    if (strncmp(word, "cpu=", len) == 0) {
        words->cpu = atoi(value);
        return true;
    }
    if (strncmp(word, "port=", len) == 0) {
        words->ends.port = (uint16_t)atoi(value);
        return true;
    }
    if (inet_pton(AF_INET, value, &address) != 1)
        return false;
    if (strncmp(word, "server=", len) == 0)
        words->ends.server = ntohl(address.s_addr);
    else if (strncmp(word, "gateway=", len) == 0)
        words->ends.gateway = ntohl(address.s_addr);
    else if (strncmp(word, "clients=", len) == 0)
        words->ends.clients = ntohl(address.s_addr);
    else
        return false;
    return true;
}

int pump_init(struct pump *p, const struct pump_words *words)
{
    const struct load_wire wire = {p, room, send_next};

    p->pool = rte_pktmbuf_pool_create("load", POOL, 512, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (p->pool == NULL)
        return -ENOMEM;
    load_init(&p->load, &words->ends, &wire);
    return control_open(&p->control, words->socket);
}
