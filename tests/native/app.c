/*
 * app.c: the SDK's C API, and janusd's side of the shared memory in the same process: rings, slots and one wire between
 * two sessions.  Python speaks the attach protocol.
 */
#include "app/thread.h"
#include "app/thread_api.h"
#include "csb/walk.h"
#include "csb/hash.h"
#include "shm/attach.h"
#include "shm/doorbell.h"
#include "shm/ring.h"
#include "shm/slice.h"
#include "wire/bytes.h"
#include "wire/ip.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FAKE_J2A, FAKE_A2J, FAKE_ROWS, FAKE_CSB, FAKE_DOORBELL, FAKE_VIEW, FAKE_FDS };

struct fake {
    struct shm_sizes sizes;
    struct shm_offsets offsets;
    struct csb_secret secret;
    uint8_t *j2a, *a2j, *rows;
    int fds[FAKE_FDS], bell; /* fds go to the app; bell is janusd's end of its doorbell */
    struct ring_producer rx[SHM_IO_MAX], tx_done[SHM_IO_MAX];
    struct ring_consumer tx[SHM_IO_MAX], rx_return[SHM_IO_MAX];
    uint32_t *rx_free, rx_free_count, drop_every, sent;
    uint16_t *generation;
    bool *with_app;
    uint64_t bad;
};

static int make_memfd(const char *name, uint64_t bytes, uint8_t **map)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        abort();
    *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*map == MAP_FAILED)
        abort();
    return fd;
}

/* Keys up to point are below's, the others above's; flagged: a bit per slot of the first 64 with unknown exceptions. */
static struct csb_map *split_map(uint32_t point, uint16_t below, uint16_t above)
{
    struct csb_map *map = calloc(1, sizeof *map);
    struct csb_point points[2] = {{point, below}, {UINT32_MAX, above}};

    csb_map_build(map, points + (point == UINT32_MAX), 2 - (point == UINT32_MAX), 1);
    return map;
}

static int fake_view(uint32_t point, uint16_t below, uint16_t above, uint64_t flagged)
{
    uint64_t bytes = csb_view_bytes(0, 0), slots[CSB_SLOT_COUNT / 64] = {flagged};
    struct csb_map *map = split_map(point, below, above);
    uint8_t *memory;
    int fd = make_memfd("view", bytes, &memory);

    csb_view_build(memory, bytes, map, NULL, 0);
    csb_view_flag((struct csb_view *)memory, slots);
    munmap(memory, bytes);
    free(map);
    return fd;
}

static int fake_plan(uint32_t point, uint16_t below, uint16_t above)
{
    struct csb_map *map = split_map(point, below, above);
    uint8_t *memory;
    int fd = make_memfd("plan", sizeof(struct csb_plan), &memory);

    csb_plan_init((struct csb_plan *)memory, map, NULL);
    munmap(memory, sizeof(struct csb_plan));
    free(map);
    return fd;
}

static uint64_t fake_view_bytes(void)
{
    return csb_view_bytes(0, 0);
}

/* The thread that the view in force gives the lowest key to. */
static uint32_t fake_owner(const struct janus_thread *t)
{
    return t->session->balance.view.memory ? csb_view_lookup(t->session->balance.view.memory, 1) : CSB_NO_TID;
}

static uint64_t fake_plan_bytes(void)
{
    return sizeof(struct csb_plan);
}

static void make_csb(struct fake *f, uint16_t tid)
{
    uint8_t *map;

    f->fds[FAKE_CSB] = make_memfd("csb", sizeof(struct csb_region), &map);
    struct csb_region *region = (struct csb_region *)map;
    region->secret[0] = f->secret.k0;
    region->secret[1] = f->secret.k1;
    munmap(map, sizeof(struct csb_region));
    f->fds[FAKE_VIEW] = fake_view(UINT32_MAX, tid, tid, 0);
}

static struct shm_j2a_header *j2a(const struct fake *f)
{
    return (struct shm_j2a_header *)f->j2a;
}

static struct shm_a2j_header *a2j(const struct fake *f)
{
    return (struct shm_a2j_header *)f->a2j;
}

static void make_rings(struct fake *f)
{
    uint32_t rx = f->sizes.rx_slots_per_io, tx = f->sizes.tx_slots;

    for (uint32_t i = 0; i < f->sizes.io_count; i++) {
        struct shm_j2a_io *j = &j2a(f)->io[i];
        struct shm_a2j_io *a = &a2j(f)->io[i];

        f->rx[i] = (struct ring_producer){
            (void *)(f->j2a + f->offsets.rx[i]), &j->rx_head.value, &a->rx_tail.value, 2 * rx - 1, 0, 0};
        f->tx_done[i] = (struct ring_producer){
            (void *)(f->j2a + f->offsets.tx_done[i]), &j->tx_done_head.value, &a->tx_done_tail.value, tx - 1, 0, 0};
        f->tx[i] = (struct ring_consumer){
            (void *)(f->a2j + f->offsets.tx[i]), &a->tx_head.value, &j->tx_tail.value, tx - 1, 0, 0};
        f->rx_return[i] = (struct ring_consumer){(void *)(f->a2j + f->offsets.rx_return[i]),
                                                 &a->rx_return_head.value,
                                                 &j->rx_return_tail.value,
                                                 rx - 1,
                                                 0,
                                                 0};
    }
}

