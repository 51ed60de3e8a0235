/*
 * host.h: the machine that the stack under test believes in: slots, a wire that keeps what was sent, and virtual time.
 *
 *   main thread:    hooks (send, receive, sleep) ── host_run_until() ──> timers, packets, news
 *   second thread:  one system call that blocks  ── host_wait() ──> sleeps until a hook has made its condition true
 *
 * One mutex guards all.  Time moves in the main thread alone.  A woken call holds the main thread until it has told its time by
 * gettimeofday(), which packetdrill asks for first, or waits again: so the time at which it returned is exact.
 */
#ifndef PACKETDRILL_HOST_H
#define PACKETDRILL_HOST_H

#include "tcp/tcp.h"

#include <pthread.h>

enum {
    HOST_RX_SLOTS = 4096,
    HOST_TX_SLOTS = 4096,
    HOST_RX_OFFSET = 16,
    HOST_OUT_MAX = 8192,
    HOST_RECEIVE_US = 130 * 1000 * 1000, /* netdev_receive() waits so long, longer than any RTO */
};
#define HOST_NEVER UINT64_MAX

struct host_packet {
    uint64_t at_us;
    uint32_t len;
    uint8_t data[TCP_SLOT_BYTES];
};

struct host_settings {
    struct tcp_config config;
    struct ip_addr laddr[2]; /* of connect() without bind(): IPv4, IPv6 */
    bool linux;              /* choose as Linux does, and read its sysctls at the first socket() */
    char flags[1024];        /* they have the last word */
};

struct host_waiter {
    bool (*is_over)(void *arg);
    void *arg;
    uint64_t deadline_us;
    bool go;
};

struct host {
    pthread_mutex_t lock;
    pthread_cond_t wake, told;
    pthread_t main;
    struct host_waiter *waiter;
    bool telling; /* the woken thread has not yet told its time */

    struct host_settings settings;
    struct tcp_stack *stack; /* null until the first call that needs it: settings may change up to then */
    uint64_t now_us;
    void *memory, *rows;
    uint8_t *tx, *rx;
    uint32_t *tx_free, *rx_free; /* stacks of free slots */
    uint32_t tx_free_count, rx_free_count;
    struct host_packet *out;
    uint32_t out_first, out_count;
    bool broken; /* the stack has sent a packet with a wrong checksum */
    struct ip_addr addresses[TCP_ADDRESSES_MAX];
    uint32_t address_count;
    uint64_t random;
    void (*on_event)(const struct tcp_event *event);
};

/* All that follows is called with the lock held. */

void host_init(struct host *h, const struct host_settings *settings, void (*on_event)(const struct tcp_event *event));
void host_free(struct host *h);

/* The stack, made when it is first asked for; null when its settings are impossible. */
struct tcp_stack *host_stack(struct host *h);

/* addr is one of the stack's from now on. */
void host_own(struct host *h, const struct ip_addr *addr);

/* Sends what is owed and hands out news until nothing moves; then a waiter whose condition has come true runs. */
void host_step(struct host *h);

/* Time passes up to target_us, timer by timer, or until is_over(arg) (null: never). */
void host_run_until(struct host *h, uint64_t target_us, bool (*is_over)(void *arg), void *arg);

/* The calling thread waits until is_over(arg) or deadline_us; the result is is_over(arg) at the end.  In the main thread time passes;
 * another thread sleeps. */
bool host_wait(struct host *h, bool (*is_over)(void *arg), void *arg, uint64_t deadline_us);

/* The calling thread has told its time. */
void host_tell(struct host *h);

/* One IP packet for the stack. */
void host_input(struct host *h, const uint8_t *data, uint32_t len);

#endif
