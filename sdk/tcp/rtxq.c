/*
 * rtxq.c: the retransmission queue.
 */
#include "tcp/rtxq.h"

#include "tcp/rack.h"
#include "tcp/rate.h"
#include "tcp/seq.h"

/* Slots that one connection may hold: twice what full segments of the whole buffer need, so that small sends do not pin
 * the pool and no walk over the queue is long. */
static uint32_t slots_max(const struct tcb *t, uint32_t buffer)
{
    uint32_t max = buffer / (t->smss / 2u) + 16;

    return max < UINT16_MAX ? max : UINT16_MAX;
}

static uint32_t room_of(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e, uint32_t buffer)
{
    uint32_t available = s->env.tx_available(s->env.context);
    uint32_t queued = e != NULL ? e->tx_end - t->snd_una : 0;
    uint32_t held = e != NULL ? e->tx_slots : 0;
    uint32_t limit = slots_max(t, buffer);
    uint32_t bytes, slots, fair;

    /* Who holds more than what is left waits: the pool is shared fairly without a fixed quota (dynamic threshold).  Each slot
     * taken makes one more held and one less left. */
    available = available > s->tx_reserve ? available - s->tx_reserve : 0;
    fair = held <= available ? (available - held) / 2 + 1 : 0;
    if (fair + held < 2)
        fair = 2 - held;
    slots = limit > held ? limit - held : 0;
    slots = slots < available ? slots : available;
    slots = slots < fair ? slots : fair;
    bytes = buffer > queued ? buffer - queued : 0;
    return (uint64_t)slots * t->smss < bytes ? slots * t->smss : bytes;
}

uint32_t rtxq_room(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    return room_of(s, t, e, rtxq_buffer(s, t));
}

bool rtxq_is_full(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t buffer = rtxq_buffer(s, t);

    return e->tx_slots >= slots_max(t, buffer) || e->tx_end - t->snd_una + t->smss > buffer;
}

static uint32_t append_slot(struct tcp_stack *s, struct tcb_ext *e)
{
    uint32_t slot = s->env.tx_alloc(s->env.context);

    if (slot >= s->config.tx_slots)
        return TCP_NO_SLOT;
    s->tx_held++;
    s->tx[slot] = (struct tx_slot){.next = TCP_NO_SLOT, .seq = e->tx_end, .offset = TCP_SLOT_HEADROOM};
    if (e->tx_first == TCP_NO_SLOT)
        e->tx_first = slot;
    else
        s->tx[e->tx_last].next = slot;
    if (e->tx_unsent == TCP_NO_SLOT)
        e->tx_unsent = slot;
    e->tx_last = slot;
    e->tx_slots++;
    return slot;
}

uint32_t rtxq_append(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const uint8_t *data, uint32_t len)
{
    uint32_t buffer = rtxq_buffer(s, t), limit = buffer - (e->tx_end - t->snd_una);
    uint32_t done = 0;

    if ((int32_t)limit <= 0)
        return 0;
    len = len < limit ? len : limit;
    while (done < len) {
        uint32_t slot = e->tx_unsent != TCP_NO_SLOT ? e->tx_last : TCP_NO_SLOT;
        struct tx_slot *m;
        uint32_t room;

        if (slot == TCP_NO_SLOT || s->tx[slot].offset + s->tx[slot].len >= TCP_SLOT_HEADROOM + t->smss) {
            if (room_of(s, t, e, buffer) == 0 || (slot = append_slot(s, e)) == TCP_NO_SLOT) {
                s->counters.slots_dry += e->tx_slots < slots_max(t, buffer);
                break;
            }
        }
        m = &s->tx[slot];
        room = TCP_SLOT_HEADROOM + (uint32_t)t->smss - (m->offset + m->len);
        room = room < len - done ? room : len - done;
        memcpy(s->env.tx_data(s->env.context, slot) + m->offset + m->len, data + done, room);
        m->len = (uint16_t)(m->len + room);
        e->tx_end += room;
        done += room;
    }
    return done;
}

static void unlink_first(struct tcp_stack *s, struct tcb_ext *e)
{
    uint32_t slot = e->tx_first;

    e->tx_first = s->tx[slot].next;
    if (e->tx_first == TCP_NO_SLOT)
        e->tx_last = TCP_NO_SLOT;
    if (e->tx_unsent == slot)
        e->tx_unsent = e->tx_first;
    if (e->tx_lost == slot)
        e->tx_lost = e->tx_first;
    e->tx_slots--;
    stack_free_tx(s, slot);
}

