/*
 * tcp.h: the protocol core's whole interface: one share-nothing TCP stack, IPv4 and IPv6 (RFC 9293).
 *
 *   packets in ──> tcp_input() ──┐                    ┌──> env->tx_send() ──> packets out
 *   time ────────> tcp_advance() ┼─ marks owe bits ──>│ tcp_output(), once per batch
 *   the user ────> tcp_send() ...┘                    └──> tcp_next_event() ──> the user
 *
 * Pure: packets and time come in as arguments; randomness, slots and sending go through struct tcp_env, whose functions never
 * call back into the core.  No clock, no thread, no malloc, no I/O; the same inputs give the same outputs, byte for byte.
 * Memory is handed over once by the caller, in two blocks: the TCB rows (which others may read) and the rest.
 *
 * Time is uint64_t now_us, monotonic, from any origin; it never goes back.
 */
#ifndef TCP_TCP_H
#define TCP_TCP_H

#include "csb/hash.h"
#include "tcp/counters.h"
#include "wire/flow.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TCP_ADDRESSES_MAX = 16,
    TCP_LISTENERS_MAX = 256,
    TCP_SLOT_BYTES = 2048,
    TCP_SLOT_HEADROOM = 128, /* payload of a segment to send starts here; headers are built in front of it */
};
#define TCP_NO_SLOT UINT32_MAX
#define TCP_NO_CONN UINT32_MAX

struct tcp_stack;

enum tcp_miss {
    TCP_MISS_RESET,   /* by RST (RFC 9293 3.10.7.1) */
    TCP_MISS_SILENT,  /* not at all: the flow may be on its way to another thread */
    TCP_MISS_FOREIGN, /* not at all: it is another thread's flow, and should not have come here */
};

/* What the core needs from its driver.  Slots are TCP_SLOT_BYTES each; RX slots and TX slots are numbered apart, each from 0. */
struct tcp_env {
    void *context;
    /* A free TX slot, owned by the core until tx_free() or tx_send(..., last); TCP_NO_SLOT when the pool is dry. */
    uint32_t (*tx_alloc)(void *context);
    void (*tx_free)(void *context, uint32_t slot);
    uint8_t *(*tx_data)(void *context, uint32_t slot);
    /* Sends the IP packet of len bytes at offset in slot.  last: the slot is given away with it; else the core keeps it (it
     * is on the retransmission queue) and asks tx_busy() before it writes or sends the slot again.  False: the way out is full,
     * nothing happened, and the core tries again at the next tcp_output(). */
    bool (*tx_send)(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last);
    /* True while an earlier tx_send() of this slot still reads it.  tx_free() of a busy slot is allowed: it is freed later. */
    bool (*tx_busy)(void *context, uint32_t slot);
    uint32_t (*tx_available)(void *context);                 /* slots that tx_alloc() could give now */
    const uint8_t *(*rx_data)(void *context, uint32_t slot); /* of a slot that the core has kept */
    void (*rx_release)(void *context, uint32_t slot);
    void (*random)(void *context, void *data, size_t len);
    /* The balancer's word, by csb_hash() of the flow; null: always yes.  may_create: a flow may begin here, by a SYN or by the
     * answer to a cookie.  miss: how a segment without a connection is answered. */
    bool (*may_create)(void *context, uint64_t hash);
    enum tcp_miss (*miss)(void *context, uint64_t hash);
    /* A flow has ended, whatever its state was; null: nobody wants to know. */
    void (*ended)(void *context, uint64_t hash);
    /* Rows come into use, for the first time or after tcp_next_spare() has named them.  False: there is no memory for them now, and
     * the core does without.  Null: there always is. */
    bool (*populate)(void *context, void *rows, size_t bytes);
};

