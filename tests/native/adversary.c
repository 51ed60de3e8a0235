/*
 * adversary.c: one TCP core against scripted adversaries, in virtual time; everything is drawn from one seed.
 *
 * Each peer has some vices: it loses, compresses, splits, stretches and doubles ACKs, acknowledges what it has not got, floods with SACK
 * blocks, shrinks and closes its window, announces a tiny MSS, sends data in pieces that overlap, falls silent, is delayed, dies,
 * resets.  At evil_end_us those that live and were not reset become honest: from then on all must go through within a bound.
 */
#include "adversary_peer.h"

#include <assert.h>

enum {
    PEERS_MAX = 3,
    PACKETS_MAX = 1024,
    LIVENESS_US = 600000000,
    LINGER_US = 1200000000,
    SPIN_MAX = 100000,
};

struct adversary_result {
    uint64_t seed;
    bool failed;
    char text[256];
    uint64_t trace_hash, virtual_us, steps;
    uint64_t sent, delivered, done, ended, died, retransmitted, timeouts, challenges, vices[VICES];
};

struct flight {
    uint64_t at_us, order;
    uint8_t to_core, peer;
    uint16_t len;
    uint8_t bytes[1600];
};

/* The user of a connection of the core. */
struct user {
    bool held, over;
    uint32_t conn;
    uint64_t sent, received;
};

struct run {
    struct sim_failure failure;
    struct sim_host host;
    struct adversary_result *r;
    struct sim_rng rng;
    uint64_t now_us, start_us, evil_end_us, order, reads;
    uint32_t peer_count, read_max, check_every;
    bool slow_reader, trace;
    struct peer peers[PEERS_MAX];
    struct user users[PEERS_MAX];
    uint32_t flight_count;
    struct flight flights[PACKETS_MAX];
};

static struct flight *new_flight(struct run *run, uint32_t peer, bool to_core, uint32_t delay_us)
{
    struct flight *f;

    if (run->flight_count == PACKETS_MAX)
        return NULL;
    f = &run->flights[run->flight_count++];
    f->at_us = run->now_us + delay_us;
    f->order = run->order++;
    f->to_core = to_core;
    f->peer = (uint8_t)peer;
    return f;
}

static bool is_dark(const struct run *run, const struct peer *p)
{
    return run->now_us >= p->dark_from_us && run->now_us < p->dark_to_us;
}

static uint32_t delay_of(struct run *run, const struct peer *p)
{
    uint32_t delay = p->delay_us;

    if ((p->vices & 1u << VICE_SPIKES) && run->now_us < run->evil_end_us && rng_below(&run->rng, 20) == 0)
        delay += rng_below(&run->rng, 3000000);
    return delay;
}

/* The core sends. */
static bool from_core(struct sim_host *h, const uint8_t *packet, uint32_t len)
{
    struct run *run = h->world;
    const uint8_t *t = packet + (packet[0] >> 4 == 6 ? 40 : 20);
    uint32_t peer = get_be16(t + 2) - PEER_PORT;
    struct flight *f;

    run->r->trace_hash = sim_hash(run->r->trace_hash ^ run->now_us, packet, len);
    run->r->sent++;
    if (peer >= run->peer_count)
        sim_fail(&run->failure, "a packet to port %u, which nobody has", get_be16(t + 2));
    if (run->trace)
        peer_print("core", packet, len, run->now_us - run->start_us);
    peer_judge(&run->failure, &run->peers[peer], packet, len);
    f = is_dark(run, &run->peers[peer]) ? NULL : new_flight(run, peer, false, delay_of(run, &run->peers[peer]));
    if (f != NULL) {
        f->len = (uint16_t)len;
        memcpy(f->bytes, packet, len);
    }
    return true;
}

/* A peer sends. */
static void from_peer(struct run *run, uint32_t index, const struct peer_segment *segment)
{
    struct peer *p = &run->peers[index];
    struct flight *f = is_dark(run, p) ? NULL : new_flight(run, index, true, delay_of(run, p));

    if (f != NULL)
        f->len = (uint16_t)peer_build(p, segment, f->bytes, run->now_us);
    if (f != NULL && run->trace)
        peer_print("    peer", f->bytes, f->len, run->now_us - run->start_us);
}

