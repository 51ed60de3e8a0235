/*
 * glue.h: the face of the data plane for the control plane, C11 and cffi.
 *
 *   control plane (Python) --calls--> glue --snapshots--> I/O threads --frames, events--> control plane
 *
 * Everything here is called by the control plane, from any thread, and never by an I/O thread.  What an I/O thread reads is
 * an immutable snapshot, swapped by one pointer and freed when every I/O thread has passed a quiet point.  Addresses are 16
 * bytes (struct ip_addr, IPv4 in its mapped form), ports host order.  A function returns 0 or a count, or a negative errno with a
 * sentence for a person in why; a function that returns a pointer gives NULL and the errno in why->code.
 */
#ifndef DPDK_GLUE_GLUE_H
#define DPDK_GLUE_GLUE_H

#include <stddef.h>
#include <stdint.h>

/* cffi:begin */
enum {
    GLUE_PORTS_MAX = 16,
    GLUE_IO_MAX = 8,
    GLUE_APPS_MAX = 64, /* app ids are 1 to 63 */
    GLUE_ADDRESSES_MAX = 64,
    GLUE_ROUTES_MAX = 256,
    GLUE_NEIGHBOURS_MAX = 8192,
    GLUE_SERVICES_MAX = 65536,
    GLUE_LEASE_ADDRESSES_MAX = 16,
    GLUE_LEASE_RANGES_MAX = 32,
    GLUE_NAME_BYTES = 32,
    GLUE_DEVICE_BYTES = 256,
    GLUE_FRAME_BYTES = 2048,
};

/* Why a call failed, and what to mend; NUL-terminated. */
struct glue_text {
    int32_t code; /* errno */
    char text[252];
};

struct glue;
struct glue_session;
struct csb_update;

/* --- EAL: once per process, in a thread of its own (the caller keeps its affinity and its signals) --- */

/* Starts EAL with these words (without a program name).  Its last log lines are part of why when it fails. */
int glue_eal_start(const char *const *words, uint32_t count, struct glue_text *why);

/* --- the whole --- */

enum glue_mode {
    GLUE_MODE_ADAPTIVE, /* I/O threads sleep when there is nothing to do */
    GLUE_MODE_POLL,     /* never */
    GLUE_MODE_YIELD, /* never, and give the processor away after each turn: for one shared with an app's TCP thread */
};

struct glue_options {
    uint32_t io_count; /* I/O threads, 1 to GLUE_IO_MAX */
    int32_t cpus[8];   /* one each; -1: not pinned */
    uint32_t mode;     /* enum glue_mode */
    uint32_t mbufs;    /* of the packet pool; 0: by number of ports and I/O threads */
    int32_t stats_fd;  /* shared memory for the stats page, resized here; -1: private memory */
};

struct glue *glue_create(const struct glue_options *options, struct glue_text *why);
/* Stops the I/O threads, frees the sessions that are left, closes the ports. */
void glue_destroy(struct glue *g);

/* --- ports --- */

enum glue_offload {
    GLUE_OFFLOAD_TX_TCP = 1,      /* the port completes TCP checksums */
    GLUE_OFFLOAD_RX_TCP = 2,      /* the port verifies IP and TCP checksums */
    GLUE_OFFLOAD_TX_IPV4 = 4,     /* the port fills the IPv4 header checksum */
    GLUE_OFFLOAD_TX_TSO_IPV4 = 8, /* the port cuts long segments (join.h) */
    GLUE_OFFLOAD_TX_TSO_IPV6 = 16,
    GLUE_OFFLOAD_TX_TSO = 24, /* either */
    GLUE_OFFLOAD_RX_LRO = 32, /* the port joins segments (cut.h) */
};

struct glue_port_config {
    char name[32];
    char device[256];     /* "net_af_packet0,iface=veth0" or "0000:3b:00.0" */
    uint16_t mtu;         /* bytes of an IP packet, 576 to 1500 */
    uint16_t promiscuous; /* 0 or 1 */
    uint16_t vlan_id;     /* 0: untagged; else frames have this tag, on the slow path none */
    uint16_t reassemble;  /* 0 or 1: TCP in IP fragments is put together (fragments.h), else dropped */
    uint16_t tso;         /* 0 or 1: the port cuts long segments, if it can */
    uint16_t lro;         /* 0 or 1: it joins received ones, if it can */
};

struct glue_port_info {
    char name[32];
    char driver[32];
    uint8_t mac[6];
    uint16_t mtu;
    uint16_t rx_queues, tx_queues; /* queue q is served by I/O thread q; the other threads hand over to thread 0 */
    uint32_t offloads;             /* enum glue_offload, as used */
    uint32_t link_up;
    uint32_t link_mbps;
};

