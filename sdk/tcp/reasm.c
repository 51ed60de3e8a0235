/*
 * reasm.c: see reasm.h.
 *
 * Positions are offsets plus r->position, modulo 2^32: a position stays when RCV.NXT moves.  All held ones are within 2^30 after
 * RCV.NXT, so "position - r->position" orders them.
 */
#undef NDEBUG /* reasm_check() must hold in every build; nothing on the fast path asserts */
#include "tcp/reasm.h"

#include <assert.h>

#define NONE REASM_NO_SLOT

void reasm_init(struct reasm *r)
{
    *r = (struct reasm){.first = NONE};
}

/* The last range that begins at or before offset, or NONE. */
static uint32_t range_before(const struct reasm *r, const struct reasm_slot *slots, uint32_t offset)
{
    uint32_t before = NONE;

    for (uint32_t s = r->first; s != NONE && slots[s].begin - r->position <= offset; s = slots[s].next_range)
        before = s;
    return before;
}

/* Makes a range of the one slot between before and after, joined with whichever it touches. */
static void join(struct reasm *r, struct reasm_slot *slots, uint32_t before, uint32_t slot, uint32_t after)
{
    struct reasm_slot *m = &slots[slot];
    uint32_t begin = m->begin;
    uint32_t first = slot;

    m->end = begin + m->len;
    m->last = slot;
    m->next = NONE;
    m->next_range = after;
    r->ranges++;
    if (after != NONE && m->end == slots[after].begin) {
        m->next = after;
        m->end = slots[after].end;
        m->last = slots[after].last;
        m->next_range = slots[after].next_range;
        r->ranges--;
    }
    if (before == NONE) {
        r->first = slot;
    } else if (slots[before].end == begin) {
        first = before;
        slots[slots[before].last].next = slot;
        slots[before].end = m->end;
        slots[before].last = m->last;
        slots[before].next_range = m->next_range;
        r->ranges--;
    } else {
        slots[before].next_range = slot;
    }
    slots[first].stamp = ++r->clock;
}

/* What is held already of [begin, end), its first contiguous part (RFC 2883 4); empty when there is none. */
static struct reasm_block first_held(const struct reasm *r, const struct reasm_slot *slots, uint32_t before,
                                     uint32_t after, uint32_t begin, uint32_t end)
{
    uint32_t range = before != NONE && slots[before].end - r->position > begin ? before : after;
    struct reasm_block held = {begin, begin};

    if (range == NONE || slots[range].begin - r->position >= end)
        return held;
    if (slots[range].begin - r->position > begin)
        held.begin = slots[range].begin - r->position;
    held.end = slots[range].end - r->position;
    if (held.end > end)
        held.end = end;
    return held;
}

/* Takes the ranges from `range` on that lie before the offset end, whose slots go to chain.  Gives the range behind them. */
static uint32_t uncover(struct reasm *r, struct reasm_slot *slots, uint32_t range, uint32_t end,
                        struct reasm_chain *chain)
{
    while (range != NONE && slots[range].end - r->position <= end) {
        uint32_t bytes = slots[range].end - slots[range].begin, last = slots[range].last, segments = 0;

        for (uint32_t s = range; s != NONE; s = slots[s].next)
            segments++;
        if (chain->first == NONE)
            chain->first = range;
        else
            slots[chain->last].next = range;
        chain->last = last;
        chain->segments += segments;
        chain->bytes += bytes;
        r->ranges--;
        r->segments = (uint16_t)(r->segments - segments);
        r->bytes -= bytes;
        range = slots[range].next_range;
    }
    return range;
}

