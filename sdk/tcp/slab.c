/*
 * slab.c: blocks made, searched for, looked over and moved.
 */
#undef NDEBUG /* slab_check() must hold in every build; nothing on the fast path asserts */
#include "tcp/slab.h"

#include <assert.h>

static uint32_t block_count(uint32_t capacity)
{
    return (capacity + SLAB_BLOCK - 1) >> SLAB_BLOCK_SHIFT;
}

static uint32_t word_count(uint32_t capacity)
{
    return (block_count(capacity) + 63) / 64;
}

size_t slab_memory_bytes(uint32_t capacity)
{
    return block_count(capacity) * sizeof(struct slab_block) + word_count(capacity) * sizeof(uint64_t);
}

void slab_init(struct slab *s, void *base, uint32_t stride, uint32_t capacity, void *memory)
{
    uint32_t blocks = block_count(capacity);

    *s = (struct slab){.base = base, .stride = stride, .capacity = capacity, .looked = 1, .open = memory};
    s->blocks = (struct slab_block *)(void *)(s->open + word_count(capacity));
    for (uint32_t i = 0; i < blocks; i++) {
        s->blocks[i].room = (uint16_t)slab_block_size(s, i);
        s->open[i / 64] |= UINT64_C(1) << i % 64;
    }
}

static bool is_empty(const struct slab *s, uint32_t block)
{
    return s->blocks[block].room == slab_block_size(s, block);
}

/* The lowest block from from on that has room; SLAB_NONE: none. */
static uint32_t find_open(const struct slab *s, uint32_t from)
{
    uint32_t words = word_count(s->capacity), word = from / 64;
    uint64_t bits = word < words ? s->open[word] & ~UINT64_C(0) << from % 64 : 0;

    while (bits == 0 && ++word < words)
        bits = s->open[word];
    return bits != 0 ? word * 64 + (uint32_t)__builtin_ctzll(bits) : SLAB_NONE;
}

static size_t block_bytes(const struct slab *s, uint32_t block)
{
    return (size_t)slab_block_size(s, block) * s->stride;
}

static bool make_ready(struct slab *s, uint32_t block)
{
    struct slab_block *b = &s->blocks[block];

    if (!b->dirty && s->populate != NULL &&
        !s->populate(s->context, slab_at(s, block << SLAB_BLOCK_SHIFT), block_bytes(s, block)))
        return false;
    s->spare -= b->dirty && block != 0 && is_empty(s, block);
    b->dirty = true;
    b->idle = false;
    return true;
}

uint32_t slab_prepare(struct slab *s)
{
    uint32_t block = find_open(s, s->low);

    if (block == SLAB_NONE)
        return SLAB_NONE;
    s->low = block;
    if (make_ready(s, block))
        return block;
    do /* what is in use is there */
        block = find_open(s, block + 1);
    while (block != SLAB_NONE && !s->blocks[block].dirty);
    if (block != SLAB_NONE)
        (void)make_ready(s, block);
    return block;
}

uint32_t slab_take_fresh(struct slab *s)
{
    uint32_t block = s->low, index;
    struct slab_block *b = &s->blocks[block];

    if (b->room == 0 || b->fresh == 0) {
        block = slab_prepare(s);
        if (block == SLAB_NONE)
            return SLAB_NONE;
        b = &s->blocks[block];
    }
    index = block << SLAB_BLOCK_SHIFT;
    if (b->free != 0) {
        index += b->free - 1u;
        memcpy(&b->free, slab_at(s, index), sizeof b->free);
    } else {
        index += b->fresh++;
        s->fresh = index < s->fresh ? s->fresh : index + 1;
    }
    slab_taken(s, block);
    return index;
}

bool slab_next_spare(struct slab *s, uint32_t *first, uint32_t *count)
{
    uint32_t blocks = s->spare != 0 ? block_count(s->fresh) : 0;

    while (s->looked < blocks) {
        uint32_t block = s->looked++;
        struct slab_block *b = &s->blocks[block];

        if (!b->dirty || !is_empty(s, block))
            continue;
        if (!b->idle) {
            b->idle = true;
            continue;
        }
        b->dirty = b->idle = false;
        s->spare--;
        *first = block << SLAB_BLOCK_SHIFT;
        *count = slab_block_size(s, block);
        return true;
    }
    s->looked = 1;
    return false;
}

void slab_move(struct slab *s, void *base)
{
    uint32_t blocks = block_count(s->fresh);

    for (uint32_t i = 0; i < blocks; i++) {
        struct slab_block *b = &s->blocks[i];
        size_t offset = (size_t)(i << SLAB_BLOCK_SHIFT) * s->stride;
        uint32_t used = s->fresh - (i << SLAB_BLOCK_SHIFT);

        if (!is_empty(s, i) || (i == 0 && b->dirty)) {
            memcpy((uint8_t *)base + offset, s->base + offset,
                   (size_t)(used < SLAB_BLOCK ? used : SLAB_BLOCK) * s->stride);
        } else {
            s->spare -= b->dirty;
            b->dirty = b->idle = false;
        }
    }
    s->base = base;
}

void slab_check(const struct slab *s)
{
    uint32_t blocks = block_count(s->capacity), used = 0, spare = 0;

    for (uint32_t i = 0; i < blocks; i++) {
        const struct slab_block *b = &s->blocks[i];
        uint32_t size = slab_block_size(s, i), free = 0;

        assert(b->room <= size && b->fresh <= size && b->free <= b->fresh);
        assert((s->open[i / 64] >> i % 64 & 1) == (b->room != 0) && (b->room == 0 || i >= s->low));
        assert(b->dirty || is_empty(s, i));
        for (uint16_t at = b->free; at != 0; free++) {
            assert(at <= b->fresh && free < size);
            memcpy(&at, slab_at(s, (i << SLAB_BLOCK_SHIFT) + at - 1u), sizeof at);
        }
        assert(b->room == free + size - b->fresh && (i == 0 || !is_empty(s, i) || b->fresh == 0));
        used += size - b->room;
        spare += i != 0 && b->dirty && is_empty(s, i);
    }
    assert(used == s->used && spare == s->spare);
}
