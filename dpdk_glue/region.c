/*
 * region.c: memfds, seals and pages.
 */
#include "dpdk_glue/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stddef.h>
#include <stdio.h>
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

/* Huge pages are the file's from its first mapping on, whoever unmaps it; small ones come as they are used. */
static int reserve(int fd, uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);

    return p == MAP_FAILED || munmap(p, bytes) != 0 ? -errno : 0;
}

static int try_make_rows(uint64_t bytes, uint64_t present, bool huge, int *app_fd, int *own_fd)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    char path[32];
    int rc = 0, fd = memfd_create("janus-rows", flags);

    if (fd < 0)
        return -errno;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    /* A seal against writing would forbid holes as well. */
    if (ftruncate(fd, (off_t)bytes) != 0 || fchmod(fd, THEIRS_MODE) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        rc = -errno;
    if (rc == 0 && huge)
        rc = reserve(fd, bytes);
    if (rc == 0 && fallocate(fd, 0, 0, (off_t)(present < bytes ? present : bytes)) != 0)
        rc = -errno;
    *own_fd = rc == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (rc == 0 && *own_fd < 0)
        rc = -errno;
    if (rc != 0)
        close(fd);
    *app_fd = rc == 0 ? fd : -1;
    return rc;
}

int region_make_rows(uint64_t bytes, uint64_t present, int *app_fd, int *own_fd, bool *huge)
{
    if (*huge && try_make_rows(bytes, present, true, app_fd, own_fd) == 0)
        return 0;
    *huge = false;
    return try_make_rows(bytes, present, false, app_fd, own_fd);
}

void region_unmap(uint8_t *memory, uint64_t bytes)
{
    if (memory != NULL)
        munmap(memory, bytes);
}
