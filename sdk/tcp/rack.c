/*
 * rack.c: RACK-TLP.
 */
#include "tcp/rack.h"

#include "tcp/ecn.h"
#include "tcp/recovery.h"
#include "tcp/sack.h"
#include "tcp/seq.h"
#include "tcp/timers.h"

enum {
    DUP_THRESH = 3,
    MAX_ACK_DELAY_US = 200000, /* of a single segment in flight, RFC 8985 7.2 */
    PROBE_GRAIN_US = 2000,     /* a probe after less would be the wheel's doing */
    PROBE_UNMEASURED_US = 1000000,
    PERSIST_RECOVERIES = 16, /* RFC 8985 6.2, step 4 */
    MULT_MAX = 200,
    STEPS_WAIT_US = 1000,
};

/* RFC 8985 6.2: RACK_sent_after(). */
static bool sent_after(uint32_t us1, uint32_t end1, uint32_t us2, uint32_t end2)
{
    return us1 == us2 ? seq_gt(end1, end2) : seq_gt(us1, us2);
}

/* The ACK may be of an earlier transmission of this segment: it says nothing of the time (step 2). */
static bool is_ambiguous(const struct tcb *t, const struct tcb_ext *e, const struct tx_slot *m, const struct input *in,
                         uint32_t rtt_us)
{
    if (!(m->flags & TX_RETRANSMITTED))
        return false;
    if ((t->flags & TCB_TIMESTAMPS) && (in->seg.options.present & TCP_OPTION_TIMESTAMPS) &&
        seq_lt(in->seg.options.tsecr, stack_now_ms(in->now_us - rtt_us) + e->ts_base))
        return true;
    return e->rack_min_rtt_us != UINT32_MAX && rtt_us < e->rack_min_rtt_us;
}

void rack_delivered(struct tcb *t, struct tcb_ext *e, const struct tx_slot *m, const struct input *in)
{
    uint32_t rtt_us = (uint32_t)in->now_us - m->sent_us;
    uint32_t end = m->seq + m->len;

    if (!(m->flags & TX_RETRANSMITTED) && rtt_us < e->rack_min_rtt_us)
        e->rack_min_rtt_us = rtt_us;
    if (seq_gt(end, e->rack_fack))
        e->rack_fack = end;
    if (seq_lt(end, e->rack_fack_before) && !(m->flags & TX_RETRANSMITTED))
        e->rack_reordering = true;
    if (is_ambiguous(t, e, m, in, rtt_us))
        return;
    if (!e->rack_started || sent_after(m->sent_us, end, e->rack_sent_us, e->rack_end)) {
        e->rack_sent_us = m->sent_us;
        e->rack_end = end;
    }
    e->rack_rtt_us = rtt_us;
    e->rack_started = true;
}

/* Step 4: how much later than a later one a segment may come. */
static uint32_t reordering_window_us(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t rtt_us = e->rack_min_rtt_us < e->rack_rtt_us ? e->rack_min_rtt_us : e->rack_rtt_us;
    uint32_t window_us = rtt_us / 4, srtt_us = rtt_srtt_us(&t->rtt);

    if (!e->rack_reordering) {
        uint32_t sacked = 0;

        if ((t->flags & (TCB_RECOVERY | TCB_LOSS)) || e->sacked_bytes > (DUP_THRESH - 1) * TCP_SLOT_BYTES)
            return 0;
        for (uint32_t slot = e->tx_first; slot != e->tx_unsent && sacked < DUP_THRESH; slot = s->tx[slot].next)
            sacked += (s->tx[slot].flags & TX_SACKED) != 0;
        if (sacked >= DUP_THRESH)
            return 0;
    }
    window_us *= e->rack_mult + (e->rack_mult == 0);
    return rtt_is_measured(&t->rtt) && srtt_us < window_us ? srtt_us : window_us;
}

void rack_on_d_sack(const struct tcb *t, struct tcb_ext *e)
{
    if (e->rack_persist != 0 && seq_lt(t->snd_una, e->rack_dsack_round))
        return;
    e->rack_dsack_round = t->snd_nxt;
    e->rack_mult += e->rack_mult == 0 ? 2 : e->rack_mult < MULT_MAX;
    e->rack_persist = PERSIST_RECOVERIES;
}

void rack_on_exit(struct tcb_ext *e)
{
    if (e->rack_persist != 0 && --e->rack_persist == 0)
        e->rack_mult = 0;
}