struct tcp_config {
    uint32_t conn_max;      /* TCB rows, 1 to 2^30 */
    uint32_t half_open_max; /* SYN-RECEIVED blocks; above half of it SYN cookies may answer (RFC 4987) */
    uint32_t time_wait_max; /* TIME-WAIT blocks; the oldest makes room (RFC 6191) */
    uint32_t extension_max; /* connections with data in flight, unread or out of order at one time */
    uint32_t rx_slots;      /* highest RX slot number + 1 */
    uint32_t tx_slots;      /* highest TX slot number + 1 */
    uint16_t mtu;           /* bytes of an IP packet on the wire, 576 to 1920 */
    uint16_t source_port_first, source_port_last; /* for tcp_connect(); 0, 0: no active open */
    bool tx_checksum_offload;                     /* leave the pseudo-header sum in the TCP checksum field */
    uint8_t congestion_control;                   /* enum tcp_cc */
    uint8_t ecn;                                  /* enum tcp_ecn */
    bool pacing;                                  /* data goes out over a round trip, not at once; with BBR always */
    uint32_t rcv_buf_bytes; /* largest receive window of a new connection, default 256 KiB when 0 */
    uint32_t snd_buf_bytes; /* most unacknowledged and unsent bytes of a new connection, default 256 KiB when 0 */
    uint32_t rcv_buf_max_bytes, snd_buf_max_bytes; /* what they grow to while path and user ask for more (window.h,
                                                      rtxq.h); 0: to 4 MiB, or not at all when the former is given */
    uint32_t msl_ms;               /* maximum segment lifetime; TIME-WAIT lasts twice as long; default 30,000 when 0 */
    uint32_t fin_wait_2_ms;        /* a closed connection's longest FIN-WAIT-2, default 60,000 when 0 */
    struct csb_secret flow_secret; /* for the connection table; the hash in tcp_packet must be made with it */
    struct csb_secret
        secret;         /* of ISNs and cookies: the same in all threads that may get each other's flows; 0: random */
    bool reset_unknown; /* answer a segment without a connection by RST (RFC 9293 3.10.7.1), else be silent */
    /* Where other stacks choose otherwise; 0: as this one does. */
    uint8_t options_off;  /* enum tcp_option_present without MSS: neither offered nor taken */
    uint8_t window_scale; /* offered at least, 0 to 14, whatever the buffer needs */
    uint8_t quick_acks;   /* data segments that are acknowledged at once while a connection has sent no data itself */
    bool
        handshake_rtt; /* the time from SYN-ACK to ACK is the first measurement of a passive open, not that of its first data */
    uint32_t challenge_acks; /* in each second of the whole stack, by half more or less; default 1,000 when 0 */
};

enum tcp_cc { TCP_CC_CUBIC = 0, TCP_CC_NEWRENO = 1, TCP_CC_DCTCP = 2, TCP_CC_BBR = 3 };
/* The number of "cubic", "newreno", "dctcp" or "bbr"; -1: no such congestion control. */
int tcp_cc_by_name(const char *name);

/* RFC 3168: when the peer asks for it; as an active opener too; never. */
enum tcp_ecn { TCP_ECN_PASSIVE = 0, TCP_ECN_ON = 1, TCP_ECN_OFF = 2 };

/* RFC 9293 3.3.2.  The numbers are part of the shared-memory ABI (shm_row_layout.state). */
enum tcp_state {
    TCP_STATE_FREE = 0, /* the row is not in use */
    TCP_STATE_CLOSED = 1,
    TCP_STATE_LISTEN = 2,
    TCP_STATE_SYN_SENT = 3,
    TCP_STATE_SYN_RECEIVED = 4,
    TCP_STATE_ESTABLISHED = 5,
    TCP_STATE_FIN_WAIT_1 = 6,
    TCP_STATE_FIN_WAIT_2 = 7,
    TCP_STATE_CLOSE_WAIT = 8,
    TCP_STATE_CLOSING = 9,
    TCP_STATE_LAST_ACK = 10,
    TCP_STATE_TIME_WAIT = 11,
};

/* A received IP packet, whole in one RX slot.  tcp_input() takes the slot. */
struct tcp_packet {
    const uint8_t *ip; /* its first byte, at offset in the slot */
    uint32_t slot;
    uint16_t offset;
    uint16_t len;  /* bytes of the IP packet */
    uint32_t hash; /* csb_table_hash() of the flow when has_hash */
    bool has_hash;
    bool has_low;  /* and the low half of csb_hash() lies in the 4 bytes behind the packet */
    bool verified; /* IP and TCP checksums are known to be right */
};

/* --- the stack --- */

/* Bytes to hand over as memory (aligned to 64) and as rows (aligned to 128) for this configuration; 0 when it is invalid. */
size_t tcp_memory_bytes(const struct tcp_config *config);
size_t tcp_rows_bytes(const struct tcp_config *config);

/* Makes a stack in memory; both blocks must be zero.  Null: the configuration is invalid or memory is misaligned. */
struct tcp_stack *tcp_init(const struct tcp_config *config, const struct tcp_env *env, void *memory, void *rows,
                           uint64_t now_us);

/* Adds a local address; its index in the order of adding is a row's laddr_index.  False: table full. */
bool tcp_add_address(struct tcp_stack *s, const struct ip_addr *addr);

/* --- the five verbs of the loop --- */

