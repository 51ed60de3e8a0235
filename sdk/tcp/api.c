/*
 * api.c: the user's calls on a connection.  They read and mark; tcp_output() acts.
 */
#include "tcp/rate.h"
#include "tcp/rtxq.h"
#include "tcp/rxq.h"
#include "tcp/stack.h"
#include "tcp/state.h"
#include "tcp/timers.h"
#include "tcp/window.h"

#include <errno.h>

bool tcp_next_event(struct tcp_stack *s, struct tcp_event *event)
{
    while (s->events.first != TCP_NO_CONN) {
        uint32_t index = s->events.first;
        struct tcb *t = stack_tcb(s, index);

        s->events.first = t->event_next;
        t->event_next = TCP_NO_CONN;
        t->flags &= ~(uint32_t)TCB_IN_EVENTS;
        if (t->flags & TCB_ZOMBIE) {
            if (!(t->flags & TCB_IN_OUTPUT))
                slab_give(&s->rows, index);
            continue;
        }
        *event = (struct tcp_event){.conn = index, .kinds = t->events, .user = t->user};
        t->events = 0;
        if (event->kinds != 0 && !(t->flags & TCB_ORPHAN))
            return true;
    }
    return false;
}

/* --- receiving --- */

uint32_t tcp_recv_ready(const struct tcp_stack *s, uint32_t conn)
{
    const struct tcb_ext *e = stack_ext(s, stack_tcb(s, conn));

    return e != NULL ? e->rx_bytes : 0;
}

/* Of its own, so that who asks in vain saves no registers. */
__attribute__((noinline)) static uint32_t views_from(const struct tcp_stack *s, uint32_t slot, struct tcp_view *views,
                                                     uint32_t count)
{
    uint32_t filled = 0;

    for (; slot != TCP_NO_SLOT && filled < count; slot = s->rx[slot].next) {
        const struct reasm_slot *m = &s->rx[slot];

        views[filled++] = (struct tcp_view){s->env.rx_data(s->env.context, slot) + m->data, m->len};
    }
    return filled;
}

uint32_t tcp_recv_views(const struct tcp_stack *s, uint32_t conn, struct tcp_view *views, uint32_t count)
{
    const struct tcb_ext *e = stack_ext(s, stack_tcb(s, conn));

    return e != NULL && e->rx_first != TCP_NO_SLOT ? views_from(s, e->rx_first, views, count) : 0;
}

void tcp_recv_consume(struct tcp_stack *s, uint32_t conn, uint32_t len)
{
    struct tcb *t = stack_tcb(s, conn);
    struct tcb_ext *e = stack_ext(s, t);

    if (e == NULL)
        return;
    rxq_consume(s, e, len < e->rx_bytes ? len : e->rx_bytes);
    if (state_can_receive(t->state) && window_is_worth_telling(s, t, e))
        tcb_owe(s, t, OWE_ACK);
    tcb_return_ext(s, t);
}

uint32_t tcp_recv(struct tcp_stack *s, uint32_t conn, void *data, uint32_t len)
{
    const struct tcb_ext *e = stack_ext(s, stack_tcb(s, conn));
    uint32_t done = 0;

    if (e == NULL)
        return 0;
    for (uint32_t slot = e->rx_first; slot != TCP_NO_SLOT && done < len; slot = s->rx[slot].next) {
        const struct reasm_slot *m = &s->rx[slot];
        uint32_t part = m->len < len - done ? m->len : len - done;

        memcpy((uint8_t *)data + done, s->env.rx_data(s->env.context, slot) + m->data, part);
        done += part;
    }
    tcp_recv_consume(s, conn, done);
    return done;
}

uint32_t tcp_recv_lend(struct tcp_stack *s, uint32_t conn, struct tcp_view *view)
{
    struct tcb *t = stack_tcb(s, conn);
    struct tcb_ext *e = stack_ext(s, t);
    uint32_t slot = e != NULL ? e->rx_first : TCP_NO_SLOT;

    if (slot == TCP_NO_SLOT)
        return TCP_NO_SLOT;
    tcp_recv_views(s, conn, view, 1);
    rxq_unlink_first(s, e);
    e->rx_bytes -= view->len;
    s->rx_lent++;
    if (state_can_receive(t->state) && window_is_worth_telling(s, t, e))
        tcb_owe(s, t, OWE_ACK);
    tcb_return_ext(s, t);
    return slot;
}

void tcp_recv_give(struct tcp_stack *s, uint32_t slot)
{
    s->rx_lent--;
    stack_release_rx(s, slot);
}

bool tcp_recv_eof(const struct tcp_stack *s, uint32_t conn)
{
    return (stack_tcb(s, conn)->flags & TCB_FIN_RECEIVED) && tcp_recv_ready(s, conn) == 0;
}