static void events(struct run *run)
{
    struct tcp_event event;
    struct flow flow;

    while (tcp_next_event(run->host.s, &event)) {
        struct user *u;

        tcp_flow(run->host.s, event.conn, &flow);
        u = &run->users[flow.rport - PEER_PORT];
        if (event.kinds & TCP_EVENT_ACCEPTED) {
            if (u->held || u->over) { /* an old SYN, again */
                tcp_abort(run->host.s, event.conn, run->now_us);
                continue;
            }
            *u = (struct user){.held = true, .conn = event.conn};
        }
        if (event.kinds & TCP_EVENT_ERROR) {
            if (run->peers[flow.rport - PEER_PORT].blameless)
                sim_fail(&run->failure, "peer %u has no vice, but its connection fails with %d", flow.rport - PEER_PORT,
                         tcp_error(run->host.s, event.conn));
            tcp_close(run->host.s, event.conn, run->now_us);
            u->held = false;
            u->over = true;
            run->r->ended++;
        }
    }
}

static void user_step(struct run *run, uint32_t index)
{
    struct user *u = &run->users[index];
    struct peer *p = &run->peers[index];
    struct tcp_stack *s = run->host.s;
    uint8_t buffer[4096];
    uint32_t got, room;
    int64_t taken;

    if (!u->held || tcp_conn_state(s, u->conn) == TCP_STATE_SYN_SENT ||
        tcp_conn_state(s, u->conn) == TCP_STATE_SYN_RECEIVED || tcp_error(s, u->conn) != 0)
        return;
    if (u->sent < p->core_total && (room = tcp_send_room(s, u->conn)) > 0) {
        uint32_t left = p->core_total - (uint32_t)u->sent, len = room < sizeof buffer ? room : sizeof buffer;

        len = len < left ? len : left;
        for (uint32_t i = 0; i < len; i++)
            buffer[i] = peer_byte(p, true, u->sent + i);
        taken = tcp_send(s, u->conn, buffer, len);
        if (taken != len)
            sim_fail(&run->failure, "room for %u bytes, but %lld of %u are taken", room, (long long)taken, len);
        u->sent += len;
        if (u->sent == p->core_total)
            tcp_shutdown(s, u->conn, run->now_us);
    } else if (p->core_total == 0) {
        tcp_shutdown(s, u->conn, run->now_us);
    }
    if (run->slow_reader && run->now_us < run->evil_end_us && rng_below(&run->rng, 8))
        return;
    while ((got = tcp_recv(s, u->conn, buffer, run->read_max)) > 0) {
        run->reads++;
        for (uint32_t i = 0; i < got; i++)
            if (buffer[i] != peer_byte(p, false, u->received + i))
                sim_fail(&run->failure, "peer %u: a wrong byte at %llu", index, (unsigned long long)u->received + i);
        u->received += got;
    }
    if (tcp_recv_eof(s, u->conn) && u->sent == p->core_total && tcp_unacked(s, u->conn) == 0) {
        if (u->received != p->fin_at)
            sim_fail(&run->failure, "peer %u: %llu of %u bytes before its end", index, (unsigned long long)u->received,
                     p->fin_at);
        tcp_close(s, u->conn, run->now_us);
        u->held = false;
        u->over = true;
        run->r->done++;
    }
}

static void core_step(struct run *run)
{
    struct sim_host *h = &run->host;

    h->now_us = run->now_us;
    host_complete(h, run->now_us);
    tcp_advance(h->s, run->now_us);
    events(run);
    for (uint32_t i = 0; i < run->peer_count; i++)
        user_step(run, i);
    tcp_output(h->s, run->now_us);
    events(run);
    if (run->r->steps % run->check_every == 0)
        host_check(h);
}

