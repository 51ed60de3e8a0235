/*
 * cc_bbr.c: BBR as a congestion control: what the table's functions tell it.  What it learns of ACKs and losses it has from rate.h,
 * and there it sets the window.
 */
#include "tcp/bbr.h"
#include "tcp/cc.h"

static void on_ack(struct cc_window *window, struct cc_state *state, const struct cc_ack *ack)
{
    (void)window, (void)state, (void)ack;
}

static void on_congestion(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss,
                          uint64_t now_us)
{
    (void)flight, (void)smss, (void)now_us;
    bbr_on_recovery(state->bbr, window);
}

static void on_rto(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, bool first,
                   uint64_t now_us)
{
    (void)flight, (void)first, (void)now_us;
    bbr_on_timeout(state->bbr, window, smss);
}

static void on_recovery_exit(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss)
{
    (void)window, (void)state, (void)flight, (void)smss;
}

static void on_spurious(struct cc_window *window, struct cc_state *state)
{
    bbr_on_spurious(state->bbr, window);
}

static void on_ecn(struct cc_window *window, struct cc_state *state, uint32_t flight, uint32_t smss, uint64_t now_us)
{
    (void)smss;
    bbr_on_ecn(state->bbr, window, flight, now_us);
}

const struct tcp_cc_ops cc_bbr = {
    .name = "bbr",
    .rated = true,
    .on_ack = on_ack,
    .on_congestion = on_congestion,
    .on_rto = on_rto,
    .on_recovery_exit = on_recovery_exit,
    .on_spurious = on_spurious,
    .on_ecn = on_ecn,
};
