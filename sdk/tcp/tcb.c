/*
 * tcb.c: rows and extensions taken, linked, ended and freed.
 */
#include "tcp/tcb.h"

#include "tcp/flows.h"
#include "tcp/isn.h"
#include "tcp/pmtu.h"
#include "tcp/rate.h"
#include "tcp/rtxq.h"
#include "tcp/rxq.h"
#include "tcp/settings.h"
#include "tcp/stack.h"
#include "tcp/state.h"
#include "tcp/timers.h"

enum { TCB_LINE = 64 };

void tcb_list_push(struct tcp_stack *s, struct tcb_list *list, struct tcb *t)
{
    uint32_t index = stack_index(s, t);

    t->output_next = TCP_NO_CONN;
    t->flags |= TCB_IN_OUTPUT;
    if (list->first == TCP_NO_CONN)
        list->first = index;
    else
        stack_tcb(s, list->last)->output_next = index;
    list->last = index;
}

uint32_t tcb_take(struct tcp_stack *s, uint8_t settings)
{
    uint32_t index = slab_take(&s->rows);
    struct tcb *t;

    if (index == SLAB_NONE)
        return TCP_NO_CONN;
    t = stack_tcb(s, index);
    memset(t, 0, TCB_LINE); /* by halves: the whole would become rep stos, which starts slowly */
    memset((uint8_t *)t + TCB_LINE, 0, sizeof *t - TCB_LINE);
    t->ext = TCB_NO_EXT;
    t->output_next = t->event_next = TCP_NO_CONN;
    t->state = TCP_STATE_CLOSED;
    settings_share(s, t->settings = settings);
    s->conns++;
    return index;
}

void tcb_set_state(struct tcp_stack *s, struct tcb *t, enum tcp_state state)
{
    (void)s;
    t->state = (uint8_t)state;
}

void tcb_detach(struct tcp_stack *s, struct tcb *t, bool keep_unread)
{
    struct tcb_ext *e = stack_ext(s, t);

    if (t->flags & TCB_IN_TABLE) {
        flows_remove(s, handle_make(HANDLE_TCB, stack_index(s, t)));
        t->flags &= ~(uint32_t)TCB_IN_TABLE;
    }
    wheel_cancel(&s->wheel, stack_index(s, t));
    t->idle_deadline = 0;
    t->flags &= ~(uint32_t)TCB_PACED;
    if (e == NULL)
        return;
    if ((e->tx_first & e->rx_first & e->reasm.first) != TCP_NO_SLOT) {
        rtxq_clear(s, e);
        rxq_drop_out_of_order(s, e);
        if (!keep_unread)
            rxq_clear(s, e);
        e->rtx_deadline = e->ack_deadline = e->rack_deadline = 0;
    }
    if (e->rx_first == TCP_NO_SLOT) {
        slab_give(&s->ext, stack_ext_index(t));
        t->ext = TCB_NO_EXT;
    }
}

void tcb_free(struct tcp_stack *s, struct tcb *t)
{
    tcb_detach(s, t, false);
    tcb_set_state(s, t, TCP_STATE_FREE);
    settings_give(s, t->settings);
    s->conns--;
    if (t->flags & (TCB_IN_OUTPUT | TCB_IN_EVENTS))
        t->flags |= TCB_ZOMBIE;
    else
        slab_give(&s->rows, stack_index(s, t));
}

void tcb_end(struct tcp_stack *s, struct tcb *t, int error)
{
    s->counters.connections_closed++;
    if (t->flags & TCB_ORPHAN) {
        tcb_free(s, t);
        return;
    }
    tcb_detach(s, t, error == 0);
    tcb_set_state(s, t, TCP_STATE_CLOSED);
    t->owe = 0;
    t->error = (uint8_t)error;
    if (error != 0)
        tcb_event(s, t, TCP_EVENT_ERROR);
}

void tcb_reset(struct tcp_stack *s, struct tcb *t, int error)
{
    s->counters.connections_closed++;
    tcb_detach(s, t, false);
    tcb_set_state(s, t, TCP_STATE_CLOSED);
    t->owe = 0;
    t->error = (uint8_t)error;
    tcb_event(s, t, TCP_EVENT_ERROR);
    tcb_owe(s, t, OWE_RST);
}

/* What is not in the table has no hash there any more. */
static uint32_t ts_base(const struct tcp_stack *s, const struct tcb *t)
{
    uint64_t hash;
    struct flow flow;

    if (t->flags & TCB_IN_TABLE) {
        hash = flows_of(s, handle_make(HANDLE_TCB, stack_index(s, t)));
    } else {
        tcb_flow(s, t, &flow);
        hash = flows_hash(s, &flow);
    }
    return isn_offsets(&s->secret, hash).ts_base;
}

struct tcb_ext *tcb_borrow_ext(struct tcp_stack *s, struct tcb *t)
{
    struct tcb_ext *e = stack_ext(s, t);
    uint32_t index;

