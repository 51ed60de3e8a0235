/*
 * session.c: the life of a session.
 */
#include "dpdk_glue/session.h"

#include "dpdk_glue/deliver.h"
#include "dpdk_glue/refuse.h"
#include "dpdk_glue/region.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { LET_OUT_TURNS = 128 };                   /* of 32 packets each */
#define ROWS_PRESENT_BYTES (UINT64_C(64) << 20) /* beyond them they come as connections use them */

static int check_config(struct glue *g, const struct glue_session_config *c, struct shm_sizes *sizes,
                        struct shm_offsets *offsets, struct glue_text *why)
{
    if (c->app == 0 || c->app >= GLUE_APPS_MAX || g->apps[c->app].id == 0)
        return refuse(why, ENOENT, "there is no app %u", c->app);
    if (c->tid >= SHM_TID_MAX)
        return refuse(why, EINVAL, "tid %u: an app has at most %d threads", c->tid, SHM_TID_MAX);
    for (const struct glue_session *s = g->sessions; s != NULL; s = s->next) {
        if (s->app->id == c->app && s->tid == c->tid && !s->stopped)
            return refuse(why, EEXIST, "tid %u of app %s has a session already", c->tid, s->app->name);
    }
    if (!rows_layout_is_sound(&c->row))
        return refuse(why, EINVAL, "row layout: stride must be 64 to %d, a multiple of 8, and hold all fields",
                      SHM_ROW_STRIDE_MAX);
    *sizes = (struct shm_sizes){g->io_count, c->rx_slots_per_io, c->tx_slots, c->rows, c->row.stride};
    if (!shm_layout(sizes, offsets))
        return refuse(why, EINVAL, "rx_slots %u and tx_slots %u must be powers of two from 64 to %d, rows %u 1 to 2^30",
                      c->rx_slots_per_io, c->tx_slots, SHM_SLOTS_MAX, c->rows);
    if (c->lease.address_count == 0 || c->lease.address_count > GLUE_LEASE_ADDRESSES_MAX ||
        c->lease.range_count > GLUE_LEASE_RANGES_MAX)
        return refuse(why, EINVAL, "a lease has 1 to %d addresses and at most %d port ranges", GLUE_LEASE_ADDRESSES_MAX,
                      GLUE_LEASE_RANGES_MAX);
    return 0;
}

static void set_lease(struct txcheck_lease *lease, const struct glue_lease *from)
{
    lease->address_count = from->address_count;
    memcpy(lease->addresses, from->addresses, sizeof lease->addresses);
    for (uint32_t i = 0; i < from->range_count; i++)
        txcheck_lease_port(lease, from->ranges[i].first, from->ranges[i].last);
}

static int make_regions(struct glue_session *s)
{
    bool j2a_huge = true, a2j_huge = true, rows_huge = true;

    int rc = region_make("janus-j2a", s->offsets.j2a_bytes, REGION_OURS, &s->j2a_fd, &s->j2a, &j2a_huge);
    if (rc == 0)
        rc = region_seal(s->j2a_fd, s->j2a, s->offsets.j2a_bytes, REGION_OURS);
    if (rc == 0)
        rc = region_make("janus-a2j", s->offsets.a2j_bytes, REGION_THEIRS, &s->a2j_fd, (uint8_t **)&s->a2j, &a2j_huge);
    if (rc == 0)
        rc = region_make_rows(s->offsets.rows_bytes, ROWS_PRESENT_BYTES, &s->rows_fd, &s->rows.fd, &rows_huge);
    s->huge = j2a_huge && a2j_huge && rows_huge;
    return rc;
}

static int make_doorbells(struct glue_session *s)
{
    struct epoll_event rung = {.events = EPOLLIN | EPOLLET};

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s->doorbell) != 0)
        return -errno;
    (void)shutdown(s->doorbell[0], SHUT_RD); /* nothing can be left lying in it from the app's side */
    for (uint32_t i = 0; i < s->sizes.io_count; i++) {
        s->io_doorbell[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->io_doorbell[i] < 0 || epoll_ctl(s->glue->io[i].epoll_fd, EPOLL_CTL_ADD, s->io_doorbell[i], &rung) != 0)
            return -errno;
    }
    return 0;
}

