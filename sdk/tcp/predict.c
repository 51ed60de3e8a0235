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

bool predict_first(struct tcb *t, const struct input *in)
{
    (void)t, (void)in;
    return false;
}

#else

/* What the options of a segment must be. */
static inline uint32_t agreed_options(const struct tcb *t)
{
    return (t->flags & TCB_TIMESTAMPS) != 0 ? TCP_OPTION_TIMESTAMPS : 0;
}

/* Zero: the segment, an ACK in ESTABLISHED, is as predicted.  Each way to be otherwise gives bits, so that one branch asks for all. */
static inline uint32_t odds(const struct tcb *t, const struct tcb_ext *e, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;
    uint32_t acked = seg->ack - t->snd_una;
    uint32_t hole = e != NULL ? ~e->reasm.first : 0; /* REASM_NO_SLOT: none */

    return (uint32_t)(seg->options.present ^ agreed_options(t)) | (t->flags & PREDICT_UNUSUAL) |
           (uint32_t)(in->ecn == IP_ECN_CE) | (seg->seq ^ t->rcv_nxt) | hole |
           (uint32_t)(acked > t->snd_nxt - t->snd_una) | (uint32_t)(seg->payload_len > t->rcv_adv - t->rcv_nxt) |
           (uint32_t)((seg->payload_len | acked | (seg->flags & TCP_FIN)) == 0) |
           (uint32_t)seq_lt(seg->options.tsval, t->ts_recent) | (uint32_t)seq_gt(t->snd_wl1, seg->seq);
}

static void predicted(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, struct input *in, enum tcp_drop *drop)
{
    const struct tcp_segment *seg = &in->seg;

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
    if (seg->payload_len != 0) {
        *drop = rxq_add(s, t, in);
        if (*drop != TCP_DROP_NONE) {
            tcb_owe(s, t, OWE_ACK);
            return;
        }
        input_owe_ack(s, t, in, true);
    }
    if (seg->flags & TCP_FIN)
        input_take_fin(s, t, in->now_us);
}

/* In LAST-ACK, of who was closed: the ACK of our FIN, and nothing is left of the connection. */
static bool is_last(const struct tcb *t, const struct tcb_ext *e, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;

    return (((uint32_t)(seg->options.present ^ agreed_options(t)) | seg->payload_len | (seg->flags & TCP_FIN) |
             (seg->seq ^ t->rcv_nxt) | (seg->ack ^ t->snd_nxt) |
             ((t->flags & (PREDICT_UNUSUAL | TCB_FIN_SENT)) ^ (TCB_ORPHAN | TCB_FIN_SENT)) |
             (uint32_t)seq_lt(seg->options.tsval, t->ts_recent)) == 0) &&
           e != NULL && e->pmtu_probe == 0;
}

bool predict_input(struct tcp_stack *s, struct tcb *t, struct input *in, enum tcp_drop *drop)
{
    if ((in->seg.flags & (uint8_t) ~(TCP_PSH | TCP_FIN)) != TCP_ACK)
        return false;
    if (t->state == TCP_STATE_ESTABLISHED) {
        struct tcb_ext *e = stack_ext(s, t);

        if (odds(t, e, in) != 0)
            return false;
        predicted(s, t, e, in, drop);
        return true;
    }
    if (t->state != TCP_STATE_LAST_ACK || !is_last(t, stack_ext(s, t), in))
        return false;
    tcb_end(s, t, 0);
    return true;
}

bool predict_first(struct tcb *t, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;

    if (((uint32_t)(seg->options.present ^ agreed_options(t)) | seg->payload_len | (seg->seq ^ t->rcv_nxt) |
         (uint32_t)((seg->flags & (uint8_t)~TCP_PSH) ^ TCP_ACK)) != 0)
        return false;
    if (t->flags & TCB_TIMESTAMPS)
        t->ts_recent = seg->options.tsval;
    return true;
}

#endif
