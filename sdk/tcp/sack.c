/*
 * sack.c: the scoreboard.
 */
#include "tcp/sack.h"

#include "tcp/rack.h"
#include "tcp/rate.h"
#include "tcp/seq.h"

enum { STEPS_FREE = 4096, QUEUES_PER_MS = 4 };

/* Blocks are repeated and grow at their end (RFC 2018 4): the end of what was marked by one with this beginning, or the beginning. */
static uint32_t news_of(const struct tcb_ext *e, const struct tcp_sack_block *block)
{
    for (uint32_t i = 0; i < TCP_SACK_BLOCKS_MAX; i++)
        if (e->sack_seen[i].begin == block->begin && e->sack_seen[i].end != block->begin)
            return seq_min(e->sack_seen[i].end, block->end);
    return block->begin;
}

bool sack_may_walk(const struct tcp_stack *s, const struct tcb_ext *e, uint32_t steps)
{
    return e->steps_ms != stack_now_ms(s->now_us) || steps < STEPS_FREE + QUEUES_PER_MS * (uint32_t)e->tx_slots;
}

void sack_walked(struct tcp_stack *s, struct tcb_ext *e, uint32_t *steps, uint32_t count)
{
    uint32_t now_ms = stack_now_ms(s->now_us);

    if (e->steps_ms != now_ms)
        e->sack_steps = e->rack_steps = 0;
    e->steps_ms = now_ms;
    *steps += count;
    s->counters.queue_steps += count;
}

/* So a queue is walked for what is new, from the slot that was marked last if that lies before it. */
static uint32_t mark_block(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in,
                           const struct tcp_sack_block *block)
{
    uint32_t news = news_of(e, block);
    bool hinted =
        e->sack_hint != TCP_NO_SLOT && seq_geq(e->sack_hint_seq, t->snd_una) && seq_lt(e->sack_hint_seq, news);
    uint32_t marked = 0, steps = 0;

    if (news == block->end)
        return 0;
    for (uint32_t slot = hinted ? e->sack_hint : e->tx_first; slot != e->tx_unsent; slot = s->tx[slot].next, steps++) {
        struct tx_slot *m = &s->tx[slot];

        if (seq_geq(m->seq, block->end))
            break;
        if ((m->flags & TX_SACKED) || seq_lt(m->seq, block->begin) || seq_gt(m->seq + m->len, block->end))
            continue;
        rack_delivered(t, e, m, in);
        if (e->rated)
            rate_delivered(s, e, slot, in->now_us);
        if (m->flags & TX_LOST)
            e->lost_bytes -= m->len;
        m->flags = (uint8_t)((m->flags & ~TX_LOST) | TX_SACKED);
        e->sacked_bytes += m->len;
        e->sack_hint = slot;
        e->sack_hint_seq = m->seq;
        marked += m->len;
    }
    sack_walked(s, e, &e->sack_steps, steps);
    return marked;
}

uint32_t sack_mark(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in)
{
    const struct tcp_options *options = &in->seg.options;
    struct tcp_sack_block seen[TCP_SACK_BLOCKS_MAX] = {{0}};
    uint32_t marked = 0;

    for (uint32_t i = 0; i < options->sack_count; i++) {
        const struct tcp_sack_block *block = &options->sack[i];

        if (!seq_lt(block->begin, block->end) || !seq_gt(block->begin, t->snd_una) ||
            !seq_leq(block->end, t->snd_nxt) || !seq_lt(block->begin, t->snd_nxt) ||
            !sack_may_walk(s, e, e->sack_steps))
            continue;
        marked += mark_block(s, t, e, in, block);
        seen[i] = *block;
    }
    memcpy(e->sack_seen, seen, sizeof seen);
    return marked;
}

void sack_lose(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot)
{
    sack_repeat(s, e, slot);
    if (e->rated)
        rate_lost(s, t, e, slot);
}

void sack_repeat(struct tcp_stack *s, struct tcb_ext *e, uint32_t slot)
{
    struct tx_slot *m = &s->tx[slot];

    m->flags |= TX_LOST;
    e->lost_bytes += m->len;
    if (e->tx_lost == TCP_NO_SLOT || seq_lt(m->seq, s->tx[e->tx_lost].seq))
        e->tx_lost = slot;
}

void sack_lose_all(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    bool reneged = e->tx_first != e->tx_unsent && (s->tx[e->tx_first].flags & TX_SACKED);

    if (reneged)
        memset(e->sack_seen, 0, sizeof e->sack_seen);
    for (uint32_t slot = e->tx_first; slot != e->tx_unsent; slot = s->tx[slot].next) {
        struct tx_slot *m = &s->tx[slot];

        if ((m->flags & TX_SACKED) && reneged) {
            m->flags &= (uint8_t)~TX_SACKED;
            e->sacked_bytes -= m->len;
        }
        if (!(m->flags & (TX_SACKED | TX_LOST)))
            sack_lose(s, t, e, slot);
    }
}

uint32_t sack_next_lost(const struct tcp_stack *s, struct tcb_ext *e)
{
    if (e->lost_bytes == 0)
        return TCP_NO_SLOT;
    while (e->tx_lost != TCP_NO_SLOT && !(s->tx[e->tx_lost].flags & TX_LOST))
        e->tx_lost = s->tx[e->tx_lost].next;
    return e->tx_lost;
}

void sack_note_duplicate(struct tcp_stack *s, struct tcb *t, uint32_t begin, uint32_t end)
{
    bool never_held = seq_lt(begin, t->rcv_nxt) && t->rcv_nxt - begin > s->config.rcv_buf_max_bytes;
    struct tcb_ext *e = (t->flags & TCB_SACK) && !never_held ? tcb_borrow_ext(s, t) : NULL;

    if (e == NULL)
        return;
    e->dsack_begin = begin;
    e->dsack_end = end;
}

bool sack_is_duplicate(const struct tcp_segment *seg)
{
    const struct tcp_sack_block *first = &seg->options.sack[0], *second = &seg->options.sack[1];

    if (!(seg->options.present & TCP_OPTION_SACK) || !seq_lt(first->begin, first->end))
        return false;
    if (seq_leq(first->end, seg->ack))
        return true;
    return seg->options.sack_count > 1 && seq_leq(second->begin, first->begin) && seq_leq(first->end, second->end);
}

void sack_report(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e, struct tcp_options *options,
                 uint32_t max)
{
    struct reasm_block blocks[TCP_SACK_BLOCKS_MAX];
    uint32_t count = 0, held;

    if (!(t->flags & TCB_SACK) || e == NULL || (reasm_is_empty(&e->reasm) && e->dsack_begin == e->dsack_end))
        return;
    if (e->dsack_begin != e->dsack_end)
        options->sack[count++] = (struct tcp_sack_block){e->dsack_begin, e->dsack_end};
    held = reasm_is_empty(&e->reasm) ? 0 : reasm_sack_blocks(&e->reasm, s->rx, blocks, max - count);
    for (uint32_t i = 0; i < held; i++)
        options->sack[count++] = (struct tcp_sack_block){t->rcv_nxt + blocks[i].begin, t->rcv_nxt + blocks[i].end};
    options->sack_count = (uint8_t)count;
    options->present |= TCP_OPTION_SACK;
}
