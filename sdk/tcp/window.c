/*
 * window.c: the receive window.
 */
#include "tcp/window.h"

#include "tcp/rxq.h"
#include "tcp/seq.h"

/* Bytes from RCV.NXT that there is room for. */
static uint32_t room(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t buffer = window_buffer(s, t), max = window_largest(s, t), unread = e != NULL ? e->rx_bytes : 0;
    uint32_t bytes = buffer > unread ? buffer - unread : 0;
    uint64_t slots = (uint64_t)rxq_slots_to_offer(s, t, e) * t->smss;

    bytes = bytes < max ? bytes : max;
    return slots < bytes ? (uint32_t)slots : bytes;
}

/* The right edge to offer now. */
static uint32_t edge(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t shift = window_rcv_shift(s, t), wanted;
    uint32_t step = s->rcv_step < t->smss ? s->rcv_step : t->smss;

    if (t->rcv_adv - t->rcv_nxt + step > window_largest(s, t)) /* whatever room there is */
        return t->rcv_adv;
    wanted = t->rcv_nxt + (room(s, t, e) >> shift << shift); /* what the field cannot say is no news */
    if (seq_lt(wanted, t->rcv_adv) || wanted - t->rcv_adv < step)
        return t->rcv_adv;
    return wanted;
}

uint16_t window_advertise(const struct tcp_stack *s, struct tcb *t, const struct tcb_ext *e)
{
    uint32_t shift = window_rcv_shift(s, t);
    uint32_t wnd = edge(s, t, e) - t->rcv_nxt;
    uint32_t field = wnd >> shift;

    field = field < UINT16_MAX ? field : UINT16_MAX;
    t->rcv_adv = seq_max(t->rcv_adv, t->rcv_nxt + (field << shift));
    t->last_ack_sent = t->rcv_nxt;
    return (uint16_t)field;
}

bool window_is_worth_telling(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t offered = t->rcv_adv - t->rcv_nxt;
    uint32_t opened;

    if (offered >= t->smss && offered >= window_largest(s, t) / 2)
        return false;
    opened = edge(s, t, e) - t->rcv_adv;
    return offered < t->smss ? opened != 0 : opened >= 2u * t->smss;
}

void window_init(struct tcp_stack *s)
{
    const struct tcp_config *c = &s->config;
    uint8_t *shift = &s->rcv_shifts[TCB_WINDOW_SCALE];
    uint64_t bytes = c->rcv_buf_bytes;

    s->rcv_step = c->rcv_buf_bytes / 2;
    *shift = c->window_scale;
    while (*shift < WSCALE_MAX && c->rcv_buf_max_bytes >> *shift > UINT16_MAX)
        ++*shift;
    for (uint32_t i = 0; i < RCV_LEVELS_MAX; i++, bytes *= 2) {
        uint32_t size = bytes < c->rcv_buf_max_bytes ? (uint32_t)bytes : c->rcv_buf_max_bytes;

        s->rcv_sizes[i] = (struct rcv_size){size, rxq_conn_max(size), {0}};
        for (uint32_t scaled = 0; scaled <= TCB_WINDOW_SCALE; scaled++) {
            uint32_t field = (uint32_t)UINT16_MAX << s->rcv_shifts[scaled];

            s->rcv_sizes[i].largest[scaled] = size < field ? size : field;
        }
        if (size < c->rcv_buf_max_bytes)
            s->rcv_level_max = (uint8_t)(i + 1 < RCV_LEVELS_MAX ? i + 1 : i);
    }
}

void window_keep(const struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    if (t->snd_una == t->snd_nxt) /* else it is kept anyway */
        e->rack_deadline = stack_deadline(now_us, rtt_rto_us(&t->rtt, 0));
}

/* A round of took_us has ended. */
static void resize(const struct tcp_stack *s, struct tcb *t, const struct tcb_ext *e, uint32_t took_us)
{
    uint32_t buffer = window_buffer(s, t);
    uint32_t usual_us = rtt_srtt_us(&t->rtt) > e->rcv_round_us ? rtt_srtt_us(&t->rtt) : e->rcv_round_us;

    if (s->rx_held > s->rx_budget / 2)
        t->rcv_level = (t->rcv_level - (t->rcv_level != 0)) & 0xf;
    else if (e->rx_bytes <= buffer / 2 && took_us <= usual_us + usual_us / 2 && buffer <= window_largest(s, t) &&
             t->rcv_level < s->rcv_level_max)
        t->rcv_level = (t->rcv_level + 1) & 0xf;
}

void window_round(const struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    uint32_t took_us = (uint32_t)now_us - e->rcv_mark_us;

    if (s->rcv_level_max == 0)
        return;
    if (e->rcv_round) {
        resize(s, t, e, took_us);
        if (e->rcv_round_us == 0 || took_us < e->rcv_round_us)
            e->rcv_round_us = took_us != 0 ? took_us : 1;
    }
    e->rcv_round = true;
    e->rcv_mark = t->rcv_nxt + window_buffer(s, t); /* which the ACK that is now due offers, once the user has read */
    e->rcv_mark_us = (uint32_t)now_us;
    window_keep(t, e, now_us);
}
