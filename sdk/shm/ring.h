/*
 * ring.h: single-producer single-consumer rings of 16-byte descriptors over two one-way regions.
 *
 *   producer's region:  head (free-running)  descriptors        consumer's region:  tail (free-running)
 *
 * Each side keeps private shadows of both indices and never reads its own back.  The other side's index is loaded once
 * (acquire) and bounded once: u32 arithmetic, more than size apart is a violation.  A descriptor is copied once; only the copy is
 * used (THREATS: T8).  Nothing here waits, loops on what the other side writes, or aborts.
 */
#ifndef SHM_RING_H
#define SHM_RING_H

#include "shm/layout.h"

#include <stdatomic.h>

struct ring_producer {
    struct shm_desc *descs; /* own region */
    uint32_t *head;         /* own region */
    const uint32_t *tail;   /* peer's region */
    uint32_t mask;          /* size - 1 */
    uint32_t head_shadow;   /* pushed, perhaps not yet published */
    uint32_t end;           /* last good value of the peer's index, and size: what it may go up to */
};

struct ring_consumer {
    const struct shm_desc *descs; /* peer's region */
    const uint32_t *head;         /* peer's region */
    uint32_t *tail;               /* own region */
    uint32_t mask;
    uint32_t head_shadow;
    uint32_t tail_shadow;
};

/* Loads the peer's tail once.  Returns free entries, or -1 when the peer's index is impossible (a violation; the last good
 * value stays). */
static inline int32_t ring_producer_refresh(struct ring_producer *r)
{
    uint32_t tail = atomic_load_explicit((const _Atomic uint32_t *)r->tail, memory_order_acquire);

    if (r->head_shadow - tail > r->mask + 1)
        return -1;
    r->end = tail + r->mask + 1;
    return (int32_t)(r->end - r->head_shadow);
}

/* Free entries as far as is known; none before the first refresh. */
static inline uint32_t ring_producer_room(const struct ring_producer *r)
{
    return r->end - r->head_shadow;
}

/* Writes one descriptor; the caller has made sure of room.  Not seen by the peer before ring_publish(). */
static inline void ring_push(struct ring_producer *r, struct shm_desc desc)
{
    r->descs[r->head_shadow++ & r->mask] = desc;
}

static inline void ring_publish(struct ring_producer *r)
{
    atomic_store_explicit((_Atomic uint32_t *)r->head, r->head_shadow, memory_order_release);
}

/* Loads the peer's head once.  Returns how many descriptors wait, or -1 when the peer's index is impossible. */
static inline int32_t ring_consumer_refresh(struct ring_consumer *r)
{
    uint32_t head = atomic_load_explicit((const _Atomic uint32_t *)r->head, memory_order_acquire);

    if (head - r->tail_shadow > r->mask + 1)
        return -1;
    r->head_shadow = head;
    return (int32_t)(head - r->tail_shadow);
}

/* A copy of a descriptor in the peer's region, each field read once. */
static inline struct shm_desc ring_copy(const volatile struct shm_desc *d)
{
    return (struct shm_desc){d->slot, d->offset, d->len, d->hash, d->generation, d->kind, d->flags};
}

/* Copies the next descriptor; the caller has made sure that there is one. */
static inline struct shm_desc ring_pop(struct ring_consumer *r)
{
    return ring_copy(&r->descs[r->tail_shadow++ & r->mask]);
}

/* The next descriptors, which lie one after the other, but no more than n of them.  How many they are. */
static inline uint32_t ring_straight(const struct ring_consumer *r, uint32_t n, const struct shm_desc **descs)
{
    uint32_t index = r->tail_shadow & r->mask, rest = r->mask + 1 - index;

    *descs = &r->descs[index];
    return n < rest ? n : rest;
}

/* The kind of the descriptor that ring_pop() would give. */
static inline uint8_t ring_next_kind(const struct ring_consumer *r)
{
    const volatile struct shm_desc *d = &r->descs[r->tail_shadow & r->mask];

    return d->kind;
}

/* Tells the producer that all popped entries are free again. */
static inline void ring_release(struct ring_consumer *r)
{
    atomic_store_explicit((_Atomic uint32_t *)r->tail, r->tail_shadow, memory_order_release);
}

#endif
