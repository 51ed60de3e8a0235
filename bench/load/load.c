/*
 * load.c: what is sent, and what a packet is answered with.
 */
#include "bench/load/load.h"

#include "bench/load/frames.h"

#include <stdlib.h>

enum {
    PORT_FIRST = 1024,
    PORTS = 65536 - PORT_FIRST,
    EMIT_MAX = 32,
    VERIFY_EVERY = 16,
    LATE_US = 150000, /* a FIN answered after so long is answered a second time */
    NO_PROGRESS_US = 100000,
    ISN_BITS = 24,
    WINDOW = 0xffff,
    ETHER_TYPE_ARP = 0x0806,
    ETHER_TYPE_IPV4 = 0x0800,
};

struct client {
    uint32_t address;
    uint16_t port;
};

static struct client client_of(const struct load *l, uint64_t index)
{
    return (struct client){l->ends.clients + (uint32_t)(index / PORTS), (uint16_t)(PORT_FIRST + index % PORTS)};
}

/* The low 23 bits of a client's ISN, so that a connection may go on for 8 MiB before it reaches the epoch. */
static uint32_t isn_low(struct client c)
{
    uint32_t h = c.address * 0x9e3779b1u ^ (uint32_t)c.port * 0x85ebca6bu;

    h ^= h >> 15;
    h *= 0xc2b2ae35u;
    return h >> 9;
}

static uint32_t tsval(const struct load *l, bool fin)
{
    return (uint32_t)l->now_us << 1 | fin;
}

static uint32_t since_us(const struct load *l, uint32_t tsecr)
{
    return (((uint32_t)l->now_us << 1) - (tsecr & ~1u)) >> 1;
}

/* --- writing --- */

struct out {
    struct client client;
    uint32_t seq, ack, tsval, tsecr;
    uint8_t flags;
    uint32_t segment; /* of the message, when there is payload */
    uint32_t payload_len;
};

static bool put(struct load *l, const struct out *o)
{
    uint8_t *frame = l->wire.room(l->wire.context);
    uint32_t options = o->flags & FLAG_SYN ? 20 : o->flags & FLAG_RST ? 0 : 12;
    uint32_t tcp_len = TCP_BYTES + options + o->payload_len, sum_payload = 0;

    if (frame == NULL) {
        l->counts.wire_full++;
        return false;
    }
    uint8_t *ip = frame + ETHER_BYTES, *tcp = ip + IP_BYTES;
    memcpy(frame, l->ends.server_mac, 6);
    memcpy(frame + 6, l->ends.mac, 6);
    store_be16(frame + 12, ETHER_TYPE_IPV4);
    store_be32(ip, 0x45000000 | (IP_BYTES + tcp_len));
    store_be32(ip + 4, (uint32_t)l->ip_id++ << 16 | 0x4000);
    store_be32(ip + 8, 64u << 24 | 6u << 16);
    store_be32(ip + 12, o->client.address);
    store_be32(ip + 16, l->ends.server);
    uint16_t sum = (uint16_t)~fold(sum_of(ip, IP_BYTES));
    memcpy(ip + 10, &sum, 2);
    store_be32(tcp, (uint32_t)o->client.port << 16 | l->ends.port);
    store_be32(tcp + 4, o->seq);
    store_be32(tcp + 8, o->ack);
    store_be32(tcp + 12, (TCP_BYTES + options) / 4 << 28 | (uint32_t)o->flags << 16 | WINDOW);
    store_be32(tcp + 16, 0);
    if (o->flags & FLAG_SYN) {
        store_be32(tcp + 20, 0x02040000 | (LOAD_MSS + 12));
        store_be32(tcp + 24, 0x0402080a);
        store_be32(tcp + 28, o->tsval);
        store_be32(tcp + 32, 0);
        store_be32(tcp + 36, 0x01030307);
    } else if (options != 0) {
        store_be32(tcp + 20, 0x0101080a);
        store_be32(tcp + 24, o->tsval);
        store_be32(tcp + 28, o->tsecr);
    }
    if (o->payload_len != 0) {
        memcpy(tcp + TCP_BYTES + options, l->message + o->segment * LOAD_MSS, o->payload_len);
        sum_payload = l->segment_sums[o->segment];
    }
    sum = (uint16_t)~fold(pseudo_sum(ip, tcp_len) + sum_of(tcp, TCP_BYTES + options) + sum_payload);
    memcpy(tcp + 16, &sum, 2);
    l->wire.send(l->wire.context, ETHER_BYTES + IP_BYTES + tcp_len);
    l->counts.tx_packets++;
    return true;
}

