/*
 * pacing.h: a flight spread over its round trip instead of sent at once.
 *
 * Twice the window for each round trip in slow start, five quarters of it after: as fast as cwnd may come to be, so that pacing is never
 * what limits; with BBR by its pacing rate, on any path.  Timers tick each millisecond, so what is due within one goes together, and other paths of less than 4 ms are not paced.
 */
#ifndef TCP_PACING_H
#define TCP_PACING_H

#include "tcp/stack.h"

/* True: the next segment has to wait, and pace_deadline says for how long. */
bool pacing_holds(struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* len bytes were sent. */
void pacing_sent(const struct tcb *t, struct tcb_ext *e, uint32_t len, uint64_t now_us);

#endif
