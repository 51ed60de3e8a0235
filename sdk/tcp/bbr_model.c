/*
 * bbr_model.c: see bbr_model.h.  Names and sections are the draft's.
 */
#include "tcp/bbr_model.h"

#include "tcp/seq.h"

enum {
    US_PER_S = 1000000,
    HEADROOM_PERCENT = 15,
    QUANTUM_MAX = 64 * 1024,
    QUANTA = 3, /* 5.5.8.1 */
    FULL_BW_ROUNDS = 3,
    EXTRA_ROUNDS = 5, /* of each of two windows: ExtraAckedFilterLen is 10 */
    INTERVAL_MAX_US = 1 << 26,
};

uint32_t bbr_bdp(const struct bbr *b, uint64_t bw, uint32_t percent)
{
    uint64_t bdp;

    if (b->min_rtt_us == BBR_NO_RTT)
        return b->initial_cwnd;
    bdp = bw * b->min_rtt_us / US_PER_S;
    return bdp < CC_CWND_MAX ? (uint32_t)(bdp * percent / 100) : CC_CWND_MAX;
}

/* 5.6.3: what goes out at once. */
static uint32_t quantum(const struct bbr *b)
{
    uint64_t bytes = b->pacing_rate / 1000;

    bytes = bytes < QUANTUM_MAX ? bytes : QUANTUM_MAX;
    return bytes > 2 * b->smss ? (uint32_t)bytes : 2 * b->smss;
}

uint32_t bbr_quantize(const struct bbr *b, uint64_t inflight)
{
    uint32_t floor = bbr_most(QUANTA * quantum(b), BBR_MIN_PIPE * b->smss);

    inflight = inflight > floor ? inflight : floor;
    inflight += b->state == BBR_PROBE_UP ? 2 * b->smss : 0;
    return inflight < CC_CWND_MAX ? (uint32_t)inflight : CC_CWND_MAX;
}

uint32_t bbr_inflight(const struct bbr *b, uint64_t bw, uint32_t percent)
{
    return bbr_quantize(b, bbr_bdp(b, bw, percent));
}

uint32_t bbr_with_headroom(const struct bbr *b)
{
    uint32_t headroom = bbr_most(b->smss, (uint32_t)((uint64_t)b->inflight_longterm * HEADROOM_PERCENT / 100));

    if (b->inflight_longterm == BBR_NO_BYTES)
        return BBR_NO_BYTES;
    return bbr_most(b->inflight_longterm > headroom ? b->inflight_longterm - headroom : 0, BBR_MIN_PIPE * b->smss);
}

uint32_t bbr_target_inflight(const struct bbr *b, const struct cc_window *window)
{
    return bbr_least(bbr_bdp(b, b->bw, 100), window->cwnd);
}

/* --- rounds and the latest signals --- */

void bbr_begin_round(struct bbr *b)
{
    b->next_round_delivered = b->rate.delivered;
}

static void update_round(struct bbr *b, const struct rate_sample *sample)
{
    b->round_start = seq_geq(sample->prior_delivered, b->next_round_delivered);
    if (!b->round_start)
        return;
    bbr_begin_round(b);
    b->round_count++;
    b->rounds_since_probe_up++;
}

static void update_latest(struct bbr *b, const struct rate_sample *sample)
{
    b->bw_latest = b->bw_latest > sample->delivery_rate ? b->bw_latest : sample->delivery_rate;
    b->inflight_latest = bbr_most(b->inflight_latest, sample->delivered);
    b->loss_round_start = seq_geq(sample->prior_delivered, b->loss_round_delivered);
    if (b->loss_round_start)
        b->loss_round_delivered = b->rate.delivered;
}

void bbr_reset_signals(struct bbr *b)
{
    b->is_loss_in_round = false;
    b->bw_latest = 0;
    b->inflight_latest = 0;
}

void bbr_reset_shortterm(struct bbr *b)
{
    b->bw_shortterm = BBR_NO_RATE;
    b->inflight_shortterm = BBR_NO_BYTES;
}

/* --- bandwidth --- */

static void update_max_bw(struct bbr *b, const struct rate_sample *sample)
{
    if (sample->delivery_rate > 0 && (sample->delivery_rate >= bbr_max_bw(b) || !sample->app_limited) &&
        sample->delivery_rate > b->max_bw[1])
        b->max_bw[1] = sample->delivery_rate;
}

/* A cycle in which nothing was measured tells nothing. */
void bbr_advance_max_bw(struct bbr *b)
{
    if (b->max_bw[1] == 0)
        return;
    b->max_bw[0] = b->max_bw[1];
    b->max_bw[1] = 0;
}

void bbr_reset_full_bw(struct bbr *b, uint64_t full_bw)
{
    b->full_bw = full_bw;
    b->full_bw_count = 0;
    b->full_bw_now = false;
}

