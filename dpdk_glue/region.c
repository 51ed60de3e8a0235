/*
 * region.c: memfds, seals and pages.
 */
#include "dpdk_glue/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OURS_MODE = 0400, THEIRS_MODE = 0600 };
#define HUGE_PAGE (UINT64_C(2) << 20)

static int try_make(const char *name, uint64_t bytes, enum region_side side, bool huge, int *fd, uint8_t **memory)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    int rc = 0;

    *fd = memfd_create(name, flags);
    if (*fd < 0)
        return -errno;
    *memory = MAP_FAILED;
    /* Its mode decides who may open it anew by its name in /proc: nobody but root. */
    if (ftruncate(*fd, (off_t)bytes) != 0 || fchmod(*fd, side == REGION_OURS ? OURS_MODE : THEIRS_MODE) != 0 ||
        fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
        rc = -errno;
    if (rc == 0) {
        *memory = mmap(NULL, bytes, side == REGION_OURS ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, *fd, 0);
        rc = *memory == MAP_FAILED ? -errno : 0;
    }
    if (rc != 0) {
        close(*fd);
        *fd = -1;
        *memory = NULL;
    }
    return rc;
}

int region_make(const char *name, uint64_t bytes, enum region_side side, int *fd, uint8_t **memory, bool *huge)
{
    if (*huge && bytes % HUGE_PAGE == 0 && try_make(name, bytes, side, true, fd, memory) == 0)
        return 0;
    *huge = false;
    return try_make(name, bytes, side, false, fd, memory);
}

int region_seal(int fd, uint8_t *memory, uint64_t bytes, enum region_side side)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0)
        return -errno;
    return madvise(memory, bytes, side == REGION_OURS ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0 ? 0 : -errno;
}

void region_unmap(uint8_t *memory, uint64_t bytes)
{
    if (memory != NULL)
        munmap(memory, bytes);
}
