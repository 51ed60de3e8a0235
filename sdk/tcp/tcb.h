/*
 * tcb.h: the blocks that a connection consists of, by what it needs at the moment.
 *
 *   SYN-RECEIVED        ESTABLISHED ... LAST-ACK                                     TIME-WAIT
 *   struct half_open    struct tcb (row, 128 bytes)                                  struct time_wait
 *   48 bytes            + struct tcb_ext while data is in flight, unread             48 bytes
 *                         or out of order; slots and their metadata
 *
 * tcb_set_state() is the only writer of state.  A row that is freed while it is still linked in a list becomes a zombie, and
 * free when the list lets go of it, so that the lists need one link only.
 */
#ifndef TCP_TCB_H
#define TCP_TCB_H

#include "tcp/cc.h"
#include "tcp/reasm.h"
#include "tcp/rtt.h"
#include "tcp/tcp.h"
#include "tcp/wheel.h"
#include "wire/tcp_header.h"

#include <assert.h>

enum tcb_flag {
    TCB_WINDOW_SCALE = 0x00000001, /* agreed on SYN and SYN-ACK, these four */
    TCB_SACK = 0x00000002,
    TCB_TIMESTAMPS = 0x00000004,
    TCB_ECN = 0x00000008,          /* RFC 3168 6.1.1 */
    TCB_ORPHAN = 0x00000010,       /* the user gave the connection back */
    TCB_FIN_QUEUED = 0x00000020,   /* FIN follows the last queued byte */
    TCB_FIN_SENT = 0x00000040,     /* snd_nxt counts it */
    TCB_FIN_LOST = 0x00000080,     /* to be sent again */
    TCB_FIN_RECEIVED = 0x00000100, /* rcv_nxt counts it */
    TCB_RECOVERY = 0x00000200,     /* fast recovery, up to recovery_point */
    TCB_LOSS = 0x00000400,         /* after a retransmission timeout, up to recovery_point */
    TCB_NODELAY = 0x00000800,
    TCB_WANT_WRITABLE = 0x00001000,
    TCB_WANT_SENT_ALL = 0x00002000,
    TCB_IN_OUTPUT = 0x00004000, /* linked by output_next */
    TCB_IN_EVENTS = 0x00008000, /* linked by event_next */
    TCB_IN_TABLE = 0x00010000,
    TCB_ZOMBIE = 0x00020000,
    TCB_SYN_LOST = 0x00040000,          /* SYN or SYN-ACK was sent again */
    TCB_ACTIVE = 0x00080000,            /* by tcp_connect() */
    TCB_FORCE_RTX = 0x00100000,         /* the first lost segment goes out whatever cwnd says */
    TCB_FIN_AHEAD = 0x00200000,         /* FIN has arrived before its turn, at fin_seq */
    TCB_PROBED = 0x00400000,            /* a tail loss probe is out, up to probe_end */
    TCB_PROBED_AGAIN = 0x00800000,      /* and it was sent before: its ACK may be of either copy */
    TCB_TELL_USER_TIMEOUT = 0x08000000, /* with the next ACK (RFC 5482) */
    TCB_PACED = 0x10000000,             /* data waits for pace_deadline */
    TCB_UNREACHABLE = 0x20000000,       /* an ICMP error has said so since the peer was last heard */
    TCB_FULL_ACKED = 0x40000000,        /* a full segment of the present size has come through */
    TCB_QUICK_ACK = 0x80000000,         /* data is acknowledged at once; validated_s counts how often */
    TCB_ECN_ECHO = 0x01000000,          /* CE came, and no CWR yet: each segment says ECE */
    TCB_ECN_CWR = 0x02000000,           /* the window was reduced: the next new segment says so */
    TCB_ECT = 0x04000000,               /* SYN-SENT: the SYN asks for ECN; later: new data is sent as ECT(0) */
};

/* What tcp_output() is to send; marked by everyone, cleared by output alone. */
enum tcb_owe {
    OWE_ACK = 0x01,
    OWE_SYN = 0x02,   /* SYN, or SYN-ACK in SYN-RECEIVED */
    OWE_RST = 0x04,   /* the row is freed with it */
    OWE_DATA = 0x08,  /* look for lost and unsent data and FIN */
    OWE_PROBE = 0x10, /* zero-window probe */
    OWE_KEEPALIVE = 0x20,
    OWE_TAIL_PROBE = 0x80, /* RFC 8985 7 */
    OWE_WRITABLE = 0x40,   /* no packet: the user waits for slots or an extension */
};

