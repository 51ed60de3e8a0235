/*
 * slice.h: short turns from the scheduler, for a thread that packets wait for.
 *
 * Linux 6.12 and later let an ordinary thread ask for short slices (sched_setattr(2), sched_runtime): it gets no more of the
 * processor, but sooner, since who shares the processor is then interrupted after a slice of this length.  Older kernels take
 * no notice.
 */
#ifndef SHM_SLICE_H
#define SHM_SLICE_H

#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SLICE_NS = 100000 }; /* the least that the kernel grants */

/* struct sched_attr of the kernel, as it was first: the C library has it from 2.41 on. */
struct slice_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* For the calling thread; whoever has given it a priority or another policy is not contradicted. */
static inline void slice_ask_short(void)
{
    struct slice_attributes own = {.size = sizeof own};

    if (syscall(SYS_sched_getattr, 0, &own, sizeof own, 0) < 0 || own.policy != SCHED_OTHER)
        return;
    own.runtime = SLICE_NS;
    (void)syscall(SYS_sched_setattr, 0, &own, 0);
}

#endif
