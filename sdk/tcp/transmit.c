/*
 * transmit.c: segments of a connection.
 */
#include "tcp/transmit.h"

#include "tcp/pacing.h"
#include "tcp/pmtu.h"
#include "tcp/rack.h"
#include "tcp/rate.h"
#include "tcp/rtxq.h"
#include "tcp/sack.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/state.h"
#include "tcp/timers.h"
#include "tcp/validation.h"
#include "tcp/window.h"

static void start(const struct tcp_stack *s, struct tcb *t, const struct tcb_ext *e, uint64_t now_us, struct build *b,
                  struct tcp_options *options)
{
    const struct tcp_settings *settings = settings_of(s, t);

    options->present = options->sack_count = 0;
    *b = (struct build){
        .laddr = &s->addresses[t->laddr_index],
        .raddr = &t->raddr,
        .lport = t->lport,
        .rport = t->rport,
        .seq = window_acceptable_seq(t),
        .ack = t->rcv_nxt,
        .flags = (uint8_t)(TCP_ACK | (t->flags & TCB_ECN_ECHO) / (TCB_ECN_ECHO / TCP_ECE)),
        .tos = settings_tos(settings),
        .ttl = settings->ttl,
        .options = options,
        .payload_offset = TCP_SLOT_HEADROOM,
    };
    if (t->flags & TCB_TIMESTAMPS) {
        options->present = TCP_OPTION_TIMESTAMPS;
        options->tsval = e != NULL ? stack_now_ms(now_us) + e->ts_base : tcb_tsval(s, t, now_us);
        options->tsecr = t->ts_recent;
    }
}

static void count_again(struct tcp_stack *s, struct tcb_ext *e)
{
    s->counters.retransmitted_segments++;
    e->retransmits += e->retransmits != UINT32_MAX;
}

static bool is_urgent(const struct tcb *t, const struct tcb_ext *e)
{
    return e->snd_urgent && seq_gt(e->snd_up, t->snd_una);
}

/* RFC 9293 3.8.5: until urgent data is acknowledged, what begins before its end says where that is, behind its last octet (RFC 6093
 * 4).  A pointer that does not reach says as far as it does, but only into what was not sent: else it would name an octet that the
 * peer may hold already, and which is not the urgent one. */
static void say_urgent(const struct tcb *t, struct tcb_ext *e, struct build *b)
{
    uint32_t ahead = e->snd_up - b->seq;

    if (!is_urgent(t, e)) { /* half the sequence numbers later it would be again */
        e->snd_urgent = false;
        return;
    }
    if (!seq_gt(e->snd_up, b->seq) || (ahead > UINT16_MAX && seq_leq(b->seq + UINT16_MAX, t->snd_nxt)))
        return;
    b->flags |= TCP_URG;
    b->up = (uint16_t)(ahead < UINT16_MAX ? ahead : UINT16_MAX);
}

/* A segment with this options has told the peer all that an ACK could. */
static void ack_is_told(struct tcp_stack *s, struct tcb *t, const struct tcp_options *options)
{
    struct tcb_ext *e = stack_ext(s, t);

    if (e != NULL)
        e->ack_deadline = 0;
    if (e == NULL) {
        t->owe &= (uint8_t)~OWE_ACK;
    } else if ((reasm_is_empty(&e->reasm) && e->dsack_begin == e->dsack_end) || (options->present & TCP_OPTION_SACK) ||
               (!(t->flags & TCB_SACK) && e->more_acks == 0)) {
        t->owe &= (uint8_t)~OWE_ACK;
        e->more_acks = 0;
        e->dsack_begin = e->dsack_end;
    }
}

enum sent transmit_syn(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent)
{
    struct tcb_ext *e = stack_ext(s, t);
    struct tcp_options options;
    struct build b;
    bool answer = t->state == TCP_STATE_SYN_RECEIVED;
    enum sent result;

