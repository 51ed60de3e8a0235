/*
 * bbr.c: the state machine of BBR, and the window and rate that follow from it.  Names and sections are the draft's.
 */
#include "tcp/bbr.h"

#include "tcp/bbr_model.h"

enum {
    US_PER_S = 1000000,
    MIN_RTT_FILTER_US = 10 * US_PER_S,
    PROBE_RTT_INTERVAL_US = 5 * US_PER_S,
    PROBE_RTT_US = 200000,
    PROBE_WAIT_US = 2 * US_PER_S, /* and up to a second more */
    NOMINAL_RTT_US = 1000,
    PACING_MARGIN_PERCENT = 1,
    STARTUP_LOSSES = 6, /* BBRStartupFullLossCnt */
    DRAIN_ROUNDS = 3,
    RENO_ROUNDS = 63,
    UP_ROUNDS_MAX = 30,
};

/* Percent, 5.6.1. */
static const uint16_t pacing_gains[] = {
    [BBR_STARTUP] = 277,      [BBR_DRAIN] = 50,     [BBR_PROBE_DOWN] = 90, [BBR_PROBE_CRUISE] = 100,
    [BBR_PROBE_REFILL] = 100, [BBR_PROBE_UP] = 125, [BBR_PROBE_RTT] = 100,
};
static const uint16_t cwnd_gains[] = {
    [BBR_STARTUP] = 200,      [BBR_DRAIN] = 200,    [BBR_PROBE_DOWN] = 200, [BBR_PROBE_CRUISE] = 200,
    [BBR_PROBE_REFILL] = 200, [BBR_PROBE_UP] = 225, [BBR_PROBE_RTT] = 50,
};

/* xorshift; for what flows are not to do all at once. */
static uint32_t draw(struct bbr *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 17;
    b->random ^= b->random << 5;
    return b->random;
}

/* At least a segment in a second, so that it is never infinitely slow. */
static void set_pacing_rate(struct bbr *b, uint32_t gain)
{
    uint64_t rate = b->bw * gain * (100 - PACING_MARGIN_PERCENT) / 10000;

    if (!b->full_bw_reached && rate <= b->pacing_rate)
        return;
    b->pacing_rate = rate > b->smss ? rate : b->smss;
}

uint32_t bbr_gap_us(struct bbr *b, uint32_t len)
{
    uint64_t due = (uint64_t)len * US_PER_S + b->pace_rest % b->pacing_rate;

    b->pace_rest = due % b->pacing_rate;
    due /= b->pacing_rate;
    return due < BBR_GAP_MAX_US ? (uint32_t)due : BBR_GAP_MAX_US;
}

/* --- starting --- */

/* 5.6.2: with the first round trip that is known; before, with a guess. */
static void init_pacing_rate(struct bbr *b, uint32_t rtt_us)
{
    uint64_t rate = (uint64_t)b->initial_cwnd * US_PER_S / rtt_us * pacing_gains[BBR_STARTUP] / 100;

    b->pacing_rate = rate > b->smss ? rate : b->smss;
}

void bbr_start(struct bbr *b, const struct cc_window *window, uint32_t smss, uint32_t srtt_us, bool sack, uint32_t seed,
               uint64_t now_us)
{
    *b = (struct bbr){.rate = b->rate, .sample = b->sample, .una = b->una, .sacked = b->sacked};
    b->started = true;
    b->sack = sack;
    b->random = seed != 0 ? seed : 1;
    b->smss = smss;
    b->initial_cwnd = window->cwnd;
    b->min_rtt_us = b->probe_rtt_min_us = srtt_us != 0 ? srtt_us : BBR_NO_RTT;
    b->own_min_rtt_us = BBR_NO_RTT;
    b->min_rtt_stamp_us = b->probe_rtt_min_stamp_us = b->extra_since_us = b->cycle_stamp_us = now_us;
    b->inflight_longterm = b->undo_inflight_longterm = BBR_NO_BYTES;
    b->undo_inflight_shortterm = BBR_NO_BYTES;
    b->undo_bw_shortterm = BBR_NO_RATE;
    bbr_reset_shortterm(b);
    b->undo_state = BBR_DRAIN;
    b->up_acked_per_inc = BBR_NO_BYTES;
    b->next_round_delivered = b->loss_round_delivered = b->rate.delivered;
    b->state = BBR_STARTUP;
    init_pacing_rate(b, srtt_us != 0 ? srtt_us : NOMINAL_RTT_US);
}