struct glue_port_stats {
    uint64_t rx_packets, rx_bytes, rx_missed, rx_errors, rx_no_mbuf, tx_packets, tx_bytes, tx_errors;
};

/* Probes, configures and starts a port; returns its number.  I/O threads serve it from now on. */
int glue_port_open(struct glue *g, const struct glue_port_config *config, struct glue_text *why);
int glue_port_info(struct glue *g, uint32_t port, struct glue_port_info *out);
int glue_port_stats(struct glue *g, uint32_t port, struct glue_port_stats *out);

/* --- I/O threads --- */

struct glue_io_info {
    uint64_t turns;      /* loop turns: stands still when the thread hangs (it turns at least every 10 ms) */
    uint64_t busy_turns; /* turns that found work */
    uint64_t sleeps;
    uint64_t busy_cycles; /* TSC cycles of busy turns */
    uint64_t cycles_hz;
    int32_t cpu; /* -1: not pinned */
    int32_t running;
};

int glue_io_start(struct glue *g, struct glue_text *why);
int glue_io_info(struct glue *g, uint32_t io, struct glue_io_info *out);

/* --- addresses, routes, neighbours; each _set replaces all --- */

struct glue_address {
    uint8_t address[16];
    uint32_t port;
};

struct glue_route {
    uint8_t prefix[16];
    uint8_t next_hop[16]; /* all zero: on link */
    uint32_t prefix_len;  /* of the 128 bits: an IPv4 prefix is 96 + n */
    uint32_t port;
};

int glue_addresses_set(struct glue *g, const struct glue_address *list, uint32_t count, struct glue_text *why);
/* The longest prefix wins. */
int glue_routes_set(struct glue *g, const struct glue_route *list, uint32_t count, struct glue_text *why);
int glue_neighbour_set(struct glue *g, uint32_t port, const uint8_t address[16], const uint8_t mac[6],
                       struct glue_text *why);
/* 1: deleted; 0: there was none. */
int glue_neighbour_delete(struct glue *g, uint32_t port, const uint8_t address[16]);

/* --- apps, CSB, services --- */

struct glue_point {
    uint32_t point;
    uint32_t tid;
};

struct glue_service {
    uint8_t address[16];
    uint16_t first, last; /* ports */
    uint16_t app;
    uint16_t reserved;
};

int glue_app_add(struct glue *g, uint32_t app, const char *name, uint64_t k0, uint64_t k1, struct glue_text *why);
/* -EBUSY while it has sessions or services. */
int glue_app_remove(struct glue *g, uint32_t app, struct glue_text *why);
/* Who gets packets for (address, port): listens and the port ranges of active opens.  Replaces all; a later entry wins over an
 * earlier one.  A port without an entry is one that nobody serves. */
int glue_services_set(struct glue *g, const struct glue_service *list, uint32_t count, struct glue_text *why);
/* reset: answer a segment for a port that nobody serves with RST (else silence).  recovery: never, whatever reset says. */
void glue_policy_set(struct glue *g, int reset, int recovery);

/* --- the balancer: one update of an app at a time (sdk/csb/update.h) --- */

/* A value that goes to the app's threads: sealed, read-only for all.  The descriptor is borrowed. */
struct glue_csb_value {
    int32_t fd; /* -1: there is none */
    uint64_t bytes;
};

/* A view that has been built and not yet published. */
struct glue_csb_built {
    struct glue_csb_value value;
    uint64_t flagged[64];             /* a bit per slot with exceptions */
    uint32_t exceptions, exact_flows; /* keys; flows of conflicted keys */
    uint64_t reported;                /* flows that the threads have listed */
};

/* Begins an update towards these points; what threads had listed is forgotten. */
int glue_csb_plan(struct glue *g, uint32_t app, const struct glue_point *points, uint32_t count, uint64_t epoch,
                  struct glue_csb_value *out, struct glue_text *why);
/* Hashes that a thread has listed, untrusted.  -E2BIG: more than limit in all. */
int glue_csb_list(struct glue *g, uint32_t app, uint32_t tid, const uint8_t *hashes, uint32_t count, uint64_t limit);
/* A view of the plan with what is listed by now, to be checked by the threads. */
int glue_csb_draft(struct glue *g, uint32_t app, struct glue_csb_value *out, struct glue_text *why);
/* Begins the next view with what is listed by now, so that glue_csb_build() has little left to do. */
int glue_csb_prepare(struct glue *g, uint32_t app, struct glue_text *why);
/* The next view: of the plan with what is listed. */
int glue_csb_build(struct glue *g, uint32_t app, struct glue_csb_built *out, struct glue_text *why);
/* The next view: the one in force with these points and without what threads of dead (a bit each) had; no update runs. */
int glue_csb_build_without(struct glue *g, uint32_t app, const struct glue_point *points, uint32_t count,
                           uint64_t epoch, const uint64_t dead[4], struct glue_csb_built *out, struct glue_text *why);
