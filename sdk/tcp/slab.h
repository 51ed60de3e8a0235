/*
 * slab.h: objects of one size in one array, taken and given by 32-bit index, in blocks of 16,384.
 *
 *   |== block 0 ==|== = = block 1 |    block 2    | =  block 3    | never touched ...
 *      all taken     some taken     nothing taken:   the few here    fresh
 *                                   may be spare     go on
 *
 * A take comes from the lowest block with room, in it from what was given last: so the blocks above empty as their objects go, and
 * what is always in use stays together.  A block but the first where nothing is taken keeps no link in its memory, which may therefore
 * be given back to the machine (slab_next_spare()).  A free object keeps the link in its first two bytes; all other bytes are as the last
 * owner left them, or zero.
 */
#ifndef TCP_SLAB_H
#define TCP_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef JANUS_SLAB_BLOCK_SHIFT /* tests are built with less, so that a few objects fill blocks */
#define JANUS_SLAB_BLOCK_SHIFT 14
#endif
#define SLAB_NONE UINT32_MAX
enum { SLAB_BLOCK_SHIFT = JANUS_SLAB_BLOCK_SHIFT, SLAB_BLOCK = 1 << SLAB_BLOCK_SHIFT };

struct slab_block {
    uint16_t free;  /* number in the block + 1 of the object that was given last, 0: none below fresh */
    uint16_t fresh; /* objects from here on have not been taken since nothing was */
    uint16_t room;  /* objects that are not taken */
    bool dirty;     /* its memory has been used since it was last given back */
    bool idle;      /* nothing was taken at the last look, nor since */
};

/* Makes a block's memory fit for use, false: there is none. */
typedef bool slab_populate(void *context, void *memory, size_t bytes);

struct slab {
    uint8_t *base;
    uint32_t stride, capacity;
    uint32_t fresh; /* objects from here on have never been taken */
    uint32_t used;
    uint32_t low;   /* no block below has room */
    uint32_t spare; /* blocks but the first that are dirty and have nothing taken */
    uint32_t looked;
    struct slab_block *blocks;
    uint64_t *open;          /* a bit per block: it has room */
    slab_populate *populate; /* null: all memory is there */
    void *context;
};

/* Bytes, aligned to 8 and zero, for the blocks of so many objects. */
size_t slab_memory_bytes(uint32_t capacity);
void slab_init(struct slab *s, void *base, uint32_t stride, uint32_t capacity, void *memory);

/* The block of the next take, whose memory is there; SLAB_NONE: all is taken, or there is no memory. */
uint32_t slab_prepare(struct slab *s);

/* Goes over the blocks but the first: one that had nothing taken at the look before, and since, is given out as its objects
 * [*first, *first + *count), and counts as clean.  False: the look is over. */
bool slab_next_spare(struct slab *s, uint32_t *first, uint32_t *count);

/* The objects now lie at base, which is zero but for what is moved there: all blocks with something taken. */
void slab_move(struct slab *s, void *base);

/* Aborts the program when what a block says of itself is wrong.  O(blocks). */
void slab_check(const struct slab *s);

static inline void *slab_at(const struct slab *s, uint32_t index)
{
    return s->base + (size_t)index * s->stride;
}

static inline uint32_t slab_available(const struct slab *s)
{
    return s->capacity - s->used;
}

static inline uint32_t slab_block_size(const struct slab *s, uint32_t block)
{
    uint32_t left = s->capacity - (block << SLAB_BLOCK_SHIFT);

    return left < SLAB_BLOCK ? left : SLAB_BLOCK;
}

/* The first index from index on that has ever been taken and lies in a block with something taken; SLAB_NONE: none. */
static inline uint32_t slab_next(const struct slab *s, uint32_t index)
{
    while (index < s->fresh &&
           s->blocks[index >> SLAB_BLOCK_SHIFT].room == slab_block_size(s, index >> SLAB_BLOCK_SHIFT))
        index = ((index >> SLAB_BLOCK_SHIFT) + 1) << SLAB_BLOCK_SHIFT;
    return index < s->fresh ? index : SLAB_NONE;
}

/* The books of a take from a block. */
static inline void slab_taken(struct slab *s, uint32_t block)
{
    if (--s->blocks[block].room == 0)
        s->open[block / 64] &= ~(UINT64_C(1) << block % 64);
    s->used++;
}

/* Where nothing that was given lies in the lowest block with room. */
uint32_t slab_take_fresh(struct slab *s);

/* SLAB_NONE when all are taken. */
static inline uint32_t slab_take(struct slab *s)
{
    struct slab_block *b = &s->blocks[s->low];
    uint32_t index = (s->low << SLAB_BLOCK_SHIFT) + b->free - 1u;

    if (b->free == 0)
        return slab_take_fresh(s);
    memcpy(&b->free, slab_at(s, index), sizeof b->free);
    slab_taken(s, s->low);
    return index;
}

static inline void slab_give(struct slab *s, uint32_t index)
{
    uint32_t block = index >> SLAB_BLOCK_SHIFT;
    struct slab_block *b = &s->blocks[block];

    memcpy(slab_at(s, index), &b->free, sizeof b->free);
    b->free = (uint16_t)(index % SLAB_BLOCK + 1);
    s->used--;
    if (b->room++ == 0) {
        s->open[block / 64] |= UINT64_C(1) << block % 64;
        s->low = block < s->low ? block : s->low;
    }
    if (block != 0 && b->room == slab_block_size(s, block)) {
        b->free = b->fresh = 0;
        s->spare++;
    }
}

#endif
