/*
 * timers.c: deadlines onto the wheel, and from there to what is owed.
 */
#include "tcp/timers.h"

#include "tcp/listen.h"
#include "tcp/output.h"
#include "tcp/rack.h"
#include "tcp/rate.h"
#include "tcp/recovery.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/state.h"
#include "tcp/timewait.h"

#include <errno.h>

static inline uint32_t earlier(uint32_t a, uint32_t b)
{
    if (b == 0)
        return a;
    return a == 0 || seq_lt(b, a) ? b : a;
}

static inline uint32_t earliest(const struct tcp_stack *s, const struct tcb *t)
{
    const struct tcb_ext *e = stack_ext(s, t);
    uint32_t deadline = t->idle_deadline;

    if (e == NULL)
        return deadline;
    deadline = earlier(earlier(earlier(deadline, e->rtx_deadline), e->ack_deadline), e->rack_deadline);
    return t->flags & TCB_PACED ? earlier(deadline, e->pace_deadline) : deadline;
}

uint32_t timers_earliest(const struct tcp_stack *s, const struct tcb *t)
{
    return earliest(s, t);
}

void timers_set_node(struct tcp_stack *s, struct tcb *t)
{
    uint32_t deadline = earliest(s, t);

    if (deadline == 0)
        wheel_cancel(&s->wheel, stack_index(s, t));
    else if (t->timer.prev == 0 || seq_lt(deadline, t->timer.deadline_tick))
        wheel_schedule(&s->wheel, stack_index(s, t), deadline);
}

void timers_start_rtx(const struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    e->rtx_deadline = stack_deadline(now_us, rtt_rto_us(&t->rtt, t->backoff));
}

/* R2 of RFC 9293 3.8.3: by the user timeout where one is set, else by the number of transmissions. */
static bool gives_up(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e, uint64_t now_us)
{
    uint32_t user_timeout_ms = t->flags & TCB_ORPHAN ? 0 : settings_user_timeout_ms(s, t);

    if (user_timeout_ms != 0 && (t->snd_wnd != 0 || settings_of(s, t)->user_timeout_ms != 0))
        return stack_now_ms(now_us) - e->stalled_since_ms >= user_timeout_ms;
    if (!state_is_synchronized(t->state))
        return t->backoff >= BACKOFF_MAX_SYN;
    if (t->flags & TCB_ORPHAN)
        return t->backoff >= BACKOFF_MAX_ORPHAN || t->unanswered >= BACKOFF_MAX_ORPHAN;
    /* A peer that answers with a closed window may take any time (RFC 9293 3.8.6.1). */
    return t->snd_wnd == 0 ? t->unanswered >= BACKOFF_MAX : t->backoff >= BACKOFF_MAX;
}

/* Does a peer that does not read keep slots from others: a pool is short, others have data too, and this connection holds half
 * of its equal share or more?  (THREATS: zero-window peers.) */
static bool holds_others_up(const struct tcp_stack *s, const struct tcb_ext *e)
{
    uint64_t others = 2ull * s->ext.used;

    if (s->ext.used < 2)
        return false;
    if (s->env.tx_available(s->env.context) <= s->tx_reserve + s->config.tx_slots / 16 &&
        e->tx_slots * others >= s->config.tx_slots)
        return true;
    return s->rx_held >= s->rx_budget - s->rx_budget / 8 && (e->rx_slots + e->reasm.segments) * others >= s->rx_budget;
}

/* Progress by time, not by segments: a reader may be slow, as long as it reads. */
static bool is_slow(const struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    uint32_t now_ms = stack_now_ms(now_us), passed_ms = now_ms - e->slow_since_ms;

    if (e->slow_since_ms != 0 && passed_ms < SLOW_MS)
        return false;
    if (e->slow_since_ms != 0 && passed_ms < 4 * SLOW_MS &&
        (uint64_t)(t->snd_una - e->slow_una) * SLOW_MS < (uint64_t)passed_ms * SLOW_BYTES_MIN)
        return true;
    e->slow_since_ms = now_ms != 0 ? now_ms : 1;
    e->slow_una = t->snd_una;
    return false;
}

static bool end_if_holding(struct tcp_stack *s, struct tcb *t, const struct tcb_ext *e)
{
    if (!holds_others_up(s, e))
        return false;
    s->counters.persist_resets++;
    tcb_reset(s, t, ENOBUFS);
    return true;
}

bool timers_end_slow(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    return is_slow(t, e, now_us) && end_if_holding(s, t, e);
}

/* Nothing fits the window: it is closed, or was taken back from under what was sent. */
static bool is_closed(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    return t->snd_una == t->snd_nxt || (e->tx_first != TCP_NO_SLOT && s->tx[e->tx_first].len > t->snd_wnd);
}

/* A closed window may last as long as it likes, but not at others' cost: the peer says again and again that it is closed.  One that is
 * not heard may have opened it: it has the time of a slow one.  That an orphan's is heard is not noted while its window is closed. */
static bool end_closed(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    bool stays = t->backoff > PERSIST_PATIENCE && (t->unanswered <= 1 || (t->flags & TCB_ORPHAN));

    return (stays && end_if_holding(s, t, e)) || timers_end_slow(s, t, e, now_us);
}

/* The timer fires when the user timeout ends. */
static void heed_user_timeout(const struct tcp_stack *s, const struct tcb *t, struct tcb_ext *e)
{
    uint32_t user_timeout_ms = t->flags & TCB_ORPHAN ? 0 : settings_user_timeout_ms(s, t);
    uint32_t end = e->stalled_since_ms + user_timeout_ms;

    if (user_timeout_ms != 0 && seq_lt(end, e->rtx_deadline))
        e->rtx_deadline = end + (end == 0);
}