/* 5.3.3.8 */
static void pick_probe_wait(struct bbr *b)
{
    b->rounds_since_probe_up = draw(b) & 1;
    b->bw_probe_wait_us = PROBE_WAIT_US + (uint32_t)((uint64_t)draw(b) * US_PER_S >> 32);
}

void bbr_resume(struct bbr *b, uint32_t bdp, uint32_t min_rtt_us, uint64_t since_us, uint64_t now_us)
{
    b->min_rtt_us = b->probe_rtt_min_us = min_rtt_us;
    b->max_bw[1] = (uint64_t)bdp * US_PER_S / min_rtt_us;
    b->max_bw[1] = b->max_bw[1] < BBR_RATE_MAX ? b->max_bw[1] : BBR_RATE_MAX;
    b->bw = b->max_bw[1];
    b->full_bw_reached = true;
    b->state = BBR_PROBE_CRUISE;
    pick_probe_wait(b);
    b->cycle_stamp_us = now_us > since_us ? now_us - since_us : 0;
    set_pacing_rate(b, 100);
}

/* --- ProbeBW, 5.3.3.9 --- */

static void start_down(struct bbr *b, uint64_t now_us)
{
    bbr_reset_signals(b);
    b->up_acked_per_inc = BBR_NO_BYTES;
    pick_probe_wait(b);
    b->cycle_stamp_us = now_us;
    b->ack_phase = BBR_ACKS_STOPPING;
    bbr_begin_round(b);
    b->state = BBR_PROBE_DOWN;
}

static void start_refill(struct bbr *b)
{
    bbr_reset_shortterm(b);
    b->up_rounds = 0;
    b->up_acked = 0;
    b->prev_probe_precautionary = false;
    b->ack_phase = BBR_ACKS_REFILLING;
    bbr_begin_round(b);
    b->state = BBR_PROBE_REFILL;
}

/* What must be acknowledged for inflight_longterm to grow by a segment: twice as fast in each round. */
static void raise_slope(struct bbr *b, const struct cc_window *window)
{
    b->up_acked_per_inc = bbr_most(window->cwnd >> b->up_rounds, b->smss);
    b->up_rounds = b->up_rounds < UP_ROUNDS_MAX ? b->up_rounds + 1 : UP_ROUNDS_MAX;
}

static void start_up(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample)
{
    b->is_bw_probe_sample = true;
    b->ack_phase = BBR_ACKS_STARTING;
    bbr_begin_round(b);
    bbr_reset_full_bw(b, sample->delivery_rate);
    b->state = BBR_PROBE_UP;
    raise_slope(b, window);
}

static void probe_longterm_upward(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample)
{
    uint64_t grown = b->inflight_longterm;

    if (!b->cwnd_limited || window->cwnd < b->inflight_longterm)
        return;
    b->up_acked += sample->newly_acked;
    if (b->up_acked >= b->up_acked_per_inc) {
        grown += (uint64_t)(b->up_acked / b->up_acked_per_inc) * b->smss;
        b->up_acked %= b->up_acked_per_inc;
        b->inflight_longterm = grown < CC_CWND_MAX ? (uint32_t)grown : CC_CWND_MAX;
    }
    if (b->round_start)
        raise_slope(b, window);
}

/* True: a state was begun. */
static bool adapt_longterm(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample)
{
    if (b->ack_phase == BBR_ACKS_STARTING && b->round_start)
        b->ack_phase = BBR_ACKS_FEEDBACK;
    if (b->ack_phase == BBR_ACKS_STOPPING && b->round_start) {
        b->is_bw_probe_sample = false;
        b->ack_phase = BBR_ACKS_INIT;
        if (bbr_is_probe_bw(b) && !sample->app_limited)
            bbr_advance_max_bw(b);
        if (bbr_is_probe_bw(b) && b->prev_probe_precautionary && !b->prev_probe_too_high) {
            start_refill(b);
            return true;
        }
    }
    if (bbr_is_too_high(b, sample->lost, sample->tx_in_flight) || b->inflight_longterm == BBR_NO_BYTES)
        return false;
    b->inflight_longterm = bbr_most(b->inflight_longterm, sample->tx_in_flight);
    if (b->state == BBR_PROBE_UP)
        probe_longterm_upward(b, window, sample);
    return false;
}

