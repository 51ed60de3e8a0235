/*
 * check.c: all that is true of a stack between two calls, in one place.
 */
#undef NDEBUG /* tcp_check() must hold in every build; nothing on the fast path asserts */
#include "tcp/flows.h"
#include "tcp/listen.h"
#include "tcp/seq.h"
#include "tcp/stack.h"
#include "tcp/state.h"
#include "tcp/timers.h"
#include "tcp/timewait.h"

#include <assert.h>

/* What is counted twice: by walking, and by the stack as it went. */
struct tally {
    uint32_t settings[SETTINGS_MAX];
    uint32_t conns, zombies, in_table, ext, rx, tx, in_output, in_events;
};

static void check_tx(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e, struct tally *tally)
{
    uint32_t slots = 0, sacked = 0, lost = 0, last = TCP_NO_SLOT;
    uint32_t seq = t->snd_una;
    bool unsent = false;

    for (uint32_t slot = e->tx_first; slot != TCP_NO_SLOT; slot = s->tx[slot].next) {
        const struct tx_slot *m = &s->tx[slot];

        assert(slot < s->config.tx_slots && slots < s->config.tx_slots);
        unsent = unsent || slot == e->tx_unsent;
        assert(m->seq == seq && m->len != 0);
        assert(m->offset >= TCP_SLOT_HEADROOM && m->offset + m->len <= TCP_SLOT_BYTES);
        assert(((m->flags & TX_SENT) != 0) == !unsent);
        assert((m->flags & (TX_SACKED | TX_LOST)) != (TX_SACKED | TX_LOST));
        assert(!(m->flags & TX_LOST) || (e->tx_lost != TCP_NO_SLOT && seq_leq(s->tx[e->tx_lost].seq, m->seq)));
        sacked += m->flags & TX_SACKED ? m->len : 0;
        lost += m->flags & TX_LOST ? m->len : 0;
        if (slot == e->tx_unsent)
            assert(m->seq == t->snd_nxt);
        seq += m->len;
        last = slot;
        slots++;
    }
    assert(unsent || e->tx_unsent == TCP_NO_SLOT);
    assert(last == e->tx_last && slots == e->tx_slots);
    assert(sacked == e->sacked_bytes && lost == e->lost_bytes);
    assert(e->tx_first == TCP_NO_SLOT || seq == e->tx_end);
    assert(!e->snd_urgent || seq_leq(e->snd_up, e->tx_end));
    if (state_is_synchronized(t->state) && e->tx_unsent == TCP_NO_SLOT && e->tx_first != TCP_NO_SLOT)
        assert(t->snd_nxt == e->tx_end + !!(t->flags & TCB_FIN_SENT));
    assert(!(t->flags & TCB_FIN_SENT) || e->tx_unsent == TCP_NO_SLOT);
    tally->tx += slots;
}

static void check_rx(const struct tcp_stack *s, const struct tcb_ext *e, struct tally *tally)
{
    uint32_t slots = 0, bytes = 0, last = TCP_NO_SLOT;

    for (uint32_t slot = e->rx_first; slot != TCP_NO_SLOT; slot = s->rx[slot].next) {
        const struct reasm_slot *m = &s->rx[slot];

        assert(slot < s->config.rx_slots && slots < s->config.rx_slots);
        assert(m->len != 0 && m->data + m->len <= TCP_SLOT_BYTES);
        bytes += m->len;
        last = slot;
        slots++;
    }
    assert(last == e->rx_last && slots == e->rx_slots && bytes == e->rx_bytes);
    reasm_check(&e->reasm, s->rx);
    tally->rx += slots + e->reasm.segments;
}

static void check_state(const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t flight = t->snd_nxt - t->snd_una;
    bool open = state_is_open(t->state);

    assert(t->state != TCP_STATE_LISTEN && t->state <= TCP_STATE_TIME_WAIT);
    assert(flight < 1u << 31);
    assert(((t->flags & TCB_IN_TABLE) != 0) == open);
    assert(!open || t->error == 0);
    assert(open || t->timer.prev == 0);
    assert(!(t->flags & TCB_ORPHAN) || open || (t->owe & OWE_RST));
    assert(t->owe == 0 || (t->flags & TCB_IN_OUTPUT));
    if (t->state == TCP_STATE_SYN_SENT || t->state == TCP_STATE_SYN_RECEIVED)
        assert(flight == 1 && e != NULL);
    if (open)
        assert(flight == 0 || (e != NULL && (e->rtx_deadline != 0 || (t->owe & OWE_SYN))));
    if (open && state_is_synchronized(t->state))
        assert(seq_leq(t->rcv_nxt, t->rcv_adv) && t->smss >= SMSS_MIN - 12 && t->cc.cwnd >= t->smss);
    if (state_can_send(t->state))
        assert(!(t->flags & TCB_FIN_QUEUED));
    if (t->state >= TCP_STATE_FIN_WAIT_1 && open && t->state != TCP_STATE_CLOSE_WAIT)
        assert(t->flags & TCB_FIN_QUEUED);
    if (open && state_is_synchronized(t->state))
        assert(((t->flags & TCB_FIN_RECEIVED) != 0) == !state_can_receive(t->state));
}

