/*
 * recovery.c: loss recovery.
 */
#include "tcp/recovery.h"

#include "tcp/ecn.h"
#include "tcp/pmtu.h"
#include "tcp/rack.h"
#include "tcp/rtxq.h"
#include "tcp/sack.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/validation.h"

enum { DUP_THRESH = 3 };

static void expect_undo(const struct tcb *t, struct tcb_ext *e)
{
    e->undo = (t->flags & TCB_SACK) != 0;
    e->undo_begin = t->snd_una;
    e->undo_segments = 0;
}

static void undo_if_needless(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    if (!e->undo || e->undo_segments != 0 || (t->flags & (TCB_RECOVERY | TCB_LOSS)))
        return;
    e->undo = false;
    settings_cc(s, t)->on_spurious(&t->cc, &e->cc);
    if (e->tx_first != TCP_NO_SLOT)
        tcb_owe(s, t, OWE_DATA);
}

void recovery_on_d_sack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct tcp_sack_block *block)
{
    rack_on_d_sack(t, e);
    if (!e->undo || e->undo_segments == 0 || seq_lt(block->begin, e->undo_begin) ||
        seq_gt(block->end, e->recovery_point))
        return;
    e->undo_segments--;
    undo_if_needless(s, t, e);
}

static void enter(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    uint32_t slot = e->tx_first;

    if (pmtu_is_probe_loss(s, t, e)) {
        tcb_owe(s, t, OWE_DATA);
        return;
    }
    s->counters.fast_retransmits++;
    settings_cc(s, t)->on_congestion(&t->cc, &e->cc, validation_flight(t, e), t->smss, now_us);
    t->flags = (t->flags & ~(uint32_t)(TCB_PROBED | TCB_PROBED_AGAIN)) | TCB_RECOVERY | TCB_FORCE_RTX;
    e->recovery_point = t->snd_nxt;
    e->recover_fs = t->snd_nxt - t->snd_una;
    e->prr_delivered = e->prr_out = 0;
    ecn_reduced(t, e);
    expect_undo(t, e);
    if (slot == e->tx_unsent)
        t->flags |= (t->flags & TCB_FIN_SENT) ? TCB_FIN_LOST : 0;
    else if (!(t->flags & TCB_SACK) && !(s->tx[slot].flags & (TX_SACKED | TX_LOST)))
        sack_lose(s, t, e, slot);
    tcb_owe(s, t, OWE_DATA);
}

/* The timeout was no spurious one: what was in flight then is lost, the ordinary way (RFC 5682 2.1, 2a and 3a). */
static void frto_ends(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    if (e->frto == FRTO_NEW_DATA)
        t->cc.cwnd = 3u * t->smss;
    e->frto = e->frto_credit = 0;
    for (uint32_t slot = e->tx_first; slot != e->tx_unsent; slot = s->tx[slot].next) {
        const struct tx_slot *m = &s->tx[slot];
        bool resent = slot == e->tx_first && (m->flags & TX_RETRANSMITTED);

        if (!resent && !(m->flags & (TX_SACKED | TX_LOST)) && seq_lt(m->seq, e->recovery_point))
            sack_lose(s, t, e, slot);
    }
    tcb_owe(s, t, OWE_DATA);
}

/* SND.UNA moved by acked bytes after a timeout (RFC 5682 2.1).  True: cwnd may grow for it. */
static bool frto_on_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t acked)
{
    uint32_t edge = t->snd_una - acked + t->snd_wnd; /* this ACK's own window is not yet taken */
    const struct tx_slot *first = e->tx_first != TCP_NO_SLOT ? &s->tx[e->tx_first] : NULL;
    const struct tx_slot *fresh = e->tx_unsent != TCP_NO_SLOT ? &s->tx[e->tx_unsent] : NULL;

    if (e->frto == FRTO_NEW_DATA) { /* 3b: the ACK is of a segment that was sent once, before the timeout */
        e->frto = e->frto_credit = 0;
        e->undo = false;
        t->flags &= ~(uint32_t)(TCB_LOSS | TCB_FORCE_RTX);
        s->counters.spurious_timeouts++;
        settings_cc(s, t)->on_spurious(&t->cc, &e->cc);
        tcb_owe(s, t, OWE_DATA);
        return false;
    }
    if (fresh == NULL || first == NULL || (first->flags & TX_RETRANSMITTED) ||
        seq_gt(fresh->seq + fresh->len, edge)) { /* nothing to tell it by */
        frto_ends(s, t, e);
        return true;
    }
    e->frto = FRTO_NEW_DATA;
    e->frto_credit = 2;
    tcb_owe(s, t, OWE_DATA);
    return false;
}

void recovery_on_duplicate(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    bool lost;

    if (e->frto != FRTO_NO) {
        frto_ends(s, t, e);
        return;
    }
    lost = (t->flags & TCB_SACK) ? rack_detect_loss(s, t, e, now_us) : e->dupacks >= DUP_THRESH;

    if (lost && !(t->flags & (TCB_RECOVERY | TCB_LOSS)))
        enter(s, t, e, now_us);
    else
        tcb_owe(s, t, OWE_DATA); /* pipe has shrunk: limited transmit, RFC 3042 */
}