static struct fake *fake_new(const struct shm_sizes *sizes, uint16_t tid, uint32_t generation, uint64_t secret)
{
    struct fake *f = calloc(1, sizeof *f);
    int pair[2];
    uint32_t slots = sizes->io_count * sizes->rx_slots_per_io;

    f->sizes = *sizes;
    f->secret = (struct csb_secret){secret, ~secret};
    if (!shm_layout(sizes, &f->offsets) || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0)
        abort();
    f->fds[FAKE_J2A] = make_memfd("j2a", f->offsets.j2a_bytes, &f->j2a);
    f->fds[FAKE_A2J] = make_memfd("a2j", f->offsets.a2j_bytes, &f->a2j);
    f->fds[FAKE_ROWS] = make_memfd("rows", f->offsets.rows_bytes, &f->rows);
    make_csb(f, tid);
    f->fds[FAKE_DOORBELL] = pair[0];
    f->bell = pair[1];
    j2a(f)->magic = SHM_J2A_MAGIC;
    j2a(f)->generation = generation;
    f->rx_free = calloc(slots, sizeof *f->rx_free);
    f->generation = calloc(slots, sizeof *f->generation);
    f->with_app = calloc(slots, sizeof *f->with_app);
    for (uint32_t i = 0; i < slots; i++)
        f->rx_free[f->rx_free_count++] = i;
    make_rings(f);
    return f;
}

static void fake_free(struct fake *f)
{
    munmap(f->j2a, f->offsets.j2a_bytes);
    munmap(f->a2j, f->offsets.a2j_bytes);
    munmap(f->rows, f->offsets.rows_bytes);
    for (int i = 0; i < FAKE_FDS; i++)
        close(f->fds[i]);
    close(f->bell);
    free(f->rx_free);
    free(f->generation);
    free(f->with_app);
    free(f);
}

static int fake_fd(const struct fake *f, uint32_t which)
{
    return f->fds[which];
}

/* RX slots that the app has given back. */
static void fake_collect(struct fake *f)
{
    for (uint32_t i = 0; i < f->sizes.io_count; i++) {
        int32_t n = ring_consumer_refresh(&f->rx_return[i]);

        f->bad += n < 0;
        while (n-- > 0) {
            struct shm_desc d = ring_pop(&f->rx_return[i]);

            if (d.kind != SHM_DESC_RETURN || d.slot / f->sizes.rx_slots_per_io != i || !f->with_app[d.slot] ||
                d.generation != f->generation[d.slot]) {
                f->bad++;
                continue;
            }
            f->with_app[d.slot] = false;
            f->generation[d.slot]++;
            f->rx_free[f->rx_free_count++] = d.slot;
        }
        ring_release(&f->rx_return[i]);
    }
}

static uint64_t flow_hash(const struct fake *f, const uint8_t *packet, uint32_t len)
{
    struct ip_packet ip;

    if (ip_parse(packet, len, &ip) != IP_OK)
        return 0;
    struct flow flow = {ip.dst, ip.src, get_be16(packet + ip.l4_offset + 2), get_be16(packet + ip.l4_offset)};
    return csb_hash(&f->secret, &flow);
}

static void deliver(struct fake *to, const uint8_t *packet, uint16_t len)
{
    if (to->rx_free_count == 0)
        return;
    uint32_t slot = to->rx_free[--to->rx_free_count], io = slot / to->sizes.rx_slots_per_io;
    uint8_t *room = to->j2a + to->offsets.rx_slots + (size_t)slot * SHM_SLOT_BYTES + SHM_SLOT_HEADROOM;
    uint64_t hash = flow_hash(to, packet, len);
    uint32_t low = csb_key(hash);
    struct shm_desc d = {.slot = slot,
                         .offset = SHM_SLOT_HEADROOM,
                         .len = len,
                         .hash = csb_table_hash(hash),
                         .generation = to->generation[slot],
                         .kind = SHM_DESC_PACKET,
                         .flags = SHM_DESC_HASHED};
    memcpy(room, packet, len);
    memcpy(room + len, &low, sizeof low);
    to->with_app[slot] = true;
    if (ring_producer_refresh(&to->rx[io]) <= 0)
        abort();
    ring_push(&to->rx[io], d);
    ring_publish(&to->rx[io]);
    if (doorbell_wanted(&a2j(to)->app_sleeping))
        doorbell_ring_app(to->bell);
}