static void attach_rings(struct glue_session *s, uint32_t i)
{
    struct session_io *sio = &s->io[i];
    struct shm_j2a_io *ours = &session_j2a(s)->io[i];
    const struct shm_a2j_io *theirs = &session_a2j(s)->io[i];
    const struct shm_offsets *o = &s->offsets;

    sio->rx = (struct ring_producer){.descs = (struct shm_desc *)(s->j2a + o->rx[i]),
                                     .head = &ours->rx_head.value,
                                     .tail = &theirs->rx_tail.value,
                                     .mask = 2 * s->sizes.rx_slots_per_io - 1};
    sio->tx_done = (struct ring_producer){.descs = (struct shm_desc *)(s->j2a + o->tx_done[i]),
                                          .head = &ours->tx_done_head.value,
                                          .tail = &theirs->tx_done_tail.value,
                                          .mask = s->sizes.tx_slots - 1};
    sio->tx = (struct ring_consumer){.descs = (const struct shm_desc *)(s->a2j + o->tx[i]),
                                     .head = &theirs->tx_head.value,
                                     .tail = &ours->tx_tail.value,
                                     .mask = s->sizes.tx_slots - 1};
    sio->rx_return = (struct ring_consumer){.descs = (const struct shm_desc *)(s->a2j + o->rx_return[i]),
                                            .head = &theirs->rx_return_head.value,
                                            .tail = &ours->rx_return_tail.value,
                                            .mask = s->sizes.rx_slots_per_io - 1};
}

static int make_rings(struct glue_session *s)
{
    struct shm_j2a_header *h = session_j2a(s);

    h->magic = SHM_J2A_MAGIC;
    h->abi_major = SHM_ABI_MAJOR;
    h->abi_minor = SHM_ABI_MINOR;
    h->generation = s->generation;
    for (uint32_t i = 0; i < s->sizes.io_count; i++) {
        attach_rings(s, i);
        s->io[i].stats =
            page_block_add(s->glue->page, PAGE_KIND_THREAD, s->app->id, s->tid, i, s->generation, s->app->name);
        if (s->io[i].stats == NULL)
            return -ENOSPC;
        if (!ledger_init(&s->io[i].ledger, i * s->sizes.rx_slots_per_io, s->sizes.rx_slots_per_io))
            return -ENOMEM;
    }
    return 0;
}

static void release(struct glue_session *s)
{
    for (uint32_t i = 0; i < s->sizes.io_count; i++) {
        ledger_release(&s->io[i].ledger);
        if (s->io[i].stats != NULL)
            page_block_remove(s->glue->page, s->io[i].stats);
        if (s->io_doorbell[i] >= 0) { /* the app may hold it open, so closing alone does not take it from epoll */
            (void)epoll_ctl(s->glue->io[i].epoll_fd, EPOLL_CTL_DEL, s->io_doorbell[i], NULL);
            close(s->io_doorbell[i]);
        }
    }
    region_unmap(s->j2a, s->offsets.j2a_bytes);
    region_unmap((uint8_t *)s->a2j, s->offsets.a2j_bytes);
    const int fds[] = {s->j2a_fd, s->a2j_fd, s->rows_fd, s->rows.fd, s->doorbell[0], s->doorbell[1]};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    free(s);
}

static struct glue_session *blank(struct glue *g, const struct glue_session_config *c, const struct shm_sizes *sizes,
                                  const struct shm_offsets *offsets)
{
    struct glue_session *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);

    if (s == NULL)
        return NULL;
    memset(s, 0, sizeof *s);
    s->glue = g;
    s->app = &g->apps[c->app];
    s->tid = c->tid;
    s->generation = c->generation;
    s->tx_io = c->tid % g->io_count;
    s->sizes = *sizes;
    s->offsets = *offsets;
    s->j2a_fd = s->a2j_fd = s->rows_fd = s->doorbell[0] = s->doorbell[1] = -1;
    for (uint32_t i = 0; i < GLUE_IO_MAX; i++)
        s->io_doorbell[i] = -1;
    set_lease(&s->lease, &c->lease);
    s->rows = (struct rows){-1, sizes->rows, c->row, &s->lease};
    return s;
}

struct glue_session *glue_session_create(struct glue *g, const struct glue_session_config *config,
                                         struct glue_text *why)
{
    struct shm_sizes sizes;
    struct shm_offsets offsets;
    struct glue_session *s = NULL;