    start(s, t, e, now_us, &b, &options);
    b.seq = t->snd_una;
    b.ack = answer ? t->rcv_nxt : 0;
    if (t->backoff != 0) /* the flags may be what was dropped (RFC 3168 6.1.1.1) */
        t->flags &= ~(uint32_t)TCB_ECT;
    b.flags = (uint8_t)(answer ? TCP_SYN | TCP_ACK | (t->flags & TCB_ECN ? TCP_ECE : 0)
                               : TCP_SYN | (t->flags & TCB_ECT ? TCP_ECE | TCP_CWR : 0));
    b.wnd = window_initial(s);
    options.present |= TCP_OPTION_MSS;
    options.mss = (uint16_t)(s->config.mtu - stack_header_len(&t->raddr));
    if (t->flags & TCB_SACK)
        options.present |= TCP_OPTION_SACK_PERMITTED;
    if (t->flags & TCB_WINDOW_SCALE) {
        options.present |= TCP_OPTION_WINDOW_SCALE;
        options.window_scale = s->rcv_shifts[TCB_WINDOW_SCALE];
    }
    settings_advertise(settings_of(s, t), &options);
    result = output_control(s, &b);
    if (result != SENT)
        return result;
    ++*sent;
    if (options.present & TCP_OPTION_USER_TIMEOUT) /* again with the ACK, in case the SYN was answered by a cookie */
        t->flags |= TCB_TELL_USER_TIMEOUT;
    t->owe &= (uint8_t) ~(OWE_SYN | OWE_ACK);
    if (e->rtx_deadline == 0)
        timers_start_rtx(t, e, now_us);
    if (t->backoff != 0)
        count_again(s, e);
    return SENT;
}

enum sent transmit_ack(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent)
{
    struct tcb_ext *e = stack_ext(s, t);
    struct tcp_options options;
    struct build b;
    enum sent result;

    start(s, t, e, now_us, &b, &options);
    b.wnd = window_advertise(s, t, e);
    sack_report(s, t, e, &options, (t->flags & TCB_TIMESTAMPS) ? 3 : 4);
    if (t->flags & TCB_TELL_USER_TIMEOUT)
        settings_advertise(settings_of(s, t), &options);
    if (e != NULL && e->snd_urgent)
        say_urgent(t, e, &b);
    result = output_control(s, &b);
    if (result != SENT)
        return result;
    ++*sent;
    t->flags &= ~(uint32_t)TCB_TELL_USER_TIMEOUT;
    if (e != NULL && e->more_acks != 0)
        e->more_acks--;
    else
        ack_is_told(s, t, &options);
    return SENT;
}

static void note_sent(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    (void)s;
    if (t->flags & TCB_QUICK_ACK) { /* from now on ACKs have something to ride on */
        t->flags &= ~(uint32_t)TCB_QUICK_ACK;
        t->validated_s = validation_seconds(now_us);
    }
    if (e->rtx_deadline == 0)
        timers_start_rtx(t, e, now_us);
}

static void mark_sent(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot, uint64_t now_us)
{
    struct tx_slot *m = &s->tx[slot];
    bool fresh = false;

    if (m->flags & TX_SENT) {
        count_again(s, e);
        e->undo_segments++;
        if (m->flags & TX_LOST)
            e->lost_bytes -= m->len;
        m->flags = (uint8_t)((m->flags & ~TX_LOST) | TX_RETRANSMITTED);
        t->flags &= ~(uint32_t)TCB_FORCE_RTX;
    } else {
        s->counters.bytes_sent += m->len;
        if (t->snd_una == t->snd_nxt && e->rtx_deadline != 0) { /* of the persist timer */
            e->rtx_deadline = 0;
            t->backoff = 0;
        }
        m->flags = TX_SENT;
        e->tx_unsent = m->next;
        t->snd_nxt = m->seq + m->len;
        if (m->len < t->smss)
            e->snd_sml = t->snd_nxt;
        e->frto_credit -= e->frto_credit != 0;
        fresh = true;
    }
    m->sent_us = (uint32_t)now_us;
    e->prr_out += m->len;
    note_sent(s, t, e, now_us);
    if (e->rated)
        rate_sent(s, t, e, slot, now_us);
    if (fresh)
        rack_schedule_probe(t, e, now_us);
}