struct tcb {
    /* What others may read, struct tcp_row_layout. */
    struct ip_addr raddr;
    uint16_t lport, rport; /* as in struct flow */
    uint32_t snd_nxt, rcv_nxt;
    union {
        uint16_t laddr_word;
        struct {
            uint16_t laddr_index : 4;  /* the low bits, which others read */
            uint16_t retransmits : 12; /* segments sent again before the extension was lent; TCB_RETRANSMITS_MAX */
        };
    };
    uint8_t state; /* enum tcp_state */

    uint8_t events;              /* enum tcp_event_kind, not yet taken */
    uint32_t flags;              /* enum tcb_flag */
    uint16_t smss;               /* payload of a full segment, timestamps taken off */
    uint8_t settings;            /* index into the stack's */
    uint8_t remote_user_timeout; /* as settings.c writes it; 0: none */
    uint64_t user;

    uint32_t snd_una, snd_wnd;
    uint32_t snd_wl1;       /* SND.WL2 is not kept: an ACK below SND.UNA never updates the window */
    uint32_t rcv_adv;       /* right edge of the window as advertised: RCV.NXT + RCV.WND */
    uint32_t last_ack_sent; /* RFC 7323 4.3 */
    uint32_t ts_recent, ts_recent_age_ms;
    struct cc_window cc;
    struct rtt rtt;
    uint32_t ext; /* lines of 64 bytes from the slab to it, or TCB_NO_EXT */
    uint32_t output_next, event_next;
    uint32_t idle_deadline; /* keepalive or FIN-WAIT-2, as all deadlines in ms, 0: none */
    struct wheel_node timer;
    uint8_t challenged_128ms;                  /* last limited ACK, 0: none yet */
    uint8_t cc_memory;                         /* of the congestion control, between two loans of the extension */
    uint16_t validated_s;                      /* when cwnd was last used (RFC 7661), when not TCB_QUICK_ACK */
    uint8_t owe;                               /* enum tcb_owe */
    uint8_t backoff : 4;                       /* timeouts in a row */
    uint8_t unanswered : 4;                    /* timeouts and probes since the peer was last heard */
    uint8_t snd_wind_shift : 4, rcv_level : 4; /* the receive buffer has doubled so often (window.h) */
    uint8_t error;                             /* errno that ended the connection */
};
static_assert(sizeof(struct tcb) <= 128, "two cache lines per idle connection");
static_assert(TCP_ADDRESSES_MAX <= 16, "laddr_index has four bits");
enum { TCB_RETRANSMITS_MAX = 4095 };
#define TCB_NO_EXT UINT32_MAX

/* After a timeout, until it is known whether it was a spurious one (RFC 5682 2.1). */
enum frto {
    FRTO_NO,
    FRTO_RESENT,   /* the first segment is out again, and nothing else is judged lost */
    FRTO_NEW_DATA, /* its ACK has come, and new segments went out */
};

/* Borrowed while it is needed.  What each packet touches comes first. */
struct tcb_ext {
    _Alignas(64) uint32_t tx_first; /* queued and unacknowledged slots in order, TCP_NO_SLOT: none */
    uint32_t tx_last;
    uint32_t tx_unsent;         /* first of them never sent */
    uint32_t tx_lost;           /* no lost slot comes before this one */
    uint32_t tx_end;            /* sequence number behind the last queued byte */
    uint32_t rx_first, rx_last; /* received in order and unread */
    uint32_t rx_bytes;
    uint32_t sacked_bytes, lost_bytes; /* sent and SACKed; sent, lost and not sent again */
    uint32_t max_snd_wnd;              /* SND.WND's maximum, RFC 9293 3.8.6.2.1 */
    uint32_t ts_base;                  /* added to the clock to give TSval */
    uint32_t rtx_deadline;             /* retransmission, or persist when nothing is in flight */
    uint32_t ack_deadline;             /* delayed ACK */
    uint32_t rack_deadline; /* reordering timer or tail loss probe; nothing in flight: how long this is kept */
    uint32_t more_acks;     /* duplicate ACKs owed beyond the one that OWE_ACK stands for */

