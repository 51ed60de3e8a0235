/*
 * window.c: the receive window.
 */
#include "tcp/window.h"

#include "tcp/rxq.h"
#include "tcp/seq.h"

/* The largest window: of the buffer, and of what the field can say. */
static uint32_t largest(const struct tcp_stack *s, const struct tcb *t)
{
    uint32_t field = (uint32_t)UINT16_MAX << t->rcv_wind_shift;

    return s->config.rcv_buf_bytes < field ? s->config.rcv_buf_bytes : field;
}

/* Bytes from RCV.NXT that there is room for. */
static uint32_t room(const struct tcp_stack *s, const struct tcb *t)
{
    const struct tcb_ext *e = stack_ext(s, t);
    uint32_t unread = e != NULL ? e->rx_bytes : 0;
    uint32_t bytes = s->config.rcv_buf_bytes > unread ? s->config.rcv_buf_bytes - unread : 0;
    uint64_t slots = (uint64_t)rxq_slots_left(s, e) * t->smss;

    bytes = bytes < largest(s, t) ? bytes : largest(s, t);
    return slots < bytes ? (uint32_t)slots : bytes;
}

/* The right edge to offer now. */
static uint32_t edge(const struct tcp_stack *s, const struct tcb *t)
{
    uint32_t wanted = t->rcv_nxt + room(s, t);
    uint32_t step = s->config.rcv_buf_bytes / 2 < t->smss ? s->config.rcv_buf_bytes / 2 : t->smss;

    if (seq_lt(wanted, t->rcv_adv) || wanted - t->rcv_adv < step)
        return t->rcv_adv;
    return wanted;
}

uint16_t window_advertise(const struct tcp_stack *s, struct tcb *t)
{
    uint32_t shift = t->rcv_wind_shift;
    uint32_t wnd = edge(s, t) - t->rcv_nxt;
    uint32_t field = wnd >> shift;

    field = field < UINT16_MAX ? field : UINT16_MAX;
    t->rcv_adv = seq_max(t->rcv_adv, t->rcv_nxt + (field << shift));
    t->last_ack_sent = t->rcv_nxt;
    return (uint16_t)field;
}

bool window_is_worth_telling(const struct tcp_stack *s, const struct tcb *t)
{
    uint32_t offered = t->rcv_adv - t->rcv_nxt;
    uint32_t opened;

    if (offered >= t->smss && offered >= largest(s, t) / 2)
        return false;
    opened = edge(s, t) - t->rcv_adv;
    return offered < t->smss ? opened != 0 : opened >= 2u * t->smss;
}

uint8_t window_shift(const struct tcp_stack *s)
{
    uint8_t shift = s->config.window_scale;

    while (shift < WSCALE_MAX && s->config.rcv_buf_bytes >> shift > UINT16_MAX)
        shift++;
    return shift;
}

uint16_t window_initial(const struct tcp_stack *s)
{
    return s->config.rcv_buf_bytes < UINT16_MAX ? (uint16_t)s->config.rcv_buf_bytes : UINT16_MAX;
}
