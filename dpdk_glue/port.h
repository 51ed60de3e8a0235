/*
 * port.h: which I/O thread serves which queue of a port.
 *
 *   receive queue q: thread q % io_count          send queue q: thread q; threads beyond the queues hand over to thread 0
 */
#ifndef DPDK_GLUE_PORT_H
#define DPDK_GLUE_PORT_H

#include "dpdk_glue/state.h"

/* Stops and closes all ports; no I/O thread runs any more. */
void ports_close(struct glue *g);

#endif
