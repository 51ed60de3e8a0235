/*
 * env_rings.c: the core's environment over the rings of one session with janusd.
 *
 * Indices are published once per turn.  A ring for TX has as many entries as there are TX slots, and a slot is in it once at
 * most, so it can only be full while janusd lags; rx_return has room for every RX slot of its I/O thread by the same count.
 */
#include "app/env_rings.h"

#include "app/clock.h"
#include "shm/doorbell.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

/* --- setting up --- */

static struct ring_consumer consumer(const uint8_t *descs, const struct shm_index *head, struct shm_index *tail,
                                     uint32_t size)
{
    return (struct ring_consumer){
        .descs = (const struct shm_desc *)descs, .head = &head->value, .tail = &tail->value, .mask = size - 1};
}

static struct ring_producer producer(uint8_t *descs, struct shm_index *head, const struct shm_index *tail,
                                     uint32_t size)
{
    return (struct ring_producer){
        .descs = (struct shm_desc *)descs, .head = &head->value, .tail = &tail->value, .mask = size - 1};
}

static void connect_rings(struct env_rings *e, struct region *r)
{
    const struct shm_j2a_header *j2a = region_j2a(r);
    struct shm_a2j_header *a2j = region_a2j(r);
    const struct shm_sizes *sizes = &r->sizes;

    for (uint32_t i = 0; i < sizes->io_count; i++) {
        e->rx[i] =
            consumer(r->j2a + r->offsets.rx[i], &j2a->io[i].rx_head, &a2j->io[i].rx_tail, 2 * sizes->rx_slots_per_io);
        e->tx_done[i] = consumer(r->j2a + r->offsets.tx_done[i], &j2a->io[i].tx_done_head, &a2j->io[i].tx_done_tail,
                                 sizes->tx_slots);
        e->rx_return[i] = producer(r->a2j + r->offsets.rx_return[i], &a2j->io[i].rx_return_head,
                                   &j2a->io[i].rx_return_tail, sizes->rx_slots_per_io);
        e->rx_return_published[i] = 0;
    }
    e->rx_slots = r->j2a + r->offsets.rx_slots;
    e->tx_slots = r->a2j + r->offsets.tx_slots;
    e->io_tx = r->tid % sizes->io_count;
    e->io_next = 0;
    e->io_shift = (uint32_t)__builtin_ctz(sizes->rx_slots_per_io); /* a power of two */
    e->tx = producer(r->a2j + r->offsets.tx[e->io_tx], &a2j->io[e->io_tx].tx_head, &j2a->io[e->io_tx].tx_tail,
                     sizes->tx_slots);
    e->tx_pushed = false;
    e->region = r;
    e->up = true;
    e->trust_hash = true;
}

/* The lowest number is on top, so that a lightly loaded thread stays in few cache lines. */
static void fill_tx_free(struct env_rings *e)
{
    e->tx_free_count = 0;
    for (uint32_t slot = e->tx_total; slot-- > 0;) {
        if (!e->tx_meta[slot].held && !e->tx_meta[slot].busy)
            e->tx_free[e->tx_free_count++] = slot;
    }
}

