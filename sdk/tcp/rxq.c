/*
 * rxq.c: the receive queue.
 */
#include "tcp/rxq.h"

#include "tcp/sack.h"
#include "tcp/seq.h"

enum {
    TINY_SEGMENT_BYTES = 128, /* a buffer full of smaller segments holds fewer bytes */
    SLOTS_MAX = 60000,        /* what tcb_ext can count */
};

uint32_t rxq_conn_max(uint32_t rcv_buf_bytes)
{
    uint32_t max = rcv_buf_bytes / TINY_SEGMENT_BYTES + 16;

    return max < SLOTS_MAX ? max : SLOTS_MAX;
}

uint32_t rxq_urgent_bytes(const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t unread = t->rcv_nxt - e->rx_bytes - ((t->flags & TCB_FIN_RECEIVED) != 0);

    return e->urgent && seq_gt(e->urgent_end, unread) ? e->urgent_end - unread : 0;
}

void rxq_urgent(struct tcp_stack *s, struct tcb *t, const struct tcp_segment *seg)
{
    struct tcb_ext *e;
    uint32_t end = seg->seq + seg->up; /* RFC 6093: behind the urgent byte */

    if (!seq_gt(end, t->rcv_nxt) || (e = tcb_borrow_ext(s, t)) == NULL ||
        (rxq_urgent_bytes(t, e) != 0 && !seq_gt(end, e->urgent_end)))
        return;
    e->urgent = true;
    e->urgent_end = end;
    tcb_event(s, t, TCP_EVENT_URGENT);
}

static void append(struct tcp_stack *s, struct tcb_ext *e, const struct reasm_chain *chain)
{
    if (e->rx_first == TCP_NO_SLOT)
        e->rx_first = chain->first;
    else
        s->rx[e->rx_last].next = chain->first;
    e->rx_last = chain->last;
    e->rx_slots = (uint16_t)(e->rx_slots + chain->segments);
    e->rx_bytes += chain->bytes;
}

static void release(struct tcp_stack *s, const struct reasm_chain *chain)
{
    for (uint32_t slot = chain->first, next; slot != REASM_NO_SLOT; slot = next) {
        next = s->rx[slot].next;
        stack_release_rx(s, slot);
    }
}

static enum tcp_drop add_in_order(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, struct input *in)
{
    uint32_t len = in->seg.payload_len;
    struct reasm_chain chain = {.first = in->slot, .last = in->slot, .segments = 1, .bytes = len};

    s->rx[in->slot] = (struct reasm_slot){.next = TCP_NO_SLOT, .data = (uint16_t)in->data, .len = (uint16_t)len};
    reasm_skip(&e->reasm, len);
    append(s, e, &chain);
    t->rcv_nxt += len;
    return TCP_DROP_NONE;
}

/* Is there a slot for a segment at offset from RCV.NXT?  One that fills the hole must not be kept out by what waits behind the
 * hole, else both wait for ever: then the latter is given up (RFC 2018 8), and only unread data counts.  Who holds none gets one
 * beyond the budget, but never the last: with those come the ACKs that users wait for who do not read. */
static bool has_room(struct tcp_stack *s, const struct tcb *t, struct tcb_ext *e, uint32_t offset)
{
    uint32_t held = (uint32_t)e->rx_slots + e->reasm.segments;

    if (held < s->rcv_sizes[t->rcv_level].slots && s->rx_held + held < s->rx_budget)
        return true;
    if (offset != 0)
        return rxq_slots_left(s, t, e, 1) != 0 && s->rx_held < s->rx_budget;
    if (rxq_slots_left(s, t, e, 1) != 0)
        return s->rx_held < s->rx_most;
    if (reasm_is_empty(&e->reasm))
        return false;
    if (s->rx_held >= s->rx_budget)
        rxq_drop_out_of_order(s, e);
    return e->rx_slots == 0 ? s->rx_held < s->rx_most : s->rx_held + e->rx_slots < s->rx_budget;
}

enum tcp_drop rxq_add(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    uint32_t offset = in->seg.seq - t->rcv_nxt;
    uint32_t len = in->seg.payload_len;
    struct tcb_ext *e = tcb_borrow_ext(s, t);
    struct reasm_chain chain;
    struct reasm_added added;
    enum reasm_result result;

    if (e == NULL || !has_room(s, t, e, offset))
        return TCP_DROP_NO_ROOM;
    if (len > e->rmss)
        e->rmss = (uint16_t)len;
    if (offset == 0 && reasm_is_empty(&e->reasm)) {
        add_in_order(s, t, e, in);
    } else {
        s->counters.out_of_order_segments += offset != 0;
        result = reasm_add(&e->reasm, s->rx, offset, len, in->slot, (uint16_t)in->data, &added);
        if (result != REASM_HELD)
            return result == REASM_FULL ? TCP_DROP_REASSEMBLY_FULL : TCP_DROP_DUPLICATE;
        release(s, &added.covered);
        if (added.held.begin != added.held.end && e->dsack_begin == e->dsack_end)
            sack_note_duplicate(s, t, t->rcv_nxt + added.held.begin, t->rcv_nxt + added.held.end);
        if (offset == 0 && reasm_pop(&e->reasm, s->rx, &chain)) {
            append(s, e, &chain);
            t->rcv_nxt += chain.bytes;
            len = chain.bytes;
        }
    }
    in->taken = true;
    s->rx_held++;
    if (offset == 0) {
        s->counters.bytes_received += len;
        tcb_event(s, t, TCP_EVENT_READABLE);
    }
    return TCP_DROP_NONE;
}

void rxq_unlink_first(struct tcp_stack *s, struct tcb_ext *e)
{
    e->rx_first = s->rx[e->rx_first].next;
    e->rx_slots--;
    if (e->rx_first == TCP_NO_SLOT)
        e->rx_last = TCP_NO_SLOT;
}

void rxq_consume(struct tcp_stack *s, struct tcb_ext *e, uint32_t len)
{
    e->rx_bytes -= len;
    while (len != 0) {
        uint32_t slot = e->rx_first;
        struct reasm_slot *m = &s->rx[slot];

        if (len < m->len) {
            m->data = (uint16_t)(m->data + len);
            m->len = (uint16_t)(m->len - len);
            return;
        }
        len -= m->len;
        rxq_unlink_first(s, e);
        stack_release_rx(s, slot);
    }
}

void rxq_drop_out_of_order(struct tcp_stack *s, struct tcb_ext *e)
{
    struct reasm_chain chain;

    reasm_clear(&e->reasm, s->rx, &chain);
    release(s, &chain);
}

void rxq_clear(struct tcp_stack *s, struct tcb_ext *e)
{
    rxq_consume(s, e, e->rx_bytes);
}
