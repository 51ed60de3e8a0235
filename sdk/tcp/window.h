/*
 * window.h: the receive window: how much to offer, and when to tell.
 *
 *   rcv_nxt          rcv_adv            rcv_nxt + room
 *      |-- offered ------|-- may be offered --|
 *
 * The right edge never moves left (RFC 9293 3.8.6), and moves right in steps that are worth it (3.8.6.2.2).
 *
 * The buffer grows with the path.  What lies beyond an edge can only have been sent after that edge was heard of, so from
 * advertising one to receiving up to it, a round, takes a round trip or more.  A sender that the window holds back needs just that,
 * whatever the window's size; one that something else holds back needs longer the larger the window is.  While rounds are as short as
 * ever and the user keeps up, the buffer doubles; while slots are short, it halves.  A connection that receives full segments keeps its
 * extension for an RTO after them, so that rounds can be measured.
 */
#ifndef TCP_WINDOW_H
#define TCP_WINDOW_H

#include "tcp/stack.h"

/* The window field of a segment that is now sent, and moves rcv_adv to it. */
uint16_t window_advertise(const struct tcp_stack *s, struct tcb *t, const struct tcb_ext *e);

/* The user has read: true when the peer should hear of the new window without waiting for something else to say. */
bool window_is_worth_telling(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e);

/* The sizes of buffers, and the shift that lets the window field cover the largest, or more when the configuration asks for it. */
void window_init(struct tcp_stack *s);

static inline uint8_t window_rcv_shift(const struct tcp_stack *s, const struct tcb *t)
{
    return s->rcv_shifts[t->flags & TCB_WINDOW_SCALE];
}

/* Bytes that t's receive buffer has now. */
static inline uint32_t window_buffer(const struct tcp_stack *s, const struct tcb *t)
{
    return s->rcv_sizes[t->rcv_level].bytes;
}

/* The largest window: of the buffer, and of what the field can say. */
static inline uint32_t window_largest(const struct tcp_stack *s, const struct tcb *t)
{
    return s->rcv_sizes[t->rcv_level].largest[t->flags & TCB_WINDOW_SCALE];
}

/* SEG.SEQ of a segment without payload: SND.NXT, or the edge of a window that the peer has taken back from under what was sent.  Beyond
 * that edge it would drop the segment with its ACK (RFC 9293 3.10.7.4), and a peer whose own data is not acknowledged may not read on.
 * An edge that went back by less than a scaled window can say may have been rounded, not taken back (RFC 7323 2.4): what was sent has come
 * then, and a number before its end is old.  While nothing gets through, one after the other is tried. */
static inline uint32_t window_acceptable_seq(const struct tcb *t)
{
    uint32_t edge = t->snd_una + t->snd_wnd;

    if (__builtin_expect(t->snd_nxt - t->snd_una <= t->snd_wnd, true))
        return t->snd_nxt;
    return (t->backoff & 1) == 0 && (t->snd_nxt - edge) >> t->snd_wind_shift == 0 ? t->snd_nxt : edge;
}

/* Two full segments wait for their ACK, and no round is on, or RCV.NXT has come to the mark of this one. */
void window_round(const struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* Keeps the extension for a while, if nothing else does. */
void window_keep(const struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* The window field of a SYN or SYN-ACK, never scaled (RFC 7323 2.2). */
static inline uint16_t window_initial(const struct tcp_stack *s)
{
    return s->config.rcv_buf_bytes < UINT16_MAX ? (uint16_t)s->config.rcv_buf_bytes : UINT16_MAX;
}

#endif