static void put_request(struct load *l, struct out *o)
{
    uint32_t left = l->job.bytes;

    o->flags = FLAG_ACK;
    for (o->segment = 0; left != 0; o->segment++) {
        o->payload_len = left < LOAD_MSS ? left : LOAD_MSS;
        left -= o->payload_len;
        o->flags |= left == 0 ? FLAG_PSH : 0;
        if (!put(l, o))
            return;
        o->seq += o->payload_len;
    }
}

static void put_arp(struct load *l, uint16_t operation, const uint8_t *target_mac, uint32_t target)
{
    static const uint8_t everybody[6] = {255, 255, 255, 255, 255, 255}, nobody[6];
    uint8_t *frame = l->wire.room(l->wire.context), *arp = frame + ETHER_BYTES;

    if (frame == NULL)
        return;
    memcpy(frame, target_mac != NULL ? target_mac : everybody, 6);
    memcpy(frame + 6, l->ends.mac, 6);
    store_be16(frame + 12, ETHER_TYPE_ARP);
    store_be32(arp, 0x00010800);
    store_be32(arp + 4, 0x06040000 | operation);
    memcpy(arp + 8, l->ends.mac, 6);
    store_be32(arp + 14, l->ends.gateway);
    memcpy(arp + 18, target_mac != NULL ? target_mac : nobody, 6);
    store_be32(arp + 24, target);
    memset(arp + ARP_BYTES, 0, 18);
    l->wire.send(l->wire.context, 60);
}

void load_ask_server(struct load *l)
{
    put_arp(l, 1, NULL, l->ends.server);
}

/* --- reading --- */

static void read_arp(struct load *l, const uint8_t *frame, uint32_t len)
{
    const uint8_t *arp = frame + ETHER_BYTES;

    if (len < ETHER_BYTES + ARP_BYTES || load_be32(arp) != 0x00010800)
        return;
    uint32_t sender = load_be32(arp + 14), operation = load_be16(arp + 6);
    if (sender == l->ends.server && operation == 2) {
        memcpy(l->ends.server_mac, arp + 8, 6);
        l->knows_server = true;
    }
    if (operation == 1 && load_be32(arp + 24) == l->ends.gateway)
        put_arp(l, 2, arp + 8, sender);
}

static uint64_t index_of(const struct load *l, const struct segment *s)
{
    return (uint64_t)(s->client - l->ends.clients) * PORTS + (uint16_t)(s->client_port - PORT_FIRST);
}

static void note_closed(struct load *l, const struct segment *s)
{
    uint64_t at = index_of(l, s) - l->held_from;

    if (l->closed != NULL && at < l->closed_count)
        l->closed[at / 64] |= UINT64_C(1) << at % 64;
}

static void finished(struct load *l, uint32_t epoch)
{
    l->epoch_done[epoch]++;
    if (l->unfinished != 0)
        l->unfinished--;
    l->progress_us = l->now_us;
}

static void answer_syn_ack(struct load *l, const struct segment *s, struct out *o)
{
    l->counts.established++;
    if (s->has_ts)
        histogram_add(&l->handshake, since_us(l, s->tsecr));
    o->ack = s->seq + 1;
    if (l->job.requests == 0) {
        put(l, o);
        finished(l, s->ack >> ISN_BITS);
        return;
    }
    if (!l->job.merge)
        put(l, o);
    put_request(l, o);
    if (!l->job.fin && l->job.requests == LOAD_ENDLESS)
        finished(l, s->ack >> ISN_BITS);
}

