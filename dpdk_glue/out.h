/*
 * out.h: frames on their way to a port, for the I/O thread that makes them.
 *
 *   out_stage() -> out queue of (thread, port) --out_flush()--> the thread's send queue, or the handover ring of thread 0
 *
 * A port that is full keeps up to OUT_QUEUE frames waiting per thread; beyond that they are dropped and counted, so a dead port
 * never holds up another.
 */
#ifndef DPDK_GLUE_OUT_H
#define DPDK_GLUE_OUT_H

#include "dpdk_glue/state.h"

/* Takes the mbuf. */
void out_stage(struct io_thread *io, uint32_t port, struct rte_mbuf *m);
/* Sends what is staged, as far as the ports take it; how many. */
uint32_t out_flush(struct io_thread *io);
/* Thread 0: stages what other threads and the control plane have handed over; how many. */
uint32_t out_take_handover(struct io_thread *io);
/* Frees what is staged. */
void out_clear(struct io_thread *io);

/* Copies a frame into a new mbuf; null: the pool is empty. */
struct rte_mbuf *out_frame(struct glue *g, const uint8_t *frame, uint32_t len);
/* The same in m, which may be null; it is given back when it has no room. */
struct rte_mbuf *out_fill(struct rte_mbuf *m, const uint8_t *frame, uint32_t len);

#endif