/* One packet.  Takes the slot: released at once or when the user has read it.  Returns why it was dropped, or
 * TCP_DROP_NONE.  Sends nothing: marks what is owed. */
enum tcp_drop tcp_input(struct tcp_stack *s, const struct tcp_packet *packet, uint64_t now_us);

/* The same for many at a time, in their order; those with hashes are looked up ahead, and what they name is fetched into the cache.
 * Segments of a connection that continue each other are taken as one. */
void tcp_input_batch(struct tcp_stack *s, const struct tcp_packet *packets, uint32_t count, uint64_t now_us);

/* Runs the timers that are due. */
void tcp_advance(struct tcp_stack *s, uint64_t now_us);

/* Sends what is owed by the marked connections, as far as windows, pacing, slots and the way out allow.  Returns segments sent. */
uint32_t tcp_output(struct tcp_stack *s, uint64_t now_us);

/* When tcp_advance() or tcp_output() has something to do although no packet came, or UINT64_MAX; never too late.  It may turn out to be early: a timer that was moved back is
 * put at its new place only when the old time has come. */
uint64_t tcp_next_deadline(const struct tcp_stack *s);

enum tcp_event_kind {
    TCP_EVENT_ACCEPTED = 0x01,  /* a listener's new connection is established; user data is the listener's */
    TCP_EVENT_CONNECTED = 0x02, /* tcp_connect() has succeeded */
    TCP_EVENT_READABLE = 0x04,  /* tcp_recv_* will give data or the end of the stream */
    TCP_EVENT_WRITABLE = 0x08,  /* tcp_send() took less than was asked, and has room for at least a segment now */
    TCP_EVENT_ERROR = 0x10, /* reset, timed out or refused: tcp_error() says; only tcp_close() or tcp_abort() remain */
    TCP_EVENT_SENT_ALL = 0x20, /* everything given to tcp_send() is acknowledged, asked for by tcp_want_sent_all() */
    TCP_EVENT_STALLED = 0x40,  /* R1: three transmissions of SYN or data in a row got no answer; more will follow */
    TCP_EVENT_URGENT =
        0x80, /* the peer's urgent pointer has come, or moved on: tcp_get_info() has the bytes up to it */
};

struct tcp_event {
    uint32_t conn;
    uint32_t kinds; /* enum tcp_event_kind, or-ed since the last event of this connection */
    uint64_t user;  /* of tcp_set_user(); an accepted connection starts with its listener's */
};

/* Takes the next connection with news.  False: none. */
bool tcp_next_event(struct tcp_stack *s, struct tcp_event *event);

/* --- the user's calls; conn is a row index, valid from ACCEPTED or tcp_connect() until tcp_close() or tcp_abort() --- */

/* Listens on addr (all zero: every local address) and port.  0, or -EADDRINUSE, -EADDRNOTAVAIL, -ENOSPC. */
int tcp_listen(struct tcp_stack *s, const struct ip_addr *addr, uint16_t port, uint64_t user);
struct tcp_settings;
/* With settings for its connections; also -EINVAL, or -ENOSPC as tcp_set_settings(). */
int tcp_listen_with(struct tcp_stack *s, const struct ip_addr *addr, uint16_t port, uint64_t user,
                    const struct tcp_settings *settings);
/* Stops listening; half-open connections of it are dropped in silence, established ones go on.  0 or -ENOENT. */
int tcp_unlisten(struct tcp_stack *s, const struct ip_addr *addr, uint16_t port);

/* Active open.  laddr null: the first local address of raddr's family.  lport 0: chosen at random (RFC 6056) among the configured
 * range so that accept_port(context, hash) is true (null: any); a given lport must please it too, else -EADDRNOTAVAIL.  Writes *conn.  0, or -EADDRNOTAVAIL, -EADDRINUSE, -ENOBUFS. */
int tcp_connect(struct tcp_stack *s, const struct ip_addr *laddr, uint16_t lport, const struct ip_addr *raddr,
                uint16_t rport, bool (*accept_port)(void *context, uint64_t hash), void *context, uint64_t user,
                uint64_t now_us, uint32_t *conn);

struct tcp_view {
    const uint8_t *data;
    uint32_t len;
};

/* Received data, in order, without copying: fills up to count views, returns how many; consumes nothing.  The views are valid
 * until tcp_recv_consume(), tcp_close() or tcp_abort(). */