/* The next view, after a restart: exceptions are unknown in the flagged slots. */
int glue_csb_build_flagged(struct glue *g, uint32_t app, const struct glue_point *points, uint32_t count,
                           uint64_t epoch, const uint64_t flagged[64], struct glue_csb_built *out,
                           struct glue_text *why);
/* The three orders to the I/O threads.  They return when all running ones have obeyed, within about a millisecond.
 * drain: SYNs of moving flows are dropped, a seal marker is in or due in every ring.  publish: the next view is in force,
 * behind it an open marker (attempt 0: none).  abort: the plan is gone. */
int glue_csb_drain(struct glue *g, uint32_t app, uint32_t attempt, struct glue_text *why);
int glue_csb_publish(struct glue *g, uint32_t app, uint32_t attempt, struct glue_text *why);
int glue_csb_abort(struct glue *g, uint32_t app, struct glue_text *why);
/* There is no view in force any more: the app has no threads. */
void glue_csb_forget(struct glue *g, uint32_t app);
/* The view in force. */
int glue_csb_view(struct glue *g, uint32_t app, struct glue_csb_value *out);

/* Where the I/O threads send a flow, and why.  The app's secret stays inside: a key alone tells nothing of it. */
struct glue_csb_explained {
    uint32_t decider;   /* enum csb_decider */
    uint32_t key, slot; /* on the circle */
    uint32_t tid, home; /* who gets it; who would by H_new alone; 0x7fff: nobody */
    uint64_t epoch;     /* of the view */
};
/* remote is the peer's end, local ours.  -ENOENT: no such app.  -EAGAIN: the app has no view. */
int glue_csb_explain(struct glue *g, uint32_t app, const uint8_t remote[16], uint16_t remote_port,
                     const uint8_t local[16], uint16_t local_port, struct glue_csb_explained *out);

struct glue_csb_strangers {
    uint16_t slot, tid;
    uint32_t count; /* exceptions of tid there */
};

/* Of the view in force; how many there are, of which at most room are written.  -ENOMEM. */
int glue_csb_strangers(struct glue *g, uint32_t app, struct glue_csb_strangers *out, uint32_t room);

/* The controller's role (sdk/csb/update.h), of one app.  start: the attempt, 0: one runs.  phase: enum csb_phase, and who is
 * waited for.  ios_done: the I/O threads have obeyed.  The others are 1 where csb/update.h says true. */
struct csb_update *glue_update_new(void);
void glue_update_free(struct csb_update *u);
uint64_t glue_update_start(struct csb_update *u, const uint64_t members[4], uint64_t ios, int is_checked,
                           uint64_t now_us, uint64_t limit_us);
uint32_t glue_update_phase(const struct csb_update *u, uint64_t waiting[4]);
int glue_update_member_done(struct csb_update *u, uint64_t attempt, uint32_t phase, uint32_t tid);
void glue_update_ios_done(struct csb_update *u);
int glue_update_advance(struct csb_update *u);
int glue_update_abort(struct csb_update *u);
int glue_update_tick(struct csb_update *u, uint64_t now_us);
int glue_update_lost(struct csb_update *u, uint32_t tid);

/* --- sessions: one TCP thread each --- */

struct glue_range {
    uint16_t first, last;
};

/* What one TCP thread may put into a packet as source. */
struct glue_lease {
    uint8_t addresses[16][16];
    uint32_t address_count;
    uint32_t range_count;
    struct glue_range ranges[32]; /* service ports and the range of active opens */
};

struct glue_row_layout {
    uint16_t stride, state, raddr, rport, lport, laddr_index, snd_nxt, rcv_nxt;
};

struct glue_session_config {
    uint32_t app, tid, generation;
    uint32_t rx_slots_per_io, tx_slots, rows; /* powers of two but rows */
    struct glue_row_layout row;
    struct glue_lease lease;
};

