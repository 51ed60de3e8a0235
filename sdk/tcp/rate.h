/*
 * rate.h: the delivery rate of a connection, a sample with each ACK (draft-ietf-ccwg-bbr-06 4.1), for a congestion control that asks for
 * it.
 *
 *   a segment goes out:       its mark takes what was delivered until now, since when, and what is in flight
 *   the latest is delivered:  what was delivered since, over the longer of two times, of sending and of acknowledging it
 *
 * Marks lie beside the metadata of slots, the model beside the extensions: who does not measure touches neither.  tcb_ext.rated
 * says who does; callers ask it, since most do not.
 */
#ifndef TCP_RATE_H
#define TCP_RATE_H

#include "tcp/bbr.h"
#include "tcp/stack.h"

/* Of a segment, when it was sent last; void without TX_MARKED. */
struct rate_mark {
    uint32_t delivered, lost, in_flight;
    uint32_t delivered_us, first_sent_us;
};

/* The extension was borrowed, or is to be given back: what is known of the path is kept in the row, in ssthresh the BDP. */
void rate_start(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e);
void rate_stop(struct tcb *t, struct tcb_ext *e);

/* A segment was sent. */
void rate_sent(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot, uint64_t now_us);

/* The user writes, an ACK comes or a timer fires: if there was nothing left to send, what comes is limited by the user. */
void rate_check_limited(const struct tcb *t, struct tcb_ext *e);

/* An ACK: before it is looked at, for each whole segment that it acknowledges or SACKs for the first time, and behind it all. */
void rate_begin(const struct tcb *t, struct tcb_ext *e);
void rate_delivered(struct tcp_stack *s, struct tcb_ext *e, uint32_t slot, uint64_t now_us);
void rate_on_ack(struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* A segment is judged lost. */
void rate_lost(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot);

#endif