/* The numbers in the payload tell where it stands in the message; false: it is not ours. */
static bool ends_message(const struct load *l, const struct segment *s, bool *end)
{
    uint32_t offset = load_be32(s->payload) * 4;

    if (s->payload_len < 4 || offset >= l->job.bytes || s->payload_len > l->job.bytes - offset)
        return false;
    *end = offset + s->payload_len == l->job.bytes;
    return memcmp(s->payload, l->message + offset, s->payload_len) == 0;
}

/* What is out of a request of which the server has acknowledged a part, rel being all that it has acknowledged: 24 bits of it, so
 * that without end only sizes that divide 2^24 can be told apart. */
static uint32_t not_acknowledged(const struct load *l, uint32_t rel)
{
    uint32_t part = rel % l->job.bytes;

    return part == 0 || (!l->job.fin && (1u << ISN_BITS) % l->job.bytes != 0) ? 0 : l->job.bytes - part;
}

static void answer_data(struct load *l, const struct segment *s, struct out *o)
{
    uint32_t rel = (s->ack - isn_low(o->client) - 1) & ((1u << ISN_BITS) - 1);
    bool end = false;

    if (!ends_message(l, s, &end)) {
        l->counts.bad++;
        return;
    }
    if (!end) { /* each second segment is acknowledged */
        o->ack = s->seq + s->payload_len;
        o->seq += not_acknowledged(l, rel);
        if (load_be32(s->payload) * 4 / LOAD_MSS % 2 != 0)
            put(l, o);
        return;
    }
    l->counts.replies++;
    l->progress_us = l->now_us;
    if (s->has_ts)
        histogram_add(&l->reply, since_us(l, s->tsecr));
    o->ack = s->seq + s->payload_len + !!(s->flags & FLAG_FIN);
    if (l->job.requests == LOAD_ENDLESS || (l->job.fin && rel < l->job.requests * l->job.bytes)) {
        put_request(l, o);
        return;
    }
    if (l->job.fin) {
        o->flags |= FLAG_FIN;
        o->tsval |= 1;
        if (s->flags & FLAG_FIN) { /* the server closes first */
            l->counts.completed++;
            finished(l, s->ack >> ISN_BITS);
        }
    }
    put(l, o);
}

static void answer_fin(struct load *l, const struct segment *s, struct out *o)
{
    bool ours_is_out = s->tsecr & 1;

    o->ack = s->seq + 1;
    o->tsval |= 1;
    if (!ours_is_out)
        o->flags |= FLAG_FIN;
    put(l, o);
    if (since_us(l, s->tsecr) > LATE_US && ours_is_out) {
        l->counts.late++;
        return;
    }
    note_closed(l, s);
    l->counts.completed++;
    finished(l, s->ack >> ISN_BITS);
}

/* The answer to a probe, or the sign of a request that was lost. */
static void answer_ack(struct load *l, const struct segment *s, struct out *o)
{
    if (s->tsecr & 1)
        return;
    o->ack = s->seq;
    if (l->job.phase == LOAD_CLOSING) {
        o->flags |= FLAG_FIN;
        o->tsval |= 1;
        put(l, o);
    } else if (l->job.sample_rate > 0) {
        put_request(l, o);
    } else if (l->job.fin && (s->ack & 0xffffff) - isn_low(o->client) == 1) {
        o->flags = FLAG_RST;
        put(l, o);
        l->counts.stuck++;
    }
}

