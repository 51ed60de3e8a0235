/*
 * bbr.h: BBR (draft-ietf-ccwg-bbr-06): how fast to send, and how much to have in flight, by a model of the path.
 *
 *   Startup ──> Drain ──> ProbeBW: DOWN ──> CRUISE ──> REFILL ──> UP ─┐        ProbeRTT, for 200 ms, from each of them
 *                                   └──────────────────────────────────┘        when no lower round trip came in 5 s
 *
 * Windows and samples come in, a window and a pacing rate go out; bytes, microseconds, bytes per second.  Knows no queue and
 * no segment: rate.h measures and tells.
 */
#ifndef TCP_BBR_H
#define TCP_BBR_H

#include "tcp/cc.h"

#define BBR_NO_RTT   UINT32_MAX
#define BBR_NO_BYTES UINT32_MAX /* unbounded */
#define BBR_NO_RATE  UINT64_MAX /* unbounded */
#define BBR_RATE_MAX (UINT64_C(1) << 37)

enum bbr_state {
    BBR_STARTUP,
    BBR_DRAIN,
    BBR_PROBE_DOWN,
    BBR_PROBE_CRUISE,
    BBR_PROBE_REFILL,
    BBR_PROBE_UP,
    BBR_PROBE_RTT,
};

/* What the ACKs that come now are of (5.3.3.9, ack_phase). */
enum bbr_acks { BBR_ACKS_INIT, BBR_ACKS_REFILLING, BBR_ACKS_STARTING, BBR_ACKS_FEEDBACK, BBR_ACKS_STOPPING };

/* Of the connection, 4.1.2.1.1; counts wrap.  rate.c writes it. */
struct rate {
    uint32_t delivered, lost;             /* bytes */
    uint32_t delivered_us, first_sent_us; /* low bits */
    uint32_t bubble_end;                  /* of delivered: the gap has left the path then */
    bool app_limited;
};

/* What an ACK says, 4.1.2.1.3. */
struct rate_sample {
    uint64_t now_us;
    uint64_t delivery_rate; /* 0: none that is to be relied on */
    uint32_t interval_us;
    uint32_t delivered;       /* bytes, over the interval */
    uint32_t prior_delivered; /* when the latest sent of what was delivered went out, */
    uint32_t tx_in_flight;    /* what was in flight with it, */
    uint32_t lost;            /* and bytes lost since */
    uint32_t newly_acked;
    uint32_t rtt_us;                   /* its round trip, or BBR_NO_RTT */
    uint32_t inflight, prior_inflight; /* now; when the ACK came */
    uint32_t smss;
    bool app_limited;
    bool cwnd_limited; /* no room for another segment when the ACK came */
    bool fast_recovery, recovery;
    bool has_data; /* something that carries a mark was delivered: all the above holds */
};

/* A segment judged lost. */
struct rate_loss {
    uint64_t now_us;
    uint32_t begin, len;         /* sequence numbers */
    uint32_t tx_in_flight, lost; /* when it was sent; since, with it */
    bool app_limited;
};

struct bbr {
    struct rate rate;
    struct rate_sample sample;        /* of the ACK that is now looked at; rate.c's */
    uint32_t sample_end, una, sacked; /* likewise */
    bool started, sack, undo_saved;   /* all below holds; undo_state and the like are of this recovery */
    bool recovering, cwnd_limited;    /* at the last ACK; in this round */
    uint32_t random;
    uint32_t smss, initial_cwnd, prior_cwnd;

    uint64_t pacing_rate, pace_rest; /* of a microsecond, in pacing_rate's */
    uint64_t bw;                     /* bounded by bw_shortterm */
    uint64_t max_bw[2];              /* of the cycle before, of this one */
    uint64_t bw_shortterm, bw_latest, undo_bw_shortterm, full_bw;
    uint32_t inflight_longterm, inflight_shortterm, inflight_latest;
    uint32_t undo_inflight_longterm, undo_inflight_shortterm;

    uint8_t state, undo_state; /* enum bbr_state; BBR_DRAIN: no state to go back to */
    uint8_t ack_phase;         /* enum bbr_acks */
    uint8_t full_bw_count, loss_events, up_rounds;
    bool full_bw_now, full_bw_reached;
    bool round_start, loss_round_start, is_loss_in_round;
    bool is_bw_probe_sample, prev_probe_too_high, prev_probe_precautionary;
    bool idle_restart, probe_rtt_expired, probe_rtt_round_done;

    uint32_t round_count, next_round_delivered, loss_round_delivered, drain_start_round, rounds_since_probe_up;
    uint32_t loss_end; /* sequence number behind the latest that was lost */
    uint32_t up_acked, up_acked_per_inc;
    uint32_t bw_probe_wait_us;
    uint64_t cycle_stamp_us;

    uint32_t min_rtt_us, probe_rtt_min_us, own_min_rtt_us; /* BBR_NO_RTT: not known; the last of this start alone */
    uint64_t min_rtt_stamp_us, probe_rtt_min_stamp_us;
    uint64_t probe_rtt_done_us; /* 0: not yet drained */

    uint64_t extra_since_us;
    uint32_t extra_delivered, extra_round;
    uint32_t extra_acked[2]; /* of the rounds before, of these */
};

/* From zero, but for rate.  srtt_us 0: not measured. */
void bbr_start(struct bbr *b, const struct cc_window *window, uint32_t smss, uint32_t srtt_us, bool sack, uint32_t seed,
               uint64_t now_us);

/* After bbr_start(): the pipe was found to be full before, with this BDP; bandwidth was last probed since_us ago. */
void bbr_resume(struct bbr *b, uint32_t bdp, uint32_t min_rtt_us, uint64_t since_us, uint64_t now_us);

/* Something is about to go out with nothing in flight, after a pause of the user's (5.4.1). */
void bbr_on_restart(struct bbr *b, struct cc_window *window, uint64_t now_us);

/* An ACK (5.2.3), where sample has data. */
void bbr_on_ack(struct bbr *b, struct cc_window *window, const struct rate_sample *sample);

/* A loss (5.5.10.2), the beginning of a recovery, a timeout, and a recovery that was a mistake (5.5.11). */
void bbr_on_loss(struct bbr *b, struct cc_window *window, const struct rate_loss *loss);
void bbr_on_recovery(struct bbr *b, const struct cc_window *window);
void bbr_on_timeout(struct bbr *b, struct cc_window *window, uint32_t smss);
void bbr_on_spurious(struct bbr *b, struct cc_window *window);

/* ECE: as a loss rate that is too high (3.7 leaves the measure open). */
void bbr_on_ecn(struct bbr *b, struct cc_window *window, uint32_t flight, uint64_t now_us);

/* The highest bandwidth of this cycle and the one before. */
static inline uint64_t bbr_max_bw(const struct bbr *b)
{
    return b->max_bw[0] > b->max_bw[1] ? b->max_bw[0] : b->max_bw[1];
}

/* bw times the round trip times percent / 100. */
uint32_t bbr_bdp(const struct bbr *b, uint64_t bw, uint32_t percent);

/* How long len bytes take at the pacing rate; the rest of a microsecond is kept for the next. */
enum { BBR_GAP_MAX_US = 1000000 };
uint32_t bbr_gap_us(struct bbr *b, uint32_t len);

#endif
