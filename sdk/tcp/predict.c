/*
 * predict.c: header prediction.
 */
#include "tcp/predict.h"

#include "tcp/ack.h"
#include "tcp/input.h"
#include "tcp/rack.h"
#include "tcp/rate.h"
#include "tcp/rxq.h"
#include "tcp/seq.h"
#include "tcp/timers.h"

#ifdef JANUS_NO_PREDICTION

bool predict_input(struct tcp_stack *s, struct tcb *t, struct input *in, enum tcp_drop *drop)
{
    (void)s, (void)t, (void)in, (void)drop;
    return false;
}

#else

/* Zero: the segment, an ACK in ESTABLISHED, is as predicted.  Each way to be otherwise gives bits, so that one branch asks for all. */
static inline uint32_t odds(const struct tcb *t, const struct tcb_ext *e, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;
    uint32_t agreed = (t->flags & TCB_TIMESTAMPS) != 0 ? TCP_OPTION_TIMESTAMPS : 0;
    uint32_t acked = seg->ack - t->snd_una;
    uint32_t hole = e != NULL ? ~e->reasm.first : 0; /* REASM_NO_SLOT: none */

    return (uint32_t)(seg->options.present ^ agreed) | (t->flags & PREDICT_UNUSUAL) | (uint32_t)(in->ecn == IP_ECN_CE) |
           (seg->seq ^ t->rcv_nxt) | hole | (uint32_t)(acked > t->snd_nxt - t->snd_una) |
           (uint32_t)(seg->payload_len > t->rcv_adv - t->rcv_nxt) | (uint32_t)((seg->payload_len | acked) == 0) |
           (uint32_t)seq_lt(seg->options.tsval, t->ts_recent) | (uint32_t)seq_gt(t->snd_wl1, seg->seq);
}

bool predict_input(struct tcp_stack *s, struct tcb *t, struct input *in, enum tcp_drop *drop)
{
    const struct tcp_segment *seg = &in->seg;
    struct tcb_ext *e;

    if ((seg->flags & (uint8_t)~TCP_PSH) != TCP_ACK || t->state != TCP_STATE_ESTABLISHED)
        return false;
    e = stack_ext(s, t);
    if (odds(t, e, in) != 0)
        return false;
    timers_heard(s, t, in->now_us);
    if ((t->flags & TCB_TIMESTAMPS) && seq_leq(seg->seq, t->last_ack_sent)) {
        t->ts_recent = seg->options.tsval;
        t->ts_recent_age_ms = stack_now_ms(in->now_us);
    }
    if (seg->ack != t->snd_una) {
        rack_begin(e);
        if (e->rated)
            rate_begin(t, e);
        ack_new(s, t, e, in, 0);
        if (e->rated)
            rate_on_ack(t, e, in->now_us);
    }
    ack_update_window(s, t, seg, true);
    if (seg->payload_len == 0)
        return true;
    *drop = rxq_add(s, t, in);
    if (*drop == TCP_DROP_NONE)
        input_owe_ack(s, t, in, true);
    else
        tcb_owe(s, t, OWE_ACK);
    return true;
}

#endif
