/*
 * checksum.c: one's complement sums over 64-bit words.
 *
 * 2^64 is 1 modulo 2^16 - 1, so words of 64 bits with an end-around carry give the same sum as words of 16 bits, in the
 * memory's order on any machine.
 */
#include "wire/checksum.h"

#include "wire/bytes.h"

/* The carries out of 64 bits gather in the upper half, and come back once at the end. */
__extension__ typedef unsigned __int128 wide_sum;

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Fewer than 8 bytes, each piece at an even place; an odd last byte is the first of its word. */
static inline uint64_t load_tail(const uint8_t *p, size_t len)
{
    uint64_t sum = 0;

    if (len & 4) {
        uint32_t v;
        memcpy(&v, p, sizeof v);
        sum += v;
        p += 4;
    }
    if (len & 2) {
        uint16_t v;
        memcpy(&v, p, sizeof v);
        sum += v;
        p += 2;
    }
    if (len & 1) {
        uint8_t word[2] = {*p, 0};
        uint16_t v;
        memcpy(&v, word, sizeof v);
        sum += v;
    }
    return sum;
}

static inline uint64_t fold128(wide_sum sum)
{
    uint64_t low = (uint64_t)sum, high = (uint64_t)(sum >> 64);

    low += high;
    return low + (low < high);
}

uint64_t checksum_add(uint64_t sum, const void *data, size_t len)
{
    const uint8_t *p = data;
    wide_sum even = sum, odd = 0; /* two chains, so that an addition does not wait for the one before it */

    for (; len >= 32; len -= 32, p += 32) {
        even += load64(p);
        odd += load64(p + 8);
        even += load64(p + 16);
        odd += load64(p + 24);
    }
    for (; len >= 8; len -= 8, p += 8)
        even += load64(p);
    odd += load_tail(p, len);
    return fold128(even + odd);
}

static inline uint16_t fold16(uint64_t sum)
{
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t checksum_finish(uint64_t sum)
{
    return (uint16_t)~fold16(sum);
}

/* One form serves both families: the prefix of an IPv4-mapped address adds 0xffff, which is zero in this arithmetic. */
uint64_t checksum_pseudo(const struct ip_addr *src, const struct ip_addr *dst, uint8_t protocol, uint32_t len)
{
    uint8_t rest[8] = {0};

    put_be32(rest, len);
    rest[7] = protocol;
    wide_sum sum = load64(rest);
    sum += load64(src->b);
    sum += load64(src->b + 8);
    sum += load64(dst->b);
    sum += load64(dst->b + 8);
    return fold128(sum);
}
