/*
 * hash_batch.c: csb_hash() of eight flows at once, a lane each.
 */
#include "csb/hash.h"

#include <assert.h>
#include <stddef.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_AVX512 1
#include <immintrin.h>
#else
#define HAS_AVX512 0
#endif

#if HAS_AVX512
enum { LANES = 8 };

static_assert(sizeof(struct flow) == 36 && offsetof(struct flow, laddr) == 0 && offsetof(struct flow, raddr) == 16 &&
                  offsetof(struct flow, lport) == 32 && offsetof(struct flow, rport) == 34,
              "the lanes are loaded from these offsets");

struct lanes {
    __m512i v0, v1, v2, v3;
};

#define ON_AVX512 __attribute__((target("avx512f,avx512vl"), always_inline)) static inline

ON_AVX512 void lanes_round(struct lanes *s)
{
    s->v0 = _mm512_add_epi64(s->v0, s->v1);
    s->v2 = _mm512_add_epi64(s->v2, s->v3);
    s->v1 = _mm512_xor_si512(_mm512_rol_epi64(s->v1, 13), s->v0);
    s->v3 = _mm512_xor_si512(_mm512_rol_epi64(s->v3, 16), s->v2);
    s->v0 = _mm512_add_epi64(_mm512_rol_epi64(s->v0, 32), s->v3);
    s->v2 = _mm512_add_epi64(s->v2, s->v1);
    s->v3 = _mm512_xor_si512(_mm512_rol_epi64(s->v3, 21), s->v0);
    s->v1 = _mm512_xor_si512(_mm512_rol_epi64(s->v1, 17), s->v2);
    s->v2 = _mm512_rol_epi64(s->v2, 32);
}

ON_AVX512 void lanes_word(struct lanes *s, __m512i word)
{
    s->v3 = _mm512_xor_si512(s->v3, word);
    lanes_round(s);
    s->v0 = _mm512_xor_si512(s->v0, word);
}

/* Rows i and i + 4: 32 bytes of addresses each. */
ON_AVX512 __m512i load_rows(const struct flow *flows, int i)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)&flows[i]);

    return _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm256_loadu_si256((const __m256i *)&flows[i + 4]), 1);
}

/* lport and rport as one number, in the order of the scalar form. */
ON_AVX512 int load_ports(const struct flow *flow)
{
    return (int)((uint32_t)flow->lport << 16 | flow->rport);
}

/* The five words of each flow, a vector per word: a transposition, which is quicker than gathers.  Lanes 2 to 5 are those
 * of flows 4, 5, 2 and 3. */
ON_AVX512 void load_words(const struct flow *flows, __m512i word[5])
{
    __m512i row0 = load_rows(flows, 0), row1 = load_rows(flows, 1), row2 = load_rows(flows, 2),
            row3 = load_rows(flows, 3);
    __m512i even01 = _mm512_unpacklo_epi64(row0, row1), odd01 = _mm512_unpackhi_epi64(row0, row1);
    __m512i even23 = _mm512_unpacklo_epi64(row2, row3), odd23 = _mm512_unpackhi_epi64(row2, row3);
    __m256i ports =
        _mm256_setr_epi32(load_ports(flows), load_ports(flows + 1), load_ports(flows + 4), load_ports(flows + 5),
                          load_ports(flows + 2), load_ports(flows + 3), load_ports(flows + 6), load_ports(flows + 7));

    word[0] = _mm512_shuffle_i64x2(even01, even23, 0x88);
    word[1] = _mm512_shuffle_i64x2(odd01, odd23, 0x88);
    word[2] = _mm512_shuffle_i64x2(even01, even23, 0xdd);
    word[3] = _mm512_shuffle_i64x2(odd01, odd23, 0xdd);
    word[4] = _mm512_or_si512(_mm512_cvtepu32_epi64(ports), _mm512_set1_epi64(UINT64_C(36) << 56));
}

__attribute__((target("avx512f,avx512vl"))) static void hash_lanes(const struct csb_secret *secret,
                                                                   const struct flow *flows, uint64_t *hashes)
{
    __m512i k0 = _mm512_set1_epi64((long long)secret->k0), k1 = _mm512_set1_epi64((long long)secret->k1);
    struct lanes s = {
        _mm512_xor_si512(k0, _mm512_set1_epi64(0x736f6d6570736575)),
        _mm512_xor_si512(k1, _mm512_set1_epi64(0x646f72616e646f6d)),
        _mm512_xor_si512(k0, _mm512_set1_epi64(0x6c7967656e657261)),
        _mm512_xor_si512(k1, _mm512_set1_epi64(0x7465646279746573)),
    };
    __m512i word[5];

    load_words(flows, word);
    lanes_word(&s, word[2]); /* raddr comes first */
    lanes_word(&s, word[3]);
    lanes_word(&s, word[0]);
    lanes_word(&s, word[1]);
    lanes_word(&s, word[4]);
    s.v2 = _mm512_xor_si512(s.v2, _mm512_set1_epi64(0xff));
    lanes_round(&s);
    lanes_round(&s);
    lanes_round(&s);
    __m512i hash = _mm512_xor_si512(_mm512_xor_si512(s.v0, s.v1), _mm512_xor_si512(s.v2, s.v3));
    _mm512_storeu_si512(hashes, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 4, 5, 2, 3, 6, 7), hash));
}
#endif

void csb_hash_batch(const struct csb_secret *secret, const struct flow *flows, uint64_t *hashes, uint32_t count)
{
    uint32_t i = 0;

#if HAS_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
        for (; i + LANES <= count; i += LANES)
            hash_lanes(secret, flows + i, hashes + i);
    }
#endif
    for (; i < count; i++)
        hashes[i] = csb_hash(secret, &flows[i]);
}
