/*
 * rows.c: read first, judge what was read.
 */
#include "dpdk_glue/rows.h"

#include "shm/attach.h"
#include "shm/layout.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { ROW_STRIDE_MIN = 64 };

static bool within(const struct glue_row_layout *layout, uint32_t offset, uint32_t bytes)
{
    return offset + bytes <= layout->stride;
}

bool rows_layout_is_sound(const struct glue_row_layout *layout)
{
    return layout->stride >= ROW_STRIDE_MIN && layout->stride <= SHM_ROW_STRIDE_MAX && layout->stride % 8 == 0 &&
           within(layout, layout->state, 1) && within(layout, layout->raddr, 16) && within(layout, layout->rport, 2) &&
           within(layout, layout->lport, 2) && within(layout, layout->laddr_index, 2) &&
           within(layout, layout->snd_nxt, 4) && within(layout, layout->rcv_nxt, 4);
}

static void fill_window(const struct rows *r, struct rows_window *w, uint32_t first)
{
    uint32_t room = ROWS_WINDOW_BYTES / r->layout.stride, left = r->count - first;
    size_t bytes, at = 0;

    w->first = first;
    w->count = left < room ? left : room;
    bytes = (size_t)w->count * r->layout.stride;
    while (at < bytes) {
        ssize_t n = pread(r->fd, w->bytes + at, bytes - at, (off_t)((uint64_t)first * r->layout.stride + at));

        if (n == 0 || (n < 0 && errno != EINTR)) {
            memset(w->bytes + at, 0, bytes - at);
            return;
        }
        at += n > 0 ? (size_t)n : 0;
    }
}

enum rows_verdict rows_read(const struct rows *r, struct rows_window *w, uint32_t i, struct glue_row *out)
{
    const struct glue_row_layout *l = &r->layout;
    struct ip_addr raddr;
    uint16_t laddr_index;

    if (i < w->first || i - w->first >= w->count)
        fill_window(r, w, i);
    const uint8_t *row = w->bytes + (size_t)(i - w->first) * l->stride;
    *out = (struct glue_row){.row = i, .state = row[l->state]};
    if (out->state == 0)
        return ROWS_FREE;
    memcpy(&raddr, row + l->raddr, sizeof raddr);
    memcpy(&out->rport, row + l->rport, sizeof out->rport);
    memcpy(&out->lport, row + l->lport, sizeof out->lport);
    memcpy(&laddr_index, row + l->laddr_index, 2);
    laddr_index &= ATTACH_ADDRESSES_MAX - 1; /* the rest is the app's own */
    memcpy(&out->snd_nxt, row + l->snd_nxt, sizeof out->snd_nxt);
    memcpy(&out->rcv_nxt, row + l->rcv_nxt, sizeof out->rcv_nxt);

    if (laddr_index >= r->lease->address_count || out->rport == 0 || !txcheck_is_host(&raddr))
        return ROWS_OUTSIDE;
    const struct ip_addr *laddr = &r->lease->addresses[laddr_index];
    if (!txcheck_port_leased(r->lease, out->lport) || ip_addr_is_ipv4(laddr) != ip_addr_is_ipv4(&raddr))
        return ROWS_OUTSIDE;
    memcpy(out->laddr, laddr, sizeof out->laddr);
    memcpy(out->raddr, &raddr, sizeof out->raddr);
    return ROWS_OK;
}
