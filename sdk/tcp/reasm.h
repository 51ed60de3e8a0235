/*
 * reasm.h: payload that arrived before its turn.
 *
 *   rcv_nxt       first.begin    first.end      second.begin
 *      |-- hole ------|== packets ==|--- hole ---|== packets ==|
 *
 * Ranges are sorted, disjoint and never touch, so every byte has at most one owner.  A range is a chain of slots, described in
 * the metadata of its first slot; metadata stands in an array beside the RX slots, so that struct reasm is small.
 * Knows offsets from RCV.NXT only: no headers, no time, no windows.
 */
#ifndef TCP_REASM_H
#define TCP_REASM_H

#include <stdbool.h>
#include <stdint.h>

enum {
    REASM_RANGES_MAX = 32,
    REASM_SEGMENTS_MAX = 100, /* and more while they hold REASM_SMALL_BYTES each on the average */
    REASM_SMALL_BYTES = 512,
};
#define REASM_NO_SLOT UINT32_MAX /* = TCP_NO_SLOT */

/* Metadata of one RX slot.  The chains that reasm gives back use next, begin, data and len; the owner may link its own queues
 * of received slots by the same members. */
struct reasm_slot {
    uint32_t next;  /* slot after this one in the chain, or REASM_NO_SLOT */
    uint32_t begin; /* position of the first byte, on a scale that is the connection's own */
    uint16_t data;  /* offset of the first byte in the slot */
    uint16_t len;   /* payload bytes */
    /* Of the range, kept in its first slot: */
    uint32_t end, last, next_range, stamp;
};

/* All zero, then reasm_init(). */
struct reasm {
    uint32_t first;    /* first slot of the first range, or REASM_NO_SLOT */
    uint32_t position; /* of RCV.NXT */
    uint32_t clock;    /* stamps the range that changed last */
    uint16_t ranges, segments;
    uint32_t bytes; /* held */
};

struct reasm_chain {
    uint32_t first, last; /* slots; REASM_NO_SLOT when empty; slots[last].next is REASM_NO_SLOT */
    uint32_t segments, bytes;
};

/* [begin, end), offsets from RCV.NXT. */
struct reasm_block {
    uint32_t begin, end;
};

enum reasm_result {
    REASM_HELD,      /* the slot is taken */
    REASM_DUPLICATE, /* every byte is held already */
    REASM_FULL,      /* the bounds on ranges or segments */
};

struct reasm_added {
    struct reasm_chain covered; /* what the new segment takes the place of */
    struct reasm_block held;    /* of its bytes, the first contiguous ones that were held before; may be empty */
};

void reasm_init(struct reasm *r);

static inline bool reasm_is_empty(const struct reasm *r)
{
    return r->first == REASM_NO_SLOT;
}

/* Adds a packet's payload [offset, offset + len), 1 <= len, offset + len <= 2^30 (RFC 7323 2.3); it stands at data in the slot.
 * Takes the slot when it returns REASM_HELD; otherwise the caller keeps it and nothing changed.  A range that it meets at either
 * end keeps its bytes; ranges between are covered, and their slots are the caller's again.  Every byte is held then.  Offset 0
 * and what covers something is always held, whatever the bounds.  O(ranges + covered segments). */
enum reasm_result reasm_add(struct reasm *r, struct reasm_slot *slots, uint32_t offset, uint32_t len, uint32_t slot,
                            uint16_t data, struct reasm_added *added);

/* Gives the range that begins at RCV.NXT, and moves RCV.NXT by chain->bytes.  False, and an empty chain: a hole comes first.  O(1). */
bool reasm_pop(struct reasm *r, struct reasm_slot *slots, struct reasm_chain *chain);

/* RCV.NXT moved by len bytes that did not pass through here; only while the structure is empty. */
void reasm_skip(struct reasm *r, uint32_t len);

/* Gives every slot back in one chain, and is empty: the connection ends, or memory is short (RFC 2018 8 allows it).  O(ranges). */
void reasm_clear(struct reasm *r, struct reasm_slot *slots, struct reasm_chain *chain);

/* Writes up to max blocks to report, the range that changed last first, then the others by recency (RFC 2018 4).  Returns how
 * many.  O(ranges * max). */
uint32_t reasm_sack_blocks(const struct reasm *r, const struct reasm_slot *slots, struct reasm_block *blocks,
                           uint32_t max);

/* Aborts the program when ranges, chains or counts disagree.  O(segments). */
void reasm_check(const struct reasm *r, const struct reasm_slot *slots);

#endif
