/*
 * attach.h: the messages on the attach socket (Unix, SOCK_SEQPACKET), fixed layouts, host byte order.
 *
 *   app                                  janusd
 *    | HELLO --------------------------->|  SO_PEERCRED, pidfd, policy, quotas
 *    |<-------- WELCOME + fds, or REFUSED |  J2A, A2J, rows, CSB region, app doorbell, io_count janusd doorbells
 *    | MAPPED -------------------------->|  late seals on J2A and A2J, pre-fault
 *    |<---------------------------- READY |
 *    | LISTEN/UNLISTEN ----------------->|  each answered by REPLY with the same seq
 *    | ONLINE -------------------------->|  the tid joins the circle; REPLY when it has its keys
 *    | LEAVE --------------------------->|  the tid gets no new connections; REPLY when it is so
 *    | BYE ----------------------------->|  orderly end; or the socket closes, or the pidfd fires
 *
 * One connection of this socket is one TCP thread (tid).  janusd accepts no file descriptor.  Any message that is not one of these, or
 * of another length, ends the session.
 */
#ifndef SHM_ATTACH_H
#define SHM_ATTACH_H

#include "shm/layout.h"

#define ATTACH_MAGIC UINT32_C(0x4a414e55) /* "JANU" */

enum {
    ATTACH_APP_NAME_BYTES = 32, /* NUL-terminated; [a-z0-9-], starts with a letter */
    ATTACH_TEXT_BYTES = 224,
    ATTACH_ADDRESSES_MAX = 16,
    ATTACH_FDS_MAX = 5 + SHM_IO_MAX,
    ATTACH_TOKEN_BYTES = 16,
};

enum attach_type {
    ATTACH_HELLO = 1,
    ATTACH_WELCOME = 2,
    ATTACH_REFUSED = 3,
    ATTACH_MAPPED = 4,
    ATTACH_READY = 5,
    ATTACH_LISTEN = 6,
    ATTACH_UNLISTEN = 7,
    ATTACH_ONLINE = 8,
    ATTACH_BYE = 9,
    ATTACH_REPLY = 10,
    ATTACH_LEAVE = 11,
    ATTACH_CSB_BEGIN = 12, /* with a descriptor of struct csb_plan */
    ATTACH_CSB_CHECK = 13, /* with a descriptor of a draft: struct csb_view */
    ATTACH_CSB_ABORT = 14,
    ATTACH_CSB_VIEW = 15, /* with a descriptor of struct csb_view */
    ATTACH_CSB_LIST = 16,
    ATTACH_CSB_DONE = 17,
};

/* Why janusd refuses; text in REFUSED and REPLY says it for a person, with what to mend. */
enum attach_status {
    ATTACH_OK = 0,
    ATTACH_BAD_MESSAGE = 1,
    ATTACH_ABI_MISMATCH = 2,
    ATTACH_NOT_ALLOWED = 3, /* no policy lets this uid run this app */
    ATTACH_QUOTA = 4,       /* threads, slots, rows or sessions */
    ATTACH_NO_MEMORY = 5,
    ATTACH_ADDRESS_NOT_LEASED = 6,
    ATTACH_PORT_NOT_LEASED = 7,
    ATTACH_PORT_TAKEN = 8, /* another app serves it */
    ATTACH_BAD_TOKEN = 9,
    ATTACH_SHUTTING_DOWN = 10,
    ATTACH_BUSY = 11, /* too many attaches are under way: try again soon */
};

struct attach_hello {
    uint32_t type, magic;
    uint16_t abi_major, abi_minor;
    uint16_t resume; /* 1: token names the session to go on with */
    uint16_t reserved;
    char app[ATTACH_APP_NAME_BYTES];
    uint8_t token[ATTACH_TOKEN_BYTES];
    uint32_t rows;            /* connections wanted; 0: the policy's default */
    uint32_t rx_slots_per_io; /* 0: default; rounded up to a power of two */
    uint32_t tx_slots;        /* 0: default */
    uint32_t reserved2;
    struct shm_row_layout row;
};
static_assert(sizeof(struct attach_hello) == 96, "ABI");

struct attach_welcome {
    uint32_t type, magic;
    uint16_t abi_major, abi_minor;
    uint16_t tid;
    uint16_t address_count;
    uint32_t generation;
    struct shm_sizes sizes;
    uint8_t token[ATTACH_TOKEN_BYTES];            /* for a later HELLO with resume */
    uint16_t source_port_first, source_port_last; /* for active opens; 0, 0: none allowed */
    uint16_t mtu;                                 /* of the port that serves these addresses, bytes of an IP packet */
    uint16_t port_flags;                          /* bit 0: the port completes TCP checksums */
    uint8_t addresses[ATTACH_ADDRESSES_MAX][16];  /* struct ip_addr; laddr_index counts in this list */
};
static_assert(sizeof(struct attach_welcome) == 320, "ABI");

struct attach_refused {
    uint32_t type;
    uint32_t status; /* enum attach_status */
    char text[ATTACH_TEXT_BYTES];
};

/* MAPPED, READY, ONLINE, LEAVE, BYE. */
struct attach_plain {
    uint32_t type;
    uint32_t seq;
    uint32_t generation;
    uint32_t reserved;
};

struct attach_listen {
    uint32_t type; /* LISTEN or UNLISTEN */
    uint32_t seq;
    uint8_t address[16]; /* struct ip_addr, or all zero: every address of the lease */
    uint16_t port;
    uint16_t reserved[3];
};
static_assert(sizeof(struct attach_listen) == 32, "ABI");

struct attach_reply {
    uint32_t type;
    uint32_t seq;
    uint32_t status; /* enum attach_status */
    uint32_t reserved;
    char text[ATTACH_TEXT_BYTES];
};
static_assert(sizeof(struct attach_reply) == 240, "ABI");

/* --- an update of the balancer (sdk/csb/update.h): the values that descriptors bring are sealed and never change ---
 *
 *   janusd: BEGIN + plan [CHECK + draft] VIEW + view, or ABORT at any time     app: LIST ... DONE, DONE ...
 */

enum { ATTACH_CSB_HASHES_MAX = 4096 }; /* of one LIST */

/* CSB_BEGIN, CSB_CHECK, CSB_ABORT, CSB_VIEW from janusd; CSB_DONE from the app, bytes and ios 0. */
struct attach_csb {
    uint32_t type;
    uint32_t
        phase; /* DONE: enum csb_phase, 0: this attempt cannot be.  VIEW: 1 when exceptions of flagged slots are unknown */
    uint64_t attempt; /* VIEW: the update that it ends, 0: in force at once */
    uint64_t bytes;   /* of the value */
    uint64_t ios;     /* BEGIN: a bit per I/O thread that sends markers */
};
static_assert(sizeof(struct attach_csb) == 32, "ABI");

/* CSB_LIST: flows that this thread has and the update concerns; the message ends behind the last hash. */
struct attach_csb_list {
    uint32_t type;
    uint32_t count;
    uint64_t attempt;
    uint64_t hashes[ATTACH_CSB_HASHES_MAX];
};

#endif
