/*
 * mapper.c: one job after the other.
 */
#include "app/mapper.h"

#include "app/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOM_MS = 50 }; /* between looks whether it is to end */

static void *map_descriptor(int fd, uint64_t bytes)
{
    struct stat st;
    void *p = MAP_FAILED;

    if (bytes > 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size >= bytes)
        p = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    return p != MAP_FAILED ? p : NULL;
}

static void *make_list(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    return p != MAP_FAILED ? p : NULL;
}

/* False: the socket is full.  A socket that is closed takes all. */
static bool send_list(struct mapper_job *job)
{
    while (job->send.sent < job->send.count) {
        uint32_t left = job->send.count - job->send.sent;
        uint32_t some = left < ATTACH_CSB_HASHES_MAX ? left : ATTACH_CSB_HASHES_MAX;

        if (attach_send_list(job->fd, job->send.attempt, job->send.hashes + job->send.sent, some) == -EAGAIN)
            return false;
        job->send.sent += some;
    }
    if (job->send.phase != 0 && attach_send_done(job->fd, job->send.attempt, job->send.phase) == -EAGAIN)
        return false;
    close(job->fd);
    return true;
}

/* False: it is to be tried again, when the job's socket has room. */
static bool work(struct mapper *m, struct mapper_job *job)
{
    switch (job->kind) {
    case MAPPER_MAP:
        job->memory = map_descriptor(job->fd, job->bytes);
        job->list = job->list_bytes > 0 ? make_list(job->list_bytes) : NULL;
        return true;
    case MAPPER_UNMAP:
        munmap((void *)(uintptr_t)job->memory, job->bytes);
        return true;
    default:
        if (!send_list(job))
            return false;
        atomic_fetch_add_explicit(&m->lists_sent, 1, memory_order_release);
        return true;
    }
}

/* All that is asked for.  The job that waits for room in its socket, NULL: nothing is left. */
static const struct mapper_job *work_all(struct mapper *m)
{
    uint32_t done = atomic_load_explicit(&m->done, memory_order_relaxed);

    while (done != atomic_load_explicit(&m->asked, memory_order_acquire)) {
        if (!work(m, &m->jobs[done % MAPPER_JOBS]))
            return &m->jobs[done % MAPPER_JOBS];
        atomic_store_explicit(&m->done, ++done, memory_order_release);
    }
    return NULL;
}

static void *run(void *arg)
{
    struct mapper *m = arg;
    const struct mapper_job *waiting;

    do {
        while (sem_wait(&m->wake) != 0)
            continue;
        while ((waiting = work_all(m)) != NULL && !atomic_load(&m->is_ending))
            (void)poll(&(struct pollfd){waiting->fd, POLLOUT, 0}, 1, ROOM_MS);
    } while (!atomic_load(&m->is_ending));
    return NULL;
}

void mapper_start(struct mapper *m)
{
    sigset_t all, before;

    if (m->is_running || sem_init(&m->wake, 0, 0) < 0)
        return;
    sigfillset(&all); /* they are for the threads that have handlers */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    m->is_running = pthread_create(&m->thread, NULL, run, m) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (m->is_running)
        (void)pthread_setname_np(m->thread, "janus-map");
    else
        sem_destroy(&m->wake);
}

void mapper_stop(struct mapper *m)
{
    if (!m->is_running)
        return;
    atomic_store(&m->is_ending, true);
    sem_post(&m->wake);
    pthread_join(m->thread, NULL);
    sem_destroy(&m->wake);
    m->is_running = m->is_ending = false;
}

/* Frees the places of what was given back.  The next job whose value is still to be taken; NULL: it is not done, or there is none. */
static struct mapper_job *next_map(struct mapper *m)
{
    while (m->taken != atomic_load_explicit(&m->done, memory_order_acquire)) {
        struct mapper_job *job = &m->jobs[m->taken % MAPPER_JOBS];

        if (job->kind == MAPPER_MAP)
            return job;
        m->taken++;
    }
    return NULL;
}

static bool ask(struct mapper *m, const struct mapper_job *job)
{
    uint32_t asked = atomic_load_explicit(&m->asked, memory_order_relaxed);

    (void)next_map(m);
    if (asked - m->taken == MAPPER_JOBS)
        return false;
    m->jobs[asked % MAPPER_JOBS] = *job;
    atomic_store_explicit(&m->asked, asked + 1, memory_order_release);
    if (!m->is_running)
        work_all(m);
    return true;
}

void mapper_wake(struct mapper *m)
{
    if (m->is_running && mapper_wants_wake(m))
        sem_post(&m->wake);
    else if (!m->is_running)
        work_all(m);
    m->woken = atomic_load_explicit(&m->asked, memory_order_relaxed);
}

bool mapper_map(struct mapper *m, const struct attach_csb *message, int fd, uint64_t list_bytes, uint64_t session)
{
    struct mapper_job job = {.kind = MAPPER_MAP,
                             .message = *message,
                             .session = session,
                             .bytes = message->bytes,
                             .list_bytes = list_bytes,
                             .fd = fd};

    if (fd >= 0 && ask(m, &job)) {
        m->maps_asked++;
        return true;
    }
    if (fd >= 0)
        close(fd);
    return false;
}

void mapper_unmap(struct mapper *m, const void *memory, uint64_t bytes)
{
    struct mapper_job job = {.kind = MAPPER_UNMAP, .memory = memory, .bytes = bytes, .fd = -1};

    if (memory != NULL && !ask(m, &job) && !mapper_is_sending(m)) /* else it stays mapped until the process ends */
        work(m, &job);
}

bool mapper_send(struct mapper *m, int socket, uint64_t attempt, const uint64_t *hashes, uint32_t count, uint32_t phase)
{
    struct mapper_job job = {.kind = MAPPER_SEND,
                             .send = {.hashes = hashes, .attempt = attempt, .count = count, .phase = phase},
                             .fd = fcntl(socket, F_DUPFD_CLOEXEC, 0)};

    if (job.fd < 0)
        return false;
    m->lists_asked++;
    if (ask(m, &job))
        return true;
    m->lists_asked--;
    close(job.fd);
    return false;
}

bool mapper_take(struct mapper *m, struct mapper_job *job)
{
    struct mapper_job *next = next_map(m);

    if (next == NULL)
        return false;
    *job = *next;
    m->taken++;
    m->maps_asked--;
    return true;
}
