/*
 * mapper.h: a thread beside a TCP thread, for what would hold its loop: shared values mapped and given back, lists sent.
 *
 *   TCP thread ── mapper_map(), mapper_unmap(), mapper_send() ──> jobs, in order ──> mmap(), munmap(), sendmsg() ──> mapper_take()
 *                 mapper_wake(), once
 *
 * To map takes 10 to 300 us where another processor has to be told of it, and whoever is sent something may run in the sender's place.
 * Until mapper_start() each job is done by the caller, at once, but that a full socket is tried again by mapper_wake().
 */
#ifndef APP_MAPPER_H
#define APP_MAPPER_H

#include "shm/attach.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { MAPPER_JOBS = 32 };

enum mapper_kind { MAPPER_MAP, MAPPER_UNMAP, MAPPER_SEND };

struct mapper_job {
    enum mapper_kind kind;
    struct attach_csb message; /* MAP: that brings the value */
    uint64_t session;          /* the asker's */
    const void *memory;        /* of message.bytes; NULL: it is not what the message says */
    void *list;                /* of list_bytes, to be written */
    uint64_t bytes, list_bytes;
    int fd; /* to be closed: of the value, or the attach socket */
    struct {
        const uint64_t *hashes;
        uint64_t attempt;
        uint32_t count, sent, phase; /* phase: answered behind the list, 0: none */
    } send;
};

struct mapper {
    struct mapper_job jobs[MAPPER_JOBS];
    _Atomic uint32_t asked, done, lists_sent;
    uint32_t taken, maps_asked; /* maps_asked: not taken yet */
    uint32_t woken, lists_asked;
    pthread_t thread;
    sem_t wake;
    bool is_running;
    _Atomic bool is_ending;
};

/* Without it, or if no thread can be had, the caller is held. */
void mapper_start(struct mapper *m);
/* Ends the thread; what it has done is still to be taken. */
void mapper_stop(struct mapper *m);

/* Maps message.bytes of fd, which it takes, and list_bytes of new memory.  False: too much is asked for already. */
bool mapper_map(struct mapper *m, const struct attach_csb *message, int fd, uint64_t list_bytes, uint64_t session);
void mapper_unmap(struct mapper *m, const void *memory, uint64_t bytes);
/* Sends these hashes, which stay until it is done, as LIST, and then DONE for phase, unless that is 0.  False: try again later. */
bool mapper_send(struct mapper *m, int socket, uint64_t attempt, const uint64_t *hashes, uint32_t count,
                 uint32_t phase);
/* What has been asked for is to be done now. */
void mapper_wake(struct mapper *m);
/* The next value that is mapped. */
bool mapper_take(struct mapper *m, struct mapper_job *job);

/* A value is still to be mapped or taken. */
static inline bool mapper_is_busy(const struct mapper *m)
{
    return m->maps_asked > 0;
}

static inline bool mapper_is_sending(const struct mapper *m)
{
    return m->lists_asked != atomic_load_explicit(&m->lists_sent, memory_order_acquire);
}

static inline bool mapper_wants_wake(const struct mapper *m)
{
    return m->woken != atomic_load_explicit(&m->asked, memory_order_relaxed);
}

#endif