static void check_tcb(const struct tcp_stack *s, const struct tcb *t, struct tally *tally)
{
    const struct tcb_ext *e = stack_ext(s, t);
    uint32_t index = stack_index(s, t);

    tally->in_output += (t->flags & TCB_IN_OUTPUT) != 0;
    tally->in_events += (t->flags & TCB_IN_EVENTS) != 0;
    if (t->state == TCP_STATE_FREE) {
        tally->zombies += (t->flags & TCB_ZOMBIE) && (t->flags & (TCB_IN_OUTPUT | TCB_IN_EVENTS));
        return;
    }
    assert(!(t->flags & TCB_ZOMBIE));
    tally->conns++;
    tally->settings[t->settings]++;
    tally->in_table += (t->flags & TCB_IN_TABLE) != 0;
    tally->ext += e != NULL;
    check_state(t, e);
    if (e != NULL) {
        assert(t->ext % EXT_LINES == 0 && stack_ext_index(t) < s->ext.fresh);
        check_tx(s, t, e, tally);
        check_rx(s, e, tally);
    }
    if (!state_is_open(t->state))
        assert(s->flows[HANDLE_TCB][index] == 0);
    if (state_is_open(t->state)) {
        uint32_t deadline = timers_earliest(s, t);
        uint32_t hash = tcb_table_hash(s, t);
        struct flow flow;
        struct table_cursor cursor;
        uint32_t handle = table_first(&s->table, hash, &cursor);

        tcb_flow(s, t, &flow);
        assert(s->flows[HANDLE_TCB][index] == flows_hash(s, &flow));
        if (!(t->flags & TCB_IN_OUTPUT)) { /* else when its turn comes */
            assert(wheel_is_scheduled(&s->wheel, index) == (deadline != 0));
            assert(deadline == 0 || seq_leq(t->timer.deadline_tick, deadline) || seq_leq(deadline, s->wheel.now_tick));
        }
        while (handle != handle_make(HANDLE_TCB, index)) {
            assert(handle != TABLE_NONE);
            handle = table_next(&s->table, &cursor);
        }
    }
}

static uint32_t list_len(const struct tcp_stack *s, const struct tcb_list *list, uint32_t flag)
{
    uint32_t len = 0, last = TCP_NO_CONN;
    bool events = flag == TCB_IN_EVENTS;

    for (uint32_t i = list->first; i != TCP_NO_CONN;) {
        const struct tcb *t = stack_tcb(s, i);

        assert((t->flags & flag) && len < s->rows.capacity);
        last = i;
        len++;
        i = events ? t->event_next : t->output_next;
    }
    assert(last == TCP_NO_CONN || last == list->last);
    return len;
}

static void check_blocks(const struct tcp_stack *s, struct tally *tally)
{
    uint32_t count = 0;
    struct flow flow;

    for (uint32_t i = 0; i <= HALF_OPEN_RETRIES; i++) {
        uint32_t prev = BLOCK_NONE;

        for (uint32_t b = s->half_open_queue[i].first; b != BLOCK_NONE; count++) {
            const struct half_open *h = slab_at(&s->half_open, b);

            assert(h->prev == prev && h->retries == i && s->listeners[h->listener].port == h->lport);
            half_open_flow(s, h, &flow);
            assert(s->flows[HANDLE_HALF_OPEN][b] == flows_hash(s, &flow));
            prev = b;
            b = h->next;
        }
        assert(s->half_open_queue[i].last == prev);
    }
    assert(count == s->half_open.used);
    count = 0;
    for (uint32_t b = s->time_wait_queue.first, prev = BLOCK_NONE; b != BLOCK_NONE; count++) {
        const struct time_wait *w = slab_at(&s->time_wait, b);

        assert(w->prev == prev);
        time_wait_flow(s, w, &flow);
        assert(s->flows[HANDLE_TIME_WAIT][b] == flows_hash(s, &flow));
        tally->settings[w->settings]++;
        prev = b;
        b = w->next;
    }
    assert(count == s->time_wait.used);
}

void tcp_check(const struct tcp_stack *s)
{
    struct tally tally = {0};

    slab_check(&s->rows);
    slab_check(&s->ext);
    slab_check(&s->half_open);
    slab_check(&s->time_wait);
    for (uint32_t i = slab_next(&s->rows, 0); i != SLAB_NONE; i = slab_next(&s->rows, i + 1))
        check_tcb(s, stack_tcb(s, i), &tally);
    assert(tally.conns == s->conns && tally.conns + tally.zombies == s->rows.used);
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++)
        tally.settings[s->listeners[i].settings] += s->listeners[i].port != 0;
    check_blocks(s, &tally);
    for (uint32_t i = 0; i < SETTINGS_MAX; i++)
        assert(s->settings[i].users == tally.settings[i] + (i == 0));
    assert(tally.ext == s->ext.used);
    assert(tally.rx + s->rx_lent == s->rx_held && tally.tx == s->tx_held);
    assert(tally.in_output == list_len(s, &s->output, TCB_IN_OUTPUT) + list_len(s, &s->blocked, TCB_IN_OUTPUT));
    assert(tally.in_events == list_len(s, &s->events, TCB_IN_EVENTS));
    assert(s->reply_count <= REPLIES_MAX);
    assert(s->table.count == tally.in_table + s->half_open.used + s->time_wait.used);
    table_check(&s->table);
    wheel_check(&s->wheel);
}
