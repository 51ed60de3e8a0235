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
        even += checksum_load(p);
        odd += checksum_load(p + 8);
        even += checksum_load(p + 16);
        odd += checksum_load(p + 24);
    }
    for (; len >= 8; len -= 8, p += 8)
        even += checksum_load(p);
    odd += load_tail(p, len);
    return fold128(even + odd);
}