/* RFC 3168 6.1.2, 6.1.5: new data is ECN-capable and says once that the window was reduced; what is sent again is not. */
static void mark_ecn(const struct tcb *t, const struct tx_slot *m, struct build *b)
{
    if (m->flags & TX_SENT)
        return;
    b->tos |= t->flags & TCB_ECT ? IP_ECN_ECT0 : IP_ECN_NOT_ECT;
    b->flags |= t->flags & TCB_ECN_CWR ? TCP_CWR : 0;
}

static enum sent send_slot(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot, uint64_t now_us)
{
    struct tx_slot *m = &s->tx[slot];
    uint32_t spare = t->smss > m->len ? (uint32_t)t->smss - m->len : 0;
    struct tcp_options options;
    uint32_t offset, len;
    struct build b;
    bool with_fin;

    if (s->env.tx_busy(s->env.context, slot) || (m->len > t->smss && !pmtu_fits(s, t, e, slot)))
        return SENT_NOT_NOW;
    with_fin =
        slot == e->tx_last && (t->flags & TCB_FIN_QUEUED) && (t->flags & (TCB_FIN_SENT | TCB_FIN_LOST)) != TCB_FIN_SENT;
    start(s, t, e, now_us, &b, &options);
    b.seq = m->seq;
    b.flags |= (slot == e->tx_last ? TCP_PSH : 0) | (with_fin ? TCP_FIN : 0);
    b.wnd = window_advertise(s, t, e);
    b.payload_offset = m->offset;
    b.payload_len = m->len;
    if (t->flags & TCB_ECN)
        mark_ecn(t, m, &b);
    if (e->snd_urgent)
        say_urgent(t, e, &b);
    if (spare >= 12)
        sack_report(s, t, e, &options, spare >= 28 ? 3 : spare >= 20 ? 2 : 1);
    len = build_packet(s, s->env.tx_data(s->env.context, slot), &b, &offset);
    if (!s->env.tx_send(s->env.context, slot, offset, len, false)) {
        s->counters.output_blocked++;
        return SENT_FULL;
    }
    s->counters.segments_sent++;
    if (b.flags & TCP_CWR)
        t->flags &= ~(uint32_t)TCB_ECN_CWR;
    mark_sent(s, t, e, slot, now_us);
    if (s->config.pacing || e->rated)
        pacing_sent(t, e, m->len, now_us);
    ack_is_told(s, t, &options);
    if (with_fin) {
        t->snd_nxt += (t->flags & TCB_FIN_SENT) == 0;
        t->flags = (t->flags | TCB_FIN_SENT) & ~(uint32_t)TCB_FIN_LOST;
    }
    return SENT;
}

static enum sent send_fin(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    struct tcp_options options;
    struct build b;
    enum sent result;

    start(s, t, e, now_us, &b, &options);
    b.seq = e->tx_end;
    b.flags |= TCP_FIN;
    b.wnd = window_advertise(s, t, e);
    result = output_control(s, &b);
    if (result != SENT)
        return result;
    if (t->flags & TCB_FIN_SENT)
        count_again(s, e);
    else
        t->snd_nxt++;
    t->flags = (t->flags | TCB_FIN_SENT) & ~(uint32_t)(TCB_FIN_LOST | TCB_FORCE_RTX);
    note_sent(s, t, e, now_us);
    rack_schedule_probe(t, e, now_us);
    ack_is_told(s, t, &options);
    return SENT;
}

/* Nagle's algorithm (RFC 9293 3.7.4) in the form of draft-minshall-nagle: a segment that is not full waits only for one like it.
 * Waiting for full ones too, the tail of a large write would wait for the delayed ACK of whoever got an odd number of them. */
