/*
 * tcp_options.c: TCP options to values and back.
 *
 * The first of two options of one kind counts, so that a later one cannot change what an earlier reader saw.
 */
#include "wire/tcp_options.h"

#include "wire/bytes.h"

enum {
    KIND_END = 0,
    KIND_NOP = 1,
    KIND_MSS = 2,
    KIND_WINDOW_SCALE = 3,
    KIND_SACK_PERMITTED = 4,
    KIND_SACK = 5,
    KIND_TIMESTAMPS = 8,
    KIND_USER_TIMEOUT = 28,
};
enum {
    LEN_MSS = 4,
    LEN_WINDOW_SCALE = 3,
    LEN_SACK_PERMITTED = 2,
    LEN_TIMESTAMPS = 10,
    LEN_USER_TIMEOUT = 4,
    LEN_SACK_BLOCK = 8,
};
enum { SYN_LEN = 20, SYN_SECOND = 0x0402080a, SYN_LAST = 0x010303 };

static void take_timestamps(const uint8_t *value, struct tcp_options *out)
{
    out->tsval = get_be32(value);
    out->tsecr = get_be32(value + 4);
    out->present |= TCP_OPTION_TIMESTAMPS;
}

static void take_sack(const uint8_t *value, uint32_t count, struct tcp_options *out)
{
    for (uint32_t i = 0; i < count; i++) {
        out->sack[i].begin = get_be32(value + i * LEN_SACK_BLOCK);
        out->sack[i].end = get_be32(value + i * LEN_SACK_BLOCK + 4);
    }
    out->sack_count = (uint8_t)count;
    out->present |= TCP_OPTION_SACK;
}

/* One option of len bytes at option, all of them there.  False: a known kind with a length that is not its own. */
static bool take_option(const uint8_t *option, uint32_t len, struct tcp_options *out)
{
    const uint8_t *value = option + 2;

    switch (option[0]) {
    case KIND_MSS:
        if (len == LEN_MSS && !(out->present & TCP_OPTION_MSS)) {
            out->mss = get_be16(value);
            out->present |= TCP_OPTION_MSS;
        }
        return len == LEN_MSS;
    case KIND_WINDOW_SCALE:
        if (len == LEN_WINDOW_SCALE && !(out->present & TCP_OPTION_WINDOW_SCALE)) {
            out->window_scale = value[0];
            out->present |= TCP_OPTION_WINDOW_SCALE;
        }
        return len == LEN_WINDOW_SCALE;
    case KIND_SACK_PERMITTED:
        out->present |= TCP_OPTION_SACK_PERMITTED;
        return len == LEN_SACK_PERMITTED;
    case KIND_TIMESTAMPS:
        if (len == LEN_TIMESTAMPS && !(out->present & TCP_OPTION_TIMESTAMPS))
            take_timestamps(value, out);
        return len == LEN_TIMESTAMPS;
    case KIND_SACK: {
        uint32_t count = (len - 2) / LEN_SACK_BLOCK;
        if (count == 0 || count > TCP_SACK_BLOCKS_MAX || len != 2 + count * LEN_SACK_BLOCK)
            return false;
        if (!(out->present & TCP_OPTION_SACK))
            take_sack(value, count, out);
        return true;
    }
    case KIND_USER_TIMEOUT:
        if (len == LEN_USER_TIMEOUT && !(out->present & TCP_OPTION_USER_TIMEOUT)) {
            out->user_timeout = get_be16(value);
            out->present |= TCP_OPTION_USER_TIMEOUT;
        }
        return len == LEN_USER_TIMEOUT;
    default:
        return true;
    }
}

/* The options of a SYN as Linux writes them, and tcp_options_build(): MSS, SACK-permitted and timestamps, NOP, window scale. */
static bool is_usual_syn(const uint8_t *data, size_t len)
{
    return len == SYN_LEN && get_be16(data) == (KIND_MSS << 8 | LEN_MSS) && get_be32(data + 4) == SYN_SECOND &&
           get_be32(data + 16) >> 8 == SYN_LAST;
}

