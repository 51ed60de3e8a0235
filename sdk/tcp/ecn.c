/*
 * ecn.c: explicit congestion notification.
 */
#include "tcp/ecn.h"

#include "tcp/seq.h"
#include "tcp/settings.h"

void ecn_received(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    if (in->seg.payload_len == 0) /* a mark on a pure ACK means nothing (RFC 3168 6.1.4) */
        return;
    if (in->seg.flags & TCP_CWR)
        t->flags &= ~(uint32_t)TCB_ECN_ECHO;
    if (in->ecn == IP_ECN_CE) {
        s->counters.ce_received++;
        t->flags |= TCB_ECN_ECHO;
        tcb_owe(s, t, OWE_ACK); /* a delayed ACK would delay the answer to congestion */
    }
}

void ecn_reduce(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t flight, uint64_t now_us)
{
    settings_cc(s, t)->on_congestion(&t->cc, &e->cc, flight, t->smss, now_us);
    e->undo = false; /* a D-SACK says nothing of this one */
    ecn_reduced(t, e);
}

void ecn_congestion(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in, uint32_t flight)
{
    if (!seq_gt(in->seg.ack, e->cwr_point) || (t->flags & (TCB_RECOVERY | TCB_LOSS)))
        return;
    s->counters.ecn_reductions++;
    ecn_reduce(s, t, e, flight, in->now_us);
}