static bool nagle_holds(const struct tcb *t, const struct tcb_ext *e, const struct tx_slot *m)
{
    bool small_in_flight = seq_between(e->snd_sml - 1, t->snd_una, t->snd_nxt - t->snd_una);

    return m->len < t->smss && e->tx_unsent == e->tx_last && small_in_flight &&
           !(t->flags & (TCB_NODELAY | TCB_FIN_QUEUED)) && !is_urgent(t, e);
}

/* Bytes of the first unsent slot that may go now, 0: wait (RFC 9293 3.8.6.2.1, 3.7.4). */
static uint32_t sendable(const struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    const struct tx_slot *m = &s->tx[e->tx_unsent];
    uint32_t edge = t->snd_una + t->snd_wnd;
    uint32_t usable = seq_lt(m->seq, edge) ? edge - m->seq : 0;
    uint32_t pipe = rtxq_pipe(t, e);
    uint32_t len = m->len;

    if (usable < len) {
        if (usable == 0 || usable < e->max_snd_wnd / 2) {
            if (t->snd_una == t->snd_nxt && e->rtx_deadline == 0)
                timers_start_rtx(t, e, now_us);
            return 0;
        }
        len = usable;
    }
    if (pipe != 0 && pipe + len > t->cc.cwnd && e->frto_credit == 0)
        return 0;
    return nagle_holds(t, e, m) ? 0 : len;
}

/* One segment that is due, the most urgent first; SENT with *more false when there is none. */
static enum sent transmit_one(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us, bool *more)
{
    uint32_t slot = sack_next_lost(s, e);
    uint32_t len;

    *more = true;
    if (slot != TCP_NO_SLOT) {
        uint32_t pipe = rtxq_pipe(t, e);

        if (!(t->flags & TCB_FORCE_RTX) && pipe != 0 && pipe + s->tx[slot].len > t->cc.cwnd) {
            *more = false;
            return SENT;
        }
        return send_slot(s, t, e, slot, now_us);
    }
    if (t->flags & TCB_FIN_LOST)
        return send_fin(s, t, e, now_us);
    if (e->tx_unsent != TCP_NO_SLOT) {
        if (t->snd_una == t->snd_nxt)
            validation_decay(t, now_us);
        if (e->pmtu_high != 0)
            pmtu_probe(s, t, e);
        len = sendable(s, t, e, now_us);
        if (len == 0) {
            *more = false;
            return SENT;
        }
        slot = e->tx_unsent;
        if (len < s->tx[slot].len) {
            if (timers_end_slow(s, t, e, now_us)) {
                *more = false;
                return SENT;
            }
            if (!rtxq_split(s, e, slot, len))
                return SENT_NOT_NOW;
        }
        return send_slot(s, t, e, slot, now_us);
    }
    if ((t->flags & (TCB_FIN_QUEUED | TCB_FIN_SENT)) == TCB_FIN_QUEUED)
        return send_fin(s, t, e, now_us);
    *more = false;
    return SENT;
}

/* Nothing is unsent or lost, so that there is no need to look for it. */
static bool is_all_sent(const struct tcb *t, const struct tcb_ext *e)
{
    return e->tx_unsent == TCP_NO_SLOT && e->lost_bytes == 0 && !(t->flags & TCB_FIN_LOST) &&
           (t->flags & (TCB_FIN_QUEUED | TCB_FIN_SENT)) != TCB_FIN_QUEUED;
}

enum sent transmit_data(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent, uint32_t limit)
{
    struct tcb_ext *e = stack_ext(s, t);
    bool more = true;

    if (e == NULL && (t->flags & (TCB_FIN_QUEUED | TCB_FIN_SENT)) == TCB_FIN_QUEUED) {
        e = tcb_borrow_ext(s, t);
        if (e == NULL)
            return SENT_NOT_NOW;
    }
    while (e != NULL && *sent < limit) {
        enum sent result;

        if ((s->config.pacing || e->rated) && !(t->flags & TCB_FORCE_RTX) && pacing_holds(t, e, now_us)) {
            more = false;
            break;
        }
        result = transmit_one(s, t, e, now_us, &more);
        if (result != SENT)
            return result;
        if (!more)
            break;
        ++*sent;
        more = !is_all_sent(t, e);
        if (!more)
            break;
    }
    if (e == NULL || !more)
        t->owe &= (uint8_t)~OWE_DATA;
    return SENT;
}

