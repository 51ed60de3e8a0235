/*
 * cc_dctcp.c: DCTCP (RFC 8257): the window goes down as far as the part of the bytes that came marked, which alpha remembers.
 *
 * Grows and meets loss as NewReno does.  For networks whose switches mark early, and not for the open Internet (RFC 8257 7).
 */
#include "tcp/cc.h"

#include "tcp/cc_common.h"

enum {
    ALPHA_SHIFT = 10, /* alpha is kept in 1/1024 */
    ALPHA_MAX = 1 << ALPHA_SHIFT,
    G_SHIFT = 4, /* g = 1/16, RFC 8257 4.2 */
    MEMORY_SHIFT = ALPHA_SHIFT - 8,
};

/* Alpha outlives the state by one byte: its complement, so that nothing remembered is the alpha of 1 to start with. */
static void recall(struct cc_state *state, uint8_t memory)
{
    state->alpha = (uint16_t)(ALPHA_MAX - ((uint32_t)memory << MEMORY_SHIFT));
}

static uint8_t memorize(const struct cc_state *state)
{
    uint32_t memory = ((uint32_t)ALPHA_MAX - state->alpha) >> MEMORY_SHIFT;

    return (uint8_t)(memory < UINT8_MAX ? memory : UINT8_MAX);
}

/* RFC 8257 3.3 steps 1 to 7. */
static void on_feedback(struct cc_state *state, uint32_t bytes, bool marked, bool round)
{
    state->fed_back += bytes;
    if (marked)
        state->fed_back_marked += bytes;
    if (!round || state->fed_back == 0)
        return;
    state->alpha = (uint16_t)(state->alpha - (state->alpha >> G_SHIFT) +
                              (((uint64_t)state->fed_back_marked << ALPHA_SHIFT) / state->fed_back >> G_SHIFT));
    state->alpha = state->alpha < ALPHA_MAX ? state->alpha : ALPHA_MAX;
    state->fed_back = state->fed_back_marked = 0;
}

/* RFC 8257 3.3 step 9: cwnd * (1 - alpha / 2). */
static void on_ecn(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, uint64_t now_us)
{
    uint32_t cwnd = window->cwnd - (uint32_t)((uint64_t)window->cwnd * state->alpha >> (ALPHA_SHIFT + 1));

    (void)flight;
    (void)now_us;
    cc_remember(window, state);
    window->cwnd = window->ssthresh = cwnd > 2 * smss ? cwnd : 2 * smss;
    state->acked = 0;
}

const struct tcp_cc_ops cc_dctcp = {
    .name = "dctcp",
    .recall = recall,
    .memorize = memorize,
    .on_ack = cc_newreno_on_ack,
    .on_congestion = cc_newreno_on_congestion,
    .on_rto = cc_newreno_on_rto,
    .on_recovery_exit = cc_recovery_exit,
    .on_spurious = cc_undo,
    .on_ecn = on_ecn,
    .on_feedback = on_feedback,
};
