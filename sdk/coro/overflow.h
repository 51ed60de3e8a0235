/*
 * overflow.h: a stack overflow says whose it is before the process dies of it.
 */
#ifndef CORO_OVERFLOW_H
#define CORO_OVERFLOW_H

struct coro_sched;

/* Watches the guard pages of s.  The first one installs the SIGSEGV handler of the process; faults elsewhere go to whatever was
 * installed before.  Gives the calling thread an alternate signal stack if it has none.  0, or -errno; -ENOSPC: too many. */
int overflow_watch(struct coro_sched *s);

/* Must be called by the thread that called overflow_watch().  The handler stays for the others. */
void overflow_unwatch(struct coro_sched *s);

#endif
