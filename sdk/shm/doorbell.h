/*
 * doorbell.h: sleep without losing a wake-up, and ring only for who sleeps.
 *
 *   consumer: arm (flag = 1, fence) -> look at the rings again -> sleep or disarm
 *   producer: publish -> fence, flag set? -> ring
 *
 * The two fences make one of the two see the other.  janusd rings the app through a socket pair, not an eventfd: an app can take
 * O_NONBLOCK off a file description that it shares, and a full eventfd would then block an I/O thread; a send that says
 * MSG_DONTWAIT never blocks.  The app rings janusd through eventfds that janusd only polls, edge-triggered, and never reads.
 */
#ifndef SHM_DOORBELL_H
#define SHM_DOORBELL_H

#include "shm/layout.h"

#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

/* Announces sleep.  Look at every ring once more before sleeping. */
static inline void doorbell_arm(struct shm_index *flag)
{
    atomic_store_explicit((_Atomic uint32_t *)&flag->value, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void doorbell_disarm(struct shm_index *flag)
{
    atomic_store_explicit((_Atomic uint32_t *)&flag->value, 0, memory_order_relaxed);
}

/* True: the peer sleeps or is about to; ring.  After publishing.  The flag is the peer's: any value but 0 counts as set. */
static inline bool doorbell_wanted(const struct shm_index *flag)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit((const _Atomic uint32_t *)&flag->value, memory_order_relaxed) != 0;
}

/* janusd's end of the app's doorbell.  A full or closed one is the app's own affair. */
static inline void doorbell_ring_app(int fd)
{
    static const uint64_t one = 1;
    (void)!send(fd, &one, sizeof one, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The app's end of an I/O thread's doorbell. */
static inline void doorbell_ring_io(int fd)
{
    static const uint64_t one = 1;
    (void)!write(fd, &one, sizeof one);
}

/* The app's end of its own doorbell: takes what has been rung so far. */
static inline void doorbell_drain(int fd)
{
    uint64_t rung[16];
    (void)!read(fd, rung, sizeof rung);
}

#endif
