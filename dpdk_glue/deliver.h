/*
 * deliver.h: a received packet into a slot of its TCP thread and onto its ring.
 *
 *   session_collect()  what the app has given back -> ledger
 *   deliver()          packet -> slot -> descriptor, not yet published
 *   deliver_publish()  one store per session of the burst, and its doorbell when it sleeps
 *
 * Whatever the app writes is counted, never waited for.  Too many impossible values close the session.
 */
#ifndef DPDK_GLUE_DELIVER_H
#define DPDK_GLUE_DELIVER_H

#include "dpdk_glue/state.h"

/* The sessions that a burst has delivered to. */
struct delivered {
    uint32_t count;
    struct glue_session *sessions[BURST];
};

/* The app wrote something impossible: count it; close the session when it is an index or the last of too many. */
void session_violated(struct glue_session *s, uint32_t io, enum shm_drop drop);

/* Takes returned slots; how many. */
uint32_t session_collect(struct glue_session *s, uint32_t io);

/* Copies one IP packet that classify() has found good; SHM_DROP_NONE or why it was dropped, counted.  hash: csb_hash() of its flow. */
enum shm_drop deliver(struct delivered *d, struct glue_session *s, uint32_t io, const struct classified *c,
                      const uint8_t *packet, uint64_t hash);
void deliver_publish(struct delivered *d, uint32_t io);

/* Rings the app's doorbell if it sleeps. */
void session_wake(struct glue_session *s, uint32_t io);

static inline bool session_is_closed(struct glue_session *s)
{
    return atomic_load_explicit(&s->closed, memory_order_relaxed) != 0;
}

static inline struct shm_j2a_header *session_j2a(struct glue_session *s)
{
    return (struct shm_j2a_header *)s->j2a;
}

static inline const struct shm_a2j_header *session_a2j(const struct glue_session *s)
{
    return (const struct shm_a2j_header *)s->a2j;
}

#endif
