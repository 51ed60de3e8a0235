/*
 * rx.h: bursts from a port's queues to the TCP threads, stage by stage over the whole burst.
 *
 *   receive -> classify -> service -> hash -> circle -> session -> copy -> publish
 */
#ifndef DPDK_GLUE_RX_H
#define DPDK_GLUE_RX_H

#include "dpdk_glue/state.h"

/* One burst from each queue that is this thread's; packets received. */
uint32_t rx_ports(struct io_thread *io);

/* The thread ends: what it holds is dropped. */
void rx_clear(struct io_thread *io);

#endif
