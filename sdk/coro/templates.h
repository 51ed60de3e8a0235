/*
 * templates.h: one image for many coroutines that wait at the same place with the same stack.
 *
 *   template   | request | r15 | r14 | ... | rbx = owner | pc | ... |      kept once for (pc, size)
 *   moves      |    0    |  0  |  0  | ... |     ~0      | 0  | ... |      word moves with the owner
 *   coroutine  = template + (moves & (its owner - the template's owner)), word for word, or with a few words patched
 *
 * The comparison is exact, so a template can be unlucky but never wrong.  An unlucky one, which most images do not match, is made
 * again from a later image; old ones live on until nobody uses them.
 */
#ifndef CORO_TEMPLATES_H
#define CORO_TEMPLATES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    TEMPLATE_WORDS_MAX = 64, /* 512 bytes: larger images differ too much */
    TEMPLATE_COUNT_MAX = 1024,
    TEMPLATE_PLACES = 2048,
    TEMPLATE_NONE = UINT16_MAX,
};

struct template
{
    uint64_t pc;
    uint16_t words;
    uint16_t place;
    bool retired;    /* a newer one has its place */
    uint64_t users;  /* coroutines that refer to it */
    uintptr_t owner; /* of the image it was made from */
    uint64_t word[TEMPLATE_WORDS_MAX];
    uint64_t moves[TEMPLATE_WORDS_MAX];
};

/* Where coroutines wait: (pc, words), and the template for it now. */
struct template_place {
    uint64_t pc;
    uint16_t words;
    uint16_t template_id;
    int16_t credit; /* falls with each mismatch; at 0 the template is made again */
    uint8_t remade;
    bool off; /* images differ too much here */
};

struct coro_templates {
    struct template *at[TEMPLATE_COUNT_MAX];
    struct template_place places[TEMPLATE_PLACES];
    uint64_t owner_bytes;
    uint32_t count;
    uint32_t place_count;
    uint64_t users;
};

struct coro_templates *templates_new(uint64_t owner_bytes);
void templates_free(struct coro_templates *t);

/* The template for an image of 1 to TEMPLATE_WORDS_MAX words, made if there is none; TEMPLATE_NONE: store it whole.  differs
 * gets one bit for each word that the template does not say. */
uint16_t templates_match(struct coro_templates *t, const uint64_t *image, uint32_t words, uintptr_t owner,
                         uint64_t *differs);

/* Says that an image was stored whole after all, because too much of it differed. */
void templates_refuse(struct coro_templates *t, uint16_t id);

/* Writes the image of this owner's coroutine so that it ends at top. */
void templates_write(const struct coro_templates *t, uint16_t id, uintptr_t owner, void *top);

/* A coroutine begins or ceases to refer to a template. */
void templates_use(struct coro_templates *t, uint16_t id);
void templates_leave(struct coro_templates *t, uint16_t id);

#endif