/* 5.3.3.8: by the clock, or as often as Reno would have lost something. */
static bool is_time_to_probe(const struct bbr *b, const struct cc_window *window, uint64_t now_us)
{
    uint32_t reno_rounds = bbr_target_inflight(b, window) / b->smss;

    return now_us > b->cycle_stamp_us + b->bw_probe_wait_us ||
           b->rounds_since_probe_up >= bbr_least(reno_rounds, RENO_ROUNDS);
}

static bool is_time_to_cruise(const struct bbr *b, const struct rate_sample *sample)
{
    return sample->inflight <= bbr_with_headroom(b) && sample->inflight <= bbr_inflight(b, bbr_max_bw(b), 100);
}

static bool is_time_to_go_down(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample)
{
    if (b->prev_probe_too_high && sample->prior_inflight + b->smss > b->inflight_longterm) { /* no room for more */
        b->prev_probe_precautionary = true;
        return true;
    }
    if (b->cwnd_limited && window->cwnd >= b->inflight_longterm) {
        bbr_reset_full_bw(b, sample->delivery_rate);
        return false;
    }
    return b->full_bw_now;
}

static void update_cycle(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample)
{
    if (!b->full_bw_reached || adapt_longterm(b, window, sample))
        return;
    switch (b->state) {
    case BBR_PROBE_DOWN:
    case BBR_PROBE_CRUISE:
        if (is_time_to_probe(b, window, sample->now_us))
            start_refill(b);
        else if (b->state == BBR_PROBE_DOWN && is_time_to_cruise(b, sample))
            b->state = BBR_PROBE_CRUISE;
        break;
    case BBR_PROBE_REFILL:
        if (b->round_start)
            start_up(b, window, sample);
        break;
    case BBR_PROBE_UP:
        if (is_time_to_go_down(b, window, sample)) {
            b->prev_probe_too_high = false;
            start_down(b, sample->now_us);
        }
        break;
    default:
        break;
    }
}

/* --- Startup and Drain, 5.3.1.3 and 5.3.2 --- */

static void leave_startup_by_loss(struct bbr *b)
{
    b->undo_state = BBR_STARTUP;
    b->full_bw_reached = true;
    b->inflight_longterm = bbr_most(bbr_bdp(b, bbr_max_bw(b), 100), b->inflight_latest);
}

static void check_startup(struct bbr *b, const struct rate_sample *sample)
{
    bool high = b->sack ? b->loss_events >= STARTUP_LOSSES && b->loss_round_start &&
                              bbr_is_too_high(b, sample->lost, sample->tx_in_flight)
                        : b->loss_events > 0;

    if (b->state == BBR_STARTUP && !b->full_bw_reached && sample->fast_recovery && high)
        leave_startup_by_loss(b);
    if (b->loss_round_start)
        b->loss_events = 0;
    if (b->state != BBR_STARTUP || !b->full_bw_reached)
        return;
    b->state = BBR_DRAIN;
    b->drain_start_round = b->round_count;
}

static void check_drain(struct bbr *b, const struct rate_sample *sample)
{
    if (b->state == BBR_DRAIN &&
        (sample->inflight <= bbr_inflight(b, b->bw, 100) || b->round_count - b->drain_start_round > DRAIN_ROUNDS))
        start_down(b, sample->now_us);
}

/* --- ProbeRTT, 5.3.4.3 --- */

static uint32_t probe_rtt_cwnd(const struct bbr *b)
{
    return bbr_most(bbr_bdp(b, b->bw, cwnd_gains[BBR_PROBE_RTT]), BBR_MIN_PIPE * b->smss);
}

