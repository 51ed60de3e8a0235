/*
 * wheel.h: a hierarchical timing wheel over the objects of one slab (Varghese and Lauck 1987, scheme 6).
 *
 *   level 0: 64 slots of 1 tick     |now|  |  |xx|  |  |          the next 63 ticks, each in its own slot
 *   level 1: 64 slots of 64 ticks   |now|  |xx|  |                moved down when now enters the slot
 *   ...
 *   level 5:  4 slots of 2^30 ticks
 *
 * A node lies at the level of the highest base-64 digit in which its deadline differs from now, so everything at one level
 * comes before everything at the next.  Nodes are members of the slab's objects and link by object index, so that the
 * slab may move.  Zeroed nodes are idle.  Knows ticks only: what a tick is, and what a deadline means, is the owner's.
 */
#ifndef TCP_WHEEL_H
#define TCP_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WHEEL_LEVELS = 6,
    WHEEL_SLOT_BITS = 6,
    WHEEL_HEADS = 5 * 64 + 4,
};
#define WHEEL_NONE      UINT32_MAX
#define WHEEL_INDEX_MAX 0x7ffffffeu /* largest object index */
#define WHEEL_DELAY_MAX 0x7fffffffu /* farthest deadline from now, in ticks (24 days of milliseconds) */

/* Lies in each object.  All zero when idle. */
struct wheel_node {
    uint32_t next;          /* index + 1 of the next object in the slot, 0: none */
    uint32_t prev;          /* index + 1 of the previous one, or 2^31 + head when it is the first; 0: idle */
    uint32_t deadline_tick; /* while scheduled */
};

struct wheel {
    uint8_t *base; /* of the slab */
    uint32_t stride, offset;
    uint32_t now_tick; /* all up to here has been popped */
    uint32_t count;    /* scheduled nodes */
    uint64_t occupied[WHEEL_LEVELS];
    uint32_t heads[WHEEL_HEADS]; /* index + 1 of the first object, 0: empty */
};

/* An empty wheel at now_tick, for objects of stride bytes at base that have their node at offset. */
void wheel_init(struct wheel *w, void *base, uint32_t stride, uint32_t offset, uint32_t now_tick);

/* The slab, with its nodes, was moved to base. */
void wheel_rebase(struct wheel *w, void *base);

static inline struct wheel_node *wheel_node(const struct wheel *w, uint32_t index)
{
    return (struct wheel_node *)(w->base + (size_t)index * w->stride + w->offset);
}

static inline bool wheel_is_scheduled(const struct wheel *w, uint32_t index)
{
    return wheel_node(w, index)->prev != 0;
}

/* Schedules index, or moves it when it is scheduled, to deadline_tick: at most WHEEL_DELAY_MAX after now.  A deadline that
 * is not after now is due at the tick after now, so that a timer that sets itself cannot hold up wheel_pop().  O(1). */
void wheel_schedule(struct wheel *w, uint32_t index, uint32_t deadline_tick);

/* Cancels index; nothing happens when it is idle.  O(1). */
void wheel_cancel(struct wheel *w, uint32_t index);

/* Takes one node that is due at or before now_tick off the wheel and returns its index; WHEEL_NONE when there is none, and
 * then the wheel stands at now_tick.  Nodes come in the order of their deadlines; those of one tick in an order that
 * depends on the calls alone.  Between two calls any node may be scheduled or cancelled.  now_tick never goes back.
 * O(1) amortized: a node is moved down at most five times. */
uint32_t wheel_pop(struct wheel *w, uint32_t now_tick);

/* Writes the next tick at which wheel_pop() has something to do and returns true; false when the wheel is empty.  Never later
 * than the next deadline.  It is that deadline itself when that is in now's run of 64 ticks; else it is the tick at
 * which the nodes around it are to be moved down, where wheel_pop() may return none (at most five times per timer).  O(1). */
bool wheel_next_tick(const struct wheel *w, uint32_t *tick);

/* Aborts the program when links, levels or counts disagree.  O(nodes). */
void wheel_check(const struct wheel *w);

#endif