    if (e != NULL)
        return e;
    index = slab_take(&s->ext);
    if (index == SLAB_NONE)
        return NULL;
    t->ext = index * EXT_LINES;
    e = stack_ext(s, t);
    memset(e, 0, s->ext.stride); /* a length that the compiler knows would become rep stos, which starts slowly */
    e->tx_first = e->tx_last = e->tx_unsent = e->tx_lost = e->sack_hint = TCP_NO_SLOT;
    e->rx_first = e->rx_last = TCP_NO_SLOT;
    e->tx_end = t->snd_nxt;
    e->recovery_point = e->cwr_point = e->round_end = e->snd_sml = t->snd_una;
    e->probe_end = t->snd_una; /* a probe that all was acknowledged after, see rack_probe_on_ack() */
    e->rack_min_rtt_us = UINT32_MAX;
    e->rack_fack = e->rack_fack_before = t->snd_una;
    e->max_snd_wnd = t->snd_wnd;
    e->retransmits = t->retransmits;
    reasm_init(&e->reasm);
    e->ts_base = ts_base(s, t);
    settings_start_cc(s, t, e);
    if (s->pmtu_noted != 0)
        pmtu_recall(s, t, e);
    return e;
}

/* Data or FIN to be sent or acknowledged, text to be read or out of order, a timer that runs, or something to be told. */
static bool needs_ext(const struct tcb *t, const struct tcb_ext *e)
{
    bool idle =
        ((t->snd_una ^ t->snd_nxt) | ~(e->tx_first & e->rx_first & e->reasm.first) | e->rtx_deadline | e->ack_deadline |
         e->rack_deadline | (e->dsack_begin ^ e->dsack_end) | (t->flags & TCB_FIN_AHEAD)) == 0;

    return !idle || (t->flags & (TCB_FIN_QUEUED | TCB_FIN_SENT)) == TCB_FIN_QUEUED || t->state == TCP_STATE_SYN_SENT ||
           t->state == TCP_STATE_SYN_RECEIVED;
}

/* Of its own, so that who only asks saves no registers. */
__attribute__((noinline)) static void give_ext(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    bool paced = (t->flags & TCB_PACED) != 0;

    t->flags &= ~(uint32_t)(TCB_RECOVERY | TCB_LOSS | TCB_FORCE_RTX | TCB_PACED);
    if (settings_cc(s, t)->memorize != NULL)
        t->cc_memory = settings_cc(s, t)->memorize(&e->cc);
    if (e->rated)
        rate_stop(t, e);
    if (e->pmtu_former != 0)
        pmtu_note(s, t, e);
    t->retransmits = (e->retransmits < TCB_RETRANSMITS_MAX ? e->retransmits : TCB_RETRANSMITS_MAX) & 0xfff;
    slab_give(&s->ext, stack_ext_index(t));
    t->ext = TCB_NO_EXT;
    if (paced) /* what waited to be sent has been acknowledged: nothing is to happen then */
        timers_update(s, t);
}

void tcb_try_return_ext(struct tcp_stack *s, struct tcb *t)
{
    struct tcb_ext *e = stack_ext(s, t);

    if (!needs_ext(t, e))
        give_ext(s, t, e);
}

void tcb_owe(struct tcp_stack *s, struct tcb *t, uint8_t owe)
{
    t->owe |= owe;
    if (!(t->flags & TCB_IN_OUTPUT))
        tcb_list_push(s, &s->output, t);
}

void tcb_event(struct tcp_stack *s, struct tcb *t, uint8_t kinds)
{
    if (t->flags & TCB_ORPHAN)
        return;
    t->events |= kinds;
    if (t->flags & TCB_IN_EVENTS)
        return;
    t->flags |= TCB_IN_EVENTS;
    t->event_next = TCP_NO_CONN;
    if (s->events.first == TCP_NO_CONN)
        s->events.first = stack_index(s, t);
    else
        stack_tcb(s, s->events.last)->event_next = stack_index(s, t);
    s->events.last = stack_index(s, t);
}

void tcb_flow(const struct tcp_stack *s, const struct tcb *t, struct flow *flow)
{
    flow->laddr = s->addresses[t->laddr_index];
    flow->raddr = t->raddr;
    flow->lport = t->lport;
    flow->rport = t->rport;
}

uint32_t tcb_table_hash(const struct tcp_stack *s, const struct tcb *t)
{
    struct flow flow;

    tcb_flow(s, t, &flow);
    return csb_table_hash(csb_hash(&s->config.flow_secret, &flow));
}

uint32_t tcb_tsval(const struct tcp_stack *s, const struct tcb *t, uint64_t now_us)
{
    const struct tcb_ext *e = stack_ext(s, t);

    return stack_now_ms(now_us) + (e != NULL ? e->ts_base : ts_base(s, t));
}
