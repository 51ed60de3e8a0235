/*
 * sim.c: two TCP cores, a faulty wire and a script of users, in virtual time; everything is drawn from one seed.
 *
 * Faults stop at faults_end_us; from then on all that clean users sent must arrive within a bound, and in the end nothing may be left:
 * no connection, no block, no slot.
 */
#include "sim_draw.h"
#include "wire/bytes.h"

#include <assert.h>

enum {
    LIVENESS_US = 200000000, /* after the faults, for all bytes of clean pairs */
    GIVE_UP_US = 150000000,  /* after the faults, for who may fail */
    LINGER_US = 900000000,   /* for orphans and TIME-WAIT, after all users are done */
    REBASES_MAX = 3,         /* per host: each costs a retransmission timeout */
    SPIN_MAX = 200000,       /* steps without progress of time */
    BATCH_MAX = 64,          /* as sim_draw() draws it at most */
};

struct sim_result {
    uint64_t seed;
    bool failed;
    char text[256];
    uint64_t trace_hash, packets, virtual_us, steps;
    uint64_t lost, doubled, damaged, overtaken, queue_full, recut, marked, ecn_reductions;
    uint64_t bytes_received, pairs_done, errors;
    uint64_t resets_sent, retransmitted, timeouts, fast_retransmits, out_of_order, cookies, in_runs;
    uint64_t dropped[32];
};
static_assert(TCP_DROP_COUNT <= 32, "room for all drop reasons");

struct sim {
    const struct sim_knobs *k;
    struct sim_result *r;
    struct sim_failure failure;
    struct sim_host hosts[2];
    struct users users;
    struct wire *wire;
    struct sim_rng rng;
    uint64_t now_us, wake_us[2];
    bool trace, clean_wire, ample, first_syn_only;
    uint32_t first_isn, rebases[2];
    struct tcp_packet batch[BATCH_MAX];
    uint32_t batched;
};

/* --- trace --- */

static void trace_packet(const struct sim *sim, const char *what, uint32_t from, const uint8_t *p, uint32_t len)
{
    uint32_t header = p[0] >> 4 == 6 ? 40 : 20;
    const uint8_t *t = p + header;
    uint32_t flags, payload;

    if (len < header + 20)
        return;
    flags = t[13];
    payload = len - header - (t[12] >> 4) * 4u;
    printf("%12.6f %c %s %u>%u %s%s%s%s%s%s seq %u:%u ack %u win %u len %u\n",
           (double)(sim->now_us - sim->k->start_us) / 1e6, "AB"[from], what, t[0] << 8 | t[1], t[2] << 8 | t[3],
           flags & 2 ? "S" : "", flags & 1 ? "F" : "", flags & 4 ? "R" : "", flags & 8 ? "P" : "",
           flags & 32 ? "U" : "", flags & 16 ? "." : "", get_be32(t + 4), get_be32(t + 4) + payload, get_be32(t + 8),
           t[14] << 8 | t[15], payload);
}

/* --- the wire's ends --- */

static bool sim_transmit_packet(struct sim_host *h, const uint8_t *packet, uint32_t len)
{
    struct sim *sim = h->world;

    if (rng_chance(&sim->rng, sim->k->refuse))
        return false;
    sim->r->trace_hash = sim_hash(sim->r->trace_hash ^ sim->now_us ^ h->index, packet, len);
    sim->r->packets++;
    if (sim->trace)
        trace_packet(sim, "sends", h->index, packet, len);
    if (sim->first_syn_only) {
        sim->first_isn = get_be32(packet + (packet[0] >> 4 == 6 ? 40 : 20) + 4);
        longjmp(sim->failure.out, 2);
    }
    wire_send(sim->wire, packet, len, (uint8_t)!h->index, sim->now_us);
    return true;
}

static bool flow_hash(const struct sim_host *h, const uint8_t *p, uint32_t len, uint32_t *hash)
{
    struct flow flow;
    bool v6 = p[0] >> 4 == 6;
    uint32_t header = v6 ? 40 : 20;

    memset(&flow, 0, sizeof flow);
    if (len < header + 20)
        return false;
    if (v6) {
        memcpy(&flow.raddr, p + 8, 16);
        memcpy(&flow.laddr, p + 24, 16);
    } else {
        flow.raddr = ip_addr_from_ipv4(p + 12);
        flow.laddr = ip_addr_from_ipv4(p + 16);
    }
    flow.rport = get_be16(p + header);
    flow.lport = get_be16(p + header + 2);
    *hash = csb_table_hash(csb_hash(&h->config.flow_secret, &flow));
    return true;
}