    struct reasm reasm;
    uint16_t rmss;               /* largest payload received */
    uint16_t tx_slots, rx_slots; /* rx_slots without those in reasm */
    uint16_t dupacks;
    uint32_t dsack_begin, dsack_end;    /* received twice and not yet reported; equal: none */
    uint32_t rack_sent_us, rack_end;    /* of the latest sent segment that was delivered (RFC 8985 5.2) */
    uint32_t rack_rtt_us;               /* its round trip */
    uint32_t rack_min_rtt_us;           /* UINT32_MAX: not measured */
    uint32_t rack_fack;                 /* highest sequence number delivered */
    uint32_t rack_fack_before;          /* the ACK that is now looked at */
    bool rack_started, rack_reordering; /* one was delivered; reordering was seen */
    bool undo;                          /* the reduction may turn out to be a mistake */
    bool round_begun;

    uint8_t frto : 4;                /* enum frto */
    uint8_t rated : 1;               /* delivery rates are measured (rate.h) */
    uint8_t frto_credit;             /* new segments that may go whatever cwnd says */
    uint16_t pmtu_probe;             /* payload of the probe that is out, 0: none */
    uint16_t pmtu_high;              /* search of RFC 4821 goes up to here, 0: none */
    uint16_t pmtu_former;            /* full segment before the path was found to be narrower, 0: it was not */
    uint16_t pmtu_claim;             /* full segment by a router's word that is not yet believed, 0: none */
    bool snd_urgent;                 /* urgent data ends at snd_up, and is not known to have come */
    uint32_t round_end, round_bytes; /* SND.NXT at its beginning; acknowledged since */
    uint32_t pipe_ack, pipe_ack_ms;  /* RFC 7661 4.2, and when it was measured; 0: not yet */
    uint32_t prr_delivered, prr_out, recover_fs; /* RFC 6937 3 */
    uint32_t undo_begin;                         /* SND.UNA when cwnd was reduced */
    uint32_t undo_segments;                      /* sent again since then and not known to be needless */
    uint32_t retransmits;                        /* segments sent again, those of earlier loans included */
    uint32_t recovery_point;
    uint32_t cwr_point; /* an ECE that acknowledges more than this asks for another reduction */
    uint32_t probe_end;
    uint32_t snd_sml;                 /* behind the latest segment sent that was not full; not in flight: none is */
    uint32_t stalled_since_ms;        /* at timeouts: since when nothing got through; 0: when the timer began */
    uint32_t slow_since_ms, slow_una; /* SND.UNA then; while the window is closed or cuts segments short (timers.c) */
    uint32_t rcv_mark, rcv_mark_us;   /* right edge at the beginning of a round of receiving, and when that was */
    uint32_t rcv_round_us;            /* the shortest round; 0: none yet */
    bool rcv_round;                   /* one is on (window.h) */

    struct cc_state cc;
    uint32_t pace_us, pace_deadline; /* low bits of the time when the next segment is due; when TCB_PACED */
    uint32_t rack_dsack_round;       /* until SND.UNA is here, another D-SACK does not widen the window again */
    uint8_t rack_mult, rack_persist; /* of the reordering window, 0 stands for 1; recoveries that it stays so for */
    uint8_t resent;                  /* timeouts of what is in flight since SND.UNA moved; while backoff is not 0 */
    uint8_t pmtu_tries;              /* lost probes of this size */
    bool pmtu_halve;                 /* the whole way did not work */
    uint32_t pmtu_wait_ms;           /* the search goes on not before, 0: at once */
    uint32_t pmtu_claim_seq;         /* of the segment that it is about */
    uint32_t pmtu_probe_seq;
    uint32_t fin_seq, fin_tsval;               /* when TCB_FIN_AHEAD */
    bool urgent;                               /* the peer has said that urgent data ends at urgent_end */
    uint32_t urgent_end;                       /* RCV.UP */
    uint32_t snd_up;                           /* SND.UP, when snd_urgent */
    uint32_t steps_ms, sack_steps, rack_steps; /* through the queue, in this millisecond (sack.h) */
    uint32_t sack_hint, sack_hint_seq; /* the slot that was SACKed last, while its number is not below SND.UNA */
    struct tcp_sack_block sack_seen[TCP_SACK_BLOCKS_MAX]; /* of the last ACK that had some */
};

