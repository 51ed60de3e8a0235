/*
 * timers.h: what happens when time has come.
 *
 * A connection has up to four deadlines and one wheel node, which stands at the earliest of them or before it: a deadline that moves
 * back, as that of retransmission does with every ACK, leaves the node where it is, and who fires too early is put at its place
 * then.  Compact blocks wait in queues that are sorted because all in a queue wait equally long.
 */
#ifndef TCP_TIMERS_H
#define TCP_TIMERS_H

#include "tcp/settings.h"
#include "tcp/stack.h"

/* Puts t's wheel node where its deadlines say; after anything that may have changed them.  Of who waits for tcp_output() it is done
 * there, so that a timer that is stopped and started between an input and its answer does not touch the wheel. */
void timers_set_node(struct tcp_stack *s, struct tcb *t);
static inline void timers_update(struct tcp_stack *s, struct tcb *t)
{
    bool idle = t->ext == TCB_NO_EXT && (t->idle_deadline | t->timer.prev) == 0;

    if (!(t->flags & TCB_IN_OUTPUT) && !idle)
        timers_set_node(s, t);
}

/* (Re)starts the retransmission timer with the current RTO and backoff (RFC 6298 5). */
void timers_start_rtx(const struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* The peer was heard: its silence is over. */
static inline void timers_heard(const struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    /* A peer that only ever says "window zero" must not keep what nobody owns any more. */
    if (!(t->flags & TCB_ORPHAN) || t->snd_wnd != 0)
        t->unanswered = 0;
    if (t->idle_deadline != 0 && !(t->flags & TCB_ORPHAN))
        t->idle_deadline = stack_deadline(now_us, settings_of(s, t)->keepalive_ms * UINT64_C(1000));
}

/* The window is closed or cuts a segment short.  True: t was reset, since for long it has taken next to nothing, and others need the
 * slots that it holds. */
bool timers_end_slow(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* The earliest deadline of t, 0: none. */
uint32_t timers_earliest(const struct tcp_stack *s, const struct tcb *t);

#endif
