/*
 * thread.c: one TCP thread's loop, in named phases, each a pass over the batch.
 *
 *   session ─> receive ─> input ─> completions ─> timers │ events, the user's calls │ output ─> publish ─> sleep
 *   └──────────────── thread_poll() ───────────────────┘                            └─ thread_flush() ┘  thread_wait()
 */
#include "app/thread.h"

#include "app/error.h"
#include "app/spare.h"
#include "shm/slice.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum {
    COMMIT_US = 10 * 1000,         /* between copies of the counters to A2J */
    RESEND_SPREAD_US = 500 * 1000, /* after a re-attach: flights go out again over this time */
};

/* --- making and closing --- */

static uint32_t clamp(uint32_t value, uint32_t low, uint32_t high)
{
    return value < low ? low : value > high ? high : value;
}

void thread_configure(struct tcp_config *config, const struct janus_options *options, uint32_t rows)
{
    config->conn_max = rows;
    config->half_open_max = clamp(rows / 4, 64, 65536);
    config->time_wait_max = clamp(rows, 64, 262144);
    config->extension_max = clamp(rows, 1, 1048576);
    config->congestion_control = options->congestion_control;
    config->ecn = options->ecn;
    config->pacing = true;
    config->rcv_buf_bytes = options->rcv_buf_bytes;
    config->snd_buf_bytes = options->snd_buf_bytes;
    config->msl_ms = options->msl_ms;
    config->reset_unknown = true;
    config->handshake_rtt = true;
}

static void *map_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* every part is used from its first byte on */
    return p;
}

int thread_make_stack(struct janus_thread *t, void *rows, uint64_t now_us, struct janus_error *error)
{
    t->memory_bytes = tcp_memory_bytes(&t->config);
    t->rows_bytes = tcp_rows_bytes(&t->config);
    if (t->memory_bytes == 0)
        return error_set(error, EINVAL, "no stack with these limits: %u connections, MTU %u, %u RX and %u TX slots",
                         t->config.conn_max, t->config.mtu, t->config.rx_slots, t->config.tx_slots);
    t->memory = map_memory(t->memory_bytes);
    if (!rows)
        rows = t->rows = map_memory(t->rows_bytes);
    if (!t->memory || !rows)
        return error_set(error, ENOMEM, "no memory for %zu bytes of connections", t->memory_bytes + t->rows_bytes);
    t->stack = tcp_init(&t->config, &t->env, t->memory, rows, now_us);
    if (!t->stack)
        return error_set(error, EINVAL, "the TCP core refuses its configuration");
    for (uint32_t i = 0; i < t->address_count; i++)
        tcp_add_address(t->stack, &t->addresses[i]);
    t->now_us = now_us;
    return 0;
}

void thread_free_memory(struct janus_thread *t)
{
    if (t->memory)
        munmap(t->memory, t->memory_bytes);
    if (t->rows)
        munmap(t->rows, t->rows_bytes);
}

/* A flow may go on at another thread of the app: ISNs and cookies are made alike in all of them. */
static struct csb_secret shared_secret(const struct csb_secret *app)
{
    return (struct csb_secret){csb_siphash13(app, "isn 0", 5), csb_siphash13(app, "isn 1", 5)};
}

static void fill_from_lease(struct janus_thread *t, const struct janus_options *options)
{
    const struct session *s = t->session;
    const struct attach_welcome *lease = &s->lease;

    thread_configure(&t->config, options, lease->sizes.rows);
    t->config.rx_slots = s->rings.rx_total;
    t->config.tx_slots = s->rings.tx_total;
    t->config.mtu = lease->mtu;
    t->config.source_port_first = lease->source_port_first;
    t->config.source_port_last = lease->source_port_last;
    t->config.tx_checksum_offload = s->rings.checksum_offload;
    t->config.flow_secret = (struct csb_secret){s->region.csb->secret[0], s->region.csb->secret[1]};
    t->config.secret = shared_secret(&t->config.flow_secret);
    t->address_count = lease->address_count;
    memcpy(t->addresses, lease->addresses, sizeof t->addresses[0] * t->address_count);
    env_rings_env(&t->session->rings, &t->env);
    env_rings_driver(&t->session->rings, &t->driver);
}

struct janus_thread *thread_open(const struct janus_options *options, struct janus_error *error)
{
    struct janus_thread *t = calloc(1, sizeof *t);
    struct session *s = calloc(1, sizeof *s);
    struct janus_error unused;

    error = error ? error : &unused;
    if (!t || !s) {
        free(t);
        free(s);
        error_set(error, ENOMEM, "no memory");
        return NULL;
    }
    if (session_open(s, options, error) < 0) {
        free(s);
        free(t);
        return NULL;
    }
    t->session = s;
    fill_from_lease(t, options);
    if (thread_make_stack(t, s->region.rows, t->driver.now_us(t->driver.context), error) < 0) {
        thread_close(t);
        return NULL;
    }
    s->balance.stack = t->stack;
    slice_ask_short();
    return t;
}

