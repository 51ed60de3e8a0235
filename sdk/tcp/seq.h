/*
 * seq.h: sequence number arithmetic modulo 2^32 (RFC 9293 3.4).
 *
 * a is before b when (b - a) mod 2^32 is in 1 .. 2^31 - 1.  Two numbers 2^31 apart are in no order: neither is before
 * the other, so no pair of comparisons of one order can both be true.
 */
#ifndef TCP_SEQ_H
#define TCP_SEQ_H

#include <stdbool.h>
#include <stdint.h>

static inline bool seq_lt(uint32_t a, uint32_t b)
{
    return b - a - 1 < 0x7fffffffu;
}

static inline bool seq_leq(uint32_t a, uint32_t b)
{
    return b - a < 0x80000000u;
}

static inline bool seq_gt(uint32_t a, uint32_t b)
{
    return seq_lt(b, a);
}

static inline bool seq_geq(uint32_t a, uint32_t b)
{
    return seq_leq(b, a);
}

/* True when begin <= seq < begin + len, for any len. */
static inline bool seq_between(uint32_t seq, uint32_t begin, uint32_t len)
{
    return seq - begin < len;
}

static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? b : a;
}

static inline uint32_t seq_min(uint32_t a, uint32_t b)
{
    return seq_lt(b, a) ? b : a;
}

/* The acceptability test of RFC 9293 3.4; seg_len counts SYN and FIN. */
static inline bool seq_is_acceptable(uint32_t rcv_nxt, uint32_t rcv_wnd, uint32_t seg_seq, uint32_t seg_len)
{
    if (rcv_wnd == 0)
        return seg_len == 0 && seg_seq == rcv_nxt;
    if (seg_len == 0)
        return seq_between(seg_seq, rcv_nxt, rcv_wnd);
    return seq_between(seg_seq, rcv_nxt, rcv_wnd) || seq_between(seg_seq + seg_len - 1, rcv_nxt, rcv_wnd);
}

#endif
