/* sched.c: making schedulers, and the ways in and out of a coroutine that are not the plain copy. */
#include "coro/overflow.h"
#include "coro/run.h"
#include "coro/templates.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUN_STACK_BYTES = 8 << 20,
    SEPARATE_STACK_BYTES = 256 << 10,
    STACK_BYTES_MIN = 16 << 10,
    RUN_GUARD_BYTES = 1 << 20, /* a frame that steps over the guard has an array larger than this */
    SEPARATE_GUARD_BYTES = 64 << 10,
    PAGE = 4096,
    POISON = 0xDB,
};
#define IMAGE_SPACE_DEFAULT ((size_t)32 << 30)
#define IMAGE_SPACE_MAX     ((size_t)128 << 30)

void coro_start_(void);

_Thread_local struct coro_sched *coro_running_;

static int check_options(struct coro_options *o)
{
    size_t usual = o->backend == CORO_SHARED ? RUN_STACK_BYTES : SEPARATE_STACK_BYTES;

    if (o->backend != CORO_SHARED && o->backend != CORO_SEPARATE_STACKS)
        return -EINVAL;
    if (o->stack_bytes == 0)
        o->stack_bytes = usual;
    if (o->saved_bytes_max == 0)
        o->saved_bytes_max = IMAGE_BYTES_MAX;
    if (o->image_bytes_max == 0)
        o->image_bytes_max = IMAGE_SPACE_DEFAULT;
    if (o->owner_bytes == 0)
        o->owner_bytes = 1;
    o->stack_bytes = (o->stack_bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
    if (o->stack_bytes < STACK_BYTES_MIN || o->saved_bytes_max > IMAGE_BYTES_MAX ||
        o->image_bytes_max > IMAGE_SPACE_MAX)
        return -EINVAL;
#if defined(__SANITIZE_ADDRESS__)
    if (o->backend == CORO_SHARED)
        return -ENOTSUP; /* the shadow of the run stack would be that of another coroutine */
#endif
    return 0;
}

static int make_stacks(struct coro_sched *s)
{
    int error;

    if (s->options.backend == CORO_SEPARATE_STACKS) {
        s->stacks.bytes = s->options.stack_bytes;
        s->stacks.guard_bytes = SEPARATE_GUARD_BYTES;
        return 0;
    }
    s->run_guard_bytes = RUN_GUARD_BYTES;
    if (!stack_map(&s->run_stack, s->options.stack_bytes, s->run_guard_bytes, 0))
        return -ENOMEM;
    s->top = s->run_stack.top;
    error = images_init(&s->images, s->options.image_bytes_max);
    if (error == 0 && s->options.templates && (s->templates = templates_new(s->options.owner_bytes)) == NULL)
        error = -ENOMEM;
    return error;
}

int coro_sched_new(const struct coro_options *options, struct coro_sched **out)
{
    struct coro_options o = *options;
    struct coro_sched *s;
    int error = check_options(&o);

    if (error != 0)
        return error;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->options = o;
    s->quick = o.backend == CORO_SHARED && !o.poison;
    s->direct = s->quick && !o.templates;
    s->save_large = coro_choose_save();
    error = make_stacks(s);
    if (error == 0)
        error = overflow_watch(s);
    if (error != 0) {
        coro_sched_free(s);
        return error;
    }
    *out = s;
    return 0;
}

void coro_sched_free(struct coro_sched *s)
{
    if (s == NULL)
        return;
    if (coro_running_ == s)
        coro_running_ = NULL;
    overflow_unwatch(s);
    templates_free(s->templates);
    images_finish(&s->images);
    stacks_finish(&s->stacks);
    stack_unmap(&s->run_stack, s->options.stack_bytes, s->run_guard_bytes);
    free(s);
}

bool coro_prepare_(struct coro_sched *s, struct coro *co, void (*fn)(void *owner), void *owner)
{
    uint64_t *image;

    if (s->options.backend == CORO_SEPARATE_STACKS) {
        uint32_t number = stacks_take(&s->stacks);

        if (number == UINT32_MAX) {
            s->no_memory++;
            return false;
        }
        co->image = number;
        co->state = CORO_SEPARATE;
        s->top = s->stacks.at[number].top;
    }
    image = (uint64_t *)s->top - CORO_WORDS_START;
    memset(image, 0, CORO_WORDS_START * sizeof *image);
    image[CORO_WORD_PC] = (uint64_t)(uintptr_t)coro_start_;
    image[CORO_WORD_FN] = (uint64_t)(uintptr_t)fn;
    image[CORO_WORD_OWNER] = (uint64_t)(uintptr_t)owner;
    s->sp = image;
    s->current = co;
    s->owner = owner;
    s->started++;
    return true;
}

/* Puts the words in place in which this coroutine differs: a bitmap, then the words in order. */
static void apply_patch(const uint64_t *patch, uint64_t *end)
{
    for (uint64_t differs = *patch++; differs != 0; differs &= differs - 1)
        end[__builtin_ctzll(differs) - TEMPLATE_WORDS_MAX] = *patch++;
}

static void make_patch(uint64_t *patch, const uint64_t *end, uint64_t differs)
{
    *patch++ = differs;
    for (; differs != 0; differs &= differs - 1)
        *patch++ = end[__builtin_ctzll(differs) - TEMPLATE_WORDS_MAX];
}

void coro_load_(struct coro_sched *s, struct coro *co)
{
    if (co->state == CORO_SEPARATE) {
        s->top = s->stacks.at[co->image].top;
        s->sp = s->stacks.at[co->image].sp;
        return;
    }
    coro_load_template_(s, co);
    if (co->state == CORO_PATCHED)
        apply_patch(images_at(&s->images, co->image), (uint64_t *)(void *)s->top);
}

static void release(struct coro_sched *s, struct coro *co)
{
    if (co->state == CORO_SEPARATE)
        stacks_give(&s->stacks, co->image);
    if (co->state == CORO_KEPT || co->state == CORO_PATCHED)
        images_give(&s->images, co->image);
    if (co->state == CORO_TEMPLATED || co->state == CORO_PATCHED)
        templates_leave(s->templates, co->words);
    co->state = CORO_NEW;
    co->image = 0;
    co->words = 0;
}

/* A slot of this class for a coroutine that may already have one of another; the template's hold on it is given up. */
static bool take_slot(struct coro_sched *s, struct coro *co, uint32_t units)
{
    bool has = co->state == CORO_KEPT || co->state == CORO_PATCHED;
    uint32_t image = has ? co->image : IMAGE_NONE;

    if (!has || images_units(&s->images, image) != units)
        image = images_take(&s->images, units);
    if (image == IMAGE_NONE)
        return false;
    if (!has || image != co->image)
        release(s, co);
    else if (co->state == CORO_PATCHED)
        templates_leave(s->templates, co->words);
    co->image = image;
    return true;
}

static bool store_whole(struct coro_sched *s, struct coro *co, size_t words)
{
    size_t units = coro_units(words);

    if (!take_slot(s, co, (uint32_t)units))
        return false;
    co->state = CORO_KEPT;
    co->words = (uint16_t)words;
    coro_copy_units((char *)images_at(&s->images, co->image) + units * IMAGE_UNIT, s->top, units);
    return true;
}

static bool store_patched(struct coro_sched *s, struct coro *co, uint16_t id, uint64_t differs, uint32_t units)
{
    templates_use(s->templates, id);
    if (!take_slot(s, co, units)) {
        templates_leave(s->templates, id);
        return false;
    }
    co->state = CORO_PATCHED;
    co->words = id;
    make_patch(images_at(&s->images, co->image), (const uint64_t *)(const void *)s->top, differs);
    return true;
}

/* Stores nothing if a template says it all, a few words if that takes at most half the image's room, else the image. */
static bool store_by_template(struct coro_sched *s, struct coro *co, size_t words)
{
    uint64_t differs = 0;
    uint16_t id = templates_match(s->templates, s->top, (uint32_t)words, (uintptr_t)s->owner, &differs);
    size_t units = coro_units(1 + (size_t)__builtin_popcountll(differs));

    if (id == TEMPLATE_NONE)
        return store_whole(s, co, words);
    if (differs != 0) {
        if (units * 2 <= coro_units(words))
            return store_patched(s, co, id, differs, (uint32_t)units);
        templates_refuse(s->templates, id);
        return store_whole(s, co, words);
    }
    if (co->state == CORO_TEMPLATED && co->words == id)
        return true;
    templates_use(s->templates, id);
    release(s, co);
    co->state = CORO_TEMPLATED;
    co->words = id;
    return true;
}

static bool store(struct coro_sched *s, struct coro *co, size_t words)
{
    if (s->options.backend == CORO_SEPARATE_STACKS) {
        s->stacks.at[co->image].sp = s->sp;
        return true;
    }
    if (s->templates != NULL && words <= TEMPLATE_WORDS_MAX)
        return store_by_template(s, co, words);
    return store_whole(s, co, words);
}

enum coro_outcome coro_park_(struct coro_sched *s, struct coro *co)
{
    enum coro_outcome outcome = CORO_WAITS;
    size_t bytes;

    if (s->sp == NULL) {
        s->ended++;
        release(s, co);
        return CORO_ENDED;
    }
    bytes = (size_t)(s->top - (char *)s->sp);
    if (bytes > s->options.saved_bytes_max) {
        s->too_deep++;
        outcome = CORO_TOO_DEEP;
    } else if (!store(s, co, bytes / 8)) {
        s->no_memory++;
        outcome = CORO_NO_MEMORY;
    }
    if (s->options.poison && s->options.backend == CORO_SHARED)
        memset(s->sp, POISON, bytes);
    if (outcome != CORO_WAITS) {
        s->dropped++;
        release(s, co);
    }
    return outcome;
}

void coro_drop(struct coro_sched *s, struct coro *co)
{
    assert(s->current != co);
    if (co->state == CORO_NEW)
        return;
    s->dropped++;
    release(s, co);
}

bool coro_trim(struct coro_sched *s)
{
    return images_trim(&s->images);
}

bool coro_has_spare(const struct coro_sched *s)
{
    return s->images.spare != 0 && s->images.touched > 1;
}

void coro_stats(const struct coro_sched *s, struct coro_stats *stats)
{
    *stats = (struct coro_stats){
        .started = s->started,
        .ended = s->ended,
        .dropped = s->dropped,
        .too_deep = s->too_deep,
        .no_memory = s->no_memory,
        .live = s->started - s->ended - s->dropped,
        .images = s->images.live,
        .image_bytes = s->images.live_units * IMAGE_UNIT,
        .image_bytes_held = images_held_bytes(&s->images),
        .templates = s->templates != NULL ? s->templates->count : 0,
        .templated = s->templates != NULL ? s->templates->users : 0,
        .stacks = s->stacks.live,
    };
}

size_t coro_stored_bytes(const struct coro_sched *s, const struct coro *co)
{
    switch ((enum coro_state)co->state) {
    case CORO_KEPT:
    case CORO_PATCHED:
        return (size_t)images_units(&s->images, co->image) * IMAGE_UNIT;
    case CORO_SEPARATE:
        return s->stacks.bytes;
    case CORO_NEW:
    case CORO_TEMPLATED:
        break;
    }
    return 0;
}

size_t coro_live_bytes(const struct coro_sched *s, const struct coro *co)
{
    switch ((enum coro_state)co->state) {
    case CORO_KEPT:
        return (size_t)co->words * 8;
    case CORO_TEMPLATED:
    case CORO_PATCHED:
        return (size_t)s->templates->at[co->words]->words * 8;
    case CORO_SEPARATE:
        return (size_t)(s->stacks.at[co->image].top - (char *)s->stacks.at[co->image].sp);
    case CORO_NEW:
        break;
    }
    return 0;
}