struct glue_session_info {
    uint64_t j2a_bytes, a2j_bytes, rows_bytes;
    int32_t j2a_fd, a2j_fd, rows_fd, csb_fd, app_doorbell_fd; /* borrowed; what WELCOME sends */
    int32_t io_doorbell_fd[8];
    uint32_t io_count;
    uint32_t huge;                               /* all lies in huge pages */
    uint32_t violations;                         /* impossible values that the app has written */
    uint32_t closed;                             /* 1: too many; the I/O threads have let go of it */
    uint32_t app_sleeping, heartbeat, rows_used; /* as the app says */
    uint64_t busy_us, busy_since_us;             /* the same; struct shm_a2j_header */
    uint64_t csb_closed;                         /* the same */
    uint64_t csb_held_us, csb_held_wall_us;      /* the same */
    uint32_t rx_queued;                          /* packets that the app has not taken from its rings yet */
};

/* Where the RX slots are; free + held == total always holds.  Exact when the session is stopped. */
struct glue_slots {
    uint32_t total, free, held; /* held: by the app, or on the way to it */
};

/* Makes regions, rings and doorbells.  Nothing of A2J is touched before the seal. */
struct glue_session *glue_session_create(struct glue *g, const struct glue_session_config *config,
                                         struct glue_text *why);
/* After MAPPED: late seals, populate. */
int glue_session_seal(struct glue_session *s, struct glue_text *why);
/* From now on the I/O threads serve it (packets come when the circle names its tid). */
int glue_session_start(struct glue_session *s, struct glue_text *why);
/* Takes it from the I/O threads, waits until none can touch it (about a millisecond); every slot is back.  Idempotent. */
int glue_session_stop(struct glue_session *s, struct glue_slots *out);
/* Stops it, gives up resets not yet sent, unmaps and closes all. */
void glue_session_free(struct glue_session *s);
void glue_session_info(struct glue_session *s, struct glue_session_info *out);
int glue_session_slots(struct glue_session *s, struct glue_slots *out);
/* The thread's own counters, as the app wrote them; returns how many. */
int glue_session_counters(struct glue_session *s, uint64_t *out, uint32_t max);

/* --- the connection rows of a session, untrusted --- */

struct glue_row {
    uint8_t laddr[16], raddr[16];
    uint16_t lport, rport;
    uint32_t snd_nxt, rcv_nxt;
    uint32_t row;
    uint32_t state; /* enum tcp_state; never 0 */
};

/* Copies up to max rows in use from row *next on and moves *next; 0: no more.  A row that names an address outside the lease is
 * skipped. */
int glue_session_rows(struct glue_session *s, uint32_t *next, struct glue_row *out, uint32_t max);

struct glue_reset_progress {
    uint64_t sent;
    uint64_t skipped; /* outside the lease, not synchronized, or no neighbour known */
    uint32_t done;
};

/* Starts to send RST, ACK to the peer of every synchronized row, rate_per_s at most, from a thread of the glue.  The session must
 * be stopped and not yet freed.  GLUE_EVENT_RESETS_DONE tells the end. */
int glue_session_reset_peers(struct glue_session *s, uint32_t rate_per_s, struct glue_text *why);
void glue_session_reset_progress(struct glue_session *s, struct glue_reset_progress *out);

/* --- events --- */

enum glue_event_kind {
    GLUE_EVENT_VIOLATION = 1, /* a session was closed for what its app wrote: stop and free it */
    GLUE_EVENT_RESETS_DONE = 2,
};

struct glue_event {
    uint32_t kind, app, tid, generation;
};

/* Readable (an eventfd) when events or slow-path frames may wait; read it first, then call the two functions until they give
 * 0. */
int glue_wake_fd(struct glue *g);
int glue_event_next(struct glue *g, struct glue_event *out);

/* --- slow path --- */

enum glue_slow_reason {
    GLUE_SLOW_ARP = 1,
    GLUE_SLOW_ECHO = 2, /* echo request, either family, to an address of ours */
    GLUE_SLOW_ND = 3,
    GLUE_SLOW_UDP = 4, /* to an address of ours: nobody's, a port unreachable is owed */
    GLUE_SLOW_NEIGHBOUR =
        16, /* a packet of an app whose next hop has no entry; destination MAC is zero: fill and send it */
};

struct glue_slow_frame {
    uint32_t port;
    uint32_t reason;
    uint32_t len;
    uint32_t io;
    uint8_t next_hop[16]; /* GLUE_SLOW_NEIGHBOUR */
    uint8_t frame[2048];  /* from the Ethernet header on */
};

/* 1: out is filled; 0: none waits. */
int glue_slow_recv(struct glue *g, struct glue_slow_frame *out);
/* Sends a whole frame.  -ENOBUFS: the port's queue or the pool is full. */
int glue_slow_send(struct glue *g, uint32_t port, const uint8_t *frame, uint32_t len, struct glue_text *why);
/* cffi:end */

#endif