enum reasm_result reasm_add(struct reasm *r, struct reasm_slot *slots, uint32_t offset, uint32_t len, uint32_t slot,
                            uint16_t data, struct reasm_added *added)
{
    uint32_t before = range_before(r, slots, offset);
    uint32_t after = before == NONE ? r->first : slots[before].next_range;
    uint32_t end = offset + len;
    uint32_t begin = offset;

    added->covered = (struct reasm_chain){.first = NONE, .last = NONE};
    added->held = first_held(r, slots, before, after, begin, end);
    if (before != NONE) {
        uint32_t held = slots[before].end - r->position;

        if (held >= end) {
            slots[before].stamp =
                ++r->clock; /* RFC 2018 4: the first block holds the segment that triggered this ACK */
            return REASM_DUPLICATE;
        }
        if (held > begin)
            begin = held;
    }
    if (after != NONE && slots[after].end - r->position <= end) {
        after = uncover(r, slots, after, end, &added->covered); /* then neither bound is nearer than it was */
    } else if (begin != 0) {
        bool joins = (before != NONE && slots[before].end - r->position == begin) ||
                     (after != NONE && slots[after].begin - r->position <= end);

        if ((r->segments >= REASM_SEGMENTS_MAX && r->bytes / r->segments < REASM_SMALL_BYTES) ||
            (r->ranges >= REASM_RANGES_MAX && !joins))
            return REASM_FULL;
    }
    if (after != NONE && slots[after].begin - r->position < end)
        end = slots[after].begin - r->position;
    slots[slot].begin = r->position + begin;
    slots[slot].len = (uint16_t)(end - begin);
    slots[slot].data = (uint16_t)(data + (begin - offset));
    r->segments++;
    r->bytes += end - begin;
    join(r, slots, before, slot, after);
    return REASM_HELD;
}

bool reasm_pop(struct reasm *r, struct reasm_slot *slots, struct reasm_chain *chain)
{
    const struct reasm_slot *m;

    *chain = (struct reasm_chain){.first = NONE, .last = NONE};
    if (r->first == NONE || slots[r->first].begin != r->position)
        return false;
    m = &slots[r->first];
    chain->first = r->first;
    chain->last = m->last;
    chain->bytes = m->end - m->begin;
    for (uint32_t s = r->first; s != NONE; s = slots[s].next)
        chain->segments++;
    r->first = m->next_range;
    r->position = m->end;
    r->ranges--;
    r->segments = (uint16_t)(r->segments - chain->segments);
    r->bytes -= chain->bytes;
    return true;
}

void reasm_skip(struct reasm *r, uint32_t len)
{
    r->position += len;
}

void reasm_clear(struct reasm *r, struct reasm_slot *slots, struct reasm_chain *chain)
{
    *chain = (struct reasm_chain){.first = r->first, .last = NONE, .segments = r->segments, .bytes = r->bytes};
    for (uint32_t s = r->first; s != NONE; s = slots[s].next_range) {
        chain->last = slots[s].last;
        slots[chain->last].next = slots[s].next_range;
    }
    r->first = NONE;
    r->ranges = r->segments = 0;
    r->bytes = 0;
}

uint32_t reasm_sack_blocks(const struct reasm *r, const struct reasm_slot *slots, struct reasm_block *blocks,
                           uint32_t max)
{
    uint32_t count = 0;
    uint32_t newer = 0; /* age of the block written last; ages are distinct */

    while (count < max) {
        uint32_t best = NONE, best_age = UINT32_MAX;

        for (uint32_t s = r->first; s != NONE; s = slots[s].next_range) {
            uint32_t age = r->clock - slots[s].stamp + 1;

            if (age > newer && age < best_age) {
                best = s;
                best_age = age;
            }
        }
        if (best == NONE)
            break;
        blocks[count++] = (struct reasm_block){slots[best].begin - r->position, slots[best].end - r->position};
        newer = best_age;
    }
    return count;
}

void reasm_check(const struct reasm *r, const struct reasm_slot *slots)
{
    uint32_t segments = 0, ranges = 0, bytes = 0, at = 0;

    for (uint32_t s = r->first; s != NONE; s = slots[s].next_range) {
        uint32_t position = slots[s].begin, last = NONE;

        assert(ranges == 0 || slots[s].begin - r->position > at);
        for (uint32_t m = s; m != NONE; m = slots[m].next) {
            assert(slots[m].begin == position && slots[m].len > 0);
            position += slots[m].len;
            bytes += slots[m].len;
            last = m;
            assert(++segments <= r->segments);
        }
        assert(last == slots[s].last && position == slots[s].end);
        at = position - r->position;
        assert(at <= 1u << 30);
        ranges++;
    }
    assert(ranges == r->ranges && segments == r->segments && bytes == r->bytes);
}
