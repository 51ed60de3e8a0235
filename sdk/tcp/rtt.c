/*
 * rtt.c: see rtt.h.
 */
#include "tcp/rtt.h"

/* RFC 6298 2.3 with the gains 1/8 and 1/4 divided by n.  Both states are kept scaled, so 1/n of the error is added. */
void rtt_sample(struct rtt *r, uint32_t rtt_us, uint32_t samples_per_rtt)
{
    int64_t n = samples_per_rtt ? samples_per_rtt : 1;
    int64_t error, deviation, srtt;

    if (rtt_us > RTT_SAMPLE_MAX_US)
        rtt_us = RTT_SAMPLE_MAX_US;
    if (!rtt_is_measured(r)) {
        r->srtt_us_x8 = rtt_us ? rtt_us << 3 : 1;
        r->rttvar_us_x4 = rtt_us << 1;
        return;
    }
    error = (int64_t)rtt_us - (r->srtt_us_x8 >> 3);
    deviation = (error < 0 ? -error : error) - (int64_t)(r->rttvar_us_x4 >> 2);
    if (n > 1) { /* a division costs as much as the rest */
        deviation /= n;
        error /= n;
    }
    r->rttvar_us_x4 = (uint32_t)((int64_t)r->rttvar_us_x4 + deviation);
    srtt = (int64_t)r->srtt_us_x8 + error;
    r->srtt_us_x8 = srtt > 0 ? (uint32_t)srtt : 1;
}

uint32_t rtt_rto_us(const struct rtt *r, uint32_t backoff)
{
    uint64_t rto = RTT_RTO_INITIAL_US;

    if (rtt_is_measured(r)) {
        uint32_t variance = r->rttvar_us_x4; /* K = 4 times RTTVAR */

        rto = rtt_srtt_us(r) + (uint64_t)(variance > RTT_RTO_MIN_US ? variance : RTT_RTO_MIN_US);
    }
    rto <<= backoff < 16 ? backoff : 16;
    return rto < RTT_RTO_MAX_US ? (uint32_t)rto : RTT_RTO_MAX_US;
}
