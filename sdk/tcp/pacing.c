/*
 * pacing.c: see pacing.h.
 */
#include "tcp/pacing.h"

#include "tcp/bbr.h"

enum {
    SHORTEST_US = 4000, /* round trip that is paced */
    AHEAD_US = 1000,    /* one tick of the wheel */
};

static uint32_t longest_us(const struct tcb *t, const struct tcb_ext *e)
{
    return e->rated ? BBR_GAP_MAX_US : rtt_srtt_us(&t->rtt);
}

bool pacing_holds(struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    int32_t ahead_us = (int32_t)(e->pace_us - (uint32_t)now_us);

    t->flags &= ~(uint32_t)TCB_PACED;
    /* One segment's share is at most this: what is further ahead is a time from before the wrap, or none. */
    if (ahead_us <= AHEAD_US || (uint32_t)ahead_us > AHEAD_US + longest_us(t, e))
        return false;
    t->flags |= TCB_PACED;
    e->pace_deadline = stack_deadline(now_us, (uint32_t)ahead_us - AHEAD_US);
    return true;
}

static uint64_t share_us(const struct tcb *t, uint32_t len, uint32_t srtt_us)
{
    uint64_t gap_us = (uint64_t)len * srtt_us;

    gap_us = cc_in_slow_start(&t->cc) ? gap_us / 2 / t->cc.cwnd : gap_us * 4 / 5 / t->cc.cwnd;
    return gap_us < srtt_us ? gap_us : srtt_us; /* recovery may have a window of less than a segment's worth */
}

void pacing_sent(const struct tcb *t, struct tcb_ext *e, uint32_t len, uint64_t now_us)
{
    uint32_t srtt_us = rtt_srtt_us(&t->rtt), now = (uint32_t)now_us;
    int32_t ahead_us = (int32_t)(e->pace_us - now);
    uint64_t gap_us;

    if (srtt_us < SHORTEST_US && !e->rated) {
        e->pace_us = now;
        return;
    }
    gap_us = e->rated ? bbr_gap_us(e->cc.bbr, len) : share_us(t, len, srtt_us);
    if (ahead_us <= 0 || (uint32_t)ahead_us > AHEAD_US + longest_us(t, e))
        e->pace_us = now;
    e->pace_us += (uint32_t)gap_us;
}
