/* templates.c: finding, making and retiring templates. */
#include "coro/templates.h"
#include "coro/offsets.h"

#include <assert.h>
#include <stdlib.h>

enum {
    CREDIT_START = 16,
    CREDIT_MAX = 256,
    REMADE_MAX = 8,
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

static bool make(struct coro_templates *t, struct template_place *p, const uint64_t *image, uintptr_t owner)
{
    struct template *m = calloc(1, sizeof *m);
    uint16_t id = 0;

    while (id < TEMPLATE_COUNT_MAX && t->at[id] != NULL)
        id++;
    if (m == NULL || id == TEMPLATE_COUNT_MAX) {
        free(m);
        p->off = true;
        return false;
    }
    *m = (struct template){.pc = p->pc, .words = p->words, .place = (uint16_t)(p - t->places), .owner = owner};
    for (uint32_t i = 0; i < p->words; i++) {
        m->word[i] = image[i];
        m->moves[i] = image[i] - owner < t->owner_bytes ? UINT64_MAX : 0;
    }
    t->at[id] = m;
    t->count++;
    p->template_id = id;
    p->credit = (int16_t)(CREDIT_START << (p->remade < 4 ? p->remade : 4));
    return true;
}

static bool remake(struct coro_templates *t, struct template_place *p, const uint64_t *image, uintptr_t owner)
{
    struct template *old = t->at[p->template_id];

    p->remade++;
    old->retired = true;
    if (old->users == 0)
        free_template(t, p->template_id);
    return make(t, p, image, owner);
}

static uint64_t compare(const struct template *m, const uint64_t *image, uintptr_t owner)
{
    uint64_t delta = owner - m->owner, any = 0, differs = 0;

    for (uint32_t i = 0; i < m->words; i++)
        any |= (m->word[i] + (m->moves[i] & delta)) ^ image[i];
    if (any != 0)
        for (uint32_t i = 0; i < m->words; i++)
            differs |= (uint64_t)(m->word[i] + (m->moves[i] & delta) != image[i]) << i;
    return differs;
}

uint16_t templates_match(struct coro_templates *t, const uint64_t *image, uint32_t words, uintptr_t owner,
                         uint64_t *differs)
{
    struct template_place *p = find_place(t, image[CORO_WORD_PC], words);

    if (p == NULL || p->off)
        return TEMPLATE_NONE;
    if (p->template_id == TEMPLATE_NONE && !make(t, p, image, owner))
        return TEMPLATE_NONE;
    *differs = compare(t->at[p->template_id], image, owner);
    if (*differs == 0) {
        p->credit += p->credit < CREDIT_MAX;
    } else if (p->remade < REMADE_MAX && --p->credit <= 0) {
        if (!remake(t, p, image, owner))
            return TEMPLATE_NONE;
        *differs = 0;
    }
    return p->template_id;
}

void templates_refuse(struct coro_templates *t, uint16_t id)
{
    struct template_place *p = &t->places[t->at[id]->place];

    if (p->remade >= REMADE_MAX)
        p->off = true;
}

void templates_write(const struct coro_templates *t, uint16_t id, uintptr_t owner, void *top)
{
    const struct template *m = t->at[id];
    uint64_t *image = (uint64_t *)top - m->words;
    uint64_t delta = owner - m->owner;

    for (uint32_t i = 0; i < m->words; i++)
        image[i] = m->word[i] + (m->moves[i] & delta);
}

void templates_use(struct coro_templates *t, uint16_t id)
{
    t->at[id]->users++;
    t->users++;
}

void templates_leave(struct coro_templates *t, uint16_t id)
{
    struct template *m = t->at[id];

    assert(m->users > 0);
    t->users--;
    if (--m->users == 0 && m->retired)
        free_template(t, id);
}
