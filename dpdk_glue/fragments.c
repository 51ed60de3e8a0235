/*
 * fragments.c: see fragments.h.
 */
#include "dpdk_glue/fragments.h"

#include "wire/bytes.h"
#include "wire/checksum.h"

#include <stddef.h>

enum datagram_state {
    DATAGRAM_FREE,
    DATAGRAM_OPEN,
    DATAGRAM_BAD, /* what still comes of it is dropped */
};

enum { UNIT = 8, IPV6_FRAGMENT_LEN = 8, IPV4_PLAIN = 0x45, IPV4_MF = 0x2000, IPV4_OFFSET = 0x1fff };

/* One fragment's place in its datagram. */
struct piece {
    const uint8_t *data;
    uint32_t id, begin, len;
    bool more;
};

/* False: it cannot be part of a TCP segment that fits. */
static bool read_piece(const uint8_t *l3, const struct ip_packet *ip, struct piece *p)
{
    const uint8_t *fragment = l3 + ip->l4_offset;
    uint32_t head = ip->l4_offset;

    if (ip->protocol != IP_PROTOCOL_TCP)
        return false;
    if (ip->version == 4) {
        p->id = get_be16(l3 + 4);
        p->begin = (get_be16(l3 + 6) & IPV4_OFFSET) * 8u;
        p->more = (get_be16(l3 + 6) & IPV4_MF) != 0;
    } else {
        head += IPV6_FRAGMENT_LEN;
        p->id = get_be32(fragment + 4);
        p->begin = get_be16(fragment + 2) & 0xfff8u;
        p->more = fragment[3] & 1;
    }
    p->data = l3 + head;
    p->len = ip->total_len - head;
    return p->len != 0 && p->begin + p->len <= FRAGMENTS_BYTES && (!p->more || p->len % UNIT == 0) &&
           (p->begin != 0 || p->len >= FRAGMENTS_FIRST_MIN);
}

static void give_up(struct fragments *f, struct datagram *d, enum datagram_state state)
{
    f->lost += d->pieces;
    d->pieces = 0;
    d->state = (uint8_t)state;
}

static bool is_of(const struct datagram *d, const struct ip_packet *ip, uint32_t id)
{
    return d->state != DATAGRAM_FREE && d->id == id && ip_addr_equal(&d->src, &ip->src) &&
           ip_addr_equal(&d->dst, &ip->dst);
}

/* The datagram of this fragment, or a new one in the place of a free one, of the source's oldest when it has its share, or of the oldest. */
static struct datagram *find(struct fragments *f, const struct ip_packet *ip, uint32_t id, uint32_t now_ms)
{
    struct datagram *unused = NULL, *oldest = &f->datagrams[0], *own = NULL;
    uint32_t own_count = 0;

    for (uint32_t i = 0; i < FRAGMENTS_DATAGRAMS; i++) {
        struct datagram *d = &f->datagrams[i];

        if (d->state != DATAGRAM_FREE && now_ms - d->since_ms >= FRAGMENTS_LIFE_MS)
            give_up(f, d, DATAGRAM_FREE);
        if (is_of(d, ip, id))
            return d;
        if (d->state == DATAGRAM_FREE) {
            unused = d;
            continue;
        }
        if (now_ms - d->since_ms > now_ms - oldest->since_ms || oldest->state == DATAGRAM_FREE)
            oldest = d;
        if (!ip_addr_equal(&d->src, &ip->src))
            continue;
        own_count++;
        if (own == NULL || now_ms - d->since_ms > now_ms - own->since_ms)
            own = d;
    }
    if (own_count >= FRAGMENTS_OF_A_SOURCE)
        unused = own;
    if (unused == NULL)
        unused = oldest;
    give_up(f, unused, DATAGRAM_OPEN);
    memset(unused, 0, offsetof(struct datagram, head));
    unused->state = DATAGRAM_OPEN;
    unused->src = ip->src;
    unused->dst = ip->dst;
    unused->id = id;
    unused->since_ms = now_ms;
    return unused;
}

/* How many of the piece's units are there already. */
static uint32_t units_held(const struct datagram *d, const struct piece *p)
{
    uint32_t held = 0;

    for (uint32_t u = p->begin / UNIT; u * UNIT < p->begin + p->len; u++)
        held += d->map[u / 64] >> (u % 64) & 1;
    return held;
}

/* Does it end where the last one did before, and nothing lie behind the end? */
static bool ends_agree(const struct datagram *d, const struct piece *p)
{
    uint32_t end = p->begin + p->len;

    if (d->total != 0)
        return p->more ? end <= d->total : end == d->total;
    if (p->more)
        return true;
    for (uint32_t u = (end + UNIT - 1) / UNIT; u < sizeof d->map * 8; u++)
        if (d->map[u / 64] >> (u % 64) & 1)
            return false;
    return true;
}

