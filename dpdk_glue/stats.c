/*
 * stats.c: the names of the counters.
 */
#include "dpdk_glue/stats.h"

static const char *const io_names[] = {"turns", "busy_turns", "sleeps", "busy_cycles", "syns_held", "reassembled"};
static const char *const port_names[] = {"rx_packets",   "rx_bytes",    "tx_packets", "tx_bytes",
                                         "slow_packets", "resets_sent", "tx_joined"};
static const char *const app_names[] = {"rx_packets", "rx_bytes",    "tx_packets",     "tx_bytes",
                                        "doorbells",  "resets_sent", "sessions_closed"};

static bool name_all(struct page *p, enum page_kind kind, const char *const *names, uint32_t count)
{
    uint32_t counter;

    for (uint32_t i = 0; i < count; i++) {
        if (!page_name_counter(p, kind, "", names[i], &counter))
            return false;
    }
    return true;
}

static bool name_drops(struct page *p, enum page_kind kind)
{
    uint32_t counter;

    for (uint32_t i = 0; i < SHM_DROP_COUNT; i++) {
        if (!page_name_counter(p, kind, "drop.", shm_drop_name((enum shm_drop)i), &counter))
            return false;
    }
    return true;
}

bool stats_name_counters(struct page *p)
{
    uint32_t counter;

    if (!name_all(p, PAGE_KIND_IO, io_names, STATS_IO_COUNT) ||
        !name_all(p, PAGE_KIND_PORT, port_names, STATS_PORT_CLASSIFY_DROPS))
        return false;
    for (uint32_t i = 0; i < CLASSIFY_DROP_COUNT; i++) {
        if (!page_name_counter(p, PAGE_KIND_PORT, "drop.", classify_drop_name((enum classify_drop)i), &counter))
            return false;
    }
    return name_drops(p, PAGE_KIND_PORT) && name_all(p, PAGE_KIND_APP, app_names, STATS_APP_DROPS) &&
           name_drops(p, PAGE_KIND_APP) && name_all(p, PAGE_KIND_THREAD, app_names, STATS_APP_DROPS) &&
           name_drops(p, PAGE_KIND_THREAD);
}
