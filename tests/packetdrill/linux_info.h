/*
 * linux_info.h: Linux's struct tcp_info, filled from plain values: its header and the core's use the same names.
 */
#ifndef PACKETDRILL_LINUX_INFO_H
#define PACKETDRILL_LINUX_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct info_values {
    uint8_t state; /* of Linux */
    uint8_t snd_wscale, rcv_wscale;
    bool timestamps, sack, wscale, ecn;
    uint32_t rto_us, rtt_us, rttvar_us, snd_mss, snd_cwnd, snd_ssthresh, unacked, notsent_bytes, snd_wnd, pmtu;
};

/* Copies up to len bytes of it; returns how many. */
size_t linux_info(const struct info_values *v, void *out, size_t len);

#endif