enum tx_flag {
    TX_SENT = 0x01,
    TX_SACKED = 0x02,
    TX_LOST = 0x04,          /* to be sent again */
    TX_RETRANSMITTED = 0x08, /* gives no RTT sample (Karn) */
    TX_MARKED = 0x10,        /* has its mark for rate.h, */
    TX_APP_LIMITED = 0x20,   /* and was sent when the user had been the limit */
};

/* Metadata of one TX slot while it is queued. */
struct tx_slot {
    uint32_t next; /* slot, or TCP_NO_SLOT */
    uint32_t seq;
    uint32_t sent_us;     /* low bits of the time of the last transmission */
    uint16_t offset, len; /* of the payload in the slot */
    uint8_t flags;        /* enum tx_flag */
};

struct half_open {
    struct ip_addr raddr;
    uint16_t lport, rport;
    uint32_t iss, irs, ts_recent;
    uint32_t prev, next; /* in its queue, HALF_OPEN_NONE: none */
    uint32_t deadline;
    uint16_t mss : 11, agreed : 3, retries : 2; /* agreed: TCB_SACK, TCB_TIMESTAMPS and TCB_ECN, shifted down by one */
    uint8_t laddr_index : 4, wscale : 4;        /* wscale 15: not offered */
    uint8_t listener;
};
static_assert(sizeof(struct half_open) <= 48, "SYN-RECEIVED is compact");

struct time_wait {
    struct ip_addr raddr;
    uint16_t lport, rport;
    uint32_t snd_nxt, rcv_nxt, ts_recent;
    uint32_t prev, next;
    uint32_t deadline;
    uint16_t wnd; /* as on the wire */
    uint8_t laddr_index : 4, timestamps : 1;
    uint8_t settings;
};
static_assert(sizeof(struct time_wait) <= 48, "TIME-WAIT is compact");
#define BLOCK_NONE UINT32_MAX

struct tcp_stack;

/* A row in state CLOSED, zeroed, with these settings; TCP_NO_CONN when there is none. */
uint32_t tcb_take(struct tcp_stack *s, uint8_t settings);

/* Takes t out of table, timers and slots and frees its row.  The user knows nothing of it any more. */
void tcb_free(struct tcp_stack *s, struct tcb *t);

/* Ends t with an error (0: in order): nothing is sent or received any more.  The row stays for a user who holds it. */
void tcb_end(struct tcp_stack *s, struct tcb *t, int error);

/* The same, and RST goes out.  The row of an orphan is freed when it is sent. */
void tcb_reset(struct tcp_stack *s, struct tcb *t, int error);

/* Takes t's handle out of the table, its timers off the wheel, and gives its slots back; those received in order only if
 * keep_unread is false. */
void tcb_detach(struct tcp_stack *s, struct tcb *t, bool keep_unread);

void tcb_set_state(struct tcp_stack *s, struct tcb *t, enum tcp_state state);

/* The extension, borrowed when there is none yet; null when the slab is empty. */
struct tcb_ext *tcb_borrow_ext(struct tcp_stack *s, struct tcb *t);

/* Gives the extension back if nothing needs it.  Who waits for tcp_output() has it done there: he may need it again by then. */
void tcb_try_return_ext(struct tcp_stack *s, struct tcb *t);
static inline void tcb_return_ext(struct tcp_stack *s, struct tcb *t)
{
    if (t->ext != TCB_NO_EXT && !(t->flags & TCB_IN_OUTPUT))
        tcb_try_return_ext(s, t);
}

/* Marks what is owed and puts t on the output list. */
void tcb_owe(struct tcp_stack *s, struct tcb *t, uint8_t owe);

/* News for the user; an orphan has none. */
void tcb_event(struct tcp_stack *s, struct tcb *t, uint8_t kinds);

void tcb_flow(const struct tcp_stack *s, const struct tcb *t, struct flow *flow);
uint32_t tcb_table_hash(const struct tcp_stack *s, const struct tcb *t);

/* TSval for t now (RFC 7323 3). */
uint32_t tcb_tsval(const struct tcp_stack *s, const struct tcb *t, uint64_t now_us);

#endif
