/*
 * output.c: from owe bits to packets, once per batch.
 *
 * Connections take turns of OUTPUT_BURST segments.  Who lacks a slot waits on the blocked list for the next call; when the way out is
 * full, all wait where they are.  A mark is cleared when its packet is sent, so nothing that is owed is ever forgotten.
 */
#include "tcp/output.h"

#include "tcp/reply.h"
#include "tcp/rtxq.h"
#include "tcp/state.h"
#include "tcp/timers.h"
#include "tcp/transmit.h"
#include "tcp/window.h"

enum sent output_control(struct tcp_stack *s, struct build *b)
{
    uint32_t slot = s->env.tx_alloc(s->env.context);
    uint32_t offset, len;
    uint8_t *data;

    if (slot >= s->config.tx_slots) {
        s->counters.slots_dry++;
        return SENT_NOT_NOW;
    }
    data = s->env.tx_data(s->env.context, slot);
    /* Nothing follows the headers, so they may lie anywhere: at one place in each slot they would share a few sets of the caches. */
    b->payload_offset = TCP_SLOT_HEADROOM + slot % 16 * 64;
    len = build_packet(s, data, b, &offset);
    if (!s->env.tx_send(s->env.context, slot, offset, len, true)) {
        s->counters.output_blocked++;
        s->env.tx_free(s->env.context, slot);
        return SENT_FULL;
    }
    s->counters.segments_sent++;
    return SENT;
}

/* The user waits for slots or an extension. */
static enum sent output_writable(struct tcp_stack *s, struct tcb *t)
{
    const struct tcb_ext *e = stack_ext(s, t);

    if (rtxq_room(s, t, e) < t->smss || (e == NULL && slab_available(&s->ext) == 0))
        return SENT_NOT_NOW;
    t->owe &= (uint8_t)~OWE_WRITABLE;
    if (t->flags & TCB_WANT_WRITABLE) {
        t->flags &= ~(uint32_t)TCB_WANT_WRITABLE;
        tcb_event(s, t, TCP_EVENT_WRITABLE);
    }
    return SENT;
}

/* What a connection in this state may owe; other marks are from before it came here. */
static uint8_t owe_possible(uint8_t state)
{
    if (state == TCP_STATE_SYN_SENT)
        return OWE_SYN;
    if (state == TCP_STATE_SYN_RECEIVED)
        return OWE_SYN | OWE_ACK;
    if (!state_is_open(state))
        return 0;
    return OWE_ACK | OWE_PROBE | OWE_KEEPALIVE | (state_can_transmit(state) ? OWE_DATA | OWE_TAIL_PROBE : 0) |
           (state_can_send(state) ? OWE_WRITABLE : 0);
}

/* All that t owes, as far as it goes; *sent is counted up, to *limit at most. */
static enum sent output_tcb(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent, uint32_t limit)
{
    enum sent result = SENT;

    if (t->owe & OWE_RST)
        return transmit_reset(s, t, sent);
    t->owe &= owe_possible(t->state);
    if (t->owe & OWE_SYN)
        result = transmit_syn(s, t, now_us, sent);
    if (result == SENT && (t->owe & OWE_TAIL_PROBE))
        result = transmit_tail_probe(s, t, now_us, sent);
    if (result == SENT && (t->owe & OWE_DATA))
        result = transmit_data(s, t, now_us, sent, limit);
    if (result == SENT && (t->owe & (OWE_PROBE | OWE_KEEPALIVE)))
        result = transmit_probe(s, t, now_us, sent);
    while (result != SENT_FULL && (t->owe & OWE_ACK)) {
        enum sent ack = transmit_ack(s, t, now_us, sent);

        result = ack != SENT ? ack : result;
        if (ack != SENT)
            break;
    }
    if (result == SENT && (t->owe & OWE_WRITABLE))
        result = output_writable(s, t);
    if (state_is_open(t->state)) {
        tcb_return_ext(s, t);
        timers_update(s, t);
    }
    return result;
}

static struct tcb *pop(struct tcp_stack *s)
{
    struct tcb *t = stack_tcb(s, s->output.first);

    s->output.first = t->output_next;
    t->output_next = TCP_NO_CONN;
    t->flags &= ~(uint32_t)TCB_IN_OUTPUT;
    return t;
}

/* The list lets go of a row that was freed while it was on it. */
static bool is_zombie(struct tcp_stack *s, struct tcb *t)
{
    if (!(t->flags & TCB_ZOMBIE))
        return false;
    if (!(t->flags & TCB_IN_EVENTS))
        slab_give(&s->rows, stack_index(s, t));
    return true;
}

static void unblock(struct tcp_stack *s)
{
    if (s->blocked.first == TCP_NO_CONN)
        return;
    if (s->output.first == TCP_NO_CONN)
        s->output = s->blocked;
    else {
        stack_tcb(s, s->output.last)->output_next = s->blocked.first;
        s->output.last = s->blocked.last;
    }
    s->blocked.first = TCP_NO_CONN;
}

void tcp_tx_completed(struct tcp_stack *s)
{
    unblock(s);
}

uint32_t tcp_output(struct tcp_stack *s, uint64_t now_us)
{
    uint32_t sent = 0;

    s->now_us = now_us;
    if (reply_send_all(s, &sent) == SENT_FULL)
        return sent;
    unblock(s);
    while (s->output.first != TCP_NO_CONN) {
        struct tcb *t = pop(s);
        uint32_t limit = sent + OUTPUT_BURST;
        enum sent result;

        if (is_zombie(s, t))
            continue;
        result = output_tcb(s, t, now_us, &sent, limit);
        if (t->state != TCP_STATE_FREE && t->owe != 0 && !(t->flags & TCB_IN_OUTPUT))
            tcb_list_push(s, result == SENT_NOT_NOW ? &s->blocked : &s->output, t);
        if (result == SENT_FULL)
            break;
    }
    return sent;
}
