/*
 * hystart.c: see hystart.h.
 */
#include "tcp/hystart.h"

#include "tcp/cc_common.h"

enum { /* RFC 9406 4.3 */
       MIN_RTT_THRESH_US = 4000,
       MAX_RTT_THRESH_US = 16000,
       MIN_RTT_DIVISOR = 8,
       RTT_SAMPLES = 8,
       CSS_GROWTH_DIVISOR = 4,
       CSS_ROUNDS = 5,
       L = 8, /* for a sender that does not pace */
};

static void begin_round(struct cc_window *window, struct hystart *h)
{
    h->last_round_min_us = h->round_min_us;
    h->round_min_us = 0;
    h->samples = 0;
    if (h->css_baseline_us != 0 && ++h->css_rounds >= CSS_ROUNDS) {
        window->ssthresh = window->cwnd;
        h->css_baseline_us = 0;
    }
}

static void take_sample(struct hystart *h, uint32_t rtt_us)
{
    uint32_t threshold_us;

    if (h->round_min_us == 0 || rtt_us < h->round_min_us)
        h->round_min_us = rtt_us;
    h->samples += h->samples < RTT_SAMPLES;
    if (h->samples < RTT_SAMPLES)
        return;
    if (h->css_baseline_us != 0) {
        if (h->round_min_us < h->css_baseline_us) /* the queue is gone: it was not ours */
            h->css_baseline_us = 0;
        return;
    }
    if (h->last_round_min_us == 0)
        return;
    threshold_us = h->last_round_min_us / MIN_RTT_DIVISOR;
    threshold_us = threshold_us < MIN_RTT_THRESH_US ? MIN_RTT_THRESH_US : threshold_us;
    threshold_us = threshold_us > MAX_RTT_THRESH_US ? MAX_RTT_THRESH_US : threshold_us;
    if (h->round_min_us >= h->last_round_min_us + threshold_us) {
        h->css_baseline_us = h->round_min_us;
        h->css_rounds = 0;
    }
}

uint32_t hystart_on_ack(struct cc_window *window, struct hystart *h, const struct cc_ack *ack)
{
    struct cc_ack limited = *ack;

    if (ack->round)
        begin_round(window, h);
    if (ack->rtt_us != 0)
        take_sample(h, ack->rtt_us);
    if (!cc_in_slow_start(window))
        return ack->acked_bytes;
    if (limited.acked_bytes > L * ack->smss)
        limited.acked_bytes = L * ack->smss;
    if (h->css_baseline_us != 0)
        limited.acked_bytes = (limited.acked_bytes + CSS_GROWTH_DIVISOR - 1) / CSS_GROWTH_DIVISOR;
    return cc_slow_start(window, &limited);
}
