/*
 * cc_common.h: steps that the congestion controls share; for cc_*.c alone.
 */
#ifndef TCP_CC_COMMON_H
#define TCP_CC_COMMON_H

#include "tcp/cc.h"

/* cwnd += bytes, at most CC_CWND_MAX; bytes is at most CC_CWND_MAX. */
void cc_grow(struct cc_window *window, uint32_t bytes);

/* Slow start by acked_bytes, up to ssthresh.  Returns the bytes it did not use. */
uint32_t cc_slow_start(struct cc_window *window, const struct cc_ack *ack);

/* Notes the window for cc_undo(), before it is reduced. */
void cc_remember(const struct cc_window *window, struct cc_state *state);
void cc_undo(struct cc_window *window, struct cc_state *state);

/* NewReno's, for who differs in little. */
void cc_newreno_on_ack(struct cc_window *window, struct cc_state *state, const struct cc_ack *ack);
void cc_newreno_on_congestion(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss,
                              uint64_t now_us);
void cc_newreno_on_rto(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, bool first,
                       uint64_t now_us);

/* RFC 6582 3.2 (3), first form: no burst. */
void cc_recovery_exit(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss);

#endif
