/*
 * region.c: mapping one session's shared memory.  Sizes are checked against the files first, so that no later access can
 * end in SIGBUS.
 */
#include "app/region.h"

#include "app/error.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { FD_J2A, FD_A2J, FD_ROWS, FD_CSB, FD_DOORBELL, FD_IO_DOORBELLS };

static void *map_fd(int fd, uint64_t bytes, int protection, const char *name, struct janus_error *error)
{
    struct stat st;
    void *p;

    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < bytes) {
        error_set(error, EPROTO, "janusd's %s region is smaller than WELCOME says", name);
        return NULL;
    }
    p = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        error_set(error, errno, "cannot map the %s region (%llu bytes): %s", name, (unsigned long long)bytes,
                  strerror(errno));
        return NULL;
    }
    return p;
}

static int map_all(struct region *r, const int *fds, struct janus_error *error)
{
    struct statfs fs;

    r->j2a = map_fd(fds[FD_J2A], r->offsets.j2a_bytes, PROT_READ, "J2A", error);
    if (r->j2a)
        r->a2j = map_fd(fds[FD_A2J], r->offsets.a2j_bytes, PROT_READ | PROT_WRITE, "A2J", error);
    if (r->a2j)
        r->rows = map_fd(fds[FD_ROWS], r->offsets.rows_bytes, PROT_READ | PROT_WRITE, "rows", error);
    if (r->rows)
        r->csb = map_fd(fds[FD_CSB], sizeof(struct csb_region), PROT_READ, "CSB", error);
    if (!r->csb)
        return -error->code;
    r->rows_huge = fstatfs(fds[FD_ROWS], &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC;
    if (region_j2a(r)->magic != SHM_J2A_MAGIC || region_j2a(r)->generation != r->generation)
        return error_set(error, EPROTO, "janusd's J2A region has a wrong header");
    return 0;
}

int region_map(struct region *r, const struct attach_welcome *welcome, const int *fds, uint32_t fd_count,
               struct janus_error *error)
{
    struct janus_error unused;
    int rc;

    memset(r, 0, sizeof *r);
    r->doorbell = -1;
    for (uint32_t i = 0; i < SHM_IO_MAX; i++)
        r->io_doorbells[i] = -1;
    r->sizes = welcome->sizes;
    r->generation = welcome->generation;
    r->tid = welcome->tid;
    error = error ? error : &unused;
    if (!shm_layout(&r->sizes, &r->offsets) || fd_count != FD_IO_DOORBELLS + r->sizes.io_count)
        rc = error_set(error, EPROTO, "janusd's WELCOME is not consistent: %u descriptors for %u I/O threads", fd_count,
                       r->sizes.io_count);
    else
        rc = map_all(r, fds, error);
    for (uint32_t i = 0; i < fd_count; i++) {
        if (rc == 0 && i == FD_DOORBELL)
            r->doorbell = fds[i];
        else if (rc == 0 && i >= FD_IO_DOORBELLS)
            r->io_doorbells[i - FD_IO_DOORBELLS] = fds[i];
        else
            close(fds[i]);
    }
    if (rc < 0) {
        region_unmap(r);
        return rc;
    }
    region_a2j(r)->magic = SHM_A2J_MAGIC;
    region_a2j(r)->generation = r->generation;
    return 0;
}

void region_unmap(struct region *r)
{
    if (r->j2a)
        munmap((void *)(uintptr_t)r->j2a, r->offsets.j2a_bytes);
    if (r->a2j)
        munmap(r->a2j, r->offsets.a2j_bytes);
    if (r->rows)
        munmap(r->rows, r->offsets.rows_bytes);
    if (r->csb)
        munmap((void *)(uintptr_t)r->csb, sizeof(struct csb_region));
    if (r->doorbell >= 0)
        close(r->doorbell);
    for (uint32_t i = 0; i < SHM_IO_MAX; i++) {
        if (r->io_doorbells[i] >= 0)
            close(r->io_doorbells[i]);
    }
    memset(r, 0, sizeof *r);
    r->doorbell = -1;
    for (uint32_t i = 0; i < SHM_IO_MAX; i++)
        r->io_doorbells[i] = -1;
}
