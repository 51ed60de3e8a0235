/*
 * csb_peers.h: the inner loops of two other ways to keep connections where they are, written for this comparison.
 *
 * Maglev with connection tracking: a table of 65,537 entries, and every connection in a hash table of 8-byte cells (56 bits
 * of its hash, its tid).  In the manner of JET: only connections of entries that a change known beforehand would move are
 * tracked, here those of one tid in sixteen.  Both look up in bursts with cells fetched ahead, as the product does.
 */
#ifndef CSB_PEERS_H
#define CSB_PEERS_H

#include "bench/csb_balance.h"

enum { MAGLEV_SIZE = 65537, MAGLEV_TRACKED = 0x80 };

struct tracker {
    uint8_t maglev[MAGLEV_SIZE]; /* tid, MAGLEV_TRACKED if its connections are tracked */
    uint64_t *cell;
    uint32_t size, used;
};

static uint32_t tracker_home(const struct tracker *t, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * t->size >> 32);
}

static uint32_t maglev_entry(uint64_t hash)
{
    return (uint32_t)((hash & UINT32_MAX) * MAGLEV_SIZE >> 32);
}

/* Each tid takes entries in an order of its own, in turns. */
static void maglev_fill(struct tracker *t, bool tracks_all)
{
    uint32_t offset[TIDS], skip[TIDS], next[TIDS] = {0}, filled = 0;

    memset(t->maglev, 0xff, sizeof t->maglev);
    for (uint32_t i = 0; i < TIDS; i++) {
        offset[i] = draw_below(MAGLEV_SIZE);
        skip[i] = 1 + draw_below(MAGLEV_SIZE - 1);
    }
    for (uint32_t tid = 0; filled < MAGLEV_SIZE; tid = (tid + 1) % TIDS, filled++) {
        uint32_t at;
        do
            at = (uint32_t)((offset[tid] + (uint64_t)next[tid]++ * skip[tid]) % MAGLEV_SIZE);
        while (t->maglev[at] != 0xff);
        t->maglev[at] = (uint8_t)(tid | (tracks_all || tid == TIDS - 1 ? MAGLEV_TRACKED : 0));
    }
}

static void tracker_add(struct tracker *t, uint64_t hash, uint8_t tid)
{
    uint32_t at = tracker_home(t, hash);

    while (t->cell[at] != 0 && (t->cell[at] ^ hash) >> 8 != 0)
        at = at + 1 < t->size ? at + 1 : 0;
    t->used += t->cell[at] == 0;
    t->cell[at] = (hash & ~UINT64_C(0xff)) | tid;
}

/* Seconds that the insertions take. */
static double tracker_init(struct tracker *t, const struct streams *s, bool tracks_all)
{
    double began;

    maglev_fill(t, tracks_all);
    t->size = (uint32_t)(s->count * (tracks_all ? 1.0 : 1.0 / TIDS) * 4 / 3) + 1024;
    t->cell = room_of(t->size * sizeof *t->cell);
    began = now();
    for (uint32_t i = 0; i < s->count; i++) {
        uint8_t entry = t->maglev[maglev_entry(s->hash[i])];
        if (entry & MAGLEV_TRACKED)
            tracker_add(t, s->hash[i], entry & 0x7f);
    }
    return now() - began;
}

static void tracker_lookup_batch(const struct tracker *t, const uint64_t *hashes, uint16_t *tids)
{
    uint32_t further[BURST], count = 0;

    for (uint32_t i = 0; i < BURST; i++) {
        tids[i] = t->maglev[maglev_entry(hashes[i])];
        further[count] = i;
        count += tids[i] >> 7;
    }
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(&t->cell[tracker_home(t, hashes[further[i]])]);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t hash = hashes[further[i]];
        uint32_t at = tracker_home(t, hash);

        while (t->cell[at] != 0 && (t->cell[at] ^ hash) >> 8 != 0)
            at = at + 1 < t->size ? at + 1 : 0;
        tids[further[i]] = t->cell[at] != 0 ? t->cell[at] & 0xff : tids[further[i]] & 0x7f;
    }
}

static double tracker_lookups(const struct tracker *t, const struct packets *p)
{
    uint16_t tids[BURST];
    double began = now();

    for (uint32_t i = 0; i + BURST <= p->count; i += BURST) {
        tracker_lookup_batch(t, p->hash + i, tids);
        checksum += tids[0] + tids[BURST - 1];
    }
    return p->count / (now() - began);
}

#endif