void recovery_reduce(struct tcb *t, struct tcb_ext *e, uint32_t delivered)
{
    uint32_t pipe = rtxq_pipe(t, e), sent = e->prr_out, count = 0;
    uint64_t share;

    if (e->rated) /* bounds what is in flight by itself */
        return;
    e->prr_delivered += delivered;
    share = ((uint64_t)e->prr_delivered * t->cc.ssthresh + e->recover_fs - 1) / e->recover_fs;
    if (pipe > t->cc.ssthresh) {
        count = share > sent ? (uint32_t)share - sent : 0;
    } else { /* the slow start reduction bound */
        uint32_t limit = e->prr_delivered > sent ? e->prr_delivered - sent : 0;

        limit = (limit > delivered ? limit : delivered) + t->smss;
        count = t->cc.ssthresh - pipe < limit ? t->cc.ssthresh - pipe : limit;
    }
    t->cc.cwnd = pipe + count > t->smss ? pipe + count : t->smss;
}

void recovery_by_time(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    if (!rack_detect_loss(s, t, e, now_us))
        return;
    if (t->flags & (TCB_RECOVERY | TCB_LOSS))
        tcb_owe(s, t, OWE_DATA);
    else {
        enter(s, t, e, now_us);
        if (t->flags & TCB_RECOVERY) /* not when what is lost was but a probe of the path's MTU */
            recovery_reduce(t, e, 0);
    }
}

/* SND.UNA moved outside of recovery; what was SACKed above it may show that something below is lost. */
static bool goes_on(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    e->dupacks = 0;
    if (e->sacked_bytes == 0 || !rack_detect_loss(s, t, e, now_us))
        return true;
    enter(s, t, e, now_us);
    return false;
}

/* With SACK what goes out in recovery follows what came through, so that the window is ssthresh at its end without a burst (RFC 6937). */
static uint32_t exit_flight(const struct tcb *t)
{
    uint32_t flight = t->snd_nxt - t->snd_una;

    return (t->flags & TCB_SACK) && flight < t->cc.ssthresh ? t->cc.ssthresh : flight;
}

bool recovery_on_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t acked, uint64_t now_us)
{
    if (!(t->flags & (TCB_RECOVERY | TCB_LOSS)))
        return goes_on(s, t, e, now_us);
    if (e->frto == FRTO_NEW_DATA || (e->frto != FRTO_NO && seq_lt(t->snd_una, e->recovery_point)))
        return frto_on_ack(s, t, e, acked);
    if (seq_geq(t->snd_una, e->recovery_point)) {
        bool fast = (t->flags & TCB_RECOVERY) != 0;

        if (fast)
            settings_cc(s, t)->on_recovery_exit(&t->cc, &e->cc, exit_flight(t), t->smss);
        t->flags &= ~(uint32_t)(TCB_RECOVERY | TCB_LOSS | TCB_FORCE_RTX);
        e->frto = FRTO_NO;
        rack_on_exit(e);
        undo_if_needless(s, t, e);
        return goes_on(s, t, e, now_us) && !fast; /* the window after fast recovery is said by RFC 6582 3.2, step 3 */
    }
    if (t->flags & TCB_SACK) {
        rack_detect_loss(s, t, e, now_us);
        e->dupacks = 0;
    } else if (t->flags & TCB_RECOVERY) {
        /* A partial ACK: the next segment is the next hole (RFC 6582 3.2), and what was acknowledged behind the hole was
         * counted by duplicate ACKs. */
        uint32_t segments = (acked + t->smss - 1) / t->smss - 1;

        e->dupacks = e->dupacks > segments ? (uint16_t)(e->dupacks - segments) : 0;
        if (e->tx_first != e->tx_unsent && !(s->tx[e->tx_first].flags & TX_LOST))
            sack_lose(s, t, e, e->tx_first);
        t->flags |= TCB_FORCE_RTX;
    }
    tcb_owe(s, t, OWE_DATA);
    return (t->flags & TCB_LOSS) != 0;
}

void recovery_on_rto(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    /* Only the first timeout of data that nothing else has said to be lost can be found to be spurious. */
    bool smaller = pmtu_on_rto(s, t, e);
    bool frto = !smaller && !(t->flags & (TCB_RECOVERY | TCB_LOSS | TCB_FIN_SENT)) && e->tx_first != e->tx_unsent &&
                e->sacked_bytes == 0 && e->lost_bytes == 0;

    settings_cc(s, t)->on_rto(&t->cc, &e->cc, t->snd_nxt - t->snd_una, t->smss, t->backoff <= 1, now_us);
    t->flags = (t->flags & ~(uint32_t)(TCB_RECOVERY | TCB_PROBED | TCB_PROBED_AGAIN)) | TCB_LOSS | TCB_FORCE_RTX;
    e->rack_deadline = 0;
    e->recovery_point = t->snd_nxt;
    ecn_reduced(t, e);
    if (t->backoff > ECN_TIMEOUTS_MAX)
        t->flags &= ~(uint32_t)TCB_ECT;
    if (!e->undo || t->backoff <= 1)
        expect_undo(t, e);
    e->dupacks = 0;
    e->frto_credit = 0;
    e->frto = frto ? FRTO_RESENT : FRTO_NO;
    if (frto) {
        sack_lose(s, t, e, e->tx_first);
        return;
    }
    sack_lose_all(s, t, e);
    if (t->flags & TCB_FIN_SENT)
        t->flags |= TCB_FIN_LOST;
}
