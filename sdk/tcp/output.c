/*
 * output.c: from owe bits to packets, once per batch.
 *
 * Connections take turns of OUTPUT_BURST segments.  Who lacks a slot waits on the blocked list; a call tries these first, but no more
 * than BLOCKED_TRIES in vain, since there may be as many as connections.  When the way out is full, all wait where they are.  A mark is
 * cleared when its packet is sent, so nothing that is owed is ever forgotten.
 */
#include "tcp/output.h"

#include "tcp/reply.h"
#include "tcp/rtxq.h"
#include "tcp/state.h"
#include "tcp/timers.h"
#include "tcp/transmit.h"
#include "tcp/window.h"

enum {
    BLOCKED_TRIES = 64,
    BLOCKED_AGAIN_US = 1000, /* when there were more and nothing else happens */
};

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

/* The user waits for slots or an extension.  No more are told in a call than could take one. */
static enum sent output_writable(struct tcp_stack *s, struct tcb *t)
{
    const struct tcb_ext *e = stack_ext(s, t);

    if (rtxq_room(s, t, e) < t->smss || (e == NULL && slab_available(&s->ext) <= s->told_writable) ||
        s->env.tx_available(s->env.context) <= s->tx_reserve + s->told_writable)
        return SENT_NOT_NOW;
    t->owe &= (uint8_t)~OWE_WRITABLE;
    if (t->flags & TCB_WANT_WRITABLE) {
        s->told_writable++;
        t->flags &= ~(uint32_t)TCB_WANT_WRITABLE;
        tcb_event(s, t, TCP_EVENT_WRITABLE);
    }
    return SENT;
}

enum {
    OWE_SYNCHRONIZED = OWE_ACK | OWE_PROBE | OWE_KEEPALIVE,
    OWE_UNSENT = OWE_SYNCHRONIZED | OWE_DATA | OWE_TAIL_PROBE, /* data or FIN may have to be sent */
};

/* What a connection in a state may owe; other marks are from before it came there. */
static const uint8_t owe_possible[TCP_STATE_TIME_WAIT + 1] = {
    [TCP_STATE_SYN_SENT] = OWE_SYN,
    [TCP_STATE_SYN_RECEIVED] = OWE_SYN | OWE_ACK,
    [TCP_STATE_ESTABLISHED] = OWE_UNSENT | OWE_WRITABLE,
    [TCP_STATE_FIN_WAIT_1] = OWE_UNSENT,
    [TCP_STATE_FIN_WAIT_2] = OWE_SYNCHRONIZED,
    [TCP_STATE_CLOSE_WAIT] = OWE_UNSENT | OWE_WRITABLE,
    [TCP_STATE_CLOSING] = OWE_UNSENT,
    [TCP_STATE_LAST_ACK] = OWE_UNSENT,
};

/* All that t owes, as far as it goes; *sent is counted up, to *limit at most. */
static enum sent output_tcb(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent, uint32_t limit)
{
    enum sent result = SENT;

    if (t->owe & OWE_RST)
        return transmit_reset(s, t, sent);
    t->owe &= owe_possible[t->state];
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

static struct tcb *pop(struct tcp_stack *s, struct tcb_list *list)
{
    struct tcb *t = stack_tcb(s, list->first);

    list->first = t->output_next;
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

/* One turn of the first of a list. */
static enum sent output_next(struct tcp_stack *s, struct tcb_list *list, uint64_t now_us, uint32_t *sent)
{
    struct tcb *t = pop(s, list);
    enum sent result;

    if (is_zombie(s, t))
        return SENT;
    result = output_tcb(s, t, now_us, sent, *sent + OUTPUT_BURST);
    if (t->state != TCP_STATE_FREE && t->owe != 0 && !(t->flags & TCB_IN_OUTPUT))
        tcb_list_push(s, result == SENT_NOT_NOW ? &s->blocked : &s->output, t);
    return result;
}

/* In the order in which they came; who is tried in vain is the last then. */
static enum sent output_blocked(struct tcp_stack *s, uint64_t now_us, uint32_t *sent)
{
    struct tcb_list waiting = s->blocked;
    uint32_t in_vain = 0;
    enum sent result = SENT;

    s->blocked.first = TCP_NO_CONN;
    while (waiting.first != TCP_NO_CONN && in_vain < BLOCKED_TRIES && result != SENT_FULL) {
        result = output_next(s, &waiting, now_us, sent);
        in_vain += result == SENT_NOT_NOW;
    }
    s->more_blocked = waiting.first != TCP_NO_CONN;
    if (!s->more_blocked)
        return result;
    stack_tcb(s, waiting.last)->output_next = s->blocked.first;
    s->blocked = (struct tcb_list){waiting.first, s->blocked.first == TCP_NO_CONN ? waiting.last : s->blocked.last};
    return result;
}

uint64_t output_deadline(const struct tcp_stack *s)
{
    return s->more_blocked ? s->now_us + BLOCKED_AGAIN_US : UINT64_MAX;
}

uint32_t tcp_output(struct tcp_stack *s, uint64_t now_us)
{
    uint32_t sent = 0;

    s->now_us = now_us;
    s->told_writable = 0;
    if (reply_send_all(s, &sent) == SENT_FULL || output_blocked(s, now_us, &sent) == SENT_FULL)
        return sent;
    while (s->output.first != TCP_NO_CONN && output_next(s, &s->output, now_us, &sent) != SENT_FULL)
        ;
    return sent;
}