static void note_drops(struct sim *sim, enum tcp_drop drop, uint64_t count)
{
    sim->r->dropped[drop] += count;
    if (sim->trace && drop != TCP_DROP_NONE && count != 0)
        printf("%12s   dropped: %s\n", "", tcp_drop_name(drop));
}

/* What has come together, in one batch, which does not say what became of each. */
static void give_batch(struct sim *sim, struct sim_host *h)
{
    const uint64_t *dropped = tcp_counters(h->s)->dropped;
    uint64_t before[TCP_DROP_COUNT], kept = sim->batched;

    if (sim->batched == 0)
        return;
    memcpy(before, dropped, sizeof before);
    tcp_input_batch(h->s, sim->batch, sim->batched, h->now_us);
    sim->batched = 0;
    for (uint32_t i = TCP_DROP_NONE + 1; i < TCP_DROP_COUNT; i++) {
        note_drops(sim, (enum tcp_drop)i, dropped[i] - before[i]);
        kept -= dropped[i] - before[i];
    }
    note_drops(sim, TCP_DROP_NONE, kept);
    if (sim->k->check_every == 1)
        host_check(h);
}

static void deliver(struct sim *sim, struct wire_packet packet)
{
    struct sim_host *h = &sim->hosts[packet.to];
    const uint8_t *bytes = sim->wire->bytes[packet.index];
    struct tcp_packet in = {.verified = sim->k->offload};
    enum tcp_drop drop;

    if (packet.damaged && sim->k->offload) /* the port saw the wrong checksum */
        return;
    if (!host_receive(h, bytes, packet.len, &in)) {
        sim->r->dropped[31]++;
        return;
    }
    if (sim->trace && !packet.damaged)
        trace_packet(sim, "        gets", packet.to, bytes, packet.len);
    if (sim->k->hashes && !packet.damaged)
        in.has_hash = flow_hash(h, bytes, packet.len, &in.hash);
    if (in.has_hash) {
        sim->batch[sim->batched++] = in;
        return;
    }
    give_batch(sim, h);
    drop = tcp_input(h->s, &in, h->now_us);
    if (drop >= TCP_DROP_COUNT)
        sim_fail(&sim->failure, "host %u: tcp_input() returned %d", packet.to, drop);
    note_drops(sim, drop, 1);
    if (sim->k->check_every == 1)
        host_check(h);
}

/* --- one step of one host --- */

static void host_step(struct sim *sim, uint32_t host)
{
    struct sim_host *h = &sim->hosts[host];
    uint64_t deadline, next;
    uint32_t batch = sim->k->batch_max;
    bool more = false;

    h->now_us = sim->now_us;
    h->refused = false;
    host_complete(h, sim->now_us);
    while (wire_next_us(sim->wire) <= sim->now_us && sim->wire->heap[0].to == host && !more) {
        struct wire_packet packet = wire_pop(sim->wire);

        deliver(sim, packet);
        wire_free(sim->wire, packet);
        more = --batch == 0;
    }
    give_batch(sim, h);
    tcp_advance(h->s, sim->now_us);
    host_give_spare(h);
    users_events(&sim->users, host);
    for (uint32_t i = 0; i < sim->users.pair_count; i++)
        side_step(&sim->users, i, host);
    tcp_output(h->s, sim->now_us);
    more = users_events(&sim->users, host);
    if (sim->k->check_every && sim->r->steps % sim->k->check_every == 0)
        host_check(h);

    if (sim->now_us < sim->k->start_us + sim->k->faults_end_us && sim->rebases[host] < REBASES_MAX &&
        rng_chance(&sim->rng, sim->k->rebase)) {
        sim->rebases[host]++;
        host_rebase(h, rng_below(&sim->rng, 100000));
    }
    deadline = tcp_next_deadline(h->s);
    if (deadline != UINT64_MAX && deadline < sim->now_us + 100)
        deadline = sim->now_us + 100;
    next = users_next_us(&sim->users, host);
    if (more || next <= sim->now_us)
        next = sim->now_us + 1;
    if (deadline < next)
        next = deadline;
    deadline = host_next_completion(h);
    if (deadline < next)
        next = deadline;
    if (h->refused && next > sim->now_us + 50)
        next = sim->now_us + 50;
    sim->wake_us[host] = next;
}