    mtx_lock(&g->control);
    if (check_config(g, config, &sizes, &offsets, why) == 0) {
        s = blank(g, config, &sizes, &offsets);
        int rc = s != NULL ? make_regions(s) : -ENOMEM;
        if (rc == 0)
            rc = make_doorbells(s);
        if (rc == 0)
            rc = make_rings(s);
        if (rc != 0) {
            refuse(why, -rc, "no room for a session of %llu MiB: %s",
                   (unsigned long long)(offsets.j2a_bytes + offsets.a2j_bytes + offsets.rows_bytes) >> 20,
                   strerror(-rc));
            if (s != NULL)
                release(s);
            s = NULL;
        }
    }
    if (s != NULL) {
        s->next = g->sessions;
        g->sessions = s;
        s->app->session_count++;
    }
    mtx_unlock(&g->control);
    return s;
}

int glue_session_seal(struct glue_session *s, struct glue_text *why)
{
    if (s->sealed)
        return 0;
    int rc = region_seal(s->a2j_fd, (uint8_t *)s->a2j, s->offsets.a2j_bytes, REGION_THEIRS);
    if (rc != 0)
        return refuse(why, -rc, "the region that the app writes cannot be sealed and populated: %s", strerror(-rc));
    s->sealed = true;
    return 0;
}

/* Gives every I/O thread a fresh list of the sessions that are started and not stopped. */
static int publish_lists(struct glue *g)
{
    uint32_t count = 0;

    for (struct glue_session *s = g->sessions; s != NULL; s = s->next)
        count += s->started && !s->stopped;
    for (uint32_t i = 0; i < g->io_count; i++) {
        struct session_list *list = malloc(sizeof *list + count * sizeof list->sessions[0]);
        if (list == NULL)
            return -ENOMEM;
        list->count = 0;
        for (struct glue_session *s = g->sessions; s != NULL; s = s->next) {
            if (s->started && !s->stopped)
                list->sessions[list->count++] = s;
        }
        qsbr_retire(g, atomic_exchange(&g->io[i].sessions, list));
    }
    return 0;
}

int glue_session_start(struct glue_session *s, struct glue_text *why)
{
    struct glue *g = s->glue;
    int rc = 0;

    mtx_lock(&g->control);
    if (!s->sealed || s->stopped)
        rc = refuse(why, EINVAL, "a session is started after its seal and once");
    if (rc == 0 && !s->started) {
        s->started = true;
        rc = publish_lists(g);
        if (rc == 0)
            atomic_store_explicit(&s->app->sessions[s->tid], s, memory_order_release);
        else
            refuse(why, -rc, "no memory for the session");
    }
    mtx_unlock(&g->control);
    return rc;
}

static void count_slots(const struct glue_session *s, struct glue_slots *out)
{
    *out = (struct glue_slots){0};
    for (uint32_t i = 0; i < s->sizes.io_count; i++) {
        out->total += s->io[i].ledger.count;
        out->free += s->io[i].ledger.free_count;
        out->held += s->stopped ? ledger_lent(&s->io[i].ledger) : 0;
    }
    if (!s->stopped) /* an I/O thread is at work on it: what is not free is held */
        out->held = out->total - out->free;
}

static uint32_t load(const uint32_t *p)
{
    return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_relaxed);
}

/* What an app pushed before it said good-bye, its resets above all, still goes out; bounded, whatever it goes on to push. */
static void let_out(struct glue_session *s)
{
    const struct shm_index *head = &session_a2j(s)->io[s->tx_io].tx_head;
    const struct shm_index *tail = &session_j2a(s)->io[s->tx_io].tx_tail;

    for (uint32_t i = 0; i < LET_OUT_TURNS && !session_is_closed(s) && load(&head->value) != load(&tail->value); i++)
        qsbr_synchronize(s->glue);
}