static void hold_head(struct datagram *d, const uint8_t *frame, uint32_t l3_offset, const struct ip_packet *ip)
{
    d->l3_offset = (uint8_t)l3_offset;
    d->head_len = (uint8_t)(l3_offset + (ip->version == 4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN));
    memcpy(d->head, frame, d->head_len);
}

static void hold(struct datagram *d, const struct piece *p)
{
    memcpy(d->data + p->begin, p->data, p->len);
    for (uint32_t u = p->begin / UNIT; u * UNIT < p->begin + p->len; u++)
        d->map[u / 64] |= UINT64_C(1) << (u % 64);
    d->received = (uint16_t)(d->received + p->len);
    d->pieces++;
    if (!p->more)
        d->total = (uint16_t)(p->begin + p->len);
}

static uint8_t ecn_at(const uint8_t *l3)
{
    return (l3[0] >> 4 == 6 ? l3[1] >> 4 : l3[1]) & 3;
}

/* RFC 3168 5.3: congestion that one fragment met is the datagram's; beside one that could not say so, it is dropped. */
static bool ecn_of(const struct datagram *d, uint8_t *ecn)
{
    if (!(d->ecn & 1 << IP_ECN_CE))
        return true;
    *ecn = IP_ECN_CE;
    return !(d->ecn & 1 << IP_ECN_NOT_ECT);
}

/* The header of a datagram that was never in pieces, and had neither options nor extension headers. */
static void mend_head(uint8_t *l3, uint32_t len, uint8_t ecn)
{
    uint16_t sum;

    if (l3[0] >> 4 == 6) {
        l3[1] = (uint8_t)((l3[1] & 0xcf) | ecn << 4);
        put_be16(l3 + 4, (uint16_t)len);
        l3[6] = IP_PROTOCOL_TCP;
        return;
    }
    l3[0] = IPV4_PLAIN;
    l3[1] = (uint8_t)((l3[1] & 0xfc) | ecn);
    put_be16(l3 + 2, (uint16_t)(IPV4_HEADER_LEN + len));
    put_be16(l3 + 6, 0);
    put_be16(l3 + 10, 0);
    sum = checksum_finish(checksum_words(l3, IPV4_HEADER_LEN / 4));
    memcpy(l3 + 10, &sum, sizeof sum);
}

static const uint8_t *give(struct fragments *f, struct datagram *d, uint32_t *len)
{
    uint8_t *whole = f->whole[f->whole_next++ % FRAGMENTS_WHOLE], *l3 = whole + d->l3_offset;
    uint8_t ecn = ecn_at(d->head + d->l3_offset);

    if (!ecn_of(d, &ecn)) {
        give_up(f, d, DATAGRAM_FREE);
        return NULL;
    }
    memcpy(whole, d->head, d->head_len);
    mend_head(l3, d->total, ecn);
    memcpy(whole + d->head_len, d->data, d->total);
    *len = (uint32_t)d->head_len + d->total;
    d->state = DATAGRAM_FREE;
    return whole;
}

const uint8_t *fragments_add(struct fragments *f, const uint8_t *frame, uint32_t l3_offset, const struct ip_packet *ip,
                             uint32_t now_ms, uint32_t *len)
{
    struct datagram *d, atomic;
    struct piece p;

    if (l3_offset + IPV6_HEADER_LEN > FRAGMENTS_HEAD_MAX || !read_piece(frame + l3_offset, ip, &p)) {
        f->lost++;
        return NULL;
    }
    if (p.begin == 0 && !p.more) {
        memset(&atomic, 0, offsetof(struct datagram, head));
        d = &atomic;
    } else {
        d = find(f, ip, p.id, now_ms);
    }
    if (d->state == DATAGRAM_BAD || units_held(d, &p) != 0 || !ends_agree(d, &p)) {
        bool duplicate = d->state == DATAGRAM_OPEN && units_held(d, &p) == (p.len + UNIT - 1) / UNIT &&
                         ends_agree(d, &p) && memcmp(d->data + p.begin, p.data, p.len) == 0;

        f->lost++;
        if (!duplicate)
            give_up(f, d, DATAGRAM_BAD);
        return NULL;
    }
    d->ecn |= (uint8_t)(1 << ecn_at(frame + l3_offset));
    if (p.begin == 0)
        hold_head(d, frame, l3_offset, ip);
    hold(d, &p);
    return d->total != 0 && d->received == d->total ? give(f, d, len) : NULL;
}