uint32_t tcp_recv_views(const struct tcp_stack *s, uint32_t conn, struct tcp_view *views, uint32_t count);
/* Bytes that can be read now. */
uint32_t tcp_recv_ready(const struct tcp_stack *s, uint32_t conn);
/* Gives len read bytes back; len is at most tcp_recv_ready(). */
void tcp_recv_consume(struct tcp_stack *s, uint32_t conn, uint32_t len);
/* Copies up to len bytes out and consumes them. */
uint32_t tcp_recv(struct tcp_stack *s, uint32_t conn, void *data, uint32_t len);
/* Lends the first packet that has unread data, whole: it is no longer the connection's, and view, the unread rest of it, stays
 * readable until tcp_recv_give(), whatever becomes of the connection.  Returns the slot, whose number and memory tcp_rebase() leaves
 * alone; TCP_NO_SLOT: nothing to read. */
uint32_t tcp_recv_lend(struct tcp_stack *s, uint32_t conn, struct tcp_view *view);
void tcp_recv_give(struct tcp_stack *s, uint32_t slot);
/* True: the peer's FIN has arrived and all before it is read. */
bool tcp_recv_eof(const struct tcp_stack *s, uint32_t conn);

/* Copies up to len bytes into segments; returns how many were taken (0: no room, WRITABLE will tell).  -EPIPE after
 * tcp_shutdown(), -ENOTCONN before the connection is established, or the connection's error. */
int64_t tcp_send(struct tcp_stack *s, uint32_t conn, const void *data, size_t len);
/* The same, and what was taken ends with urgent data (RFC 9293 3.8.5): the peer is told at once that it is on its way, even if its window
 * is closed.  Two such ends at a time are not told apart: the later one counts. */
int64_t tcp_send_urgent(struct tcp_stack *s, uint32_t conn, const void *data, size_t len);
/* Bytes that tcp_send() would take now, or fewer by less than a segment, never more; 0: not a segment, and WRITABLE will tell. */
uint32_t tcp_send_room(struct tcp_stack *s, uint32_t conn);
/* Bytes given to tcp_send() and not yet acknowledged. */
uint32_t tcp_unacked(const struct tcp_stack *s, uint32_t conn);
/* SENT_ALL will come once, when all that was given to tcp_send() by now, however often it was asked, is acknowledged. */
void tcp_want_sent_all(struct tcp_stack *s, uint32_t conn);

/* FIN after what was sent; the connection can still receive (half-close).  Before it is established: nothing. */
void tcp_shutdown(struct tcp_stack *s, uint32_t conn, uint64_t now_us);
/* Gives the connection back: sent data and FIN still go out.  With unread received data it resets (RFC 2525 2.17, RFC 9293 3.6.1).
 * conn is no longer the caller's. */
void tcp_close(struct tcp_stack *s, uint32_t conn, uint64_t now_us);
/* RST, and gives the connection back. */
void tcp_abort(struct tcp_stack *s, uint32_t conn, uint64_t now_us);

void tcp_set_user(struct tcp_stack *s, uint32_t conn, uint64_t user);
uint64_t tcp_user(const struct tcp_stack *s, uint32_t conn);
void tcp_flow(const struct tcp_stack *s, uint32_t conn, struct flow *flow);
enum tcp_state tcp_conn_state(const struct tcp_stack *s, uint32_t conn);
/* 0, or the errno that ended the connection: ECONNRESET, ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENOBUFS. */
int tcp_error(const struct tcp_stack *s, uint32_t conn);
void tcp_set_nodelay(struct tcp_stack *s, uint32_t conn, bool on); /* RFC 9293 3.7.4, Minshall's form; default off */

/* How a connection behaves; those of a listener begin with the listener's. */
struct tcp_settings {
    uint8_t congestion_control; /* enum tcp_cc */
    uint8_t keepalive_probes;   /* unanswered ones that end it, 1 to 15, default 9 */
    uint8_t dscp;               /* of all that is sent, 0 to 63, default 0 (RFC 9293 3.9.1.9) */
    uint8_t ttl;                /* or hop limit, 1 to 255, default 64 (RFC 9293 3.9.2) */
    bool
        user_timeout_option; /* tell the peer the user timeout, and without one of our own heed the peer's (RFC 5482) */
    uint32_t keepalive_ms;   /* of silence until the first probe (RFC 9293 3.8.4); 0, the default: none */
    uint32_t keepalive_interval_ms; /* between probes, default 75 s */
    uint32_t
        user_timeout_ms; /* data not acknowledged for so long ends it (R2 of RFC 9293 3.8.3); 0: 13 transmissions do */
};
void tcp_default_settings(const struct tcp_stack *s, struct tcp_settings *settings);
void tcp_get_settings(const struct tcp_stack *s, uint32_t conn, struct tcp_settings *settings);
/* After tcp_connect() and before the next tcp_output() also for the SYN.  0, or -EINVAL, or -ENOSPC: there are SETTINGS_MAX others. */
int tcp_set_settings(struct tcp_stack *s, uint32_t conn, const struct tcp_settings *settings);
int tcp_set_keepalive(struct tcp_stack *s, uint32_t conn, uint32_t idle_ms); /* keepalive_ms alone */