/* --- sending --- */

static int why_not_send(const struct tcb *t)
{
    if (t->error != 0)
        return -t->error;
    if (t->state == TCP_STATE_SYN_SENT || t->state == TCP_STATE_SYN_RECEIVED)
        return -ENOTCONN;
    return state_can_send(t->state) ? 0 : -EPIPE;
}

int64_t tcp_send(struct tcp_stack *s, uint32_t conn, const void *data, size_t len)
{
    struct tcb *t = stack_tcb(s, conn);
    int refusal = why_not_send(t);
    struct tcb_ext *e;
    uint32_t taken;

    if (refusal != 0 || len == 0)
        return refusal;
    e = tcb_borrow_ext(s, t);
    if (e == NULL) {
        t->flags |= TCB_WANT_WRITABLE;
        tcb_owe(s, t, OWE_WRITABLE);
        return 0;
    }
    if (e->rated)
        rate_check_limited(t, e);
    taken = rtxq_append(s, t, e, data, len < INT32_MAX ? (uint32_t)len : INT32_MAX);
    if (taken < len) {
        t->flags |= TCB_WANT_WRITABLE;
        if (!rtxq_is_full(s, t, e))
            tcb_owe(s, t, OWE_WRITABLE);
    }
    if (taken != 0)
        tcb_owe(s, t, OWE_DATA);
    else
        tcb_return_ext(s, t);
    return taken;
}

int64_t tcp_send_urgent(struct tcp_stack *s, uint32_t conn, const void *data, size_t len)
{
    int64_t taken = tcp_send(s, conn, data, len);
    struct tcb *t = stack_tcb(s, conn);
    struct tcb_ext *e = stack_ext(s, t);

    if (taken > 0) {
        e->snd_urgent = true;
        e->snd_up = e->tx_end;
        tcb_owe(s, t, OWE_ACK); /* for when no data may go now: the peer is told all the same */
    }
    return taken;
}

uint32_t tcp_send_room(struct tcp_stack *s, uint32_t conn)
{
    struct tcb *t = stack_tcb(s, conn);
    const struct tcb_ext *e = stack_ext(s, t);
    uint32_t room;

    if (why_not_send(t) != 0)
        return 0;
    if (e != NULL)
        room = rtxq_is_full(s, t, e) ? 0 : rtxq_room(s, t, e);
    else
        room = slab_available(&s->ext) == 0 ? 0 : rtxq_room(s, t, NULL);
    if (room == 0) {
        t->flags |= TCB_WANT_WRITABLE;
        if (e == NULL || !rtxq_is_full(s, t, e))
            tcb_owe(s, t, OWE_WRITABLE);
    }
    return room;
}

uint32_t tcp_unacked(const struct tcp_stack *s, uint32_t conn)
{
    const struct tcb *t = stack_tcb(s, conn);
    const struct tcb_ext *e = stack_ext(s, t);

    return e != NULL && e->tx_first != TCP_NO_SLOT ? e->tx_end - t->snd_una : 0;
}

void tcp_want_sent_all(struct tcp_stack *s, uint32_t conn)
{
    struct tcb *t = stack_tcb(s, conn);

    if (tcp_unacked(s, conn) == 0) {
        tcb_event(s, t, TCP_EVENT_SENT_ALL);
        return;
    }
    t->events &= (uint8_t)~TCP_EVENT_SENT_ALL; /* one that was not heard yet, of less than has been sent since */
    t->flags |= TCB_WANT_SENT_ALL;
}

/* --- ending --- */

static void queue_fin(struct tcp_stack *s, struct tcb *t)
{
    if (!state_can_send(t->state))
        return;
    tcb_set_state(s, t, t->state == TCP_STATE_ESTABLISHED ? TCP_STATE_FIN_WAIT_1 : TCP_STATE_LAST_ACK);
    t->flags |= TCB_FIN_QUEUED;
    tcb_owe(s, t, OWE_DATA);
}

void tcp_shutdown(struct tcp_stack *s, uint32_t conn, uint64_t now_us)
{
    s->now_us = now_us;
    queue_fin(s, stack_tcb(s, conn));
}

/* The user lets go; false: there is nothing left of the connection, and the row is free or will be. */
static bool orphan(struct tcp_stack *s, struct tcb *t)
{
    t->flags |= TCB_ORPHAN;
    t->flags &= ~(uint32_t)(TCB_WANT_WRITABLE | TCB_WANT_SENT_ALL);
    t->events = 0;
    t->owe &= (uint8_t) ~(OWE_WRITABLE | OWE_KEEPALIVE);
    if (t->owe & OWE_RST)
        return false;
    if (t->state == TCP_STATE_SYN_SENT)
        s->counters.connections_closed++;
    if (t->state == TCP_STATE_SYN_SENT || !state_is_open(t->state)) {
        tcb_free(s, t);
        return false;
    }
    return true;
}

