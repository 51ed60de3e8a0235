/*
 * rows.h: an app's connection rows, read as untrusted data through the layout that its HELLO gave.
 *
 * They lie in a file that the app may write and punch holes in at any time.  They are read by pread(), some at a time, into a private
 * window, and judged there: a row whose address or ports are outside the lease is no row, nor is one in a hole.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_ROWS_H
#define DPDK_GLUE_ROWS_H

#include "dpdk_glue/glue.h"
#include "dpdk_glue/txcheck.h"

#include <stdbool.h>
#include <stdint.h>

/* The states whose peer is to be told when the app dies (enum tcp_state): SYN_RECEIVED to LAST_ACK. */
enum { ROWS_RESET_FIRST = 4, ROWS_RESET_LAST = 10 };

enum { ROWS_WINDOW_BYTES = 64 << 10 };
enum rows_verdict { ROWS_FREE, ROWS_OUTSIDE, ROWS_OK };

struct rows {
    int fd; /* of the file */
    uint32_t count;
    struct glue_row_layout layout;
    const struct txcheck_lease *lease;
};

/* The layout's fields lie in the row and the row in its bounds. */
bool rows_layout_is_sound(const struct glue_row_layout *layout);

/* Rows as they were when one of them was first asked for; zero: none. */
struct rows_window {
    uint32_t first, count;
    uint8_t bytes[ROWS_WINDOW_BYTES];
};

/* Row number i, below r->count, as the window has it or gets it; out is filled when ROWS_OK.  What cannot be read is free. */
enum rows_verdict rows_read(const struct rows *r, struct rows_window *w, uint32_t i, struct glue_row *out);

#endif
