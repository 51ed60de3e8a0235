/*
 * glue.c: the whole made and unmade.
 */
#include "dpdk_glue/glue.h"

#include "dpdk_glue/eal.h"
#include "dpdk_glue/io_thread.h"
#include "dpdk_glue/port.h"
#include "dpdk_glue/refuse.h"
#include "dpdk_glue/state.h"
#include "dpdk_glue/sweep.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_random.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

enum { MBUFS_DEFAULT = 8191, MBUFS_PER_IO = 4096, MBUFS_MIN = 1023, MBUFS_MAX = 1 << 22, POOL_CACHE = 256 };
#define DATA_ROOM (RTE_PKTMBUF_HEADROOM + 2048)

static int make_page(struct glue *g, int fd)
{
    struct timespec now;
    int flags = MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0);

    if (fd >= 0 && ftruncate(fd, (off_t)sizeof *g->page) != 0)
        return -errno;
    void *memory = mmap(NULL, sizeof *g->page, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    g->page = memory;
    memset(g->page, 0, offsetof(struct page, blocks)); /* a block is cleared when it is taken */
    clock_gettime(CLOCK_REALTIME, &now);
    if (!stats_name_counters(g->page))
        return -ENOSPC;
    page_init(g->page, (uint32_t)getpid(), (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
    return 0;
}

static int make_pool(struct glue *g, uint32_t mbufs, struct glue_text *why)
{
    uint32_t count = mbufs != 0 ? mbufs : MBUFS_DEFAULT + (g->io_count - 1) * MBUFS_PER_IO;

    if (count < MBUFS_MIN || count > MBUFS_MAX)
        return refuse(why, EINVAL, "mbufs must be %d to %d, not %u", MBUFS_MIN, MBUFS_MAX, count);
    g->pool = rte_pktmbuf_pool_create("janus_packets", count, POOL_CACHE, 0, DATA_ROOM, SOCKET_ID_ANY);
    if (g->pool == NULL)
        return refuse(why, rte_errno, "no memory for %u packets of %d bytes (%s): raise memory_mib or free huge pages",
                      count, DATA_ROOM, rte_strerror(rte_errno));
    return 0;
}

static int fill(struct glue *g, const struct glue_options *o, struct glue_text *why)
{
    int rc = make_page(g, o->stats_fd);
    if (rc != 0)
        return refuse(why, -rc, "the stats page cannot be made: %s", strerror(-rc));
    g->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_store(&g->wake_armed, 1);
    for (uint32_t i = 0; rc == 0 && i < g->io_count; i++)
        rc = io_thread_init(g, i, o->cpus[i]);
    if (rc != 0 || g->wake_fd < 0)
        return refuse(why, ENOMEM, "no memory or file descriptors for %u I/O threads", g->io_count);
    atomic_store(&g->services, services_make(NULL, 0, NULL, 0, false, why));
    atomic_store(&g->routes, routes_make_empty(rte_rand(), rte_rand()));
    if (atomic_load(&g->services) == NULL || atomic_load(&g->routes) == NULL)
        return refuse(why, ENOMEM, "no memory for the data plane");
    return make_pool(g, o->mbufs, why);
}

struct glue *glue_create(const struct glue_options *options, struct glue_text *why)
{
    if (!eal_is_started()) {
        refuse(why, EINVAL, "start EAL first");
        return NULL;
    }
    if (options->io_count < 1 || options->io_count > GLUE_IO_MAX) {
        refuse(why, EINVAL, "1 to %d I/O threads, not %u", GLUE_IO_MAX, options->io_count);
        return NULL;
    }
    struct glue *g = aligned_alloc(64, (sizeof *g + 63) / 64 * 64);
    if (g == NULL) {
        refuse(why, ENOMEM, "no memory for the data plane");
        return NULL;
    }
    memset(g, 0, sizeof *g);
    g->io_count = options->io_count;
    g->mode = (enum glue_mode)options->mode;
    g->tsc_hz = rte_get_tsc_hz();
    g->wake_fd = -1;
    if (mtx_init(&g->control, mtx_plain) != thrd_success || cnd_init(&g->sweep) != thrd_success ||
        fill(g, options, why) != 0) {
        glue_destroy(g);
        return NULL;
    }
    return g;
}

void glue_destroy(struct glue *g)
{
    struct glue_text why;

    sweep_stop(g);
    io_threads_stop(g);
    while (g->sessions != NULL)
        glue_session_free(g->sessions);
    if (g->page != NULL) {
        (void)glue_services_set(g, NULL, 0, &why);
        for (uint32_t app = 1; app < GLUE_APPS_MAX; app++)
            (void)glue_app_remove(g, app, &why);
    }
    ports_close(g);
    rte_mempool_free(g->pool);
    qsbr_release(g);
    for (uint32_t i = 0; i < g->io_count; i++)
        io_thread_release(&g->io[i]);
    free(atomic_load(&g->services));
    free(atomic_load(&g->routes));
    free(g->service_list);
    if (g->wake_fd >= 0)
        close(g->wake_fd);
    if (g->page != NULL)
        munmap(g->page, sizeof *g->page);
    mtx_destroy(&g->control);
    cnd_destroy(&g->sweep);
    free(g);
}

int glue_wake_fd(struct glue *g)
{
    return g->wake_fd;
}
