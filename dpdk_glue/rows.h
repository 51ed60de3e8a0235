/*
 * rows.h: an app's connection rows, read as untrusted data through the layout that its HELLO gave.
 *
 * Every field is loaded once into a private copy and checked there: a row whose address or ports are outside the lease is no
 * row.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_ROWS_H
#define DPDK_GLUE_ROWS_H

#include "dpdk_glue/glue.h"
#include "dpdk_glue/txcheck.h"

#include <stdbool.h>
#include <stdint.h>

/* The states whose peer is to be told when the app dies (enum tcp_state): SYN_RECEIVED to LAST_ACK. */
enum { ROWS_RESET_FIRST = 4, ROWS_RESET_LAST = 10 };

enum rows_verdict { ROWS_FREE, ROWS_OUTSIDE, ROWS_OK };

struct rows {
    const uint8_t *base; /* in A2J */
    uint32_t count;
    struct glue_row_layout layout;
    const struct txcheck_lease *lease;
};

/* The layout's fields lie in the row and the row in its bounds. */
bool rows_layout_is_sound(const struct glue_row_layout *layout);

/* Copies row number i, below count; out is filled when ROWS_OK. */
enum rows_verdict rows_read(const struct rows *r, uint32_t i, struct glue_row *out);

#endif
