/*
 * wheel.c: see wheel.h.
 */
#undef NDEBUG /* wheel_check() must hold in every build; nothing on the fast path asserts */
#include "tcp/wheel.h"

#include <assert.h>
#include <string.h>

#define HEAD_BIT 0x80000000u

static uint32_t digit(uint32_t tick, uint32_t level)
{
    return tick >> (WHEEL_SLOT_BITS * level) & 63;
}

static uint32_t *head_of(struct wheel *w, uint32_t level, uint32_t slot)
{
    return &w->heads[level * 64 + slot];
}

void wheel_init(struct wheel *w, void *base, uint32_t stride, uint32_t offset, uint32_t now_tick)
{
    memset(w, 0, sizeof *w);
    w->base = base;
    w->stride = stride;
    w->offset = offset;
    w->now_tick = now_tick;
}

void wheel_rebase(struct wheel *w, void *base)
{
    w->base = base;
}

/* Level and slot of a deadline after now: the highest digit that differs. */
static void place(const struct wheel *w, uint32_t tick, uint32_t *level, uint32_t *slot)
{
    uint32_t differs = tick ^ w->now_tick;

    *level = differs ? (31 - (uint32_t)__builtin_clz(differs)) / WHEEL_SLOT_BITS : 0;
    *slot = digit(tick, *level);
}

static void link_node(struct wheel *w, uint32_t index)
{
    struct wheel_node *node = wheel_node(w, index);
    uint32_t level, slot, *head;

    place(w, node->deadline_tick, &level, &slot);
    head = head_of(w, level, slot);
    node->next = *head;
    node->prev = HEAD_BIT | (level * 64 + slot);
    if (*head != 0)
        wheel_node(w, *head - 1)->prev = index + 1;
    *head = index + 1;
    w->occupied[level] |= 1ull << slot;
}

static void unlink_node(struct wheel *w, struct wheel_node *node)
{
    if (node->next != 0)
        wheel_node(w, node->next - 1)->prev = node->prev;
    if (node->prev & HEAD_BIT) {
        uint32_t head = node->prev & ~HEAD_BIT;

        w->heads[head] = node->next;
        if (node->next == 0)
            w->occupied[head / 64] &= ~(1ull << head % 64);
    } else {
        wheel_node(w, node->prev - 1)->next = node->next;
    }
    node->next = node->prev = 0;
}

void wheel_schedule(struct wheel *w, uint32_t index, uint32_t deadline_tick)
{
    struct wheel_node *node = wheel_node(w, index);

    if (node->prev != 0)
        unlink_node(w, node);
    else
        w->count++;
    if (deadline_tick - w->now_tick - 1 >= WHEEL_DELAY_MAX)
        deadline_tick = w->now_tick + 1;
    node->deadline_tick = deadline_tick;
    link_node(w, index);
}

void wheel_cancel(struct wheel *w, uint32_t index)
{
    struct wheel_node *node = wheel_node(w, index);

    if (node->prev == 0)
        return;
    unlink_node(w, node);
    w->count--;
}

/* First slot of level at or after from, cyclically; 64: the level is empty. */
static uint32_t next_slot(const struct wheel *w, uint32_t level, uint32_t from)
{
    uint64_t bits = w->occupied[level];

    if (bits == 0)
        return 64;
    bits = bits >> from | (from ? bits << (64 - from) : 0);
    return (from + (uint32_t)__builtin_ctzll(bits)) & 63;
}

bool wheel_next_tick(const struct wheel *w, uint32_t *tick)
{
    uint32_t level, shift, slot, step;

    for (level = 0; level < WHEEL_LEVELS; level++) {
        if (w->occupied[level] != 0)
            break;
    }
    if (level == WHEEL_LEVELS)
        return false;
    shift = WHEEL_SLOT_BITS * level;
    slot = next_slot(w, level, digit(w->now_tick, level));
    step = slot - digit(w->now_tick, level);
    if (level == WHEEL_LEVELS - 1)
        step &= 3;
    *tick = ((w->now_tick >> shift) + step) << shift;
    return true;
}

/* now_tick has just entered a slot of level: its nodes share one digit more with now and move down. */
static void cascade(struct wheel *w, uint32_t level)
{
    uint32_t slot = digit(w->now_tick, level);
    uint32_t next = *head_of(w, level, slot);

    *head_of(w, level, slot) = 0;
    w->occupied[level] &= ~(1ull << slot);
    while (next != 0) {
        uint32_t index = next - 1;

        next = wheel_node(w, index)->next;
        if (next != 0)
            __builtin_prefetch(wheel_node(w, next - 1));
        link_node(w, index);
    }
}

/* Moves now to tick, which is not after the next one of interest. */
static void enter(struct wheel *w, uint32_t tick)
{
    w->now_tick = tick;
    for (uint32_t level = WHEEL_LEVELS - 1; level > 0; level--) {
        if ((tick & ((1u << (WHEEL_SLOT_BITS * level)) - 1)) == 0 && w->occupied[level] & 1ull << digit(tick, level))
            cascade(w, level);
    }
}

uint32_t wheel_pop(struct wheel *w, uint32_t now_tick)
{
    for (;;) {
        uint32_t slot = w->now_tick & 63;
        uint32_t tick;

        if (w->occupied[0] & 1ull << slot) {
            uint32_t index = w->heads[slot] - 1;
            struct wheel_node *node = wheel_node(w, index);

            unlink_node(w, node);
            w->count--;
            return index;
        }
        if (now_tick == w->now_tick)
            return WHEEL_NONE;
        if (!wheel_next_tick(w, &tick) || tick - w->now_tick > now_tick - w->now_tick) {
            w->now_tick = now_tick;
            return WHEEL_NONE;
        }
        enter(w, tick);
    }
}

void wheel_check(const struct wheel *w)
{
    uint32_t count = 0;

    for (uint32_t head = 0; head < WHEEL_HEADS; head++) {
        uint32_t prev = HEAD_BIT | head;

        assert((w->heads[head] != 0) == ((w->occupied[head / 64] >> head % 64 & 1) != 0));
        for (uint32_t next = w->heads[head]; next != 0; count++) {
            const struct wheel_node *node = wheel_node(w, next - 1);
            uint32_t level, slot;

            place(w, node->deadline_tick, &level, &slot);
            assert(node->prev == prev && level * 64 + slot == head);
            prev = next;
            next = node->next;
        }
    }
    assert(count == w->count);
}
