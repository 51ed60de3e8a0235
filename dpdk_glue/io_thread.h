/*
 * io_thread.h: the loop of an I/O thread, and its sleep.
 *
 *   turn: receive, send, hand over, flush.  No work for 50 us: arm all doorbells, look once more, sleep 50 us to 10 ms, disarm.
 *
 * A doorbell, the control plane or a port's socket ends the sleep; a port that cannot is looked at every millisecond.
 */
#ifndef DPDK_GLUE_IO_THREAD_H
#define DPDK_GLUE_IO_THREAD_H

#include "dpdk_glue/state.h"

/* epoll, kick, slow ring.  0 or -errno. */
int io_thread_init(struct glue *g, uint32_t index, int32_t cpu);
void io_thread_release(struct io_thread *io);

/* Stops and joins all threads. */
void io_threads_stop(struct glue *g);

#endif
