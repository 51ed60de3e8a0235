/*
 * rtxq.h: what was given to send and is not yet acknowledged: the TX slots themselves, in order.
 *
 *   SND.UNA                    SND.NXT                 tx_end
 *      |== sent ==|== sent ==|====== unsent =====|== tail ==|
 *   tx_first                   tx_unsent              tx_last
 *
 * Each slot is one segment; sequence numbers follow on each other without a gap.  Only an unsent slot may still grow.
 */
#ifndef TCP_RTXQ_H
#define TCP_RTXQ_H

#include "tcp/stack.h"

struct rtxq_acked {
    uint32_t bytes;
    uint32_t sacked_bytes; /* of these, SACKed before */
    uint32_t sent_us;      /* of the first segment, when sample */
    bool sample;           /* none of them was sent twice (Karn) */
};

/* Bytes that t may have unacknowledged and unsent: what the path takes in two round trips, so that it never runs dry. */
static inline uint32_t rtxq_buffer(const struct tcp_stack *s, const struct tcb *t)
{
    uint32_t wanted = t->cc.cwnd;

    if (wanted <= s->config.snd_buf_bytes / 2)
        return s->config.snd_buf_bytes;
    return wanted < s->config.snd_buf_max_bytes / 2 ? 2 * wanted : s->config.snd_buf_max_bytes;
}

/* Copies up to len bytes behind the queue, filling its unsent tail first; returns how many were taken. */
uint32_t rtxq_append(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const uint8_t *data, uint32_t len);

/* Bytes that rtxq_append() may take now by the connection's and the thread's limits. */
uint32_t rtxq_room(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e);

/* The connection's own limit is what keeps rtxq_append() from taking a segment: only an ACK makes room. */
bool rtxq_is_full(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e);

/* Frees what lies before the ACK's number, which is at most the end of what was sent. */
void rtxq_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in, struct rtxq_acked *acked);

/* Makes slot len bytes long and moves the rest to a new slot behind it.  False: no slot for it. */
bool rtxq_split(struct tcp_stack *s, struct tcb_ext *e, uint32_t slot, uint32_t len);

/* Makes the first unsent slot len bytes long with what is queued behind it; there is as much, and room for it in a slot. */
void rtxq_join(struct tcp_stack *s, struct tcb_ext *e, uint32_t len);

/* Frees all. */
void rtxq_clear(struct tcp_stack *s, struct tcb_ext *e);

/* Sent, and neither SACKed nor judged lost: RFC 6675's pipe, in bytes; without SACK each duplicate ACK counts for a segment. */
uint32_t rtxq_pipe(const struct tcb *t, const struct tcb_ext *e);

#endif