/* 5.3.1.2: three rounds that are no quarter faster. */
void bbr_check_full_bw(struct bbr *b, const struct rate_sample *sample)
{
    if (b->full_bw_now || !b->round_start || sample->app_limited)
        return;
    if (sample->delivery_rate >= b->full_bw + b->full_bw / 4) {
        bbr_reset_full_bw(b, sample->delivery_rate);
        return;
    }
    b->full_bw_now = ++b->full_bw_count >= FULL_BW_ROUNDS;
    b->full_bw_reached |= b->full_bw_now;
}

/* --- bounds after loss, 5.5.10.3 --- */

static void lower_bounds(struct bbr *b, const struct cc_window *window)
{
    bool probing = b->state == BBR_STARTUP || b->state == BBR_PROBE_REFILL || b->state == BBR_PROBE_UP;
    uint64_t bw;
    uint32_t inflight;

    if (probing || !b->is_loss_in_round)
        return;
    bw = (b->bw_shortterm == BBR_NO_RATE ? bbr_max_bw(b) : b->bw_shortterm) * BBR_BETA_PERCENT / 100;
    inflight = b->inflight_shortterm == BBR_NO_BYTES ? window->cwnd : b->inflight_shortterm;
    inflight = (uint32_t)((uint64_t)inflight * BBR_BETA_PERCENT / 100);
    b->bw_shortterm = b->bw_latest > bw ? b->bw_latest : bw;
    b->inflight_shortterm = bbr_most(b->inflight_latest, inflight);
}

bool bbr_is_too_high(const struct bbr *b, uint32_t lost, uint32_t tx_in_flight)
{
    return (uint64_t)lost * BBR_LOSS_PER > tx_in_flight || (lost > 0 && !b->sack);
}

void bbr_note_loss(struct bbr *b, const struct cc_window *window)
{
    if (!b->is_loss_in_round)
        b->loss_round_delivered = b->rate.delivered;
    b->is_loss_in_round = true;
    if (b->undo_saved)
        return;
    b->undo_saved = true;
    bbr_save_cwnd(b, window);
    b->undo_state = BBR_DRAIN;
    b->undo_bw_shortterm = b->bw_shortterm;
    b->undo_inflight_shortterm = b->inflight_shortterm;
    b->undo_inflight_longterm = b->inflight_longterm;
}

uint32_t bbr_inflight_at_loss(const struct rate_loss *loss)
{
    uint32_t before = loss->tx_in_flight > loss->len ? loss->tx_in_flight - loss->len : 0;
    uint64_t lost_before = loss->lost > loss->len ? loss->lost - loss->len : 0;

    if (lost_before * BBR_LOSS_PER >= before)
        return before;
    return before + (uint32_t)((before - lost_before * BBR_LOSS_PER) / (BBR_LOSS_PER - 1));
}

void bbr_save_cwnd(struct bbr *b, const struct cc_window *window)
{
    if (!b->recovering && b->state != BBR_PROBE_RTT)
        b->prior_cwnd = window->cwnd;
    else
        b->prior_cwnd = bbr_most(b->prior_cwnd, window->cwnd);
}

void bbr_restore_cwnd(const struct bbr *b, struct cc_window *window)
{
    window->cwnd = bbr_most(window->cwnd, b->prior_cwnd);
}

/* --- aggregation, 5.5.9 --- */

static void update_aggregation(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample)
{
    uint64_t interval_us = sample->now_us - b->extra_since_us;
    uint32_t window_rounds = b->full_bw_reached ? EXTRA_ROUNDS : 1;
    uint64_t expected, extra;

    interval_us = interval_us < INTERVAL_MAX_US ? interval_us : INTERVAL_MAX_US;
    expected = b->bw * interval_us / US_PER_S;
    if (b->extra_delivered <= expected) {
        b->extra_delivered = 0;
        b->extra_since_us = sample->now_us;
        expected = 0;
    }
    b->extra_delivered = bbr_least(b->extra_delivered, CC_CWND_MAX) + sample->newly_acked;
    extra = b->extra_delivered - expected;
    extra = extra < window->cwnd ? extra : window->cwnd;
    if (b->round_count - b->extra_round >= window_rounds) {
        b->extra_round = b->round_count;
        b->extra_acked[0] = b->full_bw_reached ? b->extra_acked[1] : 0;
        b->extra_acked[1] = 0;
    }
    b->extra_acked[1] = bbr_most(b->extra_acked[1], (uint32_t)extra);
}

void bbr_learn(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample)
{
    b->smss = sample->smss;
    update_latest(b, sample);
    update_round(b, sample);
    update_max_bw(b, sample);
    if (b->loss_round_start) {
        lower_bounds(b, window);
        b->is_loss_in_round = false;
    }
    b->cwnd_limited = sample->cwnd_limited || (b->cwnd_limited && !b->round_start);
    update_aggregation(b, window, sample);
}

void bbr_learn_last(struct bbr *b, const struct rate_sample *sample)
{
    if (b->loss_round_start) {
        b->bw_latest = sample->delivery_rate;
        b->inflight_latest = sample->delivered;
    }
    b->bw = bbr_max_bw(b) < b->bw_shortterm ? bbr_max_bw(b) : b->bw_shortterm;
}
