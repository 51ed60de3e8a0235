/*
 * ecn.c: explicit congestion notification.
 */
#include "tcp/ecn.h"

#include "tcp/reply.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/window.h"

/* RFC 8257 3.2: ECE says exactly which bytes were marked, so an ACK that is being delayed goes out before the mark changes. */
static void echo_each_mark(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    bool marked = in->ecn == IP_ECN_CE;
    struct reply *r;

    s->counters.ce_received += marked;
    if (marked == ((t->flags & TCB_ECN_ECHO) != 0))
        return;
    if (t->rcv_nxt != t->last_ack_sent) {
        r = reply_add(s, &in->flow, in->laddr_index, t->settings, TCP_ACK | (t->flags & TCB_ECN_ECHO ? TCP_ECE : 0),
                      window_acceptable_seq(t), t->rcv_nxt);
        if (r != NULL) {
            r->wnd = window_advertise(s, t, stack_ext(s, t));
            if (t->flags & TCB_TIMESTAMPS) {
                r->options.present = TCP_OPTION_TIMESTAMPS;
                r->options.tsval = tcb_tsval(s, t, in->now_us);
                r->options.tsecr = t->ts_recent;
            }
        }
    }
    t->flags ^= TCB_ECN_ECHO;
    tcb_owe(s, t, OWE_ACK);
}

void ecn_received(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    if (in->seg.payload_len == 0) /* a mark on a pure ACK means nothing (RFC 3168 6.1.4) */
        return;
    if (settings_cc(s, t)->on_feedback != NULL) {
        echo_each_mark(s, t, in);
        return;
    }
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
    const struct tcp_cc_ops *cc = settings_cc(s, t);

    if (cc->on_ecn != NULL && (t->flags & TCB_ECN))
        cc->on_ecn(&t->cc, &e->cc, flight, t->smss, now_us);
    else
        cc->on_congestion(&t->cc, &e->cc, flight, t->smss, now_us);
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
