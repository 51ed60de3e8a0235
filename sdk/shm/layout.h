/*
 * layout.h: the ABI between janusd and one TCP thread, in one file.
 *
 *   J2A, written by janusd, read-only for the app          A2J, written by the app, read-only for janusd
 *   +--------------------------------------------+         +--------------------------------------------+
 *   | struct shm_j2a_header            4 KiB     |         | struct shm_a2j_header            4 KiB     |
 *   | io 0: rx ring | tx_done ring               |         | io 0: tx ring | rx_return ring             |
 *   | io 1: ...                                  |         | io 1: ...                                  |
 *   | RX slots, 2 KiB each; io i owns a run      |         | TX slots, 2 KiB each                       |
 *   +--------------------------------------------+         +--------------------------------------------+
 *
 *   rows, a memory file that the app maps and punches holes in, and janusd reads by pread() but never maps
 *   +--------------------------------------------+
 *   | TCB rows; a hole is rows of zeros: free    |
 *   +--------------------------------------------+
 *
 * One of each per (app, tid), made by janusd, used once.  Each side publishes its own indices in its own region
 * and keeps private shadows.  All offsets are given to the app in WELCOME and are the same numbers that shm_layout() computes on
 * both sides; neither side ever reads them back from shared memory.  Knows nothing of TCP, DPDK or Python.
 */
#ifndef SHM_LAYOUT_H
#define SHM_LAYOUT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SHM_ABI_MAJOR = 2,
    SHM_ABI_MINOR = 2,
    SHM_SLOT_BYTES = 2048,
    SHM_SLOT_HEADROOM = 128, /* free bytes in front of a received packet, and in front of a built one */
    SHM_IO_MAX = 8,          /* I/O threads */
    SHM_TID_MAX = 256,       /* TCP threads of one app */
    SHM_SLOTS_MAX = 1 << 20,
    SHM_ROW_STRIDE_MAX = 1024,
    SHM_CACHE_LINE = 64,
};

#define SHM_J2A_MAGIC UINT32_C(0x4a324131) /* "J2A1" */
#define SHM_A2J_MAGIC UINT32_C(0x41324a31) /* "A2J1" */
#define SHM_NO_SLOT   UINT32_MAX

/* What a descriptor means.  Kinds are added at the end; an unknown kind is a violation. */
enum shm_desc_kind {
    /* RX: an IP packet for this thread, TCP or an ICMP error that quotes a flow of it.  TX: an IP packet to send */
    SHM_DESC_PACKET = 1,
    SHM_DESC_RETURN = 2, /* rx_return, tx_done: the slot goes back to its owner */
    SHM_DESC_MARKER = 3, /* RX: a CSB update's; slot is the low half of its attempt, hash its enum csb_marker */
};

enum shm_desc_flag {
    SHM_DESC_VERIFIED = 0x01,      /* RX: lengths, addresses and all checksums are verified */
    SHM_DESC_DROPPED = 0x02,       /* tx_done: refused or lost; counted */
    SHM_DESC_NEED_CHECKSUM = 0x04, /* TX: the TCP checksum holds the pseudo-header sum, the port completes it */
    SHM_DESC_HASHED = 0x08 /* RX: the low half of csb_hash() of the flow lies in the 4 bytes behind the packet */
};

/* The same 16 bytes in every ring. */
struct shm_desc {
    uint32_t slot;   /* index in its region */
    uint16_t offset; /* of the IP header in the slot */
    uint16_t len;    /* bytes of the IP packet */
    uint32_t hash;   /* RX: csb_table_hash() of the flow */
    uint16_t
        generation; /* RX: of the slot, to be given back with it; TX, tx_done: the app's own, given back unchanged */
    uint8_t kind;   /* enum shm_desc_kind */
    uint8_t flags;  /* enum shm_desc_flag */
};
static_assert(sizeof(struct shm_desc) == 16, "four descriptors to a cache line");

/* An index that one side writes and the other reads, alone in its cache line.  Free-running. */
struct shm_index {
    _Alignas(SHM_CACHE_LINE) uint32_t value;
};

struct shm_j2a_io {
    struct shm_index rx_head;        /* janusd has produced RX descriptors up to here */
    struct shm_index tx_tail;        /* janusd has consumed TX descriptors up to here */
    struct shm_index tx_done_head;   /* janusd has produced TX completions up to here */
    struct shm_index rx_return_tail; /* janusd has consumed RX returns up to here */
    struct shm_index io_sleeping;    /* 1: this I/O thread is about to sleep, ring its doorbell after pushing */
};

