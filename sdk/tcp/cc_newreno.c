/*
 * cc_newreno.c: NewReno (RFC 5681, 6582) with appropriate byte counting (RFC 3465, L = 2), and what all congestion
 * controls have in common: the initial window.
 */
#include "tcp/cc.h"

#include "tcp/cc_common.h"
#include "tcp/tcp.h"

uint32_t cc_initial_window(uint32_t smss)
{
    uint32_t floor = 2 * smss > 14600 ? 2 * smss : 14600;

    return 10 * smss < floor ? 10 * smss : floor;
}

void cc_window_init(struct cc_window *window, uint32_t smss, bool syn_lost)
{
    window->cwnd = syn_lost ? smss : cc_initial_window(smss);
    window->ssthresh = CC_SSTHRESH_NONE;
}

const struct tcp_cc_ops *cc_ops(uint8_t cc)
{
    switch (cc) {
    case TCP_CC_CUBIC:
        return &cc_cubic;
    case TCP_CC_NEWRENO:
        return &cc_newreno;
    case TCP_CC_DCTCP:
        return &cc_dctcp;
    case TCP_CC_BBR:
        return &cc_bbr;
    default:
        return 0;
    }
}

void cc_grow(struct cc_window *window, uint32_t bytes)
{
    window->cwnd = window->cwnd < CC_CWND_MAX - bytes ? window->cwnd + bytes : CC_CWND_MAX;
}

/* What slow start leaves over is for congestion avoidance. */
uint32_t cc_slow_start(struct cc_window *window, const struct cc_ack *ack)
{
    uint32_t room = window->ssthresh - window->cwnd;
    uint32_t bytes = ack->acked_bytes;

    if (bytes <= room) {
        cc_grow(window, bytes);
        return 0;
    }
    cc_grow(window, room);
    return bytes - room;
}

void cc_remember(const struct cc_window *window, struct cc_state *state)
{
    state->undo_cwnd = window->cwnd;
    state->undo_ssthresh = window->ssthresh;
}

void cc_recovery_exit(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss)
{
    uint32_t burst_free = (flight > smss ? flight : smss) + smss;

    state->acked = 0;
    burst_free = burst_free < CC_CWND_MAX ? burst_free : CC_CWND_MAX;
    window->cwnd = window->ssthresh < burst_free ? window->ssthresh : burst_free;
    if (window->cwnd < smss) /* segments have become longer since */
        window->cwnd = smss;
}

void cc_undo(struct cc_window *window, struct cc_state *state)
{
    if (state->undo_cwnd == 0)
        return;
    if (window->cwnd < state->undo_cwnd)
        window->cwnd = state->undo_cwnd;
    window->ssthresh = state->undo_ssthresh;
    state->undo_cwnd = state->undo_ssthresh = 0;
}

void cc_newreno_on_ack(struct cc_window *window, struct cc_state *state, const struct cc_ack *ack)
{
    uint32_t bytes = ack->acked_bytes;

    if (!ack->cwnd_limited)
        return;
    if (cc_in_slow_start(window)) {
        struct cc_ack limited = *ack;

        if (bytes > 2 * ack->smss) /* L of RFC 3465 */
            limited.acked_bytes = 2 * ack->smss;
        bytes = cc_slow_start(window, &limited);
    }
    state->acked += bytes; /* RFC 5681 3.1: one SMSS per cwnd of acknowledged bytes */
    if (!cc_in_slow_start(window) && state->acked >= window->cwnd) {
        state->acked -= window->cwnd;
        if (state->acked > window->cwnd)
            state->acked = window->cwnd;
        cc_grow(window, ack->smss);
    }
}

static uint32_t half_flight(uint32_t flight, uint32_t smss)
{
    return flight / 2 > 2 * smss ? flight / 2 : 2 * smss;
}

void cc_newreno_on_congestion(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss,
                              uint64_t now_us)
{
    (void)now_us;
    cc_remember(window, state);
    window->ssthresh = half_flight(flight, smss);
    window->cwnd = window->ssthresh;
    state->acked = 0;
}

void cc_newreno_on_rto(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, bool first,
                       uint64_t now_us)
{
    (void)now_us;
    if (first) {
        cc_remember(window, state);
        window->ssthresh = half_flight(flight, smss);
    }
    window->cwnd = smss;
    state->acked = 0;
}

const struct tcp_cc_ops cc_newreno = {
    .name = "newreno",
    .on_ack = cc_newreno_on_ack,
    .on_congestion = cc_newreno_on_congestion,
    .on_rto = cc_newreno_on_rto,
    .on_recovery_exit = cc_recovery_exit,
    .on_spurious = cc_undo,
};
