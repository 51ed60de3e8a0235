/*
 * region.h: the shared memory of one session with janusd, mapped and checked.
 *
 * J2A and the CSB region are mapped read-only, A2J and the rows read-write.  Offsets come from shm_layout() on WELCOME's sizes, never from
 * shared memory.
 */
#ifndef APP_REGION_H
#define APP_REGION_H

#include "app/thread_api.h"
#include "csb/circle.h"
#include "shm/attach.h"

struct region {
    const uint8_t *j2a;
    uint8_t *a2j;
    uint8_t *rows;
    bool rows_huge; /* they lie in huge pages: one that was given back may be missing when it is touched */
    const struct csb_region *csb;
    struct shm_sizes sizes;
    struct shm_offsets offsets;
    uint32_t generation;
    uint16_t tid;
    int doorbell;                 /* janusd rings it; owned */
    int io_doorbells[SHM_IO_MAX]; /* the app rings them; owned */
};

/* Maps what WELCOME names.  Takes the fds in every case: mapped ones are closed, doorbells kept in region.  0 or -errno with
 * error filled. */
int region_map(struct region *r, const struct attach_welcome *welcome, const int *fds, uint32_t fd_count,
               struct janus_error *error);
void region_unmap(struct region *r);

static inline const struct shm_j2a_header *region_j2a(const struct region *r)
{
    return (const struct shm_j2a_header *)r->j2a;
}

static inline struct shm_a2j_header *region_a2j(const struct region *r)
{
    return (struct shm_a2j_header *)r->a2j;
}

#endif