static void update_min_rtt(struct bbr *b, const struct rate_sample *sample)
{
    b->probe_rtt_expired = sample->now_us > b->probe_rtt_min_stamp_us + PROBE_RTT_INTERVAL_US;
    if (sample->rtt_us != BBR_NO_RTT) {
        b->own_min_rtt_us = bbr_least(b->own_min_rtt_us, sample->rtt_us);
        if (sample->rtt_us < b->probe_rtt_min_us || b->probe_rtt_expired) {
            b->probe_rtt_min_us = sample->rtt_us;
            b->probe_rtt_min_stamp_us = sample->now_us;
        }
    }
    if (b->probe_rtt_min_us < b->min_rtt_us || sample->now_us > b->min_rtt_stamp_us + MIN_RTT_FILTER_US) {
        b->min_rtt_us = b->probe_rtt_min_us;
        b->min_rtt_stamp_us = b->probe_rtt_min_stamp_us;
    }
}

static void check_probe_rtt_done(struct bbr *b, struct cc_window *window, uint64_t now_us)
{
    if (b->probe_rtt_done_us == 0 || now_us <= b->probe_rtt_done_us)
        return;
    b->probe_rtt_min_stamp_us = now_us;
    bbr_restore_cwnd(b, window);
    bbr_reset_shortterm(b);
    if (b->full_bw_reached) {
        start_down(b, now_us);
        b->state = BBR_PROBE_CRUISE;
    } else {
        b->state = BBR_STARTUP;
    }
}

static void check_probe_rtt(struct bbr *b, struct cc_window *window, const struct rate_sample *sample)
{
    if (b->state != BBR_PROBE_RTT && b->probe_rtt_expired && !b->idle_restart) {
        bbr_save_cwnd(b, window);
        b->state = BBR_PROBE_RTT;
        b->probe_rtt_done_us = 0;
        b->ack_phase = BBR_ACKS_STOPPING;
        bbr_begin_round(b);
    }
    if (sample->delivered > 0)
        b->idle_restart = false;
    if (b->state != BBR_PROBE_RTT)
        return;
    b->rate.app_limited = true; /* the low rates of this phase are none of the path's */
    b->rate.bubble_end = b->rate.delivered + sample->inflight;
    if (b->probe_rtt_done_us == 0) {
        if (sample->inflight > probe_rtt_cwnd(b))
            return;
        b->probe_rtt_done_us = sample->now_us + PROBE_RTT_US;
        b->probe_rtt_round_done = false;
        bbr_begin_round(b);
        return;
    }
    b->probe_rtt_round_done |= b->round_start;
    if (b->probe_rtt_round_done)
        check_probe_rtt_done(b, window, sample->now_us);
}

void bbr_on_restart(struct bbr *b, struct cc_window *window, uint64_t now_us)
{
    b->idle_restart = true;
    b->extra_since_us = now_us;
    if (bbr_is_probe_bw(b))
        set_pacing_rate(b, 100);
    else if (b->state == BBR_PROBE_RTT)
        check_probe_rtt_done(b, window, now_us);
}

/* --- the window, 5.6.4 --- */

static void bound_cwnd(const struct bbr *b, struct cc_window *window)
{
    uint32_t cap = BBR_NO_BYTES;

    if (b->state == BBR_PROBE_RTT)
        window->cwnd = bbr_least(window->cwnd, probe_rtt_cwnd(b));
    if (b->state == BBR_PROBE_CRUISE || b->state == BBR_PROBE_RTT)
        cap = bbr_with_headroom(b);
    else if (bbr_is_probe_bw(b))
        cap = b->inflight_longterm;
    cap = bbr_most(bbr_least(cap, b->inflight_shortterm), BBR_MIN_PIPE * b->smss);
    window->cwnd = bbr_least(window->cwnd, cap);
}

static void set_cwnd(const struct bbr *b, struct cc_window *window, const struct rate_sample *sample)
{
    uint64_t aggregated = bbr_most(b->extra_acked[0], b->extra_acked[1]);
    uint32_t max_inflight = bbr_quantize(b, bbr_bdp(b, b->bw, cwnd_gains[b->state]) + aggregated);
    uint64_t grown = (uint64_t)window->cwnd + sample->newly_acked;

    grown = grown < CC_CWND_MAX ? grown : CC_CWND_MAX;
    if (b->full_bw_reached)
        window->cwnd = grown < max_inflight ? (uint32_t)grown : max_inflight;
    else if (window->cwnd < max_inflight || (b->rate.delivered < b->initial_cwnd && grown <= 2ull * b->initial_cwnd))
        window->cwnd = (uint32_t)grown;
    window->cwnd = bbr_most(window->cwnd, BBR_MIN_PIPE * b->smss);
    bound_cwnd(b, window);
}

