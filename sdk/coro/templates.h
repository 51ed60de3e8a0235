/*
 * templates.h: one image for many coroutines that wait at the same place with the same stack.
 *
 *   image   ... | request | r15 | r14 | ... | rbx = owner | pc | ... |  end      kept once for (pc, size)
 *   moves          0         0     0            1           0              these words are addresses in the owner
 *
 * The template is turned to an owner by moving those words; it then is that coroutine's image, or all of it but a few patched
 * words.  The comparison is exact, so a template can be unlucky but never wrong.  An unlucky one, which most images do not
 * match, is made again from a later image; old ones live on until nobody uses them.
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

struct coro_template {
    _Alignas(64) uint64_t image[TEMPLATE_WORDS_MAX]; /* the last words of it, so that its end is aligned */
    uint64_t moves;                                  /* bit per word of image */
    uintptr_t owner;                                 /* the one it is turned to */
    uint16_t words;
    uint16_t place;
    bool retired;   /* a newer one has its place */
    uint32_t hits;  /* since its place was last looked at */
    uint64_t users; /* coroutines that refer to it */
};

/* Where coroutines wait: (pc, words), and the template for it now. */
struct template_place {
    uint64_t pc;
    uint16_t words;
    uint16_t template_id;
    int32_t credit; /* falls with each mismatch, rises with each hit; at 0 the template is made again */
    uint8_t remade;
    bool off; /* images differ too much here */
};

struct coro_templates {
    struct coro_template *at[TEMPLATE_COUNT_MAX];
    struct template_place places[TEMPLATE_PLACES];
    uint64_t owner_bytes;
    uint32_t count;
    uint32_t place_count;
    uint64_t users;
};

struct coro_templates *templates_new(uint64_t owner_bytes);
void templates_free(struct coro_templates *t);

/* The template for the image of words words that ends at top, 1 to TEMPLATE_WORDS_MAX, made if there is none and turned to
 * owner; TEMPLATE_NONE: store it whole.  differs gets a bit for each word of the template that is not so. */
uint16_t templates_match(struct coro_templates *t, const void *top, uint32_t words, uintptr_t owner, uint64_t *differs);

/* Says that an image was stored whole after all, because too much of it differed. */
void templates_refuse(struct coro_templates *t, uint16_t id);

/* A coroutine begins or ceases to refer to a template. */
void templates_use(struct coro_templates *t, uint16_t id);
void templates_leave(struct coro_templates *t, uint16_t id);

#endif
