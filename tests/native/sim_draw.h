/*
 * sim_draw.h: what a seed decides: all the knobs of a run in one struct, and the scripts of its users.
 */
#ifndef SIM_DRAW_H
#define SIM_DRAW_H

#include "sim_users.h"
#include "sim_wire.h"

struct sim_knobs {
    uint64_t seed;
    struct wire_faults faults;
    uint64_t start_us;      /* of the clock */
    uint32_t faults_end_us; /* after the start */
    uint32_t pairs, open_spread_us;
    uint32_t send_max; /* bytes, of one side */
    uint32_t conn_max, half_open_max, time_wait_max, extension_max;
    uint32_t rx_slots, tx_slots, rcv_buf_bytes, snd_buf_bytes;
    uint32_t mtu[2];
    uint32_t msl_ms;
    uint32_t batch_max, busy_max_us; /* packets per step */
    uint32_t refuse;                 /* chance of a full way out */
    uint32_t sleep_max_us;           /* late wake-ups */
    uint32_t rebase;                 /* chance of new regions, per step */
    uint8_t congestion_control;
    uint8_t ecn[2];
    bool ipv6, offload, hashes, slow_readers, dirty, tight, both_open, reset_unknown, wrap, reuse, user_timeout_option,
        pacing;
    uint32_t check_every; /* steps */
};

static uint32_t pick(struct sim_rng *r, const uint32_t *values, uint32_t count)
{
    return values[rng_below(r, count)];
}

