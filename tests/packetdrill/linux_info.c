/*
 * linux_info.c: see linux_info.h.
 */
#include "tests/packetdrill/linux_info.h"

#include <linux/tcp.h>
#include <string.h>

size_t linux_info(const struct info_values *v, void *out, size_t len)
{
    struct tcp_info info = {
        .tcpi_state = v->state,
        .tcpi_options = (uint8_t)((v->timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (v->sack ? TCPI_OPT_SACK : 0) |
                                  (v->wscale ? TCPI_OPT_WSCALE : 0) | (v->ecn ? TCPI_OPT_ECN : 0)),
        .tcpi_snd_wscale = v->snd_wscale & 0xf,
        .tcpi_rcv_wscale = v->rcv_wscale & 0xf,
        .tcpi_rto = v->rto_us,
        .tcpi_snd_mss = v->snd_mss,
        .tcpi_unacked = v->unacked,
        .tcpi_pmtu = v->pmtu,
        .tcpi_rtt = v->rtt_us,
        .tcpi_rttvar = v->rttvar_us,
        .tcpi_snd_ssthresh = v->snd_ssthresh,
        .tcpi_snd_cwnd = v->snd_cwnd,
        .tcpi_notsent_bytes = v->notsent_bytes,
        .tcpi_snd_wnd = v->snd_wnd,
    };

    len = len < sizeof info ? len : sizeof info;
    memcpy(out, &info, len);
    return len;
}
