/*
 * mapper.h: a thread that maps shared values for a TCP thread and gives them back, so that its loop is not held by that.
 *
 *   TCP thread ── mapper_map(), mapper_unmap() ──> jobs, in order ──> mmap() with all pages, munmap() ──> mapper_take()
 *
 * Either takes 10 to 300 us where another processor has to be told of it.  Until mapper_start() each job is done by the caller, at once.
 */
#ifndef APP_MAPPER_H
#define APP_MAPPER_H

#include "shm/attach.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { MAPPER_JOBS = 32 };

struct mapper_job {
    struct attach_csb message; /* that brings the value */
    uint64_t session;          /* the asker's */
    const void *memory;        /* of message.bytes; NULL: it is not what the message says */
    void *list;                /* of list_bytes, to be written */
    uint64_t bytes, list_bytes;
    int fd; /* to be mapped and closed; -1: memory is to be given back */
};

struct mapper {
    struct mapper_job jobs[MAPPER_JOBS];
    _Atomic uint32_t asked, done;
    uint32_t taken, maps_asked; /* maps_asked: not taken yet */
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
/* The next value that is mapped. */
bool mapper_take(struct mapper *m, struct mapper_job *job);

/* A value is still to be mapped or taken. */
static inline bool mapper_is_busy(const struct mapper *m)
{
    return m->maps_asked > 0;
}

#endif
