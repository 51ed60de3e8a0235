/*
 * overflow.c: the SIGSEGV handler.
 *
 * It finds the scheduler by the faulting address, among those in a table of atomic pointers, for a signal handler may take no lock.
 * It only writes a line, puts the previous handler back and returns: the instruction faults again, and all that
 * follows (core dump, another handler's traceback) is as if Janus were not there.
 */
#include "coro/overflow.h"
#include "coro/run.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WATCHED_MAX = 1024, SIGNAL_STACK_BYTES = 64 << 10 };

static _Atomic(struct coro_sched *) watched[WATCHED_MAX];
static struct sigaction previous;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local void *signal_stack; /* null: the thread had one */
static _Thread_local uint32_t signal_stack_users;

static char *put_text(char *at, const char *text)
{
    size_t len = strlen(text);

    memcpy(at, text, len);
    return at + len;
}

static char *put_number(char *at, uint64_t value, unsigned base)
{
    char digits[24];
    int count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

static void report(const struct coro_sched *s)
{
    char line[256], *at = line;

    at = put_text(at, "janus: stack overflow in the coroutine of connection ");
    if (s->options.owner_id != NULL)
        at = put_number(at, s->options.owner_id(s->owner), 10);
    else
        at = put_number(put_text(at, "at 0x"), (uintptr_t)s->owner, 16);
    at = put_text(at, ": its handler needs more than the stack of ");
    at = put_number(at, s->options.stack_bytes, 10);
    at = put_text(at, " bytes (deep recursion, or a large array on the stack)\n");
    if (write(STDERR_FILENO, line, (size_t)(at - line)) < 0)
        return;
}

/* True when address is in the guard of the stack that s runs on now. */
static bool is_overflow(const struct coro_sched *s, const char *address)
{
    const struct coro_stack *stack = &s->run_stack;
    size_t guard_bytes = s->run_guard_bytes;

    if (s->current == NULL)
        return false;
    if (s->options.backend == CORO_SEPARATE_STACKS) {
        stack = &s->stacks.at[s->current->image];
        guard_bytes = s->stacks.guard_bytes;
    }
    return address >= stack->low && address < stack->low + guard_bytes;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    for (int i = 0; i < WATCHED_MAX; i++) {
        struct coro_sched *s = atomic_load_explicit(&watched[i], memory_order_acquire);

        if (s != NULL && is_overflow(s, info->si_addr)) {
            report(s);
            break;
        }
    }
    sigaction(number, &previous, NULL);
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous);
}

/* The thread's first scheduler gives it an alternate signal stack, its last one takes it away. */
static int hold_signal_stack(void)
{
    stack_t now, own = {.ss_size = SIGNAL_STACK_BYTES};

    if (signal_stack_users == 0) {
        if (sigaltstack(NULL, &now) != 0)
            return -errno;
        if (now.ss_flags & SS_DISABLE) {
            own.ss_sp = mmap(NULL, SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (own.ss_sp == MAP_FAILED)
                return -ENOMEM;
            sigaltstack(&own, NULL);
            signal_stack = own.ss_sp;
        }
    }
    signal_stack_users++;
    return 0;
}

static void release_signal_stack(void)
{
    stack_t now, off = {.ss_flags = SS_DISABLE};

    if (--signal_stack_users != 0 || signal_stack == NULL)
        return;
    if (sigaltstack(NULL, &now) == 0 && now.ss_sp == signal_stack)
        sigaltstack(&off, NULL);
    munmap(signal_stack, SIGNAL_STACK_BYTES);
    signal_stack = NULL;
}

int overflow_watch(struct coro_sched *s)
{
    int error;

    pthread_once(&once, install);
    for (int i = 0; i < WATCHED_MAX; i++) {
        struct coro_sched *none = NULL;

        if (!atomic_compare_exchange_strong(&watched[i], &none, s))
            continue;
        error = hold_signal_stack();
        if (error != 0)
            atomic_store(&watched[i], NULL);
        return error;
    }
    return -ENOSPC;
}

void overflow_unwatch(struct coro_sched *s)
{
    for (int i = 0; i < WATCHED_MAX; i++) {
        struct coro_sched *own = s;

        if (!atomic_compare_exchange_strong(&watched[i], &own, NULL))
            continue;
        release_signal_stack();
        return;
    }
}
