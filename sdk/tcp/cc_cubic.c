/*
 * cc_cubic.c: CUBIC (RFC 9438) in integers: bytes for segments, milliseconds for seconds.
 *
 * W(t) = C (t - K)^3 + W_max with C = 0.4 segments/s^3, so in bytes 4 * smss * d^3 / 10^10 for d in ms.  beta_cubic = 0.7, alpha_cubic =
 * 3 (1 - 0.7) / (1 + 0.7) = 9/17.  W_est counts acknowledged bytes and grows by alpha * smss for each cwnd of them.
 */
#include "tcp/cc.h"

#include "tcp/cc_common.h"
#include "tcp/hystart.h"

enum {
    BETA_PERMILLE = 700,
    D_MAX_MS = 1000000, /* beyond, W(t) is beyond any window */
};

/* Largest x with x^3 <= v, by bits from above. */
static uint32_t cube_root(uint64_t v)
{
    uint64_t x = 0;

    for (int bit = 20; bit >= 0; bit--) {
        uint64_t y = x | 1ull << bit;

        if (y * y * y <= v)
            x = y;
    }
    return (uint32_t)x;
}

/* C d^3 in bytes, d in ms from 0 to D_MAX_MS. */
static uint64_t cubic_bytes(uint64_t d_ms, uint32_t smss)
{
    uint64_t cube = d_ms * d_ms * d_ms; /* at most 10^18 */

    return cube / 2500000 * smss / 1000; /* 4 / 10^10, divided first: 4 * 10^11 * smss fits */
}

/* RFC 9438 4.2: a new epoch at the first ACK in congestion avoidance. */
static void begin_epoch(const struct cc_window *window, struct cc_state *state, const struct cc_ack *ack)
{
    state->epoch_start_us = ack->now_us ? ack->now_us : 1;
    state->w_est = window->cwnd;
    state->w_est_acked = 0;
    state->acked = 0;
    if (state->cwnd_prior < window->cwnd)
        state->cwnd_prior = window->cwnd;
    if (state->w_max <= window->cwnd) { /* no loss yet, or above it already: convex from here */
        state->w_max = window->cwnd;
        state->k_ms = 0;
    } else { /* K = cbrt((W_max - cwnd) / C), 10^10 / 4 ms^3 per segment */
        state->k_ms = cube_root((uint64_t)(state->w_max - window->cwnd) * 2500000000u / ack->smss);
    }
}

/* RFC 9438 4.2: W_cubic(t + RTT), between cwnd and 1.5 cwnd. */
static uint32_t target_window(const struct cc_window *window, const struct cc_state *state, const struct cc_ack *ack)
{
    uint64_t t_ms = (ack->now_us - state->epoch_start_us + ack->srtt_us) / 1000;
    uint64_t low = window->cwnd, high = low + low / 2, w;

    if (t_ms >= state->k_ms) {
        uint64_t d = t_ms - state->k_ms;

        w = state->w_max + cubic_bytes(d < D_MAX_MS ? d : D_MAX_MS, ack->smss);
    } else {
        uint64_t below = cubic_bytes(state->k_ms - t_ms, ack->smss);

        w = below < state->w_max ? state->w_max - below : 0;
    }
    return (uint32_t)(w < low ? low : w > high ? high : w);
}

/* RFC 9438 4.3: W_est += alpha * acked / cwnd, in whole steps of 1/17 SMSS. */
static void grow_w_est(const struct cc_window *window, struct cc_state *state, uint32_t bytes, uint32_t smss)
{
    uint32_t alpha17 = state->w_est >= state->cwnd_prior ? 17 : 9;
    uint64_t gain = (uint64_t)bytes * alpha17 * smss + state->w_est_acked;
    uint64_t step = (uint64_t)window->cwnd * 17;
    uint64_t grown = state->w_est + gain / step;

    state->w_est_acked = (uint32_t)(gain % step < UINT32_MAX ? gain % step : UINT32_MAX);
    state->w_est = grown < CC_CWND_MAX ? (uint32_t)grown : CC_CWND_MAX;
}

static void avoid_congestion(struct cc_window *window, struct cc_state *state, const struct cc_ack *ack, uint32_t bytes)
{
    uint32_t target;
    uint64_t gain;

    if (state->epoch_start_us == 0)
        begin_epoch(window, state, ack);
    grow_w_est(window, state, bytes, ack->smss);
    target = target_window(window, state, ack);
    gain = (uint64_t)(target - window->cwnd) * bytes + state->acked; /* (target - cwnd) / cwnd per byte */
    state->acked = (uint32_t)(gain % window->cwnd);
    cc_grow(window, (uint32_t)(gain / window->cwnd));
    if (window->cwnd < state->w_est) /* the Reno-friendly region, RFC 9438 4.3 */
        window->cwnd = state->w_est;
}

static void on_ack(struct cc_window *window, struct cc_state *state, const struct cc_ack *ack)
{
    uint64_t since = ack->now_us - state->last_ack_us;
    uint32_t bytes = ack->acked_bytes;

    state->last_ack_us = ack->now_us;
    if (!ack->cwnd_limited) { /* RFC 9438 4.2.1: time in which cwnd was not tested is no time */
        if (state->epoch_start_us != 0)
            state->epoch_start_us += since;
        return;
    }
    if (cc_in_slow_start(window))
        bytes = hystart_on_ack(window, &state->hystart, ack);
    if (!cc_in_slow_start(window) && bytes > 0)
        avoid_congestion(window, state, ack, bytes);
}

static uint32_t reduced(uint32_t flight, uint32_t smss)
{
    uint32_t beta = (uint32_t)((uint64_t)flight * BETA_PERMILLE / 1000);

    return beta > 2 * smss ? beta : 2 * smss;
}

/* RFC 9438 4.6 and 4.7, fast convergence. */
static void reduce(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss)
{
    cc_remember(window, state);
    state->cwnd_prior = window->cwnd;
    if (window->cwnd < state->w_max)
        state->w_max = (uint32_t)((uint64_t)window->cwnd * (1000 + BETA_PERMILLE) / 2000);
    else
        state->w_max = window->cwnd;
    window->ssthresh = reduced(flight, smss);
    state->epoch_start_us = 0;
    state->acked = 0;
}

static void on_congestion(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss,
                          uint64_t now_us)
{
    (void)now_us;
    reduce(window, state, flight, smss);
    window->cwnd = window->ssthresh;
}

static void on_rto(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, bool first,
                   uint64_t now_us)
{
    (void)now_us;
    if (first)
        reduce(window, state, flight, smss);
    state->epoch_start_us = 0;
    state->acked = 0;
    window->cwnd = smss;
}

/* Congestion avoidance begins anew, with the window that recovery leaves (RFC 9438 4.2). */
static void on_recovery_exit(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss)
{
    cc_recovery_exit(window, state, flight, smss);
    state->epoch_start_us = 0;
    state->acked = 0;
}

const struct tcp_cc_ops cc_cubic = {
    .name = "cubic",
    .on_ack = on_ack,
    .on_congestion = on_congestion,
    .on_rto = on_rto,
    .on_recovery_exit = on_recovery_exit,
    .on_spurious = cc_undo,
};
