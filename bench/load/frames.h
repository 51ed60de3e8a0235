/*
 * frames.h: the load's frames, read and written; nothing is shared with the stack under test.
 */
#ifndef BENCH_LOAD_FRAMES_H
#define BENCH_LOAD_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ETHER_BYTES = 14,
    IP_BYTES = 20,
    TCP_BYTES = 20,
    ARP_BYTES = 28,
    FLAG_FIN = 1,
    FLAG_SYN = 2,
    FLAG_RST = 4,
    FLAG_PSH = 8,
    FLAG_ACK = 16,
};

/* A segment of the server, in host order. */
struct segment {
    uint32_t client; /* address */
    uint16_t client_port;
    uint8_t flags;
    bool has_ts;
    uint32_t seq, ack, tsval, tsecr;
    const uint8_t *payload;
    uint32_t payload_len;
};

static inline uint16_t load_be16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}

static inline uint32_t load_be32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

static inline void store_be16(uint8_t *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
}

static inline void store_be32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}

/* The one's complement sum of native words, not yet folded; len even but for the last piece. */
static inline uint64_t sum_of(const uint8_t *p, uint32_t len)
{
    uint64_t sum = 0;

    for (; len >= 4; len -= 4, p += 4) {
        uint32_t v;
        memcpy(&v, p, 4);
        sum += v;
    }
    if (len >= 2) {
        uint16_t v;
        memcpy(&v, p, 2);
        sum += v;
        p += 2;
        len -= 2;
    }
    return len != 0 ? sum + *p : sum;
}

static inline uint16_t fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Addresses, protocol and length, in the same order as sum_of() has words. */
static inline uint64_t pseudo_sum(const uint8_t *ip, uint32_t tcp_len)
{
    return sum_of(ip + 12, 8) + __builtin_bswap16((uint16_t)(6 + tcp_len));
}

/* A TCP segment from server:port, or false. */
static inline bool read_segment(const uint8_t *frame, uint32_t len, uint32_t server, uint16_t port, struct segment *s)
{
    const uint8_t *ip = frame + ETHER_BYTES, *tcp = ip + IP_BYTES;

    if (len < ETHER_BYTES + IP_BYTES + TCP_BYTES || ip[0] != 0x45 || ip[9] != 6 || load_be32(ip + 12) != server ||
        load_be16(tcp) != port)
        return false;
    uint32_t total = load_be16(ip + 2), header = (tcp[12] >> 4) * 4u;
    if (total > len - ETHER_BYTES || header < TCP_BYTES || total < IP_BYTES + header)
        return false;
    *s = (struct segment){.client = load_be32(ip + 16),
                          .client_port = load_be16(tcp + 2),
                          .flags = tcp[13],
                          .seq = load_be32(tcp + 4),
                          .ack = load_be32(tcp + 8),
                          .payload = tcp + header,
                          .payload_len = total - IP_BYTES - header};
    if (header == 32 && load_be32(tcp + 20) == 0x0101080a) { /* the usual layout */
        s->has_ts = true;
        s->tsval = load_be32(tcp + 24);
        s->tsecr = load_be32(tcp + 28);
        return true;
    }
    for (uint32_t i = TCP_BYTES; i < header && tcp[i] != 0;) {
        uint32_t kind = tcp[i], size = kind == 1 ? 1 : i + 1 < header ? tcp[i + 1] : 0;
        if (size == 0 || (kind != 1 && size < 2) || i + size > header)
            return false;
        if (kind == 8 && size == 10) {
            s->has_ts = true;
            s->tsval = load_be32(tcp + i + 2);
            s->tsecr = load_be32(tcp + i + 6);
        }
        i += size;
    }
    return true;
}

/* Whether both checksums of a frame that read_segment() took are right. */
static inline bool sums_are_right(const uint8_t *frame)
{
    const uint8_t *ip = frame + ETHER_BYTES;
    uint32_t tcp_len = load_be16(ip + 2) - (uint32_t)IP_BYTES;

    return fold(sum_of(ip, IP_BYTES)) == 0xffff &&
           fold(pseudo_sum(ip, tcp_len) + sum_of(ip + IP_BYTES, tcp_len)) == 0xffff;
}

#endif
