/*
 * hash.h: the keyed hash that places flows (SipHash-1-3, Aumasson and Bernstein 2012; paper section III-C uses RSS).
 *
 * One hash of the 4-tuple serves three readers: its low 32 bits are the key on the unit circle, its high 32 bits the hash
 * of the connection table, all 64 the check of an exact exception.  The key is secret per app and start.
 */
#ifndef CSB_HASH_H
#define CSB_HASH_H

#include "wire/flow.h"

#include <stdint.h>

struct csb_secret {
    uint64_t k0, k1;
};

/* SipHash-1-3 over the 36 bytes raddr, laddr, rport, lport (ports little-endian). */
uint64_t csb_hash(const struct csb_secret *secret, const struct flow *flow);

/* The same for a burst, in eight lanes where the CPU has them; count is any number. */
void csb_hash_batch(const struct csb_secret *secret, const struct flow *flows, uint64_t *hashes, uint32_t count);

/* SipHash-c-d over any bytes with c = 1, d = 3: ISNs, cookies, other keyed needs. */
uint64_t csb_siphash13(const struct csb_secret *secret, const void *data, uint32_t len);

/* Murmur3_32 of one 64-bit value: places points on the circle (twin: mmh3 in Python).  Never of what a peer chooses. */
uint32_t csb_murmur3(uint64_t value, uint32_t seed);

static inline uint32_t csb_key(uint64_t hash)
{
    return (uint32_t)hash;
}

static inline uint32_t csb_table_hash(uint64_t hash)
{
    return (uint32_t)(hash >> 32);
}

#endif