/* New data that the peer's window takes, whatever cwnd says. */
static bool has_new_data(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    return e->tx_unsent != TCP_NO_SLOT &&
           seq_leq(s->tx[e->tx_unsent].seq + s->tx[e->tx_unsent].len, t->snd_una + t->snd_wnd);
}

static enum sent send_last_again(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    uint32_t slot = e->tx_first;
    enum sent result;

    if (slot == e->tx_unsent)
        return send_fin(s, t, e, now_us);
    while (s->tx[slot].next != e->tx_unsent)
        slot = s->tx[slot].next;
    if (t->flags & TCB_FIN_SENT)
        t->flags |= TCB_FIN_LOST; /* goes with it */
    result = send_slot(s, t, e, slot, now_us);
    if (result != SENT)
        t->flags &= ~(uint32_t)TCB_FIN_LOST;
    return result;
}

enum sent transmit_tail_probe(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent)
{
    struct tcb_ext *e = stack_ext(s, t);
    bool again;
    enum sent result;

    if (e != NULL && t->snd_una != t->snd_nxt && e->sacked_bytes == 0 &&
        !(t->flags & (TCB_RECOVERY | TCB_LOSS | TCB_PROBED))) { /* nothing has come in between */
        again = !has_new_data(s, t, e);
        result = again ? send_last_again(s, t, e, now_us) : send_slot(s, t, e, e->tx_unsent, now_us);
        if (result != SENT)
            return result;
        rack_probe_sent(t, e, again, now_us);
        ++*sent;
    }
    t->owe &= (uint8_t)~OWE_TAIL_PROBE;
    return SENT;
}

enum sent transmit_probe(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent)
{
    struct tcb_ext *e = stack_ext(s, t);
    bool persist = e != NULL && e->tx_unsent != TCP_NO_SLOT && t->snd_una == t->snd_nxt;
    struct tcp_options options;
    struct build b;
    enum sent result;

    if ((t->owe & OWE_PROBE) && persist && t->snd_wnd != 0) { /* the override timeout of RFC 9293 3.8.6.2.1 */
        uint32_t slot = e->tx_unsent;
        uint8_t backoff = t->backoff;

        if (t->snd_wnd < s->tx[slot].len && !rtxq_split(s, e, slot, t->snd_wnd))
            return SENT_NOT_NOW;
        result = send_slot(s, t, e, slot, now_us);
        t->backoff = backoff;
    } else {
        start(s, t, e, now_us, &b, &options);
        b.wnd = window_advertise(s, t, e);
        b.seq = t->snd_una - 1;
        result = output_control(s, &b);
        if (result == SENT && e != NULL && is_urgent(t, e))
            t->owe |= OWE_ACK; /* what has an old number may be dropped before its pointer is looked at */
        else if (result == SENT)
            ack_is_told(s, t, &options);
    }
    if (result != SENT)
        return result;
    ++*sent;
    t->owe &= (uint8_t) ~(OWE_PROBE | OWE_KEEPALIVE);
    return SENT;
}

enum sent transmit_reset(struct tcp_stack *s, struct tcb *t, uint32_t *sent)
{
    struct tcp_options options;
    struct build b;
    enum sent result;

    start(s, t, stack_ext(s, t), s->now_us, &b, &options);
    b.flags = TCP_RST | TCP_ACK;
    result = output_control(s, &b);
    if (result != SENT)
        return result;
    ++*sent;
    s->counters.resets_sent++;
    t->owe = 0;
    if (t->flags & TCB_ORPHAN)
        tcb_free(s, t);
    return SENT;
}