static void fire_rtx(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    e->rtx_deadline = 0;
    if (t->backoff == 0)
        e->resent = 0;
    if (t->backoff == 0 || e->stalled_since_ms == 0) /* the timer has run since the last progress */
        e->stalled_since_ms = stack_now_ms(now_us) - rtt_rto_us(&t->rtt, t->backoff) / 1000;
    if (gives_up(s, t, e, now_us)) {
        s->counters.connections_timed_out++;
        tcb_end(s, t, t->flags & TCB_UNREACHABLE ? EHOSTUNREACH : ETIMEDOUT);
        return;
    }
    if (t->unanswered == 0 && state_is_synchronized(t->state))
        t->flags &= ~(uint32_t)TCB_UNREACHABLE; /* the peer was heard since */
    if (t->backoff < BACKOFF_MAX)
        t->backoff++;
    if (t->unanswered < BACKOFF_MAX)
        t->unanswered++;
    if (t->snd_una != t->snd_nxt && e->resent < UINT8_MAX && ++e->resent == BACKOFF_R1) {
        s->counters.stalls++;
        tcb_event(s, t, TCP_EVENT_STALLED);
    }
    if (!state_is_synchronized(t->state)) {
        s->counters.retransmission_timeouts++;
        t->flags |= TCB_SYN_LOST;
        tcb_owe(s, t, OWE_SYN);
    } else if (is_closed(s, t, e) && end_closed(s, t, e, now_us)) {
        return;
    } else if (t->snd_una != t->snd_nxt) {
        s->counters.retransmission_timeouts++;
        recovery_on_rto(s, t, e, now_us);
        tcb_owe(s, t, OWE_DATA);
    } else {
        tcb_owe(s, t, OWE_PROBE);
    }
    timers_start_rtx(t, e, now_us);
    heed_user_timeout(s, t, e);
}

static void fire_idle(struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    const struct tcp_settings *settings = settings_of(s, t);

    t->idle_deadline = 0;
    if (t->flags & TCB_ORPHAN) {
        if (t->state == TCP_STATE_FIN_WAIT_2)
            tcb_end(s, t, ETIMEDOUT);
        return;
    }
    if (settings->keepalive_ms == 0)
        return;
    if (!state_is_synchronized(t->state)) {
        t->idle_deadline = stack_deadline(now_us, settings->keepalive_ms * UINT64_C(1000));
        return;
    }
    if (t->unanswered >= settings->keepalive_probes) {
        s->counters.connections_timed_out++;
        tcb_end(s, t, ETIMEDOUT);
        return;
    }
    if (t->snd_una == t->snd_nxt) { /* else retransmission finds out */
        t->unanswered++;
        tcb_owe(s, t, OWE_KEEPALIVE);
    }
    t->idle_deadline = stack_deadline(now_us, settings->keepalive_interval_ms * UINT64_C(1000));
}

static void fire(struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    struct tcb_ext *e = stack_ext(s, t);

    if (e != NULL && e->rated)
        rate_check_limited(t, e);
    if (e != NULL && stack_is_due(e->ack_deadline, now_us)) {
        e->ack_deadline = 0;
        tcb_owe(s, t, OWE_ACK);
    }
    if (e != NULL && (t->flags & TCB_PACED) && stack_is_due(e->pace_deadline, now_us)) {
        t->flags &= ~(uint32_t)TCB_PACED;
        tcb_owe(s, t, OWE_DATA);
    }
    if (e != NULL && stack_is_due(e->rack_deadline, now_us))
        rack_fire(s, t, e, now_us); /* before the other one, which a probe restarts */
    if (e != NULL && stack_is_due(e->rtx_deadline, now_us))
        fire_rtx(s, t, e, now_us);
    if (state_is_open(t->state) && stack_is_due(t->idle_deadline, now_us))
        fire_idle(s, t, now_us);
    if (state_is_open(t->state)) {
        tcb_return_ext(s, t);
        timers_set_node(s, t);
    }
}

void tcp_advance(struct tcp_stack *s, uint64_t now_us)
{
    uint32_t index;

    s->now_us = now_us;
    while ((index = wheel_pop(&s->wheel, stack_now_ms(now_us))) != WHEEL_NONE)
        fire(s, stack_tcb(s, index), now_us);
    s->advanced_us = now_us;
    half_open_advance(s, now_us);
    time_wait_advance(s, now_us);
}

/* deadline in ms, at most 2^31 away from reference_us, on the full scale. */
static uint64_t widen(uint32_t deadline, uint64_t reference_us)
{
    uint64_t reference_ms = reference_us / 1000;

    return (reference_ms + (uint64_t)(int64_t)(int32_t)(deadline - (uint32_t)reference_ms)) * 1000;
}

uint64_t tcp_next_deadline(const struct tcp_stack *s)
{
    uint64_t earliest = output_deadline(s);
    uint32_t tick;

    if (wheel_next_tick(&s->wheel, &tick)) {
        uint64_t at = widen(tick, s->advanced_us);

        earliest = at < earliest ? at : earliest;
    }
    for (uint32_t i = 0; i <= HALF_OPEN_RETRIES; i++) {
        const struct block_queue *queue = &s->half_open_queue[i];
        uint64_t at;

        if (queue->first == BLOCK_NONE)
            continue;
        at = widen(((struct half_open *)slab_at(&s->half_open, queue->first))->deadline, s->advanced_us);
        earliest = at < earliest ? at : earliest;
    }
    if (s->time_wait_queue.first != BLOCK_NONE) {
        const struct time_wait *w = slab_at(&s->time_wait, s->time_wait_queue.first);
        uint64_t at = widen(w->deadline, s->advanced_us);

        earliest = at < earliest ? at : earliest;
    }
    return earliest;
}
