/*
 * deliver.c: the copy into the app's memory, and what comes back.
 */
#include "dpdk_glue/deliver.h"

#include "dpdk_glue/turns.h"

#include <rte_cycles.h>

/* Slots are 2 KiB apart, so packets at one place in them would share a few sets of the caches: short ones are spread. */
enum {
    BAD_PER_SECOND_MAX = 64,
    STAGGER = 16,
    STAGGERED_MAX = SHM_SLOT_BYTES - SHM_SLOT_HEADROOM - (STAGGER - 1) * SHM_CACHE_LINE,
    SLOTS_AHEAD = 8,
};

static void close_for(struct glue_session *s, uint32_t io, enum shm_drop drop)
{
    uint32_t open = 0;

    if (!atomic_compare_exchange_strong(&s->closed, &open, (uint32_t)drop))
        return;
    atomic_store((_Atomic uint32_t *)&session_j2a(s)->closed, (uint32_t)drop);
    count_app(s, io, STATS_APP_SESSIONS_CLOSED, 1);
    control_wake(s->glue);
}

void session_violated(struct glue_session *s, uint32_t io, enum shm_drop drop)
{
    struct session_io *sio = &s->io[io];
    uint64_t now = rte_rdtsc();

    count_drop(s, io, drop, 1);
    atomic_fetch_add_explicit(&s->violations, 1, memory_order_relaxed);
    if (now - sio->bad_since_tsc > s->glue->tsc_hz) {
        sio->bad_since_tsc = now;
        sio->bad = 0;
    }
    if (drop == SHM_DROP_INDEX || ++sio->bad > BAD_PER_SECOND_MAX)
        close_for(s, io, drop);
}

uint32_t session_collect(struct glue_session *s, uint32_t io)
{
    struct session_io *sio = &s->io[io];
    int32_t n = ring_consumer_refresh(&sio->rx_return);

    if (n < 0) {
        session_violated(s, io, SHM_DROP_INDEX);
        return 0;
    }
    for (int32_t i = 0; i < n; i++) {
        struct shm_desc d = ring_pop(&sio->rx_return);
        enum shm_drop drop = SHM_DROP_RETURN_KIND;
        if (d.kind == SHM_DESC_RETURN)
            drop = ledger_take_back(&sio->ledger, d.slot, d.generation);
        if (drop == SHM_DROP_NONE)
            continue;
        session_violated(s, io, drop);
        if (session_is_closed(s)) /* what else is in the ring, up to a whole one, is of no interest */
            return (uint32_t)i + 1;
    }
    if (n > 0)
        ring_release(&sio->rx_return);
    return (uint32_t)n;
}

static enum shm_drop make_room(struct glue_session *s, uint32_t io)
{
    struct session_io *sio = &s->io[io];

    if (ring_producer_room(&sio->rx) == 0 && ring_producer_refresh(&sio->rx) < 0) {
        session_violated(s, io, SHM_DROP_INDEX);
        return SHM_DROP_RING_FULL;
    }
    if (ring_producer_room(&sio->rx) == 0)
        return SHM_DROP_RING_FULL;
    return sio->ledger.free_count == 0 ? SHM_DROP_NO_SLOT : SHM_DROP_NONE;
}

/* The ring's index is read again when the last one says that many wait. */
static bool is_overloaded(struct glue_session *s, uint32_t io)
{
    struct ring_producer *rx = &s->io[io].rx;
    uint32_t size = rx->mask + 1, slots = s->sizes.rx_slots_per_io;

    if (size - ring_producer_room(rx) < slots / 8 || ring_producer_refresh(rx) < 0)
        return false;
    return overload_sheds(&s->io[io].overload, size - ring_producer_room(rx), slots, rte_rdtsc(), s->glue->tsc_hz / 10);
}

/* The line that will be written, which the app's processor may have. */
static void fetch_slot(const struct glue_session *s, uint32_t slot)
{
    uint64_t at = (uint64_t)slot * SHM_SLOT_BYTES + SHM_SLOT_HEADROOM + slot % STAGGER * SHM_CACHE_LINE;

    __builtin_prefetch(s->j2a + s->offsets.rx_slots + at, 1);
}

