/*
 * rtt.h: round-trip time and retransmission timeout (RFC 6298), in 8 bytes per connection.
 *
 * Departure: RFC 6298 2.4 says an RTO SHOULD be at least 1 s.  Here, as in Linux, the variance term is at least
 * RTT_RTO_MIN_US, so that RTO is never less than SRTT + 200 ms: still longer than any delayed ACK (RFC 9293 3.8.6.3 asks for
 * less than 500 ms, stacks use 40 to 200), and a lost tail costs 200 ms and not 1 s.
 */
#ifndef TCP_RTT_H
#define TCP_RTT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RTT_RTO_INITIAL_US = 1000000, /* RFC 6298 2.1 */
    RTT_RTO_MIN_US = 200000,
    RTT_RTO_MAX_US = 60000000, /* RFC 6298 2.5: at least 60 s */
    RTT_SAMPLE_MAX_US = 60000000,
};

/* All zero: nothing measured. */
struct rtt {
    uint32_t srtt_us_x8;   /* SRTT in 1/8 us */
    uint32_t rttvar_us_x4; /* RTTVAR in 1/4 us */
};

/* One measurement, never of a retransmitted segment unless by timestamps (Karn; RFC 6298 3).  samples_per_rtt: how many
 * measurements are expected per round trip, at least 1, ceil(flight / (2 * smss)) with timestamps: the gains are divided
 * by it (RFC 7323 appendix G). */
void rtt_sample(struct rtt *r, uint32_t rtt_us, uint32_t samples_per_rtt);

static inline bool rtt_is_measured(const struct rtt *r)
{
    return r->srtt_us_x8 != 0;
}

static inline uint32_t rtt_srtt_us(const struct rtt *r)
{
    return r->srtt_us_x8 >> 3;
}

static inline uint32_t rtt_rttvar_us(const struct rtt *r)
{
    return r->rttvar_us_x4 >> 2;
}

/* The RTO after backoff timeouts in a row (RFC 6298 5.5): doubled as often, at most RTT_RTO_MAX_US.  backoff 0: the base. */
uint32_t rtt_rto_us(const struct rtt *r, uint32_t backoff);

#endif