bool tcp_options_parse(const uint8_t *data, size_t len, struct tcp_options *out)
{
    size_t i = 0;

    out->present = 0;
    out->window_scale = 0;
    out->sack_count = 0;
    out->mss = 0;
    out->user_timeout = 0;
    out->tsval = 0;
    out->tsecr = 0;
    if (is_usual_syn(data, len)) {
        out->present = TCP_OPTION_MSS | TCP_OPTION_SACK_PERMITTED | TCP_OPTION_WINDOW_SCALE;
        out->mss = get_be16(data + 2);
        out->window_scale = data[19];
        take_timestamps(data + 8, out);
        return true;
    }
    if (len >= 12 && get_be32(data) == TCP_ALIGNED_TIMESTAMPS) {
        take_timestamps(data + 4, out);
        i = 12;
    }
    while (i < len && data[i] != KIND_END) {
        if (data[i] == KIND_NOP) {
            i++;
            continue;
        }
        if (len - i < 2 || data[i + 1] < 2 || data[i + 1] > len - i)
            return false;
        if (!take_option(data + i, data[i + 1], out))
            return false;
        i += data[i + 1];
    }
    return true;
}

/* Every group below is a multiple of 4 bytes. */
static size_t len_without_sack(uint8_t present)
{
    size_t len = present & TCP_OPTION_MSS ? 4 : 0;

    if (present & TCP_OPTION_TIMESTAMPS)
        len += 12; /* SACK-permitted takes the place of its two NOPs */
    else if (present & TCP_OPTION_SACK_PERMITTED)
        len += 4;
    return len + (present & TCP_OPTION_WINDOW_SCALE ? 4 : 0) + (present & TCP_OPTION_USER_TIMEOUT ? 4 : 0);
}

static uint32_t sack_blocks_that_fit(const struct tcp_options *options)
{
    if (!(options->present & TCP_OPTION_SACK))
        return 0;
    size_t room = TCP_OPTIONS_MAX - 4 - len_without_sack(options->present);
    uint32_t fit = (uint32_t)(room / LEN_SACK_BLOCK);
    uint32_t count = options->sack_count < TCP_SACK_BLOCKS_MAX ? options->sack_count : TCP_SACK_BLOCKS_MAX;

    return count < fit ? count : fit;
}

size_t tcp_options_len(const struct tcp_options *options)
{
    uint32_t blocks = sack_blocks_that_fit(options);

    return len_without_sack(options->present) + (blocks > 0 ? 4 + blocks * LEN_SACK_BLOCK : 0);
}

uint64_t tcp_options_put_timestamps(uint8_t *data, const struct tcp_options *options)
{
    uint64_t sum = put_word(data, TCP_ALIGNED_TIMESTAMPS);

    sum += put_word(data + 4, options->tsval);
    return sum + put_word(data + 8, options->tsecr);
}

size_t tcp_options_build(uint8_t *data, const struct tcp_options *options)
{
    uint8_t *p = data;
    uint32_t blocks = sack_blocks_that_fit(options);
    bool sack_permitted = options->present & TCP_OPTION_SACK_PERMITTED;

    if (options->present & TCP_OPTION_MSS) {
        put_be32(p, (uint32_t)KIND_MSS << 24 | LEN_MSS << 16 | options->mss);
        p += 4;
    }
    if (options->present & TCP_OPTION_TIMESTAMPS) {
        uint32_t first = sack_permitted ? KIND_SACK_PERMITTED << 8 | LEN_SACK_PERMITTED : KIND_NOP << 8 | KIND_NOP;
        put_be32(p, first << 16 | KIND_TIMESTAMPS << 8 | LEN_TIMESTAMPS);
        put_be32(p + 4, options->tsval);
        put_be32(p + 8, options->tsecr);
        p += 12;
    } else if (sack_permitted) {
        put_be32(p, (uint32_t)KIND_NOP << 24 | KIND_NOP << 16 | KIND_SACK_PERMITTED << 8 | LEN_SACK_PERMITTED);
        p += 4;
    }
    if (options->present & TCP_OPTION_WINDOW_SCALE) {
        put_be32(p, (uint32_t)KIND_NOP << 24 | KIND_WINDOW_SCALE << 16 | LEN_WINDOW_SCALE << 8 | options->window_scale);
        p += 4;
    }
    if (options->present & TCP_OPTION_USER_TIMEOUT) {
        put_be32(p, (uint32_t)KIND_USER_TIMEOUT << 24 | LEN_USER_TIMEOUT << 16 | options->user_timeout);
        p += 4;
    }
    if (blocks > 0) {
        put_be32(p, (uint32_t)KIND_NOP << 24 | KIND_NOP << 16 | KIND_SACK << 8 | (2 + blocks * LEN_SACK_BLOCK));
        p += 4;
        for (uint32_t i = 0; i < blocks; i++, p += LEN_SACK_BLOCK) {
            put_be32(p, options->sack[i].begin);
            put_be32(p + 4, options->sack[i].end);
        }
    }
    return (size_t)(p - data);
}
