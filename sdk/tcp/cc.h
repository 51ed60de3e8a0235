/*
 * cc.h: congestion control as a table of functions over two small structs, all in bytes.
 *
 * struct cc_window lives as long as the connection; struct cc_state only while data is in flight (it is part of the borrowed
 * extension) and starts again from zero and the window.  The functions decide cwnd and ssthresh and nothing else: which segments are lost, when a
 * recovery begins and ends, and how to send within cwnd (pipe, PRR) is their caller's.
 */
#ifndef TCP_CC_H
#define TCP_CC_H

#include <stdbool.h>
#include <stdint.h>

#define CC_SSTHRESH_NONE UINT32_MAX /* arbitrarily high, RFC 5681 3.1 */
#define CC_CWND_MAX      (1u << 30) /* the largest window of RFC 7323 2.3 */

struct cc_window {
    uint32_t cwnd, ssthresh;
};

struct bbr;

/* HyStart++, RFC 9406 4.2; 0 stands for infinity. */
struct hystart {
    uint32_t last_round_min_us, round_min_us;
    uint32_t css_baseline_us; /* 0: not in conservative slow start */
    uint8_t samples, css_rounds;
};

struct cc_state {
    uint32_t undo_cwnd, undo_ssthresh; /* before the last reduction; 0: nothing to undo */
    uint32_t acked;                    /* bytes of the next increase so far */
    /* CUBIC, RFC 9438 4.1.2; segments are counted in bytes */
    uint32_t w_max, cwnd_prior, w_est;
    uint32_t w_est_acked;
    uint32_t k_ms;
    union {
        uint64_t epoch_start_us; /* 0: no epoch */
        struct bbr *bbr;         /* beside the extensions (rate.h) */
    };
    uint64_t last_ack_us;
    struct hystart hystart;
    /* DCTCP, RFC 8257 3.3 */
    uint32_t fed_back, fed_back_marked; /* bytes of this round */
    uint16_t alpha;
};

struct cc_ack {
    uint64_t now_us;
    uint32_t acked_bytes; /* newly acknowledged, cumulatively or by SACK */
    uint32_t smss;
    uint32_t srtt_us;  /* 0: not measured */
    uint32_t rtt_us;   /* of what this ACK acknowledges, 0: not known */
    bool round;        /* all that was outstanding when the round began is acknowledged: another begins */
    bool cwnd_limited; /* the sender was held back by cwnd, not by the application or the peer's window (RFC 7661) */
};

struct tcp_cc_ops {
    const char *name;
    bool rated; /* measures delivery rates, and sets cwnd and the pacing rate by them alone (rate.h) */
    /* New data was acknowledged, outside of loss recovery. */
    void (*on_ack)(struct cc_window *window, struct cc_state *state, const struct cc_ack *ack);
    /* Loss found by fast retransmit, or ECE (RFC 3168): once per window of data.  Sets ssthresh, and cwnd to it.  flight:
     * bytes outstanding now (RFC 5681 3.1 (4)), or what was used of the window before (RFC 7661 4.4). */
    void (*on_congestion)(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss,
                          uint64_t now_us);
    /* The retransmission timer fired.  first: for the first time for this segment (RFC 5681 3.1: ssthresh is kept after that). */
    void (*on_rto)(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, bool first,
                   uint64_t now_us);
    /* A recovery by fast retransmit is over, all up to its recovery point is acknowledged (RFC 6582 3.2 (3)). */
    void (*on_recovery_exit)(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss);
    /* The last reduction was spurious (RFC 3522, 5682, DSACK): back to what was before it. */
    void (*on_spurious)(struct cc_window *window, struct cc_state *state);
    /* These may be null. */
    /* ECE, when it is not met like the beginning of a recovery. */
    void (*on_ecn)(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, uint64_t now_us);
    /* Each ACK of new data of a connection with ECN: how much, and whether it said ECE.  Who asks for it is told of each mark
     * apart (RFC 8257 3.2). */
    void (*on_feedback)(struct cc_state *state, uint32_t bytes, bool marked, bool round);
    /* One byte outlives the state, 0 at first. */
    void (*recall)(struct cc_state *state, uint8_t memory);
    uint8_t (*memorize)(const struct cc_state *state);
};

extern const struct tcp_cc_ops cc_newreno, cc_cubic, cc_dctcp, cc_bbr;

/* cc: enum tcp_cc; null when it is none. */
const struct tcp_cc_ops *cc_ops(uint8_t cc);

/* RFC 6928: min(10 * smss, max(2 * smss, 14600)). */
uint32_t cc_initial_window(uint32_t smss);

/* The window of a new connection.  syn_lost: the SYN or SYN-ACK was sent again (RFC 5681 3.1: then one segment). */
void cc_window_init(struct cc_window *window, uint32_t smss, bool syn_lost);

/* Slow start: true below ssthresh. */
static inline bool cc_in_slow_start(const struct cc_window *window)
{
    return window->cwnd < window->ssthresh;
}

#endif
