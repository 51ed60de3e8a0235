/*
 * core_env.h: slots, their free lists and the plain half of struct tcp_env, for a program that feeds the TCP core by itself.
 *
 * Which slots are free to send from is the including file's business: it has alloc, free, send and busy.
 */
#ifndef BENCH_CORE_ENV_H
#define BENCH_CORE_ENV_H

#include "tcp/tcp.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CORE_SLOTS = 8192 };

static uint8_t (*rx)[TCP_SLOT_BYTES], (*tx)[TCP_SLOT_BYTES];
static uint32_t rx_free[CORE_SLOTS], rx_count, tx_free[CORE_SLOTS], tx_count;

static uint8_t *core_data(void *context, uint32_t slot)
{
    (void)context;
    return tx[slot];
}

static uint32_t core_available(void *context)
{
    (void)context;
    return tx_count;
}

static const uint8_t *core_rx_data(void *context, uint32_t slot)
{
    (void)context;
    return rx[slot];
}

static void core_rx_release(void *context, uint32_t slot)
{
    (void)context;
    rx_free[rx_count++] = slot;
}

static void core_random(void *context, void *data, size_t len)
{
    (void)context;
    memset(data, 7, len);
}

static void *core_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (p == MAP_FAILED)
        exit(1);
    return p;
}

/* A stack at address that listens on port.  config: all but slots and MTU; own: alloc, free, send and busy of the environment. */
static struct tcp_stack *core_start(const struct tcp_env *own, struct tcp_config config, const struct ip_addr *address,
                                    uint16_t port, uint64_t now_us)
{
    struct tcp_env env = *own;
    struct tcp_stack *stack;

    config.rx_slots = config.tx_slots = CORE_SLOTS;
    config.mtu = 1500;
    env.tx_data = core_data;
    env.tx_available = core_available;
    env.rx_data = core_rx_data;
    env.rx_release = core_rx_release;
    env.random = core_random;
    rx = core_memory(sizeof *rx * CORE_SLOTS);
    tx = core_memory(sizeof *tx * CORE_SLOTS);
    for (uint32_t i = CORE_SLOTS; i-- > 0;)
        rx_free[rx_count++] = tx_free[tx_count++] = i;
    stack =
        tcp_init(&config, &env, core_memory(tcp_memory_bytes(&config)), core_memory(tcp_rows_bytes(&config)), now_us);
    if (stack == NULL || !tcp_add_address(stack, address) || tcp_listen(stack, &(struct ip_addr){{0}}, port, 0) != 0)
        exit(1);
    return stack;
}

#endif
