/*
 * slab.h: objects of one size in one array, taken and given by 32-bit index.
 *
 * Memory behind the highest index ever taken stays untouched.  A free object keeps the link in its first four bytes; all other bytes are
 * as the last owner left them.
 */
#ifndef TCP_SLAB_H
#define TCP_SLAB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SLAB_NONE UINT32_MAX

struct slab {
    uint8_t *base;
    uint32_t stride, capacity;
    uint32_t fresh; /* objects from here on have never been taken */
    uint32_t free;  /* index + 1 of the first free object below fresh, 0: none */
    uint32_t used;
};

static inline void slab_init(struct slab *s, void *base, uint32_t stride, uint32_t capacity)
{
    *s = (struct slab){.base = base, .stride = stride, .capacity = capacity};
}

static inline void *slab_at(const struct slab *s, uint32_t index)
{
    return s->base + (size_t)index * s->stride;
}

static inline uint32_t slab_available(const struct slab *s)
{
    return s->capacity - s->used;
}

/* SLAB_NONE when all are taken. */
static inline uint32_t slab_take(struct slab *s)
{
    uint32_t index;

    if (s->free != 0) {
        index = s->free - 1;
        memcpy(&s->free, slab_at(s, index), sizeof s->free);
    } else if (s->fresh < s->capacity) {
        index = s->fresh++;
    } else {
        return SLAB_NONE;
    }
    s->used++;
    return index;
}

static inline void slab_give(struct slab *s, uint32_t index)
{
    memcpy(slab_at(s, index), &s->free, sizeof s->free);
    s->free = index + 1;
    s->used--;
}

#endif
