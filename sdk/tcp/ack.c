/*
 * ack.c: acknowledgments.
 */
#include "tcp/ack.h"

#include "tcp/ecn.h"
#include "tcp/pmtu.h"
#include "tcp/rack.h"
#include "tcp/rate.h"
#include "tcp/recovery.h"
#include "tcp/rtxq.h"
#include "tcp/sack.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/state.h"
#include "tcp/timers.h"
#include "tcp/validation.h"

bool ack_may_challenge(struct tcp_stack *s, uint64_t now_us)
{
    uint32_t limit = s->config.challenge_acks, drawn;

    if (now_us >= s->challenges_until_us) {
        s->env.random(s->env.context, &drawn, sizeof drawn);
        s->challenges_until_us = now_us + CHALLENGES_PERIOD_US;
        s->challenge_acks_left = limit - limit / 2 + drawn % (limit + 1);
    }
    if (s->challenge_acks_left == 0)
        return false;
    s->challenge_acks_left--;
    s->counters.challenge_acks++;
    return true;
}

static bool is_due(struct tcb *t, uint64_t now_us)
{
    uint8_t now_128ms = (uint8_t)(now_us / 128000);

    if (t->challenged_128ms != 0 && (uint8_t)(now_128ms - t->challenged_128ms) * 128u < CHALLENGE_MS)
        return false;
    t->challenged_128ms = now_128ms != 0 ? now_128ms : 1;
    return true;
}

void ack_limited(struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    if (is_due(t, now_us))
        tcb_owe(s, t, OWE_ACK);
}

void ack_challenge(struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    if (is_due(t, now_us) && ack_may_challenge(s, now_us))
        tcb_owe(s, t, OWE_ACK);
}

void ack_update_window(struct tcp_stack *s, struct tcb *t, const struct tcp_segment *seg, bool newer)
{
    struct tcb_ext *e = stack_ext(s, t);
    uint32_t wnd = (uint32_t)seg->wnd << t->snd_wind_shift;

    if (!newer && seq_gt(t->snd_wl1, seg->seq))
        return;
    t->snd_wl1 = seg->seq;
    if (e != NULL && wnd > e->max_snd_wnd)
        e->max_snd_wnd = wnd;
    if (wnd > t->snd_wnd && e != NULL && e->tx_first != TCP_NO_SLOT) {
        if (t->snd_una == t->snd_nxt) { /* the persist timer has served */
            e->rtx_deadline = 0;
            t->backoff = 0;
        }
        tcb_owe(s, t, OWE_DATA);
    }
    t->snd_wnd = wnd;
}

/* One measurement from an ACK of new data: by the segment's own time, or by the echoed timestamp when one was sent twice.  False:
 * there was none (RFC 6298 3).  An echo from before the last transmission may come from a copy whose first ACK was lost: such a
 * "round trip" contains the timeout itself and would double RTO each time.  Only an ACK that comes too soon to be one of the
 * last transmission proves that the round trip is that long. */
static bool sample_rtt(struct tcb *t, const struct tcb_ext *e, const struct input *in, const struct rtxq_acked *acked)
{
    uint32_t flight = t->snd_nxt - t->snd_una + acked->bytes;
    uint32_t two = 2u * t->smss, samples = flight <= two ? 1 : (flight + two - 1) / two;
    uint32_t since_us = (uint32_t)in->now_us - acked->sent_us;
    uint32_t elapsed_ms;

    if (acked->bytes == 0)
        return false;
    if (acked->sample) {
        rtt_sample(&t->rtt, since_us, samples);
        return true;
    }
    if (!(t->flags & TCB_TIMESTAMPS) || !(in->seg.options.present & TCP_OPTION_TIMESTAMPS))
        return false;
    elapsed_ms = stack_now_ms(in->now_us) + e->ts_base - in->seg.options.tsecr;
    if (elapsed_ms >= RTT_SAMPLE_MAX_US / 1000 ||
        (elapsed_ms > since_us / 1000 + 1 && since_us >= rtt_srtt_us(&t->rtt)))
        return false;
    rtt_sample(&t->rtt, (elapsed_ms + (elapsed_ms == 0)) * 1000, samples);
    return true;
}

static void grow_cwnd(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in, uint32_t flight,
                      uint32_t bytes, bool round, uint32_t rtt_us)
{
    struct cc_ack cc_ack = {
        .now_us = in->now_us,
        .acked_bytes = bytes,
        .smss = t->smss,
        .srtt_us = rtt_srtt_us(&t->rtt),
        .rtt_us = rtt_us,
        .round = round,
        .cwnd_limited = cc_in_slow_start(&t->cc) ? t->cc.cwnd / 2 <= flight : t->cc.cwnd <= flight + t->smss,
    };

    if (bytes != 0 && !((in->seg.flags & TCP_ECE) && (t->flags & TCB_ECN))) /* RFC 3168 6.1.2 */
        settings_cc(s, t)->on_ack(&t->cc, &e->cc, &cc_ack);
}

/* Our FIN is acknowledged. */
static void ack_fin(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    e->tx_end = t->snd_nxt;
    t->flags &= ~(uint32_t)TCB_FIN_LOST;
    if (t->state == TCP_STATE_FIN_WAIT_1) {
        tcb_set_state(s, t, TCP_STATE_FIN_WAIT_2);
        if (t->flags & TCB_ORPHAN)
            t->idle_deadline = stack_deadline(now_us, s->config.fin_wait_2_ms * UINT64_C(1000));
    }
}

