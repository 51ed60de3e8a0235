/*
 * driver.h: what a thread's loop needs from the way in and out beside struct tcp_env: rings to janusd, or a loop in memory.
 */
#ifndef APP_DRIVER_H
#define APP_DRIVER_H

#include "tcp/tcp.h"

struct driver {
    void *context; /* the same as tcp_env.context */
    uint64_t (*now_us)(void *context);
    /* Takes up to max arrived packets; each slot belongs to the core from here on. */
    uint32_t (*receive)(void *context, struct tcp_packet *packets, uint32_t max);
    /* Takes the completions of sent packets; how many TX slots became free. */
    uint32_t (*collect)(void *context);
    /* Makes everything sent and released since the last call visible to the other side. */
    void (*publish)(void *context);
    /* True when receive() or collect() would find something. */
    bool (*pending)(void *context);
    /* Tells the other side whether it must ring when it has something. */
    void (*set_sleeping)(void *context, bool sleeping);
    /* When a packet that is on its way arrives, or UINT64_MAX; null: the other side rings. */
    uint64_t (*next_us)(void *context);
};

#endif
