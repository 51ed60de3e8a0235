/*
 * validation.c: congestion window validation.
 */
#include "tcp/validation.h"

#include "tcp/seq.h"

enum {
    NON_VALIDATED_S = 300,  /* RFC 7661 4.4.2 */
    SAMPLING_MIN_MS = 1000, /* RFC 7661 4.2: pipeACK is the maximum of max(3 RTT, 1 s) */
};

static void sample(struct tcb *t, struct tcb_ext *e, uint64_t now_us)
{
    uint32_t now_ms = stack_now_ms(now_us), period_ms = 3 * rtt_srtt_us(&t->rtt) / 1000;

    period_ms = period_ms > SAMPLING_MIN_MS ? period_ms : SAMPLING_MIN_MS;
    if (e->round_bytes >= e->pipe_ack || now_ms - e->pipe_ack_ms > period_ms) {
        e->pipe_ack = e->round_bytes;
        e->pipe_ack_ms = now_ms;
    }
}

bool validation_on_ack(struct tcb *t, struct tcb_ext *e, uint32_t bytes, uint32_t flight, uint64_t now_us)
{
    e->round_bytes += bytes;
    if (!seq_gt(t->snd_una, e->round_end))
        return false;
    if (e->round_begun)
        sample(t, e, now_us);
    e->round_begun = true;
    e->round_end = t->snd_nxt;
    e->round_bytes = 0;
    if (flight >= t->cc.cwnd / 2 || e->pipe_ack >= t->cc.cwnd / 2)
        t->validated_s = validation_seconds(now_us);
    else
        validation_decay(t, now_us);
    return true;
}

void validation_decay(struct tcb *t, uint64_t now_us)
{
    uint16_t since_s = (uint16_t)(validation_seconds(now_us) - t->validated_s);
    uint32_t initial;

    if (since_s < NON_VALIDATED_S || (t->flags & TCB_QUICK_ACK))
        return;
    initial = cc_initial_window(t->smss);
    for (; since_s >= NON_VALIDATED_S && t->cc.cwnd > initial; since_s = (uint16_t)(since_s - NON_VALIDATED_S)) {
        uint32_t kept = t->cc.cwnd / 4 * 3;

        t->cc.ssthresh = t->cc.ssthresh > kept ? t->cc.ssthresh : kept;
        t->cc.cwnd = t->cc.cwnd / 2 > initial ? t->cc.cwnd / 2 : initial;
    }
    t->validated_s = validation_seconds(now_us);
}

uint32_t validation_flight(const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t flight = t->snd_nxt - t->snd_una;

    if (e->pipe_ack >= t->cc.cwnd / 2) /* validated */
        return flight;
    return flight > e->pipe_ack ? flight : e->pipe_ack;
}
