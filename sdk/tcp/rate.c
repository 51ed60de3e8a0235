/*
 * rate.c: see rate.h.
 */
#include "tcp/rate.h"

#include "tcp/rtxq.h"
#include "tcp/seq.h"
#include "tcp/validation.h"

enum {
    MEMORY_MAX = UINT8_MAX, /* the round trip is kept as a part of SRTT */
    RISE_SHIFT = 3,         /* a longer round trip is believed by an eighth */
    RISE_SEGMENTS = 4,      /* and of flights that are acknowledged without delay */
};

void rate_start(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    struct bbr *b = &s->bbrs[stack_ext_index(t)];

    memset(b, 0, sizeof *b);
    e->rated = true;
    e->cc.bbr = b;
    e->pace_us = (uint32_t)s->now_us;
    for (uint32_t slot = e->tx_first; slot != e->tx_unsent; slot = s->tx[slot].next)
        s->tx[slot].flags &= (uint8_t)~TX_MARKED;
}

/* With the first segment: only now are window and round trip known. */
static void begin(struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    struct bbr *b = e->cc.bbr;
    uint32_t srtt_us = rtt_srtt_us(&t->rtt), min_rtt_us = (uint32_t)((uint64_t)srtt_us * t->cc_memory / MEMORY_MAX);
    uint16_t since_s = (uint16_t)(validation_seconds(now_us) - t->validated_s);

    bbr_start(b, &t->cc, t->smss, srtt_us, (t->flags & TCB_SACK) != 0, e->ts_base ^ (uint32_t)now_us, now_us);
    b->rate.app_limited = true; /* until now there was nothing to send */
    b->rate.bubble_end = b->rate.delivered;
    if (t->cc_memory != 0 && t->cc.ssthresh != CC_SSTHRESH_NONE && min_rtt_us != 0)
        bbr_resume(b, t->cc.ssthresh, min_rtt_us, since_s * UINT64_C(1000000), now_us);
    else
        t->cc.ssthresh = CC_SSTHRESH_NONE;
}

void rate_stop(struct tcb *t, struct tcb_ext *e)
{
    struct bbr *b = e->cc.bbr;
    uint32_t srtt_us = rtt_srtt_us(&t->rtt), min_rtt_us = b->min_rtt_us, bdp;
    uint64_t part;

    if (!b->started)
        return;
    if ((b->recovering || b->state == BBR_PROBE_RTT) && t->cc.cwnd < b->prior_cwnd)
        t->cc.cwnd = b->prior_cwnd;
    t->cc_memory = 0;
    if (!b->full_bw_reached || srtt_us == 0 || min_rtt_us == BBR_NO_RTT)
        return;
    bdp = bbr_bdp(b, bbr_max_bw(b), 100);
    t->cc.ssthresh = bdp > t->smss ? bdp : t->smss;
    if (b->own_min_rtt_us != BBR_NO_RTT && b->own_min_rtt_us > min_rtt_us &&
        b->rate.delivered >= RISE_SEGMENTS * (uint32_t)t->smss)
        min_rtt_us += (b->own_min_rtt_us - min_rtt_us) >> RISE_SHIFT;
    part = ((uint64_t)min_rtt_us * MEMORY_MAX + srtt_us - 1) / srtt_us;
    t->cc_memory = (uint8_t)(part < 1 ? 1 : part < MEMORY_MAX ? part : MEMORY_MAX);
    t->validated_s = validation_seconds(b->cycle_stamp_us);
}

void rate_sent(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot, uint64_t now_us)
{
    struct bbr *b = e->cc.bbr;
    struct tx_slot *m = &s->tx[slot];
    uint32_t in_flight = rtxq_pipe(t, e);

    if (!b->started)
        begin(t, e, now_us);
    if (in_flight <= m->len) { /* nothing was */
        b->rate.first_sent_us = b->rate.delivered_us = (uint32_t)now_us;
        if (b->rate.app_limited)
            bbr_on_restart(b, &t->cc, now_us);
    }
    s->marks[slot] = (struct rate_mark){
        .delivered = b->rate.delivered,
        .lost = b->rate.lost,
        .in_flight = in_flight,
        .delivered_us = b->rate.delivered_us,
        .first_sent_us = b->rate.first_sent_us,
    };
    m->flags = (uint8_t)((m->flags & ~TX_APP_LIMITED) | TX_MARKED | (b->rate.app_limited ? TX_APP_LIMITED : 0));
}

void rate_check_limited(const struct tcb *t, struct tcb_ext *e)
{
    struct bbr *b = e->cc.bbr;
    uint32_t pipe = rtxq_pipe(t, e);

    if (!b->started || (e->tx_unsent != TCP_NO_SLOT && e->tx_end - t->snd_nxt >= t->smss) || e->lost_bytes != 0 ||
        pipe >= t->cc.cwnd)
        return;
    b->rate.app_limited = true;
    b->rate.bubble_end = b->rate.delivered + pipe;
}