/* Moves time to the next thing that happens, at or before end_us; false: there is none. */
static bool sim_step(struct sim *sim, uint64_t end_us)
{
    uint64_t at[2] = {sim->wake_us[0], sim->wake_us[1]};
    uint64_t packet_us = wire_next_us(sim->wire);
    uint32_t host;

    if (packet_us != UINT64_MAX) {
        host = sim->wire->heap[0].to;
        if (packet_us < at[host])
            at[host] = packet_us;
    }
    host = at[1] < at[0];
    if (at[host] == UINT64_MAX || at[host] > end_us)
        return false;
    if (at[host] > sim->now_us) {
        sim->now_us = at[host];
        if (sim->k->sleep_max_us > 0) /* the thread was busy elsewhere */
            sim->now_us += rng_below(&sim->rng, sim->k->sleep_max_us);
    }
    sim->r->steps++;
    host_step(sim, host);
    return true;
}

static void sim_until(struct sim *sim, uint64_t end_us, bool (*done)(const struct users *u))
{
    uint64_t time = sim->now_us;
    uint32_t still = 0;

    while ((done == NULL || !done(&sim->users)) && sim_step(sim, end_us)) {
        still = sim->now_us == time ? still + 1 : 0;
        time = sim->now_us;
        if (still > SPIN_MAX)
            sim_fail(&sim->failure, "time stands still at %llu us", (unsigned long long)(time - sim->k->start_us));
    }
    if (sim->now_us < end_us && done == NULL)
        sim->now_us = end_us;
}

/* --- a run --- */

static void sim_open(struct sim *sim, uint64_t start_us)
{
    const struct sim_knobs *k = sim->k;

    sim->now_us = start_us;
    for (uint32_t i = 0; i < 2; i++) {
        struct sim_host *h = &sim->hosts[i];
        struct tcp_settings settings;

        h->failure = &sim->failure;
        h->transmit = sim_transmit_packet;
        h->world = sim;
        h->index = i;
        h->rng.state = rng_next(&sim->rng);
        h->busy_max_us = k->busy_max_us;
        h->config = (struct tcp_config){
            .conn_max = k->conn_max,
            .half_open_max = k->half_open_max,
            .time_wait_max = k->time_wait_max,
            .extension_max = k->extension_max,
            .rx_slots = k->rx_slots,
            .tx_slots = k->tx_slots,
            .mtu = (uint16_t)k->mtu[i],
            .source_port_first = 40000,
            .source_port_last = 49999,
            .tx_checksum_offload = k->offload,
            .congestion_control = k->congestion_control,
            .ecn = k->ecn[i],
            .pacing = k->pacing,
            .rcv_buf_bytes = k->rcv_buf_bytes,
            .snd_buf_bytes = k->snd_buf_bytes,
            .msl_ms = k->msl_ms,
            .flow_secret = {rng_next(&sim->rng), rng_next(&sim->rng)},
            .reset_unknown = k->reset_unknown,
            .handshake_rtt = k->reset_unknown,
            .quick_acks = k->ipv6 ? 16 : 0,
        };
        host_open(h, start_us);
        for (uint32_t family = 0; family < 2; family++) {
            if (!tcp_add_address(h->s, &host_addresses[i][family]))
                sim_fail(&sim->failure, "tcp_add_address() refused");
        }
        tcp_default_settings(h->s, &settings);
        settings.user_timeout_option = k->user_timeout_option;
        if (tcp_listen_with(h->s, &(struct ip_addr){{0}}, 80, USER_LISTENER, &settings) != 0 ||
            tcp_listen(h->s, &host_addresses[i][0], 8080, USER_LISTENER) != 0 ||
            tcp_listen(h->s, &host_addresses[i][1], 8080, USER_LISTENER) != 0 ||
            tcp_listen(h->s, &host_addresses[i][1], 8080, 0) != -EADDRINUSE)
            sim_fail(&sim->failure, "tcp_listen() is wrong");
    }
}