void ack_new(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in, uint32_t sacked)
{
    uint32_t flight = t->snd_nxt - t->snd_una;
    uint32_t ack = in->seg.ack;
    struct rtxq_acked acked;
    bool round;

    rtxq_ack(s, t, e, in, &acked);
    t->snd_una = ack;
    round = validation_on_ack(t, e, acked.bytes, flight, in->now_us);
    if ((t->flags & TCB_ECN) && settings_cc(s, t)->on_feedback != NULL)
        settings_cc(s, t)->on_feedback(&e->cc, acked.bytes, (in->seg.flags & TCP_ECE) != 0, round);
    if (acked.bytes >= t->smss)
        t->flags |= TCB_FULL_ACKED;
    if (e->pmtu_probe != 0)
        pmtu_on_ack(s, t, e);
    if (sample_rtt(t, e, in, &acked))
        t->backoff = 0; /* not before: RFC 6298 5.7, and Karn's algorithm would never learn a long round trip */
    else if (t->backoff != 0) {
        t->backoff = t->backoff < BACKOFF_KEPT ? t->backoff : BACKOFF_KEPT;
        e->resent = 0;
        e->stalled_since_ms = ack == t->snd_nxt ? 0 : stack_now_ms(in->now_us);
    }
    if ((t->flags & TCB_FIN_SENT) && ack == t->snd_nxt)
        ack_fin(s, t, e, in->now_us);
    if (recovery_on_ack(s, t, e, acked.bytes, in->now_us))
        grow_cwnd(s, t, e, in, flight, acked.bytes - acked.sacked_bytes + sacked, round,
                  acked.sample ? (uint32_t)in->now_us - acked.sent_us : 0);
    if (ack == t->snd_nxt) {
        e->rtx_deadline = e->rack_deadline = 0;
        if (e->undo | e->rcv_round) /* a D-SACK may still come; the round goes on */
            e->rack_deadline = stack_deadline(in->now_us, rtt_rto_us(&t->rtt, 0));
    } else {
        timers_start_rtx(t, e, in->now_us);
        rack_schedule_probe(t, e, in->now_us);
    }
    if (e->tx_first != TCP_NO_SLOT || (t->flags & (TCB_FIN_QUEUED | TCB_FIN_SENT)) == TCB_FIN_QUEUED)
        tcb_owe(s, t, OWE_DATA);
    if (t->flags & TCB_WANT_WRITABLE) {
        if (rtxq_room(s, t, e) >= t->smss) {
            t->flags &= ~(uint32_t)TCB_WANT_WRITABLE;
            tcb_event(s, t, TCP_EVENT_WRITABLE);
        } else if (!rtxq_is_full(s, t, e)) {
            tcb_owe(s, t, OWE_WRITABLE); /* what is missing now is slots */
        }
    }
    if ((t->flags & TCB_WANT_SENT_ALL) && e->tx_first == TCP_NO_SLOT) {
        t->flags &= ~(uint32_t)TCB_WANT_SENT_ALL;
        tcb_event(s, t, TCP_EVENT_SENT_ALL);
    }
}

/* RFC 5681 2: a duplicate acknowledgment.  With SACK, RFC 6675 2: one that reports new data, whatever else is in it. */
static bool is_duplicate(const struct tcb *t, const struct tcp_segment *seg)
{
    return seg->ack == t->snd_una && t->snd_una != t->snd_nxt && seg->payload_len == 0 &&
           !(seg->flags & (TCP_SYN | TCP_FIN)) && (uint32_t)seg->wnd << t->snd_wind_shift == t->snd_wnd;
}

enum tcp_drop ack_process(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;
    struct tcb_ext *e = stack_ext(s, t);
    uint32_t max_wnd = (uint32_t)UINT16_MAX << t->snd_wind_shift;
    uint32_t sacked = 0, flight = t->snd_nxt - t->snd_una, una = t->snd_una;
    uint32_t sacked_before = e != NULL ? e->sacked_bytes : 0;

    if (!seq_leq(seg->ack, t->snd_nxt) || !seq_leq(t->snd_una - max_wnd, seg->ack)) {
        ack_challenge(s, t, in->now_us); /* RFC 5961 5 */
        return TCP_DROP_BAD_ACK;
    }
    if (e != NULL) {
        rack_begin(e);
        if (e->rated)
            rate_begin(t, e);
    }
    if (t->flags & TCB_PROBED)
        rack_probe_on_ack(s, t, e, in);
    if ((t->flags & TCB_SACK) && e != NULL && sack_is_duplicate(seg))
        recovery_on_d_sack(s, t, e, &seg->options.sack[0]);
    if ((t->flags & TCB_SACK) && e != NULL && (seg->options.present & TCP_OPTION_SACK) && seq_geq(seg->ack, t->snd_una))
        sacked = sack_mark(s, t, e, in);
    if (seq_gt(seg->ack, t->snd_una)) {
        if (e == NULL)
            return TCP_DROP_BAD_ACK;
        ack_new(s, t, e, in, sacked);
    } else if (e != NULL && ((t->flags & TCB_SACK) ? sacked != 0 : is_duplicate(t, seg))) {
        s->counters.duplicate_acks++;
        if (!(t->flags & TCB_LOSS) && e->dupacks < (t->snd_nxt - t->snd_una) / t->smss + 3 && e->dupacks < UINT16_MAX)
            e->dupacks++;
        recovery_on_duplicate(s, t, e, in->now_us);
    }
    if (seq_geq(seg->ack, t->snd_una))
        ack_update_window(s, t, seg, t->snd_una != una);
    if ((t->flags & TCB_RECOVERY) && (t->flags & TCB_SACK))
        recovery_reduce(t, e, t->snd_una - una + e->sacked_bytes - sacked_before);
    if ((t->flags & TCB_ECN) && e != NULL && (seg->flags & TCP_ECE))
        ecn_congestion(s, t, e, in, flight);
    if (e != NULL && e->rated)
        rate_on_ack(t, e, in->now_us);
    return TCP_DROP_NONE;
}