void thread_close(struct janus_thread *t)
{
    if (!t)
        return;
    if (t->session) {
        session_close(t->session, t->lent > 0);
        free(t->session);
    }
    thread_free_memory(t);
    free(t);
}

/* --- phases of thread_poll() --- */

/* janusd is back: rows and slots move into the new region, then everything in flight goes out again. */
static void move_in(struct janus_thread *t)
{
    struct session *s = t->session;
    const uint64_t *secret = s->region.csb->secret;

    env_rings_rebase_begin(&s->rings, &s->old, &s->region);
    s->rings.trust_hash = secret[0] == t->config.flow_secret.k0 && secret[1] == t->config.flow_secret.k1;
    tcp_rebase(t->stack, &t->env, s->region.rows, env_rings_move_tx, env_rings_move_rx, t->now_us, RESEND_SPREAD_US);
    env_rings_rebase_end(&s->rings);
    region_a2j(&s->region)->rows_used.value = t->rows_used;
    session_moved(s, t->lent > 0);
}

/* What janusd's stats page and connection list read; it is about 10 ms old at most while the thread is awake. */
static void commit(struct janus_thread *t)
{
    struct shm_a2j_header *header = region_a2j(&t->session->region);

    static_assert(sizeof(struct tcp_counters) <= sizeof header->counters, "counters fit in A2J's header");
    t->commit_us = t->now_us + COMMIT_US;
    memcpy(header->counters, tcp_counters(t->stack), sizeof(struct tcp_counters));
    atomic_store_explicit((_Atomic uint64_t *)&header->csb_closed, t->session->balance.closed, memory_order_relaxed);
    atomic_store_explicit((_Atomic uint64_t *)&header->csb_held_us, t->session->balance.held.own_ns / 1000,
                          memory_order_relaxed);
    atomic_store_explicit((_Atomic uint64_t *)&header->csb_held_wall_us, t->session->balance.held.wall_us,
                          memory_order_relaxed);
}

void thread_note_row(struct janus_thread *t, uint32_t conn)
{
    if (conn < t->rows_used)
        return;
    t->rows_used = conn + 1;
    if (t->session)
        region_a2j(&t->session->region)->rows_used.value = t->rows_used;
}

/* The turns with work follow each other without a gap, so reading the clock once in each adds up without an error. */
static void begin_turn(struct janus_thread *t)
{
    uint64_t now_us = t->driver.now_us(t->driver.context);

    if (t->worked)
        t->busy_us += now_us - t->now_us;
    t->worked = false;
    t->now_us = now_us;
    t->turns++;
}

/* A handler may take long: whoever looks meanwhile must see since when. */
static void note_work(struct janus_thread *t)
{
    struct shm_a2j_header *header;

    t->worked = t->busy;
    if (!t->session)
        return;
    header = region_a2j(&t->session->region);
    atomic_store_explicit((_Atomic uint64_t *)&header->busy_us, t->busy_us, memory_order_relaxed);
    atomic_store_explicit((_Atomic uint64_t *)&header->busy_since_us, t->busy ? t->now_us : 0, memory_order_relaxed);
}

uint32_t thread_poll(struct janus_thread *t)
{
    struct tcp_packet packets[THREAD_BATCH];
    uint32_t n, done;

    begin_turn(t);
    if (t->session && session_step(t->session, t->now_us))
        move_in(t);
    n = t->driver.receive(t->driver.context, packets, THREAD_BATCH);
    tcp_input_batch(t->stack, packets, n, t->now_us);
    done = t->driver.collect(t->driver.context);
    t->busy = n + done > 0;
    if (t->session && !balance_is_idle(&t->session->balance))
        t->busy |= balance_turn(&t->session->balance);
    if (t->now_us >= tcp_next_deadline(t->stack)) {
        tcp_advance(t->stack, t->now_us);
        t->busy = true;
    }
    note_work(t);
    if (t->now_us >= t->spare_us)
        spare_turn(t);
    return n + done;
}

bool thread_next_event(struct janus_thread *t, struct tcp_event *event)
{
    if (!tcp_next_event(t->stack, event))
        return false;
    t->busy = t->worked = true;
    thread_note_row(t, event->conn);
    return true;
}

uint32_t thread_flush(struct janus_thread *t)
{
    uint32_t sent = tcp_output(t->stack, t->now_us);

    t->worked |= sent > 0;
    t->driver.publish(t->driver.context);
    if (t->session && t->now_us >= t->commit_us)
        commit(t);
    return sent;
}

/* --- sleeping --- */

int thread_fd(const struct janus_thread *t)
{
    return t->session ? t->session->poll_fd : -1;
}

bool thread_pending(const struct janus_thread *t)
{
    return t->driver.pending(t->driver.context);
}

/* sched_yield() does not help there: it yields within a scheduling group, and each session of processes has its own (sched(7), autogroup). */
static bool shares_cpu(const struct session *s)
{
    uint32_t cpu = (uint32_t)sched_getcpu();

    for (uint32_t i = 0; i < s->region.sizes.io_count; i++) {
        const _Atomic uint16_t *io_cpu = (const _Atomic uint16_t *)&region_j2a(&s->region)->io_cpu[i];

        if (atomic_load_explicit(io_cpu, memory_order_relaxed) == cpu + 1)
            return true;
    }
    return false;
}

