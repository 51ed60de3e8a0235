/*
 * state.h: all that the data plane keeps, private to dpdk_glue.
 *
 *   struct glue
 *     ports[]        set up once, then read by all
 *     io[]           one per I/O thread: what only that thread writes
 *     apps[]         CSB region, tid -> session
 *     services, routes, io[].sessions   snapshots behind one pointer each (qsbr.h)
 *
 * Writers of snapshots and of apps hold the control lock; an I/O thread takes no lock.
 */
#ifndef DPDK_GLUE_STATE_H
#define DPDK_GLUE_STATE_H

#include "csb/circle.h"
#include "csb/hash.h"
#include "dpdk_glue/balance.h"
#include "dpdk_glue/classify.h"
#include "dpdk_glue/glue.h"
#include "dpdk_glue/fragments.h"
#include "dpdk_glue/ledger.h"
#include "dpdk_glue/overload.h"
#include "dpdk_glue/qsbr.h"
#include "dpdk_glue/routes.h"
#include "dpdk_glue/rows.h"
#include "dpdk_glue/services.h"
#include "dpdk_glue/stats.h"
#include "dpdk_glue/txcheck.h"
#include "shm/doorbell.h"
#include "shm/layout.h"
#include "shm/ring.h"

#include "dpdk_glue/ahead.h" /* DPDK comes behind wire/ip.h, whose names it defines as macros */

#include <pthread.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <stdatomic.h>
#include <threads.h>

enum {
    TX_BURST_PER_APP = 64, /* packets of one TCP thread in one turn */
    OUT_QUEUE = 256,       /* packets that wait for a full port */
    HELD_MAX = 256,        /* SYNs that wait for the end of an update, in one I/O thread */
    SLOW_RING = 256,       /* frames from one I/O thread to the control plane */
    CONTROL = GLUE_IO_MAX  /* the column of what the control plane counts */
};
static_assert((int)GLUE_IO_MAX == (int)SHM_IO_MAX, "one bound");

struct port {
    uint16_t ethdev;
    uint16_t rx_queues, tx_queues;
    uint16_t mtu;
    uint32_t offloads;      /* enum glue_offload */
    bool wakes;             /* a frame ends an I/O thread's sleep */
    bool reassembles;       /* IP fragments of TCP */
    uint16_t tso_frame_max; /* bytes, Ethernet included, of what a segment may become that the port cuts off */
    char name[GLUE_NAME_BYTES];
    char driver[GLUE_NAME_BYTES];
    struct classify_port classify;
    struct rte_ring *handover; /* to I/O thread 0, from threads without a queue and from the control plane */
    struct page_block *stats[GLUE_IO_MAX + 1];
    struct ahead *ahead; /* of each RX queue; its I/O thread's */
};

struct session_io {
    struct ring_producer rx, tx_done;
    struct ring_consumer tx, rx_return;
    struct ledger ledger;
    struct overload overload;
    struct page_block *stats;
    struct balance_marker marker; /* due when the ring has room */
    uint64_t bad_since_tsc;       /* when the count of bad values began */
    uint32_t bad;
    bool touched;                  /* in this burst */
    uint64_t rx_packets, rx_bytes; /* delivered in this burst */
    uint64_t unknown_since_tsc;    /* when the count of packets to unknown neighbours began */
    uint32_t unknown;
};

struct glue_session {
    struct glue *glue;
    struct app *app;
    uint32_t tid, generation, tx_io;
    struct shm_sizes sizes;
    struct shm_offsets offsets;
    struct txcheck_lease lease;
    struct rows rows;
    uint8_t *j2a;       /* read and write */
    const uint8_t *a2j; /* read only; not touched before the seal */
    int j2a_fd, a2j_fd, rows_fd;
    int doorbell[2]; /* janusd's end, the app's end */
    int io_doorbell[GLUE_IO_MAX];
    bool huge, sealed, started, stopped;
    bool reported;           /* the violation, to the control plane */
    _Atomic uint32_t closed; /* enum shm_drop: why */
    _Atomic uint32_t violations;
    _Atomic uint64_t resets_sent, resets_skipped;
    uint32_t reset_rate; /* 0: none asked for */
    uint32_t reset_next; /* row */
    bool resets_done, resets_reported;
    struct glue_session *next; /* of all */
    struct session_io io[GLUE_IO_MAX];
};