void load_input(struct load *l, const uint8_t *frame, uint32_t len)
{
    struct segment s;

    l->counts.rx_packets++;
    if (len >= ETHER_BYTES && load_be16(frame + 12) == ETHER_TYPE_ARP) {
        read_arp(l, frame, len);
        return;
    }
    if (!read_segment(frame, len, l->ends.server, l->ends.port, &s)) {
        l->counts.ignored++;
        return;
    }
    if (l->counts.rx_packets % VERIFY_EVERY == 0 && !sums_are_right(frame)) {
        l->counts.bad++;
        return;
    }
    struct out o = {.client = {s.client, s.client_port},
                    .seq = s.ack,
                    .tsval = tsval(l, false),
                    .tsecr = s.tsval,
                    .flags = FLAG_ACK};
    if (s.flags & FLAG_RST) {
        l->counts.resets++;
        if (l->job.phase == LOAD_CLOSING) {
            note_closed(l, &s);
            finished(l, s.ack >> ISN_BITS);
        }
    } else if (s.flags & FLAG_SYN)
        answer_syn_ack(l, &s, &o);
    else if (s.payload_len != 0)
        answer_data(l, &s, &o);
    else if (s.flags & FLAG_FIN)
        answer_fin(l, &s, &o);
    else
        answer_ack(l, &s, &o);
}

/* --- sending by itself --- */

static bool open_one(struct load *l)
{
    struct client c = client_of(l, l->next_index);
    struct out o = {.client = c, .seq = l->epoch << ISN_BITS | isn_low(c), .tsval = tsval(l, false), .flags = FLAG_SYN};

    if (!put(l, &o))
        return false;
    l->next_index++;
    l->counts.opened++;
    l->epoch_opened[l->epoch]++;
    return true;
}

/* A segment that must be answered by an ACK, its own not being looked at: the epoch is forgotten, but whatever it was, a number
 * half of its 24 bits away is in no window. */
static bool probe_one(struct load *l, uint64_t index)
{
    struct client c = client_of(l, index);
    struct out o = {
        .client = c, .seq = isn_low(c) + (1u << (ISN_BITS - 1)), .tsval = tsval(l, false), .flags = FLAG_ACK};

    l->counts.probes++;
    return put(l, &o);
}

/* Passes over those that have closed. */
static bool more_to_close(struct load *l)
{
    for (uint64_t at; (at = l->close_index - l->held_from) < l->closed_count; l->close_index++) {
        uint64_t left = ~l->closed[at / 64] >> at % 64;

        if (left & 1)
            return true;
        if (left == 0)
            l->close_index += 63 - at % 64;
    }
    l->close_index = l->next_index;
    return false;
}

static bool close_one(struct load *l)
{
    if (!probe_one(l, l->close_index))
        return false;
    l->close_index++;
    return true;
}

/* How many are due by the rate, the window and the count. */
static uint64_t due(const struct load *l, uint64_t done)
{
    const struct load_job *j = &l->job;
    uint64_t n = EMIT_MAX;

    if (j->rate > 0) {
        uint64_t by_now = (uint64_t)((double)(l->now_us - l->begun_us) * 1e-6 * j->rate);
        n = by_now > done ? by_now - done : 0;
    }
    if (j->window != 0)
        n = l->unfinished >= j->window ? 0 : n < j->window - l->unfinished ? n : j->window - l->unfinished;
    if (j->count != 0)
        n = done >= j->count ? 0 : n < j->count - done ? n : j->count - done;
    return n < EMIT_MAX ? n : EMIT_MAX;
}

static uint64_t next_random(struct load *l)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return l->random;
}

static uint32_t sample(struct load *l)
{
    uint64_t by_now = (uint64_t)((double)(l->now_us - l->sample_us) * 1e-6 * l->job.sample_rate);
    uint32_t n = 0;

    while (n < EMIT_MAX && l->sampled < by_now && l->next_index != l->held_from) {
        l->sampled++;
        n += probe_one(l, l->held_from + next_random(l) % (l->next_index - l->held_from));
    }
    return n;
}

/* A segment that nobody answers: a reset of nothing. */
static bool blast_one(struct load *l)
{
    struct out o = {.client = client_of(l, next_random(l) % (64 * PORTS)), .seq = 1, .flags = FLAG_RST};

    return put(l, &o);
}