bool thread_spin(const struct janus_thread *t, uint64_t until_us)
{
    bool found = thread_pending(t);

    if (thread_fd(t) < 0)
        return found;
    do { /* once at least: the thread that maps for this one may be what keeps it from sleeping, and have its CPU */
        if (found)
            return true;
        sched_yield();
        found = thread_pending(t);
    } while (!shares_cpu(t->session) && thread_clock_us(t) < until_us);
    return found;
}

bool thread_arm(struct janus_thread *t)
{
    if (t->busy || (t->session && mapper_is_busy(&t->session->balance.mapper)))
        return false;
    t->driver.set_sleeping(t->driver.context, true);
    if (!t->driver.pending(t->driver.context))
        return true;
    t->driver.set_sleeping(t->driver.context, false);
    return false;
}

void thread_disarm(struct janus_thread *t)
{
    uint64_t rung[16];
    ssize_t n;

    t->driver.set_sleeping(t->driver.context, false);
    if (!t->session)
        return;
    do
        n = recv(t->session->region.doorbell, rung, sizeof rung, MSG_DONTWAIT); /* the next poll reads all its news */
    while (n == (ssize_t)sizeof rung);
    if (n <= 0) /* it was not the doorbell that woke us; if it was both, the socket wakes us once more */
        t->session->check_us = 0;
}

uint64_t thread_next_deadline(const struct janus_thread *t)
{
    uint64_t deadline_us = tcp_next_deadline(t->stack);
    uint64_t outer_us = UINT64_MAX, spare_us = spare_next_us(t);

    deadline_us = spare_us < deadline_us ? spare_us : deadline_us;
    if (t->session)
        outer_us = session_next_deadline(t->session);
    else if (t->driver.next_us)
        outer_us = t->driver.next_us(t->driver.context);
    return outer_us < deadline_us ? outer_us : deadline_us;
}

void thread_wait(struct janus_thread *t, uint64_t timeout_us)
{
    uint64_t now_us = t->driver.now_us(t->driver.context);
    uint64_t deadline_us = thread_next_deadline(t);
    struct pollfd p = {thread_fd(t), POLLIN, 0};
    struct timespec ts;

    if (deadline_us <= now_us || timeout_us == 0 || !thread_arm(t))
        return;
    if (deadline_us - now_us < timeout_us)
        timeout_us = deadline_us - now_us;
    ts = (struct timespec){(time_t)(timeout_us / 1000000), (long)(timeout_us % 1000000) * 1000};
    t->sleeps++;
    (void)ppoll(&p, 1, timeout_us == UINT64_MAX ? NULL : &ts, NULL); /* a negative descriptor only sleeps */
    thread_disarm(t);
}

void thread_on_rows_spare(struct janus_thread *t, thread_rows_spare *rows_spare, void *context)
{
    t->rows_spare = rows_spare;
    t->rows_spare_context = context;
}

uint64_t thread_now_us(const struct janus_thread *t)
{
    return t->now_us;
}

uint64_t thread_clock_us(const struct janus_thread *t)
{
    return t->driver.now_us(t->driver.context);
}

/* --- services --- */

static const struct ip_addr any_address;

int thread_listen(struct janus_thread *t, const struct ip_addr *addr, uint16_t port, uint64_t user,
                  struct janus_error *error)
{
    struct tcp_settings settings;

    tcp_default_settings(t->stack, &settings);
    return thread_listen_with(t, addr, port, user, &settings, error);
}

int thread_listen_with(struct janus_thread *t, const struct ip_addr *addr, uint16_t port, uint64_t user,
                       const struct tcp_settings *settings, struct janus_error *error)
{
    int rc;

    addr = addr ? addr : &any_address;
    rc = tcp_listen_with(t->stack, addr, port, user, settings);
    if (rc < 0)
        return error_set(error, -rc,
                         rc == -EADDRNOTAVAIL ? "port %u: the address is not one of this app's"
                         : rc == -EADDRINUSE  ? "port %u: this thread listens on it already"
                                              : "port %u: too many listeners",
                         port);
    rc = t->session ? session_listen(t->session, addr, port, error) : 0;
    if (rc < 0)
        tcp_unlisten(t->stack, addr, port);
    return rc;
}

int thread_unlisten(struct janus_thread *t, const struct ip_addr *addr, uint16_t port, struct janus_error *error)
{
    addr = addr ? addr : &any_address;
    if (tcp_unlisten(t->stack, addr, port) < 0)
        return error_set(error, ENOENT, "port %u was not listened on", port);
    return t->session ? session_unlisten(t->session, addr, port, error) : 0;
}

void thread_leave(struct janus_thread *t)
{
    if (t->session)
        session_leave(t->session);
}

bool thread_has_left(const struct janus_thread *t)
{
    return !t->session || session_has_left(t->session);
}

int thread_online(struct janus_thread *t, struct janus_error *error)
{
    return t->session ? session_online(t->session, error) : 0;
}
