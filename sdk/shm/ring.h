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
#include <string.h>

struct ring_producer {
    struct shm_desc *descs; /* own region */
    uint32_t *head;         /* own region */
    const uint32_t *tail;   /* peer's region */
    uint32_t mask;          /* size - 1 */
    uint32_t head_shadow;   /* pushed, perhaps not yet published */
    uint32_t tail_shadow;   /* last good value of the peer's index */
};

struct ring_consumer {
    const struct shm_desc *descs; /* peer's region */
    const uint32_t *head;         /* peer's region */
    uint32_t *tail;               /* own region */
    uint32_t mask;
    uint32_t head_shadow;
    uint32_t tail_shadow;
};

/* Loads the peer's tail once.  Returns free entries, or -1 when the peer's index is impossible (a violation; the shadow keeps
 * its last good value). */
static inline int32_t ring_producer_refresh(struct ring_producer *r)
{
    uint32_t tail = atomic_load_explicit((const _Atomic uint32_t *)r->tail, memory_order_acquire);

    if (r->head_shadow - tail > r->mask + 1)
        return -1;
    r->tail_shadow = tail;
    return (int32_t)(r->mask + 1 - (r->head_shadow - tail));
}

/* Free entries as far as the shadow knows. */
static inline uint32_t ring_producer_room(const struct ring_producer *r)
{
    return r->mask + 1 - (r->head_shadow - r->tail_shadow);
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

/* A descriptor is two of these. */
typedef uint64_t __attribute__((may_alias)) ring_word;

/* Copies the next descriptor, once; the caller has made sure that there is one. */
static inline struct shm_desc ring_pop(struct ring_consumer *r)
{
    const volatile ring_word *d = (const volatile ring_word *)&r->descs[r->tail_shadow++ & r->mask];
    uint64_t words[2] = {d[0], d[1]};
    struct shm_desc copy;

    memcpy(&copy, words, sizeof copy);
    return copy;
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
