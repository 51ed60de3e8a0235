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
    e->tx_published = 0;
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
    e->tx_flags = checksum_offload ? SHM_DESC_NEED_CHECKSUM : 0;
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
    e->rx_given = e->rx_free_count;
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

/* There is no janusd to send it. */
static bool lose(struct env_rings *e, uint32_t slot, bool last)
{
    e->sent_detached++;
    if (last)
        tx_free(e, slot);
    return true;
}

static bool tx_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    struct env_rings *e = context;
    struct tx_meta *meta = &e->tx_meta[slot];

    if (ring_producer_room(&e->tx) == 0) {
        int32_t room;

        if (!e->up)
            return lose(e, slot, last);
        room = ring_producer_refresh(&e->tx);
        e->violations += room < 0;
        if (room <= 0)
            return false;
    }
    ring_push(&e->tx, (struct shm_desc){.slot = slot,
                                        .offset = (uint16_t)offset,
                                        .len = (uint16_t)len,
                                        .generation = meta->generation,
                                        .kind = SHM_DESC_PACKET,
                                        .flags = e->tx_flags});
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
    const struct env_rings *e = context;
    uint32_t there = e->refs[slot].slot;

    return there != SHM_NO_SLOT ? e->rx_slots + (size_t)there * SHM_SLOT_BYTES
                                : e->rx_private + (size_t)slot * SHM_SLOT_BYTES;
}

