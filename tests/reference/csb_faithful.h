/*
 * csb_faithful.h: the paper's Consistent Stream Balancer as printed, in scalar C: the baseline of the benchmarks.
 *
 * The same form as csb_faithful.py, which is its twin: a lookup asks Set_fly, then H_diff if BF says yes, else H_new; a
 * successor on a circle is inclusive and wraps.  As printed, an update can reset live connections: it is no product.
 */
#ifndef CSB_FAITHFUL_H
#define CSB_FAITHFUL_H

#include <stdbool.h>
#include <stdint.h>

#define FAITHFUL_NO_TID UINT32_MAX

struct faithful_point { /* the paper's 8 bytes */
    uint32_t point;
    uint32_t tid;
};

struct faithful_circle {
    struct faithful_point *points; /* sorted by point */
    uint32_t count;
};

/* BF: hash_count bits of bit_count per key, murmur3 of the key's four bytes with seeds 0, 1, ... */
struct faithful_bloom {
    uint8_t *bits;
    uint32_t bit_count;
    uint32_t hash_count;
};

/* A set of keys with open addressing: Set_fly. */
struct faithful_set {
    uint64_t *cells; /* 0: free, else key + 1 */
    uint32_t size;   /* a power of two, or 0 */
    uint32_t count;
};

/* A row of a thread's table: the 4-tuple and its key, dense. */
struct faithful_connection {
    uint32_t raddr;
    uint16_t rport, lport;
    uint32_t key;
    uint32_t tid;
};

struct faithful_csb {
    struct faithful_circle h_new, h_diff; /* in force */
    struct faithful_bloom bf;
    struct faithful_set set_fly;
    struct faithful_circle next_h_new, next_h_diff; /* of the update that runs */
    struct faithful_bloom next_bf;
    struct faithful_set flying;
    struct faithful_point *set_diff;
    uint32_t set_diff_count, set_diff_room;
    bool is_open; /* step 2 has been taken, step 6 has not */
};

/* points need not be sorted and stay the caller's. */
void faithful_init(struct faithful_csb *csb, const struct faithful_point *points, uint32_t count);
void faithful_free(struct faithful_csb *csb);

/* The thread of a packet; a SYN while an update runs is noted in Set_fly.  FAITHFUL_NO_TID: no points. */
uint32_t faithful_lookup(struct faithful_csb *csb, uint32_t key, bool is_syn);

/* The six steps, in this order.  Steps 3 and 4 are called once per table. */
void faithful_step_1_place(struct faithful_csb *csb, const struct faithful_point *points, uint32_t count,
                           uint32_t bit_count, uint32_t hash_count);
void faithful_step_2_open(struct faithful_csb *csb);
void faithful_step_3_filter(struct faithful_csb *csb, const struct faithful_connection *table, uint32_t count);
void faithful_step_4_collect(struct faithful_csb *csb, const struct faithful_connection *table, uint32_t count);
void faithful_step_5_merge(struct faithful_csb *csb);
void faithful_step_6_publish(struct faithful_csb *csb);

uint32_t faithful_circle_owner(const struct faithful_circle *circle, uint32_t key);
bool faithful_bloom_has(const struct faithful_bloom *bf, uint32_t key);
bool faithful_set_has(const struct faithful_set *set, uint32_t key);

#endif
