/*
 * coro.h: asymmetric coroutines in C: blocking handlers, millions at a time, on one stack a thread.
 *
 *   run stack of the thread              images, 32-byte classes
 *   top ─┬───────────────────┐  park     ┌─────────────┐
 *        │ live bytes of the │ ────────> │ [sp, top)   │ one per suspended coroutine,
 *   sp ──┴───────────────────┘ <──────── └─────────────┘ or none: a template says the same
 *        guard pages             load
 *
 * The owner embeds struct coro (8 bytes, zero: never started) and calls coro_start() when there is something to do; the
 * handler waits in coro_wait().  The hot calls are in run.h.  A second backend gives each coroutine a mapped stack of its own, for
 * debuggers and sanitizers.  Knows nothing of connections: an owner is an address, a request is a word.
 */
#ifndef CORO_CORO_H
#define CORO_CORO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct coro_sched;

enum coro_state {
    CORO_NEW = 0,   /* not started, or ended */
    CORO_KEPT,      /* has an image slot: image, words */
    CORO_TEMPLATED, /* is what template words says: no slot */
    CORO_PATCHED,   /* is what template words says, but for the words in slot image */
    CORO_SEPARATE,  /* has stack number image */
};

/* A coroutine as its owner keeps it.  All fields but tag are private. */
struct coro {
    uint32_t image;
    uint16_t words; /* of 8 bytes, live on the stack; or the template's number */
    uint8_t state;  /* enum coro_state */
    uint8_t tag;    /* the owner's: what the coroutine waits for, say */
};
_Static_assert(sizeof(struct coro) == 8, "a coroutine costs its owner one word");

/* How a stay in the coroutine ended.  All but CORO_WAITS leave struct coro as new. */
enum coro_outcome {
    CORO_WAITS = 0, /* in coro_wait() */
    CORO_ENDED,     /* the handler returned */
    CORO_TOO_DEEP,  /* it waited with more than saved_bytes_max on its stack: dropped */
    CORO_NO_MEMORY, /* there is no room for its image or stack: dropped, or never begun */
};

enum coro_backend {
    CORO_SHARED = 0,          /* one run stack, images */
    CORO_SEPARATE_STACKS = 1, /* a mapped stack each: pointers into it stay good, tools understand it */
};

struct coro_options {
    enum coro_backend backend;
    bool templates;         /* idle coroutines whose images agree share one */
    bool poison;            /* vacated stack is filled with 0xDB, so that a stale pointer is seen */
    size_t stack_bytes;     /* of the run stack, default 8 MiB; or of each separate stack, default 256 KiB */
    size_t saved_bytes_max; /* deepest coroutine that may wait, up to and by default 64 KiB */
    size_t image_bytes_max; /* address space for images, default 32 GiB, at most 128 GiB; memory is used as it fills */
    size_t owner_bytes;     /* an image's word in [owner, owner + owner_bytes) moves with the owner; default 1 */
    /* What an overflow message calls an owner; runs in a signal handler.  Null: by its address. */
    uint64_t (*owner_id)(const void *owner);
};

struct coro_stats {
    uint64_t started, ended, dropped, too_deep, no_memory;
    uint64_t live;             /* started and neither ended nor dropped */
    uint64_t images;           /* slots in use */
    uint64_t image_bytes;      /* of them */
    uint64_t image_bytes_held; /* memory taken from the system for them */
    uint64_t templates;
    uint64_t templated; /* coroutines that use a template */
    uint64_t stacks;    /* separate ones in use */
};

/* A scheduler for the calling thread, which alone may use it.  Installs the overflow handler, and an alternate signal stack if the
 * thread has none.  0, or -EINVAL (a value is out of range), -ENOMEM, -ENOTSUP (CORO_SHARED under AddressSanitizer). */
int coro_sched_new(const struct coro_options *options, struct coro_sched **out);

/* Frees it with all images and stacks; coroutines that still wait are gone, and their struct coro must not be used. */
void coro_sched_free(struct coro_sched *s);

/* Forgets a waiting coroutine: its frames are not unwound.  A new one is left as it is. */
void coro_drop(struct coro_sched *s, struct coro *co);

/* Gives 2 MiB of images back to the system that nobody had when this was called for long enough to say no, and since.  False: there are
 * none now, ask again when as much time has passed as memory is to lie unused. */
bool coro_trim(struct coro_sched *s);
/* Whether asking again may give some. */
bool coro_has_spare(const struct coro_sched *s);

void coro_stats(const struct coro_sched *s, struct coro_stats *stats);

/* Bytes that are stored for this coroutine beyond struct coro: 0 for a new or templated one, else its slot or stack. */
size_t coro_stored_bytes(const struct coro_sched *s, const struct coro *co);

/* Bytes from its stack pointer to the top of its stack, 0 for a new one. */
size_t coro_live_bytes(const struct coro_sched *s, const struct coro *co);

/* --- inside a coroutine --- */

struct coro_result {
    uint64_t first, second; /* as a function returns two words: rax and rdx, x0 and x1 */
};

/* Leaves the calling coroutine until coro_run() gives a result.  request is what coro_load() will return.  Call it in tail position (return
 * coro_wait(...), compiled with -O2): the caller's frame is then no part of the image. */
struct coro_result coro_wait(uint64_t request);

/* The same, for a caller who returns the first word only. */
int64_t coro_wait_value(uint64_t request);

#endif