struct tcp_info {
    uint8_t state;
    uint8_t wscale_snd, wscale_rcv;
    bool sack, timestamps, ecn;
    uint32_t srtt_us, rttvar_us, rto_us;
    uint32_t cwnd_bytes, ssthresh_bytes;
    uint32_t snd_una, snd_nxt, snd_wnd, rcv_nxt, rcv_wnd;
    uint32_t smss, flight_bytes, unsent_bytes, unread_bytes;
    uint8_t timeouts;                      /* retransmission timeouts in a row */
    uint32_t retransmits;                  /* segments sent again so far; an idle connection remembers at most 4,095 */
    uint32_t rcv_buf_bytes, snd_buf_bytes; /* as they have grown */
    bool stalled;                          /* R1 (RFC 9293 3.8.3) was passed, and nothing has got through since */
    uint32_t stalled_ms; /* since something got through, once a timeout has shown that nothing does; 0: none has */
    uint32_t
        urgent_bytes; /* unread, or not yet come, up to the end of urgent data (RFC 9293 3.8.5); 0: none is pending */
};
void tcp_get_info(const struct tcp_stack *s, uint32_t conn, struct tcp_info *info);

/* --- for the balancer --- */

enum { TCP_FLOW_COLUMNS = 3 };

/* The hashes of all flows, 0 in a free row: column part of TCP_FLOW_COLUMNS; returns its rows.  A flow may move to a later
 * column, never to an earlier one. */
uint32_t tcp_flow_column(const struct tcp_stack *s, uint32_t part, const uint64_t **column);

/* An ACK may come from now on that answers another thread's SYN cookie.  For a second segments that follow such an ACK are not answered
 * by RST. */
void tcp_expect_cookies(struct tcp_stack *s, uint64_t now_us);

/* --- for the driver and the tests --- */

const struct tcp_counters *tcp_counters(const struct tcp_stack *s);

struct tcp_usage {
    uint32_t conns, half_open, time_wait, extensions; /* in use now */
    uint32_t rx_slots_held, tx_slots_held;            /* by the core */
};
void tcp_usage(const struct tcp_stack *s, struct tcp_usage *usage);

/* Where a TCB row keeps what others may read: byte offsets (see shm_row_layout). */
struct tcp_row_layout {
    uint16_t stride, state, raddr, rport, lport, laddr_index, snd_nxt, rcv_nxt;
};
void tcp_row_layout(struct tcp_row_layout *layout);

/* Memory that nothing has used for TCP_SPARE_US.  Its driver may give the pages that lie wholly in it back to the machine and have them
 * zero again when they are touched; rows not before env->populate() asks for them. */
enum { TCP_SPARE_US = 1000000 };
struct tcp_spare_part {
    void *memory;
    size_t bytes;
};
struct tcp_spare {
    struct tcp_spare_part part[2];
    uint32_t first_row,
        row_count; /* part[0] is these rows when row_count is not 0, and they are nobody's: no connection has their numbers */
};
/* The next piece, 2 MiB of rows or of the table at most; to be given back before the next call of any other function.  False: there is
 * none now. */
bool tcp_next_spare(struct tcp_stack *s, uint64_t now_us, struct tcp_spare *out);
/* When it is worth asking again; UINT64_MAX: nothing is unused. */
uint64_t tcp_spare_deadline(const struct tcp_stack *s);

/* The driver's regions were replaced (janusd restarted): the old TX slots [0, tx_slots) and RX slots are void except as the
 * env's move functions give new numbers.  Every held TX slot is passed to move_tx, every held RX slot to move_rx, once; TCB rows are
 * copied to rows, which are zero.  Then every connection with data in flight is due for retransmission, spread over spread_us. */
void tcp_rebase(struct tcp_stack *s, const struct tcp_env *env, void *rows,
                uint32_t (*move_tx)(void *context, uint32_t slot), uint32_t (*move_rx)(void *context, uint32_t slot),
                uint64_t now_us, uint32_t spread_us);

/* Aborts the program when an invariant of the stack or of any connection does not hold.  O(everything). */
void tcp_check(const struct tcp_stack *s);

#endif
