/*
 * sweep.c: rows listed, and rows reset.
 *
 * The sweep holds the control lock for one step of at most ROWS_PER_STEP rows, so that neither Python nor an I/O thread waits
 * for it, and sends through the handover ring, which is how anything but an I/O thread sends.
 */
#include "dpdk_glue/sweep.h"

#include "dpdk_glue/out.h"
#include "dpdk_glue/refuse.h"
#include "dpdk_glue/reset.h"
#include "dpdk_glue/session.h"

#include <errno.h>
#include <rte_cycles.h>
#include <signal.h>
#include <time.h>

enum { ROWS_PER_STEP = 4096, RESETS_PER_STEP_MAX = 512, STEP_NS = 1000000, RATE_MAX = 10000000 };

int glue_session_rows(struct glue_session *s, uint32_t *next, struct glue_row *out, uint32_t max)
{
    struct rows_window window = {0};
    uint32_t count = 0;

    if (!s->sealed)
        return 0;
    uint32_t used = session_rows_used(s);
    while (count < max && *next < used) {
        if (rows_read(&s->rows, &window, (*next)++, &out[count]) == ROWS_OK)
            count++;
    }
    return (int)count;
}

enum step { STEP_SENT, STEP_SKIPPED, STEP_FREE, STEP_FULL };

static enum step reset_row(struct glue *g, struct glue_session *s, struct rows_window *w, uint32_t i)
{
    uint8_t frame[RESET_FRAME_MAX];
    struct glue_row row;
    struct route_hop hop = {0};
    struct reset reset = {.flags = TCP_RST | TCP_ACK};

    enum rows_verdict verdict = rows_read(&s->rows, w, i, &row);
    if (verdict == ROWS_FREE)
        return STEP_FREE;
    if (verdict != ROWS_OK || row.state < ROWS_RESET_FIRST || row.state > ROWS_RESET_LAST)
        return STEP_SKIPPED;
    memcpy(&reset.flow.laddr, row.laddr, sizeof reset.flow.laddr);
    memcpy(&reset.flow.raddr, row.raddr, sizeof reset.flow.raddr);
    if (routes_lookup(atomic_load(&g->routes), &reset.flow.raddr, &hop) != ROUTE_OK ||
        hop.port >= atomic_load(&g->port_count))
        return STEP_SKIPPED;
    reset.flow.lport = row.lport;
    reset.flow.rport = row.rport;
    reset.seq = row.snd_nxt;
    reset.ack = row.rcv_nxt;
    reset.dst = hop.mac;
    reset.src = g->ports[hop.port].classify.mac;
    reset.vlan_id = g->ports[hop.port].classify.vlan_id;
    struct rte_mbuf *m = out_frame(g, frame, reset_build(frame, &reset));
    if (m == NULL)
        return STEP_FULL;
    if (rte_ring_enqueue(g->ports[hop.port].handover, m) == 0)
        return STEP_SENT;
    rte_pktmbuf_free(m);
    return STEP_FULL;
}

/* One step of one session, at most budget resets; how many were sent. */
static uint32_t sweep_session(struct glue *g, struct glue_session *s, uint32_t budget)
{
    struct rows_window window = {0};
    uint32_t used = session_rows_used(s), sent = 0, skipped = 0;
    uint32_t left = used > s->reset_next ? used - s->reset_next : 0;
    uint32_t end = s->reset_next + (left < ROWS_PER_STEP ? left : ROWS_PER_STEP);

    while (s->reset_next < end && sent < budget) {
        enum step step = reset_row(g, s, &window, s->reset_next);
        if (step == STEP_FULL) /* the same row again at the next step */
            break;
        s->reset_next++;
        sent += step == STEP_SENT;
        skipped += step == STEP_SKIPPED;
    }
    if (sent > 0)
        doorbell_ring_io(g->io[0].kick_fd);
    atomic_fetch_add(&s->resets_sent, sent);
    atomic_fetch_add(&s->resets_skipped, skipped);
    page_add(s->app->stats[CONTROL], STATS_APP_RESETS_SENT, sent);
    if (s->reset_next >= used) {
        s->resets_done = true;
        control_wake(g);
    }
    return sent;
}

