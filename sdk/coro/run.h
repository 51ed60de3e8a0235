/*
 * run.h: the calls that a loop makes for every event, inlined into it.
 *
 *   for a batch:     coro_prefetch_image() of each, one right after the other
 *   for each event:  request = coro_load(s, co, owner);      the stack is in place: the request can be served into it
 *                    outcome = coro_run(s, result);          the handler goes on until it waits again or ends
 *
 * Between load and run the scheduler must not be used otherwise.  A handler must not run coroutines itself, of no scheduler.
 */
#ifndef CORO_RUN_H
#define CORO_RUN_H

#include "coro/coro.h"
#include "coro/enter.h"
#include "coro/images.h"
#include "coro/offsets.h"
#include "coro/save.h"
#include "coro/stacks.h"
#include "coro/templates.h"

#include <assert.h>
#include <string.h>

/* Private but for the inlined functions below. */
struct coro_sched {
    void *sp; /* of the coroutine that is to run, or was left last; null when its handler returned */
    void *host_sp, *host_fp, *host_pc;
    char *top;   /* of the stack in use */
    void *owner; /* of the current coroutine */
    struct coro *current;
    bool quick;  /* shared stack, no poison */
    bool direct; /* quick, and no templates: images are just copied */
    coro_save_fn *save_large;
    struct coro_images images;
    struct coro_templates *templates;
    struct coro_stack run_stack;
    struct coro_stacks stacks;
    struct coro_options options;
    size_t run_guard_bytes;
    uint64_t started, ended, dropped, too_deep, no_memory;
};
_Static_assert(offsetof(struct coro_sched, sp) == CORO_OFFSET_SP, "switch_*.S");
_Static_assert(offsetof(struct coro_sched, host_sp) == CORO_OFFSET_HOST_SP, "switch_*.S");
_Static_assert(offsetof(struct coro_sched, host_fp) == CORO_OFFSET_HOST_FP, "switch_*.S");
_Static_assert(offsetof(struct coro_sched, host_pc) == CORO_OFFSET_HOST_PC, "switch_*.S");

/* The scheduler whose coroutine runs or has run last in this thread, for coro_wait(). */
extern _Thread_local __attribute__((tls_model("initial-exec"))) struct coro_sched *coro_running_;

/* The general forms, out of line. */
void coro_load_(struct coro_sched *s, struct coro *co);
enum coro_outcome coro_park_(struct coro_sched *s, struct coro *co);
bool coro_prepare_(struct coro_sched *s, struct coro *co, void (*fn)(void *owner), void *owner);

/* The scheduler of the coroutine that calls this; null outside of coroutines. */
static inline struct coro_sched *coro_here(void)
{
    return coro_running_ != NULL && coro_running_->current != NULL ? coro_running_ : NULL;
}

enum { CORO_COPIED_HERE = 8 }; /* units */

/* Two machine words at once: SSE2 and NEON are part of the base architectures. */
typedef uint64_t coro_pair __attribute__((vector_size(16), may_alias));

/* Whole units from end to end: the bytes below the stack pointer that come along are dead.  Small images are copied here, for
 * the call and the dispatch of memcpy take longer than they. */
static inline __attribute__((always_inline, no_sanitize("address"))) void
coro_copy_units(char *to_end, const char *from_end, size_t units)
{
    coro_pair *to = (coro_pair *)(void *)to_end;
    const coro_pair *from = (const coro_pair *)(const void *)from_end;

    if (__builtin_expect(units > CORO_COPIED_HERE, 0)) {
        memcpy(to_end - units * IMAGE_UNIT, from_end - units * IMAGE_UNIT, units * IMAGE_UNIT);
        return;
    }
    for (size_t i = 0; i < units; i++) {
        coro_pair high = from[-1], low = from[-2];

        to[-1] = high;
        to[-2] = low;
        to -= 2;
        from -= 2;
    }
}

/* True when the words from sp to top are the template's, which is turned to their owner.  Word by word, for a load that
 * spans two words just pushed has to wait until both are in the cache. */
static inline bool coro_is_template(const struct coro_template *m, const void *sp, const void *top)
{
    const uint64_t *own = top, *same = m->image + TEMPLATE_WORDS_MAX;
    uint64_t differs = 0;

    if ((size_t)((uintptr_t)top - (uintptr_t)sp) != (size_t)m->words * 8)
        return false;
    for (int i = -(int)m->words; i < 0; i++)
        differs |= own[i] ^ same[i];
    return differs == 0;
}

