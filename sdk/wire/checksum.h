/*
 * checksum.h: the Internet checksum (RFC 1071), folded late.
 *
 * A sum is a uint64_t in memory order; checksum_finish() gives the 16 bits as they lie in the packet.
 */
#ifndef WIRE_CHECKSUM_H
#define WIRE_CHECKSUM_H

#include "wire/flow.h"

#include <stddef.h>
#include <stdint.h>

/* Adds len bytes to sum.  Only the last piece of a packet may have an odd length. */
uint64_t checksum_add(uint64_t sum, const void *data, size_t len);

/* The one's complement of the folded sum, in memory order: store it with memcpy; 0 when a received packet is whole. */
uint16_t checksum_finish(uint64_t sum);

/* The pseudo header of TCP or another protocol over IPv4 (both addresses IPv4-mapped) or IPv6 (RFC 9293 3.1, RFC 8200
 * 8.1).  len: transport header and payload, bytes. */
uint64_t checksum_pseudo(const struct ip_addr *src, const struct ip_addr *dst, uint8_t protocol, uint32_t len);

#endif
