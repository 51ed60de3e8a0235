/*
 * rebase.c: the regions of slots and rows were replaced: every held slot gets a new number.
 *
 * Metadata moves to the second array under the new number, since old and new numbers may overlap; the old entry keeps the new number until
 * all links are rewritten.  What could not be moved is lost: out-of-order data may be (RFC 2018 8), the rest ends its
 * connection.
 */
#include "tcp/recovery.h"
#include "tcp/rtxq.h"
#include "tcp/rxq.h"
#include "tcp/seq.h"
#include "tcp/stack.h"
#include "tcp/state.h"
#include "tcp/timers.h"

#include <errno.h>

typedef uint32_t move_function(void *context, uint32_t slot);

struct move {
    struct tcp_stack *s;
    move_function *tx, *rx;
};

static uint32_t moved_tx(const struct tcp_stack *s, uint32_t slot)
{
    return slot == TCP_NO_SLOT ? TCP_NO_SLOT : s->tx[slot].sent_us;
}

static uint32_t moved_rx(const struct tcp_stack *s, uint32_t slot)
{
    return slot == REASM_NO_SLOT ? REASM_NO_SLOT : s->rx[slot].begin;
}

/* Without its mark: what is in flight went down with the old region. */
static void move_tx_slot(struct tcp_stack *s, uint32_t slot, uint32_t to)
{
    s->tx_other[to] = s->tx[slot];
    s->tx_other[to].flags &= (uint8_t)~TX_MARKED;
}

/* False: something was lost, and what was not is given back. */
static bool move_tx_queue(const struct move *m, struct tcb_ext *e)
{
    struct tcp_stack *s = m->s;
    bool whole = true;

    for (uint32_t slot = e->tx_first; slot != TCP_NO_SLOT; slot = s->tx[slot].next) {
        uint32_t to = m->tx(s->env.context, slot);

        if (to < s->config.tx_slots)
            move_tx_slot(s, slot, to);
        else
            to = TCP_NO_SLOT;
        whole = whole && to != TCP_NO_SLOT;
        s->tx[slot].sent_us = to;
    }
    for (uint32_t slot = e->tx_first; slot != TCP_NO_SLOT; slot = s->tx[slot].next) {
        uint32_t to = moved_tx(s, slot);

        if (!whole && to != TCP_NO_SLOT)
            s->env.tx_free(s->env.context, to);
        else if (whole)
            s->tx_other[to].next = moved_tx(s, s->tx[slot].next);
        s->tx_held -= !whole;
    }
    if (!whole) {
        e->tx_first = e->tx_last = e->tx_unsent = e->tx_lost = e->sack_hint = TCP_NO_SLOT;
        e->tx_slots = 0;
        e->sacked_bytes = e->lost_bytes = 0;
        return false;
    }
    e->tx_first = moved_tx(s, e->tx_first);
    e->tx_last = moved_tx(s, e->tx_last);
    e->tx_unsent = moved_tx(s, e->tx_unsent);
    e->tx_lost = moved_tx(s, e->tx_lost);
    e->sack_hint = TCP_NO_SLOT;
    return true;
}

/* Moves a chain of RX slots' metadata; links follow in link_chain().  False: at least one was lost. */
static bool move_chain(const struct move *m, uint32_t first)
{
    struct tcp_stack *s = m->s;
    bool whole = true;

    for (uint32_t slot = first; slot != REASM_NO_SLOT; slot = s->rx[slot].next) {
        uint32_t to = m->rx(s->env.context, slot);

        if (to < s->config.rx_slots)
            s->rx_other[to] = s->rx[slot];
        else
            to = REASM_NO_SLOT;
        whole = whole && to != REASM_NO_SLOT;
        s->rx[slot].begin = to;
    }
    return whole;
}

