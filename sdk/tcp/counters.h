/*
 * counters.h: what the core counts, one struct, each counter a free-running uint64_t.
 */
#ifndef TCP_COUNTERS_H
#define TCP_COUNTERS_H

#include <stdint.h>

enum tcp_drop {
#define DROP(symbol, name, sentence) TCP_DROP_##symbol,
#include "tcp/drops.def"
#undef DROP
    TCP_DROP_COUNT
};

struct tcp_counters {
    uint64_t segments_received, segments_sent;
    uint64_t bytes_received, bytes_sent; /* payload, in order; first transmissions */
    uint64_t connections_accepted, connections_opened, connections_closed;
    uint64_t connections_reset, connections_timed_out, connections_failed;
    uint64_t retransmitted_segments, retransmission_timeouts, fast_retransmits;
    uint64_t spurious_timeouts;
    uint64_t ce_received, ecn_reductions;
    uint64_t duplicate_acks, out_of_order_segments;
    uint64_t resets_sent, resets_received, challenge_acks;
    uint64_t syn_received, syn_cookies_sent, syn_cookies_accepted;
    uint64_t slots_dry, output_blocked; /* tx_alloc() gave none; tx_send() refused */
    uint64_t persist_resets;            /* peers that took next to nothing while slots were short */
    uint64_t misdirected_segments;      /* of another thread's connection: must stay 0 */
    uint64_t icmp_errors;               /* about connections that exist */
    uint64_t pmtu_reductions, pmtu_probes, pmtu_raises;
    uint64_t stalls;                  /* R1 of RFC 9293 3.8.3: three retransmissions in a row of one connection */
    uint64_t urgent_segments;         /* with URG; their data is in line */
    uint64_t run_segments;            /* taken together with the one before them (run.h) */
    uint64_t queue_steps;             /* from segment to segment of send queues, for SACK and RACK (sack.h) */
    uint64_t dropped[TCP_DROP_COUNT]; /* by enum tcp_drop */
};

/* "checksum" for TCP_DROP_CHECKSUM; null when out of range. */
const char *tcp_drop_name(enum tcp_drop drop);

#endif