static void arrive(struct run *run, uint32_t at)
{
    static struct flight f;
    struct tcp_packet in = {0};

    f = run->flights[at];
    run->flights[at] = run->flights[--run->flight_count];
    if (f.to_core) {
        run->r->delivered++;
        if (host_receive(&run->host, f.bytes, f.len, &in))
            tcp_input(run->host.s, &in, run->now_us);
    } else {
        peer_hear(&run->peers[f.peer], f.bytes, f.len, &run->rng, run->now_us);
    }
}

static void peer_turn(struct run *run, uint32_t index)
{
    struct peer *p = &run->peers[index];
    struct peer_segment segment;
    bool evil = run->now_us < run->evil_end_us;

    for (uint32_t n = 0; n < 64 && peer_next(p, &segment, evil, &run->rng, run->now_us); n++)
        from_peer(run, index, &segment);
}

/* When something happens next, and which flight it is, if it is one. */
static uint64_t next_us(const struct run *run, uint32_t *flight)
{
    uint64_t next = tcp_next_deadline(run->host.s), done = host_next_completion(&run->host), order = UINT64_MAX;

    next = done < next ? done : next;
    if (next < run->now_us + 100)
        next = run->now_us + 100;
    if (run->slow_reader && run->now_us < run->evil_end_us && next > run->now_us + 50000)
        next = run->now_us + 50000;
    for (uint32_t i = 0; i < run->peer_count; i++)
        next = peer_due_us(&run->peers[i]) < next ? peer_due_us(&run->peers[i]) : next;
    *flight = UINT32_MAX;
    for (uint32_t i = 0; i < run->flight_count; i++) {
        const struct flight *f = &run->flights[i];

        if (f->at_us < next || (f->at_us == next && f->order < order)) {
            next = f->at_us;
            order = f->order;
            *flight = i;
        }
    }
    return next;
}

static bool all_over(const struct run *run)
{
    for (uint32_t i = 0; i < run->peer_count; i++)
        if (!run->users[i].over && run->peers[i].life != PEER_DEAD)
            return false;
    return true;
}

static void go_on(struct run *run, uint64_t end_us, bool until_over)
{
    uint64_t time = run->now_us;
    uint32_t still = 0;

    while (!until_over || !all_over(run)) {
        uint32_t flight;
        uint64_t at = next_us(run, &flight);

        if (at > end_us)
            break;
        run->now_us = at > run->now_us ? at : run->now_us;
        still = run->now_us == time ? still + 1 : 0;
        time = run->now_us;
        if (still > SPIN_MAX)
            sim_fail(&run->failure, "time stands still");
        run->r->steps++;
        if (flight != UINT32_MAX)
            arrive(run, flight);
        for (uint32_t i = 0; i < run->peer_count; i++)
            peer_turn(run, i);
        core_step(run);
    }
}

static void draw_config(struct run *run)
{
    struct sim_rng *r = &run->rng;
    bool tight = rng_below(r, 4) == 0;

    run->host.config = (struct tcp_config){
        .conn_max = PEERS_MAX + 1,
        .half_open_max = tight ? 1 : 8,
        .time_wait_max = 8,
        .extension_max = PEERS_MAX + 1,
        .rx_slots = tight ? 24 : 256,
        .tx_slots = tight ? 24 : 256,
        .mtu = 1500,
        .source_port_first = 40000,
        .source_port_last = 49999,
        .congestion_control = (uint8_t)rng_below(r, 4),
        .ecn = (uint8_t)rng_below(r, 3),
        .pacing = rng_below(r, 2),
        .rcv_buf_bytes = rng_below(r, 2) ? 0 : 8192,
        .snd_buf_bytes = rng_below(r, 2) ? 0 : 8192,
        .msl_ms = 1000,
        .flow_secret = {rng_next(r), rng_next(r)},
        .reset_unknown = rng_below(r, 4) > 0,
    };
    run->slow_reader = rng_below(r, 4) == 0;
    run->read_max = rng_below(r, 2) ? 4096 : 100;
    run->host.busy_max_us = rng_below(r, 2) ? 0 : 2000;
}