void rtxq_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in, struct rtxq_acked *acked)
{
    uint32_t ack = in->seg.ack;

    *acked = (struct rtxq_acked){.sample = true};
    while (e->tx_first != TCP_NO_SLOT) {
        struct tx_slot *m = &s->tx[e->tx_first];
        uint32_t covered;

        if (!seq_lt(m->seq, ack))
            break;
        covered = ack - m->seq < m->len ? ack - m->seq : m->len;
        if ((t->flags & TCB_SACK) && covered == m->len && !(m->flags & TX_SACKED))
            rack_delivered(t, e, m, in);
        if (e->rated && covered == m->len)
            rate_delivered(s, e, e->tx_first, in->now_us);
        if (acked->bytes == 0)
            acked->sent_us = m->sent_us;
        if (m->flags & TX_RETRANSMITTED)
            acked->sample = false;
        acked->bytes += covered;
        if (m->flags & TX_SACKED) {
            acked->sacked_bytes += covered;
            e->sacked_bytes -= covered;
        } else if (m->flags & TX_LOST) {
            e->lost_bytes -= covered;
        }
        if (covered == m->len) {
            unlink_first(s, e);
            continue;
        }
        m->seq += covered;
        m->offset = (uint16_t)(m->offset + covered);
        m->len = (uint16_t)(m->len - covered);
    }
    acked->sample = acked->sample && acked->bytes != 0;
}

bool rtxq_split(struct tcp_stack *s, struct tcb_ext *e, uint32_t slot, uint32_t len)
{
    struct tx_slot *m = &s->tx[slot];
    uint32_t rest = s->env.tx_alloc(s->env.context);
    struct tx_slot *r;

    if (rest >= s->config.tx_slots) {
        s->counters.slots_dry++;
        return false;
    }
    r = &s->tx[rest];
    s->tx_held++;
    *r = *m;
    if (m->flags & TX_MARKED)
        s->marks[rest] = s->marks[slot];
    r->offset = TCP_SLOT_HEADROOM;
    r->seq = m->seq + len;
    r->len = (uint16_t)(m->len - len);
    memcpy(s->env.tx_data(s->env.context, rest) + r->offset, s->env.tx_data(s->env.context, slot) + m->offset + len,
           r->len);
    m->next = rest;
    m->len = (uint16_t)len;
    if (e->tx_last == slot)
        e->tx_last = rest;
    e->tx_slots++;
    return true;
}

void rtxq_join(struct tcp_stack *s, struct tcb_ext *e, uint32_t len)
{
    struct tx_slot *m = &s->tx[e->tx_unsent];
    uint8_t *data = s->env.tx_data(s->env.context, e->tx_unsent);

    while (m->len < len) {
        uint32_t slot = m->next;
        struct tx_slot *n = &s->tx[slot];
        uint32_t part = len - m->len < n->len ? len - m->len : n->len;

        memcpy(data + m->offset + m->len, s->env.tx_data(s->env.context, slot) + n->offset, part);
        m->len = (uint16_t)(m->len + part);
        n->seq += part;
        n->offset = (uint16_t)(n->offset + part);
        n->len = (uint16_t)(n->len - part);
        if (n->len != 0)
            break;
        m->next = n->next;
        if (e->tx_last == slot)
            e->tx_last = e->tx_unsent;
        e->tx_slots--;
        stack_free_tx(s, slot);
    }
}

void rtxq_clear(struct tcp_stack *s, struct tcb_ext *e)
{
    while (e->tx_first != TCP_NO_SLOT)
        unlink_first(s, e);
    e->tx_unsent = e->tx_lost = e->sack_hint = TCP_NO_SLOT;
    e->sacked_bytes = e->lost_bytes = 0;
}

uint32_t rtxq_pipe(const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t flight = t->snd_nxt - t->snd_una;
    uint32_t gone = e->sacked_bytes + e->lost_bytes;

    if (!(t->flags & TCB_SACK))
        gone += (uint32_t)e->dupacks * t->smss;
    return gone < flight ? flight - gone : 0;
}