static void link_chain(const struct move *m, uint32_t first, bool whole)
{
    struct tcp_stack *s = m->s;

    for (uint32_t slot = first; slot != REASM_NO_SLOT; slot = s->rx[slot].next) {
        uint32_t to = moved_rx(s, slot);

        if (whole)
            s->rx_other[to].next = moved_rx(s, s->rx[slot].next);
        else if (to != REASM_NO_SLOT)
            s->env.rx_release(s->env.context, to);
        s->rx_held -= !whole;
    }
}

static bool move_rx_queue(const struct move *m, struct tcb_ext *e)
{
    bool whole = move_chain(m, e->rx_first);

    link_chain(m, e->rx_first, whole);
    if (whole) {
        e->rx_first = moved_rx(m->s, e->rx_first);
        e->rx_last = moved_rx(m->s, e->rx_last);
        return true;
    }
    e->rx_first = e->rx_last = TCP_NO_SLOT;
    e->rx_slots = 0;
    e->rx_bytes = 0;
    return false;
}

static void move_out_of_order(const struct move *m, struct reasm *r)
{
    struct tcp_stack *s = m->s;
    uint32_t position = r->position;
    bool whole = true;

    for (uint32_t range = r->first; range != REASM_NO_SLOT; range = s->rx[range].next_range)
        whole &= move_chain(m, range);
    for (uint32_t range = r->first; range != REASM_NO_SLOT; range = s->rx[range].next_range) {
        link_chain(m, range, whole);
        if (whole) {
            struct reasm_slot *head = &s->rx_other[moved_rx(s, range)];

            head->last = moved_rx(s, s->rx[range].last);
            head->next_range = moved_rx(s, s->rx[range].next_range);
        }
    }
    if (whole) {
        r->first = moved_rx(s, r->first);
    } else {
        reasm_init(r);
        r->position = position;
    }
}

/* Everything in flight went down with the old region; the deadlines of many connections are spread by their index. */
static void make_due(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us, uint32_t spread_us)
{
    uint32_t hashed = stack_index(s, t) * 2654435761u;

    e->rack_deadline = 0;
    if (t->snd_una != t->snd_nxt)
        e->rtx_deadline = stack_deadline(now_us, ((uint64_t)hashed * spread_us) >> 32);
}

void tcp_rebase(struct tcp_stack *s, const struct tcp_env *env, void *rows, move_function *move_tx,
                move_function *move_rx, uint64_t now_us, uint32_t spread_us)
{
    struct move m = {.s = s, .tx = move_tx, .rx = move_rx};
    struct reasm_slot *rx = s->rx;
    struct tx_slot *tx = s->tx;

    stack_take_env(s, env);
    s->now_us = now_us;
    slab_move(&s->rows, rows);
    wheel_rebase(&s->wheel, rows);
    for (uint32_t i = slab_next(&s->rows, 0); i != SLAB_NONE; i = slab_next(&s->rows, i + 1)) {
        struct tcb *t = stack_tcb(s, i);
        struct tcb_ext *e = t->state != TCP_STATE_FREE ? stack_ext(s, t) : NULL;
        bool whole;

        if (e == NULL)
            continue;
        whole = move_tx_queue(&m, e);
        whole &= move_rx_queue(&m, e);
        move_out_of_order(&m, &e->reasm);
        if (!whole)
            t->error = ENOBUFS; /* ended below, when all numbers are new */
    }
    s->tx = s->tx_other;
    s->tx_other = tx;
    s->rx = s->rx_other;
    s->rx_other = rx;
    for (uint32_t i = slab_next(&s->rows, 0); i != SLAB_NONE; i = slab_next(&s->rows, i + 1)) {
        struct tcb *t = stack_tcb(s, i);
        struct tcb_ext *e = t->state != TCP_STATE_FREE ? stack_ext(s, t) : NULL;

        if (e == NULL)
            continue;
        if (t->error == ENOBUFS && state_is_open(t->state)) {
            tcb_reset(s, t, ENOBUFS);
            continue;
        }
        make_due(s, t, e, now_us, spread_us);
        if (state_is_open(t->state))
            timers_update(s, t);
    }
}