void tcp_close(struct tcp_stack *s, uint32_t conn, uint64_t now_us)
{
    struct tcb *t = stack_tcb(s, conn);
    bool unread = tcp_recv_ready(s, conn) != 0;

    s->now_us = now_us;
    if (!orphan(s, t))
        return;
    if (unread || t->state == TCP_STATE_SYN_RECEIVED) {
        tcb_reset(s, t, ECONNRESET);
        return;
    }
    t->idle_deadline = 0;
    if (t->state == TCP_STATE_FIN_WAIT_2)
        t->idle_deadline = stack_deadline(now_us, s->config.fin_wait_2_ms * UINT64_C(1000));
    queue_fin(s, t);
    timers_update(s, t);
}

void tcp_abort(struct tcp_stack *s, uint32_t conn, uint64_t now_us)
{
    struct tcb *t = stack_tcb(s, conn);

    s->now_us = now_us;
    if (orphan(s, t))
        tcb_reset(s, t, ECONNRESET);
}

/* --- settings and state --- */

void tcp_set_user(struct tcp_stack *s, uint32_t conn, uint64_t user)
{
    stack_tcb(s, conn)->user = user;
}

uint64_t tcp_user(const struct tcp_stack *s, uint32_t conn)
{
    return stack_tcb(s, conn)->user;
}

void tcp_flow(const struct tcp_stack *s, uint32_t conn, struct flow *flow)
{
    tcb_flow(s, stack_tcb(s, conn), flow);
}

enum tcp_state tcp_conn_state(const struct tcp_stack *s, uint32_t conn)
{
    return (enum tcp_state)stack_tcb(s, conn)->state;
}

int tcp_error(const struct tcp_stack *s, uint32_t conn)
{
    return stack_tcb(s, conn)->error;
}

void tcp_set_nodelay(struct tcp_stack *s, uint32_t conn, bool on)
{
    struct tcb *t = stack_tcb(s, conn);

    t->flags = on ? t->flags | TCB_NODELAY : t->flags & ~(uint32_t)TCB_NODELAY;
    if (on && stack_ext(s, t) != NULL && state_is_open(t->state))
        tcb_owe(s, t, OWE_DATA);
}

static bool is_stalled(const struct tcb *t, const struct tcb_ext *e)
{
    return t->backoff != 0 && e->resent >= BACKOFF_R1 && t->snd_una != t->snd_nxt;
}

static uint32_t stalled_ms(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    bool known = t->backoff != 0 && t->snd_una != t->snd_nxt && e->stalled_since_ms != 0;

    return known ? stack_now_ms(s->now_us) - e->stalled_since_ms : 0;
}

void tcp_get_info(const struct tcp_stack *s, uint32_t conn, struct tcp_info *info)
{
    const struct tcb *t = stack_tcb(s, conn);
    const struct tcb_ext *e = stack_ext(s, t);

    *info = (struct tcp_info){
        .state = t->state,
        .wscale_snd = t->snd_wind_shift,
        .wscale_rcv = window_rcv_shift(s, t),
        .sack = (t->flags & TCB_SACK) != 0,
        .timestamps = (t->flags & TCB_TIMESTAMPS) != 0,
        .ecn = (t->flags & TCB_ECN) != 0,
        .srtt_us = rtt_srtt_us(&t->rtt),
        .rttvar_us = rtt_rttvar_us(&t->rtt),
        .rto_us = rtt_rto_us(&t->rtt, t->backoff),
        .cwnd_bytes = t->cc.cwnd,
        .ssthresh_bytes = t->cc.ssthresh,
        .snd_una = t->snd_una,
        .snd_nxt = t->snd_nxt,
        .snd_wnd = t->snd_wnd,
        .rcv_nxt = t->rcv_nxt,
        .rcv_wnd = t->rcv_adv - t->rcv_nxt,
        .smss = t->smss,
        .flight_bytes = t->snd_nxt - t->snd_una,
        .unread_bytes = e != NULL ? e->rx_bytes : 0,
        .timeouts = t->backoff,
        .retransmits = e != NULL ? e->retransmits : t->retransmits,
        .rcv_buf_bytes = window_buffer(s, t),
        .snd_buf_bytes = rtxq_buffer(s, t),
        .stalled = e != NULL && is_stalled(t, e),
        .stalled_ms = e != NULL ? stalled_ms(s, t, e) : 0,
        .urgent_bytes = e != NULL ? rxq_urgent_bytes(t, e) : 0,
    };
    if (e != NULL && e->tx_unsent != TCP_NO_SLOT)
        info->unsent_bytes = e->tx_end - s->tx[e->tx_unsent].seq;
}