uint32_t load_emit(struct load *l)
{
    uint32_t sent = 0;

    if (l->job.phase == LOAD_BLASTING) {
        while (sent < EMIT_MAX && blast_one(l))
            sent++;
        return sent;
    }

    if (l->job.phase == LOAD_OPENING) {
        for (uint64_t n = due(l, l->next_index - l->begun_count); n != 0 && open_one(l); n--, sent++)
            l->unfinished++;
        if (l->job.sample_rate > 0)
            sent += sample(l);
    } else if (l->job.phase == LOAD_CLOSING) {
        if (l->unfinished != 0 && l->now_us - l->progress_us > NO_PROGRESS_US) {
            l->counts.lost += l->unfinished;
            l->unfinished = 0;
        }
        for (uint64_t n = due(l, l->counts.probes); n != 0 && more_to_close(l); n--, sent++) {
            if (!close_one(l))
                break;
            l->unfinished++;
            l->progress_us = l->now_us;
        }
    }
    return sent;
}

/* --- time and jobs --- */

/* Moves the epoch on; what was opened LOAD_LOST_US ago and is not through is lost. */
void load_time(struct load *l, uint64_t now_us)
{
    uint32_t epoch = (uint32_t)(now_us / LOAD_EPOCH_US) % LOAD_EPOCHS;

    l->now_us = now_us;
    for (; l->epoch != epoch; l->epoch = (l->epoch + 1) % LOAD_EPOCHS) {
        uint32_t old = (l->epoch + 1 + LOAD_EPOCHS - LOAD_LOST_US / LOAD_EPOCH_US) % LOAD_EPOCHS;
        uint64_t lost = l->epoch_opened[old] > l->epoch_done[old] ? l->epoch_opened[old] - l->epoch_done[old] : 0;

        l->counts.lost += lost;
        l->unfinished -= lost < l->unfinished ? lost : l->unfinished;
        l->epoch_opened[old] = l->epoch_done[old] = 0;
    }
}

void load_begin(struct load *l, const struct load_job *job)
{
    l->job = *job;
    l->unfinished = 0; /* what an earlier job left is no concern of this one */
    memset(l->epoch_opened, 0, sizeof l->epoch_opened);
    memset(l->epoch_done, 0, sizeof l->epoch_done);
    l->begun_us = l->sample_us = l->progress_us = l->now_us;
    l->sampled = 0;
    if (job->phase == LOAD_CLOSING) {
        if (l->closed == NULL) {
            l->closed_count = l->next_index - l->held_from;
            l->closed = calloc(l->closed_count / 64 + 1, sizeof *l->closed);
            l->closed_count = l->closed != NULL ? l->closed_count : 0;
        }
        l->close_index = l->held_from;
        l->holds = false;
    } else if (job->phase == LOAD_OPENING && !job->fin && !l->holds) {
        free(l->closed);
        l->closed = NULL;
        l->held_from = l->next_index;
        l->holds = true;
    }
    l->begun_count = job->phase == LOAD_CLOSING ? l->held_from : l->next_index;
    for (uint32_t i = 0; i < job->bytes / 4; i++)
        store_be32(l->message + 4 * i, i);
    for (uint32_t i = 0, left = job->bytes; left != 0; i++) {
        uint32_t len = left < LOAD_MSS ? left : LOAD_MSS;

        l->segment_sums[i] = fold(sum_of(l->message + i * LOAD_MSS, len));
        left -= len;
    }
}

void load_reset_counts(struct load *l)
{
    l->counts = (struct load_counts){0};
    memset(&l->handshake, 0, sizeof l->handshake);
    memset(&l->reply, 0, sizeof l->reply);
}

void load_init(struct load *l, const struct load_ends *ends, const struct load_wire *wire)
{
    memset(l, 0, sizeof *l);
    l->ends = *ends;
    l->wire = *wire;
    l->random = UINT64_C(0x9e3779b97f4a7c15);
}