void bbr_on_ack(struct bbr *b, struct cc_window *window, const struct rate_sample *sample)
{
    if (b->min_rtt_us == BBR_NO_RTT && sample->rtt_us != BBR_NO_RTT)
        init_pacing_rate(b, bbr_most(sample->rtt_us, 1));
    bbr_learn(b, window, sample);
    bbr_check_full_bw(b, sample);
    check_startup(b, sample);
    check_drain(b, sample);
    update_cycle(b, window, sample);
    update_min_rtt(b, sample);
    check_probe_rtt(b, window, sample);
    bbr_learn_last(b, sample);
    if (b->recovering && !sample->recovery)
        bbr_restore_cwnd(b, window);
    b->recovering = sample->recovery;
    b->undo_saved = b->undo_saved && sample->recovery;
    set_pacing_rate(b, pacing_gains[b->state]);
    set_cwnd(b, window, sample);
}

/* --- losses --- */

static void handle_too_high(struct bbr *b, const struct cc_window *window, uint32_t inflight, bool app_limited,
                            uint64_t now_us)
{
    uint64_t floor = (uint64_t)bbr_target_inflight(b, window) * BBR_BETA_PERCENT / 100;

    b->prev_probe_too_high = true;
    b->is_bw_probe_sample = false;
    if (!app_limited)
        b->inflight_longterm = bbr_most(inflight, (uint32_t)floor);
    if (b->state == BBR_PROBE_UP) {
        b->undo_state = BBR_PROBE_UP;
        start_down(b, now_us);
    }
}

void bbr_on_loss(struct bbr *b, struct cc_window *window, const struct rate_loss *loss)
{
    bbr_note_loss(b, window);
    b->loss_events += loss->begin != b->loss_end && b->loss_events < UINT8_MAX;
    b->loss_end = loss->begin + loss->len;
    if (b->is_bw_probe_sample && bbr_is_too_high(b, loss->lost, loss->tx_in_flight))
        handle_too_high(b, window, bbr_inflight_at_loss(loss), loss->app_limited, loss->now_us);
}

void bbr_on_recovery(struct bbr *b, const struct cc_window *window)
{
    bbr_save_cwnd(b, window);
    bbr_note_loss(b, window);
    b->recovering = true;
}

void bbr_on_timeout(struct bbr *b, struct cc_window *window, uint32_t smss)
{
    bbr_on_recovery(b, window);
    window->cwnd = smss;
}

void bbr_on_ecn(struct bbr *b, struct cc_window *window, uint32_t flight, uint64_t now_us)
{
    bbr_note_loss(b, window);
    if (b->state == BBR_STARTUP)
        leave_startup_by_loss(b);
    else if (b->is_bw_probe_sample)
        handle_too_high(b, window, flight, false, now_us);
}

void bbr_on_spurious(struct bbr *b, struct cc_window *window)
{
    bbr_restore_cwnd(b, window);
    b->is_loss_in_round = false;
    bbr_reset_full_bw(b, 0);
    b->bw_shortterm = b->bw_shortterm > b->undo_bw_shortterm ? b->bw_shortterm : b->undo_bw_shortterm;
    b->inflight_shortterm = bbr_most(b->inflight_shortterm, b->undo_inflight_shortterm);
    b->inflight_longterm = bbr_most(b->inflight_longterm, b->undo_inflight_longterm);
    if (b->undo_state == BBR_STARTUP) {
        b->full_bw_reached = false;
        if (b->state != BBR_PROBE_RTT)
            b->state = BBR_STARTUP;
    } else if (b->undo_state == BBR_PROBE_UP && b->state != BBR_PROBE_UP && b->state != BBR_PROBE_RTT) {
        start_refill(b);
    }
    b->undo_state = BBR_DRAIN;
}