/* What all sessions together may send now: the rate is of the daemon, however many threads have died at once. */
static uint32_t step_budget(const struct glue *g, uint64_t elapsed_tsc)
{
    uint64_t rate = 0;

    for (const struct glue_session *s = g->sessions; s != NULL; s = s->next) {
        if (!s->resets_done && s->reset_rate > rate)
            rate = s->reset_rate;
    }
    uint64_t budget = rate * elapsed_tsc / g->tsc_hz + 1;
    return budget < RESETS_PER_STEP_MAX ? (uint32_t)budget : RESETS_PER_STEP_MAX;
}

static bool sweep_all(struct glue *g, uint64_t elapsed_tsc)
{
    uint32_t budget = step_budget(g, elapsed_tsc);
    bool more = false;

    for (struct glue_session *s = g->sessions; s != NULL; s = s->next) {
        if (s->reset_rate == 0 || s->resets_done)
            continue;
        budget -= sweep_session(g, s, budget);
        more |= !s->resets_done;
    }
    return more;
}

static void *run(void *arg)
{
    struct glue *g = arg;
    uint64_t last = rte_rdtsc();

    mtx_lock(&g->control);
    while (g->sweeper_running) {
        uint64_t now = rte_rdtsc();
        if (!sweep_all(g, now - last)) {
            cnd_wait(&g->sweep, &g->control);
            last = rte_rdtsc();
            continue;
        }
        last = now;
        mtx_unlock(&g->control);
        nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
        mtx_lock(&g->control);
    }
    mtx_unlock(&g->control);
    return NULL;
}

static int start_sweeper(struct glue *g)
{
    sigset_t all, before;

    if (g->sweeper_running)
        return 0;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    g->sweeper_running = true;
    int rc = pthread_create(&g->sweeper, NULL, run, g);
    g->sweeper_running = rc == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int glue_session_reset_peers(struct glue_session *s, uint32_t rate_per_s, struct glue_text *why)
{
    struct glue *g = s->glue;
    int rc = 0;

    if (rate_per_s == 0 || rate_per_s > RATE_MAX)
        return refuse(why, EINVAL, "a rate of resets is 1 to %d per second", RATE_MAX);
    mtx_lock(&g->control);
    if (!s->stopped)
        rc = refuse(why, EBUSY, "stop the session first");
    else if (!s->sealed)
        s->resets_done = true; /* its app has never come so far as to have a connection */
    else if (start_sweeper(g) != 0)
        rc = refuse(why, EAGAIN, "no thread for the resets");
    if (rc == 0) {
        s->reset_rate = rate_per_s;
        cnd_signal(&g->sweep);
    }
    mtx_unlock(&g->control);
    return rc;
}

void glue_session_reset_progress(struct glue_session *s, struct glue_reset_progress *out)
{
    mtx_lock(&s->glue->control);
    *out = (struct glue_reset_progress){atomic_load(&s->resets_sent), atomic_load(&s->resets_skipped), s->resets_done};
    mtx_unlock(&s->glue->control);
}

void sweep_stop(struct glue *g)
{
    mtx_lock(&g->control);
    bool running = g->sweeper_running;
    g->sweeper_running = false;
    cnd_signal(&g->sweep);
    mtx_unlock(&g->control);
    if (running)
        pthread_join(g->sweeper, NULL);
}

static bool next_event(struct glue *g, struct glue_event *out)
{
    for (struct glue_session *s = g->sessions; s != NULL; s = s->next) {
        *out = (struct glue_event){.app = s->app->id, .tid = s->tid, .generation = s->generation};
        if (!s->reported && atomic_load(&s->closed) != 0) {
            s->reported = true;
            out->kind = GLUE_EVENT_VIOLATION;
            return true;
        }
        if (!s->resets_reported && s->resets_done && s->reset_rate != 0) {
            s->resets_reported = true;
            out->kind = GLUE_EVENT_RESETS_DONE;
            return true;
        }
    }
    return false;
}

int glue_event_next(struct glue *g, struct glue_event *out)
{
    mtx_lock(&g->control);
    bool found = next_event(g, out);
    if (!found) {
        atomic_store(&g->wake_armed, 1);
        found = next_event(g, out);
    }
    mtx_unlock(&g->control);
    return found;
}
