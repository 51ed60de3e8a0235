/* templates.c: finding, making and retiring templates. */
#include "coro/templates.h"
#include "coro/offsets.h"

#include <assert.h>
#include <stdlib.h>

enum {
    CREDIT_START = 16,
    CREDIT_MAX = 1 << 16,
    REMADE_MAX = 6,
    PROBES = 8,
};

struct coro_templates *templates_new(uint64_t owner_bytes)
{
    struct coro_templates *t = calloc(1, sizeof *t);

    if (t != NULL)
        t->owner_bytes = owner_bytes;
    return t;
}

void templates_free(struct coro_templates *t)
{
    if (t == NULL)
        return;
    for (uint32_t i = 0; i < TEMPLATE_COUNT_MAX; i++)
        free(t->at[i]);
    free(t);
}

/* Null when its neighbourhood is full: images there are stored whole. */
static struct template_place *find_place(struct coro_templates *t, uint64_t pc, uint32_t words)
{
    uint32_t hash = (uint32_t)(((pc ^ ((uint64_t)words << 48)) * 0x9e3779b97f4a7c15u) >> 40);

    for (uint32_t i = 0; i < PROBES; i++) {
        struct template_place *p = &t->places[(hash + i) % TEMPLATE_PLACES];

        if (p->pc == pc && p->words == words)
            return p;
        if (p->words == 0) {
            *p = (struct template_place){.pc = pc, .words = (uint16_t)words, .template_id = TEMPLATE_NONE};
            return p;
        }
    }
    return NULL;
}

static void free_template(struct coro_templates *t, uint16_t id)
{
    free(t->at[id]);
    t->at[id] = NULL;
    t->count--;
}

static bool make(struct coro_templates *t, struct template_place *p, const uint64_t *end, uintptr_t owner)
{
    struct coro_template *m = aligned_alloc(_Alignof(struct coro_template), sizeof *m);
    uint16_t id = 0;

    while (id < TEMPLATE_COUNT_MAX && t->at[id] != NULL)
        id++;
    if (m == NULL || id == TEMPLATE_COUNT_MAX) {
        free(m);
        p->off = true;
        return false;
    }
    *m = (struct coro_template){.words = p->words, .place = (uint16_t)(p - t->places), .owner = owner};
    for (uint32_t i = TEMPLATE_WORDS_MAX - p->words; i < TEMPLATE_WORDS_MAX; i++) {
        m->image[i] = end[(int)i - TEMPLATE_WORDS_MAX];
        m->moves |= (uint64_t)(m->image[i] - owner < t->owner_bytes) << i;
    }
    t->at[id] = m;
    t->count++;
    p->template_id = id;
    p->credit = CREDIT_START << p->remade;
    return true;
}

static bool remake(struct coro_templates *t, struct template_place *p, const uint64_t *end, uintptr_t owner)
{
    struct coro_template *old = t->at[p->template_id];

    p->remade++;
    old->retired = true;
    if (old->users == 0)
        free_template(t, p->template_id);
    return make(t, p, end, owner);
}

/* Mismatches outweigh the hits since the template was made, so that it is time for another. */
static bool is_unlucky(struct template_place *p, struct coro_template *m)
{
    int64_t credit = (int64_t)p->credit + m->hits - 1;

    m->hits = 0;
    p->credit = credit < CREDIT_MAX ? (int32_t)credit : CREDIT_MAX;
    return p->credit <= 0 && p->remade < REMADE_MAX;
}

static void turn(struct coro_template *m, uintptr_t owner)
{
    uint64_t delta = owner - m->owner;

    m->owner = owner;
    for (uint64_t moves = m->moves; moves != 0; moves &= moves - 1)
        m->image[__builtin_ctzll(moves)] += delta;
}

uint16_t templates_match(struct coro_templates *t, const void *top, uint32_t words, uintptr_t owner, uint64_t *differs)
{
    const uint64_t *end = top;
    struct template_place *p = find_place(t, end[(int)CORO_WORD_PC - (int)words], words);
    struct coro_template *m;

    if (p == NULL || p->off)
        return TEMPLATE_NONE;
    if (p->template_id == TEMPLATE_NONE && !make(t, p, end, owner))
        return TEMPLATE_NONE;
    m = t->at[p->template_id];
    turn(m, owner);
    *differs = 0;
    for (uint32_t i = TEMPLATE_WORDS_MAX - words; i < TEMPLATE_WORDS_MAX; i++)
        *differs |= (uint64_t)(m->image[i] != end[(int)i - TEMPLATE_WORDS_MAX]) << i;
    if (*differs == 0) {
        m->hits++;
    } else if (is_unlucky(p, m)) {
        if (!remake(t, p, end, owner))
            return TEMPLATE_NONE;
        *differs = 0;
    }
    return p->template_id;
}

void templates_refuse(struct coro_templates *t, uint16_t id)
{
    struct template_place *p = &t->places[t->at[id]->place];

    if (p->remade >= REMADE_MAX && p->credit <= 0)
        p->off = true;
}

void templates_use(struct coro_templates *t, uint16_t id)
{
    t->at[id]->users++;
    t->users++;
}

void templates_leave(struct coro_templates *t, uint16_t id)
{
    struct coro_template *m = t->at[id];

    assert(m->users > 0);
    t->users--;
    if (--m->users == 0 && m->retired)
        free_template(t, id);
}