struct shm_a2j_io {
    struct shm_index tx_head;        /* the app has produced TX descriptors up to here */
    struct shm_index rx_tail;        /* the app has consumed RX descriptors up to here */
    struct shm_index rx_return_head; /* the app has produced RX returns up to here */
    struct shm_index tx_done_tail;   /* the app has consumed TX completions up to here */
};

struct shm_j2a_header {
    uint32_t magic;
    uint16_t abi_major, abi_minor;
    uint32_t generation;         /* of the session */
    uint32_t closed;             /* janusd has ended the session: enum shm_close in drops.def's terms, 0 while open */
    uint16_t io_cpu[SHM_IO_MAX]; /* 1 + the CPU that the I/O thread has run on lately; 0: not known */
    _Alignas(SHM_CACHE_LINE) uint64_t heartbeat; /* counted up by the I/O threads about every 10 ms */
    _Alignas(SHM_CACHE_LINE) struct shm_j2a_io io[SHM_IO_MAX];
};
static_assert(sizeof(struct shm_j2a_header) <= 4096, "one page");

struct shm_a2j_header {
    uint32_t magic;
    uint32_t generation;
    struct shm_index app_sleeping; /* 1: the thread is about to sleep, ring its doorbell after pushing */
    struct shm_index heartbeat;    /* loop turns: a stall metric, never a reason to kill */
    struct shm_index rows_used;    /* TCB rows [0, rows_used) have ever been in use */
    _Alignas(SHM_CACHE_LINE) struct shm_a2j_io io[SHM_IO_MAX];
    _Alignas(SHM_CACHE_LINE)
        uint64_t counters[SHM_CACHE_LINE]; /* the thread's own counters, for the stats page; untrusted */
    /* How long the thread has worked, in microseconds of CLOCK_MONOTONIC: what the balancer evens out; untrusted. */
    _Alignas(SHM_CACHE_LINE) uint64_t busy_us; /* all turns that found work, up to the one that runs now */
    uint64_t busy_since_us;                    /* when that one began, if it found work; else 0 */
    uint64_t csb_closed;                       /* flows that have ended where the circle gives their keys to others */
    uint64_t csb_held_us;      /* the longest part of a turn that an update of the balancer took, processor time */
    uint64_t csb_held_wall_us; /* the same by the clock */
};
static_assert(sizeof(struct shm_a2j_header) <= 4096, "one page");

/* Where janusd finds what it needs in a TCB row to list a connection and to reset it (RFC 9293 3.10.7.1) when the app has
 * died.  Offsets in bytes from the row's first byte; rows are read as untrusted data. */
struct shm_row_layout {
    uint16_t stride;      /* 64 to SHM_ROW_STRIDE_MAX, a multiple of 8 */
    uint16_t state;       /* uint8_t: 0 is a free row, else RFC 9293's states in enum tcp_state's order */
    uint16_t raddr;       /* 16 bytes, struct ip_addr */
    uint16_t rport;       /* uint16_t, host order */
    uint16_t lport;       /* uint16_t, host order */
    uint16_t laddr_index; /* uint16_t, whose low four bits are the index into the lease's addresses */
    uint16_t snd_nxt;     /* uint32_t */
    uint16_t rcv_nxt;     /* uint32_t */
};
static_assert(sizeof(struct shm_row_layout) == 16, "part of HELLO");

/* All that decides the sizes. */
struct shm_sizes {
    uint32_t io_count;        /* 1 to SHM_IO_MAX */
    uint32_t rx_slots_per_io; /* power of two, 64 to SHM_SLOTS_MAX */
    uint32_t tx_slots;        /* power of two, 64 to SHM_SLOTS_MAX */
    uint32_t rows;            /* 1 to 2^30 */
    uint32_t row_stride;      /* of struct shm_row_layout */
};

/* Byte offsets into the regions.  rx, rx_return: rings of 2 * rx_slots_per_io and rx_slots_per_io descriptors (markers need
 * room beside packets); tx, tx_done: rings of tx_slots descriptors. */
struct shm_offsets {
    uint64_t j2a_bytes, a2j_bytes, rows_bytes; /* multiples of 2 MiB */
    uint64_t rx[SHM_IO_MAX], tx_done[SHM_IO_MAX], rx_slots;
    uint64_t tx[SHM_IO_MAX], rx_return[SHM_IO_MAX], tx_slots;
};

/* Computes the layout.  False: a size is out of its range. */
bool shm_layout(const struct shm_sizes *sizes, struct shm_offsets *out);

/* RX slot s belongs to I/O thread s / rx_slots_per_io. */

#endif
