/*
 * qsbr.h: when may what an I/O thread has perhaps seen be freed?
 *
 * An I/O thread counts its turns, and holds no snapshot from one turn to the next.  What was taken from its pointer before
 * all running threads' turns were noted is out of every hand once each count has moved.  Writers hold the control lock.
 */
#ifndef DPDK_GLUE_QSBR_H
#define DPDK_GLUE_QSBR_H

#include <stdbool.h>
#include <stdint.h>

struct glue;

struct qsbr_retired {
    struct qsbr_retired *next;
    void *memory;
    uint64_t turns[8];
};

struct qsbr {
    struct qsbr_retired *retired;
};

/* Frees memory (of malloc) later, now if no thread runs.  Cheap; null is no memory. */
void qsbr_retire(struct glue *g, void *memory);

/* Returns once every running I/O thread has passed a quiet point; wakes those that sleep.  About a millisecond at most on an idle
 * machine. */
void qsbr_synchronize(struct glue *g);

/* Frees what has been retired; no I/O thread runs any more. */
void qsbr_release(struct glue *g);

#endif
