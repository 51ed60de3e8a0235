/*
 * isn.c: see isn.h.
 *
 *   cookie   | period mod 4 | MSS index | keyed hash of flow, IRS, period and MSS index |
 *              31        30   29     27   26                                          0
 */
#include "tcp/isn.h"

#include <string.h>

enum { MSS_COUNT = 8, HASH_BITS = 27 };

/* The values that Internet paths show (Alcock and Nelson 2011), and those of jumbo-less IPv6 and tunnels. */
static const uint16_t mss_values[MSS_COUNT] = {ISN_COOKIE_MSS_MIN, 536, 1220, 1360, 1400, 1440, 1452, 1460};

/* Each step can be undone by who has the key.  A product carries upwards alone, so the bytes are turned round in between:
 * offsets that are alike somewhere say nothing of where their hashes are. */
struct isn_offsets isn_offsets(const struct csb_secret *secret, uint64_t flow_hash)
{
    uint64_t x = (flow_hash ^ secret->k0) * (secret->k1 | 1);

    x = __builtin_bswap64(x) * (secret->k0 | 1);
    x = __builtin_bswap64(x ^ secret->k1) * (secret->k1 | 1);
    x ^= x >> 32;
    return (struct isn_offsets){.isn = (uint32_t)x, .ts_base = (uint32_t)(x >> 32)};
}

static uint32_t keyed(const struct csb_secret *secret, const struct flow *flow, uint32_t irs, uint64_t period,
                      uint32_t mss_index)
{
    struct {
        struct flow flow;
        uint32_t irs, mss_index;
        uint64_t period;
    } input;

    memset(&input, 0, sizeof input); /* padding is hashed too */
    input.flow = *flow;
    input.irs = irs;
    input.mss_index = mss_index;
    input.period = period;
    return (uint32_t)csb_siphash13(secret, &input, sizeof input) & ((1u << HASH_BITS) - 1);
}

static uint64_t period_of(uint64_t now_us)
{
    return now_us / (ISN_COOKIE_PERIOD_S * 1000000ull);
}

uint32_t isn_cookie_encode(const struct csb_secret *secret, const struct flow *flow, uint32_t irs, uint16_t mss,
                           uint64_t now_us)
{
    uint64_t period = period_of(now_us);
    uint32_t index = MSS_COUNT - 1;

    while (index > 0 && mss_values[index] > mss)
        index--;
    return (uint32_t)(period & 3) << 30 | index << HASH_BITS | keyed(secret, flow, irs, period, index);
}

bool isn_cookie_decode(const struct csb_secret *secret, const struct flow *flow, uint32_t irs, uint32_t iss,
                       uint64_t now_us, uint16_t *mss)
{
    uint64_t period = period_of(now_us);
    uint32_t age = (uint32_t)(period - (iss >> 30)) & 3;
    uint32_t index = iss >> HASH_BITS & (MSS_COUNT - 1);

    if (age > 1 || age > period)
        return false;
    if (keyed(secret, flow, irs, period - age, index) != (iss & ((1u << HASH_BITS) - 1)))
        return false;
    *mss = mss_values[index];
    return true;
}

/* Low bits of TSval: 4 of window scale, then SACK, then ECN. */
uint32_t isn_cookie_tsval(uint32_t tsval, const struct isn_cookie *cookie)
{
    uint32_t bits = (cookie->wscale & 15u) | (uint32_t)cookie->sack << 4 | (uint32_t)cookie->ecn << 5;
    uint32_t with = (tsval & ~63u) | bits;

    return with > tsval ? with - 64 : with;
}

void isn_cookie_read_tsecr(uint32_t tsecr, struct isn_cookie *cookie)
{
    cookie->timestamps = true;
    cookie->wscale = tsecr & 15;
    cookie->sack = (tsecr & 16) != 0;
    cookie->ecn = (tsecr & 32) != 0;
}