bool rack_detect_loss(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    uint32_t after_us, wait_us = 0, steps = 0;
    bool found = false;

    e->rack_deadline = 0;
    if (!e->rack_started)
        return false;
    if (!sack_may_walk(s, e, e->rack_steps)) { /* all that has come until then is looked at once */
        e->rack_deadline = stack_deadline(now_us, STEPS_WAIT_US);
        return false;
    }
    after_us = e->rack_rtt_us + reordering_window_us(s, t, e);
    for (uint32_t slot = e->tx_first; slot != e->tx_unsent; slot = s->tx[slot].next, steps++) {
        const struct tx_slot *m = &s->tx[slot];
        uint32_t since_us = (uint32_t)now_us - m->sent_us;

        if (!sent_after(e->rack_sent_us, e->rack_end, m->sent_us, m->seq + m->len)) {
            if (!(m->flags & TX_RETRANSMITTED)) /* what follows was first sent later, and again later than that */
                break;
            continue;
        }
        if (m->flags & (TX_SACKED | TX_LOST))
            continue;
        if (since_us >= after_us) {
            sack_lose(s, t, e, slot);
            found = true;
        } else if (after_us - since_us > wait_us) {
            wait_us = after_us - since_us;
        }
    }
    sack_walked(s, e, &e->rack_steps, steps);
    if (wait_us != 0)
        e->rack_deadline = stack_deadline(now_us, wait_us);
    return found;
}

void rack_schedule_probe(struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    uint32_t delay_us = PROBE_UNMEASURED_US;

    if (!(t->flags & TCB_SACK) || (t->flags & (TCB_RECOVERY | TCB_LOSS)) || e->sacked_bytes != 0)
        return;
    e->rack_deadline = 0;
    if (t->snd_una == t->snd_nxt || (t->flags & TCB_PROBED))
        return;
    if (rtt_is_measured(&t->rtt)) {
        delay_us = 2 * rtt_srtt_us(&t->rtt) + PROBE_GRAIN_US;
        if (t->snd_nxt - t->snd_una <= t->smss)
            delay_us += MAX_ACK_DELAY_US;
    }
    e->rack_deadline = stack_deadline(now_us, delay_us);
    if (e->rtx_deadline != 0 && seq_lt(e->rtx_deadline, e->rack_deadline))
        e->rack_deadline = e->rtx_deadline;
}

void rack_fire(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    e->rack_deadline = 0;
    if (e->sacked_bytes != 0 || (t->flags & (TCB_RECOVERY | TCB_LOSS))) {
        recovery_by_time(s, t, e, now_us);
        return;
    }
    if (t->snd_una == t->snd_nxt)
        e->undo = e->rcv_round = false; /* waited long enough for D-SACKs and for more to receive */
    if (t->snd_una == t->snd_nxt || (t->flags & TCB_PROBED) || !(t->flags & TCB_SACK))
        return;
    tcb_owe(s, t, OWE_TAIL_PROBE);
    timers_start_rtx(t, e, now_us);
}

void rack_probe_sent(struct tcb *t, struct tcb_ext *e, bool retransmission, uint64_t now_us)
{
    t->flags |= TCB_PROBED | (retransmission ? TCB_PROBED_AGAIN : 0);
    e->probe_end = t->snd_nxt;
    e->rack_deadline = 0;
    timers_start_rtx(t, e, now_us);
}

void rack_probe_on_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;
    uint32_t probe_end = e != NULL ? e->probe_end : t->snd_una;
    bool d_sack = (seg->options.present & TCP_OPTION_SACK) && seg->options.sack[0].end == probe_end &&
                  seq_leq(probe_end, seg->ack);

    if (seq_lt(seg->ack, probe_end))
        return;
    if ((t->flags & TCB_PROBED_AGAIN) && !d_sack) {
        /* At probe_end it is not yet known which of the two copies was acknowledged.  A duplicate ACK is the other one's: nothing
         * was lost.  An ACK beyond it without one: the probe has repaired a loss, which is congestion as any other. */
        if (seg->ack == probe_end && (seq_gt(seg->ack, t->snd_una) || seg->payload_len != 0))
            return;
        if (seg->ack != probe_end)
            ecn_reduce(s, t, e, t->snd_nxt - t->snd_una, in->now_us);
    }
    t->flags &= ~(uint32_t)(TCB_PROBED | TCB_PROBED_AGAIN);
}
