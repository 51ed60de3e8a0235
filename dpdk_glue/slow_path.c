/*
 * slow_path.c: the rings to the control plane, and its frames to the ports.
 */
#include "dpdk_glue/slow_path.h"

#include "dpdk_glue/out.h"
#include "dpdk_glue/refuse.h"

#include <errno.h>
#include <unistd.h>

enum { FRAME_MIN = 14 };

void control_wake(struct glue *g)
{
    static const uint64_t one = 1;

    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&g->wake_armed) != 0 && atomic_exchange(&g->wake_armed, 0) != 0)
        (void)!write(g->wake_fd, &one, sizeof one);
}

/* The control plane sees no tags.  Returns bytes written. */
static uint32_t copy_untagged(uint8_t *out, const uint8_t *frame, uint32_t len)
{
    if (len < ETHER_HEADER_MAX || get_be16(frame + 12) != ETHER_TYPE_VLAN) {
        memcpy(out, frame, len);
        return len;
    }
    memcpy(out, frame, 12);
    memcpy(out + 12, frame + 12 + ETHER_VLAN_LEN, len - 12 - ETHER_VLAN_LEN);
    return len - ETHER_VLAN_LEN;
}

static void tag(struct rte_mbuf *m, uint16_t vlan_id)
{
    const uint8_t *untagged = rte_pktmbuf_mtod(m, const uint8_t *);
    uint8_t *frame = (uint8_t *)rte_pktmbuf_prepend(m, ETHER_VLAN_LEN);

    memmove(frame, untagged, 12);
    put_be16(frame + 12, ETHER_TYPE_VLAN);
    put_be16(frame + 14, vlan_id);
}

bool slow_push(struct io_thread *io, uint32_t port, enum glue_slow_reason reason, const struct ip_addr *next_hop,
               const uint8_t *frame, uint32_t len)
{
    struct slow_ring *r = io->slow;
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

    if (head - atomic_load_explicit(&r->tail, memory_order_acquire) == SLOW_RING || len > GLUE_FRAME_BYTES)
        return false;
    struct glue_slow_frame *f = &r->frames[head % SLOW_RING];
    f->port = port;
    f->reason = reason;
    f->io = io->index;
    if (next_hop != NULL)
        memcpy(f->next_hop, next_hop, sizeof f->next_hop);
    else
        memset(f->next_hop, 0, sizeof f->next_hop);
    f->len = copy_untagged(f->frame, frame, len);
    atomic_store_explicit(&r->head, head + 1, memory_order_release);
    page_add(io->glue->ports[port].stats[io->index], STATS_PORT_SLOW_PACKETS, 1);
    control_wake(io->glue);
    return true;
}

/* Takes a frame from the next ring that has one, in turns, so that no thread's flood hides another's frames. */
static bool take(struct glue *g, struct glue_slow_frame *out)
{
    for (uint32_t i = 0; i < g->io_count; i++) {
        struct slow_ring *r = g->io[(g->slow_next + i) % g->io_count].slow;
        uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        if (atomic_load_explicit(&r->head, memory_order_acquire) == tail)
            continue;
        const struct glue_slow_frame *f = &r->frames[tail % SLOW_RING];
        memcpy(out, f, offsetof(struct glue_slow_frame, frame) + f->len);
        atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
        g->slow_next = (g->slow_next + i + 1) % g->io_count;
        return true;
    }
    return false;
}

int glue_slow_recv(struct glue *g, struct glue_slow_frame *out)
{
    mtx_lock(&g->control);
    bool taken = take(g, out);
    if (!taken) { /* ask to be woken, then look again */
        atomic_store(&g->wake_armed, 1);
        taken = take(g, out);
    }
    mtx_unlock(&g->control);
    return taken;
}

int glue_slow_send(struct glue *g, uint32_t port, const uint8_t *frame, uint32_t len, struct glue_text *why)
{
    if (port >= atomic_load(&g->port_count))
        return refuse(why, ENODEV, "there is no port number %u", port);
    if (len < FRAME_MIN || len > (uint32_t)g->ports[port].mtu + ETHER_HEADER_MAX)
        return refuse(why, EMSGSIZE, "a frame of %u bytes does not fit the port", len);
    struct rte_mbuf *m = out_frame(g, frame, len);
    if (m == NULL)
        return refuse(why, ENOBUFS, "the packet pool is empty");
    if (g->ports[port].classify.vlan_id != 0)
        tag(m, g->ports[port].classify.vlan_id);
    if (rte_ring_enqueue(g->ports[port].handover, m) != 0) {
        rte_pktmbuf_free(m);
        return refuse(why, ENOBUFS, "the port's queue is full");
    }
    doorbell_ring_io(g->io[0].kick_fd);
    return 0;
}
