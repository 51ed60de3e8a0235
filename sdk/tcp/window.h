/*
 * window.h: the receive window: how much to offer, and when to tell.
 *
 *   rcv_nxt          rcv_adv            rcv_nxt + room
 *      |-- offered ------|-- may be offered --|
 *
 * The right edge never moves left (RFC 9293 3.8.6), and moves right in steps that are worth it (3.8.6.2.2).
 */
#ifndef TCP_WINDOW_H
#define TCP_WINDOW_H

#include "tcp/stack.h"

/* The window field of a segment that is now sent, and moves rcv_adv to it. */
uint16_t window_advertise(const struct tcp_stack *s, struct tcb *t);

/* The user has read: true when the peer should hear of the new window without waiting for something else to say. */
bool window_is_worth_telling(const struct tcp_stack *s, const struct tcb *t);

/* The shift that lets the window field cover the largest window, or more when the configuration asks for it. */
uint8_t window_shift(const struct tcp_stack *s);

/* The window field of a SYN or SYN-ACK, never scaled (RFC 7323 2.2). */
uint16_t window_initial(const struct tcp_stack *s);

#endif
