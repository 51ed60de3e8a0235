/*
 * view_batch.c: lookups in bursts: all slots first, then the lines of those that need one, fetched ahead.
 */
#include "csb/hash.h"
#include "csb/view.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_AVX512 1
#include <immintrin.h>
#else
#define HAS_AVX512 0
#endif

enum { BURST = 64 };

/* The flows of a burst whose slot is not the whole answer: fetches their lines, then asks. */
static inline void look_further(const struct csb_view *view, const uint64_t *hashes, uint16_t *tids,
                                const uint32_t *further, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(&view->lines[csb_diff_home(csb_key(hashes[further[i]]), view->line_count)]);
    for (uint32_t i = 0; i < count; i++)
        tids[further[i]] = csb_view_lookup_further(view, hashes[further[i]]);
}

static void lookup_scalar(const struct csb_view *view, const uint64_t *hashes, uint16_t *tids, uint32_t count)
{
    while (count > 0) {
        uint32_t further[BURST], n = 0, some = count < BURST ? count : BURST;

        for (uint32_t i = 0; i < some; i++) {
            tids[i] = view->slot[csb_key(hashes[i]) >> CSB_SLOT_SHIFT];
            further[n] = i;
            n += tids[i] >= CSB_SLOT_FLAG;
        }
        look_further(view, hashes, tids, further, n);
        hashes += some;
        tids += some;
        count -= some;
    }
}

#if HAS_AVX512
/* Sixteen slots by one gather.  It reads two bytes behind the last slot, which are the circle's. */
__attribute__((target("avx512f,avx512bw,avx512vl"))) static void
lookup_avx512(const struct csb_view *view, const uint64_t *hashes, uint16_t *tids, uint32_t count)
{
    const __m512i flag = _mm512_set1_epi32(CSB_SLOT_FLAG), low = _mm512_set1_epi32(0xffff);

    while (count >= BURST) {
        uint32_t further[BURST], n = 0;

        for (uint32_t i = 0; i < BURST; i += 16) {
            __m256i a = _mm512_cvtepi64_epi32(_mm512_loadu_si512(hashes + i));
            __m256i b = _mm512_cvtepi64_epi32(_mm512_loadu_si512(hashes + i + 8));
            __m512i keys = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
            __m512i slots = _mm512_and_si512(
                _mm512_i32gather_epi32(_mm512_srli_epi32(keys, CSB_SLOT_SHIFT), view->slot, sizeof view->slot[0]), low);
            uint32_t mask = _mm512_cmpge_epu32_mask(slots, flag);

            _mm256_storeu_si256((__m256i *)(tids + i), _mm512_cvtepi32_epi16(slots));
            for (; mask != 0; mask &= mask - 1)
                further[n++] = i + (uint32_t)__builtin_ctz(mask);
        }
        look_further(view, hashes, tids, further, n);
        hashes += BURST;
        tids += BURST;
        count -= BURST;
    }
    lookup_scalar(view, hashes, tids, count);
}
#endif

void csb_view_lookup_batch(const struct csb_view *view, const uint64_t *hashes, uint16_t *tids, uint32_t count)
{
#if HAS_AVX512
    if (count >= BURST && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        lookup_avx512(view, hashes, tids, count);
        return;
    }
#endif
    lookup_scalar(view, hashes, tids, count);
}