#define PICK(r, ...)                                                                                                   \
    pick(r, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void draw_faults(struct sim_rng *r, struct wire_faults *f)
{
    f->delay_us = PICK(r, 10, 100, 1000, 1000, 10000, 50000, 200000);
    if (rng_below(r, 4) > 0) {
        f->loss = PICK(r, 0, 0, 1000, 10000, 50000, 100000, 100000, 300000);
        f->burst = PICK(r, 0, 0, 3, 10);
        f->duplication = PICK(r, 0, 0, 10000, 100000, 300000);
        f->corruption = PICK(r, 0, 0, 10000, 100000);
        f->truncation = PICK(r, 0, 0, 10000);
        f->reordering = PICK(r, 0, 0, 10000, 100000, 500000);
        f->recut = PICK(r, 0, 0, 50000, 500000);
        f->jitter_us = PICK(r, 0, 0, 0, 10, 1000, 20000);
        f->reorder_us = PICK(r, 10, 1000, 20000, 300000);
    }
    if (rng_below(r, 3) == 0) {
        f->bytes_per_ms = PICK(r, 100, 1000, 10000, 125000);
        f->queue_us = f->bytes_per_ms < 1000 ? 100000 : PICK(r, 5000, 50000, 500000); /* room for some packets */
    }
}

static void draw_limits(struct sim_rng *r, struct sim_knobs *k)
{
    k->conn_max = k->pairs * 2 + 8;
    k->half_open_max = k->pairs * 2 + 8;
    k->time_wait_max = 1024;
    k->extension_max = k->conn_max;
    k->rx_slots = PICK(r, 64, 256, 1024);
    k->tx_slots = PICK(r, 64, 256, 1024);
    k->rcv_buf_bytes = PICK(r, 0, 4096, 8000, 60000);
    k->snd_buf_bytes = PICK(r, 0, 4096, 20000);
    if (k->tight) {
        k->conn_max = rng_between(r, 1, k->pairs + 1);
        k->half_open_max = PICK(r, 1, 2, 4);
        k->extension_max = rng_between(r, 1, k->conn_max);
        k->time_wait_max = PICK(r, 1, 4);
        k->rx_slots = PICK(r, 8, 16, 64);
        k->tx_slots = PICK(r, 8, 16, 64);
    }
}

static void draw_features(struct sim_rng *r, struct sim_knobs *k)
{
    k->ecn[0] = (uint8_t)rng_below(r, 3);
    k->ecn[1] = (uint8_t)rng_below(r, 3);
    k->pacing = rng_below(r, 2);
    k->user_timeout_option = rng_below(r, 4) == 0;
    k->faults.marking = PICK(r, 0, 0, 10000, 100000, 500000, 1000000);
    k->faults.unmarking = PICK(r, 0, 0, 0, 10000);
}

static void sim_draw(uint64_t seed, struct sim_knobs *k)
{
    struct sim_rng rng = {seed * 0x2545f4914f6cdd1dull + 1};
    struct sim_rng *r = &rng;

    memset(k, 0, sizeof *k);
    k->seed = seed;
    draw_faults(r, &k->faults);
    k->start_us = rng_below(r, 3) ? rng_next(r) >> 20 : rng_below(r, 2) ? 0 : 4294967296000ull - rng_below(r, 4000000);
    k->faults_end_us = PICK(r, 100000, 1000000, 5000000, 20000000);
    k->pairs = rng_below(r, 4) ? rng_between(r, 1, 4) : rng_between(r, 5, 40);
    k->open_spread_us = PICK(r, 0, 1000, 100000, 3000000);
    k->send_max = PICK(r, 0, 1, 100, 3000, 30000, 100000, 100000, 400000);
    if (k->pairs > 4 && k->send_max > 30000)
        k->send_max = 30000;
    if (k->faults.bytes_per_ms == 100 && k->send_max > 30000)
        k->send_max = 30000;
    k->dirty = rng_below(r, 3) == 0;
    k->tight = rng_below(r, 6) == 0;
    draw_limits(r, k);
    if (k->rcv_buf_bytes == 4096 && k->faults.delay_us == 200000 && k->send_max > 100000)
        k->send_max = 100000; /* a segment in a round trip */
    k->mtu[0] = PICK(r, 1500, 1500, 1500, 576, 1280, 1920);
    k->mtu[1] = rng_below(r, 2) ? k->mtu[0] : PICK(r, 1500, 576, 1900);
    k->ipv6 = rng_below(r, 2);
    k->msl_ms = PICK(r, 100, 1000, 30000);
    if (k->faults.loss + k->faults.corruption + k->faults.truncation + k->faults.bytes_per_ms > 0)
        k->msl_ms = 30000; /* a FIN sent again must still find TIME-WAIT */
    k->batch_max = PICK(r, 1, 8, 64);
    k->busy_max_us = PICK(r, 0, 10, 500, 5000);
    k->refuse = PICK(r, 0, 0, 10000, 300000);
    k->sleep_max_us = PICK(r, 0, 0, 0, 100, 5000);
    k->congestion_control = (uint8_t)rng_below(r, 4);
    k->offload = rng_below(r, 4) == 0;
    k->hashes = rng_below(r, 2);
    k->slow_readers = rng_below(r, 4) == 0;
    if (k->slow_readers && k->send_max > 30000)
        k->send_max = 30000;
    k->both_open = rng_below(r, 6) == 0;
    k->reset_unknown = rng_below(r, 4) > 0;
    k->reuse = rng_below(r, 3) == 0;
    if (k->tight) /* an old segment may be the ACK of a cookie and bring back the connection that had these ports before */
        k->reuse = false;
    k->wrap = rng_below(r, 3) == 0;
    k->rebase = rng_below(r, 8) ? 0 : PICK(r, 1000, 30000);
    if (k->rebase > 0) /* what was on its way out is lost */
        k->msl_ms = 30000;
    k->check_every = 64;
    draw_features(r, k);
}

static void draw_side(struct sim_rng *r, const struct sim_knobs *k, struct side *side)
{
    uint64_t longest = k->start_us + k->faults_end_us;

    side->ending = (uint8_t)(k->dirty && rng_below(r, 2) ? rng_between(r, END_CLOSE_EARLY, END_ABORT)
                                                         : rng_between(r, END_SHUTDOWN, END_CLOSE));
    side->send_total = rng_below(r, 4) ? rng_below(r, k->send_max + 1) : 0;
    side->write_max = PICK(r, 1, 100, 1460, 4096, 65536);
    if (side->write_max < side->send_total / 2000)
        side->write_max = 4096;
    side->read_max = PICK(r, 100, 1460, 65536);
    if (k->slow_readers) {
        side->read_every_us = PICK(r, 0, 1000, 50000, 1000000);
        if (side->read_every_us > 0 && side->read_max < k->send_max / 20)
            side->read_max = k->send_max / 20 + 1;
    }
    side->use_views = rng_below(r, 2);
    side->abort_after_bytes = rng_below(r, 2) ? rng_below(r, k->send_max + 1) : UINT64_MAX;
    side->abort_at_us = k->start_us + rng_below(r, 2 * k->faults_end_us);
    if (side->abort_at_us > longest + 1000000)
        side->abort_at_us = longest;
}

static void draw_settings(struct sim_rng *r, struct pair *p)
{
    if (rng_below(r, 3))
        return;
    p->settings = (struct tcp_settings){
        .congestion_control = (uint8_t)rng_below(r, 4),
        .keepalive_probes = (uint8_t)PICK(r, 9, 15),
        .ttl = IP_TTL,
        .user_timeout_option = rng_below(r, 2),
        .keepalive_ms = PICK(r, 0, 0, 30000, 7200000),
        .keepalive_interval_ms = PICK(r, 10000, 75000),
        .user_timeout_ms = PICK(r, 0, 0, 600000), /* longer than any liveness bound */
    };
}

static void draw_pair(struct sim_rng *r, const struct sim_knobs *k, struct pair *p, uint32_t index)
{
    p->open_at_us = k->start_us + rng_below(r, k->open_spread_us + 1);
    p->opener = (uint8_t)rng_below(r, 2);
    p->ipv6 = k->ipv6 && rng_below(r, 4);
    p->both_open = k->both_open && rng_below(r, 2);
    p->nodelay = rng_below(r, 2);
    p->keepalive_ms = rng_below(r, 4) ? 0 : PICK(r, 1000, 60000);
    p->lport = p->both_open || k->wrap || rng_below(r, 3) == 0 ? (uint16_t)(1024 + index) : 0;
    p->rport = p->both_open ? (uint16_t)(3000 + index) : rng_below(r, 2) ? 80 : 8080;
    for (uint32_t host = 0; host < 2; host++)
        draw_side(r, k, &p->side[host]);
    draw_settings(r, p);
    if (k->reuse && index > 0 && rng_below(r, 2) && !p->both_open && !p[-1].both_open && p[-1].lport != 0 &&
        pair_is_clean(&p[-1]) && /* after an abort there is no TIME-WAIT */

        (p[-1].after == 0 || k->msl_ms <= 1000)) {
        p->after = index; /* the one before, by its ports */
        p->opener = p[-1].opener;
        p->ipv6 = p[-1].ipv6;
        p->lport = p[-1].lport;
        p->rport = p[-1].rport;
    }
    if (p->both_open && rng_below(r, 4)) /* else one may come first and be refused */
        p->open_at_us = k->start_us;
}

#endif
