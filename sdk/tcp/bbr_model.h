/*
 * bbr_model.h: what BBR believes of the path (draft-ietf-ccwg-bbr-06 5.5): rounds, bandwidth, bounds, aggregation.
 */
#ifndef TCP_BBR_MODEL_H
#define TCP_BBR_MODEL_H

#include "tcp/bbr.h"

enum {
    BBR_BETA_PERCENT = 70,
    BBR_LOSS_PER = 50, /* one in so many bytes is LossThresh, 2 % */
    BBR_MIN_PIPE = 4,  /* segments */
};

/* The first steps of each ACK: latest signals, round, max_bw, bounds after loss, aggregation. */
void bbr_learn(struct bbr *b, const struct cc_window *window, const struct rate_sample *sample);

/* The last ones: bw, and the latest signals' beginning. */
void bbr_learn_last(struct bbr *b, const struct rate_sample *sample);

void bbr_begin_round(struct bbr *b);
void bbr_reset_signals(struct bbr *b);
void bbr_reset_shortterm(struct bbr *b);
void bbr_reset_full_bw(struct bbr *b, uint64_t full_bw);
void bbr_check_full_bw(struct bbr *b, const struct rate_sample *sample);
void bbr_advance_max_bw(struct bbr *b);

/* The BDP and what sending and receiving in quanta adds. */
uint32_t bbr_inflight(const struct bbr *b, uint64_t bw, uint32_t percent);
uint32_t bbr_quantize(const struct bbr *b, uint64_t inflight);
uint32_t bbr_with_headroom(const struct bbr *b);
uint32_t bbr_target_inflight(const struct bbr *b, const struct cc_window *window);

bool bbr_is_too_high(const struct bbr *b, uint32_t lost, uint32_t tx_in_flight);
/* The first loss of a recovery keeps what it may be mistaken about. */
void bbr_note_loss(struct bbr *b, const struct cc_window *window);
/* What was in flight when the losses came to be too many. */
uint32_t bbr_inflight_at_loss(const struct rate_loss *loss);

void bbr_save_cwnd(struct bbr *b, const struct cc_window *window);
void bbr_restore_cwnd(const struct bbr *b, struct cc_window *window);

static inline bool bbr_is_probe_bw(const struct bbr *b)
{
    return b->state >= BBR_PROBE_DOWN && b->state <= BBR_PROBE_UP;
}

static inline uint32_t bbr_least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t bbr_most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

#endif