/* Carries what from's app has sent to to's app (null: nowhere), and completes it.  Returns packets. */
static uint32_t fake_pump(struct fake *from, struct fake *to)
{
    uint32_t moved = 0;

    fake_collect(from);
    if (to)
        fake_collect(to);
    for (uint32_t i = 0; i < from->sizes.io_count; i++) {
        int32_t n = ring_consumer_refresh(&from->tx[i]);

        from->bad += n < 0;
        for (; n > 0; n--, moved++) {
            struct shm_desc d = ring_pop(&from->tx[i]);
            const uint8_t *packet = from->a2j + from->offsets.tx_slots + (size_t)d.slot * SHM_SLOT_BYTES + d.offset;

            if (d.kind != SHM_DESC_PACKET || d.slot >= from->sizes.tx_slots || d.offset + d.len > SHM_SLOT_BYTES) {
                from->bad++;
                continue;
            }
            from->sent++;
            if (to && !(from->drop_every && from->sent % from->drop_every == 0))
                deliver(to, packet, d.len);
            d.kind = SHM_DESC_RETURN;
            if (ring_producer_refresh(&from->tx_done[i]) <= 0)
                abort();
            ring_push(&from->tx_done[i], d);
        }
        ring_release(&from->tx[i]);
        ring_publish(&from->tx_done[i]);
    }
    if (moved > 0 && doorbell_wanted(&a2j(from)->app_sleeping))
        doorbell_ring_app(from->bell);
    return moved;
}

static uint32_t fake_rx_free(const struct fake *f)
{
    return f->rx_free_count;
}

static uint64_t fake_bad(const struct fake *f)
{
    return f->bad;
}

static void fake_drop(struct fake *f, uint32_t every)
{
    f->drop_every = every;
}

/* Descriptors as only a broken janusd writes them. */
static void fake_push(struct fake *f, uint32_t io, uint32_t slot, uint16_t offset, uint16_t len, uint8_t kind)
{
    ring_push(&f->rx[io], (struct shm_desc){.slot = slot, .offset = offset, .len = len, .kind = kind});
    ring_publish(&f->rx[io]);
}

static void fake_marker(struct fake *f, uint32_t io, uint32_t attempt, uint32_t marker)
{
    ring_push(&f->rx[io], (struct shm_desc){.slot = attempt, .hash = marker, .kind = SHM_DESC_MARKER});
    ring_publish(&f->rx[io]);
}

static void fake_push_done(struct fake *f, uint32_t io, uint32_t slot, uint16_t generation, uint8_t kind)
{
    ring_push(&f->tx_done[io], (struct shm_desc){.slot = slot, .generation = generation, .kind = kind});
    ring_publish(&f->tx_done[io]);
}

static void fake_set_io_cpu(struct fake *f, uint32_t io, uint16_t io_cpu)
{
    j2a(f)->io_cpu[io] = io_cpu;
}

static uint64_t own_slice_ns(void)
{
    struct slice_attributes own = {.size = sizeof own};

    return syscall(SYS_sched_getattr, 0, &own, sizeof own, 0) < 0 ? 0 : own.runtime;
}

static void fake_set_rx_head(struct fake *f, uint32_t io, uint32_t value)
{
    j2a(f)->io[io].rx_head.value = value;
}

static void fake_close_session(struct fake *f)
{
    j2a(f)->closed = 1;
}

static uint64_t fake_busy_us(const struct fake *f)
{
    return a2j(f)->busy_us;
}

static uint64_t fake_csb_closed(const struct fake *f)
{
    return a2j(f)->csb_closed;
}

static uint64_t fake_busy_since_us(const struct fake *f)
{
    return a2j(f)->busy_since_us;
}

static uint32_t fake_heartbeat(const struct fake *f)
{
    return a2j(f)->heartbeat.value;
}

static uint32_t fake_rows_used(const struct fake *f)
{
    return a2j(f)->rows_used.value;
}

static void fake_ring(const struct fake *f)
{
    doorbell_ring_app(f->bell);
}

static bool fake_sleeping(const struct fake *f)
{
    return a2j(f)->app_sleeping.value != 0;
}

/* One turn of an echo server: what cannot be sent stays unread. */
static void app_echo(struct janus_thread *t)
{
    struct tcp_event event;
    struct tcp_view view;

    thread_poll(t);
    while (thread_next_event(t, &event)) {
        while (thread_recv_views(t, event.conn, &view, 1) == 1) {
            int64_t n = thread_send(t, event.conn, view.data, view.len);

            if (n <= 0)
                break;
            thread_recv_consume(t, event.conn, (uint32_t)n);
        }
        if (thread_conn_error(t, event.conn) != 0 || thread_recv_eof(t, event.conn))
            thread_close_conn(t, event.conn);
    }
    thread_flush(t);
}