/* Segments without payload are copied by two pieces that overlap: a call costs more. */
static void copy_packet(uint8_t *to, const uint8_t *from, uint32_t len)
{
    enum { PIECE = 32 };

    if (len < PIECE || len > 2 * PIECE) {
        memcpy(to, from, len);
        return;
    }
    uint8_t tail[PIECE];
    memcpy(tail, from + len - PIECE, PIECE);
    memcpy(to, from, PIECE);
    memcpy(to + len - PIECE, tail, PIECE);
}

enum shm_drop deliver(struct delivered *d, struct glue_session *s, uint32_t io, const struct classified *c,
                      const uint8_t *packet, uint64_t hash)
{
    uint32_t len = c->total_len;
    struct session_io *sio = &s->io[io];

    if (!sio->touched) {
        sio->touched = true;
        d->sessions[d->count++] = s;
        (void)session_collect(s, io);
        for (uint32_t i = 1; i <= SLOTS_AHEAD && i < sio->ledger.free_count; i++)
            fetch_slot(s, sio->ledger.free[sio->ledger.free_count - i]);
    }
    enum shm_drop drop = len <= SHM_SLOT_BYTES - SHM_SLOT_HEADROOM ? make_room(s, io) : SHM_DROP_OVERSIZE;
    if (drop == SHM_DROP_NONE && c->is_syn && is_overloaded(s, io))
        drop = SHM_DROP_SYN_OVERLOAD;
    if (drop != SHM_DROP_NONE) {
        s->glue->io[io].thread_is_full |= drop == SHM_DROP_NO_SLOT || drop == SHM_DROP_RING_FULL;
        count_drop(s, io, drop, 1);
        return drop;
    }
    struct shm_desc desc = {.offset = SHM_SLOT_HEADROOM,
                            .len = (uint16_t)len,
                            .hash = csb_table_hash(hash),
                            .kind = SHM_DESC_PACKET,
                            .flags = SHM_DESC_VERIFIED};
    desc.slot = ledger_lend(&sio->ledger, &desc.generation);
    if (sio->ledger.free_count >= SLOTS_AHEAD)
        fetch_slot(s, sio->ledger.free[sio->ledger.free_count - SLOTS_AHEAD]);
    if (len <= STAGGERED_MAX)
        desc.offset = (uint16_t)(desc.offset + desc.slot % STAGGER * SHM_CACHE_LINE);
    uint8_t *room = s->j2a + s->offsets.rx_slots + (uint64_t)desc.slot * SHM_SLOT_BYTES + desc.offset;
    copy_packet(room, packet, len);
    uint32_t low = csb_key(hash);
    if (c->is_syn && desc.offset + len + sizeof low <= SHM_SLOT_BYTES) { /* a connection needs all of the hash */
        memcpy(room + len, &low, sizeof low);
        desc.flags |= SHM_DESC_HASHED;
    }
    ring_push(&sio->rx, desc);
    sio->rx_packets++;
    sio->rx_bytes += len;
    return SHM_DROP_NONE;
}

/* An ACK rings too, although no handler waits for it: left lying it would be a round-trip time too long, keep slots from their pool, and
 * the retransmission timer would wake the app instead. */
void session_wake(struct glue_session *s, uint32_t io)
{
    if (!doorbell_wanted(&session_a2j(s)->app_sleeping))
        return;
    doorbell_ring_app(s->doorbell[0]);
    count_app(s, io, STATS_APP_DOORBELLS, 1);
}

void deliver_publish(struct delivered *d, uint32_t io)
{
    for (uint32_t i = 0; i < d->count; i++) {
        struct glue_session *s = d->sessions[i];
        struct session_io *sio = &s->io[io];
        sio->touched = false;
        ring_publish(&sio->rx);
        s->glue->io[io].thread_is_full |= turns_is_full(sio->ledger.free_count, s->sizes.rx_slots_per_io);
        count_app(s, io, STATS_APP_RX_PACKETS, sio->rx_packets);
        count_app(s, io, STATS_APP_RX_BYTES, sio->rx_bytes);
        sio->rx_packets = sio->rx_bytes = 0;
        session_wake(s, io);
    }
    d->count = 0;
}
