/*
 * slow_path.h: frames from the I/O threads to the control plane, one bounded ring per I/O thread.
 */
#ifndef DPDK_GLUE_SLOW_PATH_H
#define DPDK_GLUE_SLOW_PATH_H

#include "dpdk_glue/state.h"

/* Copies a frame for the control plane.  next_hop is null unless reason is GLUE_SLOW_NEIGHBOUR.  False: the ring is full. */
bool slow_push(struct io_thread *io, uint32_t port, enum glue_slow_reason reason, const struct ip_addr *next_hop,
               const uint8_t *frame, uint32_t len);

#endif