/* Address space for one private copy of each slot; it costs memory only where it is written. */
static uint8_t *private_room(uint32_t slots)
{
    void *p = mmap(NULL, (size_t)slots * SHM_SLOT_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int env_rings_init(struct env_rings *e, struct region *region, bool checksum_offload)
{
    memset(e, 0, sizeof *e);
    e->checksum_offload = checksum_offload;
    e->rx_total = region->sizes.io_count * region->sizes.rx_slots_per_io;
    e->tx_total = region->sizes.tx_slots;
    e->refs = calloc(e->rx_total, sizeof *e->refs);
    e->rx_free = calloc(e->rx_total, sizeof *e->rx_free);
    e->tx_meta = calloc(e->tx_total, sizeof *e->tx_meta);
    e->tx_free = calloc(e->tx_total, sizeof *e->tx_free);
    e->rx_private = private_room(e->rx_total);
    if (!e->refs || !e->rx_free || !e->tx_meta || !e->tx_free || !e->rx_private) {
        env_rings_free(e);
        return -ENOMEM;
    }
    for (uint32_t i = e->rx_total; i-- > 0;)
        e->rx_free[e->rx_free_count++] = i;
    fill_tx_free(e);
    connect_rings(e, region);
    return 0;
}

void env_rings_free(struct env_rings *e)
{
    free(e->refs);
    free(e->rx_free);
    free(e->tx_meta);
    free(e->tx_free);
    if (e->rx_private)
        munmap(e->rx_private, (size_t)e->rx_total * SHM_SLOT_BYTES);
    memset(e, 0, sizeof *e);
}

/* --- struct tcp_env --- */

static uint8_t *tx_data(void *context, uint32_t slot)
{
    return ((const struct env_rings *)context)->tx_slots + (size_t)slot * SHM_SLOT_BYTES;
}

static uint32_t tx_alloc(void *context)
{
    struct env_rings *e = context;
    uint32_t slot;

    if (e->tx_free_count == 0)
        return TCP_NO_SLOT;
    slot = e->tx_free[--e->tx_free_count];
    e->tx_meta[slot].held = true;
    e->tx_meta[slot].generation++;
    return slot;
}

static void tx_free(void *context, uint32_t slot)
{
    struct env_rings *e = context;

    e->tx_meta[slot].held = false;
    if (!e->tx_meta[slot].busy)
        e->tx_free[e->tx_free_count++] = slot;
}

static bool tx_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    struct env_rings *e = context;
    struct tx_meta *meta = &e->tx_meta[slot];

    if (!e->up) {
        e->sent_detached++;
        if (last)
            tx_free(e, slot);
        return true;
    }
    if (ring_producer_room(&e->tx) == 0) {
        int32_t room = ring_producer_refresh(&e->tx);

        e->violations += room < 0;
        if (room <= 0)
            return false;
    }
    ring_push(&e->tx, (struct shm_desc){.slot = slot,
                                        .offset = (uint16_t)offset,
                                        .len = (uint16_t)len,
                                        .generation = meta->generation,
                                        .kind = SHM_DESC_PACKET,
                                        .flags = e->checksum_offload ? SHM_DESC_NEED_CHECKSUM : 0});
    e->tx_pushed = true;
    meta->busy = true;
    if (last)
        meta->held = false;
    return true;
}

static bool tx_busy(void *context, uint32_t slot)
{
    return ((const struct env_rings *)context)->tx_meta[slot].busy;
}

static uint32_t tx_available(void *context)
{
    return ((const struct env_rings *)context)->tx_free_count;
}

static const uint8_t *rx_data(void *context, uint32_t slot)
{
    return ((const struct env_rings *)context)->refs[slot].data;
}

static void give_back(struct env_rings *e, uint32_t slot, uint16_t generation)
{
    struct ring_producer *ring = &e->rx_return[slot >> e->io_shift];

    if (ring_producer_room(ring) == 0 && ring_producer_refresh(ring) <= 0) {
        e->violations++; /* more returns than slots: janusd's count is wrong, the slot is lost to this session */
        return;
    }
    ring_push(ring, (struct shm_desc){.slot = slot, .generation = generation, .kind = SHM_DESC_RETURN});
}

static void rx_release(void *context, uint32_t slot)
{
    struct env_rings *e = context;
    const struct rx_ref *ref = &e->refs[slot];

    e->rx_free[e->rx_free_count++] = slot;
    if (ref->slot != SHM_NO_SLOT && e->up)
        give_back(e, ref->slot, ref->generation);
}

/* Random bytes are drawn ahead: one system call serves many connections. */
static void draw_random(void *context, void *data, size_t len)
{
    struct env_rings *e = context;
    uint8_t *out = data;

    while (len > 0) {
        size_t part = len < e->random_left ? len : e->random_left;

        if (part == 0) {
            ssize_t n = getrandom(e->random, sizeof e->random, 0);

            e->random_left = n > 0 ? (uint32_t)n : 0;
            continue;
        }
        memcpy(out, e->random + e->random_left - part, part);
        memset(e->random + e->random_left - part, 0, part);
        e->random_left -= (uint32_t)part;
        out += part;
        len -= part;
    }
}

static bool may_create(void *context, uint64_t hash)
{
    return balance_may_create(((struct env_rings *)context)->balance, hash);
}

static enum tcp_miss miss(void *context, uint64_t hash)
{
    return balance_miss(((const struct env_rings *)context)->balance, hash);
}

static void ended(void *context, uint64_t hash)
{
    balance_ended(((struct env_rings *)context)->balance, hash);
}

/* The page may be another's by now, and touching it without would end in SIGBUS. */
static bool populate(void *context, void *rows, size_t bytes)
{
    const struct env_rings *e = context;

    return !e->region->rows_huge || madvise(rows, bytes, MADV_POPULATE_WRITE) == 0;
}

void env_rings_env(struct env_rings *e, struct tcp_env *env)
{
    *env = (struct tcp_env){
        .context = e,
        .tx_alloc = tx_alloc,
        .tx_free = tx_free,
        .tx_data = tx_data,
        .tx_send = tx_send,
        .tx_busy = tx_busy,
        .tx_available = tx_available,
        .rx_data = rx_data,
        .rx_release = rx_release,
        .random = draw_random,
        .may_create = may_create,
        .miss = miss,
        .ended = ended,
        .populate = populate,
    };
}

/* --- struct driver --- */

static uint64_t now_us(void *context)
{
    (void)context;
    return clock_now_us();
}

/* What no packet is.  True: an update's marker, which is its turn's first. */
static void take_other(struct env_rings *e, uint32_t io, const struct shm_desc *d)
{
    if (d->kind == SHM_DESC_MARKER)
        balance_marker(e->balance, d->slot, d->hash, io, clock_now_us());
    else
        e->violations++;
}

static bool is_good_packet(const struct env_rings *e, uint32_t io, const struct shm_desc *d)
{
    return d->kind == SHM_DESC_PACKET && d->slot >> e->io_shift == io && d->offset + (uint32_t)d->len <= SHM_SLOT_BYTES;
}

/* Adds packets of I/O thread io, whose ring has so many waiting, to the n of max that there are; how many there are then. */
static __attribute__((noinline)) uint32_t take_packets(struct env_rings *e, uint32_t io, uint32_t waiting,
                                                       struct tcp_packet *packets, uint32_t n, uint32_t max)
{
    struct ring_consumer ring = e->rx[io]; /* a copy, which no store to a packet can change */
    const uint8_t *slots = e->rx_slots;
    uint32_t slot;

    while (waiting-- > 0 && n < max) {
        struct shm_desc d = ring_pop(&ring);

        if (!is_good_packet(e, io, &d)) {
            if (d.kind == SHM_DESC_MARKER && n > 0) { /* what came before it is done first */
                ring.tail_shadow--;
                break;
            }
            take_other(e, io, &d);
            continue;
        }
        if (e->rx_free_count == 0) { /* after a re-attach, while private copies still hold numbers */
            give_back(e, d.slot, d.generation);
            continue;
        }
        slot = e->rx_free[--e->rx_free_count];
        e->refs[slot] = (struct rx_ref){slots + (size_t)d.slot * SHM_SLOT_BYTES, d.slot, d.generation};
        __builtin_prefetch(slots + (size_t)d.slot * SHM_SLOT_BYTES + d.offset);
        packets[n++] = (struct tcp_packet){.slot = slot,
                                           .offset = d.offset,
                                           .len = d.len,
                                           .hash = d.hash,
                                           .has_hash = e->trust_hash,
                                           .has_low = d.flags & SHM_DESC_HASHED,
                                           .verified = d.flags & SHM_DESC_VERIFIED};
    }
    e->rx[io] = ring;
    return n;
}

/* The I/O threads take turns at being first, so that a busy one cannot starve the others. */
static uint32_t receive(void *context, struct tcp_packet *packets, uint32_t max)
{
    struct env_rings *e = context;
    uint32_t n = 0, io_count = e->region->sizes.io_count;

    if (!e->up)
        return 0;
    for (uint32_t k = 0; k < io_count && n < max; k++) {
        uint32_t io = (e->io_next + k) % io_count;
        int32_t waiting = ring_consumer_refresh(&e->rx[io]);

        e->violations += waiting < 0;
        if (waiting <= 0)
            continue;
        n = take_packets(e, io, (uint32_t)waiting, packets, n, max);
        ring_release(&e->rx[io]);
    }
    e->io_next++;
    return n;
}

static uint32_t collect_ring(struct env_rings *e, struct ring_consumer *ring)
{
    int32_t waiting = ring_consumer_refresh(ring);
    uint32_t n = 0;

    e->violations += waiting < 0;
    if (waiting <= 0)
        return 0;
    while (waiting-- > 0) {
        struct shm_desc d = ring_pop(ring);

        if (d.kind != SHM_DESC_RETURN || d.slot >= e->tx_total || !e->tx_meta[d.slot].busy ||
            d.generation != e->tx_meta[d.slot].generation) {
            e->violations++;
            continue;
        }
        e->sent_refused += (d.flags & SHM_DESC_DROPPED) != 0;
        e->tx_meta[d.slot].busy = false;
        if (!e->tx_meta[d.slot].held)
            e->tx_free[e->tx_free_count++] = d.slot;
        n++;
    }
    ring_release(ring);
    return n;
}

static uint32_t collect(void *context)
{
    struct env_rings *e = context;
    uint32_t n = 0;

    for (uint32_t i = 0; e->up && i < e->region->sizes.io_count; i++)
        n += collect_ring(e, &e->tx_done[i]);
    return n;
}

static void publish(void *context)
{
    struct env_rings *e = context;

    if (!e->up)
        return;
    atomic_store_explicit((_Atomic uint32_t *)&region_a2j(e->region)->heartbeat.value, (uint32_t)++e->heartbeat,
                          memory_order_relaxed);
    for (uint32_t i = 0; i < e->region->sizes.io_count; i++) {
        if (e->rx_return_published[i] != e->rx_return[i].head_shadow)
            ring_publish(&e->rx_return[i]);
        e->rx_return_published[i] = e->rx_return[i].head_shadow;
    }
    if (!e->tx_pushed)
        return;
    e->tx_pushed = false;
    ring_publish(&e->tx);
    if (doorbell_wanted(&region_j2a(e->region)->io[e->io_tx].io_sleeping))
        doorbell_ring_io(e->region->io_doorbells[e->io_tx]);
}

static bool pending(void *context)
{
    struct env_rings *e = context;

    for (uint32_t i = 0; e->up && i < e->region->sizes.io_count; i++) {
        if (ring_consumer_refresh(&e->rx[i]) > 0 || ring_consumer_refresh(&e->tx_done[i]) > 0)
            return true;
    }
    return false;
}

static void set_sleeping(void *context, bool sleeping)
{
    struct env_rings *e = context;

    if (!e->up)
        return;
    if (sleeping)
        doorbell_arm(&region_a2j(e->region)->app_sleeping);
    else
        doorbell_disarm(&region_a2j(e->region)->app_sleeping);
}

void env_rings_driver(struct env_rings *e, struct driver *driver)
{
    *driver = (struct driver){
        .context = e,
        .now_us = now_us,
        .receive = receive,
        .collect = collect,
        .publish = publish,
        .pending = pending,
        .set_sleeping = set_sleeping,
    };
}

/* --- when janusd goes and comes back --- */

void env_rings_down(struct env_rings *e)
{
    e->up = false;
    for (uint32_t slot = 0; slot < e->tx_total; slot++)
        e->tx_meta[slot].busy = false;
    fill_tx_free(e);
}

bool env_rings_fits(const struct env_rings *e, const struct region *region)
{
    return region->sizes.tx_slots >= e->tx_total && region->sizes.rows >= e->region->sizes.rows &&
           region->sizes.row_stride == e->region->sizes.row_stride;
}

void env_rings_rebase_begin(struct env_rings *e, struct region *old, struct region *region)
{
    e->old_tx = old->a2j + old->offsets.tx_slots;
    connect_rings(e, region);
    for (uint32_t slot = 0; slot < e->tx_total; slot++)
        e->tx_meta[slot].held = false;
}

uint32_t env_rings_move_tx(void *context, uint32_t slot)
{
    struct env_rings *e = context;

    memcpy(tx_data(e, slot), e->old_tx + (size_t)slot * SHM_SLOT_BYTES, SHM_SLOT_BYTES);
    e->tx_meta[slot].held = true;
    return slot;
}

uint32_t env_rings_move_rx(void *context, uint32_t slot)
{
    struct env_rings *e = context;
    struct rx_ref *ref = &e->refs[slot];

    if (ref->slot == SHM_NO_SLOT)
        return slot; /* private since an earlier re-attach */
    memcpy(e->rx_private + (size_t)slot * SHM_SLOT_BYTES, ref->data, SHM_SLOT_BYTES);
    ref->data = e->rx_private + (size_t)slot * SHM_SLOT_BYTES;
    ref->slot = SHM_NO_SLOT;
    return slot;
}

void env_rings_rebase_end(struct env_rings *e)
{
    e->old_tx = NULL;
    for (uint32_t slot = 0; slot < e->rx_total; slot++)
        e->refs[slot].slot = SHM_NO_SLOT; /* what is lent was not moved, and is the old session's */
    fill_tx_free(e);
}
