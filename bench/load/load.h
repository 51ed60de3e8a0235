/*
 * load.h: very many TCP clients that are remembered by nobody, as a scanner does it.
 *
 *   load_emit():  SYNs, probes ──> wire ──> server            everything about a connection is in the packet that comes back:
 *   load_input(): wire ──> answer, made of the packet alone
 *
 *   which client     the destination address and port
 *   what is next     SYN, payload, FIN of the packet; the low bit of TSecr says that our FIN is out
 *   when it left     the other 31 bits of TSecr, in microseconds
 *   which requests   the acknowledgment less the client's ISN, whose low 23 bits are a hash of the flow
 *   when it opened   the ISN's high 8 bits: an epoch, by which lost connections are counted
 *   end of a reply   each word of a message is its own number
 *
 * A client whose sequence numbers went on since (hold) is asked by a segment with an old number (RFC 9293 3.10.7.4): the ACK that
 * answers tells both.  All that is kept of a client is a bit: it has closed what was held open.  The price of knowing nothing: it acknowledges what may have been lost before, and counts it.
 */
#ifndef BENCH_LOAD_LOAD_H
#define BENCH_LOAD_LOAD_H

#include "bench/load/histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LOAD_MESSAGE_MAX = 8192,
    LOAD_MSS = 1448,
    LOAD_SEGMENTS_MAX = LOAD_MESSAGE_MAX / LOAD_MSS + 1,
    LOAD_FRAME_MAX = 1514,
    LOAD_EPOCHS = 256,
    LOAD_EPOCH_US = 16384,
    LOAD_LOST_US = 2000000, /* a connection that is not through after so long is lost */
    LOAD_ENDLESS = UINT32_MAX,
};

/* Who talks to whom. */
struct load_ends {
    uint8_t mac[6], server_mac[6];
    uint32_t server, gateway, clients; /* host order: the server, our own address, the first client's */
    uint16_t port;
};

enum load_phase { LOAD_IDLE, LOAD_OPENING, LOAD_CLOSING, LOAD_BLASTING };

struct load_job {
    enum load_phase phase;
    double rate;        /* connections opened or closed a second; 0: by window alone */
    uint64_t window;    /* most unfinished at a time; 0: no bound (open loop) */
    uint64_t count;     /* to open or close at most; 0: no bound */
    uint32_t bytes;     /* of a message, a multiple of 4 */
    uint32_t requests;  /* of a connection; LOAD_ENDLESS: one after the other until the end */
    bool fin;           /* close when all requests are answered, else stay open */
    bool merge;         /* the handshake's ACK comes with the request */
    double sample_rate; /* exchanges a second on random open connections */
};

struct load_counts {
    uint64_t opened, established, replies, completed, resets, lost, late, stuck;
    uint64_t bad, ignored; /* wrong checksum or payload; not for us */
    uint64_t probes, rx_packets, tx_packets, wire_full;
    uint64_t busy_cycles; /* kept by the driver */
};

/* Where frames go.  room: LOAD_FRAME_MAX bytes for the next frame, null when there is none; send: they are filled. */
struct load_wire {
    void *context;
    uint8_t *(*room)(void *context);
    void (*send)(void *context, uint32_t len);
};

struct load {
    struct load_wire wire;
    struct load_ends ends;
    struct load_job job;
    struct load_counts counts;
    struct histogram handshake, reply; /* microseconds */
    uint64_t now_us;
    uint64_t next_index; /* the next client that has never been used */
    uint64_t unfinished;
    uint64_t begun_us, begun_count; /* of the paced work */
    uint64_t held_from;             /* open connections are those of the clients from here to next_index */
    uint64_t close_index, sampled, sample_us, progress_us;
    uint64_t *closed; /* from the first closing on, a bit per client from held_from on; who has none is asked again */
    uint64_t closed_count;
    uint64_t random;
    uint32_t epoch;
    uint16_t ip_id;
    bool knows_server, holds;
    uint32_t segment_sums[LOAD_SEGMENTS_MAX];
    uint64_t epoch_opened[LOAD_EPOCHS], epoch_done[LOAD_EPOCHS];
    uint8_t message[LOAD_MESSAGE_MAX];
};

void load_init(struct load *l, const struct load_ends *ends, const struct load_wire *wire);
/* Time goes on; microseconds of a monotonic clock. */
void load_time(struct load *l, uint64_t now_us);
/* Begins a job; counters go on. */
void load_begin(struct load *l, const struct load_job *job);
/* Zeroes counters and histograms; what is under way is still under way. */
void load_reset_counts(struct load *l);
void load_input(struct load *l, const uint8_t *frame, uint32_t len);
/* Sends what is due by now, a few at a time; how many frames. */
uint32_t load_emit(struct load *l);
/* Asks for the server's Ethernet address. */
void load_ask_server(struct load *l);

#endif
