/*
 * env_loop.h: two TCP threads joined by a wire in memory, without janusd, root or DPDK.
 *
 *   thread 0 ──tx_send──> copy ──> queue of thread 1 ──receive──> thread 1, and the same back
 *
 * Time is real or virtual: virtual time moves only by janus_loop_advance() and in whole microseconds, so a run with the same
 * calls and the same seed is the same run.  For tests of handlers and for janus_tcp.testing.
 */
#ifndef APP_ENV_LOOP_H
#define APP_ENV_LOOP_H

#include "app/thread_api.h"

/* cffi:begin */
struct janus_loop;

struct janus_loop_options {
    uint32_t rows, rx_slots, tx_slots; /* of each thread */
    uint32_t latency_us;               /* one way */
    uint16_t mtu;
    bool virtual_time;
    uint64_t seed;
    struct ip_addr addresses[2];                   /* of thread 0 and of thread 1 */
    uint32_t rcv_buf_bytes, snd_buf_bytes, msl_ms; /* 0: the core's defaults */
};

/* Null: error says why. */
struct janus_loop *janus_loop_open(const struct janus_loop_options *options, struct janus_error *error);
/* Closes both threads; do not call thread_close() on them. */
void janus_loop_close(struct janus_loop *loop);
/* Thread 0 or 1; the loop keeps it. */
struct janus_thread *janus_loop_thread(struct janus_loop *loop, uint32_t index);
/* Moves virtual time on. */
void janus_loop_advance(struct janus_loop *loop, uint64_t us);
/* cffi:end */

#endif