void rate_begin(const struct tcb *t, struct tcb_ext *e)
{
    struct bbr *b = e->cc.bbr;
    uint32_t newly_acked = b->sample.has_data ? 0 : b->sample.newly_acked, pipe = rtxq_pipe(t, e);

    rate_check_limited(t, e);
    b->sample = (struct rate_sample){
        .newly_acked = newly_acked, /* in pieces of segments */
        .rtt_us = BBR_NO_RTT,
        .prior_inflight = pipe,
        .cwnd_limited = pipe + t->smss > t->cc.cwnd,
    };
    b->una = t->snd_una;
    b->sacked = e->sacked_bytes;
}

/* The sample is of the segment that was sent last. */
void rate_delivered(struct tcp_stack *s, struct tcb_ext *e, uint32_t slot, uint64_t now_us)
{
    struct bbr *b = e->cc.bbr;
    struct rate_sample *sample = &b->sample;
    const struct rate_mark *mark = &s->marks[slot];
    struct tx_slot *m = &s->tx[slot];
    uint32_t end = m->seq + m->len, ack_us, send_us;

    if (!(m->flags & TX_MARKED))
        return;
    m->flags &= (uint8_t)~TX_MARKED;
    if (sample->has_data && !seq_gt(m->sent_us, b->rate.first_sent_us) &&
        (m->sent_us != b->rate.first_sent_us || !seq_gt(end, b->sample_end)))
        return;
    ack_us = (uint32_t)now_us - mark->delivered_us;
    send_us = m->sent_us - mark->first_sent_us;
    sample->has_data = true;
    sample->prior_delivered = mark->delivered;
    sample->tx_in_flight = mark->in_flight;
    sample->lost = b->rate.lost - mark->lost;
    sample->app_limited = (m->flags & TX_APP_LIMITED) != 0;
    sample->interval_us = ack_us > send_us ? ack_us : send_us;
    if (!(m->flags & TX_RETRANSMITTED))
        sample->rtt_us = (uint32_t)now_us - m->sent_us;
    else
        sample->rtt_us = BBR_NO_RTT;
    b->rate.first_sent_us = m->sent_us;
    b->sample_end = end;
}

/* An interval of less than a round trip is that of a copy which was sent before the one that was acknowledged. */
static uint64_t delivery_rate(const struct bbr *b, const struct rate_sample *sample)
{
    uint64_t rate;

    if (sample->interval_us == 0 || (b->min_rtt_us != BBR_NO_RTT && sample->interval_us < b->min_rtt_us))
        return 0;
    rate = (uint64_t)sample->delivered * 1000000 / sample->interval_us;
    return rate < BBR_RATE_MAX ? rate : BBR_RATE_MAX;
}

void rate_on_ack(struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    struct bbr *b = e->cc.bbr;
    struct rate_sample *sample = &b->sample;
    uint32_t delivered = t->snd_una - b->una + e->sacked_bytes - b->sacked;

    if (!b->started)
        return;
    b->rate.delivered += delivered;
    sample->newly_acked += delivered;
    if (delivered != 0)
        b->rate.delivered_us = (uint32_t)now_us;
    if (b->rate.app_limited && seq_gt(b->rate.delivered, b->rate.bubble_end))
        b->rate.app_limited = false;
    if (!sample->has_data)
        return;
    sample->now_us = now_us;
    sample->delivered = b->rate.delivered - sample->prior_delivered;
    sample->delivery_rate = delivery_rate(b, sample);
    sample->inflight = rtxq_pipe(t, e);
    sample->smss = t->smss;
    sample->fast_recovery = (t->flags & TCB_RECOVERY) != 0;
    sample->recovery = (t->flags & (TCB_RECOVERY | TCB_LOSS)) != 0;
    bbr_on_ack(b, &t->cc, sample);
}

void rate_lost(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot)
{
    struct bbr *b = e->cc.bbr;
    const struct tx_slot *m = &s->tx[slot];
    struct rate_loss loss = {
        .now_us = s->now_us,
        .begin = m->seq,
        .len = m->len,
        .tx_in_flight = BBR_NO_BYTES,
    };

    b->rate.lost += m->len;
    if (!b->started)
        return;
    if (m->flags & TX_MARKED) {
        loss.tx_in_flight = s->marks[slot].in_flight;
        loss.lost = b->rate.lost - s->marks[slot].lost;
        loss.app_limited = (m->flags & TX_APP_LIMITED) != 0;
    }
    bbr_on_loss(b, &t->cc, &loss);
}
