/*
 * images.h: slots for the images of suspended coroutines, in classes of 32 bytes.
 *
 *   reserved address space    |  chunk 0, 2 MiB (huge page)          |  chunk 1 ...   |  untouched ...
 *   runs of one class         | run 0: 96 B | run 1: 160 B | run 2: free | ...
 *   slots                     | | | | | | | |
 *
 * A slot's number is its offset in units of 32 bytes, so that 32 bits reach 128 GiB.  A run whose slots are all free may serve
 * another class; a chunk whose runs are all free can go back to the system.  Freed slots and runs are used again first.
 */
#ifndef CORO_IMAGES_H
#define CORO_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    IMAGE_UNIT = 32,
    IMAGE_RUN_BYTES = 64 << 10,
    IMAGE_RUN_UNITS = IMAGE_RUN_BYTES / IMAGE_UNIT,
    IMAGE_CHUNK_BYTES = 2 << 20,
    IMAGE_CHUNK_RUNS = IMAGE_CHUNK_BYTES / IMAGE_RUN_BYTES,
    IMAGE_BYTES_MAX = IMAGE_RUN_BYTES, /* of one image */
};
#define IMAGE_NONE UINT32_MAX

struct image_run {
    uint16_t units; /* of a slot; 0: the run is free */
    uint16_t free;  /* number of the first freed slot + 1, 0: none */
    uint16_t fresh; /* slots from here on have never been taken */
    uint16_t live;
    uint32_t next, prev; /* in its class's list of runs with a free slot, or next among free runs; number + 1 */
};

struct image_chunk {
    uint8_t runs;  /* that are not free */
    uint8_t state; /* enum image_chunk_state */
};

struct coro_images {
    uint8_t *base;
    struct image_run *runs;
    struct image_chunk *chunks;
    void *reserved; /* base is the first chunk boundary in it */
    size_t reserved_bytes;
    uint32_t runs_max, runs_fresh;
    uint32_t free_runs;                    /* number + 1 */
    uint32_t partial[IMAGE_RUN_UNITS + 1]; /* by units: number + 1 */
    uint32_t touched, spare;               /* chunks with memory; of them, those whose runs are all free */
    uint32_t looked;
    uint64_t live, live_units;
};

/* Reserves address space, no memory.  0 or -ENOMEM. */
int images_init(struct coro_images *m, size_t bytes_max);
void images_finish(struct coro_images *m);

/* A slot of units * 32 bytes, 1 <= units <= IMAGE_RUN_UNITS; IMAGE_NONE when address space or memory is used up. */
uint32_t images_take(struct coro_images *m, uint32_t units);
void images_give(struct coro_images *m, uint32_t image);

/* Goes over the chunks and gives one whose runs were all free at the look before, and since, back to the system, but not the last that
 * has memory.  False: the look is over. */
bool images_trim(struct coro_images *m);
uint64_t images_held_bytes(const struct coro_images *m);

static inline void *images_at(const struct coro_images *m, uint32_t image)
{
    return m->base + (size_t)image * IMAGE_UNIT;
}

static inline uint32_t images_units(const struct coro_images *m, uint32_t image)
{
    return m->runs[image / IMAGE_RUN_UNITS].units;
}

#endif
