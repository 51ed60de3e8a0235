/*
 * stats.h: what the data plane counts, as numbers of the stats page's counters, by kind of block.
 *
 * The order here is the order on the page; stats_name_counters() puts the names beside.
 */
#ifndef DPDK_GLUE_STATS_H
#define DPDK_GLUE_STATS_H

#include "dpdk_glue/classify.h"
#include "shm/drops.h"
#include "shm/page.h"

enum stats_io {
    STATS_IO_TURNS,
    STATS_IO_BUSY_TURNS,
    STATS_IO_SLEEPS,
    STATS_IO_BUSY_CYCLES,
    STATS_IO_SYNS_HELD, /* for the time that an update drains */
    STATS_IO_REASSEMBLED,
    STATS_IO_COUNT
};

enum stats_port {
    STATS_PORT_RX_PACKETS,
    STATS_PORT_RX_BYTES,
    STATS_PORT_TX_PACKETS,
    STATS_PORT_TX_BYTES,
    STATS_PORT_SLOW_PACKETS, /* handed to the control plane */
    STATS_PORT_RESETS_SENT,
    STATS_PORT_TX_JOINED, /* segments that went to the port as parts of longer ones */
    STATS_PORT_CLASSIFY_DROPS,
    STATS_PORT_DROPS = STATS_PORT_CLASSIFY_DROPS + CLASSIFY_DROP_COUNT,
    STATS_PORT_COUNT = STATS_PORT_DROPS + SHM_DROP_COUNT
};

/* Of an app, and of each of its threads. */
enum stats_app {
    STATS_APP_RX_PACKETS,
    STATS_APP_RX_BYTES,
    STATS_APP_TX_PACKETS,
    STATS_APP_TX_BYTES,
    STATS_APP_DOORBELLS, /* rung */
    STATS_APP_RESETS_SENT,
    STATS_APP_SESSIONS_CLOSED, /* for what the app wrote */
    STATS_APP_DROPS,
    STATS_APP_COUNT = STATS_APP_DROPS + SHM_DROP_COUNT
};

static_assert((int)STATS_PORT_COUNT <= (int)PAGE_COUNTERS_MAX, "the page has room");
static_assert((int)STATS_APP_COUNT <= (int)PAGE_COUNTERS_MAX, "the page has room");

/* False: the page has no room for the names. */
bool stats_name_counters(struct page *p);

#endif
