/*
 * tcp_options.h: TCP options, a fixed set, each kept once (RFC 9293 3.2, 7323, 2018).
 *
 * Unknown options are skipped by their length.  MSS, window scale and SACK-permitted count on a SYN only; a caller that
 * parses another segment ignores them.
 */
#ifndef WIRE_TCP_OPTIONS_H
#define WIRE_TCP_OPTIONS_H

#include "wire/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TCP_OPTIONS_MAX = 40, TCP_SACK_BLOCKS_MAX = 4 };

enum tcp_option_present {
    TCP_OPTION_MSS = 0x01,
    TCP_OPTION_WINDOW_SCALE = 0x02,
    TCP_OPTION_SACK_PERMITTED = 0x04,
    TCP_OPTION_TIMESTAMPS = 0x08,
    TCP_OPTION_SACK = 0x10,
    TCP_OPTION_USER_TIMEOUT = 0x20, /* RFC 5482 */
};

enum { TCP_TIMESTAMPS_LEN = 12 };

struct tcp_sack_block {
    uint32_t begin; /* first sequence number of the block */
    uint32_t end;   /* the one after its last */
};

struct tcp_options {
    uint8_t present;      /* enum tcp_option_present */
    uint8_t sack_count;   /* 0 to 4 */
    uint8_t window_scale; /* as received: the user bounds it to 14 (RFC 7323 2.3) */
    uint16_t mss;
    uint16_t user_timeout; /* granularity bit and 15 bits, as on the wire */
    uint32_t tsval, tsecr;
    struct tcp_sack_block sack[TCP_SACK_BLOCKS_MAX]; /* in wire order; not checked against any window */
};

/* Parses len (0 to 40) bytes of options.  False: an option has length 0 or 1, runs past the end, or a known option has a
 * wrong length; out is then not to be used. */
bool tcp_options_parse(const uint8_t *data, size_t len, struct tcp_options *out);

/* NOP, NOP, Timestamps: how nearly every segment begins its options (RFC 7323 appendix A). */
#define TCP_ALIGNED_TIMESTAMPS UINT32_C(0x0101080a)

/* The same for any len, and at once for the usual ones: none, or timestamps alone.  Of these present, sack_count, tsval and tsecr are
 * filled. */
static inline bool tcp_options_parse_usual(const uint8_t *data, size_t len, struct tcp_options *out)
{
    if (len == TCP_TIMESTAMPS_LEN && get_be32(data) == TCP_ALIGNED_TIMESTAMPS) {
        out->present = TCP_OPTION_TIMESTAMPS;
        out->sack_count = 0;
        out->tsval = get_be32(data + 4);
        out->tsecr = get_be32(data + 8);
        return true;
    }
    if (len != 0)
        return len <= TCP_OPTIONS_MAX && tcp_options_parse(data, len, out);
    out->present = out->sack_count = 0;
    out->tsval = out->tsecr = 0;
    return true;
}

/* Writes what options->present names, padded with NOP to a multiple of 4; returns the bytes written, at most 40.  SACK
 * blocks are written as far as they fit behind the others. */
size_t tcp_options_build(uint8_t *data, const struct tcp_options *options);

/* The same for timestamps alone, TCP_TIMESTAMPS_LEN bytes; returns the sum of what was written, see checksum.h. */
uint64_t tcp_options_put_timestamps(uint8_t *data, const struct tcp_options *options);

/* Bytes that tcp_options_build() will write. */
size_t tcp_options_len(const struct tcp_options *options);

#endif