static int stop(struct glue_session *s)
{
    struct glue *g = s->glue;
    struct glue_session *self = s;

    if (s->stopped)
        return 0;
    if (s->started)
        let_out(s);
    s->stopped = true;
    (void)atomic_compare_exchange_strong(&s->app->sessions[s->tid], &self, NULL);
    int rc = s->started ? publish_lists(g) : 0;
    if (rc != 0) {
        s->stopped = false;
        return rc;
    }
    if (s->started)
        qsbr_synchronize(g);
    if (session_j2a(s)->closed == 0)
        session_j2a(s)->closed = UINT32_MAX;
    for (uint32_t i = 0; i < s->sizes.io_count; i++)
        ledger_take_all(&s->io[i].ledger);
    return 0;
}

int glue_session_stop(struct glue_session *s, struct glue_slots *out)
{
    mtx_lock(&s->glue->control);
    int rc = stop(s);
    if (rc == 0)
        count_slots(s, out);
    mtx_unlock(&s->glue->control);
    return rc;
}

void glue_session_free(struct glue_session *s)
{
    struct glue *g = s->glue;
    struct glue_session **link = &g->sessions;

    mtx_lock(&g->control);
    if (stop(s) != 0) { /* no memory for shorter lists: the I/O threads still know it, so it stays */
        mtx_unlock(&g->control);
        return;
    }
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    s->app->session_count--;
    release(s);
    mtx_unlock(&g->control);
}

int glue_session_slots(struct glue_session *s, struct glue_slots *out)
{
    mtx_lock(&s->glue->control);
    count_slots(s, out);
    mtx_unlock(&s->glue->control);
    return 0;
}

uint32_t session_rows_used(const struct glue_session *s)
{
    uint32_t used = load(&session_a2j(s)->rows_used.value);

    return used < s->rows.count ? used : s->rows.count;
}

/* Both ends as they are published; the app's is its word, so the difference may be anything. */
static uint32_t rx_queued(struct glue_session *s, uint32_t io)
{
    uint32_t queued = load(&session_j2a(s)->io[io].rx_head.value) - load(&session_a2j(s)->io[io].rx_tail.value);

    return queued <= 2 * s->sizes.rx_slots_per_io ? queued : 0;
}

void glue_session_info(struct glue_session *s, struct glue_session_info *out)
{
    *out = (struct glue_session_info){.j2a_bytes = s->offsets.j2a_bytes,
                                      .a2j_bytes = s->offsets.a2j_bytes,
                                      .rows_bytes = s->offsets.rows_bytes,
                                      .j2a_fd = s->j2a_fd,
                                      .a2j_fd = s->a2j_fd,
                                      .rows_fd = s->rows_fd,
                                      .csb_fd = s->app->csb_fd,
                                      .app_doorbell_fd = s->doorbell[1],
                                      .io_count = s->sizes.io_count,
                                      .huge = s->huge,
                                      .violations = atomic_load(&s->violations),
                                      .closed = atomic_load(&s->closed) != 0};
    memcpy(out->io_doorbell_fd, s->io_doorbell, sizeof out->io_doorbell_fd);
    if (!s->sealed)
        return;
    out->app_sleeping = load(&session_a2j(s)->app_sleeping.value);
    out->heartbeat = load(&session_a2j(s)->heartbeat.value);
    out->rows_used = session_rows_used(s);
    out->busy_us = atomic_load_explicit((const _Atomic uint64_t *)&session_a2j(s)->busy_us, memory_order_relaxed);
    out->busy_since_us =
        atomic_load_explicit((const _Atomic uint64_t *)&session_a2j(s)->busy_since_us, memory_order_relaxed);
    out->csb_closed = atomic_load_explicit((const _Atomic uint64_t *)&session_a2j(s)->csb_closed, memory_order_relaxed);
    out->csb_held_us =
        atomic_load_explicit((const _Atomic uint64_t *)&session_a2j(s)->csb_held_us, memory_order_relaxed);
    out->csb_held_wall_us =
        atomic_load_explicit((const _Atomic uint64_t *)&session_a2j(s)->csb_held_wall_us, memory_order_relaxed);
    for (uint32_t io = 0; io < s->sizes.io_count; io++)
        out->rx_queued += rx_queued(s, io);
}

int glue_session_counters(struct glue_session *s, uint64_t *out, uint32_t max)
{
    uint32_t count = max < SHM_CACHE_LINE ? max : SHM_CACHE_LINE;

    if (!s->sealed)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        out[i] = atomic_load_explicit((const _Atomic uint64_t *)&session_a2j(s)->counters[i], memory_order_relaxed);
    return (int)count;
}
