/*
 * hash.c: SipHash-1-3 (Aumasson and Bernstein 2012) and Murmur3_32 (Appleby), both over little-endian words.
 */
#include "csb/hash.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the hashes read little-endian words straight from memory"
#endif

struct sip_state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl64(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void sip_round(struct sip_state *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotl64(s->v1, 13) ^ s->v0;
    s->v3 = rotl64(s->v3, 16) ^ s->v2;
    s->v0 = rotl64(s->v0, 32) + s->v3;
    s->v2 += s->v1;
    s->v3 = rotl64(s->v3, 21) ^ s->v0;
    s->v1 = rotl64(s->v1, 17) ^ s->v2;
    s->v2 = rotl64(s->v2, 32);
}

static inline void sip_init(struct sip_state *s, const struct csb_secret *secret)
{
    s->v0 = secret->k0 ^ UINT64_C(0x736f6d6570736575);
    s->v1 = secret->k1 ^ UINT64_C(0x646f72616e646f6d);
    s->v2 = secret->k0 ^ UINT64_C(0x6c7967656e657261);
    s->v3 = secret->k1 ^ UINT64_C(0x7465646279746573);
}

static inline void sip_word(struct sip_state *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

static inline uint64_t sip_finish(struct sip_state *s)
{
    s->v2 ^= 0xff;
    sip_round(s);
    sip_round(s);
    sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

uint64_t csb_hash(const struct csb_secret *secret, const struct flow *flow)
{
    enum { BYTES = 36 };
    struct sip_state s;

    sip_init(&s, secret);
    sip_word(&s, load64(flow->raddr.b));
    sip_word(&s, load64(flow->raddr.b + 8));
    sip_word(&s, load64(flow->laddr.b));
    sip_word(&s, load64(flow->laddr.b + 8));
    sip_word(&s, (uint64_t)BYTES << 56 | (uint64_t)flow->lport << 16 | flow->rport);
    return sip_finish(&s);
}

uint64_t csb_siphash13(const struct csb_secret *secret, const void *data, uint32_t len)
{
    const uint8_t *p = data;
    uint32_t left = len;
    uint64_t tail = 0;
    struct sip_state s;

    sip_init(&s, secret);
    for (; left >= 8; left -= 8, p += 8)
        sip_word(&s, load64(p));
    if (left > 0)
        memcpy(&tail, p, left);
    sip_word(&s, tail | (uint64_t)len << 56);
    return sip_finish(&s);
}

static inline uint32_t murmur3_mix(uint32_t h, uint32_t k)
{
    k *= 0xcc9e2d51;
    k = k << 15 | k >> 17;
    h ^= k * 0x1b873593;
    return (h << 13 | h >> 19) * 5 + 0xe6546b64;
}

uint32_t csb_murmur3(uint64_t value, uint32_t seed)
{
    uint32_t h = murmur3_mix(murmur3_mix(seed, (uint32_t)value), (uint32_t)(value >> 32));

    h ^= sizeof value;
    h = (h ^ h >> 16) * 0x85ebca6b;
    h = (h ^ h >> 13) * 0xc2b2ae35;
    return h ^ h >> 16;
}
