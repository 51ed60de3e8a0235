/*
 * hostile_app.h: what the hostile app's classes stand on: a proper attach, then raw access to everything in A2J.
 */
#ifndef TESTS_SYSTEM_HOSTILE_APP_H
#define TESTS_SYSTEM_HOSTILE_APP_H

#include "shm/attach.h"
#include "shm/layout.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 8000, PEER_PORT = 9, RX_SLOTS = 256, TX_SLOTS = 256, ROWS = 4096, HEADROOM = 128, PACKET = 60 };
enum { FD_J2A, FD_A2J, FD_ROWS, FD_CSB, FD_DOORBELL, FD_IO };

struct hostile {
    const char *path;
    uint64_t random, ops, deadline_us;
    int sock, fds[ATTACH_FDS_MAX];
    uint32_t fd_count, seq;
    struct attach_welcome welcome;
    struct shm_offsets at;
    const uint8_t *j2a;
    uint8_t *a2j, *rows;
    struct shm_a2j_io *mine; /* of the one I/O thread that sends for us */
    const struct shm_j2a_io *theirs;
    struct shm_desc *tx, *returns;
    uint32_t tx_head, return_head, rx_tail;
};

static inline uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline uint32_t draw(struct hostile *h) /* xorshift64* */
{
    h->random ^= h->random >> 12;
    h->random ^= h->random << 25;
    h->random ^= h->random >> 27;
    return (uint32_t)(h->random * UINT64_C(2685821657736338717) >> 32);
}

static inline void give_up(const char *what)
{
    fprintf(stderr, "hostile_app: %s: %s\n", what, strerror(errno));
    exit(1);
}

static inline int connect_to(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    if (sock >= 0 && connect(sock, (struct sockaddr *)&to, sizeof to) == 0)
        return sock;
    close(sock);
    return -1;
}

static inline struct attach_hello hello(void)
{
    return (struct attach_hello){.type = ATTACH_HELLO,
                                 .magic = ATTACH_MAGIC,
                                 .abi_major = SHM_ABI_MAJOR,
                                 .abi_minor = SHM_ABI_MINOR,
                                 .app = "web",
                                 .rows = ROWS,
                                 .rx_slots_per_io = RX_SLOTS,
                                 .tx_slots = TX_SLOTS,
                                 .row = {64, 0, 8, 24, 26, 28, 32, 36}};
}

static inline uint32_t load_index(const struct shm_index *index)
{
    return atomic_load_explicit((const _Atomic uint32_t *)&index->value, memory_order_acquire);
}

static inline void store_index(struct shm_index *index, uint32_t value)
{
    atomic_store_explicit((_Atomic uint32_t *)&index->value, value, memory_order_release);
}

/* Why janusd has ended the session, an enum shm_drop; 0 while it goes on. */
static inline uint32_t closed(const struct hostile *h)
{
    return atomic_load((const _Atomic uint32_t *)&((const struct shm_j2a_header *)h->j2a)->closed);
}

static inline bool over(struct hostile *h)
{
    return closed(h) != 0 || now_us() > h->deadline_us;
}

static inline void ring_bell(struct hostile *h)
{
    static const uint64_t one = 1;
    if (write(h->fds[FD_IO], &one, sizeof one) < 0)
        return; /* full: it has been rung often enough */
}

/* One descriptor onto the ring to send, as an honest app would. False: the session is over. */
static inline bool submit(struct hostile *h, struct shm_desc d)
{
    while (h->tx_head - load_index(&h->theirs->tx_tail) >= TX_SLOTS) {
        if (over(h))
            return false;
        ring_bell(h);
    }
    h->tx[h->tx_head++ % TX_SLOTS] = d;
    store_index(&h->mine->tx_head, h->tx_head);
    store_index(&h->mine->tx_done_tail, load_index(&h->theirs->tx_done_head));
    if (h->tx_head % 16 == 0)
        ring_bell(h);
    h->ops++;
    return !over(h);
}

static inline bool give_back(struct hostile *h, struct shm_desc d)
{
    while (h->return_head - load_index(&h->theirs->rx_return_tail) >= RX_SLOTS) {
        if (over(h))
            return false;
        ring_bell(h);
    }
    h->returns[h->return_head++ % RX_SLOTS] = d;
    store_index(&h->mine->rx_return_head, h->return_head);
    ring_bell(h);
    h->ops++;
    return !over(h);
}

static inline uint8_t *tx_slot(struct hostile *h, uint32_t slot)
{
    return h->a2j + h->at.tx_slots + (size_t)slot * SHM_SLOT_BYTES + HEADROOM;
}

static inline struct shm_desc to_send(uint32_t slot)
{
    return (struct shm_desc){.slot = slot, .offset = HEADROOM, .len = PACKET, .kind = SHM_DESC_PACKET};
}

/* The classes that speak on the attach socket alone (hostile_attach.c). */
void attach_garbage(struct hostile *h);
void attach_chatter(struct hostile *h);

#endif