static void users_open(struct sim *sim)
{
    const struct sim_knobs *k = sim->k;
    struct users *u = &sim->users;
    uint32_t gone = k->faults.loss * (1 + k->faults.burst / 2) + k->faults.corruption + k->faults.truncation;

    u->failure = &sim->failure;
    u->hosts = sim->hosts;
    u->pair_count = k->pairs;
    u->pairs = calloc(k->pairs, sizeof *u->pairs);
    u->pattern = (uint32_t)rng_next(&sim->rng);
    u->tolerant = k->tight || gone > 200000 || (gone > 50000 && !k->reset_unknown);
    u->scarce = k->slow_readers && k->tx_slots < 4 * k->pairs;
    u->lossy = gone > 0 || k->rebase > 0 || k->faults.bytes_per_ms > 0;
    u->give_up_us = k->start_us + k->faults_end_us + GIVE_UP_US;
    for (uint32_t host = 0; host < 2; host++) {
        u->owner[host] = calloc(k->conn_max, sizeof *u->owner[host]);
        u->by_flow[host] = calloc(FLOW_INDICES, sizeof *u->by_flow[host]);
    }
    for (uint32_t i = 0; i < k->pairs; i++)
        draw_pair(&sim->rng, k, &u->pairs[i], i);
}

static void sim_close(struct sim *sim)
{
    for (uint32_t host = 0; host < 2; host++) {
        host_close(&sim->hosts[host]);
        free(sim->users.owner[host]);
        free(sim->users.by_flow[host]);
    }
    free(sim->users.pairs);
}

static void finish(struct sim *sim)
{
    struct sim_result *r = sim->r;
    const struct users *u = &sim->users;
    bool quiet = true;

    for (uint32_t i = 0; i < u->pair_count; i++) {
        struct pair *p = &u->pairs[i];

        for (uint32_t host = 0; host < 2; host++) { /* nothing of it ever came through */
            uint8_t other = p->side[!host].life;

            if (p->side[host].life == SIDE_WAITING &&
                ((other == SIDE_DONE && pair_may_fail(u, p)) || (other == SIDE_WAITING && p->after != 0))) {
                p->side[host].life = p->side[!host].life = SIDE_DONE;
                p->gave_up = true;
            }
        }
        r->errors += (p->side[0].error != 0) + (uint64_t)(p->side[1].error != 0);
        r->bytes_received += p->side[0].received + p->side[1].received;
        quiet = quiet && pair_is_clean(p) && !p->both_open;
        if (p->side[0].life != SIDE_DONE || p->side[1].life != SIDE_DONE)
            sim_fail(&sim->failure,
                     "pair %u does not end: A life %u sent %llu of %llu received %llu, B life %u sent %llu of %llu "
                     "received %llu",
                     i, p->side[0].life, (unsigned long long)p->side[0].sent, (unsigned long long)p->side[0].send_total,
                     (unsigned long long)p->side[0].received, p->side[1].life, (unsigned long long)p->side[1].sent,
                     (unsigned long long)p->side[1].send_total, (unsigned long long)p->side[1].received);
        if (!u->tolerant && pair_is_clean(p) && !p->both_open && !p->gave_up && p->side[0].error == 0 &&
            p->side[1].error == 0 &&
            (p->side[0].received != p->side[1].send_total || p->side[1].received != p->side[0].send_total))
            sim_fail(&sim->failure, "pair %u is done before all arrived", i);
        r->pairs_done++;
    }
    sim_until(sim, sim->now_us + LINGER_US, NULL);
    for (uint32_t host = 0; host < 2; host++)
        host_check_empty(&sim->hosts[host]);
    if (sim->clean_wire && sim->ample && quiet) {
        for (uint32_t host = 0; host < 2; host++) {
            const struct tcp_counters *c = tcp_counters(sim->hosts[host].s);

            if (c->retransmitted_segments + c->retransmission_timeouts + c->duplicate_acks + c->challenge_acks > 0)
                sim_fail(&sim->failure,
                         "host %u: %llu segments sent again, %llu timeouts, %llu duplicate ACKs, %llu challenges on a "
                         "wire without faults",
                         host, (unsigned long long)c->retransmitted_segments,
                         (unsigned long long)c->retransmission_timeouts, (unsigned long long)c->duplicate_acks,
                         (unsigned long long)c->challenge_acks);
        }
    }
    /* A FIN that a tail loss probe repeats is acknowledged to one who is gone by then: a reset for each copy at the most. */
    if (sim->clean_wire && quiet && !u->tolerant && !sim->k->reuse && r->dropped[TCP_DROP_NO_ROOM] == 0 &&
        tcp_counters(sim->hosts[0].s)->resets_sent + tcp_counters(sim->hosts[1].s)->resets_sent >
            tcp_counters(sim->hosts[0].s)->retransmitted_segments +
                tcp_counters(sim->hosts[1].s)->retransmitted_segments)
        sim_fail(&sim->failure, "RST on a wire without faults, between users who close in order");
}