static void open_all(struct run *run)
{
    struct sim_host *h = &run->host;

    h->failure = &run->failure;
    h->transmit = from_core;
    h->world = run;
    h->rng.state = rng_next(&run->rng);
    host_open(h, run->now_us);
    for (uint32_t family = 0; family < 2; family++)
        tcp_add_address(h->s, &host_addresses[0][family]);
    tcp_listen(h->s, &(struct ip_addr){{0}}, CORE_PORT, 0);
    for (uint32_t i = 0; i < run->peer_count; i++) {
        struct peer *p = &run->peers[i];

        peer_draw(p, i, &run->rng, run->start_us, run->evil_end_us);
        for (uint32_t vice = 0; vice < VICES; vice++)
            run->r->vices[vice] += p->vices >> vice & 1;
        if (p->listens && tcp_connect(h->s, NULL, CORE_PORT, &host_addresses[1][p->v6], (uint16_t)(PEER_PORT + i), NULL,
                                      NULL, 0, run->now_us, &run->users[i].conn) == 0)
            run->users[i].held = true;
        else if (p->listens)
            p->life = PEER_DEAD;
    }
}

static void live(struct run *run)
{
    const struct tcp_counters *c;
    uint64_t seconds;

    open_all(run);
    core_step(run);
    go_on(run, run->evil_end_us, false);
    run->now_us = run->evil_end_us > run->now_us ? run->evil_end_us : run->now_us;
    for (uint32_t i = 0; i < run->peer_count; i++) {
        peer_reform(&run->peers[i], run->now_us);
        if (!run->users[i].held &&
            run->peers[i].life == PEER_OPEN) /* the core has given up what the peer takes for open */
            run->peers[i].life = PEER_DEAD;
    }
    core_step(run);
    go_on(run, run->now_us + LIVENESS_US, true);
    for (uint32_t i = 0; i < run->peer_count; i++) {
        struct user *u = &run->users[i];

        if (!u->over && run->peers[i].life != PEER_DEAD)
            sim_fail(&run->failure,
                     "peer %u is honest, but its connection does not end: sent %llu of %u, received %llu of %u", i,
                     (unsigned long long)u->sent, run->peers[i].core_total, (unsigned long long)u->received,
                     run->peers[i].fin_at);
        run->r->died += !u->over;
        if (u->held)
            tcp_abort(run->host.s, u->conn, run->now_us);
        u->held = false;
        u->over = true;
    }
    core_step(run);
    go_on(run, run->now_us + LINGER_US, false);
    host_check_empty(&run->host);
    c = tcp_counters(run->host.s);
    seconds = (run->now_us - run->start_us) / 1000000;
    run->r->retransmitted = c->retransmitted_segments;
    run->r->timeouts = c->retransmission_timeouts;
    run->r->challenges = c->challenge_acks;
    /* No storms: an ACK is owed by a segment, a read or a timer. */
    if (run->r->sent >
        run->r->delivered * 2 + run->reads + c->bytes_sent / 32 + c->retransmitted_segments + seconds * 8 + 200)
        sim_fail(&run->failure, "%llu packets sent for %llu received", (unsigned long long)run->r->sent,
                 (unsigned long long)run->r->delivered);
}

static void adversary_run(uint64_t seed, uint32_t check_every, struct adversary_result *r, bool trace)
{
    static struct run run;

    memset(&run, 0, offsetof(struct run, flights));
    memset(r, 0, sizeof *r);
    r->seed = seed;
    run.r = r;
    run.rng.state = seed * 0x2545f4914f6cdd1dull + 7;
    run.trace = trace;
    run.check_every = check_every ? check_every : 16;
    run.start_us = run.now_us = rng_below(&run.rng, 3) ? rng_next(&run.rng) >> 20 : 4294967296000ull - 1000000;
    run.evil_end_us = run.start_us + 100000 + rng_below(&run.rng, 20000000);
    run.peer_count = 1 + rng_below(&run.rng, PEERS_MAX);
    draw_config(&run);
    if (setjmp(run.failure.out) == 0) {
        live(&run);
    } else {
        r->failed = true;
        memcpy(r->text, run.failure.text, sizeof r->text);
    }
    r->virtual_us = run.now_us - run.start_us;
    host_close(&run.host);
    if (trace)
        fflush(stdout);
}
