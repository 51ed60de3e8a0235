/*
 * fuzz_options.c: any bytes as TCP options.
 *
 * Invariant: what is parsed, built and parsed again is the same, but for SACK blocks that do not fit beside the others; what is
 * built is a multiple of 4, at most 40 bytes, and as long as was said.
 */
#include "wire/tcp_options.h"

#include <stdlib.h>
#include <string.h>

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void check_same(const struct tcp_options *a, const struct tcp_options *b)
{
    uint8_t but_sack = (uint8_t)~TCP_OPTION_SACK;

    require((a->present & but_sack) == (b->present & but_sack));
    require(a->window_scale == b->window_scale && a->mss == b->mss);
    require(a->tsval == b->tsval && a->tsecr == b->tsecr);
    require(b->sack_count <= a->sack_count && a->sack_count <= TCP_SACK_BLOCKS_MAX);
    if (b->sack_count < a->sack_count) /* no other block would have fitted */
        require(tcp_options_len(a) + sizeof(struct tcp_sack_block) + (b->sack_count ? 0 : 4) > TCP_OPTIONS_MAX);
    if (b->sack_count > 0)
        require(memcmp(a->sack, b->sack, b->sack_count * sizeof *a->sack) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tcp_options parsed, again;
    uint8_t built[TCP_OPTIONS_MAX + 1];

    if (size > TCP_OPTIONS_MAX || !tcp_options_parse(data, size, &parsed))
        return 0;
    memset(built, 0xee, sizeof built);
    size_t len = tcp_options_build(built, &parsed);
    require(len == tcp_options_len(&parsed) && len <= TCP_OPTIONS_MAX && len % 4 == 0 && built[len] == 0xee);
#ifdef JANUS_PLANTED_BUG /* the last block is lost beside timestamps */
    if ((parsed.present & (TCP_OPTION_SACK | TCP_OPTION_TIMESTAMPS)) == (TCP_OPTION_SACK | TCP_OPTION_TIMESTAMPS))
        built[len - 1] ^= 1;
#endif
    require(tcp_options_parse(built, len, &again));
    check_same(&parsed, &again);
    return 0;
}