static void gather(struct sim *sim)
{
    struct sim_result *r = sim->r;
    const struct wire *w = sim->wire;

    for (uint32_t host = 0; host < 2; host++) {
        const struct tcp_counters *c;

        if (sim->hosts[host].s == NULL)
            continue;
        c = tcp_counters(sim->hosts[host].s);
        r->resets_sent += c->resets_sent;
        r->retransmitted += c->retransmitted_segments;
        r->timeouts += c->retransmission_timeouts;
        r->fast_retransmits += c->fast_retransmits;
        r->in_runs += c->run_segments;
        r->out_of_order += c->out_of_order_segments;
        r->ecn_reductions += c->ecn_reductions;
        r->cookies += c->syn_cookies_accepted;
    }
    r->virtual_us = sim->now_us - sim->k->start_us;
    r->lost = w->lost;
    r->doubled = w->doubled;
    r->damaged = w->damaged;
    r->overtaken = w->overtaken;
    r->queue_full = w->queue_full;
    r->recut = w->recut;
    r->marked = w->marked;
}

static void sim_life(struct sim *sim)
{
    const struct sim_knobs *k = sim->k;
    struct wire_faults none = {
        .delay_us = k->faults.delay_us, .bytes_per_ms = k->faults.bytes_per_ms, .queue_us = k->faults.queue_us};
    struct wire_faults marks = none; /* marks are no faults */
    uint64_t faults_end_us = k->start_us + k->faults_end_us;

    marks.marking = k->faults.marking;
    marks.unmarking = k->faults.unmarking;
    sim->clean_wire = k->rebase == 0 && memcmp(&marks, &k->faults, sizeof marks) == 0 && none.bytes_per_ms == 0;
    sim->ample = !k->tight && !k->reuse && !k->slow_readers && k->pairs <= 4 && k->rx_slots >= 1024 &&
                 k->tx_slots >= 1024 && k->sleep_max_us == 0 && k->refuse == 0 && k->rebase == 0;
    sim->wire->faults = k->faults;
    sim_until(sim, faults_end_us, users_done);
    sim->wire->faults = none;
    sim->wire->burst_left[0] = sim->wire->burst_left[1] = 0;
    sim_until(sim, faults_end_us + LIVENESS_US, users_done);
    finish(sim);
}

static void sim_run_at(const struct sim_knobs *k, struct sim_result *r, bool trace, uint32_t *first_isn)
{
    static struct wire wire;
    struct sim *sim = calloc(1, sizeof *sim);

    sim->k = k;
    sim->r = r;
    sim->wire = &wire;
    sim->trace = trace && first_isn == NULL;
    sim->first_syn_only = first_isn != NULL;
    sim->rng.state = k->seed ^ 0x51a0ull << 40;
    memset(r, 0, sizeof *r);
    r->seed = k->seed;
    wire_init(&wire, rng_next(&sim->rng));
    switch (setjmp(sim->failure.out)) {
    case 0:
        sim_open(sim, k->start_us);
        users_open(sim);
        sim->wake_us[0] = sim->wake_us[1] = k->start_us;
        sim_life(sim);
        gather(sim);
        break;
    case 1:
        r->failed = true;
        memcpy(r->text, sim->failure.text, sizeof r->text);
        gather(sim);
        break;
    default:
        *first_isn = sim->first_isn;
    }
    sim_close(sim);
    free(sim);
    if (trace)
        fflush(stdout);
}

static void sim_run(const struct sim_knobs *k, struct sim_result *r, bool trace)
{
    struct sim_knobs shifted = *k;

    if (k->wrap) { /* a sequence number that wraps within the transfer */
        uint32_t isn = 0;

        sim_run_at(k, r, false, &isn);
        shifted.start_us += (uint64_t)(0u - (uint32_t)(k->seed % 5000) - isn) * 4;
    }
    sim_run_at(&shifted, r, trace, NULL);
}

static void sim_run_seed(uint64_t seed, uint32_t check_every, struct sim_result *r, bool trace)
{
    struct sim_knobs k;

    sim_draw(seed, &k);
    if (check_every)
        k.check_every = check_every;
    sim_run(&k, r, trace);
}
