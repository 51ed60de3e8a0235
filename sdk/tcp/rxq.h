/*
 * rxq.h: received payload: what is in order waits for the user in its own RX slots, the rest in the reassembly queue.
 *
 * The pool of RX slots is shared by a dynamic threshold: a connection may hold as many slots as are left to all.  So one slow reader
 * gets half of the budget at most, and a connection that holds nothing always gets its next segment in.
 */
#ifndef TCP_RXQ_H
#define TCP_RXQ_H

#include "tcp/stack.h"

/* The text of a segment that was trimmed to the window (RFC 9293 3.10.7.4, seventh): takes the slot, or says why not.
 * Moves RCV.NXT and tells the user. */
enum tcp_drop rxq_add(struct tcp_stack *s, struct tcb *t, struct input *in);

/* RX slots that one connection may hold at most, for a receive buffer of this size. */
uint32_t rxq_conn_max(uint32_t rcv_buf_bytes);

/* RX slots that the connection may still take, when the pool grants one of each share. */
static inline uint32_t rxq_slots_left(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e,
                                      uint32_t share)
{
    uint32_t held = e != NULL ? (uint32_t)e->rx_slots + e->reasm.segments : 0;
    uint32_t pool = s->rx_budget > s->rx_held + held ? (s->rx_budget - s->rx_held - held + share - 1) / share : 0;
    uint32_t own = s->rcv_sizes[t->rcv_level].slots;

    if (pool != 0 && own > held)
        return pool < own - held ? pool : own - held;
    return held == 0;
}

/* RX slots that the connection could still take if no other took any.  Each that is taken leaves one less to all, and is one more that
 * is held. */
static inline uint32_t rxq_slots_to_offer(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    return rxq_slots_left(s, t, e, 2);
}

/* Text from the first unread byte to the end of urgent data, of which some may not have come yet; 0: none is pending. */
uint32_t rxq_urgent_bytes(const struct tcb *t, const struct tcb_ext *e);

/* The segment has URG (RFC 9293 3.10.7.4, sixth): where urgent data ends is kept while the extension is, and the user told of it. */
void rxq_urgent(struct tcp_stack *s, struct tcb *t, const struct tcp_segment *seg);

/* Takes the first slot out of what is in order; it stays held, and rx_bytes is the caller's to correct. */
void rxq_unlink_first(struct tcp_stack *s, struct tcb_ext *e);

/* Consumes len bytes, at most rx_bytes. */
void rxq_consume(struct tcp_stack *s, struct tcb_ext *e, uint32_t len);

void rxq_drop_out_of_order(struct tcp_stack *s, struct tcb_ext *e);

/* Drops all that is in order. */
void rxq_clear(struct tcp_stack *s, struct tcb_ext *e);

#endif