/* The slot goes back with the others of the turn. */
static void rx_release(void *context, uint32_t slot)
{
    struct env_rings *e = context;

    e->rx_free[e->rx_free_count++] = slot;
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

/* Slots that were released since the last call. */
static void give_back(struct env_rings *e)
{
    const uint32_t *released = e->rx_free + e->rx_given, *end = e->rx_free + e->rx_free_count;
    const struct rx_ref *refs = e->refs;
    uint32_t io_shift = e->io_shift;

    e->rx_given = e->rx_free_count;
    for (; released < end; released++) {
        struct rx_ref ref = refs[*released];
        struct ring_producer *ring;

        if (ref.slot == SHM_NO_SLOT)
            continue;
        ring = &e->rx_return[ref.slot >> io_shift];
        if (ring_producer_room(ring) == 0 && ring_producer_refresh(ring) <= 0)
            e->violations++; /* more returns than slots: janusd's count is wrong, the slot is lost to this session */
        else
            ring_push(ring, (struct shm_desc){.slot = ref.slot, .generation = ref.generation, .kind = SHM_DESC_RETURN});
    }
}

/* What no packet is.  True: an update's marker, which is its turn's first. */
static void take_other(struct env_rings *e, uint32_t io)
{
    struct shm_desc d = ring_pop(&e->rx[io]);

    if (d.kind == SHM_DESC_MARKER)
        balance_marker(e->balance, d.slot, d.hash, io, clock_now_us());
    else
        e->violations++;
}

/* Takes the packets of I/O thread io that count descriptors name, up to the first of something else; how many it took.  In a
 * frame of its own, for its registers. */
static __attribute__((noinline)) uint32_t take_run(struct env_rings *e, uint32_t io, const struct shm_desc *descs,
                                                   uint32_t count, struct tcp_packet *packets)
{
    const uint32_t *number = e->rx_free + e->rx_free_count;
    const uint8_t *slots = e->rx_slots;
    struct rx_ref *refs = e->refs;
    uint32_t first = io << e->io_shift, slot_count = 1U << e->io_shift, n;
    bool trust_hash = e->trust_hash;

    for (n = 0; n < count; n++) {
        struct shm_desc d = ring_copy(&descs[n]);
        const uint8_t *ip;
        uint32_t slot;

        if (d.kind != SHM_DESC_PACKET || d.slot - first >= slot_count || d.offset + (uint32_t)d.len > SHM_SLOT_BYTES)
            break;
        slot = *--number;
        refs[slot] = (struct rx_ref){d.slot, d.generation};
        ip = slots + (size_t)d.slot * SHM_SLOT_BYTES + d.offset;
        __builtin_prefetch(ip);
        packets[n] = (struct tcp_packet){.ip = ip,
                                         .slot = slot,
                                         .offset = d.offset,
                                         .len = d.len,
                                         .hash = d.hash,
                                         .has_hash = trust_hash,
                                         .has_low = d.flags & SHM_DESC_HASHED,
                                         .verified = d.flags & SHM_DESC_VERIFIED};
    }
    e->rx[io].tail_shadow += n;
    e->rx_free_count -= n;
    e->rx_given = e->rx_free_count;
    return n;
}

/* Adds packets of I/O thread io, whose ring has so many descriptors waiting, to the n of max that there are; how many there are
 * then.  They go on waiting when numbers run out, which the core never keeps all of. */
static uint32_t take_packets(struct env_rings *e, uint32_t io, uint32_t waiting, struct tcp_packet *packets, uint32_t n,
                             uint32_t max)
{
    if (max - n > e->rx_free_count)
        max = n + e->rx_free_count;
    while (waiting > 0 && n < max) {
        const struct shm_desc *descs;
        uint32_t count = ring_straight(&e->rx[io], waiting < max - n ? waiting : max - n, &descs);
        uint32_t taken = take_run(e, io, descs, count, packets + n);

        n += taken;
        waiting -= taken;
        if (taken == count)
            continue;
        if (n > 0 && ring_next_kind(&e->rx[io]) == SHM_DESC_MARKER)
            break; /* what came before it is done first */
        take_other(e, io);
        waiting--;
    }
    return n;
}

/* The I/O threads take turns at being first, so that a busy one cannot starve the others. */
static uint32_t receive(void *context, struct tcp_packet *packets, uint32_t max)
{
    struct env_rings *e = context;
    uint32_t n = 0, io_count = e->region->sizes.io_count;

    if (!e->up)
        return 0;
    give_back(e); /* what was released after the last turn */
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

/* Takes so many completions; how many of them were good. */
static uint32_t take_completions(struct env_rings *e, struct ring_consumer *shared, uint32_t waiting)
{
    struct ring_consumer ring = *shared; /* a copy, which no store can change */
    struct tx_meta *all = e->tx_meta;
    uint32_t *free = e->tx_free + e->tx_free_count;
    uint32_t total = e->tx_total, good = 0, refused = 0;

    for (uint32_t i = 0; i < waiting; i++) {
        struct shm_desc d = ring_pop(&ring);
        struct tx_meta *meta;

        if (d.kind != SHM_DESC_RETURN || d.slot >= total)
            continue;
        meta = &all[d.slot];
        if (!meta->busy || d.generation != meta->generation)
            continue;
        refused += (d.flags & SHM_DESC_DROPPED) != 0;
        meta->busy = false;
        if (!meta->held)
            *free++ = d.slot;
        good++;
    }
    *shared = ring;
    e->tx_free_count = (uint32_t)(free - e->tx_free);
    e->sent_refused += refused;
    e->violations += waiting - good;
    return good;
}

static uint32_t collect_ring(struct env_rings *e, struct ring_consumer *ring)
{
    int32_t waiting = ring_consumer_refresh(ring);
    uint32_t n;

    e->violations += waiting < 0;
    if (waiting <= 0)
        return 0;
    n = take_completions(e, ring, (uint32_t)waiting);
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
    give_back(e);
    for (uint32_t i = 0; i < e->region->sizes.io_count; i++) {
        if (e->rx_return_published[i] != e->rx_return[i].head_shadow)
            ring_publish(&e->rx_return[i]);
        e->rx_return_published[i] = e->rx_return[i].head_shadow;
    }
    if (e->tx_published == e->tx.head_shadow)
        return;
    e->tx_published = e->tx.head_shadow;
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
    e->tx.end = e->tx.head_shadow; /* tx_send() asks whether janusd is there when it finds no room */
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
    e->old_rx = old->j2a + old->offsets.rx_slots;
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
    memcpy(e->rx_private + (size_t)slot * SHM_SLOT_BYTES, e->old_rx + (size_t)ref->slot * SHM_SLOT_BYTES,
           SHM_SLOT_BYTES);
    ref->slot = SHM_NO_SLOT;
    return slot;
}

void env_rings_rebase_end(struct env_rings *e)
{
    e->old_tx = e->old_rx = NULL;
    e->rx_given = e->rx_free_count; /* what was released meanwhile was the old session's */
    for (uint32_t slot = 0; slot < e->rx_total; slot++)
        e->refs[slot].slot = SHM_NO_SLOT; /* what is lent was not moved, and is the old session's */
    fill_tx_free(e);
}