struct app {
    uint32_t id; /* 0: free */
    char name[GLUE_NAME_BYTES];
    uint32_t session_count;
    struct csb_region *csb;
    int csb_fd;
    struct balance balance;
    _Atomic(struct glue_session *) sessions[SHM_TID_MAX];
    struct page_block *stats[GLUE_IO_MAX + 1];
};

/* The sessions that one I/O thread sends for and whose returns it collects: a snapshot. */
struct session_list {
    uint32_t count;
    struct glue_session *sessions[];
};

struct out_queue {
    struct rte_mbuf *mbufs[OUT_QUEUE];
    uint32_t count;
};

/* SYNs of flows that are moving to another thread, until it is known which: then they go on as if they came now. */
struct held_syns {
    struct rte_mbuf *mbufs[HELD_MAX];
    uint32_t port[HELD_MAX];
    uint32_t count;
    bool is_due;
};

struct slow_ring {
    _Alignas(64) _Atomic uint32_t head;
    _Alignas(64) _Atomic uint32_t tail;
    struct glue_slow_frame frames[SLOW_RING];
};

struct io_thread {
    _Alignas(64) struct glue *glue;
    uint32_t index;
    int32_t cpu;
    pthread_t thread;
    bool created;
    _Atomic uint32_t running; /* 0: not yet or no more; it then holds no snapshot */
    int epoll_fd, kick_fd;
    uint64_t idle_since_tsc, heartbeat_tsc, busy_from_tsc, reset_tsc;
    uint32_t reset_tokens;
    uint32_t sleep_us;
    uint32_t round_robin;
    struct page_block *stats;
    struct slow_ring *slow;
    struct out_queue out[GLUE_PORTS_MAX];
    struct balance_io csb[GLUE_APPS_MAX];
    uint64_t orders_taken;
    bool markers_due;
    struct held_syns held;
    bool port_has_more;  /* a burst of this turn was as long as can be */
    bool thread_is_full; /* a packet of this turn found no slot, or the next ones may */
    struct fragments *fragments;
    _Atomic uint64_t orders_obeyed;
    _Alignas(64) _Atomic uint64_t turns;
    _Atomic(struct session_list *) sessions;
};

struct glue {
    mtx_t control;
    struct page *page;
    enum glue_mode mode;
    uint32_t io_count;
    _Atomic uint32_t stop;
    _Atomic uint32_t port_count;
    _Atomic uint32_t reset_unserved, recovery;
    struct rte_mempool *pool;
    uint64_t tsc_hz;
    _Atomic(struct services *) services;
    _Atomic(struct routes *) routes;
    _Atomic uint64_t orders; /* of balancers, given so far */
    struct qsbr qsbr;
    int wake_fd;
    _Atomic uint32_t wake_armed;
    uint32_t slow_next; /* the I/O thread whose frames are taken next */
    struct glue_session *sessions;
    pthread_t sweeper;
    bool sweeper_running;
    cnd_t sweep;
    struct glue_address addresses[GLUE_ADDRESSES_MAX];
    uint32_t address_count;
    struct glue_service *service_list;
    uint32_t service_count;
    struct port ports[GLUE_PORTS_MAX];
    struct app apps[GLUE_APPS_MAX];
    struct io_thread io[GLUE_IO_MAX];
};

/* A counter of a session, and the same of its app. */
static inline void count_app(struct glue_session *s, uint32_t io, uint32_t counter, uint64_t n)
{
    page_add(s->io[io].stats, counter, n);
    page_add(s->app->stats[io], counter, n);
}

static inline void count_drop(struct glue_session *s, uint32_t io, enum shm_drop drop, uint64_t n)
{
    count_app(s, io, STATS_APP_DROPS + (uint32_t)drop, n);
}

/* Wakes the control plane if it waits. */
void control_wake(struct glue *g);

#endif
