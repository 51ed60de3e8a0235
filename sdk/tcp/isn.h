/*
 * isn.h: numbers that a stranger must not guess: initial sequence numbers (RFC 6528), timestamp offsets (RFC 7323 5.4)
 * and SYN cookies (RFC 4987 3.6, appendix A).
 *
 * Cookies are SipHash under a secret of the stack's own.  The offsets are a keyed permutation of the flow's hash, which is
 * SipHash under the flow secret and is made for each packet anyway.  A permutation of a pseudo-random function is one: whoever sees the
 * offsets of his own flows learns nothing of other flows' (RFC 6528 3), and without the permutation's key nothing of the hash, by which
 * he could choose flows for one thread or one bucket.  A flow always gets the same offsets, so ISNs of one 4-tuple go
 * up with the clock and timestamps of one 4-tuple never go back.
 */
#ifndef TCP_ISN_H
#define TCP_ISN_H

#include "csb/hash.h"
#include "wire/flow.h"

#include <stdbool.h>
#include <stdint.h>

struct isn_offsets {
    uint32_t isn;     /* F() of RFC 6528 3 */
    uint32_t ts_base; /* added to the clock to give TSval, in ms */
};

/* Of flow_hash: csb_hash() of the flow under the flow secret. */
struct isn_offsets isn_offsets(const struct csb_secret *secret, uint64_t flow_hash);

/* ISN = M + F(flow), M ticks every 4 us. */
static inline uint32_t isn_at(const struct isn_offsets *offsets, uint64_t now_us)
{
    return (uint32_t)(now_us >> 2) + offsets->isn;
}

/* TSval in milliseconds. */
static inline uint32_t isn_tsval(const struct isn_offsets *offsets, uint64_t now_us)
{
    return (uint32_t)(now_us / 1000) + offsets->ts_base;
}

/* What a SYN offered and a cookie brings back: mss in full, rounded down to one of eight; the rest only when the peer sends
 * timestamps, in the low 6 bits of our TSval. */
struct isn_cookie {
    uint16_t mss;
    bool timestamps, sack, ecn;
    uint8_t wscale; /* 0 to 14, ISN_NO_WSCALE: not offered */
};
enum {
    ISN_NO_WSCALE = 15,
    ISN_COOKIE_MSS_MIN = 216,
    ISN_COOKIE_PERIOD_S = 64, /* a cookie is good in its period and the next one */
};

/* The ISS of a SYN-ACK that leaves no state behind.  irs: the SYN's sequence number. */
uint32_t isn_cookie_encode(const struct csb_secret *secret, const struct flow *flow, uint32_t irs, uint16_t mss,
                           uint64_t now_us);

/* True: the ISS (SEG.ACK - 1 of the final ACK) is a cookie for irs (SEG.SEQ - 1); writes the MSS. */
bool isn_cookie_decode(const struct csb_secret *secret, const struct flow *flow, uint32_t irs, uint32_t iss,
                       uint64_t now_us, uint16_t *mss);

/* A TSval at most tsval, less than 64 ms before it, that carries the options of cookie. */
uint32_t isn_cookie_tsval(uint32_t tsval, const struct isn_cookie *cookie);
/* Reads them back from the TSecr of the final ACK: sets sack, ecn, wscale and timestamps. */
void isn_cookie_read_tsecr(uint32_t tsecr, struct isn_cookie *cookie);

#endif