static inline size_t coro_units(size_t words)
{
    return (words + 3) / 4;
}

/* Its image is on the way into the cache: for the coroutine that comes about ten events later.  struct coro itself is the owner's
 * to fetch before.  always_inline, or gcc takes it for a function without effect and leaves the call out. */
static inline __attribute__((always_inline)) void coro_prefetch_image(const struct coro_sched *s, const struct coro *co)
{
    const char *p;

    if (co->state == CORO_KEPT) {
        p = images_at(&s->images, co->image);
        __builtin_prefetch(p, 1);
        if (co->words > 4)
            __builtin_prefetch(p + 64, 1);
        for (size_t line = 2; line * 8 <= co->words && line < 24; line++)
            __builtin_prefetch(p + line * 64, 1);
    } else if (co->state == CORO_PATCHED) {
        __builtin_prefetch(images_at(&s->images, co->image), 1);
    } else if (co->state == CORO_SEPARATE) {
        __builtin_prefetch(s->stacks.at[co->image].sp, 1);
        __builtin_prefetch((char *)s->stacks.at[co->image].sp + 64, 1);
    }
}

/* The template's image, turned to the current owner.  The words that move are stored after the copy, not before it, for the same
 * reason. */
static inline void coro_load_template_(struct coro_sched *s, struct coro *co)
{
    struct coro_template *m = s->templates->at[co->words];
    uint64_t *end = (uint64_t *)(void *)s->top, delta = (uintptr_t)s->owner - m->owner;

    s->sp = s->top - (size_t)m->words * 8;
    coro_copy_units(s->top, (const char *)(m->image + TEMPLATE_WORDS_MAX), coro_units(m->words));
    m->owner = (uintptr_t)s->owner;
    for (uint64_t moves = m->moves; moves != 0; moves &= moves - 1) {
        int i = __builtin_ctzll(moves);

        end[i - TEMPLATE_WORDS_MAX] = m->image[i] += delta;
    }
}

/* Puts a waiting coroutine's stack in place; returns the request it waits with.  owner is what it was started with, at the same
 * address or moved together with what it contains. */
static inline __attribute__((always_inline)) uint64_t coro_load(struct coro_sched *s, struct coro *co, void *owner)
{
    assert(coro_here() == NULL && s->current == NULL && co->state != CORO_NEW);
    s->current = co;
    s->owner = owner;
    if (co->state == CORO_TEMPLATED) {
        coro_load_template_(s, co);
    } else if (co->state == CORO_KEPT) {
        size_t units = coro_units(co->words);

        s->sp = s->top - (size_t)co->words * 8;
        coro_copy_units(s->top, (const char *)images_at(&s->images, co->image) + units * IMAGE_UNIT, units);
    } else {
        coro_load_(s, co);
    }
    return *(const uint64_t *)s->sp;
}

/* Lets the loaded coroutine go on: its coro_wait() returns result.  Afterwards its stack is stored again. */
static inline __attribute__((always_inline)) enum coro_outcome coro_run(struct coro_sched *s, struct coro_result result)
{
    struct coro *co;

    coro_running_ = s;
    coro_enter(s, result);
    co = s->current;
    s->current = NULL;
    if (s->direct && co->state == CORO_KEPT) {
        size_t words = (size_t)((uintptr_t)s->top - (uintptr_t)s->sp) / 8, units = coro_units(words);
        char *slot_end;

        if (units != coro_units(co->words))
            return coro_park_(s, co);
        co->words = (uint16_t)words;
        slot_end = (char *)images_at(&s->images, co->image) + units * IMAGE_UNIT;
        if (units > CORO_COPIED_HERE)
            s->save_large(slot_end, s->top, units);
        else
            coro_copy_units(slot_end, s->top, units);
        return CORO_WAITS;
    }
    if (s->quick && co->state == CORO_TEMPLATED && coro_is_template(s->templates->at[co->words], s->sp, s->top)) {
        s->templates->at[co->words]->hits++;
        return CORO_WAITS;
    }
    return coro_park_(s, co);
}

/* Begins fn(owner) in a new coroutine and runs it until it waits or ends. */
static inline __attribute__((always_inline)) enum coro_outcome coro_start(struct coro_sched *s, struct coro *co,
                                                                          void (*fn)(void *owner), void *owner)
{
    assert(coro_here() == NULL && s->current == NULL && co->state == CORO_NEW);
    if (!coro_prepare_(s, co, fn, owner))
        return CORO_NO_MEMORY;
    return coro_run(s, (struct coro_result){0, 0});
}

#endif
